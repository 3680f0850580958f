"""Batches and augmentation: what is mirrored, what stays, and that the order depends on seed and epoch alone."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import tiny_config, write_flight

from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.augmentation import SequenceAugmentation
from cloudml_tf.data.samples import Samples, build_samples
from cloudml_tf.data.sources import available_flights, read_flights
from cloudml_tf.train.batches import Batches, epoch_order
from cloudml_tf.train.tf_dataset import as_dataset

OFF = {"mirror_across_track": False, "mirror_along_track": False}
SHAPE = (200, 3, 7, 9, 2)  # (B,T,H,W,C)


def inputs() -> dict[str, np.ndarray]:
    """A batch whose every pixel, angle and feature is recognisable."""
    rng = np.random.default_rng(0)
    angles = np.stack([rng.uniform(10, 70, SHAPE[:2]), rng.uniform(-180, 180, SHAPE[:2])], axis=-1)
    return {
        "frames": rng.uniform(0, 1, SHAPE).astype("float32"),
        "sun_angles_deg": angles.astype("float32"),
        "features": rng.standard_normal((*SHAPE[:2], 2)).astype("float32"),
    }


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray], name: str = "frames") -> np.ndarray:
    """(B,): which sequences are not as they were."""
    return (before[name] != after[name]).reshape(len(before[name]), -1).any(axis=1)


def mirror(settings: dict[str, bool], nadir: tuple[int, int], axis: str) -> tuple[Any, Any, np.ndarray]:
    """Inputs, mirrored inputs, and which sequences were mirrored: about half of them."""
    before = inputs()
    augmentation = SequenceAugmentation(Augmentation(**{**OFF, **settings}), nadir, None, axis)
    after = augmentation.changed(copy.deepcopy(before), np.random.default_rng(1))
    flipped = changed(before, after)
    assert 60 < flipped.sum() < 140
    return before, after, flipped


@pytest.mark.parametrize(("axis", "image_axis"), [("rows", 2), ("columns", 3)])
@pytest.mark.parametrize("nadir", [(3, 4), (1, 7), (6, 0)])
def test_across_track_mirrors_about_the_nadir_pixel_and_the_sun_with_it(
    axis: str, image_axis: int, nadir: tuple[int, int]
) -> None:
    before, after, flipped = mirror({"mirror_across_track": True}, nadir, axis)
    old, new = before["frames"][flipped], after["frames"][flipped]
    centre = nadir[image_axis - 2]
    for place in range(SHAPE[image_axis]):
        source = min(max(2 * centre - place, 0), SHAPE[image_axis] - 1)  # beyond the border its last pixel
        np.testing.assert_array_equal(np.take(new, place, axis=image_axis), np.take(old, source, axis=image_axis))
    np.testing.assert_array_equal(new[:, :, nadir[0], nadir[1]], old[:, :, nadir[0], nadir[1]])
    zenith, azimuth = np.moveaxis(after["sun_angles_deg"][flipped], -1, 0)
    np.testing.assert_array_equal(zenith, before["sun_angles_deg"][flipped, :, 0])
    np.testing.assert_array_equal(azimuth, -before["sun_angles_deg"][flipped, :, 1])
    np.testing.assert_array_equal(after["features"], before["features"])


@pytest.mark.parametrize(("axis", "image_axis"), [("rows", 3), ("columns", 2)])
@pytest.mark.parametrize("nadir", [(3, 4), (1, 7)])
def test_along_track_mirrors_the_other_axis_and_turns_time_and_sun(
    axis: str, image_axis: int, nadir: tuple[int, int]
) -> None:
    before, after, flipped = mirror({"mirror_along_track": True}, nadir, axis)
    old, new = before["frames"][flipped, ::-1], after["frames"][flipped]  # the flight goes the other way
    np.testing.assert_array_equal(new[:, :, nadir[0], nadir[1]], old[:, :, nadir[0], nadir[1]])
    step = [0, 0]
    step[image_axis - 2] = 1
    ahead = new[:, :, nadir[0] + step[0], nadir[1] + step[1]]
    np.testing.assert_array_equal(ahead, old[:, :, nadir[0] - step[0], nadir[1] - step[1]])
    angles = before["sun_angles_deg"][flipped, ::-1]
    np.testing.assert_array_equal(after["sun_angles_deg"][flipped, :, 0], angles[..., 0])
    np.testing.assert_allclose(after["sun_angles_deg"][flipped, :, 1], 180.0 - angles[..., 1], rtol=1e-6)
    np.testing.assert_array_equal(after["features"][flipped], before["features"][flipped, ::-1])


def test_a_sun_in_the_image_stays_where_it_shines_from() -> None:
    """Frames that brighten towards the sun: after any mirror the brightest side must still be the sun's side.

    Rows run across track to the right, columns forward; relative azimuth 0 is ahead, 90 to the right.
    """
    rng = np.random.default_rng(2)
    azimuth = rng.uniform(-180, 180, (100, 1))
    row, column = np.meshgrid(np.arange(-3.0, 4.0), np.arange(-4.0, 5.0), indexing="ij")
    radians = np.deg2rad(azimuth)[..., None, None]
    frames = (row * np.sin(radians) + column * np.cos(radians))[..., None].astype("float32")  # (100,1,7,9,1)
    before = {"frames": frames, "sun_angles_deg": np.stack([np.full_like(azimuth, 40.0), azimuth], axis=-1)}
    both = Augmentation(mirror_across_track=True, mirror_along_track=True)
    after = SequenceAugmentation(both, (3, 4)).changed(copy.deepcopy(before), np.random.default_rng(3))
    radians = np.deg2rad(after["sun_angles_deg"][..., 1])[..., None, None]
    expected = (row * np.sin(radians) + column * np.cos(radians))[..., None]
    np.testing.assert_allclose(after["frames"], expected, atol=1e-5)
    assert changed(before, after).sum() > 50


def test_inputs_without_sun_or_features_stay_without() -> None:
    frames = {"frames": inputs()["frames"]}
    settings = Augmentation(mirror_along_track=True)
    changed_inputs = SequenceAugmentation(settings, (3, 4)).changed(frames, np.random.default_rng(0))
    assert list(changed_inputs) == ["frames"]


def test_gain_is_one_factor_a_sequence() -> None:
    before = inputs()
    augmentation = SequenceAugmentation(Augmentation(**OFF, gain_std=0.2), (3, 4))
    after = augmentation.changed(copy.deepcopy(before), np.random.default_rng(0))
    ratio = (after["frames"] / before["frames"]).reshape(SHAPE[0], -1)
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(ratio.shape[1], axis=1), rtol=1e-4)
    assert np.log(ratio[:, 0]).std() == pytest.approx(0.2, rel=0.2)
    assert after["frames"].dtype == np.float32


def test_noise_is_in_units_of_each_channel_s_std() -> None:
    before = inputs()
    frame_std = np.array([1.0, 10.0])
    augmentation = SequenceAugmentation(Augmentation(**OFF, noise_std=0.05), (3, 4), frame_std)
    after = augmentation.changed(copy.deepcopy(before), np.random.default_rng(0))
    difference = (after["frames"] - before["frames"]).reshape(-1, 2)
    np.testing.assert_allclose(difference.std(axis=0), [0.05, 0.5], rtol=0.05)


# --- batches


def small_samples(home: Path) -> Samples:
    config = tiny_config(home, {"overweight.factor": 3.0})
    write_flight(home / "flights" / "a")
    return build_samples(read_flights(available_flights(config), ["a"], config), config)[0]


def drawn(batches: Batches) -> np.ndarray:
    """All targets in the order in which they come."""
    return np.concatenate([batches[number][1][:, 0] for number in range(len(batches))])


def test_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    samples = small_samples(tmp_path)
    target = np.arange(len(samples), dtype="float32")
    first, again, other = (Batches(samples, target, 5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(drawn(first), drawn(again))
    assert (drawn(first) != drawn(other)).any()
    epoch_0 = drawn(first)
    order = epoch_order(first)
    order.on_epoch_begin(1)
    assert (drawn(first) != epoch_0).any()
    order.on_epoch_begin(0)
    np.testing.assert_array_equal(drawn(first), epoch_0)


def test_training_drops_the_small_last_batch_and_judging_keeps_every_sample_unchanged(tmp_path: Path) -> None:
    samples = small_samples(tmp_path)  # ten sequences
    target = np.arange(10, dtype="float32")
    changes = SequenceAugmentation(Augmentation(), samples.nadir, np.ones(1))
    training = Batches(samples, target, 4, seed=1, augment=changes)
    assert [len(training[n][1]) for n in range(len(training))] == [4, 4]
    judging = Batches(samples, target, 4, augment=changes)
    assert [len(judging[n][1]) for n in range(len(judging))] == [4, 4, 2]
    assert sorted(drawn(judging)) == list(range(10))
    for number in range(len(judging)):
        inputs, found = judging[number][:2]
        np.testing.assert_array_equal(inputs["frames"], samples.inputs(found[:, 0].astype(int))["frames"])


def test_the_samples_themselves_are_left_as_they_were(tmp_path: Path) -> None:
    samples = small_samples(tmp_path)
    table, index = samples.table.copy(), samples.index.copy()
    settings = Augmentation(mirror_along_track=True, gain_std=0.1, noise_std=0.1)
    changes = SequenceAugmentation(settings, samples.nadir, np.ones(1))
    batches = Batches(samples, samples.label, 5, seed=1, augment=changes)
    changed = [(batches[number][0]["frames"] != samples.inputs(batches.order[:5])["frames"]).any() for number in (0, 1)]
    assert all(changed)
    np.testing.assert_array_equal(samples.table, table)
    np.testing.assert_array_equal(samples.index, index)


def test_a_model_is_fed_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    samples = small_samples(tmp_path)
    batches = Batches(samples, np.arange(10, dtype="float32"), 4)
    fed = as_dataset(batches)
    assert len(fed) == 3
    for _ in range(2):  # epoch after epoch
        for (inputs, target), (expected, expected_target) in zip(fed, (batches[n] for n in range(3)), strict=True):
            np.testing.assert_array_equal(target, expected_target)
            assert inputs.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(inputs[name], values)
    batches.seed = 1  # now shuffled, anew each epoch
    batches.set_epoch(3)
    np.testing.assert_array_equal(np.concatenate([target for _, target in fed]), batches.target[batches.order])


def test_weights_go_with_their_samples_in_training_only(tmp_path: Path) -> None:
    samples = small_samples(tmp_path)
    batches = Batches(samples, np.arange(10, dtype="float32"), 4, seed=1, weight=samples.weight)
    _, target, weight = batches[0]
    np.testing.assert_array_equal(weight, samples.weight[target[:, 0].astype(int)])
    assert set(weight.tolist()) <= {1.0, 3.0}
    assert len(Batches(samples, np.zeros(10, "float32"), 4)[0]) == 2


def test_in_the_order_of_the_flight_a_batch_holds_neighbours(tmp_path: Path) -> None:
    samples = small_samples(tmp_path)
    batches = Batches(samples, np.arange(10, dtype="float32"), 4, seed=1, neighbours=True)
    found = [batches[number][1][:, 0].tolist() for number in range(len(batches))]
    assert sorted(found) == [[0, 1, 2, 3], [4, 5, 6, 7]]
