"""Streaming metrics: one value over the whole split, whatever the batches."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from cloudml_tf import metrics as m
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.losses import VariancePreservingLoss

ALL = [
    m.R2,
    m.VarianceRatio,
    m.PearsonCorrelation,
    m.R2Ceiling,
    m.SpreadCost,
    m.PredictionSpread,
    m.PredictionStd,
    m.Bias,
    m.MeanAbsoluteError,
    m.RootMeanSquaredError,
]
KEYS = ["r2", "variance_ratio", "correlation", "r2_ceiling", "spread_cost", "pred_spread", "pred_std", "bias"]
KEYS += ["mae", "rmse"]


def stream(
    metric: keras.metrics.Metric, t: np.ndarray, p: np.ndarray, w: np.ndarray | None = None, size: int = 7
) -> float:
    for i in range(0, len(t), size):
        metric.update_state(t[i : i + size], p[i : i + size], None if w is None else w[i : i + size])
    return float(metric.result())


def data(mean: float = 0.0, n: int = 501) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    t = rng.normal(size=n)
    p = 0.6 * t + 0.4 * rng.normal(size=n) + 0.1
    return (t + mean).astype("float32"), (p + mean).astype("float32")


def test_against_scikit_learn_and_numpy() -> None:
    t, p = data()
    assert stream(m.R2(), t, p) == pytest.approx(r2_score(t, p), abs=1e-6)
    assert stream(m.VarianceRatio(), t, p) == pytest.approx(p.std() / t.std(), rel=1e-6)
    assert stream(m.PearsonCorrelation(), t, p) == pytest.approx(np.corrcoef(t, p)[0, 1], rel=1e-6)
    assert stream(m.PredictionSpread(), t, p) == pytest.approx(np.ptp(p), rel=1e-6)
    assert stream(m.MeanAbsoluteError(), t, p) == pytest.approx(mean_absolute_error(t, p), rel=1e-6)


@pytest.mark.parametrize(("metric", "key"), list(zip(ALL, KEYS, strict=True)))
@pytest.mark.parametrize(
    "size", [pytest.param(1, marks=pytest.mark.slow), 13, pytest.param(501, marks=pytest.mark.slow)]
)
@pytest.mark.no_cover
def test_the_log_and_the_report_are_the_same_number(metric: type, key: str, size: int) -> None:
    t, p = data()
    precision = 1e-6 if m.widest_float() == "float64" else 1e-5
    assert stream(metric(), t, p, size=size) == pytest.approx(scores(t, p)[key], rel=precision)
    assert metric().name == key


def test_the_identity_that_rules_everything() -> None:
    t, p = data()
    r2, s, r, bias = (stream(x(), t, p) for x in (m.R2, m.VarianceRatio, m.PearsonCorrelation, m.Bias))
    assert r2 == pytest.approx(r**2 - (s - r) ** 2 - (bias / t.std()) ** 2, abs=1e-6)


@pytest.mark.skipif(m.widest_float() != "float64", reason="JAX keeps float32 unless JAX_ENABLE_X64 is set")
@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_sound_where_the_mean_is_ten_thousand_standard_deviations(mean: float) -> None:
    t, p = data(mean, n=20_000)
    centred = (t.astype("float64") - mean, p.astype("float64") - mean)  # where no digit can be lost
    exact = scores(*centred)
    assert exact["r2"] == pytest.approx(r2_score(*centred))
    for metric, key in zip(ALL, KEYS, strict=True):
        assert stream(metric(), t, p, size=512) == pytest.approx(exact[key], rel=1e-5), key
    assert stream(m.R2(shift=mean), t, p, size=512) == pytest.approx(exact["r2"], abs=1e-6)


def test_weights() -> None:
    t, p = data()
    w = np.random.default_rng(1).integers(0, 4, len(t)).astype("float32")
    assert stream(m.R2(), t, p, w) == pytest.approx(r2_score(t, p, sample_weight=w), abs=1e-6)
    repeated = np.repeat(np.arange(len(t)), w.astype(int))  # a weight of k is k copies
    assert stream(m.VarianceRatio(), t, p, w) == pytest.approx(p[repeated].std() / t[repeated].std(), rel=1e-6)
    extreme = p.copy()
    extreme[0] = 99.0
    w[0] = 0.0
    assert stream(m.PredictionSpread(), t, extreme, w) == pytest.approx(np.ptp(p[w > 0]), rel=1e-6)


def test_collapsed_predictions_show() -> None:
    t, _ = data()
    p = np.zeros_like(t)
    assert stream(m.VarianceRatio(), t, p) == 0.0
    assert np.isnan(stream(m.PearsonCorrelation(), t, p))
    assert stream(m.R2(), t, p) <= 0.0


def test_undefined_is_nan_and_never_a_flattering_number() -> None:
    assert np.isnan(float(m.R2().result()))
    assert np.isnan(float(m.PredictionSpread().result()))
    assert np.isnan(stream(m.R2(), np.ones(5, "float32"), np.arange(5, dtype="float32")))
    t, p = data()
    p[3] = np.nan
    assert np.isnan(stream(m.R2(), t, p))
    assert np.isnan(stream(m.PredictionSpread(), t, p))


def test_shapes_and_half_precision() -> None:
    t, p = data()
    expected = stream(m.R2(), t, p)
    assert stream(m.R2(), t[:, None], p) == pytest.approx(expected)
    assert stream(m.R2(), t, p[:, None]) == pytest.approx(expected)
    low = keras.ops.cast(p[:, None], "bfloat16")  # as a mixed-precision model gives it, beside float32 targets
    metric = m.R2()
    metric.update_state(t, low)
    assert float(metric.result()) == pytest.approx(expected, abs=5e-3)


def test_reset_forgets() -> None:
    t, p = data()
    for metric in (m.R2(), m.PredictionSpread()):
        stream(metric, t, p)
        metric.reset_state()
        assert np.isnan(float(metric.result()))


@pytest.mark.parametrize("metric", ALL)
def test_round_trip(metric: type) -> None:
    first = metric(name="other")
    again = metric.from_config(json.loads(json.dumps(first.get_config())))
    assert again.get_config() == first.get_config()


def test_metrics_of_one_column_keep_it_when_each_is_built_again() -> None:
    t, p = data()
    wide = np.stack([p.ravel(), p.ravel() + 1.0], axis=1)
    for metric in m.regression_metrics(column=1):
        again = type(metric).from_config(metric.get_config())
        alone = type(metric)()
        stream(again, t.reshape(-1, 1), wide)
        stream(alone, t.reshape(-1, 1), wide[:, 1:])
        assert float(again.result()) == pytest.approx(float(alone.result()), rel=1e-6), metric.name


def test_a_plain_fit_logs_the_whole_validation_set_and_reloads(tmp_path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3)).astype("float32")
    y = x[:, :1] * 2 + 1
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", VariancePreservingLoss(), metrics=m.regression_metrics())
    log = model.fit(x, y, validation_data=(x[:77], y[:77]), batch_size=10, epochs=2, verbose=0).history
    expected = scores(y[:77].ravel(), model.predict(x[:77], verbose=0).ravel())
    for key in KEYS:
        assert log[f"val_{key}"][-1] == pytest.approx(expected[key], rel=1e-4), key
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(x[:77], y[:77], batch_size=10, verbose=0, return_dict=True)
    assert again["loss"] == pytest.approx(log["val_loss"][-1], rel=1e-5)
    for key in KEYS:
        assert again[key] == pytest.approx(log[f"val_{key}"][-1], rel=1e-5), key


REPLICAS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import json
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cloudml_tf.metrics import regression_metrics
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse", metrics=regression_metrics())
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 1)).astype("float32"); x[:32] += 5
y = (0.7 * x + 0.3 * rng.normal(size=(64, 1))).astype("float32")
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
print(json.dumps({k: float(v) for k, v in model.evaluate(data, verbose=0, return_dict=True).items()}))
print(json.dumps({"x": x.ravel().tolist(), "y": y.ravel().tolist()}))
"""


