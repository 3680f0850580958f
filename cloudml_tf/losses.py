"""The variance-preserving loss: an ordinary regression loss plus a penalty on predictions that spread too little.

    loss = base + λ (1 - var(p) / (var(t) + 1e-8))²

with λ = 0.5, is the loss of the reference recipe (the training recipe that docs/reproduction.md repeats). What it is
good for, and what it is not, follows from the identity R² = r² - (s - r)² - (bias/std t)²: pushing s = std(p)/std(t)
towards 1 is free only once r is high. Two facts decide how it is used here. Its gradient vanishes when all predictions
are equal, so it keeps variance rather than makes it.
And the variance of a batch is noisy (relative std √(2/(n-1)): 25 % at n = 32), which is why our configurations divide
by the training set's variance, a constant, instead of the batch's.

The other forms of the penalty, each measured in docs/losses.md:

    variance  (1 - s²)²              the reference recipe's
    std       (1 - s)²               a push that does not fade at collapse
    log       (ln s)²                equal for half and for double; strongest at collapse
    hinge     max(0, γ - s)          nothing once s is γ; never pulls s down
    ccc       1 - 2rs/(1 + s² + b²)  one minus the concordance (Lin 1989): its gradient points at the targets
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn.arguments import as_number, is_text, is_true, number, whole
from cloudml_tf.nn.backend import keras_mask, sum_over_replicas
from cloudml_tf.nn.heads import POINT, quantile_levels
from cloudml_tf.nn.saved import Saved, register

Across = Callable[[Sequence[Any]], list[Any]]  # sums of one replica, scalars -> the same sums over all replicas
BASES = ("mse", "mae", "huber", "mse_mae")
FORMS = ("variance", "ccc", "log", "std", "hinge")
_WIDE = ("float32", "float64")


def base_error(error: Any, base: str, delta: float = 1.0, mae_fraction: float = 0.5) -> Any:
    """The element-wise regression loss of an error of any shape.

    mse: e² · mae: |e| · huber: e²/2 within `delta`, linear outside · mse_mae: the mixture (1-f) e² + f |e|.
    """
    size = ops.absolute(error)
    if base == "mse":
        return error * error
    if base == "mae":
        return size
    if base == "huber":
        return ops.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
    if base == "mse_mae":
        return (1.0 - mae_fraction) * error * error + mae_fraction * size
    raise ValueError(f"The base loss must be one of {', '.join(BASES)}. Received: {base!r}")


class Spread(NamedTuple):
    """Means, unbiased variances and the covariance of targets t and predictions p. Scalars."""

    mean_t: Any
    mean_p: Any
    var_t: Any
    var_p: Any
    cov: Any


class Totals(NamedTuple):
    """Plain sums over a batch of weights w, targets t and predictions p, and the number of values. Scalars."""

    values: Any
    present: Any  # values of a weight above 0
    weight: Any  # Σ w
    squared_weight: Any  # Σ w²
    target: Any  # Σ w t
    prediction: Any  # Σ w p


def totals_of(target: Any, prediction: Any, weight: Any, across: Across = list) -> Totals:
    """The sums of a batch, (N,) each; over all replicas, with an `across` that adds sums up."""
    present = ops.cast(weight > 0, weight.dtype)
    sums = (ops.ones_like(weight), present, weight, weight * weight, weight * target, weight * prediction)
    return Totals(*across([ops.sum(x) for x in sums]))


def spread_of(target: Any, prediction: Any, weight: Any, across: Across = list, totals: Totals | None = None) -> Spread:
    """The moments of a batch, (N,) each. Unbiased (n - 1, like `torch.var` in the reference recipe); 0 for a single
    sample.

    With an `across` that adds sums up they are the moments over all replicas. Then, as on one device, the squares are
    summed about the mean of the whole batch: sums of squares about 0 would lose digits.
    """
    found = totals_of(target, prediction, weight, across) if totals is None else totals
    total = ops.maximum(found.weight, 1e-12)
    mean_t, mean_p = found.target / total, found.prediction / total
    # With equal weights this is n - 1; a batch of one has no degree of freedom left and gets 0, not NaN.
    freedom = total - found.squared_weight / total
    t, p = target - mean_t, prediction - mean_p
    sums = across([ops.sum(weight * product) for product in (t * t, p * p, t * p)])
    enough, freedom = freedom > 1e-6, ops.maximum(freedom, 1e-6)
    return Spread(mean_t, mean_p, *(ops.where(enough, x / freedom, ops.zeros_like(x)) for x in sums))


def pooled_spread(rows: Any, count: Any) -> Spread:
    """The moments of several batches as one, unbiased. (K, 5) rows of `Spread`, (K,) samples in each -> `Spread`."""
    total = ops.maximum(ops.sum(count), 1e-12)
    t, p = rows[:, 0], rows[:, 1]
    mean_t, mean_p = ops.sum(count * t) / total, ops.sum(count * p) / total
    inside, freedom = ops.maximum(count - 1.0, 0.0), ops.maximum(total - 1.0, 1.0)
    t, p = t - mean_t, p - mean_p

    def joined(column: int, between: Any) -> Any:
        return (ops.sum(inside * rows[:, column]) + ops.sum(count * between)) / freedom

    return Spread(mean_t, mean_p, joined(2, t * t), joined(3, p * p), joined(4, t * p))


def penalty(form: str, m: Spread, gamma: float = 1.0, floor: float = 1e-8) -> Any:
    """The penalty of a `form` (see the head of this file), a scalar; `floor` keeps 0/0 and ln 0 away."""
    if form == "variance":
        return ops.square(1.0 - m.var_p / (m.var_t + floor))
    if form == "ccc":
        return 1.0 - 2.0 * m.cov / (m.var_t + m.var_p + ops.square(m.mean_p - m.mean_t) + floor)
    squared_ratio = (m.var_p + floor) / (m.var_t + floor)
    if form == "log":
        return ops.square(0.5 * ops.log(squared_ratio))
    if form == "std":
        return ops.square(1.0 - ops.sqrt(squared_ratio))
    if form == "hinge":
        return ops.maximum(gamma - ops.sqrt(squared_ratio), 0.0)
    raise ValueError(f"The form of the penalty must be one of {', '.join(FORMS)}. Received: {form!r}")


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    if not is_text(value, allowed):
        raise ValueError(f"VariancePreservingLoss needs `{name}` to be one of {allowed}. Received: {name}={value!r}")
    return value


def _number(name: str, value: Any, rule: Callable[[float], bool], expected: str) -> float:
    return float(number("VariancePreservingLoss", name, value, rule, f"to be {expected}"))


def _target_variance(value: Any) -> str | float:
    if isinstance(value, str) and value == "batch":
        return value
    return _number("target_variance", value, lambda n: n > 0, '"batch" or above 0')


def _pool_size(value: Any) -> int:
    size = whole("VariancePreservingLoss", "pooled_batches", value, 1, "to be 1 or more")
    if size > 1 and keras.backend.backend() == "jax":
        raise ValueError(
            "VariancePreservingLoss needs `pooled_batches` to be 1 on JAX, whose compiled steps keep no state in a "
            f"loss. Received: pooled_batches={value!r}"
        )
    return size


@register
class VariancePreservingLoss(keras.losses.Loss):
    """base + weight · penalty, by default (1 - var(p)/(var(t) + variance_floor))².

    Feed it a target in units of its standard deviation (our training does), so that `weight` means the same for
    every target. Each sample keeps its own base loss, and the penalty is added to every sample: the value of a
    batch is that of the reference recipe. Under a `tf.distribute` strategy the moments are those of the whole batch
    and not of a replica's share of it; Keras scales replicas as for any loss, so equal shares give the numbers of one
    device.

    `sample_weight` multiplies the base loss of its sample and, unless `weighted_moments` is off, counts that
    sample so many times in the moments; it does not scale the penalty. It may be (B, K) like the target: a value
    of weight 0 is left out, and the base loss is the mean over the others.

    With `pooled_batches` = k the penalty is that of the last k batches together, and its gradient that of this
    batch: the gradient's size is steadier, its direction is the batch's own. `cloudml_tf.callbacks.PenaltySchedule`
    keeps validation batches out of the pool; without that callback they enter it.

    Args:
        base: "mse", "mae", "huber" or "mse_mae".
        weight: λ, 0 or more. 0 is the plain base loss. Assigning to `loss.weight` takes effect in a running
            training (on JAX once its step is compiled again); `PenaltySchedule` does so epoch by epoch.
        form: "variance" (the reference recipe's), "ccc", "log", "std" or "hinge".
        target_variance: "batch" (the reference recipe), or a number above 0: the training set's variance, in the
            units of the target (1.0 for a standardised target).
        variance_floor: added to variances before dividing.
        delta: where the Huber loss turns linear.
        mae_fraction: the share of |e| in "mse_mae", 0 to 1.
        gamma: the ratio s at which "hinge" ends, above 0.
        clip: the highest penalty; a batch beyond it (neighbouring frames, with next to no variance) pushes no
            further.
        pooled_batches: how many batches enter the penalty, 1 or more; not on JAX, where a loss keeps no state.
        weighted_moments: whether sample weights enter the moments.
        across: adds up a list of scalars over all replicas of a batch, and passes gradients through; None is
            `nn.backend.sum_over_replicas`. Not kept by `get_config`.
        reduction, name, dtype: as in every Keras loss.
    """

    bases: tuple[str, ...] = BASES  # the allowed values of `base`

    def __init__(
        self,
        base: str = "mse",
        weight: float = 0.5,
        form: str = "variance",
        target_variance: str | float = "batch",
        variance_floor: float = 1e-8,
        delta: float = 1.0,
        mae_fraction: float = 0.5,
        gamma: float = 1.0,
        clip: float | None = None,
        pooled_batches: int = 1,
        weighted_moments: bool = True,
        across: Across | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "variance_preserving_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.base, self.form = _one_of("base", base, self.bases), _one_of("form", form, FORMS)
        self.target_variance = _target_variance(target_variance)
        self.variance_floor = _number("variance_floor", variance_floor, lambda n: n >= 0, "0 or more")
        self.delta = _number("delta", delta, lambda n: n > 0, "above 0")
        self.mae_fraction = _number("mae_fraction", mae_fraction, lambda n: 0 <= n <= 1, "between 0 and 1")
        self.gamma = _number("gamma", gamma, lambda n: n > 0, "above 0")
        self.clip = None if clip is None else _number("clip", clip, lambda n: n > 0, "above 0, or None")
        self.pooled_batches = _pool_size(pooled_batches)
        self.weighted_moments = is_true("VariancePreservingLoss", "weighted_moments", weighted_moments)
        self.across = sum_over_replicas if across is None else across
        self._initial_weight = self._lambda(weight)
        self._weight = keras.Variable(self._initial_weight, trainable=False, dtype="float32", name="penalty_weight")
        self._pool = _Pool(self.pooled_batches) if self.pooled_batches > 1 else None

    @staticmethod
    def _lambda(value: Any) -> float:
        return _number("weight", value, lambda n: n >= 0, "0 or more")

    @property
    def weight(self) -> float:
        """The current λ."""
        return float(keras.ops.convert_to_numpy(self._weight))

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight.assign(self._lambda(value))

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The reduced loss. `y_true` and `y_pred` are (B,), (B, 1) or (B, ...); `sample_weight` is (B,) or as them, or
        as their first axes, such as (B, T) of (B, T, K). Keras's mask of `y_pred` counts as a weight of 0 or 1."""
        mask = keras_mask(y_pred)
        if sample_weight is None and mask is None:
            return super().__call__(y_true, y_pred)
        weights = tuple(part for part in (sample_weight, mask) if part is not None)
        # The weights travel beside the target: `Loss` would multiply the penalty by them too. In a tuple the
        # prediction has no mask, which `Loss` would apply to the losses of samples.
        return super().__call__((y_true, *weights), (y_pred,))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each sample, (B,). `y_true` may be a tuple (target, sample weight[, mask])."""
        base, added = self.terms(y_true, y_pred)
        return base + added

    def terms(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """The two terms separately: the base loss of each sample, (B,), and weight · penalty, a scalar."""
        y_true, *weights = y_true if isinstance(y_true, tuple | list) else (y_true,)
        (y_pred,) = y_pred if isinstance(y_pred, tuple | list) else (y_pred,)
        output = flat_samples(y_pred)  # (B, ·)
        point = self.point(output)  # (B, K)
        target = flat_samples(y_true, point)  # (B, K)
        _check_alike(y_true, y_pred, target, point)
        weight = ops.ones_like(point)
        for part in weights:
            weight = weight * flat_weights(part, y_pred, point)  # (B, 1) or (B, K)
        if weights:
            # Before anything is computed: 0 · NaN is NaN, and so would be the gradient.
            target, output = without_absent(target, weight), without_absent(output, self.weight_of(output, weight))
            point = self.point(output)
        t, p, w = (ops.reshape(x, (-1,)) for x in (target, point, weight))  # (B·K,)
        counted = w if self.weighted_moments else ops.cast(w > 0, w.dtype)
        totals = totals_of(t, p, counted, self.across)
        # As many values as there are samples, on average: a location without a label, of weight 0, does not count.
        columns = point.shape[1]
        columns = ops.cast(ops.shape(point)[1], totals.present.dtype) if columns is None else columns
        share = columns * totals.present / ops.maximum(totals.values, 1.0)
        base = ops.sum(weight * self.base_terms(target, output), axis=1) / ops.maximum(share, 1e-6)
        added = self._penalty(spread_of(t, p, counted, self.across, totals), totals.present)
        return base, ops.cast(self._weight, added.dtype) * added

    def point(self, output: Any) -> Any:
        """The prediction in the model's output. (B, ·) -> (B, K)."""
        return output

    def weight_of(self, output: Any, weight: Any) -> Any:
        """The weight of each column of the output, or one for all, from those of the predictions (B, K)."""
        return weight

    def base_terms(self, target: Any, output: Any) -> Any:
        """The base loss, element-wise. (B, K), (B, ·) -> (B, K)."""
        return base_error(output - target, self.base, self.delta, self.mae_fraction)

    def _penalty(self, m: Spread, count: Any) -> Any:
        if self._pool is not None:
            m = self._pool.add(m, count)
        if self.target_variance != "batch":
            m = m._replace(var_t=ops.cast(self.target_variance, m.var_p.dtype))
        value = penalty(self.form, m, self.gamma, self.variance_floor)
        return value if self.clip is None else ops.minimum(value, self.clip)

    def training_phase(self, training: bool) -> None:
        """Tell the pool whether the batches that follow are training batches; others leave it unchanged."""
        if self._pool is not None:
            self._pool.open.assign(float(training))

    def pool_state(self) -> list[Any]:
        """The pooled moments as arrays, for a checkpoint; empty without a pool."""
        return [] if self._pool is None else [ops.convert_to_numpy(v) for v in (self._pool.rows, self._pool.count)]

    def set_pool_state(self, state: list[Any]) -> None:
        """Restore a state of `pool_state`."""
        if self._pool is not None:
            self._pool.rows.assign(state[0])
            self._pool.count.assign(state[1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this loss; `weight` is the initial one."""
        names = ("base", "form", "target_variance", "variance_floor", "delta", "mae_fraction", "gamma", "clip")
        own = {name: getattr(self, name) for name in (*names, "pooled_batches", "weighted_moments")}
        return {**super().get_config(), "weight": self._initial_weight, **own}


class _Pool:
    """The moments of the last batches. A new batch replaces the oldest."""

    def __init__(self, size: int) -> None:
        def variable(shape: tuple[int, ...], value: str, name: str) -> Any:
            # All replicas see the moments of the whole batch: what the first one keeps is what each would.
            once = "only_first_replica"
            return keras.Variable(value, shape=shape, trainable=False, dtype="float32", aggregation=once, name=name)

        self.rows = variable((size, len(Spread._fields)), "zeros", "pooled_moments")
        self.count = variable((size,), "zeros", "pooled_counts")
        self.open = variable((), "ones", "pool_open")

    def add(self, m: Spread, count: Any) -> Spread:
        """The moments of the pool including this batch; their gradient is that of this batch alone."""
        new = ops.cast(ops.stop_gradient(ops.stack(m)), "float32")  # (5,)
        rows = ops.concatenate([ops.expand_dims(new, 0), self.rows[:-1]])
        counts = ops.concatenate([ops.reshape(ops.cast(count, "float32"), (1,)), self.count[:-1]])
        pooled = pooled_spread(rows, counts)
        self.rows.assign(ops.where(self.open > 0, rows, self.rows))
        self.count.assign(ops.where(self.open > 0, counts, self.count))
        pairs = zip(pooled, m, strict=True)
        return Spread(*(here + ops.cast(all_ - ops.stop_gradient(here), here.dtype) for all_, here in pairs))


def flat_samples(values: Any, like: Any = None) -> Any:
    """(B,) or (B, ...) -> (B, K), at least float32: squares and ratios overflow in half precision.

    Axes may be unknown while a graph is traced. Where even their number is, the shape is that of `like`.
    """
    if keras.backend.standardize_dtype(values.dtype) not in _WIDE:
        values = ops.cast(values, "float32")
    sides = axes(values)
    if sides is None:
        return ops.reshape(values, ops.shape(like))
    known = [side for side in sides[1:] if side is not None]
    if len(known) == len(sides) - 1:
        return ops.reshape(values, (-1, math.prod(known)))
    return ops.reshape(values, (ops.shape(values)[0], -1))


def axes(values: Any) -> tuple[int | None, ...] | None:
    """The static shape; None where not even the number of axes is known."""
    shape = values.shape
    return None if getattr(shape, "rank", 0) is None else tuple(shape)


def flat_weights(weight: Any, y_pred: Any, point: Any) -> Any:
    """Weights of samples (B,), of their first axes, or of all values -> (B, 1) or (B, K), as `point`."""
    sides, outputs = axes(weight), axes(y_pred)
    flat = flat_samples(weight, point)  # (B, ·)
    known = flat.shape[1] is not None and flat.shape[1] in (1, point.shape[1])
    if known or sides is None or outputs is None or len(sides) > len(outputs):
        return flat
    later = (1,) * (len(outputs) - len(sides))  # axes that share a weight
    spread = ops.reshape(flat, (*ops.shape(weight), *later))
    return flat_samples(spread * ops.ones_like(y_pred, dtype=flat.dtype))


def without_absent(values: Any, weight: Any) -> Any:
    """The values, with 0 where the weight is 0. (B, K), (B, K) or (B, 1)."""
    return ops.where(ops.equal(weight, 0.0), ops.zeros_like(values), values)


def _check_alike(y_true: Any, y_pred: Any, target: Any, point: Any) -> None:
    if None not in (target.shape[1], point.shape[1]) and target.shape[1] != point.shape[1]:
        raise ValueError(
            "VariancePreservingLoss needs as many targets as predictions a sample. "
            f"Received: y_true of shape {tuple(y_true.shape)}, y_pred of shape {tuple(y_pred.shape)}"
        )


class _HeadLoss(VariancePreservingLoss):
    """A loss on (B, 1+K) outputs, whose penalty uses the prediction alone."""

    def point(self, output: Any) -> Any:
        """Select the prediction. (B, 1+K) -> (B, 1)."""
        return output[:, POINT : POINT + 1]


@register
class QuantileLoss(_HeadLoss):
    """Twice the pinball loss, averaged over the quantiles: half of it is an approximation of the CRPS.

    Args:
        levels: the levels of the quantiles, rising numbers between 0 and 1; None for the evenly spaced ones of
            `QuantileHead`.
        kwargs: those of `VariancePreservingLoss` without `base`; the penalty is on the mean of the quantiles.
    """

    bases = ("pinball",)  # any other would leave the quantiles undetermined

    def __init__(
        self, levels: Sequence[float] | None = None, base: str = "pinball", name: str = "quantile_loss", **kwargs: Any
    ) -> None:
        super().__init__(base=base, name=name, **kwargs)
        self.levels = None if levels is None else _levels(levels)

    def base_terms(self, target: Any, output: Any) -> Any:
        """(B, 1), (B, 1+K) -> (B, 1)."""
        quantiles = output[:, 1:]
        wanted = quantile_levels(quantiles.shape[-1]) if self.levels is None else self.levels
        if len(wanted) != quantiles.shape[-1]:
            raise ValueError(
                "QuantileLoss needs an output of the prediction and one column for each of its levels. "
                f"Received: {len(wanted)} levels, {output.shape[-1]} columns"
            )
        levels = ops.convert_to_tensor(wanted, dtype=quantiles.dtype)
        error = target - quantiles  # (B, K)
        pinball = ops.maximum(levels * error, (levels - 1.0) * error)
        return 2.0 * ops.mean(pinball, axis=1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this loss."""
        return {**super().get_config(), "levels": self.levels}


def _levels(values: Any) -> list[float]:
    """Levels as plain numbers. Raises `ValueError`."""
    found = [] if isinstance(values, str) or np.ndim(values) != 1 else [as_number(value) for value in values]
    levels = [float(level) for level in found if level is not None and 0 < level < 1]
    if not found or len(levels) < len(found) or any(b <= a for a, b in pairwise(levels)):
        raise ValueError(f"QuantileLoss needs `levels` to be rising numbers between 0 and 1. Received: {values!r}")
    return levels


class HistogramLoss(Saved, _HeadLoss):
    """Cross-entropy to a target that is smeared over the bins by a Gaussian (Imani & White 2018, HL-Gauss).

    Args:
        base: "cross_entropy", or any base of `VariancePreservingLoss` on the expectation.
        low, high: the range of the head's bins.
        smoothing: std of the Gaussian, in bin widths.
        robustness: q, 0 to below 1: the sum over bins of target · (1 - share^q) / q (Zhang & Sabuncu 2018). 0 is the
            cross-entropy; towards 1, labels that the input cannot explain count less and less.
        further: E, quantities beside the target, whose predictions follow the expectation.
        distributions: D, how many of the first quantities have a distribution, with as many bins each: outputs are
            (B, 1+E+D·K). A quantity without one adds its absolute error.
        kwargs: those of `VariancePreservingLoss`; the penalty is on the expectation.
    """

    bases = ("cross_entropy", *BASES)

    def __init__(
        self,
        base: str = "cross_entropy",
        low: float = -4.0,
        high: float = 4.0,
        smoothing: float = 0.75,
        robustness: float = 0.0,
        further: int = 0,
        distributions: int = 1,
        name: str = "histogram_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(base=base, name=name, **kwargs)
        found = [value for value in map(as_number, (low, high, smoothing)) if value is not None]
        if len(found) < 3 or not np.isfinite(found).all() or not (low < high and smoothing > 0):
            raise ValueError(
                "HistogramLoss needs `low` below `high` and `smoothing` above 0. "
                f"Received: low={low}, high={high}, smoothing={smoothing}"
            )
        self.low, self.high, self.smoothing = map(float, found)
        self.robustness = as_number(robustness)
        if self.robustness is None or not 0.0 <= self.robustness < 1.0:
            raise ValueError(f"HistogramLoss needs `robustness` of 0 to below 1. Received: {robustness}")
        self.further = whole("HistogramLoss", "further", further, 0, "to be 0 or more")
        self.distributions = whole("HistogramLoss", "distributions", distributions, 1, "to be 1 or more")

    def point(self, output: Any) -> Any:
        """The expectation, and the further quantities: (B, 1+E)."""
        return output[:, : 1 + self.further]

    def weight_of(self, output: Any, weight: Any) -> Any:
        """(B, 1+E) -> (B, 1+E+D·K): bins count as their quantity does."""
        if not self.further:
            return weight
        bins = (output.shape[1] - weight.shape[1]) // self.distributions
        return ops.concatenate([weight, ops.repeat(weight[:, : self.distributions], bins, axis=1)], axis=1)

    def base_terms(self, target: Any, output: Any) -> Any:
        """(B, 1+E), (B, 1+E+D·K) -> (B, 1+E)."""
        if self.base != "cross_entropy":
            return super().base_terms(target, self.point(output))
        count = self.distributions
        shares = ops.split(output[:, 1 + self.further :], count, axis=1)
        terms = [self._crossed(target[:, i : i + 1], shares[i]) for i in range(count)]
        if self.further >= count:
            terms.append(ops.abs(output[:, count : 1 + self.further] - target[:, count:]))
        return ops.concatenate(terms, axis=1)

    def _crossed(self, target: Any, shares: Any) -> Any:
        """Cross-entropy of (B, 1) and (B, K), (B, 1)."""
        shares, power = ops.maximum(shares, 1e-7), self.robustness
        cost = (1.0 - shares**power) / power if power else -ops.log(shares)
        return ops.sum(self.smeared(target, shares.shape[-1]) * cost, axis=1, keepdims=True)

    def smeared(self, target: Any, count: int) -> Any:
        """Spread each target over the bins as a Gaussian, (B, 1) -> (B, K); beyond the range it falls into the
        end bin."""
        width = (self.high - self.low) / count
        edges = ops.convert_to_tensor(np.linspace(self.low, self.high, count + 1, dtype="float32"))
        inside = ops.clip(target, self.low + 0.5 * width, self.high - 0.5 * width)
        below = 0.5 * (1.0 + ops.erf((edges - inside) / (self.smoothing * width * 2.0**0.5)))  # (B, K+1)
        return (below[:, 1:] - below[:, :-1]) / (below[:, -1:] - below[:, :1])
