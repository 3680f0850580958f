"""Find the dataset that is the time, and its unit, by trying candidates with the reader itself."""

import calendar
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import Camera, Lidar, Navigation
from cloudml_tf.data.discovery.datasets import FileContent, Found, plain
from cloudml_tf.data.discovery.rules import NAME, RANGE, TEXT, UNIT, WHOLE_NAME, Choice
from cloudml_tf.data.readers import clocks, hdf5, time_units, times
from cloudml_tf.data.readers.time_units import GPS_S, TAI93_S
from cloudml_tf.utils.errors import DataError

WORDS = (
    r"\b(time|times|utc|epoch|timestamp|ts|sec(ond)?s?|hours?|hrs?|julian|doy|jday|days?|clock|date(time|num)|t|sod)\b"
)
FIELDS = r"(year|month|day( of month)?|day of year|hours?|minutes?|seconds?|milli ?seconds?|msec|min|sec)( utc)?"
NEVER = r"\b(exposure|integration|latitude|longitude|delay|offset|since last|step|interval|type|bounds)\b"
DAY_S = times.DAY_S
LONG = (  # numbers that can only be one clock: from, to, unit, days to add, description
    (3e11, 4.2e12, "ms", 0.0, "milliseconds since 1970"),
    (3e14, 4.2e15, "us", 0.0, "microseconds since 1970"),
    (3e17, 4.2e18, "ns", 0.0, "nanoseconds since 1970"),
    (7.15e5, 7.7e5, "d", -719529.0, "days since the year 0"),
    (2.44e6, 2.49e6, "d", -2440587.5, "Julian days"),
)
EPOCHS = (  # clocks that only a date tells apart: unit, seconds from 1970 to their beginning, their leap seconds, name
    ("s", 0.0, "utc", "seconds since 1970"),
    ("s", GPS_S, "gps", "GPS seconds since 1980-01-06"),
    ("s", TAI93_S, "leaps", "TAI93 seconds since 1993-01-01"),
    ("s", 946_728_000.0, "utc", "J2000 seconds since 2000-01-01 12:00"),
    ("s", 978_307_200.0, "utc", "seconds since 2001-01-01"),
    ("s", -2_082_844_800.0, "utc", "LabVIEW seconds since 1904-01-01"),
    ("s", -2_208_988_800.0, "utc", "NTP seconds since 1900-01-01"),
    ("d", -40_587.0 * DAY_S, "utc", "modified Julian days"),
    ("d", -25_569.0 * DAY_S, "utc", "Excel days since 1899-12-30"),
    ("d", -24_107.0 * DAY_S, "utc", "Excel days since 1904-01-01"),
    ("d", -7_305.0 * DAY_S, "utc", "days since 1950-01-01"),
    ("d", 0.0, "utc", "days since 1970-01-01"),
    ("h", -25_567.0 * DAY_S, "utc", "hours since 1900-01-01"),
    ("min", 0.0, "utc", "minutes since 1970-01-01"),
    ("h", 0.0, "utc", "hours since 1970-01-01"),
)
UNDATED = EPOCHS[:1] + EPOCHS[7:8]  # those that are proposed where no date tells
NEAR_S = 1.6 * DAY_S  # a flight may begin before midnight, and its file be named after the next day
OF_DAY = (  # unit, description, number per day, pattern of its names
    ("h", "hours", 24.1, r"\b(hours?|hrs?|h|utc|time)\b"),
    ("s", "seconds", 86_400.0, r"\b(seconds?|secs?|s|sod)\b"),
    ("ms", "milliseconds", 86_400_000.0, r"\b(ms|msecs?|milliseconds?)\b"),
)
LONGEST_STEP_S = 600.0  # between frames or profiles: "hours" in steps of 1 are not hours
_OF_DAY = r"( utc?| gmt)?( ?(of|since|from|after|past)( the)?( start of( the)?)? (day|midnight))?( utc?| gmt)?"
UNIT_PHRASES = (  # units that say how long a step is, and count from midnight or New Year; "" says neither
    ("h", rf"((decimal|fractional) )?(hours?|hrs?|h){_OF_DAY}"),
    ("s", rf"(seconds?|secs?|s){_OF_DAY}|sod"),
    ("day_of_year", r"((decimal|fractional|julian|utc?) )*(days?|doy|jday)( ?of ?(the )?year)?( utc?)?|julian"),
    ("hhmmss", r"hh ?mm ?ss.*"),
    ("yyyymmddhhmmss", r"yyyy ?mm ?dd ?hh ?mm ?ss.*"),
    ("any", r"utc?|gmt|time"),
)
EARLIEST_S, LATEST_S = 3e8, 4.2e9  # July 1979 and 2103: between them a flight is likely
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
    if found.units and _written(found) is not None:
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


