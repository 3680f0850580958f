"""Heads that answer with a distribution, and their losses."""

import json

import keras
import numpy as np
import pytest

from cloudml_tf.losses import HistogramLoss, QuantileLoss
from cloudml_tf.metrics import R2, PredictionSpread
from cloudml_tf.nn.heads import HistogramHead, QuantileHead, bin_centres, quantile_levels


def test_quantiles_rise_and_their_mean_comes_first() -> None:
    values = np.random.default_rng(0).normal(size=(20, 7)).astype("float32") * 5
    out = keras.ops.convert_to_numpy(QuantileHead()(values))
    assert out.shape == (20, 8)
    assert (np.diff(out[:, 1:], axis=1) > 0).all()
    np.testing.assert_allclose(out[:, 0], out[:, 1:].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(out[:, 4], values[:, 3], rtol=1e-6)  # the middle one is free


def test_the_expectation_of_a_histogram_by_hand() -> None:
    # bins centred at -1.5, -0.5, 0.5, 1.5; shares 1/2 on the last two: expectation 1
    logits = np.array([[-50.0, -50.0, 3.0, 3.0]], "float32")
    out = keras.ops.convert_to_numpy(HistogramHead(-2.0, 2.0)(logits))
    np.testing.assert_allclose(bin_centres(4, -2.0, 2.0), [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(out, [[1.0, 0.0, 0.0, 0.5, 0.5]], atol=1e-6)


def test_pinball_by_hand() -> None:
    # levels 1/4 and 3/4, t = 1, quantiles 0 and 3: max(¼·1, -¾·1) = ¼; max(¾·-2, -¼·-2) = ½; 2·mean = ¾
    np.testing.assert_allclose(quantile_levels(2), [0.25, 0.75])
    output = np.array([[1.5, 0.0, 3.0]], "float32")
    assert float(QuantileLoss(weight=0.0)(np.array([[1.0]], "float32"), output)) == pytest.approx(0.75)


def test_the_smeared_target_is_a_distribution_around_the_target() -> None:
    loss = HistogramLoss(low=-4.0, high=4.0)
    shares = keras.ops.convert_to_numpy(loss.smeared(np.array([[0.7], [9.0], [-9.0]], "float32"), 32))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    assert shares[0] @ bin_centres(32, -4.0, 4.0) == pytest.approx(0.7, abs=0.02)
    assert shares[1].argmax() == 31
    assert shares[2].argmax() == 0


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        (QuantileHead(), QuantileLoss(weight=0.1, target_variance=1.0)),
        (HistogramHead(), HistogramLoss(weight=0.1, target_variance=1.0)),
        (HistogramHead(), HistogramLoss(base="mse", weight=0.1, target_variance=1.0)),
    ],
)
@pytest.mark.slow
def test_they_learn_and_metrics_look_at_the_first_column(head: keras.layers.Layer, loss: keras.losses.Loss) -> None:
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(1).normal(size=(512, 4)).astype("float32")
    y = (x[:, :1] + x[:, 1:2]) / np.float32(2**0.5)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(32, "gelu"), keras.layers.Dense(9), head])
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=[R2(column=0), PredictionSpread(column=0)])
    history = model.fit(x, y, epochs=15, batch_size=32, verbose=0).history
    assert history["r2"][-1] > 0.8
    assert history["pred_spread"][-1] == pytest.approx(np.ptp(y), rel=0.4)


def test_robustness_bounds_the_cost_of_a_label_that_does_not_fit():
    head = np.linspace(-4.0, 4.0, 41)
    centre = 0.5 * (head[1:] + head[:-1])
    share = np.exp(-0.5 * ((centre - 1.0) / 0.3) ** 2)
    share = (share / share.sum()).astype("float32")
    output = np.concatenate([[1.0], share]).astype("float32")[None]
    for target in (1.0, -3.0):
        truth = np.array([[target]], "float32")
        cost = {q: float(HistogramLoss(robustness=q, weight=0.0)(truth, output)) for q in (0.0, 1e-3, 0.7)}
        smeared = keras.ops.convert_to_numpy(HistogramLoss().smeared(truth, 40))[0]
        expected = (smeared * (1.0 - np.maximum(share, 1e-7) ** 0.7) / 0.7).sum()
        assert cost[0.7] == pytest.approx(float(expected), rel=1e-4)
        assert cost[1e-3] == pytest.approx(cost[0.0], rel=0.02)  # 0 is the limit
        assert cost[0.7] <= 1.0 / 0.7
    with pytest.raises(ValueError, match="robustness"):
        HistogramLoss(robustness=1.0)


@pytest.mark.parametrize("loss", [QuantileLoss(weight=0.2, form="ccc"), HistogramLoss(low=-3.0, smoothing=1.0)])
def test_losses_round_trip(loss: keras.losses.Loss) -> None:
    again = type(loss).from_config(json.loads(json.dumps(loss.get_config())))
    assert again.get_config() == loss.get_config()


def test_models_with_heads_round_trip(tmp_path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    for head in (QuantileHead(), HistogramHead(-3.0, 3.0)):
        model = keras.Sequential([keras.Input((6,)), head])
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(values, verbose=0), model.predict(values, verbose=0))


def test_wrong_arguments_say_the_rule() -> None:
    with pytest.raises(ValueError, match="`base` to be one of"):
        QuantileLoss(base="mse")
    with pytest.raises(ValueError, match="`low` below `high`"):
        HistogramHead(1.0, 0.0)
    with pytest.raises(ValueError, match="`smoothing` above 0"):
        HistogramLoss(smoothing=0.0)
