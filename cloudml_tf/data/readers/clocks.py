"""Convert a file's times, in any unit and from any reference date, to seconds since 1970."""

import calendar
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Camera, Lidar, Navigation
from cloudml_tf.data.readers import hdf5, times
from cloudml_tf.utils.errors import DataError


def read_times(
    file: h5py.File, settings: Camera | Lidar | Navigation, name: str, rank: int | tuple[int, ...]
) -> np.ndarray:
    """Read the times of a section of `data`, in seconds since 1970 UTC; any shape. `name` is the section's, for
    errors."""
    dataset = str(settings.time)
    raw = hdf5.read(file, dataset, rank, f"data.{name}.time")
    attribute = hdf5.text(file[dataset], "units")
    unit = settings.time_unit
    if isinstance(settings, Lidar) and (unit == "day_of_year" or (unit == "attribute" and "since" not in attribute)):
        return _day_of_year(file, settings, raw)
    since_s = reference_s(file, settings.time_since, f"data.{name}.time_since")
    if unit == "attribute":
        unit_s, since_s = times.unit_of(attribute, Path(file.filename), since_s, f"data.{name}.time_unit")
    else:
        unit_s = times.UNIT_SECONDS[unit]
    with np.errstate(over="ignore"):
        counted = raw * unit_s
    finite = counted[np.isfinite(counted)]
    if since_s and finite.size and finite.min() >= 0 and finite.max() <= times.DAY_S:
        counted = times.past_midnight(counted / times.DAY_S) * times.DAY_S
    counted += since_s + settings.time_offset_s
    return np.where(np.abs(counted) <= times.FARTHEST_S, counted, np.nan)


def _day_of_year(file: h5py.File, lidar: Lidar, days: np.ndarray) -> np.ndarray:
    finite = days[np.isfinite(days)]
    if finite.size and (finite.min() < 0 or finite.max() > 368):
        raise DataError(
            f"{file.filename}: '{lidar.time}' must be a decimal day of year, 1 to 367. "
            f"Received: {finite.min():g} to {finite.max():g}. Name the right dataset in data.lidar.time, or the unit "
            "in data.lidar.time_unit ('s' for seconds since 1970)."
        )
    path = Path(file.filename)
    year = lidar.year if lidar.year is not None else times.year_of_name(path)
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
