"""Streaming Keras metrics over a whole split: R², the variance ratio, correlation, spread, std, bias, MAE and RMSE.

The file metrics.json of a run is made by `experiments.run`, its scores by `evaluation.collect`.

All but the spread use one set of additive sums (`cloudml_tf.nn.moments`), kept in float64, so they are the same
numbers as a computation over the whole array: with batches of any size, several replicas, mixed precision, and a mean
many times the standard deviation. Each works alone in any `model.compile(metrics=[...])`; `regression_metrics()` gives
the whole set with the sums kept once.

JAX keeps float32 (`widest_float`) unless `JAX_ENABLE_X64` is set; there, pass a standardised target (as our training
does) or a `shift` near its mean.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn import moments as formulas
from cloudml_tf.nn.arguments import number, whole
from cloudml_tf.nn.backend import keras_mask, replica_count, replica_index
from cloudml_tf.nn.moments import Moments, per_sample
from cloudml_tf.nn.saved import Saved


def widest_float() -> str:
    """float64 where the backend has it; float32 on JAX unless JAX_ENABLE_X64 is set."""
    return str(keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype))


def _flatten(y_true: Any, y_pred: Any, sample_weight: Any = None, column: int | None = None) -> tuple[Any, Any, Any]:
    """Targets, predictions and weights as vectors of one length.

    A weight per sample, or per step of it, applies to all its values; Keras's mask of `y_pred` is a weight of 0 or 1.
    """
    wide, mask = widest_float(), keras_mask(y_pred)
    y_pred = ops.cast(ops.convert_to_tensor(y_pred), wide)
    y_pred = y_pred if column is None else y_pred[:, column : column + 1]
    y_true = ops.reshape(_column(ops.cast(ops.convert_to_tensor(y_true), wide), column), ops.shape(y_pred))
    weight = ops.ones_like(y_pred)
    for part in (sample_weight, mask):
        if part is not None:
            part = _column(ops.cast(ops.convert_to_tensor(part), wide), column)
            missing = len(y_pred.shape) - len(part.shape)
            shape = ops.shape(y_pred) if missing < 0 else (*ops.shape(part), *(1,) * missing)
            weight = weight * ops.reshape(part, shape)
    if sample_weight is not None or mask is not None:
        # What has weight 0 is absent, whatever its numbers are: 0 · NaN is NaN.
        y_true, y_pred = (ops.where(ops.equal(weight, 0), ops.zeros_like(x), x) for x in (y_true, y_pred))
    return ops.reshape(y_true, (-1,)), ops.reshape(y_pred, (-1,)), ops.reshape(weight, (-1,))


def _column(values: Any, column: int | None) -> Any:
    """The scored column of targets or weights that have one for each quantity; others as they are."""
    if column is None or len(values.shape) != 2 or values.shape[1] in (None, 1):
        return values
    return values[:, column : column + 1]


class MomentMetric(Saved, keras.metrics.Metric):
    """A formula over the additive sums of targets and predictions.

    Args:
        name: the key in the training log; that of the formula by default.
        shift: subtracted from targets and predictions before they are squared. It changes no score; it keeps digits
            where float64 is not available.
        source: another `MomentMetric` whose sums this one reads instead of keeping its own (it then ignores
            updates, so both must be compiled together). Not kept by `get_config`: a reloaded metric keeps its own.
        column: which column of (B, K) predictions is scored, where the others are a distribution (`nn.heads`) or
            further quantities, which targets and weights may have too.
    """

    formula: Callable[..., Any]

    def __init_subclass__(cls, formula: Callable[..., Any] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if formula is not None:
            cls.formula = staticmethod(formula)

    def __init__(
        self,
        name: str | None = None,
        shift: float = 0.0,
        source: "MomentMetric | None" = None,
        column: int | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or type(self).formula.__name__, dtype=dtype)
        self.shift = float(number(type(self).__name__, "shift", shift, lambda n: True, "to be a number"))
        self.column = None if column is None else whole(type(self).__name__, "column", column, 0)
        self._owner: Callable[[], MomentMetric] = lambda: self if source is None else source
        self._owns_sums = source is None
        if self._owns_sums:
            # Plain sums only: a running mean would be *added* across replicas and be wrong there.
            shape = (len(Moments._fields),)
            self.sums = self.add_variable(shape, initializer="zeros", dtype=widest_float(), name="sums")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch. `y_true` and `y_pred` hold the same number of values; `sample_weight` is (B,), as them, or as
        their first axes. What has weight 0 does not count, even where it is NaN."""
        if not self._owns_sums:
            return
        target, prediction, weight = _flatten(y_true, y_pred, sample_weight, self.column)
        summands = per_sample(target - self.shift, prediction - self.shift, weight, xp=ops)  # (8, N)
        self.sums.assign(self.sums + ops.cast(ops.sum(summands, axis=1), self.sums.dtype))

    def result(self) -> Any:
        """The score over all that was added, as a float32 scalar."""
        m = Moments(*ops.unstack(ops.convert_to_tensor(self._owner().sums)))
        return ops.cast(type(self).formula(m, ops), "float32")


