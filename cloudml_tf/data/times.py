"""Clocks: every time becomes seconds since 1970-01-01 UTC, and lidar profiles find their frames."""

import calendar
import re
from pathlib import Path

import numpy as np

from cloudml_tf.errors import DataError

UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_WORDS = {
    "millisecond": "ms",
    "msec": "ms",
    "second": "s",
    "sec": "s",
    "minute": "min",
    "hour": "h",
    "day": "d",
}
DAY_S = 86400.0


def unit_of(attribute: str) -> tuple[float, float]:
    """A CF time unit, e.g. "hours since 1970-01-01", to (seconds a unit, reference in seconds since 1970)."""
    match = re.match(r"\s*(\w+?)s?\s+since\s+(\d{4})-(\d\d?)-(\d\d?)(?:[T ](\d\d?):(\d\d):(\d\d))?", attribute)
    if match is None:
        return 1.0, 0.0
    word = match.group(1).lower()
    unit = _UNIT_WORDS.get(word, word)
    if unit not in UNIT_SECONDS:
        raise DataError(
            f"time unit '{attribute}' is not known; set data.camera.time_unit to one of {list(UNIT_SECONDS)}."
        )
    date = [int(part or 0) for part in match.groups()[1:]]
    return UNIT_SECONDS[unit], float(calendar.timegm((date[0], date[1], date[2], date[3], date[4], date[5])))


def year_of_name(path: Path) -> int:
    """The year from a lidar file name's last two digits, as in CPL_L2_..._01jun24.hdf5."""
    match = re.search(r"(\d\d)$", path.stem)
    if match is None:
        raise DataError(
            f"{path}: the year is read from the name's last two digits (…_01jun24.hdf5), and there are none. "
            "Rename the file or set data.lidar.year."
        )
    short = int(match.group(1))
    return 2000 + short if short < 70 else 1900 + short


def day_of_year_to_seconds(days: np.ndarray, year: int) -> np.ndarray:
    """Decimal day of year (1.0 = 1 January 00:00) to seconds since 1970. Any shape (profile, ...), in file order.

    Days that fall back by about a year have passed New Year, days that fall back by about a day have passed midnight
    on a clock that only counts the fraction; both go on counting.
    """
    days = np.asarray(days, "float64")
    flat = days.reshape(len(days), -1).copy()
    length = 366.0 if calendar.isleap(year) else 365.0
    first = np.nanmedian(flat[: max(len(flat) // 50, 1)]) if np.isfinite(flat).any() else 0.0
    flat[flat < first - 180.0] += length
    flat[flat > first + 180.0] -= length  # the file begins with profiles of the new year out of order
    middle = flat[:, flat.shape[1] // 2]
    steps = np.diff(middle, prepend=middle[:1])
    wraps = np.cumsum(np.where(np.abs(steps + 1.0) < 0.2, 1.0, 0.0))
    flat += wraps[:, None]
    # Start and end may lie on the other side of midnight than the middle.
    offset = flat - flat[:, flat.shape[1] // 2][:, None]
    flat -= np.where(np.abs(np.abs(offset) - 1.0) < 0.2, np.sign(offset), 0.0)
    return (calendar.timegm((year, 1, 1, 0, 0, 0)) + (flat - 1.0) * DAY_S).reshape(days.shape)


def pieces(time_s: np.ndarray, max_gap_s: float | None) -> np.ndarray:
    """The index of the gap-free piece that each sorted time belongs to. (N,) -> (N,)."""
    if len(time_s) < 2:
        return np.zeros(len(time_s), "int64")
    steps = np.diff(time_s)
    limit = 1.5 * float(np.median(steps)) if max_gap_s is None else max_gap_s
    return np.concatenate([[0], np.cumsum(steps > limit)])


def nearest(sorted_s: np.ndarray, wanted_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each wanted time the index of the nearest sorted one, and the distance in s. O(n log n)."""
    right = np.clip(np.searchsorted(sorted_s, wanted_s), 1, max(len(sorted_s) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(sorted_s) - 1)
    index = np.where(np.abs(wanted_s - sorted_s[left]) <= np.abs(wanted_s - sorted_s[right]), left, right)
    return index, np.abs(wanted_s - sorted_s[index])


def match_nearest(frame_s: np.ndarray, profile_s: np.ndarray, tolerance_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (frame indices, profile indices) within the tolerance; each frame at most once, with its closest profile."""
    index, distance = nearest(frame_s, profile_s)
    order = np.lexsort((distance, index))
    close = order[distance[order] <= tolerance_s]
    frames, first = np.unique(index[close], return_index=True)
    return frames, close[first]


def average_over_spans(
    frame_s: np.ndarray, start_s: np.ndarray, end_s: np.ndarray, value: np.ndarray, tolerance_s: float
) -> np.ndarray:
    """A label for every frame inside a profile's span: the mean of the profiles over it. (P,) -> (N,), NaN where none.

    A profile shorter than the frame interval labels its nearest frame. The mean is of the values themselves, before
    any logarithm.
    """
    first = np.searchsorted(frame_s, start_s, "left")
    last = np.searchsorted(frame_s, end_s, "right")
    middle, distance = nearest(frame_s, 0.5 * (start_s + end_s))
    short = last <= first
    keep = ~short | (distance <= tolerance_s)
    first, last = np.where(short, middle, first)[keep], np.where(short, middle + 1, last)[keep]
    total, count = np.zeros(len(frame_s) + 1), np.zeros(len(frame_s) + 1)
    for edge, sign in ((first, 1.0), (last, -1.0)):
        np.add.at(total, edge, sign * value[keep])
        np.add.at(count, edge, sign)
    total, count = np.cumsum(total)[:-1], np.round(np.cumsum(count)[:-1])
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
