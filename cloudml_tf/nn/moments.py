"""One set of additive sums, and every score as a formula over it.

The training log, `metrics.json`, the report, the baselines and the tiers all use these formulas, so they cannot
disagree. Sums over subsets of a split add up to the sums over the whole: no score is ever a mean of batch scores.

Each function takes `xp`, the array module: `numpy` (default) or `keras.ops`, so that the same lines serve the streaming
Keras metrics. Definitions: R² = 1 - Σ(p-t)² / Σ(t-mean t)²; s = std(p)/std(t) (standard deviations, as in the
monitoring table of the reference recipe; its *loss* uses variances, s²); r is Pearson's.
"""

from typing import Any, NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Sums over samples of weight w, target t and prediction p. Each is a scalar, or an array of one shape."""

    weight: Any  # Σ w
    target: Any  # Σ w t
    prediction: Any  # Σ w p
    target_squared: Any  # Σ w t²
    prediction_squared: Any  # Σ w p²
    product: Any  # Σ w t p
    absolute_error: Any  # Σ w |p - t|
    squared_error: Any  # Σ w (p - t)²


def per_sample(target: Any, prediction: Any, weight: Any, xp: Any = np) -> Any:
    """The summands of `Moments` for each sample. (N,), (N,), (N,) -> (8, N); use float64 where the backend has it."""
    error = prediction - target
    products = (target * target, prediction * prediction, target * prediction)
    return weight * xp.stack([xp.ones_like(target), target, prediction, *products, xp.absolute(error), error * error])


def moments(target: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None = None) -> Moments:
    """Sums over the whole of `target` and `prediction`, any equal shapes, in float64."""
    t, p = np.ravel(target).astype("float64"), np.ravel(prediction).astype("float64")
    w = np.ones_like(t) if weight is None else np.ravel(weight).astype("float64")
    t, p = np.where(w == 0, 0.0, t), np.where(w == 0, 0.0, p)  # 0 · NaN is NaN
    return Moments(*per_sample(t, p, w).sum(axis=1))


def _ratio(numerator: Any, denominator: Any, xp: Any) -> Any:
    """numerator / denominator, and NaN where the denominator is not positive: undefined stays visible."""
    positive = denominator > 0
    return xp.where(positive, numerator / xp.where(positive, denominator, xp.ones_like(denominator)), np.nan)


def _variance(squares: Any, sums: Any, weight: Any, xp: Any) -> Any:
    """Population variance, clipped at 0 where cancellation may leave a small negative number."""
    value = _ratio(squares, weight, xp) - _ratio(sums, weight, xp) ** 2
    return xp.where(value < 0, xp.zeros_like(value), value)  # keras.ops.maximum is float32 on PyTorch


def target_variance(m: Moments, xp: Any = np) -> Any:
    """Population variance of the target."""
    return _variance(m.target_squared, m.target, m.weight, xp)


def target_std(m: Moments, xp: Any = np) -> Any:
    """Population standard deviation of the target, std(t)."""
    return xp.sqrt(target_variance(m, xp))


def pred_std(m: Moments, xp: Any = np) -> Any:
    """Population standard deviation of the prediction, std(p)."""
    return xp.sqrt(_variance(m.prediction_squared, m.prediction, m.weight, xp))


def r2(m: Moments, xp: Any = np) -> Any:
    """R² = 1 - Σ(p-t)² / Σ(t-mean t)². NaN for a constant target."""
    return 1.0 - _ratio(_ratio(m.squared_error, m.weight, xp), target_variance(m, xp), xp)


def variance_ratio(m: Moments, xp: Any = np) -> Any:
    """s = std(p) / std(t)."""
    return _ratio(pred_std(m, xp), target_std(m, xp), xp)


def correlation(m: Moments, xp: Any = np) -> Any:
    """Pearson's r, which is NaN while all predictions are equal."""
    covariance = _ratio(m.product, m.weight, xp) - _ratio(m.target, m.weight, xp) * _ratio(m.prediction, m.weight, xp)
    return _ratio(covariance, target_std(m, xp) * pred_std(m, xp), xp)


def bias(m: Moments, xp: Any = np) -> Any:
    """The bias mean(p) - mean(t), in units of the target."""
    return _ratio(m.prediction - m.target, m.weight, xp)


def mae(m: Moments, xp: Any = np) -> Any:
    """Mean absolute error, in units of the target."""
    return _ratio(m.absolute_error, m.weight, xp)


def rmse(m: Moments, xp: Any = np) -> Any:
    """Root mean squared error, in units of the target."""
    return xp.sqrt(_ratio(m.squared_error, m.weight, xp))


def r2_ceiling(m: Moments, xp: Any = np) -> Any:
    """r²: the R² that the best rescaling of these predictions could reach, since R² = r² - (s-r)² - (bias/std t)²."""
    return correlation(m, xp) ** 2


def spread_cost(m: Moments, xp: Any = np) -> Any:
    """(s - r)²: what R² loses to a spread that is not the best for its correlation. NaN while predictions are equal."""
    return (variance_ratio(m, xp) - correlation(m, xp)) ** 2
