"""NetCDF-4 files in the place of HDF5: dimensions, groups, packing and times as the netCDF4 library writes them."""

from pathlib import Path
from typing import Any

import netCDF4
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
    PROFILE_S,
    SIGNAL,
    START_S,
    TOP,
    ZENITH,
    day_of_year,
    images,
    slots,
    tiny_config,
    write_flight,
)

from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import load_flight
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.readers.frames import build_table
from cloudml_tf.utils.errors import DataError


def put(file: netCDF4.Dataset, path: str, values: Any, dims: tuple[str, ...], **attributes: Any) -> None:
    """A variable in its groups. Packed values are written as they are; `_FillValue` is set as NetCDF wants it."""
    *groups, name = path.split("/")
    place = file
    for group in groups:
        place = place.groups.get(group) or place.createGroup(group)
    values = np.asarray(values)
    made = place.createVariable(name, values.dtype, dims, fill_value=attributes.pop("_FillValue", None))
    made.set_auto_maskandscale(False)
    made.setncatts(attributes)
    made[:] = values


def write_netcdf(folder: Path, *, seed: int = 0, signal: Any = None, time: Any = None) -> Path:
    """The flight of `write_flight` as three NetCDF-4 files with the default names and an unlimited dimension."""
    folder.mkdir(parents=True)
    layer = slots(*([value] for value in LABEL))
    with netCDF4.Dataset(folder / "TEST_L1B_20240603.nc", "w") as file:
        for name, size in {"frame": None, "row": 8, "column": 10}.items():
            file.createDimension(name, size)
        packed = {"scale_factor": 1e-3, "_FillValue": np.uint16(65535)}
        values, attributes = signal or (images(seed=seed), packed)
        put(file, SIGNAL, values, ("frame", "row", "column"), **attributes)
        counted, units = time or (np.arange(FRAMES, dtype="f8"), "seconds since 2024-06-03 12:00:00")
        put(file, FRAME_TIME, counted, ("frame",), units=units)
    with netCDF4.Dataset(folder / "CPL_L2_test_03jun24.nc", "w") as file:
        for name, size in {"profile": None, "layer": 10, "part": 3}.items():
            file.createDimension(name, size)
        spans = day_of_year(np.stack([PROFILE_S - 2, PROFILE_S, PROFILE_S + 2], axis=1), 2024)
        put(file, DAYS, spans, ("profile", "part"))
        put(file, DEPTH, layer.astype("f4"), ("profile", "layer"), _FillValue=np.float32(-9999))
        put(file, BASE, np.where(layer > 0, 1 + layer, -9999), ("profile", "layer"), units="km")
        put(file, TOP, np.where(layer > 0, 1.5 + layer, -9999), ("profile", "layer"), units="km")
        put(file, KIND, np.where(layer > 0, 3, -9999).astype("i4"), ("profile", "layer"))
    with netCDF4.Dataset(folder / "NAV_20240603.nc", "w") as file:
        file.createDimension("frame", None)
        for name, degrees in {ZENITH: 40.0, AZIMUTH: 150.0, HEADING: 90.0}.items():
            put(file, name, np.full(FRAMES, degrees), ("frame",), units="degrees")
    return folder


def test_a_netcdf_flight_equals_the_hdf5_flight_under_the_default_names(tmp_path: Path) -> None:
    write_flight(tmp_path / "h" / "a", profile_s=PROFILE_S, label=LABEL.astype("f4"))
    write_netcdf(tmp_path / "n" / "a")
    config = tiny_config(tmp_path)
    both = {}
    for kind in "hn":
        files = find_flights(tmp_path / kind, config.data)["a"]
        both[kind] = load_flight("a", files, config.data, config.target)
    for name in ("time_s", "label", "sun_angles_deg", "row", "piece"):
        np.testing.assert_allclose(getattr(both["n"], name), getattr(both["h"], name))
    wanted = {"a": np.arange(FRAMES)}
    tables = [build_table([both[kind]], wanted, config.data) for kind in "hn"]
    np.testing.assert_allclose(tables[1].radiance, tables[0].radiance)


