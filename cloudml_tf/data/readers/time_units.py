"""The unit of a time as files write it: "seconds since 2024-06-03 14:00:00", in CF's words and those of other clocks.

cftime and UDUNITS read more units than are right here: cftime drops an hour without minutes and most zones without a
word. What is not understood in full is refused by name.
"""

import calendar
import datetime
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_WORDS = {
    "nanosecond": "ns", "nanosec": "ns", "nsec": "ns", "microsecond": "us", "microsec": "us", "usec": "us", "µs": "us",
    "μs": "us", "millisecond": "ms", "millisec": "ms", "msec": "ms", "second": "s", "sec": "s", "minute": "min",
    "hour": "h", "hr": "h", "day": "d",
}  # fmt: skip
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DATES = (  # of a reference: year, month, day
    r"(?P<y>-?\d{1,4})-(?P<m>\d\d?)-(?P<d>\d\d?)",
    r"(?P<y>\d{4})[/.](?P<m>\d\d?)[/.](?P<d>\d\d?)",
    r"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)",
    r"(?P<d>\d\d?)[- ](?P<m>[a-z]{3,9})[- ,]+(?P<y>\d{4})",
    r"(?P<m>[a-z]{3,9})\.? (?P<d>\d\d?),? (?P<y>\d{4})",
)
_CLOCK = r"(?P<H>\d\d?)(?::(?P<M>\d\d?)(?::(?P<S>\d\d?(?:\.\d*)?))?)?"
_PACKED_CLOCK = r"(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d(?:\.\d*)?)?"
_ZONE = r"\s*\(?(?:z|utc?|gmt|zulu)?\)?\s*(?:(?P<sign>[+-])\s*(?P<zh>\d\d?)(?::?(?P<zm>\d\d))?|0+(?::?00)?)?"
_SCALE = r"\s*\(?(?P<scale>tai|gps)?(?:[ -]?time)?\)?"
_REFERENCES = [
    re.compile(rf"{date}(?:(?:t|[\s_:,]\s*)(?:{clock}))?{_ZONE}{_SCALE}\s*")
    for date in _DATES
    for clock in (_CLOCK, _PACKED_CLOCK)
]
_EPOCH = re.compile(rf"(?:the )?(?:unix )?epoch{_ZONE}\s*")
_MIDNIGHT = re.compile(rf"(?:00:00(?::00)?|midnight){_ZONE}\s*")
CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian", "utc", "tai")
MODELS_CALENDARS = ("julian", "noleap", "365_day", "all_leap", "366_day", "360_day")
# The days (UTC) that began with one second more between UTC and TAI; the first of 1972 with ten.
_LEAPS = (
    "1972-07-01", "1973-01-01", "1974-01-01", "1975-01-01", "1976-01-01", "1977-01-01", "1978-01-01", "1979-01-01",
    "1980-01-01", "1981-07-01", "1982-07-01", "1983-07-01", "1985-07-01", "1988-01-01", "1990-01-01", "1991-01-01",
    "1992-07-01", "1993-07-01", "1994-07-01", "1996-01-01", "1997-07-01", "1999-01-01", "2006-01-01", "2009-01-01",
    "2012-07-01", "2015-07-01", "2017-01-01",
)  # fmt: skip
LEAPS_S = np.array(_LEAPS, "datetime64[s]").astype("float64")
GPS_S, TAI93_S, TAI58_S, GREGORIAN_S = (
    float(calendar.timegm((*day, 0, 0, 0))) for day in ((1980, 1, 6), (1993, 1, 1), (1958, 1, 1), (1583, 1, 1))
)
EPOCH = datetime.datetime(1970, 1, 1)
Scale = Literal["utc", "gps", "tai", "leaps"]  # `leaps` counts leap seconds from a reference in UTC


@dataclass(frozen=True)
class TimeUnit:
    """What the numbers of a time count."""

    unit_s: float
    since_s: float | None  # seconds from 1970-01-01 UTC to the reference; None where the unit names none
    scale: Scale = "utc"
    calendar: str = ""  # a calendar of models, whose dates `check_calendar` compares with those of the sky


def parse(text: str, calendar_name: str = "", described: str = "") -> TimeUnit:
    """Read a unit of time. `described` are the words of its dataset, which may name GPS or TAI.

    Raises `ValueError` for a unit, a reference or a calendar that is not understood in full.
    """
    plain = " ".join(text.lower().replace("\x00", "").split())
    kind = calendar_name.strip().lower()
    if kind not in (*CALENDARS, *MODELS_CALENDARS):
        raise ValueError(f"calendar '{calendar_name[:40]}' is not known")
    word, *rest = re.split(r"\s+(?:since|after|from|ref)\s+|\s*@\s*", plain, maxsplit=1)
    word = re.sub(r"\s+\(?(utc|gmt|z)\)?$", "", word)
    unit = word if word in UNIT_SECONDS else _UNIT_WORDS.get(word, _UNIT_WORDS.get(word.removesuffix("s"), ""))
    unit = unit or (word.removesuffix("s") if word.removesuffix("s") == "min" else "")
    if not unit:
        raise ValueError(f"time unit '{text[:80]}' is not known")
    if not rest or _MIDNIGHT.fullmatch(rest[0]):
        return TimeUnit(UNIT_SECONDS[unit], None)
    since_s, named = _reference(rest[0], kind == "proleptic_gregorian")
    if kind in MODELS_CALENDARS and since_s < GREGORIAN_S:
        raise ValueError(f"calendar '{kind}' before 1583 has other dates than the sky")
    scale = _scale(named or kind, since_s, described)
    return TimeUnit(UNIT_SECONDS[unit], since_s, scale, kind if kind in MODELS_CALENDARS else "")


