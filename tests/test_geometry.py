"""Heights by geometry: planted clouds that a wrong sign puts elsewhere, sources of the geometry, what is refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import (
    BASE,
    HEADING,
    OPACITY,
    SIGNAL,
    START_S,
    SURFACE,
    TOP,
    camera_file,
    slots,
    tiny_content,
    write_flight,
)

from cloudml_tf.config.load import parse_config
from cloudml_tf.data.plane_sweep import Axes, heights_km, sweep
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.folders import flight_files
from cloudml_tf.data.readers.ground_track import ground_speed
from cloudml_tf.data.samples import Samples, build_samples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.diagnostics.check.findings import Finding, as_hint
from cloudml_tf.diagnostics.check.geometry import judge_geometry
from cloudml_tf.evaluation.baselines import fit_predict
from cloudml_tf.utils.errors import ConfigError, DataError

ALTITUDE_KM, SPEED, SCALE = 20.0, 200.0, 500.0  # 40 m a pixel at sea level
ROWS, COLUMNS, FRAMES = 40, 64, 9


def texture(ahead_m: np.ndarray, right_m: np.ndarray, seed: int = 0) -> np.ndarray:
    """A smooth random pattern that lies still in the moving air."""
    rng = np.random.default_rng(seed)
    found = np.zeros(np.broadcast(ahead_m, right_m).shape)
    for _ in range(40):
        length, angle, phase = rng.uniform(150.0, 800.0), *rng.uniform(0.0, 2 * np.pi, 2)
        found += np.sin(2 * np.pi * (ahead_m * np.cos(angle) + right_m * np.sin(angle)) / length + phase)
    return found / 40**0.5


def planted(
    height_km: float,
    roll: np.ndarray | float = 0.0,
    pitch: np.ndarray | float = 0.0,
    wind: tuple[float, float] = (0.0, 0.0),
    drift_deg: float = 0.0,
) -> np.ndarray:
    """(T, rows to the right, columns forward): images of a layer at a height, from an aircraft in flight."""
    time_s = np.arange(FRAMES) - FRAMES // 2
    below_m = 1000.0 * (ALTITUDE_KM - height_km)
    roll, pitch = (np.deg2rad(np.broadcast_to(angle, FRAMES)) for angle in (roll, pitch))
    row, column = np.mgrid[:ROWS, :COLUMNS]
    drift = np.deg2rad(drift_deg)
    found = []
    for step, second in enumerate(time_s):
        ahead = ((column - COLUMNS // 2) / SCALE + pitch[step]) * below_m
        right = ((row - ROWS // 2) / SCALE - roll[step]) * below_m
        ahead = ahead + (SPEED * np.cos(drift) - wind[0]) * second
        right = right + (SPEED * np.sin(drift) - wind[1]) * second
        found.append(texture(ahead, right))
    return np.stack(found)


def counts(images: np.ndarray) -> np.ndarray:
    """Images as a camera stores them."""
    return np.clip(4000.0 + 1000.0 * images, 1, 60_000).astype("uint16")


def written(
    folder: Path, images: np.ndarray, geometry: dict[str, Any] | None = None, across: str = "rows", **navigation: Any
) -> tuple[Flight, Samples]:
    """A flight of these images, read as a configuration of `geometry` reads it, and its sequences."""
    level = {"altitude": np.full(FRAMES, 1000.0 * ALTITUDE_KM), "groundSpeed": np.full(FRAMES, SPEED)}
    contents = {f"nav/{key}": value for key, value in {**level, **navigation}.items() if "/" not in key}
    contents |= {key: value for key, value in navigation.items() if "/" in key}
    write_flight(
        folder,
        frame_s=START_S + np.arange(FRAMES),
        profile_s=START_S + np.arange(3.0, 6.0),
        half_span_s=0.4,
        camera={SIGNAL: counts(images)},
        navigation={HEADING: np.full(FRAMES, 30.0), **contents},
    )
    with h5py.File(camera_file(folder), "a") as file:
        file.attrs["pixel_m"] = 1000.0 * ALTITUDE_KM / SCALE
    content = tiny_content(
        folder.parent, {"target.name": "cloud_top_km", "temporal_frames": 7, "data.sun_angles": False}
    )
    content["data"] |= {"geometry": geometry or {}, "camera": {"across_track_axis": across}}
    config = parse_config(content)
    flight = load_flight("a", flight_files(folder, config.data), config.data, config.target)
    return flight, build_samples([flight], config)[0]


def height(samples: Samples) -> float:
    """The median of the heights that the sweep finds."""
    found = samples.swept()
    assert found is not None
    return float(np.median(found[0]))


WANDER = np.array([0.3, -0.2, 0.1, 0.4, 0.0, -0.3, 0.2, -0.1, 0.3])


@pytest.mark.parametrize("layer_km", [0.6, 2.0, 4.8])
def test_a_layer_is_found_at_its_height(tmp_path, layer_km):
    _, samples = written(tmp_path / "a", planted(layer_km))
    assert height(samples) == pytest.approx(layer_km, abs=0.04)


def test_pitch_is_nose_up_and_the_other_sign_is_a_setting(tmp_path):
    pitch = 0.02 * np.arange(FRAMES) + 0.1 * WANDER  # rises by 0.02 degrees a second
    flight, samples = written(tmp_path / "a", planted(2.0, pitch=pitch), pitch=pitch)
    assert height(samples) == pytest.approx(2.0, abs=0.04)
    assert flight.motion.columns is not None
    assert flight.motion.columns[:, 4] == pytest.approx(pitch)
    _, wrong = written(tmp_path / "b", planted(2.0, pitch=pitch), {"pitch_positive": "nose down"}, pitch=pitch)
    assert abs(height(wrong) - 2.0) > 0.4
    _, mended = written(tmp_path / "c", planted(2.0, pitch=pitch), {"pitch_positive": "nose down"}, pitch=-pitch)
    assert height(mended) == pytest.approx(2.0, abs=0.04)


def agreement(samples: Samples) -> float:
    """The best correlation over all heights, the mean over sequences."""
    assert samples.sight is not None
    frames, nadir = samples.sight.axes.upright(samples.table[samples.index], samples.nadir)
    return float(sweep(frames, samples.sight.geometry[samples.index], nadir, samples.sight.height_km)[1].mean())


def test_roll_is_right_wing_down_and_the_other_sign_is_a_setting(tmp_path):
    roll = 3.0 * WANDER
    _, samples = written(tmp_path / "a", planted(2.0, roll=roll), roll=roll)
    assert height(samples) == pytest.approx(2.0, abs=0.04)
    assert agreement(samples) > 0.98
    _, wrong = written(tmp_path / "b", planted(2.0, roll=roll), {"roll_positive": "left wing down"}, roll=roll)
    assert agreement(wrong) < 0.8
    _, mended = written(tmp_path / "c", planted(2.0, roll=roll), {"roll_positive": "left wing down"}, roll=-roll)
    assert height(mended) == pytest.approx(2.0, abs=0.04)


def wind_of(along: float, across: float) -> dict[str, np.ndarray]:
    return {"weather/windAlongTrack": np.full(FRAMES, along), "weather/windAcrossTrack": np.full(FRAMES, across)}


def test_wind_from_behind_is_positive_and_looks_like_height(tmp_path):
    images = planted(2.0, wind=(8.0, 0.0))
    flight, samples = written(tmp_path / "a", images, **wind_of(8.0, 0.0))
    assert flight.motion.wind_known
    assert height(samples) == pytest.approx(2.0, abs=0.04)
    calm, unknown = written(tmp_path / "b", images)
    assert not calm.motion.wind_known
    assert height(unknown) == pytest.approx(2.0 - 8.0 * 0.09, abs=0.1)  # 0.09 km for each m/s
    assert height(written(tmp_path / "c", images, **wind_of(-8.0, 0.0))[1]) < 0.9


def test_wind_to_the_right_is_positive(tmp_path):
    images = planted(2.0, wind=(0.0, 40.0))
    right = written(tmp_path / "a", images, **wind_of(0.0, 40.0))[1]
    assert height(right) == pytest.approx(2.0, abs=0.04)
    assert agreement(right) > 0.98
    assert agreement(written(tmp_path / "b", images, **wind_of(0.0, -40.0))[1]) < 0.8


def test_wind_by_the_direction_that_it_comes_from(tmp_path):
    # The camera looks along 30 degrees: a wind from 210 comes from behind, one from 300 blows to the right.
    behind = planted(2.0, wind=(8.0, 0.0))
    assert height(written(tmp_path / "a", behind, {"wind_speed": 8.0, "wind_from": 210.0})[1]) == pytest.approx(
        2.0, abs=0.04
    )
    aside = written(tmp_path / "b", planted(2.0, wind=(0.0, 40.0)), {"wind_speed": 40.0, "wind_from": 300.0})[1]
    assert height(aside) == pytest.approx(2.0, abs=0.04)
    assert agreement(aside) > 0.98


def test_the_aircrafts_own_wind_is_never_taken_for_the_clouds(tmp_path):
    own = {"windSpeed": np.full(FRAMES, 25.0), "windFrom": np.full(FRAMES, 210.0)}
    flight, samples = written(tmp_path / "a", planted(2.0), **own)
    assert not flight.motion.wind_known
    assert height(samples) == pytest.approx(2.0, abs=0.04)


@pytest.mark.parametrize("settings", [{"drift": 6.0}, {"course": 36.0}])
def test_a_drifting_aircraft_moves_aside_too(tmp_path, settings):
    images = planted(2.0, drift_deg=6.0)
    _, samples = written(tmp_path / "a", images, settings)
    assert height(samples) == pytest.approx(2.0, abs=0.04)
    assert agreement(samples) > 0.98
    assert agreement(written(tmp_path / "b", images)[1]) < 0.9


def test_a_camera_that_is_mounted_askew(tmp_path):
    roll, pitch = 2.0 * WANDER, 0.02 * np.arange(FRAMES)
    images = planted(2.0, roll=roll + 0.4, pitch=pitch - 0.3, drift_deg=6.0)
    mounted = {"camera_roll_deg": 0.4, "camera_pitch_deg": -0.3, "camera_yaw_deg": -6.0}
    samples = written(tmp_path / "a", images, mounted, roll=roll, pitch=pitch)[1]
    assert height(samples) == pytest.approx(2.0, abs=0.05)
    assert agreement(samples) > 0.98
    assert samples.sight.geometry[0, 3:5] == pytest.approx([roll[0] + 0.4, pitch[0] - 0.3])
    # The camera looks along 24 degrees: a wind from 204 comes from behind.
    behind = {"camera_yaw_deg": -6.0, "drift": -6.0, "wind_speed": 8.0, "wind_from": 204.0}
    assert height(written(tmp_path / "b", planted(2.0, wind=(8.0, 0.0)), behind)[1]) == pytest.approx(2.0, abs=0.05)


def test_speed_and_course_follow_from_positions(tmp_path):
    metres = SPEED * np.arange(FRAMES)
    north, east = (metres * way(np.deg2rad(36.0)) / 111_195.0 for way in (np.cos, np.sin))
    places = {"latitude": 60.0 + north, "longitude": -30.0 + east / np.cos(np.deg2rad(60.0))}
    images = planted(2.0, drift_deg=6.0)
    _, samples = written(tmp_path / "a", images, {"ground_speed": "positions", "course": "positions"}, **places)
    assert samples.sight.geometry[:, 5:7] == pytest.approx(
        np.tile(SPEED * np.array([np.cos(np.deg2rad(6.0)), np.sin(np.deg2rad(6.0))]), (len(samples.sight.geometry), 1)),
        rel=2e-3,
    )
    assert height(samples) == pytest.approx(2.0, abs=0.05)
    # A default source that is missing is replaced, and that is said; without positions the geometry is unknown.
    folder = write_flight(tmp_path / "flights" / "b", navigation={"nav/altitude": np.full(40, 2e4)})
    config = parse_config(tiny_content(tmp_path, {"target.name": "cloud_top_km", "data.geometry": {"pixel_m": 40.0}}))
    flight = load_flight("b", flight_files(folder, config.data), config.data, config.target)
    assert flight.motion.columns is not None
    assert "no dataset" in flight.motion.missing["ground_speed"]
    assert flight.motion.columns[:, 5] == pytest.approx(
        ground_speed(flight.time_s, flight.latitude_deg, flight.longitude_deg)
    )


def test_images_that_lie_otherwise(tmp_path):
    pitch, roll = 0.02 * np.arange(FRAMES), 2.0 * WANDER
    upright = planted(2.0, roll=roll, pitch=pitch)
    attitude = {"roll": roll, "pitch": pitch}
    # An even number of pixels has its nadir beside the middle, so that turned images are shifted by one.
    backward = np.roll(upright[:, :, ::-1], 1, axis=2)
    left = np.roll(upright[:, ::-1], 1, axis=1)
    turned = np.swapaxes(upright, 1, 2)
    for name, images, geometry, across in (
        ("backward", backward, {"forward": "decreasing"}, "rows"),
        ("left", left, {"right": "decreasing"}, "rows"),
        ("turned", turned, {}, "columns"),
    ):
        _, samples = written(tmp_path / name, images, geometry, across, **attitude)
        assert height(samples) == pytest.approx(2.0, abs=0.05), name
        assert agreement(samples) > 0.98, name


def test_what_is_far_from_nadir_in_time_counts_by_time_and_not_by_index(tmp_path):
    images = planted(2.0)
    geometry = np.zeros((1, 7, 9))
    geometry[..., 0] = np.arange(7) - 3.0
    geometry[..., 1:3] = ALTITUDE_KM, SCALE
    geometry[..., 5] = SPEED
    frames = images[None, 1:8, ..., None]
    heights = heights_km(6.0, 0.1)
    assert sweep(frames, geometry, (ROWS // 2, COLUMNS // 2), heights)[0] == pytest.approx(2.0, abs=0.04)
    dropped = [0, 1, 3, 4, 6]  # frames at -3, -2, 0, 1 and 3 s: their steps are uneven
    kept = sweep(frames[:, dropped], geometry[:, dropped], (ROWS // 2, COLUMNS // 2), heights)[0]
    assert kept == pytest.approx(2.0, abs=0.04)


def test_a_deck_without_texture_has_no_height(tmp_path):
    geometry = np.zeros((1, 3, 9))
    geometry[..., 0], geometry[..., 1:3], geometry[..., 5] = np.arange(3) - 1.0, (ALTITUDE_KM, SCALE), SPEED
    found, score = sweep(np.ones((1, 3, ROWS, COLUMNS, 1)), geometry, (20, 32), heights_km(6.0, 0.1))
    assert np.isnan(found).all()
    assert np.isnan(score).all()


def test_turned_images_are_views():
    frames = np.arange(24.0).reshape(1, 1, 4, 6, 1)
    for axes in (Axes(1, 1, 1), Axes(0, 1, 1), Axes(1, -1, 1), Axes(1, 1, -1), Axes(0, -1, -1)):
        upright, (row, column) = axes.upright(frames, (1, 2))
        assert upright[0, 0, row, column, 0] == frames[0, 0, 1, 2, 0]
        assert np.shares_memory(upright, frames)


def test_numbers_attributes_and_files_are_sources(tmp_path):
    geometry = {"altitude": 20_000.0, "ground_speed": "camera:@speed", "pixel_m": None, "pixel_mrad": 2.0, "roll": None}
    folder = write_flight(tmp_path / "flights" / "a")
    with h5py.File(camera_file(folder), "a") as file:
        file.attrs["speed"] = 200.0
    config = parse_config(tiny_content(tmp_path, {"target.name": "cloud_base_km", "data.geometry": geometry}))
    found = load_flight("a", flight_files(folder, config.data), config.data, config.target).motion
    assert found.columns is not None
    assert found.columns[0] == pytest.approx([START_S, 20.0, 500.0, 0, 0, 200.0, 0, 0, 0])
    assert set(found.missing) == {"pitch", "wind_along", "wind_across"}
    assert "nav/pitch" in found.missing["pitch"]


def test_units_are_converted(tmp_path):
    navigation = {
        "nav/altitude": np.full(40, 20.0),
        "nav/groundSpeed": np.full(40, 400.0),
        "nav/roll": np.full(40, 0.1),
    }
    navigation |= {"nav/pixel": np.array([0.002])}
    units = {
        "nav/pixel": {"units": "rad"},
        "nav/altitude": {"units": "km"},
        "nav/groundSpeed": {"units": "knots"},
        "nav/roll": {"units": "rad"},
    }
    folder = write_flight(tmp_path / "flights" / "a", navigation=navigation, attributes=units)
    config = parse_config(
        tiny_content(
            tmp_path, {"target.name": "cloud_base_km", "data.geometry": {"pixel_mrad": "navigation:nav/pixel"}}
        )
    )
    found = load_flight("a", flight_files(folder, config.data), config.data, config.target).motion.columns
    assert found is not None
    assert found[0, [1, 2, 3, 5]] == pytest.approx([20.0, 500.0, np.rad2deg(0.1), 400.0 * 0.514444], rel=1e-5)


@pytest.mark.parametrize(
    ("geometry", "navigation", "told"),
    [
        ({"altitude": "navigation:nav/height"}, {}, "no dataset 'nav/height'"),
        ({"ground_speed": "camera:@speed"}, {}, "needs a number in the attribute 'speed'"),
        ({"altitude": "navigation:nav/h"}, {"nav/h": np.full(40, 20.0)}, "must lie between 100 and 100000"),
        ({"altitude": "navigation:nav/h"}, {"nav/h": np.full(7, 2e4)}, "must have 40 rows"),
        ({"roll": "navigation:nav/r"}, {"nav/r": np.full(40, np.nan)}, "holds no number"),
        ({"pixel_m": None, "pixel_mrad": "navigation:nav/p"}, {"nav/p": np.full(40, 500.0)}, "between 0.001 and 100"),
    ],
)
def test_a_source_that_is_named_must_be_right(tmp_path, geometry, navigation, told):
    level = {"nav/altitude": np.full(40, 2e4), "nav/groundSpeed": np.full(40, 200.0)}
    folder = write_flight(tmp_path / "flights" / "a", navigation={**level, **navigation})
    content = tiny_content(tmp_path, {"target.name": "cloud_base_km", "data.geometry": {"pixel_m": 40.0, **geometry}})
    config = parse_config(content)
    with pytest.raises(DataError, match=told):
        load_flight("a", flight_files(folder, config.data), config.data, config.target)


def test_a_default_source_that_is_impossible_is_told_and_costs_no_flight(tmp_path):
    folder = write_flight(tmp_path / "flights" / "a", navigation={"nav/altitude": np.full(40, 20.0)})
    config = parse_config(tiny_content(tmp_path, {"target.name": "cloud_base_km"}))
    found = load_flight("a", flight_files(folder, config.data), config.data, config.target).motion
    assert found.columns is None
    assert "between 100 and 100000" in found.missing["altitude"]
    assert "no dataset" in found.missing["ground_speed"]


def test_a_word_that_is_no_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs a number, `navigation:DATASET`"):
        parse_config(tiny_content(tmp_path, {"data.geometry": {"altitude": "nav/altitude"}}))


@pytest.mark.parametrize(
    ("geometry", "told"),
    [
        ({"pixel_m": 40.0, "pixel_mrad": 2.0}, "pixel_m and pixel_mrad say the same"),
        ({"drift": 3.0, "course": 33.0}, "drift and course say the same"),
        ({"wind_speed": 5.0}, "wind_speed and wind_from belong together"),
        ({"wind_speed": 5.0, "wind_from": 90.0, "wind_along": 1.0, "wind_across": 0.0}, "keep one pair"),
        ({"wind_across": None}, "wind_along and wind_across belong together"),
    ],
)
def test_what_says_the_same_twice_or_half_is_refused(tmp_path, geometry, told):
    with pytest.raises(ConfigError, match=told):
        parse_config(tiny_content(tmp_path, {"data.geometry": geometry}))


@pytest.mark.parametrize("geometry", [{"course": 33.0}, {"wind_speed": 5.0, "wind_from": 90.0}])
def test_a_direction_from_north_needs_the_heading(tmp_path, geometry):
    level = {"nav/altitude": np.full(40, 2e4), "nav/groundSpeed": np.full(40, 200.0)}
    folder = write_flight(tmp_path / "flights" / "a", navigation=level)
    changes = {"target.name": "cloud_base_km", "data.geometry": {"pixel_m": 40.0, **geometry}}
    config = parse_config(tiny_content(tmp_path, {**changes, "data.navigation.heading": None}))
    with pytest.raises(DataError, match=r"needs data\.navigation\.heading, which is null"):
        load_flight("a", flight_files(folder, config.data), config.data, config.target)


def test_labels_above_the_sweep_are_told(tmp_path):
    flight, samples = written(tmp_path / "a", planted(2.0), {"sweep_top_km": 0.5})
    assert "plane sweep" in judged(samples, flight)
    assert "data.geometry.sweep_top_km=" in judged(samples, flight)["plane sweep"].action


def test_an_optical_depth_reads_no_geometry(tmp_path):
    folder = write_flight(tmp_path / "flights" / "a", navigation={"nav/altitude": np.full(40, 20.0)})
    config = parse_config(tiny_content(tmp_path))
    assert config.data.geometry is None
    found = load_flight("a", flight_files(folder, config.data), config.data, config.target)
    assert found.motion.columns is None
    assert not found.motion.missing


def test_the_sweep_is_a_baseline_that_no_gain_moves(tmp_path):
    _, one = written(tmp_path / "a", planted(1.0))
    _, other = written(tmp_path / "b", 0.5 * planted(3.0))
    label = {"train": np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0])}
    both = np.concatenate([each.baseline_features(None)["plane_sweep"][:, 0] for each in (one, other)])
    assert both == pytest.approx(label["train"], abs=0.06)
    assert one.baseline_features(None)["plane_sweep"].shape == (len(one), 1)


def test_a_beam_that_ended_in_the_cloud_has_no_base(tmp_path):
    surface = np.where(np.arange(10) < 4, -9999.0, 5.0)
    layers = {BASE: slots(*[[1.0]] * 10), TOP: slots(*[[2.0]] * 10), OPACITY: None, SURFACE: surface}
    folder = write_flight(tmp_path / "flights" / "a", lidar=layers)
    for target, setting, labelled in (
        ("cloud_base_km", "drop", 6),
        ("cloud_base_km", "keep", 10),
        ("cloud_top_km", "drop", 10),
    ):
        config = parse_config(tiny_content(tmp_path, {"target.name": target, "data.lidar.beam_ended": setting}))
        found = load_flight("a", flight_files(folder, config.data), config.data, config.target)
        assert np.isfinite(found.label).sum() == labelled
        assert found.counts["profiles whose beam ended in the cloud"] == 10 - labelled


def test_a_straight_line_on_the_sweep_stands_beside_the_others(tmp_path):
    heights = {"a": 1.0, "b": 2.0, "c": 3.0}
    samples = {name: written(tmp_path / name, planted(layer_km))[1] for name, layer_km in heights.items()}

    parts = {"train": samples["a"], "val": samples["b"], "test": samples["c"]}
    found = fit_predict(parts, TargetScaling(1.0, 1.0, False), None, seed=0)
    assert set(found) == {"mean", "ridge", "gradient_boosting", "plane_sweep"}


def judged(samples: Samples, flight: Flight, **geometry: float) -> dict[str, Finding]:
    """The findings of `check` on the geometry of one flight."""
    changes = {"target.name": "cloud_top_km", "temporal_frames": 7, "data.geometry": geometry}
    config = parse_config(tiny_content(Path("/nowhere"), changes))
    return {finding.name: finding for finding in judge_geometry([flight], {"train": samples}, config)}


def test_check_says_what_geometry_can_give(tmp_path):
    flight, samples = written(tmp_path / "a", planted(2.0), **wind_of(0.0, 0.0))
    found = judged(samples, flight)
    assert found["geometry"].level == "note"  # roll and pitch are not there
    assert (
        "100 m of height move a cloud by 0.19 px in the 6 s of a sequence; each m/s that the wind is wrong is 0.09 km"
        in found["geometry"].evidence
    )
    assert "no pitch and roll, taken for level" in found["geometry"].evidence
    known = judged(samples, flight, wind_error_m_s=2.0)["geometry"].evidence
    assert "the wind is known to 2 m/s, which is 0.18 km" in known
    assert found["texture"].level == "ok"
    assert "100%" in found["texture"].evidence
    calm, samples = written(tmp_path / "b", planted(2.0), roll=np.zeros(FRAMES), pitch=np.zeros(FRAMES))
    assert "the wind is unknown (a), 0.09 km for each m/s" in judged(samples, calm)["geometry"].evidence
    wrong, samples = written(tmp_path / "c", planted(2.0, wind=(0.0, 90.0)))
    assert judged(samples, wrong)["texture"].level == "warning"


def test_check_names_what_is_missing_for_a_height(tmp_path):
    folder = write_flight(tmp_path / "flights" / "a")
    config = parse_config(tiny_content(tmp_path, {"target.name": "cloud_top_km"}))
    flight = load_flight("a", flight_files(folder, config.data), config.data, config.target)
    (found,) = judge_geometry([flight], {}, config)
    assert (found.level, found.name) == ("warning", "geometry")
    assert "unknown on a" in found.evidence
    assert "no dataset 'nav/altitude'" in found.evidence


def test_an_offset_of_one_flight_is_a_hint_where_the_label_is_a_height():
    problem = Finding("problem", "boresight", "b: 8 rows", "set it")
    assert (as_hint(problem).level, "optical_depth" in as_hint(problem).action) == ("note", True)
    assert as_hint(Finding("ok", "clock", "fine")) == Finding("ok", "clock", "fine")
