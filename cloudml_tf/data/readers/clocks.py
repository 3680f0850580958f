"""Convert a file's times, in any unit and from any reference date, to seconds since 1970."""

import calendar
import re
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Camera, Lidar, Navigation
from cloudml_tf.data.readers import hdf5, times
from cloudml_tf.data.readers.time_units import TimeUnit, check_calendar, decimal_digits, to_utc
from cloudml_tf.utils.errors import DataError

DIGITS = ("hhmmss", "yyyymmddhhmmss")
DAYS = re.compile(r"|d|doy|jday|((decimal|fractional|julian) )*days?( ?of ?(the )?year)?")
FILE_YEAR = "metadata_parameters/File_Year"  # of the Cloud Physics Lidar's files
COARSE_S = 0.5  # as far as a frame may be from its profile


def read_times(
    file: h5py.File, settings: Camera | Lidar | Navigation, name: str, rank: int | tuple[int, ...]
) -> np.ndarray:
    """Read the times of a section of `data`, in seconds since 1970 UTC; any shape. `name` is the section's, for
    errors."""
    dataset, field, path = str(settings.time), f"data.{name}.time", Path(file.filename)
    raw = hdf5.read(file, dataset, rank, field)
    item, unit = file[dataset], settings.time_unit
    attribute = hdf5.unit(item) if unit == "attribute" else ""
    if isinstance(settings, Lidar) and (unit == "day_of_year" or (unit == "attribute" and counts_days(attribute))):
        _check_precision(item, raw, times.DAY_S, path)
        return _day_of_year(file, settings, raw)
    since_s = reference_s(file, settings.time_since, f"{field}_since")
    if unit in DIGITS:
        counted = _digits(raw, unit == "yyyymmddhhmmss", path, dataset)
        counts = TimeUnit(1.0, 0.0 if unit == "yyyymmddhhmmss" else None)
    else:
        described = plain_words(f"{dataset.rpartition('/')[2]} {hdf5.text(item, 'long_name')}")
        written = hdf5.text(item, "calendar") if unit == "attribute" else ""
        counts = times.time_unit(attribute, path, f"{field}_unit", written, described)
        if unit != "attribute":
            counts = TimeUnit(times.UNIT_SECONDS[unit], None)
        _check_precision(item, raw, counts.unit_s, path)
        with np.errstate(over="ignore"):
            counted = raw * counts.unit_s
        _check_calendar(counts, counted, path, dataset)
    finite = counted[np.isfinite(counted)]
    of_day = finite.size and finite.min() >= 0 and finite.max() <= times.DAY_S
    if of_day and since_s and counts.since_s is None:
        counted = times.past_midnight(counted / times.DAY_S) * times.DAY_S
    moment = to_utc(counted, counts, since_s) + settings.time_offset_s
    return np.where(np.abs(moment) <= times.FARTHEST_S, moment, np.nan)


def counts_days(unit: str) -> bool:
    """Whether a unit, "" included, is that of a decimal day of the year, which CF has no words for."""
    return DAYS.fullmatch(plain_words(unit).strip()) is not None


def plain_words(text: str) -> str:
    """Words in lower case, without underscores."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower())


def _check_calendar(counts: TimeUnit, counted: np.ndarray, path: Path, dataset: str) -> None:
    try:
        check_calendar(counts, counted)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: '{dataset}': {error}. Write its times in the standard calendar.") from None


def _digits(raw: np.ndarray, dated: bool, path: Path, dataset: str) -> np.ndarray:
    try:
        return decimal_digits(raw, dated)
    except ValueError as error:
        raise DataError(f"{path}: '{dataset}': {error}. Set another time_unit.") from None


def _check_precision(item: h5py.Dataset, raw: np.ndarray, unit_s: float, path: Path) -> None:
    """Refuse times that their type rounds to coarse steps. Raises `DataError`."""
    if item.dtype.kind != "f" or item.dtype.itemsize > 4 or not np.isfinite(raw).any():
        return
    largest = np.array(np.nanmax(np.abs(raw[np.isfinite(raw)])), item.dtype)
    step_s = float(np.spacing(largest)) * unit_s
    if step_s > COARSE_S:
        raise DataError(
            f"{path}: '{item.name.lstrip('/')}' is {item.dtype.name}, too coarse for its times: they are rounded to "
            f"steps of {step_s:.3g} s. Write them as float64, or count them from the start of the flight."
        )


def _day_of_year(file: h5py.File, lidar: Lidar, days: np.ndarray) -> np.ndarray:
    finite = days[np.isfinite(days)]
    if finite.size and (finite.min() < 0 or finite.max() > 368):
        raise DataError(
            f"{file.filename}: '{lidar.time}' must be a decimal day of year, 1 to 367. "
            f"Received: {finite.min():g} to {finite.max():g}. Name the right dataset in data.lidar.time, or the unit "
            "in data.lidar.time_unit ('s' for seconds since 1970)."
        )
    path = Path(file.filename)
    year = lidar.year
    if year is None and hdf5.has(file, FILE_YEAR):
        year = int(np.nanmin(hdf5.read(file, FILE_YEAR, (0, 1), FILE_YEAR)))
    elif year is None:
        year = times.year_of_name(path)
    return times.day_of_year_to_seconds(days, year) + lidar.time_offset_s


def reference_s(file: h5py.File, since: str, field: str) -> float:
    """Midnight of the reference date: a given date, the date in the file's name, or a root attribute."""
    path = Path(file.filename)
    text = path.stem if since == "file_name" else since if times.date_in(since) else hdf5.text(file, since)
    date = times.date_in(text)
    if date is None:
        known = ", ".join(sorted(file.attrs)) or "none"
        raise DataError(
            f"{path}: {field} '{since}' is not a date. Set it to a date (2024-06-03), to 'file_name' where the name "
            f"has one (…_20240603.nc), or to a root attribute that holds one; the attributes are: {known}."
        )
    try:
        return float(calendar.timegm((*date, 0, 0, 0)))
    except ValueError:
        raise DataError(f"{path}: {field}: {date} is not a date. Set it to one, such as 2024-06-03.") from None
