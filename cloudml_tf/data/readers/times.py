"""Convert every clock to seconds since 1970-01-01 UTC, and match lidar profiles to frames."""

import calendar
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cloudml_tf.data.readers.time_units import UNIT_SECONDS, TimeUnit, parse
from cloudml_tf.utils.errors import DataError

DAY_S = 86400.0
CONTINUED_S, CONTINUED_STEPS = 30.0, 10.0  # the longest gap between parts of one flight: in s, and in frames
MOST_JUMPS = 0.05  # of its rows, by which a clock may jump back; a file with more of them is not in order of time
FARTHEST_S = 1e20  # from 1970; a number beyond is not a time


def unit_of(
    attribute: str, path: Path, since_s: float = 0.0, field: str = "data.camera.time_unit"
) -> tuple[float, float]:
    """Convert a CF time unit, e.g. "hours since 1970-01-01", to (seconds per unit, reference in seconds since 1970).

    A unit without a reference counts from `since_s`; no unit at all means seconds. Raises `DataError` naming the file
    and `field`, the setting that helps, for one that cannot be read.
    """
    unit = time_unit(attribute, path, field)
    return unit.unit_s, since_s if unit.since_s is None else unit.since_s


def time_unit(attribute: str, path: Path, field: str, calendar_name: str = "", described: str = "") -> TimeUnit:
    """What a time counts by its unit, its calendar and the words of its dataset; seconds without a unit.

    Raises `DataError` naming the file and `field`, the setting that helps.
    """
    if not attribute.strip() and not calendar_name.strip():
        return TimeUnit(1.0, None)
    try:
        return parse(attribute or "s", calendar_name, described)
    except ValueError as error:
        raise DataError(
            f"{path}: time unit '{attribute[:80]}' cannot be read: {error}; set {field} to one of "
            f"{list(UNIT_SECONDS)}, and time_since to the date that the times count from."
        ) from None


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


def in_order(time_s: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """The rows of a file (N,) in order of time, each time once, and how many are left out, by reason.

    Where a clock jumps back, times come twice, at two places: all of them are left out. A file whose rows are in no
    order at all, as if shuffled, is sorted.
    """
    rows = np.flatnonzero(np.isfinite(time_s))
    back = np.flatnonzero(np.diff(time_s[rows]) < 0)
    ambiguous = np.zeros(len(rows), bool)
    if 0 < len(back) <= MOST_JUMPS * len(rows):
        run = np.zeros(len(rows), "int64")
        run[back + 1] = 1
        run = np.cumsum(run)
        ends = [(time_s[rows[run == n]].min(), time_s[rows[run == n]].max()) for n in range(run[-1] + 1)]
        for number, (first, last) in enumerate(ends):
            ambiguous |= (run != number) & (time_s[rows] >= first) & (time_s[rows] <= last)
    kept = rows[~ambiguous]
    order = kept[np.argsort(time_s[kept], kind="stable")]
    once = np.concatenate([[True], np.diff(time_s[order]) > 0]) if len(order) else np.zeros(0, bool)
    left = {
        "without a time": len(time_s) - len(rows),
        "whose clock had jumped back": int(ambiguous.sum()),
        "duplicated": int((~once).sum()),
    }
    return order[once], left


def in_time(moment_s: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """The place of each row (N,) in the flight if its parts, of these lengths, are put into the order of their times.

    That is where files without a clock, with a row a frame, have it.
    """
    rows = np.split(np.arange(len(moment_s)), np.cumsum(lengths)[:-1])
    firsts = [np.min(moment_s[own], initial=np.inf, where=np.isfinite(moment_s[own])) for own in rows]
    place = np.empty(len(moment_s), "int64")
    place[np.concatenate([rows[number] for number in np.argsort(firsts, kind="stable")])] = np.arange(len(moment_s))
    return place


def pieces(time_s: np.ndarray, max_gap_s: float | None) -> np.ndarray:
    """The index of the gap-free segment that each sorted time belongs to. (N,) -> (N,)."""
    if len(time_s) < 2:
        return np.zeros(len(time_s), "int64")
    steps = np.diff(time_s)
    limit = 1.5 * float(np.median(steps)) if max_gap_s is None else max_gap_s
    return np.concatenate([[0], np.cumsum(steps > limit)])


def continued(
    runs_s: Mapping[str, np.ndarray], longest_s: Callable[[str, str], float] = lambda before, after: CONTINUED_S
) -> list[list[str]]:
    """The flights (or their parts) by time, those together that continue one another.

    `longest_s` is the longest gap between two of these names, or ten steps of the second one where that is longer.
    """
    chains: list[list[str]] = []
    end_s = -np.inf
    for name in sorted((name for name, run in runs_s.items() if len(run) > 1), key=lambda name: runs_s[name][0]):
        run = runs_s[name]
        gap_s, step_s = float(run[0]) - end_s, float(np.median(np.diff(run)))
        if chains and -0.5 * step_s < gap_s <= max(longest_s(chains[-1][-1], name), CONTINUED_STEPS * step_s):
            chains[-1].append(name)
        else:
            chains.append([name])
        end_s = float(run[-1])
    return chains + [[name] for name, run in runs_s.items() if len(run) <= 1]


def interval_s(time_s: np.ndarray) -> float:
    """The usual step of sorted times, s; NaN for fewer than two."""
    return float(np.median(np.diff(time_s))) if len(time_s) > 1 else float("nan")


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
