"""Files that differ from the instruments' layout in clocks, units and split into files, and the settings for them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import (
    AZIMUTH,
    BASE,
    DAYS,
    DEPTH,
    FRAME_TIME,
    FRAMES,
    HEADING,
    KIND,
    LABEL,
    NUMBER,
    OPACITY,
    PROFILE_S,
    START_S,
    TOP,
    ZENITH,
    camera_file,
    lidar_file,
    navigation_file,
    tiny_config,
    utc,
    write_flight,
)

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.sources import available_flights
from cloudml_tf.utils.errors import DataError

MIDNIGHT = utc(2024, 6, 3)
FLAT = {DEPTH: LABEL, BASE: 1 + LABEL, TOP: 2 + LABEL, KIND: np.full(len(LABEL), 3), NUMBER: None, OPACITY: None}


def load(folder: Path, lidar: Path | None = None, navigation: Path | None = None, **changes: Any) -> Flight:
    """The flight of a folder; `changes` are configuration paths with __ for the dot."""
    config = tiny_config(folder, {key.replace("__", "."): value for key, value in changes.items()})
    files = FlightFiles(
        camera=str(camera_file(folder)),
        lidar=str(lidar or lidar_file(folder)),
        navigation=str(navigation or navigation_file(folder)),
    )
    return load_flight("a", files, config.data, config.target)


def labels(flight: Flight) -> np.ndarray:
    return flight.label[np.isfinite(flight.label)]


# --- the lidar


@pytest.mark.parametrize(
    ("counted", "settings"),
    [
        (PROFILE_S, {"time_unit": "s"}),
        (PROFILE_S * 1e3, {"time_unit": "ms"}),
        (PROFILE_S - MIDNIGHT, {"time_unit": "s", "time_since": "2024-06-03"}),
        ((PROFILE_S - MIDNIGHT) / 3600, {"time_unit": "h", "time_since": "file_name"}),
        ((PROFILE_S - MIDNIGHT) / 3600, {"time_unit": "h", "time_since": "flight_date"}),
        (np.stack([PROFILE_S - 1, PROFILE_S + 1], axis=1), {"time_unit": "s"}),
        (np.stack([PROFILE_S - 1, PROFILE_S, PROFILE_S + 1], axis=1), {"time_unit": "s"}),
    ],
)
def test_profiles_with_other_clocks_and_one_or_two_times(tmp_path: Path, counted: Any, settings: dict) -> None:
    folder = write_flight(tmp_path, profile_s=PROFILE_S, label=LABEL, lidar={DAYS: counted, **FLAT})
    with h5py.File(lidar_file(folder), "a") as file:
        file.attrs["flight_date"] = "2024-06-03T12:00:00Z"
    flight = load(folder, **{f"data__lidar__{key}": value for key, value in settings.items()})
    np.testing.assert_allclose(labels(flight), LABEL)


def test_cf_units_of_the_lidar_are_read_without_a_setting(tmp_path: Path) -> None:
    hours = (PROFILE_S - utc(2024, 6, 1)) / 3600
    attributes = {DAYS: {"units": "hours since 2024-06-01"}}
    folder = write_flight(tmp_path, lidar={DAYS: hours, **FLAT}, attributes=attributes, lidar_name="CPL_L2_any.h5")
    np.testing.assert_allclose(labels(load(folder)), LABEL)


def test_a_date_in_the_name_gives_the_year(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, lidar_name="CPL_L2_20240603.h5")
    assert len(labels(load(folder))) == len(PROFILE_S)
    assert times.year_of_name(Path("CPL_L2_20250101_01jun24.hdf5")) == 2024


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("cam_20240603.nc", (2024, 6, 3)),
        ("cam_2024-06-03T120000", (2024, 6, 3)),
        ("cam_20240603123000_v2", (2024, 6, 3)),
        ("CPL_259_03jun24", (2024, 6, 3)),
        ("3_June_2024", (2024, 6, 3)),
        ("CPL_13955", None),
        ("cam_20241399", None),
    ],
)
def test_dates_in_names(name: str, date: Any) -> None:
    assert times.date_in(name) == date


@pytest.mark.parametrize("since", ["take-off", "file_name"])
def test_a_date_that_is_none_is_told_with_the_three_ways(tmp_path: Path, since: str) -> None:
    folder = write_flight(tmp_path, lidar_name="CPL_L2_any.h5")
    with pytest.raises(DataError, match=r"data\.lidar\.time_since '.*' is not a date\. .*'file_name'.*root attribute"):
        load(folder, data__lidar__time_unit="h", data__lidar__time_since=since)


def test_times_of_the_day_go_on_past_midnight(tmp_path: Path) -> None:
    start = utc(2024, 6, 3, 23, 59, 50)
    of_day = (start + np.arange(FRAMES)) % 86400
    folder = write_flight(
        tmp_path,
        frame_s=start + np.arange(FRAMES),
        profile_s=start + np.arange(2, FRAMES, 4),
        camera={FRAME_TIME: of_day},
    )
    flight = load(folder, data__camera__time_unit="s", data__camera__time_since="file_name")
    np.testing.assert_allclose(flight.time_s, start + np.arange(FRAMES))


@pytest.mark.parametrize(("attribute", "setting"), [("m", "attribute"), ("", "m"), ("km", "m")])
def test_heights_in_metres_become_kilometres(tmp_path: Path, attribute: str, setting: str) -> None:
    attributes = {BASE: {"units": attribute}}
    folder = write_flight(tmp_path, lidar={**FLAT, BASE: 1000 * (1 + LABEL)}, attributes=attributes)
    flight = load(folder, target__name="cloud_base_km", data__lidar__height_unit=setting)
    np.testing.assert_allclose(labels(flight), 1 + LABEL)


# --- navigation


@pytest.mark.parametrize(("attribute", "setting"), [("radian", "attribute"), ("", "rad")])
def test_angles_in_radians(tmp_path: Path, attribute: str, setting: str) -> None:
    angles = {name: np.full(FRAMES, np.deg2rad(a)) for name, a in ((ZENITH, 40), (AZIMUTH, 150), (HEADING, 90))}
    folder = write_flight(tmp_path, navigation=angles, attributes={n: {"units": attribute} for n in angles})
    found = load(folder, data__navigation__angle_unit=setting).sun_angles_deg
    np.testing.assert_allclose(found, np.tile([40.0, 60.0], (FRAMES, 1)))


def test_an_elevation_and_an_azimuth_relative_to_the_heading(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, navigation={ZENITH: np.full(FRAMES, 50.0), HEADING: None})
    found = load(folder, data__navigation__elevation=True, data__navigation__heading=None).sun_angles_deg
    np.testing.assert_allclose(found, np.tile([40.0, 150.0], (FRAMES, 1)))


def with_own_clock(folder: Path, start_s: float = START_S - 10) -> Path:
    """A navigation file of a row each 2 s, unsorted, whose heading turns by a degree a second."""
    row_s = np.roll(start_s + np.arange(0.0, FRAMES + 20, 2), 5)
    rows = {ZENITH: np.full(len(row_s), 40.0), AZIMUTH: np.full(len(row_s), 150.0), HEADING: row_s - START_S}
    return write_flight(folder, navigation={**rows, "nav/time": row_s})


def test_navigation_with_times_of_its_own(tmp_path: Path) -> None:
    flight = load(with_own_clock(tmp_path), data__navigation__time="nav/time")
    assert flight.sun_angles_deg is not None
    turned = 150.0 - flight.sun_angles_deg[:, 1]
    assert np.abs(turned - np.arange(FRAMES)).max() <= 1.0


def test_rows_too_far_in_time_leave_frames_without_angles(tmp_path: Path) -> None:
    changes = {"data__navigation__time": "nav/time", "data__navigation__tolerance_s": 0.4}
    flight = load(with_own_clock(tmp_path), **changes, data__navigation__max_filled_frames=0)
    assert flight.counts["frames without sun angles"] == FRAMES // 2


def test_rows_that_are_not_frames_are_told_the_setting(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"one row per camera frame, 40\. Received: 30\. Name .* data\.navigation\.time"
    ):
        load(with_own_clock(tmp_path))


def test_a_navigation_clock_that_is_off_is_told_in_hours(tmp_path: Path) -> None:
    folder = with_own_clock(tmp_path, START_S + 7200)
    with pytest.raises(DataError, match=r"rows begin \+2\.00 h after the camera\. .*time_offset_s"):
        load(folder, data__navigation__time="nav/time")


# --- files


def test_all_in_one_file(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    with h5py.File(camera_file(folder), "a") as file:
        for other in (lidar_file(folder), navigation_file(folder)):
            with h5py.File(other, "r") as source:
                for group in source:
                    source.copy(group, file)
    one = camera_file(folder)
    flight = load(folder, one, one, data__lidar__year=2024)
    assert len(labels(flight)) == len(PROFILE_S)
    assert flight.sun_angles_deg is not None


def test_named_files_read_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DATA", "/somewhere")
    one = {"camera": "${MY_DATA}/a.h5", "lidar": "~/b.h5"}
    config = tiny_config(tmp_path, {"data": {"flights": {"a": one}}})
    files = available_flights(config)["a"]
    assert (files.camera, files.navigation) == ("/somewhere/a.h5", None)
    assert files.lidar == str(Path("~/b.h5").expanduser())
