"""Our losses and metrics against Keras's own and against NumPy by hand, on random shapes, weights, masks and dtypes.

Where they differ they do so on purpose; each difference is held by a test at the end:

- A value of weight 0 is absent for us: it does not count in the mean, and it may be NaN. Keras divides by all values of
  the batch, and 0 · NaN is NaN.
- A weight for every value is one for us. Keras takes the mean over the last axis first, and then has no value left for
  each of these weights: its metrics raise. Ours also take weights of the first axes alone, such as (B,) of (B, T, K).
- R² of a constant target is undefined for us, NaN. Keras gives 0 or 1, which flatters.
- Keras's metrics take means of half-precision predictions in half precision; ours do not.
- Our sums are float64. Keras's R2Score loses its digits where the mean is large beside the deviation.
- Keras's mask counts as a weight of 0 or 1 in both; with a mask and zero weights Keras divides by what is not masked.
  Keras's RootMeanSquaredError and R2Score do not look at the mask.
- Vectors (B,) are B samples of one value for us, as for Keras's `fit`. Its losses alone take them for one sample.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from cloudml_tf import metrics as ours
from cloudml_tf.losses import HistogramLoss, QuantileLoss, VariancePreservingLoss

SHAPES = ((7,), (9, 1), (6, 3), (5, 4, 1), (4, 3, 2), (3, 2, 4, 1))
DTYPES = ("float16", "float32", "float64", "int32")
EXACT = {"rel": 2e-5, "abs": 1e-6}  # float32 in both, summed in another order


class Draw(NamedTuple):
    """One random batch."""

    seed: int
    target: np.ndarray
    prediction: np.ndarray
    weight: np.ndarray | None  # (B,) or the first two axes, above 0
    absent: np.ndarray | None  # True for values of weight 0, in the shape of the weight
    mask: np.ndarray | None  # (B, T), of (B, T, ·) only

    def weights(self) -> np.ndarray | None:
        """The weights, with 0 for what is absent."""
        if self.weight is None:
            return None
        return self.weight if self.absent is None else np.where(self.absent, np.float32(0), self.weight)

    def each(self) -> np.ndarray:
        """The weight of every value, the mask included, in the shape of the prediction."""
        full = np.ones(self.prediction.shape)
        for part in (self.weights(), self.mask):
            if part is not None:
                full = full * part.reshape(part.shape + (1,) * (full.ndim - part.ndim))
        return full

    def masked(self) -> Any:
        """The prediction as a tensor with its mask, as a layer gives it."""
        tensor = keras.ops.convert_to_tensor(self.prediction)
        if self.mask is not None:
            tensor._keras_mask = keras.ops.convert_to_tensor(self.mask)
        return tensor


def draws(count: int) -> Iterator[Draw]:
    """Random batches, the same each time."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        shape, dtype = SHAPES[rng.integers(len(SHAPES))], DTYPES[rng.integers(len(DTYPES))]
        target = rng.normal(rng.normal(), rng.uniform(0.5, 3), shape)
        prediction = (0.7 * target + rng.normal(size=shape)).astype("float32" if dtype == "int32" else dtype)
        axes = shape[: rng.integers(1, min(len(shape), 2) + 1)]
        weighted, thinned = rng.random(2) < (0.6, 0.5)
        weight = rng.uniform(0.1, 3.0, axes).astype("float32") if weighted else None
        absent = rng.random(axes) < 0.3 if weighted and thinned else None
        if absent is not None:
            absent.flat[0] = False
        masked = len(shape) == 3 and rng.random() < 0.5 and keras.backend.backend() != "jax"  # its arrays keep no mask
        mask = rng.random(shape[:2]) < 0.7 if masked else None
        if mask is not None:
            mask[0] = True
        target = (3 * target).astype(dtype) if dtype == "int32" else target.astype(dtype)
        yield Draw(seed, target, prediction, weight, absent, mask)


