"""A model over a whole flight: no lidar, blocks of any size, and each flag for its own reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import (
    AZIMUTH,
    FRAMES,
    HEADING,
    SIGNAL,
    START_S,
    ZENITH,
    images,
    lidar_file,
    navigation_file,
    tiny_config,
    write_flight,
)
from predictions import POSITION, brightness, model_of, raised, unlabelled

from cloudml_tf.data import blocks
from cloudml_tf.data.readers.flights import load_flight
from cloudml_tf.data.readers.folders import flight_files
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.sequences import sequences_around
from cloudml_tf.data.training_ranges import Range, TrainingRanges
from cloudml_tf.inference.flags import FLAGS, MASKS, Frames, quality_flags
from cloudml_tf.inference.flight import predict_flight
from cloudml_tf.utils.errors import DataError

# --- flights without a lidar


def test_a_prediction_needs_no_lidar_and_a_training_does(tmp_path: Path) -> None:
    folder, config = write_flight(tmp_path / "a", navigation=POSITION), tiny_config(tmp_path)
    labelled = load_flight("a", flight_files(folder, config.data), config.data, config.target)
    lidar_file(folder).unlink()
    flight = unlabelled(folder, config)
    assert np.isnan(flight.label).all()
    np.testing.assert_array_equal(flight.sun_angles_deg, labelled.sun_angles_deg)
    np.testing.assert_array_equal(flight.latitude_deg, POSITION["nav/latitude"])
    with pytest.raises(DataError, match="no lidar file; one is needed"):
        flight_files(folder, config.data)
    files = flight_files(folder, config.data, labels=False)
    with pytest.raises(DataError, match=r"has no lidar file, which labels or features .* Name one in data\.flights"):
        load_flight("a", files, config.data, config.target)


def test_a_feature_of_the_lidar_asks_for_it(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", lidar={"aux/x": np.arange(10.0)})
    config = tiny_config(tmp_path, {"data.features": [{"name": "x", "file": "lidar", "dataset": "aux/x"}]})
    assert np.isfinite(unlabelled(folder, config).features).all()
    lidar_file(folder).unlink()
    with pytest.raises(DataError, match="no lidar file; one is needed"):
        unlabelled(folder, config)


@pytest.mark.parametrize(
    ("settings", "navigation", "known"),
    [
        ({}, POSITION, True),
        ({}, {"nav/latitude": POSITION["nav/latitude"]}, False),
        ({"data.navigation.latitude": None}, POSITION, False),
        ({"data.sun_angles": False}, {**POSITION, ZENITH: None}, True),
        ({"data.navigation.latitude": "nav/lat"}, {**POSITION, "nav/lat": POSITION["nav/latitude"]}, True),
    ],
)
def test_positions_come_from_the_navigation_file(tmp_path: Path, settings: Any, navigation: Any, known: bool) -> None:
    folder = write_flight(tmp_path / "a", navigation=navigation)
    flight = unlabelled(folder, tiny_config(tmp_path, settings))
    for values in (flight.latitude_deg, flight.longitude_deg):
        assert np.isfinite(values).all() == known


def test_a_chosen_position_must_be_there_and_fit(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", navigation={"nav/latitude": np.zeros(3), "nav/longitude": np.zeros(3)})
    with pytest.raises(DataError, match=r"no dataset 'nav/lat' \(configuration field data\.navigation\.latitude\)"):
        unlabelled(folder, tiny_config(tmp_path, {"data.navigation.latitude": "nav/lat"}))
    with pytest.raises(DataError, match=r"'nav/latitude' must have one row per camera frame, 40\. Received: 3"):
        unlabelled(folder, tiny_config(tmp_path))


def test_without_sun_and_navigation_the_camera_is_enough(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a")
    lidar_file(folder).unlink()
    navigation_file(folder).unlink()
    config = tiny_config(tmp_path, {"data.sun_angles": False})
    predicted = predict_flight(model_of(config, brightness), unlabelled(folder, config))
    assert predicted.valid.sum() == FRAMES - 2
    assert raised(predicted.flags, "gap") == [0, FRAMES - 1]


# --- blocks


@pytest.mark.parametrize("block_bytes", [1, 8 * 10 * 4 * 7, 2**26])
@pytest.mark.parametrize("temporal_frames", [1, 3, 7])
def test_the_size_of_a_block_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, temporal_frames: int
) -> None:
    """An unsorted file with a gap and a black frame; each answer is that of the whole flight at once."""
    order = np.random.default_rng(2).permutation(FRAMES)
    signal = images()
    signal[order == 11] = 0
    time_s = START_S + order + 100.0 * (order >= 25)
    folder = write_flight(tmp_path / "a", frame_s=time_s, profile_s=START_S + np.arange(4.0), camera={SIGNAL: signal})
    config = tiny_config(tmp_path, {"temporal_frames": temporal_frames})
    flight = unlabelled(folder, config)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    sizes = [len(block.radiance) for block in blocks.read_blocks(flight, config.data, temporal_frames - 1)]
    if block_bytes < 2**26:
        assert max(sizes) <= max(7, temporal_frames) + temporal_frames - 1
    predicted = predict_flight(model_of(config, brightness), flight)
    inverse, half = np.argsort(order), temporal_frames // 2
    expected = np.full(FRAMES, np.nan)
    for i in range(half, FRAMES - half):
        around = np.arange(i - half, i + half + 1)
        if 11 not in around and (around[0] >= 25) == (around[-1] >= 25):
            expected[i] = 1e-3 * signal[inverse[around]].mean()
    np.testing.assert_allclose(predicted.values["value"], expected, rtol=1e-5)
    assert raised(predicted.flags, "black_frame") == [11]


def test_progress_counts_frames_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_FRAMES", 16)
    config, told = tiny_config(tmp_path), []
    flight = unlabelled(write_flight(tmp_path / "a"), config)
    predict_flight(model_of(config, brightness), flight, lambda done, total: told.append((done, total)))
    assert told == [(16, 40), (32, 40), (40, 40)]


# --- flags


def test_each_flag_for_its_own_reason(tmp_path: Path) -> None:
    signal = images().astype("uint16")
    signal[4] = 0
    signal[10] = 65535  # of one value too, and yet saturated
    signal[30] = signal[30] // 2 + 20000
    zenith = np.full(FRAMES, 40.0)
    zenith[15], zenith[34], zenith[36] = np.nan, 41.5, 30.0
    azimuth = np.full(FRAMES, 150.0)
    azimuth[20], azimuth[21] = 30.0, 152.0  # 60 to the left is the mirror image of 60 to the right
    folder = write_flight(tmp_path / "a", camera={SIGNAL: signal}, navigation={ZENITH: zenith, AZIMUTH: azimuth})
    config = tiny_config(tmp_path, {"data.navigation.max_filled_frames": 0})
    light, flat, side = Range(2.0, 3.0, 8.0, 9.0), Range(*[40.0] * 4), Range(*[60.0] * 4)
    ranges = TrainingRanges([light], flat, side, [], Range(0.1, 0.2, 1.5, 1.6))

    def answer(samples: Samples) -> dict[str, np.ndarray]:
        value = np.where(samples.time_s == START_S + 25, 1.5, 1.0)
        return {"value": np.where(samples.time_s == START_S + 26, -0.1, value)}

    predicted = predict_flight(model_of(config, answer, ranges), unlabelled(folder, config))
    assert {name: raised(predicted.flags, name) for name in FLAGS} == {
        "black_frame": [4],
        "saturated_frame": [10],
        "gap": [0, 3, 5, 9, 11, 14, 16, 39],
        "missing_angles": [15],
        "sun_outside_training": [21, 34, 36],
        "radiance_outside_training": [30],
        "feature_outside_training": [],
        "glint": [36],
        "opaque": [25],
        "below_training_labels": [26],
        "invalid_pixels": [],
        "geometry_outside_training": [],
        "wind_unknown": [],
        "little_texture": [],
        "above_training_labels": [],
    }
    no_value = predicted.flags & MASKS[:4].sum() > 0
    np.testing.assert_array_equal(predicted.valid, ~no_value)


def test_features_are_compared_as_the_network_saw_them(tmp_path: Path) -> None:
    """0.1 is another number in float32: it must not be outside of itself."""
    values = np.full(FRAMES, 0.1)
    values[7] = 0.11
    folder = write_flight(tmp_path / "a", navigation={"aux/x": values})
    config = tiny_config(tmp_path, {"data.features": [{"name": "x", "file": "navigation", "dataset": "aux/x"}]})
    seen = Range.of(np.full(9, 0.1, "float32"))
    anything = Range(-1e9, -1e9, 1e9, 1e9)
    ranges = TrainingRanges([anything], anything, Range(-180.0, -180.0, 180.0, 180.0), [seen], anything)
    predicted = predict_flight(model_of(config, brightness, ranges), unlabelled(folder, config))
    assert raised(predicted.flags, "feature_outside_training") == [7]
    assert raised(predicted.flags, "sun_outside_training") == []


@pytest.mark.parametrize(
    ("target", "ranges", "expected"),
    [
        ({}, False, [3]),  # beyond target.maximum = 2
        ({}, True, [2, 3]),  # at the training's top
        ({"target.maximum": None}, False, []),
        ({"target.name": "cloud_base_km", "target.maximum": 1.0}, True, []),
    ],
)
def test_opaque_is_the_top_of_what_labels_can_say(tmp_path: Path, target: Any, ranges: bool, expected: Any) -> None:
    config = tiny_config(tmp_path, target)
    flight = unlabelled(write_flight(tmp_path / "a"), config)
    value = np.full(FRAMES, 1.0)
    value[2], value[3], value[4] = 1.5, 2.5, np.nan
    wide = Range(-1e9, -1e9, 1e9, 1e9)
    found = TrainingRanges([wide], wide, wide, [], Range(0.1, 0.2, 1.5, 1.6)) if ranges else None
    nothing = np.zeros(FRAMES, bool)
    flags = quality_flags(flight, Frames(nothing, nothing, nothing, np.ones((FRAMES, 1)), value), config, found)
    assert raised(flags, "opaque") == expected


def test_the_glint_limit_can_be_set(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", navigation={ZENITH: np.full(FRAMES, 40.0)})
    for limit, count in ((36.0, 0), (40.5, FRAMES)):
        config = tiny_config(tmp_path, {"prediction.glint_angle_deg": limit})
        predicted = predict_flight(model_of(config, brightness), unlabelled(folder, config))
        assert len(raised(predicted.flags, "glint")) == count


def test_frames_with_a_value_are_those_with_a_whole_sequence(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"temporal_frames": 5})
    folder = write_flight(tmp_path / "a", navigation={HEADING: np.r_[np.full(12, np.nan), np.full(28, 90.0)]})
    flight = unlabelled(folder, config)
    middles = sequences_around(flight, np.arange(FRAMES), config)[:, 2]
    predicted = predict_flight(model_of(config, brightness), flight)
    np.testing.assert_array_equal(np.flatnonzero(predicted.valid), middles)
    assert middles[0] == 14