def _written(found: Found) -> str | None:
    """What the unit of a dataset says: "" for a unit with its reference, which the reader knows; the `time_unit` of a
    step alone; None where it is not understood."""
    words = plain(found.units)
    for unit, pattern in UNIT_PHRASES:
        if re.fullmatch(pattern, words):
            return unit
    try:
        counts = time_units.parse(found.units, found.calendar, f"{found.words} {found.text}")
    except ValueError:
        return None
    if counts.since_s is not None:
        return ""
    return next(name for name, step_s in times.UNIT_SECONDS.items() if step_s == counts.unit_s)


def candidates(found: Found, content: FileContent, lidar: bool, date: str | None) -> tuple[list[Clock], str]:
    """The possible clocks of a time's numbers, the likeliest first; and why there is none.

    What the unit writes is kept to. `date` is one that another file gives; what is guessed agrees with the date of this
    file, or that one.
    """
    unit = _written(found) if found.units else "any"
    if unit is None:
        return [], f"its unit '{found.units}' is not understood"
    if not unit:
        return [({}, f"'{found.units}'")], ""
    known_s, known_by = _date_s(content)
    allowed = ("day_of_year", "d") if unit in ("day_of_year", "d") else (unit,)
    guessed = _guessed(found, content, lidar, date, known_s)
    clocks = [clock for clock in guessed if unit == "any" or clock[0]["time_unit"] in allowed]
    if clocks:
        return clocks, ""
    span = f"its numbers, {found.finite.min():.6g} to {found.finite.max():.6g}"
    near = f", or none that meets {known_by}" if known_by else ""
    return [], f"{span}{'' if unit == 'any' else f' {unit}'}, are no clock that is known{near}"


def _date_s(content: FileContent) -> tuple[float | None, str]:
    """The date of a file, by its name or attributes, in s since 1970; and which says so."""
    named = [value for key, value in content.attributes.items() if of_the_measurement(key)]
    for text, source in [
        (content.path.stem, "the date in the file's name"),
        *((value, "the date in its attributes") for value in named),
    ]:
        if moment := _noon_s(times.date_in(text)):
            return moment, source
    return None, ""


def _noon_s(day: tuple[int, int, int] | None) -> float | None:
    try:
        return None if day is None else float(calendar.timegm((*day, 12, 0, 0)))
    except ValueError:
        return None


def _guessed(found: Found, content: FileContent, lidar: bool, date: str | None, known_s: float | None) -> list[Clock]:
    """The clocks that numbers without a reference may be, by their size, their names and the date that is known."""
    finite = found.finite
    low, high = float(finite.min()), float(finite.max())
    if digits := _digits(found, content, date):
        return [digits]
    if clock := _unmistakable(found):
        return [clock]
    of_others = _noon_s(times.date_in(date or "")) if known_s is None else None
    if epochs := _epochs(finite, known_s or of_others) or (_epochs(finite, None) if known_s is None else []):
        return epochs
    step = float(np.median(np.abs(np.diff(finite)))) if len(finite) > 1 else 0.0
    since = _since(content, date)
    described = f"{found.words} {found.units.lower()} {found.text}"
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


def _digits(found: Found, content: FileContent, date: str | None) -> Clock | None:
    """Times written as digits: 142359 is 14:23:59, and 20240603142359 has the date before."""
    finite = found.finite
    dated = bool(finite.min() >= 1e13 and finite.max() < 1e14)
    steps = np.diff(finite)
    usual = float(np.median(steps)) if len(steps) else 0.0
    turns = bool(np.isin(np.round(steps - usual, 3), (40, 4000, 4040)).any())  # at the ends of minutes and hours
    worded = re.search(r"hh ?mm ?ss", f"{plain(found.units)} {found.words} {found.text}")
    if not (dated or worded or turns or (found.finite.max() > DAY_S and usual < LONGEST_STEP_S)):
        return None
    try:
        seconds = time_units.decimal_digits(finite, dated)
    except ValueError:
        return None
    if (np.diff(seconds) < 0).mean() > 0.2 if len(seconds) > 1 else False:
        return None
    since = ({}, "") if dated else _since(content, date)
    unit, shown = ("yyyymmddhhmmss", "YYYYMMDDhhmmss") if dated else ("hhmmss", f"hhmmss, {since[1]}")
    return {"time_unit": unit, **since[0]}, f"digits {shown}"


