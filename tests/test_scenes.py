"""Gridded scenes: reading, splitting, labels on lines, scaling, batches, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scene_files import NAMES, scene_config, write_scenes

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.augmentation import MapAugmentation
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.readers.scenes import read_scenes
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes, on_lines, split_scenes, training_weight
from cloudml_tf.evaluation.collect import score_split
from cloudml_tf.train.batches import Batches
from cloudml_tf.train.loaders import training_batches
from cloudml_tf.utils.errors import ConfigError, DataError


@pytest.fixture
def content(tmp_path: Path) -> dict[str, np.ndarray]:
    return write_scenes(tmp_path / "scenes.h5")


@pytest.fixture
def config(tmp_path: Path, content) -> Config:
    return parse_config(scene_config(tmp_path / "scenes.h5", tmp_path))


def read(config: Config, **settings):
    scenes = config.data.scenes.model_copy(update=settings)
    return read_scenes(Path(scenes.path), scenes, config.target)


def changed(tmp_path: Path, section: str, **values) -> dict:
    found = scene_config(tmp_path / "scenes.h5", tmp_path)
    return {**found, section: {**found.get(section, {}), **values}}


def test_what_the_file_holds(config, content) -> None:
    scenes = read(config)
    assert scenes.names == tuple(map(str, NAMES))
    assert scenes.frame_shape == (16, 16, 2)
    np.testing.assert_allclose(scenes.frames[..., 1], content["swir"], rtol=1e-6)
    np.testing.assert_allclose(scenes.label, content["cot"], rtol=1e-6)
    np.testing.assert_allclose(scenes.retrieval, content["ipa"], rtol=1e-6)
    assert scenes.known.all()


def test_labels_out_of_range_or_missing_have_no_weight(tmp_path, config, content) -> None:
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        file["cot"][0, 0, :3] = np.nan
    target = config.target.model_copy(update={"maximum": 5.0})
    scenes = read_scenes(tmp_path / "scenes.h5", config.data.scenes, target)
    expected = content["cot"] <= 5.0
    expected[0, 0, :3] = False
    np.testing.assert_array_equal(scenes.known, expected)
    assert np.isfinite(scenes.label).all()


def test_scenes_are_named_by_number_or_counted(config) -> None:
    assert read(config, name=None).names == tuple(str(n) for n in range(1, 9))
    assert read(config).named(["8", "2"]).names == ("8", "2")
    with pytest.raises(DataError, match="no scene is called 9"):
        read(config).named(["9"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"channels": ("red", "swirl")}, r"no dataset 'swirl' \(configuration field data.scenes.channels\). Nearest"),
        ({"label": "profile"}, "'profile' .* must have 3 dimensions"),
        ({"name": "cot"}, "'cot' .*data.scenes.name.* must have 1 dimensions"),
    ],
)
def test_a_wrong_dataset_is_refused(config, settings, text) -> None:
    with pytest.raises(DataError, match=text):
        read(config, **settings)


def test_names_that_are_not_their_own_are_refused(tmp_path, config) -> None:
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        file["profile"][1] = 1
    with pytest.raises(DataError, match="a whole number of its own for each of the 8 scenes"):
        read(config)


def test_maps_of_another_shape_are_refused(tmp_path, config) -> None:
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        file["narrow"] = np.zeros((8, 16, 15))
    with pytest.raises(DataError, match=r"'narrow' must have the shape of 'red'.*Received: \(8, 16, 15\)"):
        read(config, label="narrow")


def test_pixels_that_are_no_numbers_are_refused(tmp_path, config) -> None:
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        file["red"][2, 3, 3] = np.nan
    with pytest.raises(DataError, match="scene 3 has pixels that are no numbers"):
        read(config)


def test_parts_are_cut_by_name_and_copies_leak(tmp_path, config) -> None:
    parts = split_scenes(read(config), config.split)
    assert {part: scenes.names for part, scenes in parts.items()} == {
        "train": ("1", "2", "3", "4"),
        "val": ("5", "6"),
        "test": ("7", "8"),
    }
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        for name in ("red", "swir"):
            file[name][7] = file[name][0]
    with pytest.raises(DataError, match="leak: scene 8 of the test part is, pixel by pixel, one of the train part"):
        split_scenes(read(config), config.split)


def test_labels_on_lines_are_every_nth_row_and_the_test_part_stays_whole(tmp_path, config) -> None:
    scenes = on_lines(read(config), 4, np.random.default_rng(0))
    for seen in scenes.known:
        rows = np.flatnonzero(seen.any(axis=1))
        assert len(rows) == 4
        assert (np.diff(rows) == 4).all()
        assert seen[rows].all()
    assert len({int(seen.any(axis=1).argmax()) for seen in scenes.known}) > 1  # not the same rows everywhere
    sparse = parse_config(scene_config(tmp_path / "scenes.h5", tmp_path, line_spacing=8))
    parts = prepare(sparse).parts
    assert [int(parts[part].weight.sum()) for part in ("train", "val", "test")] == [4 * 32, 2 * 32, 2 * 256]


def test_the_scaling_is_that_of_the_training_part(config) -> None:
    prepared = prepare(config)
    train, scaling = prepared.parts["train"], prepared.scaling
    z = scaling.target.standardise(train.label)
    assert z.mean() == pytest.approx(0, abs=1e-5)
    assert z.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(scaling.target.physical(z), train.label, rtol=1e-4, atol=1e-5)
    assert scaling.frame_mean[0] == pytest.approx(np.log(train.frames[..., 0] + 0.003).mean(), rel=1e-5)
    assert prepared.description()["split"]["train"]["labels"] == 4 * 256


def test_no_optical_depth_is_below_zero() -> None:
    scaling = TargetScaling(0.0, 1.0, log=True, log_offset=0.01)
    np.testing.assert_allclose(scaling.physical(np.log([0.001, 0.01, 1.01])), [0.0, 0.0, 1.0], atol=1e-9)


def batches_of(config: Config, periodic: bool = True) -> Batches:
    prepared = prepare(config)
    train = prepared.parts["train"]
    changes = MapAugmentation(config.augmentation, np.ones(2), "rows", periodic)
    target = prepared.scaling.target.standardise(train.label)
    return Batches(train, target, 2, seed=5, augment=changes, weight=train.weight, per_epoch=12)


def test_every_scene_comes_as_often_and_each_time_otherwise(config) -> None:
    batches = batches_of(config)
    assert len(batches) == 6
    assert np.bincount(batches.order).tolist() == [3, 3, 3, 3]
    first, again = batches[0], batches[0]
    np.testing.assert_array_equal(first[0]["frames"], again[0]["frames"])
    batches.set_epoch(1)
    assert not np.array_equal(first[1], batches[0][1])


def test_shifts_and_mirrors_keep_image_and_label_together_and_the_sun_on_its_side(config) -> None:
    """The second channel is a function of the label alone; a shadow lies to the right of its cloud."""
    batches = batches_of(config)
    prepared = prepare(config)
    for number in range(len(batches)):
        inputs, target, weight = batches[number]
        cot = prepared.scaling.target.physical(target)
        np.testing.assert_allclose(inputs["frames"][..., 1], 0.4 * cot / (cot + 3.0) + 0.02, atol=1e-4)
        shadow = (np.roll(cot, 2, axis=2) > 3.0) & (cot < 1.0)
        assert shadow.any()
        expected = cot / (cot + 7.0) * np.where(shadow, 0.5, 1.0) + 0.03
        np.testing.assert_allclose(inputs["frames"][..., 0], expected, atol=1e-4)
        assert weight.min() == 1.0


def test_scenes_that_end_are_not_shifted(config) -> None:
    still = config.model_copy(
        update={"augmentation": config.augmentation.model_copy(update={"mirror_across_track": False})}
    )
    batches = batches_of(still, periodic=False)
    np.testing.assert_array_equal(batches[0][0]["frames"], batches.examples.frames[batches.order[:2]])
    shifted = batches_of(still)
    assert not np.array_equal(shifted[0][0]["frames"], shifted.examples.frames[shifted.order[:2]])


def with_flights(path: Path) -> None:
    """Give the file two groups, a number of each scene's own, and labels that are better known."""
    with h5py.File(path, "a") as file:
        file["flight"] = np.repeat([1, 2, 3, 4], 2)
        file["sun"] = np.linspace(-0.5, 0.9, 8)
        file["truth"] = 2.0 * file["cot"][()]
        file["cot"][:, :9] = np.nan
        file["cot"][:, 10:] = np.nan
        file["cot"][1] = np.nan


