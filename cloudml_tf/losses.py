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
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn.backend import sum_over_replicas
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


def _check(name: str, value: Any, rule: bool, expected: str) -> None:
    if not rule:
        raise ValueError(f"VariancePreservingLoss needs `{name}` to be {expected}. Received: {name}={value!r}")


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
        _check("base", base, base in self.bases, f"one of {self.bases}")
        _check("form", form, form in FORMS, f"one of {FORMS}")
        _check("weight", weight, weight >= 0, "0 or more")
        is_number = isinstance(target_variance, int | float) and target_variance > 0
        _check("target_variance", target_variance, target_variance == "batch" or is_number, '"batch" or above 0')
        _check("variance_floor", variance_floor, variance_floor >= 0, "0 or more")
        _check("delta", delta, delta > 0, "above 0")
        _check("mae_fraction", mae_fraction, 0 <= mae_fraction <= 1, "between 0 and 1")
        _check("gamma", gamma, gamma > 0, "above 0")
        _check("clip", clip, clip is None or clip > 0, "above 0, or None")
        _check("pooled_batches", pooled_batches, pooled_batches >= 1, "1 or more")
        keeps_state = pooled_batches == 1 or keras.backend.backend() != "jax"
        _check("pooled_batches", pooled_batches, keeps_state, "1 on JAX, whose compiled steps keep no state in a loss")
        self.base, self.form = base, form
        self.target_variance = target_variance
        self.variance_floor, self.delta, self.mae_fraction = variance_floor, delta, mae_fraction
        self.gamma, self.clip, self.pooled_batches = gamma, clip, pooled_batches
        self.weighted_moments = weighted_moments
        self.across = sum_over_replicas if across is None else across
        self._initial_weight = float(weight)
        self._weight = keras.Variable(float(weight), trainable=False, dtype="float32", name="penalty_weight")
        self._pool = _Pool(pooled_batches) if pooled_batches > 1 else None

    @property
    def weight(self) -> float:
        """The current λ."""
        return float(keras.ops.convert_to_numpy(self._weight))

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight.assign(float(value))

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The reduced loss. `y_true` and `y_pred` are (B,), (B, 1) or (B, ...); `sample_weight` is (B,) or as them."""
        if sample_weight is None:
            return super().__call__(y_true, y_pred)
        # The weights travel beside the target: `Loss` would multiply the penalty by them too.
        return super().__call__((y_true, sample_weight), y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each sample, (B,). `y_true` may be a pair (target, sample weight)."""
        base, added = self.terms(y_true, y_pred)
        return base + added

    def terms(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """The two terms separately: the base loss of each sample, (B,), and weight · penalty, a scalar."""
        y_true, sample_weight = y_true if isinstance(y_true, tuple | list) else (y_true, None)
        output, target = flat_samples(y_pred), flat_samples(y_true)  # (B, ·), (B, K)
        point = self.point(output)  # (B, K)
        if target.shape[1:] != point.shape[1:]:
            raise ValueError(
                "VariancePreservingLoss needs as many targets as predictions a sample. "
                f"Received: y_true of shape {tuple(y_true.shape)}, y_pred of shape {tuple(y_pred.shape)}"
            )
        weight = ops.ones_like(point)
        if sample_weight is not None:
            weight = weight * flat_samples(sample_weight)  # (B, 1) or (B, K)
        t, p, w = (ops.reshape(x, (-1,)) for x in (target, point, weight))  # (B·K,)
        counted = w if self.weighted_moments else ops.cast(w > 0, w.dtype)
        totals = totals_of(t, p, counted, self.across)
        # As many values as there are samples, on average: a location without a label, of weight 0, does not count.
        share = point.shape[1] * totals.present / ops.maximum(totals.values, 1.0)
        base = ops.sum(weight * self.base_terms(target, output), axis=1) / ops.maximum(share, 1e-6)
        added = self._penalty(spread_of(t, p, counted, self.across, totals), totals.present)
        return base, ops.cast(self._weight, added.dtype) * added

    def point(self, output: Any) -> Any:
        """The prediction in the model's output. (B, ·) -> (B, K)."""
        return output

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


def flat_samples(values: Any) -> Any:
    """(B,) or (B, ...) -> (B, K), at least float32: squares and ratios overflow in half precision."""
    if keras.backend.standardize_dtype(values.dtype) not in _WIDE:
        values = ops.cast(values, "float32")
    return ops.reshape(values, (-1, math.prod(values.shape[1:])))


class _HeadLoss(VariancePreservingLoss):
    """A loss on (B, 1+K) outputs, whose penalty uses the prediction alone."""

    def point(self, output: Any) -> Any:
        """Select the prediction. (B, 1+K) -> (B, 1)."""
        return output[:, POINT : POINT + 1]


@register
class QuantileLoss(_HeadLoss):
    """Twice the pinball loss, averaged over the quantiles: half of it is an approximation of the CRPS.

    Args:
        kwargs: those of `VariancePreservingLoss` without `base`; the penalty is on the mean of the quantiles.
    """

    bases = ("pinball",)  # any other would leave the quantiles undetermined

    def __init__(self, base: str = "pinball", name: str = "quantile_loss", **kwargs: Any) -> None:
        super().__init__(base=base, name=name, **kwargs)

    def base_terms(self, target: Any, output: Any) -> Any:
        """(B, 1), (B, 1+K) -> (B, 1)."""
        quantiles = output[:, 1:]
        levels = ops.convert_to_tensor(quantile_levels(quantiles.shape[-1]), dtype=quantiles.dtype)
        error = target - quantiles  # (B, K)
        pinball = ops.maximum(levels * error, (levels - 1.0) * error)
        return 2.0 * ops.mean(pinball, axis=1, keepdims=True)


class HistogramLoss(Saved, _HeadLoss):
    """Cross-entropy to a target that is smeared over the bins by a Gaussian (Imani & White 2018, HL-Gauss).

    Args:
        base: "cross_entropy", or any base of `VariancePreservingLoss` on the expectation.
        low, high: the range of the head's bins.
        smoothing: std of the Gaussian, in bin widths.
        kwargs: those of `VariancePreservingLoss`; the penalty is on the expectation.
    """

    bases = ("cross_entropy", *BASES)

    def __init__(
        self,
        base: str = "cross_entropy",
        low: float = -4.0,
        high: float = 4.0,
        smoothing: float = 0.75,
        name: str = "histogram_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(base=base, name=name, **kwargs)
        if not (low < high and smoothing > 0):
            raise ValueError(
                "HistogramLoss needs `low` below `high` and `smoothing` above 0. "
                f"Received: low={low}, high={high}, smoothing={smoothing}"
            )
        self.low, self.high, self.smoothing = low, high, smoothing

    def base_terms(self, target: Any, output: Any) -> Any:
        """(B, 1), (B, 1+K) -> (B, 1)."""
        if self.base != "cross_entropy":
            return super().base_terms(target, self.point(output))
        shares = output[:, 1:]
        logs = ops.log(ops.maximum(shares, 1e-7))
        return -ops.sum(self.smeared(target, shares.shape[-1]) * logs, axis=1, keepdims=True)

    def smeared(self, target: Any, count: int) -> Any:
        """Spread each target over the bins as a Gaussian, (B, 1) -> (B, K); beyond the range it falls into the
        end bin."""
        width = (self.high - self.low) / count
        edges = ops.convert_to_tensor(np.linspace(self.low, self.high, count + 1, dtype="float32"))
        inside = ops.clip(target, self.low + 0.5 * width, self.high - 0.5 * width)
        below = 0.5 * (1.0 + ops.erf((edges - inside) / (self.smoothing * width * 2.0**0.5)))  # (B, K+1)
        return (below[:, 1:] - below[:, :-1]) / (below[:, -1:] - below[:, :1])
