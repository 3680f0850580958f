"""The network of heights: its parts, what is learned beside a height, and a training on planted layers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from flight_files import tiny_content
from test_geometry import ALTITUDE_KM, SCALE, SPEED, texture

from cloudml_tf.config.coverage import can_set
from cloudml_tf.config.geometry import Geometry
from cloudml_tf.config.load import parse_config
from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.augmentation import SequenceAugmentation
from cloudml_tf.data.plane_sweep import contrast
from cloudml_tf.data.training_ranges import Range, TrainingRanges, outside_geometry
from cloudml_tf.losses import HistogramLoss
from cloudml_tf.metrics import R2, MeanAbsoluteError
from cloudml_tf.models import share_frames
from cloudml_tf.nn.height_network import STRIP_ROWS, HeightAnswer, build_height_network
from cloudml_tf.nn.introspection import frame_encoder_of, frame_model_of, frame_vectors_of
from cloudml_tf.nn.layers import MirrorAverage, Standardize
from cloudml_tf.nn.masked_reconstruction import hand_over
from cloudml_tf.nn.sightlines import ALTITUDE, MIRRORED_ACROSS, MIRRORED_ALONG, PITCH, RIGHT, ROLL, TIME, signs
from cloudml_tf.train.pretrain import reconstruction_of
from cloudml_tf.utils.errors import ConfigError

HEIGHTS = (np.arange(31) * 0.2).tolist()
ROWS, COLUMNS, FRAMES = 24, 48, 40


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def network(**changes) -> keras.Model:
    keras.utils.set_random_seed(1)
    sizes = {"widths": (4, 6), "footprint": 3, "encoder_features": 8, "heads": 2, "head_units": 8, "output_init": 0.5}
    return build_height_network((ROWS, COLUMNS, 1), HEIGHTS, 5, **{**sizes, **changes})


def drawn(rng: np.random.Generator, count: int = 3, steps: int = 5) -> dict[str, np.ndarray]:
    """Random frames from an aircraft that rolls and drifts."""
    geometry = np.zeros((count, steps, 9), "float32")
    geometry[..., TIME] = np.arange(steps) - steps // 2
    geometry[..., ALTITUDE], geometry[..., 2], geometry[..., 5] = ALTITUDE_KM, SCALE, SPEED
    geometry[..., ROLL], geometry[..., PITCH] = rng.normal(0.0, 0.2, (2, count, steps))
    geometry[..., 6:] = rng.normal(0.0, 5.0, (count, 1, 3))
    return {"frames": rng.normal(size=(count, steps, ROWS, COLUMNS, 1)).astype("float32"), "geometry": geometry}


def answers(model: keras.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(inputs, training=False))


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({}, 1),
        ({"quantities": ("base", "top", "optical_depth"), "means": (1, 2, 1), "stds": (0.5, 0.5, 1)}, 3),
        ({"quantities": ("base", "top", "x"), "means": (1, 2, 1), "stds": (1, 1, 1), "bins": 12}, 3 + 2 * 12),
        ({"attention": False, "mirror_average": "rows"}, 1),
    ],
)
def test_it_is_saved_and_gives_the_same_answers_with_shared_frames(rng, tmp_path, changes, columns):
    model, inputs = network(**changes), drawn(rng)
    expected = answers(model, inputs)
    assert expected.shape == (3, columns)
    assert np.isfinite(expected).all()
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(answers(keras.saving.load_model(tmp_path / "m.keras"), inputs), expected, atol=1e-5)
    chosen = np.arange(15).reshape(3, 5)
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in inputs.items()}
    shared = share_frames(model)
    shared.set_weights(model.get_weights())
    np.testing.assert_allclose(answers(shared, {**flat, "chosen_frames": chosen}), expected, atol=1e-4)


def test_distributions_sum_to_one_and_their_mean_is_the_answer(rng):
    heights = ("base", "top")
    model = network(quantities=heights, means=(2.0, 2.5), stds=(1.0, 1.2), bins=60, bin_range=(-6.0, 6.0))
    found = answers(model, drawn(rng))
    assert found.shape == (3, 2 + 120)
    centre = np.linspace(-6, 6, 61)[:-1] + 0.1
    for number in range(2):
        share = found[:, 2 + 60 * number : 62 + 60 * number]
        np.testing.assert_allclose(share.sum(axis=1), 1.0, atol=1e-5)
        # What would lie under ground counts on the ground, in the distribution of the base alone.
        assert np.abs(share @ centre - found[:, number]).max() < (0.15 if number == 0 else 0.01)


def test_the_base_lies_below_the_top_by_the_thickness():
    layer = HeightAnswer(HEIGHTS, ("top", "base"), (0.0, 0.0), (1.0, 1.0))
    top = np.zeros((1, 31), "float32")
    top[0, 15] = 1.0  # 3 km
    free = np.full((1, layer.units), -50.0, "float32")
    free[0, 4] = 50.0  # 0.8 km
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer([top, free])), [[3.0, 2.2]], atol=1e-5)
    with pytest.raises(ValueError, match="heights before other quantities"):
        HeightAnswer(HEIGHTS, ("optical_depth", "top"))


def test_mirror_images_and_flights_that_are_turned_round_have_the_same_heights(rng):
    model, inputs = network(), drawn(rng)
    plain = answers(model, inputs)
    mirrored = MirrorAverage(model, ROWS // 2, 2).mirrored(inputs)
    np.testing.assert_allclose(mirrored["geometry"][..., ROLL], -inputs["geometry"][..., ROLL])
    heights = keras.Model(model.inputs, model.output)
    both = keras.ops.convert_to_numpy(MirrorAverage(heights, ROWS // 2, 2)(inputs, training=False))
    np.testing.assert_allclose(both, 0.5 * (plain + answers(model, mirrored)), atol=1e-5)
    assert signs(MIRRORED_ACROSS)[RIGHT] == signs(MIRRORED_ALONG)[PITCH] == signs(MIRRORED_ALONG)[TIME] == -1


class Turn:
    """A generator that turns every sequence round."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)