class R2(MomentMetric, formula=formulas.r2):
    """R² = 1 - Σ(p-t)²/Σ(t-mean t)² over the whole split. 1 is perfect, 0 is the mean, below 0 is worse than it."""


class VarianceRatio(MomentMetric, formula=formulas.variance_ratio):
    """s = std(p)/std(t): 1 keeps the spread of the truth, 0 is collapse. Best at s = r (then R² = r²)."""


class PearsonCorrelation(MomentMetric, formula=formulas.correlation):
    """Pearson's r, -1 to 1; NaN while all predictions are equal. r² is the ceiling of R²."""


class R2Ceiling(MomentMetric, formula=formulas.r2_ceiling):
    """r²: the R² that the best rescaling of these predictions could reach."""


class SpreadCost(MomentMetric, formula=formulas.spread_cost):
    """(s - r)²: the R² that is lost by spreading too little or too much."""


class PredictionStd(MomentMetric, formula=formulas.pred_std):
    """std(p), the standard deviation of the predictions, in units of the target."""


class Bias(MomentMetric, formula=formulas.bias):
    """The bias mean(p) - mean(t), in units of the target."""


class MeanAbsoluteError(MomentMetric, formula=formulas.mae):
    """The mean absolute error, mean |p - t|, in units of the target."""


class RootMeanSquaredError(MomentMetric, formula=formulas.rmse):
    """The root mean squared error, √(mean (p - t)²), in units of the target."""


class PredictionSpread(Saved, keras.metrics.Metric):
    """max(p) - min(p) over the whole split, in units of the target. Samples of weight 0 are left out.

    Extremes do not add up, but slots do: each replica writes its own row and leaves the others at zero, so that the
    sum over replicas, which is all that `tf.distribute` offers, holds the extremes of each.
    """

    def __init__(self, name: str = "pred_spread", column: int | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.column = None if column is None else whole("PredictionSpread", "column", column, 0)
        self.replicas = replica_count()
        shape = (self.replicas, 3)  # a row: lowest, highest, 1 once anything was seen
        self.extremes = self.add_variable(shape, initializer="zeros", dtype=widest_float(), name="extremes")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch of predictions; `y_true` only gives the shape."""
        _, prediction, weight = _flatten(y_true, y_pred, sample_weight, self.column)
        here = ops.expand_dims(ops.equal(ops.arange(self.replicas), replica_index()), -1)  # (replicas, 1)
        far = ops.full_like(prediction, float("inf"))
        lowest = ops.min(ops.where(weight > 0, prediction, far), initial=float("inf"))
        highest = ops.max(ops.where(weight > 0, prediction, -far), initial=-float("inf"))
        seen = ops.cast(ops.any(weight > 0), self.extremes.dtype)
        batch = ops.where(seen > 0, ops.stack([lowest, highest, seen]), ops.zeros(3, dtype=self.extremes.dtype))
        old = self.extremes[:, :]
        ends = [ops.minimum(old[:, 0], batch[0]), ops.maximum(old[:, 1], batch[1])]
        joined = ops.stack([*ends, ops.ones_like(old[:, 2])], axis=-1)
        first = ops.expand_dims(old[:, 2] > 0, -1)
        new = ops.where(first, joined, ops.broadcast_to(batch, ops.shape(old)))
        self.extremes.assign(ops.where(ops.logical_and(here, seen > 0), new, old))

    def result(self) -> Any:
        """Highest minus lowest prediction; NaN before any was seen."""
        seen = self.extremes[:, 2] > 0
        lowest = ops.min(ops.where(seen, self.extremes[:, 0], float("inf")))
        highest = ops.max(ops.where(seen, self.extremes[:, 1], -float("inf")))
        return ops.cast(ops.where(ops.any(seen), highest - lowest, float("nan")), "float32")


def regression_metrics(column: int | None = None) -> list[keras.metrics.Metric]:
    """All scores for `model.compile(metrics=...)`, which share one set of sums.

    `column` is which column of (B, K) predictions is scored, where the others are a distribution.
    """
    r2 = R2(column=column)
    readers = (
        VarianceRatio, PearsonCorrelation, R2Ceiling, SpreadCost, Bias, PredictionStd, MeanAbsoluteError,
        RootMeanSquaredError,
    )  # fmt: skip
    return [r2, *(reader(source=r2, column=column) for reader in readers), PredictionSpread(column=column)]
