"""The dense network: shapes, periodicity, mirrors, units, and every knob."""

import json

import keras
import numpy as np
import pytest

from cloudml_tf import models
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.nn import unet
from cloudml_tf.nn.introspection import copy_weights
from cloudml_tf.nn.layers import PhysicalUnits, Standardize

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.1, 1.0, size=(2, 8, 12, 2)).astype("float32")


def small(**changes: object) -> keras.Model:
    keras.utils.set_random_seed(1)
    return unet.build_swath_network((8, 12, 2), **{"widths": (4, 6), "dropout": 0.0, "head_units": 4, **changes})


def out(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    return keras.ops.convert_to_numpy(model({"frames": images}, training=False))


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    """What the network says without changes."""
    return out(small())


def test_a_value_for_every_pixel(plain: np.ndarray) -> None:
    assert plain.shape == (2, 8, 12)
    assert out(small(widths=(4,))).shape == (2, 8, 12)


def test_a_periodic_scene_has_no_border() -> None:
    """Shifted by what the coarsest level can follow, the answer is the same, shifted."""
    shifted = np.roll(IMAGES, (2, 4), axis=(1, 2))
    np.testing.assert_allclose(out(small(), shifted), np.roll(out(small()), (2, 4), axis=(1, 2)), atol=1e-5)
    bounded = small(periodic=False)
    assert np.abs(out(bounded, shifted) - np.roll(out(bounded), (2, 4), axis=(1, 2))).max() > 1e-3


def test_the_border_of_an_image_that_ends_is_its_own() -> None:
    image = np.arange(6, dtype="float32").reshape(1, 2, 3, 1)
    found = keras.ops.convert_to_numpy(unet.AroundImage(1, periodic=False)(image))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[0, 0, 1, 2, 2], [0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]])
    found = keras.ops.convert_to_numpy(unet.AroundImage(1)(image))[0, :, :, 0]
    np.testing.assert_array_equal(found, [[5, 3, 4, 5, 3], [2, 0, 1, 2, 0], [5, 3, 4, 5, 3], [2, 0, 1, 2, 0]])


@pytest.mark.parametrize(("axis", "number"), [("rows", 1), ("columns", 2)])
@pytest.mark.no_cover
def test_the_mirror_average_of_a_mirror_image_is_mirrored(axis: str, number: int) -> None:
    model, plain = small(mirror_average=axis), small()
    mirrored = np.flip(IMAGES, axis=number)
    np.testing.assert_allclose(out(model, mirrored), np.flip(out(model), axis=number), atol=1e-5)
    assert np.abs(out(plain, mirrored) - np.flip(out(plain), axis=number)).max() > 1e-3
    expected = 0.5 * (out(plain) + np.flip(out(plain, mirrored), axis=number))
    np.testing.assert_allclose(out(model), expected, atol=1e-5)


def test_the_shift_average_does_not_see_how_the_image_lies_on_the_grid() -> None:
    model, plain = small(shift_average=True), small()
    shifted = np.roll(IMAGES, (1, 1), axis=(1, 2))
    np.testing.assert_allclose(out(model, shifted), np.roll(out(model), (1, 1), axis=(1, 2)), atol=1e-5)
    assert np.abs(out(plain, shifted) - np.roll(out(plain), (1, 1), axis=(1, 2))).max() > 1e-3
    expected = 0.5 * (out(plain) + np.roll(out(plain, shifted), (-1, -1), axis=(1, 2)))
    np.testing.assert_allclose(out(model), expected, atol=1e-5)


def test_each_pixel_reaches_its_own_answer_at_full_resolution() -> None:
    """Two checkerboards that any pooling makes the same are told apart."""
    model, rng = small(), np.random.default_rng(1)  # weights as drawn anywhere, whatever the backend
    model.set_weights([w if w.ndim == 1 else rng.normal(0.0, 0.3, w.shape) for w in model.get_weights()])
    board = (np.indices((8, 12)).sum(axis=0) % 2).astype("float32")[None, :, :, None]
    first, second = (out(model, IMAGES[:1] * 0.0 + each) for each in (board, 1.0 - board))
    assert np.abs(first - second).max() > 1e-3  # pooled alone it would be 0
    np.testing.assert_allclose(np.roll(first, 1, axis=1), second, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (4, 8)},
        pytest.param({"head_units": 6}, marks=pytest.mark.slow),
        pytest.param({"output_bias": 1.0}, marks=pytest.mark.slow),
        pytest.param({"output_init": 0.5}, marks=pytest.mark.slow),
        {"periodic": False},
        pytest.param({"mirror_average": "rows"}, marks=pytest.mark.slow),
        {"shift_average": True},
        pytest.param({"frame_scaler": Standardize([0.5, 0.5], [0.1, 0.1])}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.no_cover
def test_every_knob_turns_something(change: dict, plain: np.ndarray) -> None:
    assert not np.allclose(plain, out(small(**change)), atol=1e-4)


@pytest.mark.parametrize("change", [{"dropout": 0.5}, {"head_dropout": 0.5}])
def test_dropout_is_in_training_alone(change: dict) -> None:
    model, plain = small(**change), small()
    copy_weights(plain, model)
    np.testing.assert_array_equal(out(model), out(plain))
    trained = keras.ops.convert_to_numpy(model({"frames": IMAGES}, training=True))
    assert not np.allclose(trained, out(model), atol=1e-4)


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4. Received: 8 x 10"):
        unet.build_swath_network((8, 10, 2), widths=(4, 4, 4))


def test_the_network_is_saved_and_read_again(tmp_path) -> None:
    model = small(
        mirror_average="rows", shift_average=True, frame_scaler=Standardize([0.5, 0.5], [0.1, 0.1], log_offset=0.01)
    )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(out(again), out(model), atol=1e-6)
    assert json.loads(again.to_json())["config"]["name"] == "swath_network"


def test_physical_units_undo_the_logarithm_and_its_offset() -> None:
    model = small()
    z = out(model).astype("float64")
    physical = models.physical_model(model, PhysicalUnits(-3.0, 2.0, log=True, log_offset=0.01))
    np.testing.assert_allclose(out(physical), np.maximum(np.exp(2.0 * z - 3.0) - 0.01, 0.0), atol=1e-5)
    low = PhysicalUnits(-9.0, 0.1, log=True, log_offset=0.01)
    assert keras.ops.convert_to_numpy(low(np.zeros((1, 2, 2), "float32"))).max() == 0.0


def test_loss_and_scores_of_maps_leave_out_pixels_of_weight_0() -> None:
    """A map with half its pixels weighed 0 costs and scores what the other half would alone."""
    target, weight = RNG.normal(size=(2, 8, 12)).astype("float32"), np.ones((2, 8, 12), "float32")
    weight[:, ::2] = 0.0
    model = small()
    model.compile(
        optimizer="sgd", loss=VariancePreservingLoss(target_variance=1.0), weighted_metrics=regression_metrics()
    )
    spoiled = np.where(weight > 0, target, 1e3).astype("float32")
    found = model.evaluate({"frames": IMAGES}, spoiled, sample_weight=weight, verbose=0, return_dict=True)
    p, t = out(model)[:, 1::2].astype("float64"), target[:, 1::2].astype("float64")
    expected = np.mean((p - t) ** 2) + 0.5 * (1.0 - p.var(ddof=1)) ** 2
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    assert found["r2"] == pytest.approx(1.0 - np.mean((p - t) ** 2) / t.var(), rel=1e-4)
    assert found["variance_ratio"] == pytest.approx(p.std() / t.std(), rel=1e-4)
    assert found["pred_spread"] == pytest.approx(np.ptp(p), rel=1e-4)