@pytest.mark.parametrize("way", ["mirror_across_track", "mirror_along_track"])
def test_augmented_images_of_a_layer_keep_its_height(way, tmp_path):
    """By the plane sweep, which learns nothing: a wrong sign of roll, pitch, drift or wind moves the height."""
    from cloudml_tf.data.plane_sweep import sweep

    pitch, roll = 0.02 * np.arange(FRAMES), 0.3 * np.sin(np.arange(FRAMES))
    images = moving(np.full(FRAMES, 2.0), pitch=pitch, roll=roll, wind=(6.0, 9.0))[:7, ..., None]
    geometry = np.zeros((1, 7, 9))
    geometry[0, :, TIME], geometry[..., ALTITUDE], geometry[..., 2] = np.arange(7) - 3, ALTITUDE_KM, SCALE
    geometry[0, :, ROLL], geometry[0, :, PITCH], geometry[..., 5] = roll[:7], pitch[:7], SPEED
    geometry[..., 7], geometry[..., 8] = 6.0, 9.0
    settings = Augmentation(**{"mirror_across_track": False, way: True})
    augment = SequenceAugmentation(settings, (ROWS // 2, COLUMNS // 2))
    changed = augment.changed({"frames": images[None].copy(), "geometry": geometry.copy()}, Turn())  # type: ignore[arg-type]
    assert not np.array_equal(changed["geometry"], geometry)
    for inputs in ({"frames": images[None], "geometry": geometry}, changed):
        height, alike = sweep(inputs["frames"], inputs["geometry"], (ROWS // 2, COLUMNS // 2), np.arange(51) * 0.1)
        assert height[0] == pytest.approx(2.0, abs=0.06)
        assert alike[0] > 0.98


def test_camera_and_cloud_are_lifted_together(rng):
    augment = SequenceAugmentation(
        Augmentation(mirror_across_track=False, height_shift_km=1.0),
        (ROWS // 2, COLUMNS // 2),
        heights={0: (2.0, 0.5), 1: (2.5, 0.4)},
        top_km=6.0,
    )
    inputs = drawn(rng, count=200)
    before = inputs["geometry"][:, 0, ALTITUDE].copy()
    target = np.tile(np.array([[-3.0, 1.0, 0.3]], "float32"), (200, 1))  # a base of 0.5 km, a top of 2.9
    changed, moved, _ = augment(inputs, target, np.ones_like(target), rng, np.zeros(200, int))
    lifted = changed["geometry"][:, 0, ALTITUDE] - before
    np.testing.assert_allclose(moved[:, 0], -3.0 + lifted / 0.5, atol=1e-4)
    np.testing.assert_allclose(moved[:, 1], 1.0 + lifted / 0.4, atol=1e-4)
    np.testing.assert_array_equal(moved[:, 2], target[:, 2])
    assert lifted.min() >= -0.5 - 1e-4  # no base lies under ground
    assert 0.8 < lifted.max() <= 1.0
    assert (changed["geometry"][..., ALTITUDE].std(axis=1) < 1e-5).all()


def test_neighbours_that_share_frames_are_lifted_alike(rng):
    augment = SequenceAugmentation(
        Augmentation(mirror_across_track=False, height_shift_km=1.0), (4, 4), heights={0: (2.0, 0.5)}, top_km=6.0
    )
    geometry = np.zeros((6, 9), "float32")
    chosen = np.array([[0, 1, 2], [1, 2, 3], [3, 4, 5]])
    inputs = {"frames": np.zeros((6, 8, 8, 1), "float32"), "geometry": geometry, "chosen_frames": chosen}
    with pytest.raises(AssertionError):  # frame 3 belongs to two runs, which never share one
        _check_alike(augment, inputs, np.array([0, 0, 1]), rng)
    inputs = {**inputs, "geometry": np.zeros((6, 9), "float32")}
    _check_alike(augment, inputs, np.array([0, 0, 0]), rng)


def _check_alike(augment, inputs, run, rng) -> None:
    changed, moved, _ = augment(inputs, np.zeros((3, 1), "float32"), np.ones((3, 1)), rng, run)
    lifted = changed["geometry"][changed["chosen_frames"], ALTITUDE]
    np.testing.assert_allclose(lifted, np.repeat(moved * 0.5, 3, axis=1), atol=1e-5)


def test_a_loss_over_several_quantities_is_the_sum_of_its_parts(rng):
    shares = rng.random((6, 2, 10)).astype("float32")
    shares /= shares.sum(axis=2, keepdims=True)
    points, target = rng.normal(size=(2, 6, 3)).astype("float32")
    output = np.concatenate([points, shares.reshape(6, 20)], axis=1)
    loss = HistogramLoss(weight=0.0, low=-2.0, high=2.0, further=2, distributions=2, reduction=None)
    alone = HistogramLoss(weight=0.0, low=-2.0, high=2.0, reduction=None)
    parts = [
        alone(target[:, n : n + 1], np.concatenate([points[:, n : n + 1], shares[:, n]], axis=1)) for n in range(2)
    ]
    expected = (sum(map(keras.ops.convert_to_numpy, parts)) + np.abs(points[:, 2] - target[:, 2])) / 3
    np.testing.assert_allclose(loss(target, output), expected * 1.0, rtol=1e-5)
    unknown = target.copy()
    unknown[:, 1:] = np.nan
    only = loss(unknown, output, np.tile([1.0, 0.0, 0.0], (6, 1)).astype("float32"))
    np.testing.assert_allclose(only, parts[0], rtol=1e-5)
    assert HistogramLoss.from_config(loss.get_config()).distributions == 2


def test_metrics_score_the_target_alone(rng):
    target, prediction = rng.normal(size=(2, 50, 3)).astype("float32")
    weight = np.ones((50, 3), "float32")
    weight[:10, 0] = 0.0
    metric, alone = MeanAbsoluteError(column=0), R2(column=0)
    metric.update_state(target, prediction, weight)
    alone.update_state(target, prediction)
    assert float(metric.result()) == pytest.approx(np.abs(target - prediction)[10:, 0].mean(), rel=1e-5)
    error = ((target - prediction)[:, 0] ** 2).sum()
    assert float(alone.result()) == pytest.approx(
        1 - error / ((target[:, 0] - target[:, 0].mean()) ** 2).sum(), rel=1e-4
    )


HEIGHT_MODEL = {"architecture": "cost_volume", "widths": [4, 6], "footprint": 3, "encoder_features": 8, "heads": 2}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"target.name": "optical_depth"}, "needs target.name of a height"),
        ({"temporal_frames": 1}, "needs temporal_frames of 3 or more"),
        ({"data.geometry": None}, "needs data.geometry of a value"),
        ({"data.geometry": {"network_input": False}}, "data.geometry.network_input belongs to model.architecture"),
        ({"model.contrast_boxes": [3]}, "needs model.contrast_boxes of []"),
        ({"model.architecture": "attention", "augmentation.height_shift_km": 1.0}, "height_shift_km needs"),
        ({"target.further": ["cloud_top_km"]}, "must differ from one another and from cloud_top_km"),
        ({"target.further": ["optical_depth", "cloud_base_km"]}, "heights before other quantities"),
        ({"model.architecture": "attention", "model.head": "histogram", "loss.base": "cross_entropy",
          "target.further": ["cloud_base_km"]}, "target.further needs model.head 'point'"),
    ],
)  # fmt: skip
def test_what_a_network_of_heights_cannot_be_is_refused(tmp_path, changes, text):
    content = tiny_content(tmp_path, {"target.name": "cloud_top_km", "model": dict(HEIGHT_MODEL), **changes})
    with pytest.raises(ConfigError, match=text.replace("[", r"\[")):
        parse_config(content)


def test_a_diagnosis_does_not_take_its_frames_away(tmp_path):
    content = tiny_content(tmp_path, {"target.name": "cloud_top_km", "model": dict(HEIGHT_MODEL)})
    config = parse_config(content)
    assert not can_set(config, "model.architecture")
    assert not can_set(config, "temporal_frames")
    assert can_set(config, "loss.weight")


def moving(height_km: np.ndarray, pitch=0.0, roll=0.0, wind=(0.0, 0.0), seed: int = 0) -> np.ndarray:
    """(N,H,W) images a second apart: the clouds below each frame are a layer at its height."""
    pitch, roll = (np.deg2rad(np.broadcast_to(angle, len(height_km))) for angle in (pitch, roll))
    row, column = np.mgrid[:ROWS, :COLUMNS]
    found = []
    for second, height in enumerate(height_km):
        below = 1000.0 * (ALTITUDE_KM - height)
        ahead = ((column - COLUMNS // 2) / SCALE + pitch[second]) * below + (SPEED - wind[0]) * second
        right = ((row - ROWS // 2) / SCALE - roll[second]) * below - wind[1] * second
        found.append(texture(ahead, right, seed))
    return np.stack(found)


def test_flags_of_a_flight_that_is_unlike_the_training():
    geometry = np.zeros((6, 9))
    geometry[:, ALTITUDE], geometry[:, 2], geometry[:, 5] = ALTITUDE_KM, SCALE, SPEED
    trained = [Range.of(column) for column in geometry[:, 1:].T]
    anything = Range(-1e9, -1e9, 1e9, 1e9)
    ranges = TrainingRanges([anything], None, None, [], anything, trained, Range.of(np.full(4, 6.0)))
    geometry[1, ALTITUDE], geometry[2, 5], geometry[3, ROLL], geometry[4, 7] = 18.5, 215.0, 4.0, 2.5
    span_s = np.array([6.1, 6.0, 6.0, np.nan, 6.0, 12.0])
    assert outside_geometry(geometry, span_s, ranges).tolist() == [False, True, True, True, False, True]
    assert TrainingRanges.from_json(ranges.to_json()) == ranges
    plain = np.full((2, ROWS, COLUMNS, 1), 0.3)
    plain[1, ROWS // 2 - 3 :, :, 0] = 0.4
    assert (contrast(plain, (ROWS // 2, COLUMNS // 2)) > Geometry().least_contrast).tolist() == [False, True]


def test_pretraining_reads_the_strip_as_a_level_camera_shows_it_and_changes_no_top(rng) -> None:
    quantities = {"quantities": ("top", "base"), "means": (0.0, 0.0), "stds": (1.0, 1.0)}
    scaler = Standardize([2.0], [4.0], name="standardize_frames")
    model = network(**quantities, frame_scaler=scaler, nadir=(9, 23))
    encoder, x = frame_encoder_of(model), drawn(rng)
    assert keras.ops.shape(frame_vectors_of(model)(x)) == (3, 5, 8)
    top, base = answers(model, x).T
    assert hand_over([values + 0.1 for values in encoder.get_weights()], encoder) > 5
    moved_top, moved_base = answers(model, x).T
    np.testing.assert_array_equal(moved_top, top)
    assert np.abs(moved_base - base).min() > 0.0
    config = parse_config(tiny_content(Path("home")))
    found = reconstruction_of(config, frame_model_of(model), encoder)(x["frames"], training=False)
    levelled = (x["frames"].reshape(-1, ROWS, COLUMNS, 1)[:, :STRIP_ROWS] - 2.0) / 4.0  # around row 9
    strip = np.concatenate([levelled[:, :, :1], levelled[:, :, :-1]], axis=2)  # column 23 comes to the middle
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found["target"]), strip, atol=1e-5)
    assert found["frame"].shape == strip.shape
