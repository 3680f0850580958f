"""What the monitors put into the log of any `model.fit`."""

import keras
import numpy as np
import pytest

from cloudml_tf.evaluation.scores import scores
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.nn.backend import Gradients
from cloudml_tf.nn.monitors import DiversityMonitor, LayerMonitor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 6)).astype("float32")
Y = (X[:, :1] - X[:, 1:2]).astype("float32") / 1.4


def network(activation: str = "gelu") -> keras.Model:
    keras.utils.set_random_seed(1)
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation=activation, name="inner")])
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(1, name="output")(inner(inputs)))


def fitted(model: keras.Model, callback: keras.callbacks.Callback, loss: object, **options: object) -> dict:
    model.compile("adam", loss=loss, **options)
    return model.fit(X, Y, validation_data=(X, Y), epochs=2, verbose=0, callbacks=[callback]).history


def test_the_scores_are_those_of_the_report_and_of_the_compiled_metrics() -> None:
    model = network()
    history = fitted(model, DiversityMonitor(X, Y, prefix="seen_"), "mse", metrics=regression_metrics())
    expected = scores(Y[:, 0], model.predict(X, verbose=0)[:, 0])
    for name in ("r2", "variance_ratio", "correlation", "bias", "r2_ceiling", "spread_cost", "pred_std", "pred_spread"):
        assert history[f"seen_{name}"][-1] == pytest.approx(expected[name], rel=1e-5)
        assert history[f"seen_{name}"][-1] == pytest.approx(history[f"val_{name}"][-1], rel=1e-4)


def test_gradients_by_hand() -> None:
    model = network()
    kernel = model.get_layer("output").kernel
    hidden = keras.ops.convert_to_numpy(model.layers[1](X))
    error = keras.ops.convert_to_numpy(model(X)) - Y
    terms = [lambda y, output: keras.ops.mean((output - y) ** 2), lambda y, output: keras.ops.mean(y)]
    (found,), (nothing,) = Gradients(model, terms, [kernel])(X, Y)
    np.testing.assert_array_equal(nothing, np.zeros_like(found))
    np.testing.assert_allclose(found, 2 * hidden.T @ error / len(X), rtol=1e-4, atol=1e-6)


def test_the_output_layer_and_the_two_terms() -> None:
    model = network()
    loss = VariancePreservingLoss(weight=0.5, target_variance=1.0)
    history = fitted(model, LayerMonitor(X[:64], Y[:64]), loss)
    kernel = keras.ops.convert_to_numpy(model.get_layer("output").kernel)
    assert history["output_weight_norm"][-1] == pytest.approx(np.linalg.norm(kernel), rel=1e-5)
    assert history["output_gradient_norm"][-1] > 0
    ratio = history["gradient_ratio"][-1]
    loss.weight = 1.0
    logs: dict = {}
    monitor = LayerMonitor(X[:64], Y[:64])
    monitor.set_model(model)
    monitor.on_epoch_end(0, logs)
    assert logs["gradient_ratio"] == pytest.approx(2 * ratio, rel=1e-3)  # the variance term is linear in λ


def test_any_loss_will_do_and_units_are_counted() -> None:
    history = fitted(network(), LayerMonitor(X[:64], Y[:64]), "mse")
    assert "gradient_ratio" not in history
    assert history["dead_units"] == [0.0, 0.0]
    model = network("relu")
    kernel, bias = model.layers[1].get_layer("inner").get_weights()
    bias[:4] = -1e3  # four of eight never fire
    model.layers[1].get_layer("inner").set_weights([kernel, bias])
    assert fitted(model, LayerMonitor(X[:64], Y[:64]), "mse")["dead_units"][0] == pytest.approx(0.5)
    model = network("tanh")
    model.layers[1].get_layer("inner").set_weights([kernel * 1e4, np.zeros(8)])
    assert fitted(model, LayerMonitor(X[:64], Y[:64]), "mse")["saturated_units"][0] > 0.8


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="a layer named 'end'"):
        fitted(network(), LayerMonitor(X, Y, output_layer="end"), "mse")
    with pytest.raises(ValueError, match="as many targets as inputs"):
        fitted(network(), DiversityMonitor(X, Y[:5]), "mse")
