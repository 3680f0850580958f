"""Moments as texts and file names write them, in seconds since 1970 UTC; what has no zone is UTC."""

import calendar
import re

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_ZONE = r"\s*(?P<zone>z|utc|gmt|[+-]\d\d:?\d\d)?"
_CLOCK = r"(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)(?P<f>[.,]\d+)?"
_PACKED = r"(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)(?P<f>[.,]?\d{0,6})"
_TEXTS = [
    re.compile(pattern + _ZONE, re.IGNORECASE)
    for pattern in (
        rf"(?P<y>\d{{4}})-(?P<m>\d\d)-(?P<d>\d\d)[T ;_]\s*{_CLOCK}",
        rf"(?P<y>\d{{4}})(?P<p>[:/])(?P<m>\d\d)(?P=p)(?P<d>\d\d)[T ;]\s*{_CLOCK}",
        rf"(?P<d>\d\d)-(?P<m>[a-z]{{3}})-(?P<y>\d{{4}})[T ;:]\s*{_CLOCK}",
        rf"(?P<y>\d{{4}})(?P<m>\d\d)(?P<d>\d\d)[T _-]?{_PACKED}",
    )
]
_DAY = r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<p>[-_.]?)(?P<m>0[1-9]|1[0-2])(?P=p)(?P<d>0[1-9]|[12]\d|3[01])"
_HOUR, _MINUTE, _SECOND = r"(?P<H>[01]\d|2[0-3])", r"(?P<M>[0-5]\d)", r"(?P<S>[0-5]\d)"
_NAMES = [  # a fraction stands right behind the seconds, behind a point, or as all parts stand: a number may follow
    re.compile(rf"{_DAY}(?:[-_.T ]|_T)?{_HOUR}{_MINUTE}(?:{_SECOND}(?P<f>[.,]?\d{{3}}|[.,]?\d{{6}})?)?(?!\d)"),
    re.compile(
        rf"{_DAY}[-_.T ]{_HOUR}(?P<q>[-_.:]){_MINUTE}(?P=q){_SECOND}(?P<f>(?:(?P=q)|[.,])(?:\d{{3}}|\d{{6}}))?(?!\d)"
    ),
]


def moment_in(text: str) -> float | None:
    """The moment that a whole text is; None where it is none. "0000:00:00 00:00:00" is none either."""
    plain = text.strip("\x00 \t\r\n")
    match = next((found for pattern in _TEXTS if (found := pattern.fullmatch(plain))), None)
    return None if match is None else _seconds(match, match["zone"] or "")


def moment_of_name(stem: str) -> float | None:
    """The first moment in a file's name: 202406031200, 20240603_120000, 2024-06-03T12-00-00.500; None for none."""
    found = [match for pattern in _NAMES if (match := pattern.search(stem))]
    return _seconds(min(found, key=lambda match: match.start()), "") if found else None


def _seconds(match: re.Match[str], zone: str) -> float | None:
    part = match.groupdict()
    month = _MONTHS.get(part["m"].lower(), 0) if part["m"].isalpha() else int(part["m"])
    day = (int(part["y"]), month, int(part["d"]))
    clock = (int(part["H"]), int(part["M"]), int(part["S"] or 0))
    if not (1 <= month <= 12 and day[0] > 1900 and 1 <= day[2] <= calendar.monthrange(day[0], month)[1]):
        return None
    if clock[0] > 23 or clock[1] > 59 or clock[2] > 59:
        return None
    digits = re.sub(r"\D", "", part["f"] or "")
    away = 0.0
    if zone[:1] in ("+", "-"):
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 14 or minutes > 59:
            return None
        away = (-1.0 if zone[0] == "-" else 1.0) * (3600.0 * hours + 60.0 * minutes)
    return calendar.timegm((*day, *clock)) + (int(digits) / 10 ** len(digits) if digits else 0.0) - away