OF_FLIGHTS = {"channels": ["red", "sun"], "group": "flight", "test_label": "truth", "periodic": False, "sun_axis": None}
FLIGHT_SPLIT = {"kind": "flights", "train": [1, 2], "val": [3], "test": [4]}


def of_flights(tmp_path: Path, **changes) -> dict:
    content = scene_config(tmp_path / "scenes.h5", tmp_path, **OF_FLIGHTS)
    content |= {"split": FLIGHT_SPLIT, "preprocessing": {}, "augmentation": {"mirror_across_track": False}}
    content["model"] |= {"mirror_average": False, "shift_average": False}
    return {**content, **changes}


def test_groups_are_split_and_the_test_part_has_labels_of_its_own(tmp_path, content) -> None:
    with_flights(tmp_path / "scenes.h5")
    prepared = prepare(parse_config(of_flights(tmp_path)))
    parts = prepared.parts
    assert parts["train"].names == ("1", "3", "4")  # the second has no label
    assert parts["train"].split_names == ("1", "2", "2")
    assert [int(parts[part].weight.sum()) for part in ("train", "val", "test")] == [3 * 16, 2 * 16, 2 * 256]
    np.testing.assert_allclose(parts["test"].label, 2.0 * content["cot"][6:], rtol=1e-6)
    assert prepared.description()["split"]["train"]["flights"] == ["1", "2"]