def _epochs(finite: np.ndarray, known_s: float | None) -> list[Clock]:
    """Clocks that count from a day long ago: those that give the known date, or without one the usual ones."""
    middle, span = float(np.median(finite)), float(np.ptp(finite))
    clocks: list[Clock] = []
    for unit, since_s, scale, name in EPOCHS if known_s is not None else UNDATED:
        step_s = times.UNIT_SECONDS[unit]
        counts = time_units.TimeUnit(step_s, since_s, scale)  # type: ignore[arg-type]
        moment = float(time_units.to_utc(np.array(middle * step_s), counts, since_s))
        far = abs(moment - known_s) > NEAR_S if known_s is not None else not EARLIEST_S < moment < LATEST_S
        if far or span * step_s > 2 * DAY_S or (unit == "d" and middle < 3000):
            continue
        leap_s = round(moment - middle * step_s - since_s, 3)
        since = time.strftime("%Y-%m-%d", time.gmtime(since_s))
        more_s = leap_s + since_s % DAY_S
        if times.date_in(since) is None:  # before 1900
            since, more_s = "1970-01-01", leap_s + since_s
        settings: dict[str, Any] = {"time_unit": unit, **({"time_since": since} if since_s else {})}
        told = f", {-leap_s:g} s ahead of UTC" if leap_s else ""
        by = ", a guess that no date confirms" if known_s is None else ", by the date"
        clocks.append(({**settings, **({"time_offset_s": more_s} if more_s else {})}, f"{name}{told}{by}"))
    return clocks


def _unmistakable(found: Found) -> Clock | None:
    """The unit of numbers that can only be one clock."""
    finite = found.finite
    median, span = float(np.median(finite)), float(np.ptp(finite))
    of_day = re.search(r"\b(s|secs?|seconds?|sod)\b", f"{found.units.lower()} {found.words}")
    for start, end, unit, days, words in LONG:
        if start <= median <= end and not (unit == "d" and (span > 2 or of_day)):
            return {"time_unit": unit, **({"time_offset_s": days * DAY_S} if days else {})}, words
    return None


def of_the_measurement(key: str) -> bool:
    """Whether an attribute of that name holds the date of the measurement, and not of its processing."""
    return bool(re.search(r"date|start|begin|day", key.lower())) and not re.search(
        r"creat|process|modif|version|histor|revis|publi|update|write|written", key.lower()
    )


def _since(content: FileContent, date: str | None) -> tuple[dict[str, str], str]:
    """The date of times of the day: from the file's name, an attribute, or another file."""
    if times.date_in(content.path.stem):
        return {"time_since": "file_name"}, "date in the file's name"
    for key, value in content.attributes.items():
        if times.date_in(value) and of_the_measurement(key):
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


def why_no_time(content: FileContent, count: int) -> str:
    """Why a file has no time for `count` rows, in words."""
    named = [found for found in content.datasets if re.search(WORDS, found.words)]
    parts = [found for found in content.datasets if re.fullmatch(FIELDS, found.words)]
    text = f"no dataset of {count} rising times in {content.path}"
    if len(parts) >= 3:
        return (
            f"{text}: the time is split over {', '.join(found.name for found in parts[:7])}; write one dataset of times"
        )
    coarse = [found for found in named if found.shape[:1] == (count,) and found.type in ("float16", "float32")]
    shapes = [f"'{found.name}' has the shape {found.shape}" for found in named if found.shape[:1] != (count,)]
    shapes += [
        f"'{found.name}' is {found.type}, too coarse for its times: they are rounded to steps of "
        f"{np.spacing(np.abs(found.finite).max().astype(found.type)):.3g}"
        for found in coarse
        if found.finite.size
    ]
    return f"{text}: {'; '.join(shapes[:3])}" if shapes else text


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
