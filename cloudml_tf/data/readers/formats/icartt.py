"""ICARTT text files of format index 1001: a header, then one table of numbers, as aircraft's navigation is archived.

Each column is a dataset: scaled, NaN where missing or beyond a limit of detection. The package `icartt` applies no
scale factors, leaves the flags of limits as numbers, and warns where a header's length is wrong; hence this reader.
"""

import calendar
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloudml_tf.data.readers.formats.base import ArrayFile

INDICES = ("1001", "1010", "1020", "2010", "2110", "2160", "2310", "3010", "4010")  # of NASA Ames, ICARTT's ancestor
BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?\s*(\d{1,4})[,\s]+(\d{4})(?=[,\s])")
FIXED = 12  # lines before the columns' names
MOST_LINES, MOST_BYTES, MOST_COLUMNS = 5000, 2**30, 1000
SECONDS = re.compile(
    r"s|secs?|seconds?([ _]*\(?(from|since|past|after|of|utc)[ _,a-z0-9]*(midnight|day|utc)[ _,a-z]*\)?)?"
    r"|seconds?[ _]*(utc)?|utc[ _]*seconds?"
)
DAY_S, BACK_TO_MIDNIGHT_S = 86_400.0, -80_000.0


@dataclass(frozen=True)
class Column:
    """A column as the header describes it."""

    name: str
    unit: str
    text: str
    scale: float = 1.0
    missing: float = np.nan


def begins(start: bytes) -> bool:
    """Whether a file begins as ICARTT and NASA Ames do: the number of header lines, and a known format index."""
    found = BEGIN.match(start)
    return found is not None and found[2].decode() in INDICES


def open_icartt(path: Path) -> ArrayFile:
    """Open a file of ICARTT. Raises `ValueError` with the rest of a sentence that begins with the path."""
    state = path.stat()
    if state.st_size > MOST_BYTES:
        raise ValueError(f"is a text of {state.st_size / 2**30:.3g} GB, more than any navigation has")
    attrs, columns, table, notes = _table(path, state.st_size, state.st_mtime_ns)
    file = ArrayFile(str(path), attrs)
    file.notes = list(notes)
    for column, values in zip(columns, table, strict=True):
        file.add(column.name, values, {"units": column.unit, "long_name": column.text})
    return file


@functools.lru_cache(maxsize=2)
def _table(path: Path, size: int, changed: int) -> tuple[dict[str, str], list[Column], np.ndarray, tuple[str, ...]]:
    """The attributes, the columns, their values (column, row), and what a person should know, of a file in one
    state."""
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode(errors="replace").splitlines()
    first = _parts(lines[0])
    if first[1] != "1001":
        raise ValueError(
            f"is an ICARTT file of format index {first[1]}; only 1001 is read, one table of columns. Write its columns "
            "of one value a time as such a table, or as NetCDF"
        )
    length = int(first[0])
    if not FIXED + 3 < length <= min(MOST_LINES, len(lines)):
        raise ValueError(f"is damaged: its header has {length} lines by its first line, the file {len(lines)}")
    header, rows = lines[:length], lines[length:]
    date, columns = _date(header), _columns(header)
    _check_names(header, columns)
    table = _numbers(rows, len(columns), length)
    flags = [flag for key in ("ULOD_FLAG", "LLOD_FLAG") for flag in _flags(header, key)]
    for column, values in zip(columns, table, strict=True):
        values[(values == column.missing) | np.isin(values, flags)] = np.nan
        values *= column.scale
    notes = _past_midnight(columns[0], table[0], length)
    attrs = {"date": date, "data_source": header[3].strip(), "mission": header[4].strip()}
    return attrs, [Column(columns[0].name, f"seconds since {date}", columns[0].text), *columns[1:]], table, notes


def _fields(line: str) -> list[str]:
    """The fields of a line of numbers or names: between commas, or spaces where there are no commas."""
    return [field.strip() for field in line.split(",")] if "," in line else line.split()


def _parts(line: str) -> list[str]:
    """The numbers of a line of the header, between commas or spaces."""
    return [part for part in re.split(r"[,\s]+", line) if part]


def _date(header: list[str]) -> str:
    """The day on which the data begin (line 7), and not that of their revision, which follows it."""
    try:
        year, month, day = (int(field) for field in _parts(header[6])[:3])
        calendar.timegm((year, month, day, 0, 0, 0))
        if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1] and year > 1900):
            raise ValueError
    except ValueError:
        raise ValueError(f"has no date in line 7, such as 2024, 10, 18. Received: '{header[6][:60]}'") from None
    return f"{year:04d}-{month:02d}-{day:02d}"