def test_a_whole_campaign_of_netcdf_is_prepared_for_training(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        write_netcdf(tmp_path / "flights" / name, seed=seed)
    prepared = prepare(tiny_config(tmp_path))
    assert {part: len(samples) > 2 for part, samples in prepared.parts.items()} == dict.fromkeys(prepared.parts, True)


@pytest.mark.parametrize(
    ("units", "counted"),
    [
        ("hours since 2024-06-03", (12 + np.arange(FRAMES) / 3600)),
        ("days since 2000-01-01 12:00:00", (8920 + np.arange(FRAMES) / 86400)),
        ("nanoseconds since 2024-06-03 12:00:00", (np.arange(FRAMES) * 10**9).astype("i8")),
        ("milliseconds since 2024-06-03T11:59:59.500000", (500 + 1000 * np.arange(FRAMES)).astype("i8")),
        ("minutes since 2024-6-3 0:0:0", (720 + np.arange(FRAMES) / 60)),
    ],
)
def test_times_since_any_epoch(tmp_path: Path, units: str, counted: np.ndarray) -> None:
    folder = write_netcdf(tmp_path / "a", time=(counted, units))
    config = tiny_config(tmp_path)
    flight = load_flight("a", find_flights(folder, config.data)["a"], config.data, config.target)
    np.testing.assert_allclose(flight.time_s, START_S + np.arange(FRAMES), atol=1e-5)


def read(path: Path, name: str = "x") -> np.ndarray:
    with hdf5.open_file(path) as file:
        return hdf5.read(file, name, 1)


@pytest.mark.parametrize(
    ("stored", "attributes", "expected"),
    [
        ([100, 200, -1], {"scale_factor": 0.01, "add_offset": 5.0, "_FillValue": np.int16(-1)}, [6.0, 7.0, np.nan]),
        ([1, 2, 7, 8], {"missing_value": np.array([7, 8], "i2")}, [1, 2, np.nan, np.nan]),
        # The range of packed integers is packed where it is of integers, and of the values where it is not.
        ([1, 2, 3], {"scale_factor": 10.0, "valid_range": np.array([2, 3], "i2")}, [np.nan, 20, 30]),
        ([1, 2, 3], {"scale_factor": 10.0, "valid_range": np.array([15.0, 25.0])}, [np.nan, 20, np.nan]),
        ([1, 2, 3], {"valid_min": np.int16(2)}, [np.nan, 2, 3]),
        ([1, 2, 3], {"valid_max": np.int16(2)}, [1, 2, np.nan]),
    ],
)
def test_packing_as_cf_has_it(tmp_path: Path, stored: list, attributes: dict, expected: list) -> None:
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("n", None)
        put(file, "x", np.array(stored, "i2"), ("n",), **attributes)
    np.testing.assert_allclose(read(tmp_path / "x.nc"), expected)


def test_floats_that_were_never_written_are_missing(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("n", 3)
        file.createVariable("x", "f4", ("n",))[:1] = 5.0
    np.testing.assert_allclose(read(tmp_path / "x.nc"), [5.0, np.nan, np.nan])


def test_an_attribute_that_should_be_a_number_is_told(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "x.nc", "w") as file:
        file.createDimension("n", 2)
        put(file, "x", np.ones(2), ("n",), scale_factor="ten")
    with pytest.raises(DataError, match=r"x\.nc: 'x': attribute scale_factor must be a number\. Received: 'ten'"):
        read(tmp_path / "x.nc")


def test_a_variable_that_is_shorter_than_the_unlimited_dimension_is_told(tmp_path: Path) -> None:
    folder = write_netcdf(tmp_path / "a", time=(np.arange(FRAMES - 2.0), "seconds since 2024-06-03 12:00:00"))
    config = tiny_config(tmp_path)
    with pytest.raises(DataError, match=r"must have one time per frame, 40\. Received: 38"):
        load_flight("a", find_flights(folder, config.data)["a"], config.data, config.target)