def number(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def by_hand(d: Draw) -> dict[str, float]:
    """Every score in float64."""
    w, t, p = (x.astype("float64").ravel() for x in (d.each(), d.target, d.prediction))
    mean_t, mean_p = np.average(t, weights=w), np.average(p, weights=w)
    var_t, var_p = np.average((t - mean_t) ** 2, weights=w), np.average((p - mean_p) ** 2, weights=w)
    mse = np.average((p - t) ** 2, weights=w)
    r = np.average((t - mean_t) * (p - mean_p), weights=w) / np.sqrt(var_t * var_p)
    s = np.sqrt(var_p / var_t)
    return {
        "mae": np.average(np.abs(p - t), weights=w),
        "rmse": np.sqrt(mse),
        "bias": mean_p - mean_t,
        "r2": 1 - mse / var_t,
        "correlation": r,
        "variance_ratio": s,
        "r2_ceiling": r**2,
        "spread_cost": (s - r) ** 2,
        "pred_std": np.sqrt(var_p),
        "pred_spread": np.ptp(p[w > 0]),
    }


METRICS = {
    "mae": ours.MeanAbsoluteError, "rmse": ours.RootMeanSquaredError, "bias": ours.Bias, "r2": ours.R2,
    "correlation": ours.PearsonCorrelation, "variance_ratio": ours.VarianceRatio, "r2_ceiling": ours.R2Ceiling,
    "spread_cost": ours.SpreadCost, "pred_std": ours.PredictionStd, "pred_spread": ours.PredictionSpread,
}  # fmt: skip
ALIKE = {  # ours -> Keras's, where there is one
    "mae": keras.metrics.MeanAbsoluteError,
    "rmse": keras.metrics.RootMeanSquaredError,
    "r2": keras.metrics.R2Score,
}


def score(metric: keras.metrics.Metric, d: Draw, weight: np.ndarray | None) -> float:
    """A metric of one batch."""
    metric.update_state(d.target, d.masked(), weight)
    return number(metric.result())


def fits_keras(d: Draw) -> bool:
    """Whether Keras takes these weights: as many axes as its losses have, which are means over the last axis."""
    return d.weight is None or d.weight.ndim == d.prediction.ndim - 1


def compare_metrics(count: int) -> int:
    """How many comparisons were made; each holds."""
    made = 0
    for d in draws(count):
        expected, name = by_hand(d), list(METRICS)[d.seed % len(METRICS)]
        if by_hand(d)["pred_std"] < 1e-3:
            continue
        assert score(METRICS[name](), d, d.weights()) == pytest.approx(expected[name], rel=1e-4, abs=1e-5), (name, d)
        twin = list(ALIKE)[d.seed % len(ALIKE)]
        flat = d.prediction.ndim == 2 and d.prediction.shape[1] == 1
        masks = twin == "mae" or d.mask is None
        if masks and (flat if twin == "r2" else fits_keras(d)):
            theirs = score(ALIKE[twin](), d, d.weights())
            digits = 5e-3 if d.prediction.dtype == "float16" else 2e-4
            assert score(METRICS[twin](), d, d.weights()) == pytest.approx(theirs, rel=digits, abs=1e-4), (twin, d)
            made += 1
        made += 1
    return made


BASES: dict[str, Any] = {
    "mse": keras.losses.MeanSquaredError,
    "mae": keras.losses.MeanAbsoluteError,
    "huber": lambda: keras.losses.Huber(delta=0.8),
}


def compare_losses(count: int) -> int:
    """How many comparisons were made; each holds."""
    made = 0
    for d in draws(count):
        base = [*BASES, "mse_mae"][d.seed % 4]
        loss = VariancePreservingLoss(base=base, weight=0.0, delta=0.8, mae_fraction=0.3)
        found = number(loss(d.target, d.masked(), d.weights()))
        each = d.each()
        error = d.prediction.astype("float64") - d.target.astype("float64")
        size = np.abs(error)
        elements = {
            "mse": error**2,
            "mae": size,
            "huber": np.where(size <= 0.8, 0.5 * error**2, 0.8 * (size - 0.4)),
            "mse_mae": 0.7 * error**2 + 0.3 * size,
        }[base]
        assert found == pytest.approx((each * elements).sum() / (each > 0).sum(), rel=1e-4, abs=1e-6), (base, d)
        made += 1
        if base in BASES and fits_keras(d):
            theirs = number(BASES[base]()(d.target.astype("float32"), d.masked(), d.weights()))
            # Keras divides by all values, or by those that are not masked; we by those of a weight above 0.
            divided = d.prediction.size if d.mask is None else d.mask.sum() * d.prediction.shape[2]
            assert found * (each > 0).sum() / divided == pytest.approx(theirs, rel=1e-4, abs=1e-6), (base, d)
            made += 1
    return made


def compare_heads(count: int) -> int:
    """How many comparisons were made; each holds. The median's pinball loss, twice, is the absolute error."""
    made = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        size, bins = int(rng.integers(2, 12)), int(rng.integers(3, 20))
        target = rng.normal(size=(size, 1)).astype("float32")
        weight = rng.uniform(0.1, 2.0, size).astype("float32") if seed % 2 else None
        if seed % 3:
            median = rng.normal(size=(size, 1)).astype("float32")
            found = QuantileLoss(levels=[0.5], weight=0.0)(target, np.concatenate([median, median], axis=1), weight)
            theirs = keras.losses.MeanAbsoluteError()(target, median, weight)
        else:
            shares = rng.dirichlet(np.ones(bins), size).astype("float32")
            loss = HistogramLoss(weight=0.0, low=-3.0, high=3.0)
            found = loss(target, np.concatenate([target, shares], axis=1), weight)
            smeared = loss.smeared(keras.ops.convert_to_tensor(target), bins)
            theirs = keras.losses.CategoricalCrossentropy()(smeared, shares, weight)
        assert number(found) == pytest.approx(number(theirs), rel=1e-3, abs=1e-5), seed
        made += 1
    return made


COMPARED = [(compare_metrics, 1.2), (compare_losses, 1.5), (compare_heads, 1.0)]


@pytest.mark.parametrize(("compare", "least"), COMPARED, ids=lambda part: getattr(part, "__name__", ""))
@pytest.mark.no_cover
def test_eighty_draws(compare: Any, least: float) -> None:
    assert compare(80) >= least * 80 * 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("compare", "least"), COMPARED, ids=lambda part: getattr(part, "__name__", ""))