def check_calendar(unit: TimeUnit, counted: np.ndarray) -> None:
    """Refuse seconds of a model's calendar whose dates are others than those of the sky. Raises `ValueError`."""
    finite = counted[np.isfinite(counted)]
    if not unit.calendar or not finite.size or unit.since_s is None:
        return
    import cftime

    for seconds in (float(finite.min()), float(finite.max())):
        since = EPOCH + datetime.timedelta(seconds=unit.since_s)
        ours = since + datetime.timedelta(seconds=seconds)
        theirs = cftime.num2date(seconds, f"seconds since {since:%Y-%m-%d %H:%M:%S}", unit.calendar)
        if (ours.year, ours.month, ours.day) != (theirs.year, theirs.month, theirs.day):
            raise ValueError(
                f"its calendar '{unit.calendar}' gives {theirs:%Y-%m-%d} where the sky had {ours:%Y-%m-%d}"
            )


def _reference(text: str, proleptic: bool) -> tuple[float, str]:
    """A reference in s since 1970 UTC, and the time scale that it names. Raises `ValueError`."""
    if match := _EPOCH.fullmatch(text):
        return -_zone_s(match), ""
    match = next((found for pattern in _REFERENCES if (found := pattern.fullmatch(text))), None)
    if match is None:
        raise ValueError(f"reference '{text[:60]}' is not understood")
    part = match.groupdict()
    if len(part["y"]) == 2:
        raise ValueError(f"reference '{text[:60]}' has a year of two digits")
    month = _MONTHS.get(part["m"][:3], 0) if part["m"].isalpha() else int(part["m"])
    seconds = float(part["S"] or 0)
    moment = (int(part["y"]), month, int(part["d"]), int(part["H"] or 0), int(part["M"] or 0), int(seconds))
    try:
        since_s = _since_1970(moment, proleptic) + seconds % 1
    except (ValueError, OverflowError):
        raise ValueError(f"reference '{text[:60]}' is no date") from None
    return since_s - _zone_s(match), part["scale"] or ""


def _since_1970(moment: tuple[int, ...], proleptic: bool) -> float:
    """Seconds from 1970 to a moment. Raises `ValueError` where there is none."""
    year, month, day, hour, minute, second = moment
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(2000, month)[1]):
        raise ValueError
    if not (hour < 24 and minute < 60 and second < 60):
        raise ValueError
    if year > 1582:
        if day > calendar.monthrange(year, month)[1]:
            raise ValueError
        return float(calendar.timegm(moment))
    import cftime  # the days of the Julian calendar, and those that nobody had

    if year == 0 and not proleptic:
        raise ValueError("the standard calendar has no year 0")
    kind = "proleptic_gregorian" if proleptic else "standard"
    first, then = (cftime.datetime(*day, calendar=kind, has_year_zero=proleptic) for day in ((1970, 1, 1), moment))
    apart = then - first
    return float(apart.total_seconds())


def _zone_s(match: re.Match[str]) -> float:
    """How far a zone lies east of Greenwich, in s."""
    if match["zh"] is None:
        return 0.0
    away = 3600.0 * int(match["zh"]) + 60.0 * int(match["zm"] or 0)
    if away > 14 * 3600 or int(match["zm"] or 0) > 59:
        raise ValueError("its zone is beyond 14 hours")
    return -away if match["sign"] == "-" else away


def _scale(named: str, since_s: float, described: str) -> Scale:
    """The time scale that is named, by the unit, the calendar or the dataset's own words. Raises `ValueError`."""
    if named == "utc":
        return "leaps"
    if named == "gps" or (since_s == GPS_S and re.search(r"\bgps\b", described)):
        return "gps"
    if since_s == TAI93_S and (named == "tai" or re.search(r"\btai(93)?\b", described)):
        return "leaps"
    if named == "tai" and since_s != TAI58_S:
        raise ValueError("TAI from that date is read in two ways, 27 s apart")
    return "tai" if named == "tai" else "utc"


def to_utc(seconds: np.ndarray, unit: TimeUnit, since_s: float) -> np.ndarray:
    """Counted seconds, any shape, as seconds since 1970 UTC, of `unit` or from `since_s` where it names none."""
    reference_s = since_s if unit.since_s is None else unit.since_s
    moment = seconds + reference_s
    if unit.scale == "utc":
        return moment
    passed = np.searchsorted(LEAPS_S, moment - 37.0, "right")  # to the second but in the second itself
    already: dict[str, int] = {
        "gps": int(np.searchsorted(LEAPS_S, GPS_S, "right")),
        "leaps": int(np.searchsorted(LEAPS_S, reference_s, "right")),
        "tai": -10,
    }
    return np.asarray(moment - (passed - already[unit.scale]))


def decimal_digits(values: np.ndarray, dated: bool) -> np.ndarray:
    """Times written as digits, in s: 142359 is 14:23:59 of a day; `dated`, 20240603142359, in s since 1970.

    Raises `ValueError` where the digits are no time.
    """
    with np.errstate(invalid="ignore"):
        clock = values % 1_000_000.0 if dated else values
        hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    known = np.isfinite(values)
    if (known & ~((hour < 24) & (minute < 60) & (second < 60) & (values >= 0))).any():
        raise ValueError("the digits of its numbers are not hours, minutes and seconds")
    seconds = np.where(known, 3600.0 * hour + 60.0 * minute + second, np.nan)
    if not dated:
        return seconds
    days = np.where(known, values // 1_000_000, 19700101).astype("int64")
    text = np.char.zfill(days.astype(str), 8)
    try:
        dates = np.array([f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in text.ravel()], "datetime64[D]")
    except ValueError:
        raise ValueError("the digits of its numbers are no dates") from None
    return seconds + dates.reshape(text.shape).astype("int64") * 86400.0