@pytest.mark.slow
@pytest.mark.tensorflow("tf.distribute and tf.data are TensorFlow's")
def test_two_replicas_give_the_numbers_of_one() -> None:
    out = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=True, timeout=120)
    found, sample = (json.loads(line) for line in out.stdout.strip().splitlines()[-2:])
    expected = scores(np.asarray(sample["y"]), np.asarray(sample["x"]))
    for key in KEYS:
        assert found[key] == pytest.approx(expected[key], rel=1e-4), key


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_has_weight_zero_may_be_anything(metric: type, bad: float) -> None:
    t, p = data(n=40)
    w = np.random.default_rng(2).integers(0, 2, len(t)).astype("float32")
    expected = stream(metric(), t[w > 0], p[w > 0])
    for spoilt_t, spoilt_p in ((np.where(w == 0, bad, t), p), (t, np.where(w == 0, bad, p))):
        found = stream(metric(), spoilt_t.astype("float32"), spoilt_p.astype("float32"), w)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert np.isnan(stream(m.R2(), np.where(w == 0, t, bad).astype("float32"), p, w))  # what counts stays loud


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="arrays of JAX keep no mask")
@pytest.mark.parametrize("metric", [m.R2, m.Bias, m.PredictionSpread])
def test_a_mask_and_weights_of_time_steps(metric: type) -> None:
    rng = np.random.default_rng(3)
    t, p = rng.normal(size=(2, 4, 3, 1)).astype("float32")
    mask = rng.random((4, 3)) < 0.6
    weight = rng.uniform(0.5, 2.0, (4, 3)).astype("float32")
    expected = metric()
    expected.update_state(t[mask], p[mask], weight[mask])
    t[~mask] = np.nan
    masked, found = keras.ops.convert_to_tensor(p), metric()
    masked._keras_mask = keras.ops.convert_to_tensor(mask)
    found.update_state(t, masked, weight)
    assert float(found.result()) == pytest.approx(float(expected.result()), rel=1e-6)


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    for shift, column in ((np.float32(0.5), np.int64(0)), (np.array(0.5), np.array(0))):
        config = json.loads(json.dumps(m.R2(shift=shift, column=column).get_config()))
        assert (config["shift"], config["column"]) == (0.5, 0)
    for wrong in (True, 1j, np.array([1.0]), np.nan):
        with pytest.raises(ValueError, match="R2 needs `shift` to be a number"):
            m.R2(shift=wrong)
        with pytest.raises(ValueError, match="PredictionSpread needs `column` of 0 or more"):
            m.PredictionSpread(column=wrong)