def _columns(header: list[str]) -> list[Column]:
    """The time and the columns beside it, with what lines 9 to 12 and those after them say."""
    try:
        count = int(_parts(header[9])[0])
    except (ValueError, IndexError):
        raise ValueError(f"has no number of columns in line 10. Received: '{header[9][:60]}'") from None
    if not 1 <= count <= min(MOST_COLUMNS, len(header) - FIXED - 2):
        raise ValueError(f"has {count} columns by line 10, which its header of {len(header)} lines does not name")
    scales, missing = (_list(header, line, count) for line in (11, 12))
    described = [_described(line) for line in (header[8], *header[FIXED : FIXED + count])]
    columns = [
        Column(*words, scale, gap)
        for words, scale, gap in zip(described, [1.0, *scales], [np.nan, *missing], strict=True)
    ]
    names = [column.name for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"has two columns of the name '{twice[0]}'")
    if bad := [column.name for column in columns if not np.isfinite(column.scale) or column.scale == 0]:
        raise ValueError(f"has a scale factor for '{bad[0]}' that is not finite, or 0")
    return columns


def _list(header: list[str], line: int, count: int) -> list[float]:
    """A line with one number a column, the time excepted."""
    try:
        numbers = [float(field) for field in _parts(header[line - 1])]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"needs {count} numbers in line {line}. Received: '{header[line - 1][:80]}'")
    return numbers


def _described(line: str) -> tuple[str, str, str]:
    """A column's name, unit and description: "Latitude, deg, Platform_Latitude, north positive"."""
    name, unit, *more = [*(field.strip() for field in line.split(",")), ""][: line.count(",") + 2]
    if not name:
        raise ValueError(f"has a column without a name: '{line[:60]}'")
    return name, unit, " ".join([name, *more]).strip()


def _check_names(header: list[str], columns: list[Column]) -> None:
    """The header's last line names the columns again: a wrong length or another order shows there."""
    written = [re.sub(r"\W", "", name).lower() for name in _fields(header[-1])]
    expected = [re.sub(r"\W", "", column.name).lower() for column in columns]
    if written[1:] == expected[1:]:
        return
    differ = next((pair for pair in zip(expected[1:], written[1:], strict=False) if pair[0] != pair[1]), None)
    what = f"'{differ[1][:40]}' for '{differ[0][:40]}'" if differ else f"{len(written)} names"
    raise ValueError(
        f"has a header of {len(header)} lines by its first line, whose last must name the {len(columns)} columns "
        f"again, in their order. Received: {what}"
    )


def _numbers(rows: list[str], count: int, skipped: int) -> np.ndarray:
    """The table (column, row). Raises `ValueError` with the number of the first line that is not one."""
    kept = [row for row in rows if row.strip()]
    if not kept:
        raise ValueError("has no line of numbers after its header")
    try:
        found = np.loadtxt(kept, delimiter="," if "," in kept[0] else None, ndmin=2, comments=None)
    except ValueError:
        found = np.zeros((0, 0))
    if found.shape != (len(kept), count):
        _name_bad_line(rows, count, skipped)
        raise ValueError(f"needs {count} numbers in each line after its header")
    return np.ascontiguousarray(found.T)


def _name_bad_line(rows: list[str], count: int, skipped: int) -> None:
    for number, row in enumerate(rows, skipped + 1):
        fields = _fields(row)
        if row.strip() and (len(fields) != count or not all(map(_is_number, fields))):
            cut = "; the file is truncated, copy it again" if number == skipped + len(rows) else ""
            raise ValueError(f"needs {count} numbers in line {number}. Received: '{row.strip()[:80]}'{cut}")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _flags(header: list[str], key: str) -> list[float]:
    """The number that stands for a value beyond a limit of detection: -7777, and as the rule is, -77777 as well."""
    for line in header[FIXED:]:
        match = re.match(rf"\s*{key}\s*[:=]\s*(-?\d+(?:\.\d*)?)", line, re.IGNORECASE)
        if match:
            same = re.fullmatch(r"-(\d)\1{3,}", match[1].rstrip(".0") or "0")
            return [-float(same[1] * digits) for digits in range(4, 10)] if same else [float(match[1])]
    return []


def _past_midnight(time: Column, values: np.ndarray, skipped: int) -> tuple[str, ...]:
    """Let times go on counting, in place, where they begin again at midnight; and say so.

    Times are seconds of the first day. Raises `ValueError` for another unit, and for a fall that is no midnight's.
    """
    if not SECONDS.fullmatch(time.unit.strip().lower()):
        raise ValueError(
            f"counts its times '{time.name}' in '{time.unit[:60]}'; ICARTT has seconds of the day in line 7. Write "
            "these, and 's' for their unit"
        )
    rows = np.flatnonzero(np.isfinite(values))
    last, first = values[rows[:-1]], values[rows[1:]]
    falls = np.flatnonzero(first - last < BACK_TO_MIDNIGHT_S)
    wrong = falls[(last[falls] > DAY_S) | (first[falls] < 0)]
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(
            f"falls from {last[place]:g} to {first[place]:g} s after line {skipped + rows[place] + 1}: times begin "
            "again at midnight, after 86400, or go on counting, 86401 after 86400. Correct them"
        )
    for place in rows[falls + 1]:
        values[place:] += DAY_S
    again = "" if len(falls) < 2 else f", {len(falls)} times"
    return (f"its clock begins again at midnight{again}: times are read on from there",) if len(falls) else ()
