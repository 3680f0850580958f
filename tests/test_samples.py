"""Sequences of frames: never across a gap, never with a bad frame; weights, nadir, and what is left out and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import (
    AZIMUTH,
    DEPTH,
    FRAMES,
    HEADING,
    SIGNAL,
    START_S,
    ZENITH,
    camera_file,
    images,
    slots,
    tiny_config,
    write_flight,
    write_three_flights,
)

from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.samples import Samples, build_samples, check_sequences
from cloudml_tf.data.sequences import frames_around, sequences
from cloudml_tf.data.sources import available_flights, read_flights
from cloudml_tf.utils.errors import DataError

EVERY_SECOND = START_S + np.arange(FRAMES)


def build(home: Path, **changes: Any) -> tuple[Samples, dict[str, dict[str, int]]]:
    """Samples of all flights below `home`/flights. `changes` are configuration paths with __ for the dot."""
    config = tiny_config(home, {key.replace("__", "."): value for key, value in changes.items()})
    files = available_flights(config)
    return build_samples(read_flights(files, sorted(files), config), config)


def bare_flight(time_s: np.ndarray, label: np.ndarray) -> Flight:
    """A flight of times and labels alone."""
    count = len(time_s)
    place = np.zeros(count)
    pieces = times.pieces(time_s, None)
    rows, features = np.arange(count), np.zeros((count, 0))
    return Flight("x", Path("x"), (8, 10, 1), rows, time_s, pieces, label, None, features, place, place)


# --- sequences


@pytest.mark.parametrize("temporal_frames", [1, 3, 5, 7])
@pytest.mark.parametrize("seed", range(12))
def test_no_sequence_crosses_a_gap_or_an_end(temporal_frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(199) < 0.1, rng.integers(2, 30, 199), 1).astype(float)
    flight = bare_flight(np.concatenate([[0.0], np.cumsum(steps)]), np.where(rng.random(200) < 0.5, 1.0, np.nan))
    found = sequences(flight, tiny_config(Path("x"), {"temporal_frames": temporal_frames}))
    half = temporal_frames // 2
    # Brute force: a labelled frame whose neighbours are all there, one second apart.
    expected = [
        middle
        for middle in range(half, 200 - half)
        if np.isfinite(flight.label[middle]) and (steps[middle - half : middle + half] == 1.0).all()
    ]
    np.testing.assert_array_equal(found[:, half] if len(found) else [], expected)
    assert (np.diff(found, axis=1) == 1).all()
    assert (np.ptp(flight.time_s[found], axis=1) == temporal_frames - 1).all()


@pytest.mark.parametrize("spacing_s", [1.0, 2.0, 2.5, 6.0])
def test_frames_of_a_sequence_are_so_many_seconds_apart(spacing_s: float) -> None:
    rng = np.random.default_rng(3)
    time_s = np.delete(np.arange(300.0), rng.choice(300, 20, replace=False)) + 0.02 * rng.standard_normal(280)
    flight = bare_flight(time_s, np.ones(280))
    flight = replace(flight, piece=(time_s > 150.0).astype(int))
    config = tiny_config(Path("x"), {"temporal_frames": 5, "frame_spacing_s": spacing_s})
    around = frames_around(flight, config)
    for middle, found in enumerate(around):
        for step, frame in zip(range(-2, 3), found, strict=True):
            same = np.flatnonzero(flight.piece == flight.piece[middle])
            away = np.abs(time_s[same] - time_s[middle] - step * spacing_s)
            best = same[away.argmin()]
            if frame < 0:
                assert away.min() > min(0.49, 0.25 * spacing_s) or flight.piece[best] != flight.piece[middle]
            else:
                assert away[same == frame] == pytest.approx(away.min())
                assert away.min() <= 0.51
    found = sequences(flight, config)
    assert len(found) > 100
    assert (np.diff(found, axis=1) > 0).all()
    assert not (frames_around(flight, config.model_copy(update={"frame_spacing_s": 1.5})) >= 0).all(axis=1).any()
    with pytest.raises(DataError, match=r"frame_spacing_s = 0.3 s apart.*frames are 1 s apart.*multiple"):
        check_sequences(flight, found[:0], config.model_copy(update={"frame_spacing_s": 0.3}))


def test_first_and_last_frames_have_no_neighbours(tmp_path: Path) -> None:
    write_flight(tmp_path / "flights" / "a", profile_s=EVERY_SECOND)
    samples, _ = build(tmp_path, temporal_frames=5)
    np.testing.assert_allclose(samples.time_s, EVERY_SECOND[2:-2])
    np.testing.assert_array_equal(samples.index[0], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("what", ["sun angles", "features"])
def test_sequences_need_sun_angles_and_features_on_every_frame(tmp_path: Path, what: str) -> None:
    values = np.full(FRAMES, 40.0)
    values[20:24] = np.nan
    navigation = {ZENITH: values} if what == "sun angles" else {"nav/roll": values}
    write_flight(tmp_path / "flights" / "a", profile_s=EVERY_SECOND, navigation=navigation)
    changes: dict[str, Any] = {"data__navigation__max_filled_frames": 0}
    if what == "features":
        changes = {"data__features": [{"name": "roll", "file": "navigation", "dataset": "nav/roll"}]}
    samples, _ = build(tmp_path, **changes)
    kept = [*range(1, 19), *range(25, 39)]  # frames 19 to 24 have one of 20 to 23 in their three
    np.testing.assert_allclose(samples.time_s - START_S, kept)


def test_sequences_with_a_bad_frame_are_left_out_and_counted(tmp_path: Path) -> None:
    signal = images()
    signal[10] = 0
    write_flight(tmp_path / "flights" / "a", profile_s=EVERY_SECOND, camera={SIGNAL: signal})
    samples, counts = build(tmp_path)
    np.testing.assert_allclose(samples.time_s - START_S, [*range(1, 9), *range(12, 39)])
    assert counts["a"]["frames black, saturated or not finite"] == 1
    assert counts["a"]["sequences left out for them"] == 3
    assert counts["a"]["sequences"] == len(samples) == 35


# --- what a network is given


def test_inputs_are_the_frames_angles_and_features_of_each_sequence(tmp_path: Path) -> None:
    roll = np.linspace(-1, 1, FRAMES)
    for seed, name in enumerate("ab"):
        write_flight(
            tmp_path / "flights" / name,
            seed=seed,
            attributes={SIGNAL: {}},
            navigation={ZENITH: 40 + roll, AZIMUTH: np.full(FRAMES, 10.0), HEADING: 350 + roll, "nav/roll": roll},
        )
    features = [{"name": "roll", "file": "navigation", "dataset": "nav/roll"}]
    samples, _ = build(tmp_path, data__features=features)
    assert samples.flight_names == ("a", "b")
    chosen = int(np.flatnonzero(samples.flight == 1)[2])
    inputs = samples.inputs(np.array([chosen]))
    window = int(samples.time_s[chosen] - START_S) + np.array([-1, 0, 1])
    np.testing.assert_array_equal(inputs["frames"], images(seed=1)[window][None, ..., None])
    np.testing.assert_allclose(inputs["features"][0, :, 0], roll[window], rtol=1e-6)
    expected = np.stack([40 + roll[window], 20 - roll[window]], axis=1)
    np.testing.assert_allclose(inputs["sun_angles_deg"][0], expected, rtol=1e-6)


def test_frames_that_sequences_share_are_stored_once(tmp_path: Path) -> None:
    write_flight(tmp_path / "flights" / "a", profile_s=EVERY_SECOND)
    samples, _ = build(tmp_path, temporal_frames=7)
    assert len(samples) == FRAMES - 6
    assert len(samples.table) == FRAMES


def test_taking_a_part_keeps_the_rest_aligned(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    samples, _ = build(tmp_path)
    part = samples.take(samples.flight == 2)
    assert 0 < len(part) < len(samples)
    np.testing.assert_array_equal(part.label, samples.label[-len(part) :])
    np.testing.assert_array_equal(part.inputs()["frames"], samples.inputs()["frames"][-len(part) :])


# --- nadir


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ({}, (4, 5)),
        ({"nadir": [1, 2]}, (1, 2)),
        ({"nadir": [0, 0]}, (0, 0)),
        ({"boresight_offset": [-2, 3]}, (2, 8)),
        ({"nadir": [1, 2], "boresight_offset": [1, -1]}, (2, 1)),
        ({"rows": [2, 8], "downsample": 2}, (1, 2)),
    ],
)
def test_the_nadir_pixel_is_the_middle_or_a_setting_plus_the_boresight(
    tmp_path: Path, camera: dict[str, Any], expected: tuple[int, int]
) -> None:
    write_flight(tmp_path / "flights" / "a")
    samples, _ = build(tmp_path, **{f"data__camera__{key}": value for key, value in camera.items()})
    assert samples.nadir == expected


@pytest.mark.parametrize("camera", [{"nadir": [8, 0]}, {"boresight_offset": [0, 5]}, {"boresight_offset": [-5, 0]}])
def test_a_nadir_outside_of_the_frame_is_refused(tmp_path: Path, camera: dict[str, Any]) -> None:
    write_flight(tmp_path / "flights" / "a")
    with pytest.raises(
        DataError, match=r"data\.camera\.nadir with boresight_offset is .* outside of a frame of 8 x 10"
    ):
        build(tmp_path, **{f"data__camera__{key}": value for key, value in camera.items()})


# --- weights


def test_overweight_by_threshold_and_by_flight(tmp_path: Path) -> None:
    label = np.linspace(0.2, 1.9, 10)
    write_three_flights(tmp_path / "flights", label=label)
    samples, _ = build(tmp_path, overweight={"factor": 2.5, "threshold": 1.0})
    np.testing.assert_array_equal(samples.weight, np.where(samples.label >= 1.0, 2.5, 1.0).astype("float32"))
    samples, _ = build(tmp_path, overweight={"factor": 2.5, "threshold": None, "flights": ["b"]})
    np.testing.assert_array_equal(samples.weight, np.where(samples.flight == 1, 2.5, 1.0).astype("float32"))
    samples, _ = build(tmp_path)
    np.testing.assert_array_equal(samples.weight, 1.0)


def test_overweighting_an_unknown_flight_is_refused(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    config = tiny_config(tmp_path, {"overweight.factor": 2.0, "overweight.flights": ["z"]})
    with pytest.raises(DataError, match=r"overweight\.flights names z; the flights are a, b, c"):
        prepare(config)


# --- refusals


def test_no_labels_are_told_with_the_reasons(tmp_path: Path) -> None:
    write_flight(tmp_path / "flights" / "a", lidar={DEPTH: slots(*[[5.0]] * 10)})
    with pytest.raises(
        DataError, match=r"flight a has no label for optical_depth between 0\.1 and 2:.*10 profiles out of range"
    ):
        build(tmp_path)


def test_a_sequence_longer_than_every_piece_is_told_with_the_longest(tmp_path: Path) -> None:
    frame_s = START_S + np.concatenate([np.arange(4), 20 + np.arange(6), 50 + np.arange(5)])
    write_flight(tmp_path / "flights" / "a", frame_s=frame_s, profile_s=frame_s)
    with pytest.raises(DataError, match=r"temporal_frames = 7 .*longest piece without a gap has 6 frames\. Lower"):
        build(tmp_path, temporal_frames=7)


def test_missing_sun_angles_are_not_blamed_on_the_length(tmp_path: Path) -> None:
    write_flight(tmp_path / "flights" / "a", navigation={HEADING: np.full(FRAMES, np.nan)})
    with pytest.raises(DataError, match=r"40 frames without sun angles.*data\.sun_angles"):
        build(tmp_path)


@pytest.mark.parametrize("value", [0, 65535])
def test_a_flight_of_black_or_saturated_frames_is_refused(tmp_path: Path, value: int) -> None:
    write_flight(tmp_path / "flights" / "a", camera={SIGNAL: np.full((FRAMES, 8, 10), value, "uint16")})
    with pytest.raises(DataError, match=r"every labelled sequence of flight a has a black, saturated or non-finite"):
        build(tmp_path)


def test_flights_of_different_frame_shape_are_refused(tmp_path: Path) -> None:
    write_flight(tmp_path / "flights" / "a")
    write_flight(tmp_path / "flights" / "b", camera={SIGNAL: images(width=12)})
    with pytest.raises(DataError, match=r"differ in frame shape .*'a': \(8, 10, 1\), 'b': \(8, 12, 1\)"):
        build(tmp_path)
    assert build(tmp_path, data__camera__columns=[0, 10])[0].frame_shape == (8, 10, 1)


@pytest.mark.parametrize("how", ["symbolic link", "hard link", "copy"])
def test_one_file_under_two_names_would_leak(tmp_path: Path, how: str) -> None:
    first = camera_file(write_flight(tmp_path / "flights" / "a"))
    second = camera_file(write_flight(tmp_path / "flights" / "b", seed=1))
    second.unlink()
    if how == "symbolic link":
        second.symlink_to(first)
    elif how == "hard link":
        second.hardlink_to(first)
    else:
        second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=r"flights a and b have the same camera file, .*/a/.* and .*/b/.*leak"):
        build(tmp_path)
