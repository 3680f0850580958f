"""Convert a file's times, in any unit and from any reference date, to seconds since 1970."""

import calendar
import itertools
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Reference:
    """What the numbers of a clock count, and from when."""

    counts: TimeUnit | None  # None for decimal days of a year
    start: float  # that year; else seconds since 1970

    def moments(self, counted: np.ndarray) -> np.ndarray:
        """Days of the year, or counted seconds, as seconds since 1970 UTC; any shape and order."""
        if self.counts is None:
            return times.day_of_year_to_seconds(counted, int(self.start))
        finite = counted[np.isfinite(counted)]
        of_day = finite.size and finite.min() >= 0 and finite.max() <= times.DAY_S
        if of_day and self.start and self.counts.since_s is None:
            counted = times.past_midnight(counted / times.DAY_S) * times.DAY_S
        return to_utc(counted, self.counts, self.start)


def read_times(
    file: h5py.File, settings: Camera | Lidar | Navigation, name: str, rank: int | tuple[int, ...]
) -> np.ndarray:
    """Read the times of a section of `data`, in seconds since 1970 UTC; any shape. `name` is the section's, for
    errors.

    Of several files as one each counts from its own reference. Those that share one share its midnights: the second of
    two parts may begin a day anew.
    """
    found, paths = [], []
    for part in hdf5.parts(file):
        found.append(_count(part, settings, name, rank))
        paths.append(Path(part.filename))
    moments: list[np.ndarray] = [np.zeros(0)] * len(found)
    for reference in dict.fromkeys(reference for _, reference in found):
        own = [number for number, (_, other) in enumerate(found) if other == reference]
        together = reference.moments(_joined([found[number][0] for number in own], file, field=f"data.{name}.time"))
        ends = np.cumsum([len(found[number][0]) for number in own])[:-1]
        for number, values in zip(own, np.split(together, ends), strict=True):
            moments[number] = values + settings.time_offset_s
    moments = [np.where(np.abs(moment) <= times.FARTHEST_S, moment, np.nan) for moment in moments]
    _check_apart(moments, paths)
    return _joined(moments, file, f"data.{name}.time")


def _joined(values: list[np.ndarray], file: h5py.File, field: str) -> np.ndarray:
    """The times of all parts. Raises `DataError` where some have starts and ends, and others do not."""
    shapes = {one.shape[1:] for one in values}
    if len(shapes) > 1:
        shown = " and ".join(str(one.shape) for one in values if one.shape[1:] in shapes)
        raise DataError(
            f"{file.filename}: {field} must have the same shape in all parts of one flight, but for their rows. "
            f"Received: {shown}. Write the parts alike."
        )
    return values[0] if len(values) == 1 else np.concatenate(values)


def _check_apart(moments: list[np.ndarray], paths: list[Path]) -> None:
    """Refuse parts of one flight whose times overlap, by the middle of each row. Raises `DataError`."""
    runs = []
    for moment, path in zip(moments, paths, strict=True):
        middle = moment.reshape(len(moment), -1).mean(axis=1) if moment.size else np.zeros(0)
        if np.isfinite(middle).any():
            runs.append((float(np.nanmin(middle)), float(np.nanmax(middle)), path))
    runs.sort(key=lambda run: run[:2])
    for (_, end_s, path), (start_s, _, other) in itertools.pairwise(runs):
        if start_s < end_s:
            raise DataError(
                f"{path} and {other}: parts of one flight must follow one another in time. Received: the second "
                f"begins {end_s - start_s:.6g} s before the first ends. Remove what is there twice, make them flights "
                "of their own, or correct their clocks (time_unit, time_since)."
            )


def _count(
    file: h5py.File, settings: Camera | Lidar | Navigation, name: str, rank: int | tuple[int, ...]
) -> tuple[np.ndarray, Reference]:
    """The days of the year, or the seconds, that a file counts, and from when."""
    dataset, field, path = str(settings.time), f"data.{name}.time", Path(file.filename)
    raw = hdf5.read(file, dataset, rank, field)
    if raw.ndim == 2 and raw.shape[0] == 1 and raw.shape[1] > 3:
        raw = raw.ravel()  # a vector as MATLAB writes it
    item, unit = file[dataset], settings.time_unit
    attribute = hdf5.unit(item) if unit == "attribute" else ""
    if isinstance(settings, Lidar) and (unit == "day_of_year" or (unit == "attribute" and counts_days(attribute))):
        _check_precision(item, raw, times.DAY_S, path)
        return raw, Reference(None, _year(file, settings, raw))
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
    return counted, Reference(counts, since_s)


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


def _year(file: h5py.File, lidar: Lidar, days: np.ndarray) -> int:
    """The year of decimal days. Raises `DataError` where the numbers are none."""
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
    return year


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
