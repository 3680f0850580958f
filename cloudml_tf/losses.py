"""The variance-preserving loss: an ordinary regression loss plus a penalty on predictions that spread too little.

    loss = base + λ (1 - var(p) / (var(t) + 1e-8))²

as the original document writes it, λ = 0.5. What it is good for, and what it is not, follows from the identity
R² = r² - (s - r)² - (bias/std t)²: pushing s = std(p)/std(t) towards 1 is free only once r is high. Two facts decide
how it is used here. Its gradient vanishes when all predictions are equal, so it keeps variance rather than makes it.
And the variance of a batch is noisy (relative std √(2/(n-1)): 25 % at n = 32), which is why our configurations divide
by the training set's variance, a constant, instead of the batch's.
"""

from typing import Any

import keras
from keras import ops

BASES = ("mse", "mae", "huber", "mse_mae")
FORMS = ("variance",)
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
    return (1.0 - mae_fraction) * error * error + mae_fraction * size


def weighted_variance(values: Any, weight: Any) -> Any:
    """Unbiased variance (n - 1, as `torch.var` in the original). (N,), (N,) -> (); 0 for a single sample."""
    total = ops.maximum(ops.sum(weight), 1e-12)
    mean = ops.sum(weight * values) / total
    # With equal weights this is Σ(x-mean)²/(n-1); a batch of one has no degree of freedom left and gets 0, not NaN.
    freedom = total - ops.sum(weight * weight) / total
    squares = ops.sum(weight * ops.square(values - mean))
    return ops.where(freedom > 1e-6, squares / ops.maximum(freedom, 1e-6), ops.zeros_like(squares))


def variance_penalty(prediction_variance: Any, target_variance: Any, floor: float = 1e-8) -> Any:
    """(1 - var(p)/(var(t) + floor))²: the original's penalty, of the ratio of *variances* s²."""
    return ops.square(1.0 - prediction_variance / (target_variance + floor))


def _check(name: str, value: Any, rule: bool, expected: str) -> None:
    if not rule:
        raise ValueError(f"VariancePreservingLoss needs `{name}` to be {expected}. Received: {name}={value!r}")


@keras.saving.register_keras_serializable(package="cloudml_tf")
class VariancePreservingLoss(keras.losses.Loss):
    """base + weight · (1 - var(p)/(var(t) + variance_floor))².

    Feed it a target in units of its standard deviation (our training does), so that `weight` means the same for every
    target. Each sample keeps its own base loss, the penalty is added to every one of them: the value of a batch is
    that of the original, and replicas of a `tf.distribute` strategy are scaled by Keras as for any loss.

    `sample_weight` multiplies the base loss of its sample and, unless `weighted_moments` is off, counts that sample so
    many times in both variances; it does not scale the penalty.

    Args:
        base: "mse", "mae", "huber" or "mse_mae".
        weight: λ, 0 or more. 0 is the plain base loss.
        form: "variance", the original's.
        target_variance: "batch" (the original), or a number above 0: the training set's variance, in the units that
            the loss is fed with (1.0 for a standardised target).
        variance_floor: added to the target's variance before dividing.
        delta: where the Huber loss turns linear.
        mae_fraction: the share of |e| in "mse_mae", 0 to 1.
        weighted_moments: whether sample weights enter the variances.
        reduction, name, dtype: as in every Keras loss.
    """

    def __init__(
        self,
        base: str = "mse",
        weight: float = 0.5,
        form: str = "variance",
        target_variance: str | float = "batch",
        variance_floor: float = 1e-8,
        delta: float = 1.0,
        mae_fraction: float = 0.5,
        weighted_moments: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "variance_preserving_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _check("base", base, base in BASES, f"one of {BASES}")
        _check("form", form, form in FORMS, f"one of {FORMS}")
        _check("weight", weight, weight >= 0, "0 or more")
        is_number = isinstance(target_variance, int | float) and target_variance > 0
        _check("target_variance", target_variance, target_variance == "batch" or is_number, '"batch" or above 0')
        _check("variance_floor", variance_floor, variance_floor >= 0, "0 or more")
        _check("delta", delta, delta > 0, "above 0")
        _check("mae_fraction", mae_fraction, 0 <= mae_fraction <= 1, "between 0 and 1")
        self.base, self.weight, self.form = base, float(weight), form
        self.target_variance = target_variance
        self.variance_floor, self.delta, self.mae_fraction = variance_floor, delta, mae_fraction
        self.weighted_moments = weighted_moments

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The reduced loss. `y_true` and `y_pred` are (B,), (B, 1) or (B, ...); `sample_weight` is (B,) or as them."""
        if sample_weight is None:
            return super().__call__(y_true, y_pred)
        # The weights travel beside the target: `Loss` would multiply the penalty by them too.
        return super().__call__((y_true, sample_weight), y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each sample, (B,). `y_true` may be a pair (target, sample weight)."""
        y_true, sample_weight = y_true if isinstance(y_true, tuple | list) else (y_true, None)
        prediction = _flat_samples(y_pred)  # (B, K)
        target = _flat_samples(y_true)
        if target.shape[1:] != prediction.shape[1:]:
            raise ValueError(
                "VariancePreservingLoss needs as many targets as predictions a sample. "
                f"Received: y_true of shape {tuple(y_true.shape)}, y_pred of shape {tuple(y_pred.shape)}"
            )
        weight = ops.ones_like(prediction)
        if sample_weight is not None:
            weight = weight * _flat_samples(sample_weight)  # (B, 1) or (B, K)
        error = base_error(prediction - target, self.base, self.delta, self.mae_fraction)
        return ops.mean(weight * error, axis=1) + self.weight * self._penalty(target, prediction, weight)

    def _penalty(self, target: Any, prediction: Any, weight: Any) -> Any:
        counted = ops.reshape(weight if self.weighted_moments else ops.ones_like(weight), (-1,))
        predicted = weighted_variance(ops.reshape(prediction, (-1,)), counted)
        if self.target_variance == "batch":
            true = weighted_variance(ops.reshape(target, (-1,)), counted)
        else:
            true = ops.cast(self.target_variance, predicted.dtype)
        return variance_penalty(predicted, true, self.variance_floor)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this loss."""
        names = ("base", "weight", "form", "target_variance", "variance_floor", "delta", "mae_fraction")
        own = {name: getattr(self, name) for name in (*names, "weighted_moments")}
        return {**super().get_config(), **own}


def _flat_samples(values: Any) -> Any:
    """(B,) or (B, ...) -> (B, K), at least float32: squares and ratios overflow in half precision."""
    if keras.backend.standardize_dtype(values.dtype) not in _WIDE:
        values = ops.cast(values, "float32")
    size = 1
    for length in values.shape[1:]:
        size *= length
    return ops.reshape(values, (-1, size))