def test_a_number_of_a_scene_is_a_channel_that_no_change_touches(tmp_path, content) -> None:
    with_flights(tmp_path / "scenes.h5")
    loud = {"mirror_across_track": False, "gain_std": 0.3, "noise_std": 0.3, "window": 0.5}
    config = parse_config(of_flights(tmp_path, augmentation=loud))
    train = prepare(config).parts["train"]
    assert train.single == (1,)
    np.testing.assert_allclose(train.frames[:, 3, 5, 1], np.linspace(-0.5, 0.9, 8)[[0, 2, 3]], rtol=1e-6)
    batches = training_batches(config, prepare(config))
    rows = set()
    for number in range(len(batches)):
        inputs, _, weight = batches[number]
        assert inputs["frames"].shape[1:] == (8, 8, 2)
        assert set(np.unique(inputs["frames"][..., 1])) <= set(np.unique(train.frames[..., 1]))
        assert (weight.sum(axis=(1, 2)) == 8).all()  # the line is in every window
        rows |= set(np.argwhere(weight > 0)[:, 1])
    assert len(rows) > 4  # at another row each time


def test_intervals_draw_groups_where_there_are_enough(tmp_path) -> None:
    config = parse_config(scene_config(tmp_path / "none.h5", tmp_path))
    rng = np.random.default_rng(0)
    label = rng.random((12, 2, 2))
    for groups, drawn in ((4, 12), (6, 6)):
        names = tuple(str(n % groups) for n in range(12))
        scenes = Scenes(label[..., None], label, np.ones_like(label), tuple(map(str, range(12))), groups=names)
        assert score_split(scenes, label, TargetScaling(0.0, 1.0, log=False), config)["n_eff"] == drawn


@pytest.mark.parametrize(
    ("scenes", "more", "text"),
    [
        ({"group": "flihgt"}, {}, r"no dataset 'flihgt' \(configuration field data.scenes.group\). Nearest: 'flight'"),
        ({"test_label": "thruth"}, {}, "no dataset 'thruth'"),
        ({"group": "sun"}, {}, "must hold a whole number for each of the 8 scenes"),
        ({"channels": ["sun"]}, {}, "names no image"),
        ({"channels": ["red", "short"]}, {}, "'short' must have a number for each of the 8 scenes. Received: 3"),
        ({}, {"split": {**FLIGHT_SPLIT, "test": [9]}}, "split.test names flight '9'"),
        ({}, {"preprocessing": {"log_offset": 0.01}}, "sun is one number a scene"),
        ({}, {"augmentation": {}}, "sunlight from any direction, and a mirror image has another sun"),
        ({"periodic": True}, {"augmentation": {"mirror_across_track": False, "window": 0.5}}, "non-periodic scenes"),
    ],
)
def test_scenes_of_flights_that_do_not_fit_are_refused(tmp_path, content, scenes, more, text) -> None:
    with_flights(tmp_path / "scenes.h5")
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        file["short"] = np.zeros(3)
    given = of_flights(tmp_path, **more)
    given["data"]["scenes"] |= scenes
    with pytest.raises((ConfigError, DataError), match=text):
        prepare(parse_config(given))


