"""Spoil one attribute of a flight's files at a time: what is read stays the same, or the difference is told.

"Told" is an error that names the file or dataset, a count of what was left out, or a value that is not there (NaN).
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import (
    BASE,
    DAYS,
    DEPTH,
    FRAME_TIME,
    HEADING,
    SIGNAL,
    TOP,
    ZENITH,
    camera_file,
    lidar_file,
    navigation_file,
    tiny_config,
    write_flight,
)

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.frames import read_frames
from cloudml_tf.utils.errors import DataError

ATTRIBUTES: dict[str, list[Any]] = {
    "units": [
        "ft",
        "hPa",
        "log10(m)",
        "rad",
        "m",
        "hours since 2024-06-03",
        "seconds since launch",
        "K",
        "",
        "percent",
    ],
    "unit": ["km", "m", "parsnips"],
    "Units": ["degrees", "feet"],
    "scale_factor": [2.0, "two", np.array([1.0, 2.0]), 0.0, np.nan, h5py.Empty("f8"), 1.0],
    "add_offset": [5.0, np.inf, 0.0],
    "ScaleFactor": [3.0, 1.0],
    "Offset": [1.0, 0.0],
    "slope": [0.5],
    "radiance_scales": [np.array([0.1, 0.2])],
    "calibrated_nt": [22],
    "_FillValue": [0.0, -1.0, "none", h5py.Empty("f8"), 1e20],
    "missing_value": [np.array([-1.0, -2.0]), 40.0],
    "valid_range": [np.array([0.0, 1.0]), np.array([5.0, -5.0]), np.array([-1e9, 1e9])],
    "valid_max": [1.0, 1e12],
    "_Unsigned": ["true", "false", "maybe"],
    "calendar": ["360_day", "noleap", "standard", "martian"],
    "flag_meanings": ["clear opaque", "a b c d"],
    "long_name": ["something else"],
    "comment": ["spoilt"],
}
PLACES = [
    ("camera", SIGNAL), ("camera", FRAME_TIME), ("lidar", DAYS), ("lidar", DEPTH), ("lidar", BASE), ("lidar", TOP),
    ("navigation", ZENITH), ("navigation", HEADING),
]  # fmt: skip
CASES = [(place, key, value) for place in PLACES for key, values in ATTRIBUTES.items() for value in values]
# Attributes that say what the numbers are: with one of these another reading is the right one, not a silent one.
SAYS = {"scale_factor", "add_offset", "ScaleFactor", "_Unsigned", "calibrated_nt"}


def read(folder: Path, target: str) -> tuple[Flight, np.ndarray]:
    config = tiny_config(folder, {"target.name": target, "target.minimum": None, "target.maximum": None})
    files = FlightFiles(
        camera=str(camera_file(folder)), lidar=str(lidar_file(folder)), navigation=str(navigation_file(folder))
    )
    flight = load_flight("a", files, config.data, config.target)
    images = [radiance for _, radiance, _ in read_frames(flight, np.arange(len(flight)), config.data.camera)]
    return flight, np.concatenate(images)


def told(plain: tuple[Flight, np.ndarray], spoilt: tuple[Flight, np.ndarray]) -> bool:
    """Whether all that differs is missing now, or counted."""
    (before, images), (after, others) = plain, spoilt
    if before.counts != after.counts:
        return True
    pairs = [(before.label, after.label), (before.time_s, after.time_s), (images, others)]
    if before.sun_angles_deg is not None and after.sun_angles_deg is not None:
        pairs.append((before.sun_angles_deg, after.sun_angles_deg))
    if any(a.shape != b.shape for a, b in pairs):
        return False
    return all(bool((np.isclose(a, b, rtol=1e-6, equal_nan=True) | np.isnan(b)).all()) for a, b in pairs)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Flight, np.ndarray]]:
    folder = write_flight(tmp_path_factory.mktemp("plain"))
    return {target: read(folder, target) for target in ("optical_depth", "cloud_base_km")}


def as_it_says(key: str, value: Any, found: Flight, was: Flight) -> bool:
    """Whether the numbers are what the spoilt attribute makes of them; packing is compared with other libraries."""
    ratio = {"feet": 0.3048e-3, "ft": 0.3048e-3, "m": 1e-3, "rad": 180 / np.pi, "percent": 0.01}
    if key not in ("units", "unit", "Units"):
        return key in SAYS
    if value not in ratio:
        return False
    if not np.allclose(found.label, was.label, equal_nan=True):
        return np.allclose(found.label, ratio[value] * was.label, equal_nan=True)
    assert found.sun_angles_deg is not None
    return not np.allclose(found.sun_angles_deg, was.sun_angles_deg, equal_nan=True)  # a multiple of an angle wraps


@pytest.mark.parametrize("target", ["optical_depth", "cloud_base_km"])
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_one_spoilt_attribute_changes_nothing_or_is_told(tmp_path: Path, plain: Any, target: str, every: int) -> None:
    silent, unnamed = [], []
    for number, ((role, name), key, value) in enumerate(CASES[::every]):
        folder = write_flight(tmp_path / str(number))
        find = {"camera": camera_file, "lidar": lidar_file, "navigation": navigation_file}[role]
        with h5py.File(find(folder), "r+") as file:
            if key in ("unit", "Units") and "units" in file[name].attrs:
                del file[name].attrs["units"]
            file[name].attrs[key] = value
        try:
            found = read(folder, target)
        except DataError as error:
            unnamed += [] if str(find(folder)) in str(error) or name in str(error) else [(name, key, value)]
            continue
        if not told(plain[target], found) and not as_it_says(key, value, found[0], plain[target][0]):
            silent.append((name, key, value))
    assert silent == []
    assert unnamed == []
