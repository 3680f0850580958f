"""Convert every clock to seconds since 1970-01-01 UTC, and match lidar profiles to frames."""

import calendar
import re
from pathlib import Path

import numpy as np

from cloudml_tf.utils.errors import DataError

UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_WORDS = {
    "nanosecond": "ns", "microsecond": "us", "millisecond": "ms", "msec": "ms", "second": "s", "sec": "s",
    "minute": "min", "hour": "h", "hr": "h", "day": "d",
}  # fmt: skip
_CF_TIME = re.compile(
    r"""\s* (\w+)
    (?: \s+ since \s+ (\d{4})-(\d\d?)-(\d\d?)               # the reference's date
        (?: [T\ ]\s* (\d\d?):(\d\d?) (?: :(\d\d?(?:\.\d*)?) )? )?  # and time of day
    )?
    (?: \s* (?: Z | UTC | GMT ) )?
    (?: \s* ([+-]\d\d?) (?: :?(\d\d) )? )?                   # hours and minutes east of Greenwich
    \s*""",
    re.VERBOSE,
)
DAY_S = 86400.0
FARTHEST_S = 1e20  # from 1970; a number beyond is not a time


def unit_of(
    attribute: str, path: Path, since_s: float = 0.0, field: str = "data.camera.time_unit"
) -> tuple[float, float]:
    """Convert a CF time unit, e.g. "hours since 1970-01-01", to (seconds per unit, reference in seconds since 1970).

    A unit without a reference counts from `since_s`; no unit at all means seconds. Raises `DataError` naming the file
    and `field`, the setting that helps, for one that cannot be read.
    """
    if not attribute.strip():
        return 1.0, since_s
    match = _CF_TIME.fullmatch(attribute)
    word = match.group(1).lower() if match else ""
    unit = word if word in UNIT_SECONDS else _UNIT_WORDS.get(word.removesuffix("s"), word.removesuffix("s"))
    if match is None or unit not in UNIT_SECONDS:
        raise DataError(
            f"{path}: time unit '{attribute[:80]}' is not known; set {field} to one of {list(UNIT_SECONDS)}."
        )
    year, month, day, hour, minute = (int(part or 0) for part in match.groups()[1:6])
    zone_h, zone_min = (int(part or 0) for part in match.groups()[7:])
    zone_s = 3600.0 * zone_h + 60.0 * (-zone_min if zone_h < 0 else zone_min)
    if not year:
        return UNIT_SECONDS[unit], since_s - zone_s
    try:
        reference_s = calendar.timegm((year, month, day, hour, minute, 0)) + float(match.group(7) or 0)
    except ValueError:
        raise DataError(f"{path}: time unit '{attribute}' has no valid reference date; set {field}.") from None
    return UNIT_SECONDS[unit], reference_s - zone_s


_DATE = r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?=\d{4}(?:\d\d)?(?!\d)|(?!\d))"
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_NAMED_MONTH = rf"(?<!\d)(\d\d?)[-_ ]?({'|'.join(_MONTHS)})[a-z]*[-_ ]?((?:19|20)?\d\d)(?!\d)"


def date_in(text: str) -> tuple[int, int, int] | None:
    """The first date in a text, (year, month, day): 20240603, 2024-06-03T12:00 or 03jun24."""
    for match in re.finditer(_DATE, text):
        return int(match.group(1)), int(match.group(2)), int(match.group(3))
    for match in re.finditer(_NAMED_MONTH, text.lower()):
        day, month, year = int(match.group(1)), _MONTHS[match.group(2)], match.group(3)
        return int(year) if len(year) == 4 else _century(int(year)), month, day
    return None


def _century(short: int) -> int:
    return 2000 + short if short < 70 else 1900 + short


def past_midnight(days: np.ndarray) -> np.ndarray:
    """Add a day to times after midnight, on a clock (days, 0 to 1) that starts again at midnight.

    The flight has passed midnight if the longest empty stretch is not the one around midnight. Any shape and order.
    """
    days = np.array(days, "float64")
    ordered = np.sort(days[np.isfinite(days)])
    if len(ordered) > 1 and np.floor(ordered[0]) == np.floor(ordered[-1]):
        empty = np.diff(ordered)
        if empty.max() > 1.0 - (ordered[-1] - ordered[0]):
            days[days <= ordered[empty.argmax()]] += 1.0
    return days


def year_of_name(path: Path) -> int:
    """The year of a lidar file's name: its last two digits, as in CPL_L2_..._01jun24.hdf5, or of a date (20240603)."""
    date = date_in(path.stem)
    if date is not None and not re.search(_NAMED_MONTH + "$", path.stem.lower()):
        return date[0]
    match = re.search(r"(\d\d)$", path.stem)
    if match is None:
        raise DataError(
            f"{path}: the year is read from the date in the file name or its last two digits (…_01jun24.hdf5), and it "
            "has neither. Rename the file or set data.lidar.year."
        )
    return _century(int(match.group(1)))


def day_of_year_to_seconds(days: np.ndarray, year: int) -> np.ndarray:
    """Convert decimal days of the year (1.0 = 1 January 00:00) to seconds since 1970. Any shape and order; NaN stays
    NaN.

    A flight has passed New Year if it has both the year's last and first days. It has passed midnight on a clock that
    counts only the fraction if all lies in one day number, and the longest empty stretch is not the one around
    midnight. `year` is that of the earliest profile. The order in the file does not matter: it may be unsorted.
    """
    days = np.array(days, "float64")
    length = 366.0 if calendar.isleap(year) else 365.0
    if (days > length - 10.0).any():
        days[days < 10.0] += length
    days = past_midnight(days)
    return calendar.timegm((year, 1, 1, 0, 0, 0)) + (days - 1.0) * DAY_S


def pieces(time_s: np.ndarray, max_gap_s: float | None) -> np.ndarray:
    """The index of the gap-free segment that each sorted time belongs to. (N,) -> (N,)."""
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
    """Pairs (frame indices, profile indices) within the tolerance; a frame at most once, with its closest profile."""
    index, distance = nearest(frame_s, profile_s)
    order = np.lexsort((distance, index))
    close = order[distance[order] <= tolerance_s]
    frames, first = np.unique(index[close], return_index=True)
    return frames, close[first]


def average_over_spans(
    frame_s: np.ndarray, start_s: np.ndarray, end_s: np.ndarray, value: np.ndarray, tolerance_s: float
) -> np.ndarray:
    """Label every frame inside a profile's span with the mean of the profiles over it. (P,) -> (N,), NaN where none.

    A profile shorter than the frame interval labels its nearest frame. The mean is of the values themselves, before any
    logarithm.
    """
    timed = np.isfinite(start_s) & np.isfinite(end_s)
    start_s, end_s, value = start_s[timed], end_s[timed], value[timed]
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
