"""Packings, fills and units of time against xarray, netCDF4 and cftime, over random files and units.

Differences that are meant, and why:

- -9999 is fill everywhere, since the lidar's files use it without declaring it; the others keep it;
- netCDF4 takes the default fill of unsigned integers, such as 65535, for missing: in a camera it is a saturated pixel.
  It does so for bytes too, which by NetCDF's own guide have none, and fails at a negative fill beside _Unsigned;
- xarray scales in float32 where the attributes are float32, and does not find fills that this rounds: those of float32
  and of 32-bit integers;
- xarray knows no valid range, no `_Unsigned` of "True", and no missing_value of the other sign beside it;
- cftime drops a time of day without minutes and a zone behind a space: there the truth is known by construction.
"""

import datetime
import warnings
from pathlib import Path
from typing import Any

import cftime
import h5py
import netCDF4
import numpy as np
import pytest
import xarray

from cloudml_tf.data.readers import hdf5, time_units, times
from cloudml_tf.utils.errors import DataError

TYPES = ("i1", "i2", "i4", "u1", "u2", "u4", "f4", "f8")
SAMPLES = [200, pytest.param(5000, marks=pytest.mark.slow)]


def attributes_of(rng: np.random.Generator, dtype: np.dtype) -> dict[str, Any]:
    """Random packing attributes of a variable of that type."""
    found: dict[str, Any] = {}
    whole = dtype.kind in "iu"

    def number() -> Any:
        if not whole:
            return dtype.type(rng.choice([-999.0, 1e20, 9999.0, -1.5, rng.normal() * 10]))
        limits = np.iinfo(dtype)
        return dtype.type(rng.integers(limits.min, limits.max, endpoint=True))

    if rng.random() < 0.5:
        found["scale_factor"] = rng.choice([np.float32, np.float64])(rng.choice([0.01, 2.0, -0.5, 1e-4]))
    if rng.random() < 0.4:
        found["add_offset"] = rng.choice([np.float32, np.float64])(rng.choice([0.0, 273.15, -5.0]))
    if rng.random() < 0.5:
        found["_FillValue"] = number()
    if rng.random() < 0.3:
        found["missing_value"] = number()
    if rng.random() < 0.3:
        low, high = sorted([number(), number()])
        found |= {"valid_range": np.array([low, high], dtype)} if rng.random() < 0.5 else {"valid_min": low}
    if dtype.kind == "i" and rng.random() < 0.4:
        found["_Unsigned"] = str(rng.choice(["true", "True"] if "valid_range" not in found else ["true"]))
        if "valid_range" in found:  # of the unsigned numbers: netCDF4 compares these
            both = np.sort(found["valid_range"].view(dtype.str.replace("i", "u")))
            found["valid_range"] = both.view(dtype)
    return found