def test_a_thousand_draws(compare: Any, least: float) -> None:
    assert compare(1000) >= least * 1000 * 0.9


T = np.array([[1.0], [2.0], [4.0], [np.nan]], "float32")
P = np.array([[1.5], [2.0], [3.0], [0.0]], "float32")
ABSENT = np.array([1.0, 1.0, 1.0, 0.0], "float32")


def test_what_is_absent_may_be_nan_and_does_not_count() -> None:
    whole = np.nan_to_num(T)
    for base, theirs in BASES.items():
        loss = VariancePreservingLoss(base=base, weight=0.0, delta=0.8)
        assert number(loss(T, P, ABSENT)) == pytest.approx(number(theirs()(T[:3], P[:3])), rel=1e-6)
        assert np.isnan(number(theirs()(T, P, ABSENT)))
        assert number(theirs()(whole, P, ABSENT)) == pytest.approx(0.75 * number(loss(T, P, ABSENT)), rel=1e-6)


def test_every_value_has_its_own_weight() -> None:
    t, p = np.zeros((1, 2), "float32"), np.array([[1.0, 3.0]], "float32")
    w = np.array([[1.0, 3.0]], "float32")
    metric = ours.MeanAbsoluteError()
    metric.update_state(t, p, w)
    assert number(metric.result()) == pytest.approx((1 * 1 + 3 * 3) / 4)
    with pytest.raises(Exception, match=r"(?i)rank|shape|broadcast|dimension"):  # each backend has its own class
        keras.metrics.MeanAbsoluteError().update_state(t, p, w)


def test_a_constant_target_has_no_r2() -> None:
    t, p = np.ones((4, 1), "float32"), np.arange(4, dtype="float32")[:, None]
    metric, theirs = ours.R2(), keras.metrics.R2Score()
    metric.update_state(t, p)
    theirs.update_state(t, p)
    assert np.isnan(number(metric.result()))
    assert number(theirs.result()) == 0.0


@pytest.mark.skipif(ours.widest_float() != "float64", reason="JAX keeps float32 unless JAX_ENABLE_X64 is set")
def test_a_large_mean_costs_no_digits() -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(1e4, 1.0, (2000, 1)).astype("float32")
    p = (t + rng.normal(0.0, 0.5, t.shape)).astype("float32")
    metric, theirs = ours.R2(), keras.metrics.R2Score()
    metric.update_state(t, p)
    theirs.update_state(t, p)
    exact = 1 - ((p - t).astype("float64") ** 2).sum() / ((t.astype("float64") - t.mean(dtype="float64")) ** 2).sum()
    assert number(metric.result()) == pytest.approx(exact, abs=1e-5)
    assert abs(number(theirs.result()) - exact) > 0.01