def test_a_group_is_called_by_its_name(tmp_path, content) -> None:
    with_flights(tmp_path / "scenes.h5")
    config = parse_config(of_flights(tmp_path))
    assert read(config).named(["3", "1"]).names == ("5", "6", "1", "2")
    with pytest.raises(DataError, match=r"no group is called 9\. There are 1, 2, 3, 4"):
        read(config).named(["9"])


@pytest.mark.parametrize("change", [{"gain_std": 0.2}, {"noise_std": 0.1}])
def test_gain_and_noise_change_images_and_no_label(config, change) -> None:
    loud = config.model_copy(update={"augmentation": config.augmentation.model_copy(update=change)})
    (plain, target, _), (frames, same, _) = batches_of(config)[0], batches_of(loud)[0]
    assert not np.allclose(plain["frames"], frames["frames"])
    np.testing.assert_array_equal(target, same)


def test_overweight_counts_high_labels_and_named_scenes_more(tmp_path, config) -> None:
    train = prepare(config).parts["train"]
    heavy = parse_config(
        {**config.model_dump(mode="json"), "overweight_factor": 3.0, "overweight": {"threshold": 10.0}}
    )
    np.testing.assert_array_equal(training_weight(train, heavy), np.where(train.label >= 10.0, 3.0, 1.0))
    np.testing.assert_array_equal(prepare(heavy).fitted.weight, training_weight(train, heavy))
    rule = {"threshold": None, "flights": ["2"]}
    heavy = parse_config({**config.model_dump(mode="json"), "overweight": {"factor": 3.0, **rule}})
    assert training_weight(train, heavy).mean(axis=(1, 2)).tolist() == [1.0, 3.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        ("target", {"coverage": "nadir", "log_offset": 0.0, "minimum": 0.1}, "data.scenes has a label at every pixel"),
        ("target", {"minimum": None}, "a log target needs minimum above 0"),
        ("data", {"sun_angles": True}, "a file of scenes brings the sun's direction along"),
        ("data", {"path": "flights"}, "path and scenes both name the input"),
        ("model", {"footprint": 5}, "needs model.footprint at its default, 11: describes a network"),
        ("model", {"shift_average": True}, "shift_average is for periodic scenes"),
        ("augmentation", {"mirror_along_track": True}, "needs augmentation.mirror_along_track at its default"),
        (
            "training",
            {"run_length": 4},
            "needs training.run_length at its default, 1: scenes share no frames. Received: 4",
        ),
        ("training", {"devices": "mirrored"}, "several devices train networks of sequences"),
        ("split", {"kind": "time_blocks"}, "splits scenes by name"),
    ],
)
def test_what_a_swath_cannot_use_is_refused(tmp_path, section, values, text) -> None:
    given = changed(tmp_path, section, **values)
    if section == "split":
        given["split"] = values
    if "shift_average" in values:
        given["data"]["scenes"]["periodic"] = False
    with pytest.raises(ConfigError, match=text):
        parse_config(given)


def test_scenes_of_several_frames_are_read_as_one_image_each(tmp_path, content) -> None:
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        for name in ("red", "swir"):
            file[f"{name}_three"] = np.stack([content[name] + step for step in range(3)], axis=1)
    given = scene_config(tmp_path / "scenes.h5", tmp_path, channels=["red_three", "swir_three"])
    with pytest.raises(DataError, match=r"scenes of 3 frames do not fit temporal_frames 1\. Set temporal_frames to 3"):
        prepare(parse_config(given))
    train = prepare(parse_config({**given, "temporal_frames": 3})).parts["train"]
    assert train.frame_shape == (3, 16, 16, 2)
    np.testing.assert_allclose(train.frames[:, 2] - train.frames[:, 0], 2.0, rtol=1e-5)
    pixels = train.baseline_features(None)["pixels"][:256, 0]
    np.testing.assert_allclose(pixels, content["red"][0].ravel() + 1, rtol=1e-5)  # those of the middle frame


def test_scenes_that_cannot_be_halved_are_refused(tmp_path) -> None:
    write_scenes(tmp_path / "scenes.h5", side=18)
    config = parse_config(changed(tmp_path, "model", widths=[4, 4, 4]))
    with pytest.raises(DataError, match=r"18 x 18 pixels cannot be halved 2 times: .* must be multiples of 4"):
        prepare(config)
