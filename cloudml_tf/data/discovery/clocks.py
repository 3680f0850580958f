"""Find the dataset that is the time, and its unit, by trying candidates with the reader itself."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import Camera, Lidar, Navigation
from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.discovery.rules import NAME, RANGE, TEXT, UNIT, WHOLE_NAME, Choice
from cloudml_tf.data.readers import clocks, hdf5, times
from cloudml_tf.utils.errors import DataError

WORDS = (
    r"\b(time|times|utc|epoch|timestamp|ts|sec(ond)?s?|hours?|hrs?|julian|doy|jday|days?|clock|date(time|num)|t|sod)\b"
)
NEVER = r"\b(exposure|integration|latitude|longitude|delay|offset|since last|step|interval|type|bounds)\b"
UNITS = (
    r"since|^(ns|us|ms|s|min|h|d|sec|msec|(nano|micro|milli)?seconds?|minutes?|hours?|hrs?|days?)$|decimal (day|hour)"
)
DAY_S = times.DAY_S
LONG = (  # numbers that can only be one clock: from, to, unit, days to add, description
    (3e8, 4.2e9, "s", 0.0, "seconds since 1970"),
    (3e11, 4.2e12, "ms", 0.0, "milliseconds since 1970"),
    (3e14, 4.2e15, "us", 0.0, "microseconds since 1970"),
    (3e17, 4.2e18, "ns", 0.0, "nanoseconds since 1970"),
    (7.15e5, 7.7e5, "d", -719529.0, "days since the year 0"),
    (2.44e6, 2.49e6, "d", -2440587.5, "Julian days"),
    (4.0587e4, 8.8e4, "d", -40587.0, "modified Julian days"),
)
OF_DAY = (  # unit, description, number per day, pattern of its names
    ("h", "hours", 24.1, r"\b(hours?|hrs?|h|utc|time)\b"),
    ("s", "seconds", 86_400.0, r"\b(seconds?|secs?|s|sod)\b"),
    ("ms", "milliseconds", 86_400_000.0, r"\b(ms|msecs?|milliseconds?)\b"),
)
LONGEST_STEP_S = 600.0  # between frames or profiles: "hours" in steps of 1 are not hours
Clock = tuple[dict[str, Any], str]  # settings, description


def time_choice(content: FileContent, count: int, beside: Found, field: str) -> Choice | None:
    """Choose the time, a dataset of `count` values, preferably in the group of `beside`."""
    found = [choice for choice in (_score(item, count, beside, field) for item in content.datasets) if choice]
    return max(found, key=lambda choice: choice.score, default=None)


def _score(found: Found, count: int, beside: Found, field: str) -> Choice | None:
    spans = found.shape in {(count, 2), (count, 3)} and field == "lidar.time"
    if not (found.shape == (count,) or spans) or re.search(NEVER, found.words) or not found.finite.size:
        return None
    total, why = 0.0, []
    if match := re.search(WORDS, found.words):
        total += NAME + (WHOLE_NAME if match.group(0) == found.words else 0)
        why.append(f"name '{match.group(0)}'")
    if re.search(r"\btime\b", found.text):
        total += TEXT
        why.append("described as time")
    if re.search(UNITS, found.units.lower()):
        total += UNIT
        why.append("unit")
    if words := _unmistakable(found):
        total += TEXT
        why.append(words[1])
    if not total:
        return None
    first = found.values.reshape(len(found.values), -1)[:, 0]
    steps = np.diff(first[np.isfinite(first)])
    if steps.size and (steps > 0).mean() < 0.8:
        return None
    same_group = found.name.rpartition("/")[0] == beside.name.rpartition("/")[0]
    total += RANGE + 0.5 * same_group + 0.5 * spans
    return Choice(field, found, total, ", ".join([*why, "rising"]))


def candidates(found: Found, content: FileContent, lidar: bool, date: str | None) -> list[Clock]:
    """The possible units of the numbers, the likeliest first. `date` is one that another file gives."""
    units, finite = found.units.lower(), found.finite
    if "since" in units and _is_cf(found):
        return [({}, f"'{found.units}'")]
    low, high = float(finite.min()), float(finite.max())
    if clock := _unmistakable(found):
        return [clock]
    step = float(np.median(np.abs(np.diff(finite)))) if len(finite) > 1 else 0.0
    since = _since(content, date)
    described = f"{found.words} {units} {found.text}"
    of_day = [
        (bool(re.search(words, described)), ({"time_unit": unit, **since[0]}, f"{name} of the day, {since[1]}"))
        for unit, name, most, words in OF_DAY
        if low >= 0 and high <= 2 * most and step * times.UNIT_SECONDS[unit] < LONGEST_STEP_S
    ]
    in_year = low >= 0 and high < 368 and step * DAY_S < LONGEST_STEP_S
    of_year = _day_of_year(content, lidar, date) if in_year else []
    named_day = bool(re.search(r"\b(julian|doy|jday|days?|d)\b", described))
    named, unnamed = [c for yes, c in of_day if yes], [c for yes, c in of_day if not yes]
    if named_day or (not named and high > 30):
        return [*of_year, *named, *unnamed]
    return [*named, *of_year, *unnamed]


def _unmistakable(found: Found) -> Clock | None:
    """The unit of numbers that can only be one clock."""
    finite = found.finite
    median, span = float(np.median(finite)), float(np.ptp(finite))
    of_day = re.search(r"\b(s|secs?|seconds?|sod)\b", f"{found.units.lower()} {found.words}")
    for start, end, unit, days, words in LONG:
        if start <= median <= end and not (unit == "d" and (span > 2 or of_day)):
            return {"time_unit": unit, **({"time_offset_s": days * DAY_S} if days else {})}, words
    return None


def _is_cf(found: Found) -> bool:
    """Whether the reader knows the unit: "seconds since epoch" and "since midnight" give no date."""
    try:
        times.unit_of(found.units, found.file)
    except DataError:
        return False
    return True


def _since(content: FileContent, date: str | None) -> tuple[dict[str, str], str]:
    """The date of times of the day: from the file's name, an attribute, or another file."""
    if times.date_in(content.path.stem):
        return {"time_since": "file_name"}, "date in the file's name"
    for key, value in content.attributes.items():
        if times.date_in(value) and re.search(r"date|start|begin|day", key.lower()) and "creat" not in key.lower():
            return {"time_since": key}, f"date in the attribute '{key}'"
    return ({"time_since": date}, f"date {date} of the other file") if date else ({}, "of unknown date")