def values_of(rng: np.random.Generator, dtype: np.dtype, attributes: dict[str, Any]) -> np.ndarray:
    """Twelve numbers of that type, fills among them."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, 12, dtype=dtype, endpoint=True)
    else:
        values = (rng.normal(size=12) * 100).astype(dtype)
    for place, key in enumerate(("_FillValue", "missing_value")):
        if key in attributes:
            values[place] = attributes[key]
    return values


@pytest.mark.parametrize("count", SAMPLES)
@pytest.mark.filterwarnings("ignore:NumPy will stop allowing conversion:DeprecationWarning")  # netCDF4 on NumPy 1.26
def test_packings_are_read_as_netcdf4_and_xarray_read_them(tmp_path: Path, count: int) -> None:
    rng, path = np.random.default_rng(count), tmp_path / "packed.nc"
    raw: dict[str, np.ndarray] = {}
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("n", 12)
        for number in range(count):
            dtype, name = np.dtype(str(rng.choice(TYPES))), f"v{number}"
            attributes = attributes_of(rng, dtype)
            raw[name] = values_of(rng, dtype, attributes)
            made = file.createVariable(name, dtype, ("n",), fill_value=attributes.pop("_FillValue", None))
            made.set_auto_maskandscale(False)
            made.setncatts(attributes)
            made[:] = raw[name]
    compared, failed = 0, 0
    with netCDF4.Dataset(path) as theirs, hdf5.open_file(path) as ours, np.errstate(all="ignore"):
        for name, numbers in raw.items():
            theirs[name].set_auto_maskandscale(True)
            try:
                expected = np.ma.filled(np.ma.asarray(theirs[name][:]).astype("float64"), np.nan)
            except TypeError:
                failed += 1  # its own fault: a negative fill beside _Unsigned; xarray's answer is compared below
                continue
            mine, kept = hdf5.read(ours, name, 1), numbers.astype("float64") != -9999
            if "_FillValue" not in theirs[name].ncattrs():  # meant: see above
                limits = np.iinfo(numbers.dtype) if numbers.dtype.kind in "iu" else None
                kept &= numbers != (limits.max if limits and numbers.dtype.kind == "u" else -127)
            np.testing.assert_allclose(mine[kept], expected[kept], rtol=1e-6, atol=1e-6, err_msg=name)
            compared += int(kept.sum())
    assert compared > 11 * (count - failed)
    assert failed < 0.2 * count
    warnings.simplefilter("ignore", xarray.SerializationWarning)  # of several fills, which all become NaN
    with xarray.open_dataset(path, engine="h5netcdf", decode_times=False) as theirs, hdf5.open_file(path) as ours:
        for name, numbers in raw.items():
            given = theirs[name].encoding | theirs[name].attrs
            other_sign = given.get("_Unsigned") == "True" or {"_Unsigned", "missing_value"} <= given.keys()
            short = [
                np.asarray(given[key]).dtype == np.float32 for key in ("scale_factor", "add_offset") if key in given
            ]
            rounded = numbers.dtype.itemsize == 4 or any(short)
            if any(key.startswith("valid") for key in given) or "_FillValue" not in given or other_sign or rounded:
                continue
            kept = numbers.astype("float64") != -9999
            expected = theirs[name].values.astype("float64")
            np.testing.assert_allclose(
                hdf5.read(ours, name, 1)[kept], expected[kept], rtol=1e-6, atol=1e-6, err_msg=name
            )


SPELLINGS = (
    "{unit} since {date}T{clock}{zone}",
    "{unit} since {date} {clock}{zone}",
    "{UNIT} SINCE {date} {clock}{zone}",
)
UNITS = {
    "seconds": 1.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86400.0,
    "milliseconds": 1e-3,
    "hr": 3600.0,
    "sec": 1.0,
}
ZONES = {"": 0, "Z": 0, "+02:00": 120, "-0330": -210, "+05:30": 330, "-11:00": -660}
OURS_ALONE = {
    " 0:00": 0,
    " +2": 120,
    " UTC": 0,
    " -3:30": -210,
    " GMT": 0,
    " (UTC)": 0,
}  # cftime drops or misreads them


@pytest.mark.parametrize("count", SAMPLES)
def test_units_of_time_are_read_as_cftime_reads_them(count: int) -> None:
    rng, path = np.random.default_rng(count), Path("x.nc")
    for _ in range(count):
        moment = datetime.datetime(1900, 1, 1) + datetime.timedelta(seconds=int(rng.integers(0, 6_000_000_000)))
        unit = str(rng.choice(list(UNITS)))
        zone = str(rng.choice([*ZONES, *OURS_ALONE]))
        day = str(rng.choice([f"{moment:%Y-%m-%d}", f"{moment.year}-{moment.month}-{moment.day}"]))
        clock = f"{moment:%H:%M:%S}"
        text = str(rng.choice(SPELLINGS)).format(unit=unit, UNIT=unit.upper(), date=day, clock=clock, zone=zone)
        unit_s, since_s = times.unit_of(text, path)
        truth = (moment - datetime.datetime(1970, 1, 1)).total_seconds() - 60 * {**ZONES, **OURS_ALONE}[zone]
        assert (unit_s, since_s) == (UNITS[unit], truth), text
        if zone in ZONES and unit in ("seconds", "minutes", "hours", "days", "milliseconds"):
            number = float(rng.integers(-1000, 1000))
            theirs = cftime.num2date(number, text, "standard", only_use_cftime_datetimes=False)
            found = (theirs.replace(tzinfo=None) - datetime.datetime(1970, 1, 1)).total_seconds()
            assert number * unit_s + since_s == pytest.approx(found, abs=1e-3), text


@pytest.mark.parametrize("count", SAMPLES)
def test_dates_of_other_calendars_are_those_of_cftime_or_refused(count: int) -> None:
    rng, refused = np.random.default_rng(count), 0
    kinds = ["standard", "gregorian", "proleptic_gregorian", "julian", "noleap", "365_day", "all_leap", "360_day"]
    for _ in range(count):
        kind, year = (
            str(rng.choice(kinds)),
            int(rng.integers(1, 2100) if rng.random() < 0.4 else rng.integers(1900, 2100)),
        )
        text, days = f"days since {year:04d}-01-05", float(rng.integers(0, 60 if rng.random() < 0.5 else 4000))
        theirs = cftime.num2date(days, text, kind)
        try:
            unit = time_units.parse(text, kind)
            time_units.check_calendar(unit, np.array([days * unit.unit_s]))
        except ValueError:
            refused += 1
            continue
        assert unit.since_s is not None
        if kind in ("standard", "gregorian"):
            apart = theirs - cftime.datetime(1970, 1, 1, calendar="standard")
            assert unit.since_s + 86400 * days == apart.total_seconds(), text
        else:  # the same date, day for day
            ours = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=unit.since_s + 86400 * days)
            assert (ours.year, ours.month, ours.day) == (theirs.year, theirs.month, theirs.day), (text, kind, days)
    assert 0.05 * count < refused < 0.7 * count


@pytest.mark.parametrize(
    "text",
    [
        "fortnights since 2024-06-03", "months since 2024-06-03", "seconds since 24-06-03", "days since 0000-01-01",
        "seconds since 2024-06-03 14:00:00 EST", "seconds since 2024-06-03 2:00 PM", "seconds since 2024-155",
        "seconds since 06/03/2024", "seconds since 2024-06-31", "seconds since 2024-06-03 24:00:00",
        "seconds since 2024-06-03 14:00:61", "seconds since 2024-06-03 +15:00", "s since J2000", "seconds since launch",
        "seconds since 1975-01-01 TAI", "m since 2024-06-03", "Julian days since 2024-06-03",
    ],
)  # fmt: skip
def test_what_is_not_understood_in_full_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"x\.nc: time unit .* cannot be read"):
        times.unit_of(text, Path("x.nc"))


def test_leap_seconds_of_gps_and_tai(tmp_path: Path) -> None:
    utc = datetime.datetime(2024, 6, 3, 14, tzinfo=datetime.UTC).timestamp()
    counted = {
        "gps_seconds": (utc - time_units.GPS_S + 18, "seconds since 1980-01-06"),
        "tai93": (utc - time_units.TAI93_S + 10, "seconds since 1993-01-01"),
        "a": (utc - time_units.TAI58_S + 37, "seconds since 1958-01-01 TAI"),
        "b": (utc - time_units.GPS_S + 18, "seconds since 1980-01-06 00:00:00 GPS"),
        "plain": (utc - time_units.GPS_S, "seconds since 1980-01-06"),
    }
    from cloudml_tf.config.data import Camera
    from cloudml_tf.data.readers.clocks import read_times

    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, (value, units) in counted.items():
            file[name] = value + np.arange(3.0)
            file[name].attrs["units"] = units
    with hdf5.open_file(tmp_path / "x.h5") as file:
        for name in counted:
            np.testing.assert_allclose(read_times(file, Camera(time=name), "camera", 1), utc + np.arange(3), atol=1e-3)