def _day_of_year(content: FileContent, lidar: bool, date: str | None) -> list[Clock]:
    """A decimal day of year; the camera's counts days since the last day of the year before."""
    sources = [content.path.stem, *content.attributes.values(), date or ""]
    found = [times.date_in(text) for text in sources]
    year = next((day[0] for day in found if day), None)
    if year is None and re.search(r"\d\d$", content.path.stem):
        year = times.year_of_name(content.path)
    if lidar:
        from_name = year is not None and _year_of_name(content.path) == year
        own = {} if from_name or year is None else {"year": year}
        return [({"time_unit": "day_of_year", **own}, f"day of the year {year or '?'}")]
    return [] if year is None else [({"time_unit": "d", "time_since": f"{year - 1}-12-31"}, f"day of the year {year}")]


def _year_of_name(path: Path) -> int | None:
    try:
        return times.year_of_name(path)
    except DataError:
        return None


def seconds(path: Path, section: str, settings: dict[str, Any]) -> np.ndarray:
    """The finite times of a file, sorted, as the reader would read them; empty where it cannot."""
    kind: Any = {"camera": Camera, "lidar": Lidar, "navigation": Navigation}[section]
    try:
        with hdf5.open_file(path) as file:
            found = clocks.read_times(file, kind(**settings), section, (1, 2))
    except DataError:
        return np.zeros(0)
    return np.sort(found[np.isfinite(found)].ravel())


def date_of(runs_s: Sequence[np.ndarray]) -> str | None:
    """The date of the first of several runs of times that has one."""
    first = next((run for run in runs_s if len(run) and run[0] > 366 * DAY_S), None)
    return None if first is None else time.strftime("%Y-%m-%d", time.gmtime(first[0]))


def overlap_s(first: np.ndarray, second: np.ndarray) -> float:
    """How long two sorted runs of times overlap, s; -inf where one is empty."""
    if not len(first) or not len(second):
        return -np.inf
    return float(min(first[-1], second[-1]) - max(first[0], second[0]))
