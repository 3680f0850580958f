"""A flight in several files, such as cam_part1.h5, cam_part2.h5, …, as one file: what has a row a time is joined.

Rows lie in the order of the numbers in the files' names; whoever reads them puts them into the order of their times, as
it does with those of one file. A part is read when rows of it are asked for, and only one is open at a time. What the
parts do not have in common is refused where somebody asks for it: a dataset that nobody needs costs no flight.
"""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cloudml_tf.config.data import Limits
from cloudml_tf.data.readers.formats.base import Array, ArrayFile
from cloudml_tf.data.readers.formats.part_names import by_number
from cloudml_tf.data.readers.packing import may_pack, unpack
from cloudml_tf.data.readers.time_units import TimeUnit, parse, to_utc
from cloudml_tf.utils.errors import DataError

CLOCK = r"(?i)time|utc|hour|second|julian|epoch|stamp|doy|(?<![a-z])(t|ts|sec|sod|days?)(?![a-z])"
MOST_SLOTS = 3  # times of a row: start, middle, end
LOOKED_AT = 64  # numbers at either end of a vector
MEANING = r"calendar|flag_(values|masks|meanings)|bit_\d+_\w+"
SECONDS = "seconds since 1970-01-01"


@dataclass(frozen=True)
class Entry:
    """A dataset of one part, as its file describes it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    attrs: dict[str, Any]
    unit: str
    chunks: tuple[int, ...] | None
    axes: tuple[str, ...]

    def meaning(self) -> dict[str, str]:
        """What numbers mean, by what says so: this is the same in all parts."""
        said = {key: value for key, value in self.attrs.items() if may_pack(key) or re.fullmatch(MEANING, key.lower())}
        plain = {"type": str(self.dtype), "unit": repr(self.unit)}
        return plain | {key: str(np.ravel(value).tolist()) for key, value in said.items()}


@dataclass(frozen=True)
class Part:
    """One file, and its datasets of numbers by name."""

    path: Path
    attrs: dict[str, Any]
    entries: dict[str, Entry]
    broken: dict[str, str]  # datasets that cannot be described, with the reason


def is_clock(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a dataset may be the times of several rows, by its name and its shape."""
    long = len(shape) == 1 or (len(shape) == 2 and (1 in shape or shape[1] <= MOST_SLOTS))
    return long and math.prod(shape) > 1 and re.search(CLOCK, name.rpartition("/")[2]) is not None


def open_parts(paths: Sequence[Path], pattern: Path, limits: Limits, hdf5: ModuleType) -> "Parts":
    """Open files as one. `hdf5` is the module that opens each of them, which imports this one.

    Raises `DataError` where one of them cannot be read: a flight with a hole would go unsaid.
    """
    ordered = tuple(sorted(paths, key=by_number))
    states = tuple((state.st_size, state.st_mtime_ns) for state in (one.stat() for one in ordered))
    return Parts(pattern, *_look(ordered, states, limits, hdf5), limits, hdf5)


@functools.lru_cache(maxsize=16)
def _look(
    paths: tuple[Path, ...], states: tuple[Any, ...], limits: Limits, hdf5: ModuleType
) -> tuple[list[Part], set[tuple[int, ...]]]:
    """What each file holds, and the lengths along time, one a part; of files in one state."""
    parts = []
    for path in paths:
        with hdf5.open_file(path, limits) as file:
            with hdf5.library(file, "its attributes"):
                attrs = {key: file.attrs[key] for key in file.attrs}
            part = Part(path, attrs, {}, {})
            for name in hdf5.names(file):
                try:
                    entry = _entry(file, name, hdf5)
                    part.entries.update({} if entry is None else {name: entry})
                except DataError as error:
                    part.broken[name] = str(error)
        parts.append(part)
    return parts, _along_time(parts, limits, hdf5)


def _entry(file: Any, name: str, hdf5: ModuleType) -> Entry | None:
    """A dataset; None for one that holds no numbers."""
    with hdf5.library(file, name):
        item = file[name]
        if item.dtype.kind not in "iuf" or item.shape is None:
            return None
        attrs = {key: item.attrs[key] for key in item.attrs if not key.endswith("_LIST")}  # references into the file
        axes = tuple(str(dim[0].name).rpartition("/")[2] if len(dim) else str(dim.label) for dim in item.dims)
        return Entry(tuple(item.shape), item.dtype, attrs, hdf5.unit(item), item.chunks, axes)


def _along_time(parts: Sequence[Part], limits: Limits, hdf5: ModuleType) -> set[tuple[int, ...]]:
    """The numbers of rows, one a part, of all that has a row a time: those of vectors that differ between the parts.

    A vector along the pixels is the same in all of them. Of vectors of one length in all parts those that rise decide,
    as times do, and others only where nothing else does.
    """
    shapes = {name: [part.entries[name].shape for part in parts] for name in _shared(parts)}
    vectors = {name: tuple(map(math.prod, found)) for name, found in shapes.items() if all(map(_is_vector, found))}
    times = {name: tuple(one[0] for one in found) for name, found in shapes.items() if all(map(_is_table, found))}
    lengths = vectors | {name: found for name, found in times.items() if name not in vectors}
    found = {length for length in lengths.values() if len(set(length)) > 1}
    alike = [name for name, length in lengths.items() if length not in found]
    ends: dict[str, list[tuple[float, ...]]] = {name: [] for name in alike}
    for part in parts:
        with hdf5.open_file(part.path, limits) as file:
            for name in alike:
                ends[name].append(_ends(file, name, hdf5))
    differing = [
        name
        for name in alike
        if len({str(end) for end in ends[name]}) > 1 or len({part.entries[name].unit for part in parts}) > 1
    ]
    rising = {lengths[name] for name in differing if all(first < last for first, last in ends[name])}
    found |= rising
    return found or {lengths[name] for name in differing}


def _shared(parts: Sequence[Part]) -> list[str]:
    return [name for name in parts[0].entries if all(name in part.entries for part in parts)]


def _is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of a vector, as MATLAB writes it too."""
    return len(shape) == 1 or (len(shape) == 2 and 1 in shape)


def _is_table(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[1] <= MOST_SLOTS


def _ends(file: Any, name: str, hdf5: ModuleType) -> tuple[float, float]:
    """The first and the last finite number near the ends of a vector; NaN where there is none."""
    item = hdf5.dataset(file, name)
    long = max(item.shape) if _is_vector(item.shape) else item.shape[0]
    cut = max(long - LOOKED_AT, 0)
    with hdf5.library(file, name):
        if len(item.shape) == 2 and item.shape[0] == 1:
            head, tail = item[:, :LOOKED_AT], item[:, cut:]
        else:
            head, tail = item[:LOOKED_AT], item[cut:]
    head, tail = (one[np.isfinite(one)] for one in (np.ravel(head).astype("float64"), np.ravel(tail).astype("float64")))
    return (float(head[0]), float(tail[-1])) if head.size and tail.size else (np.nan, np.nan)


class Parts(ArrayFile):
    """Files as one: datasets along time joined, and those that are the same in all parts."""

    def __init__(
        self, path: Path, parts: list[Part], along: set[tuple[int, ...]], limits: Limits, hdf5: ModuleType
    ) -> None:
        alike = {k: v for k, v in parts[0].attrs.items() if all(_same(v, part.attrs.get(k)) for part in parts)}
        super().__init__(str(path), alike)
        self.limits, self._parts, self._along, self._hdf5 = limits, parts, along, hdf5
        self._open, self._number = contextlib.ExitStack(), -1
        self._file: Any = None
        self._check_pairs()
        self.notes = [f"{len(parts)} files are read as parts of one: {_few([part.path.name for part in parts])}"]

    def _check_pairs(self) -> None:
        """Rows of one sum, and not the same in each part, would be paired wrongly. Raises `DataError`."""
        sums = [sum(lengths) for lengths in self._along]
        twice = sorted(lengths for lengths in self._along if sums.count(sum(lengths)) > 1)
        if twice:
            shown = " and ".join(", ".join(map(str, lengths)) for lengths in twice[:2])
            raise DataError(
                f"{self.filename}: each part must have one row for each of its times. Received: rows of {shown} in "
                f"{_few([part.path.name for part in self._parts])}. Cut the datasets of all parts at the same times."
            )

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of the rows."""
        return [part.path for part in self._parts]

    def each(self) -> Iterator[Any]:
        """Each part as a file of its own, open until the next one is asked for."""
        for number in range(len(self._parts)):
            yield self._part(number)

    def lengths(self, name: str) -> tuple[int, ...]:
        """The rows of a dataset along time in each part; none of one that a part lacks."""
        entries = [part.entries[name.strip("/")] for part in self._parts if name.strip("/") in part.entries]
        if len(entries) < len(self._parts):
            return ()
        axis = self._axis(entries)
        return _rows(entries, axis or 0)

    def find(self, name: str) -> Array | None:
        """The dataset of a name over all parts, None where none has it. Raises `DataError` where parts differ."""
        name = name.strip("/")
        if name not in self.arrays and name in self:
            self.arrays[name] = self._joined(name)
        return self.arrays.get(name)

    def __getitem__(self, name: str) -> Array:
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: str) -> bool:
        return any(name.strip("/") in held for part in self._parts for held in (part.entries, part.broken))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for part in self._parts for name in (*part.entries, *part.broken)))

    def close(self) -> None:
        """Let go of what is open."""
        self._open.close()
        self._number = -1
        super().close()

    def _part(self, number: int) -> Any:
        """A part that is open, and no other."""
        if number != self._number:
            self._open.close()
            self._file = self._open.enter_context(self._hdf5.open_file(self._parts[number].path, self.limits))
            self._number = number
        return self._file

    def _joined(self, name: str) -> Array:
        broken = [part.broken[name] for part in self._parts if name in part.broken]
        if broken:
            raise DataError(broken[0])
        lacking = [part.path for part in self._parts if name not in part.entries]
        if lacking:
            has = next(part.path for part in self._parts if name in part.entries)
            raise DataError(
                f"{lacking[0]}: lacks '{name}', which {has} has; parts of one flight need the same datasets. Complete "
                "it, or name a pattern that matches the parts alone."
            )
        entries = [part.entries[name] for part in self._parts]
        first, axis, clocks = entries[0], self._axis(entries), self._clocks(name, entries)
        flat = axis == 0 and all(_is_vector(entry.shape) for entry in entries)
        for number, entry in enumerate(entries[1:], 1):
            sides = [() if flat else _without(one.shape, axis) for one in (first, entry)]
            if sides[0] != sides[1]:
                self._refuse(number, f"the shape of '{name}'", str(first.shape), str(entry.shape))
            if clocks is None:
                self._check_alike(name, number, entry)
        if axis is None:
            made = Array(self, name, first.shape, first.dtype, lambda key: self._shared(name, key), first.attrs)
            made.chunks = first.chunks  # type: ignore[assignment]
            return made
        rows = _rows(entries, axis)
        shape = (sum(rows),) if flat else (*first.shape[:axis], sum(rows), *first.shape[axis + 1 :])
        read = functools.partial(self._read, name, rows, axis, flat, first, clocks)
        dtype, attrs = first.dtype, first.attrs
        if clocks is not None:
            dtype, attrs = np.dtype("float64"), {**_described(first.attrs), "units": SECONDS}
        made = Array(self, name, shape, dtype, read, attrs, () if flat and len(first.axes) > 1 else first.axes)
        chunked = [entry.chunks for entry in entries if entry.chunks]
        if chunked and not flat:
            made.chunks = tuple(max(sides) for sides in zip(*chunked, strict=True))  # type: ignore[assignment]
        return made

    def _axis(self, entries: Sequence[Entry]) -> int | None:
        """The axis along time: the first, or the last of three; None where there is none."""
        if all(_is_vector(entry.shape) for entry in entries):
            return 0 if _rows(entries, 0) in self._along else None
        ranks = {len(entry.shape) for entry in entries}
        axes = (0, 2) if ranks == {3} else (0,) if 0 not in ranks else ()
        return next((axis for axis in axes if _rows(entries, axis) in self._along), None)

    def _clocks(self, name: str, entries: Sequence[Entry]) -> list[TimeUnit] | None:
        """The units of times that count from another moment in each part; None where they do not."""
        if len({entry.unit for entry in entries}) == 1:
            return None
        try:
            words = f"{name} {entries[0].attrs.get('long_name', '')}".lower()
            units = [parse(entry.unit, _text(entry.attrs.get("calendar", "")), words) for entry in entries]
        except ValueError:
            return None
        return None if any(unit.since_s is None or unit.calendar for unit in units) else units

    def _check_alike(self, name: str, number: int, entry: Entry) -> None:
        """Refuse a dataset whose numbers mean something else than in the first part. Raises `DataError`."""
        ours, theirs = self._parts[0].entries[name].meaning(), entry.meaning()
        for key in {**ours, **theirs}:
            one, other = ours.get(key, "none"), theirs.get(key, "none")
            if one != other:
                self._refuse(number, f"the {key} of '{name}'", one, other)

    def _refuse(self, number: int, what: str, one: str, other: str) -> None:
        raise DataError(
            f"{self._parts[0].path} and {self._parts[number].path}: {what} must be the same in all parts of one "
            f"flight. Received: {one[:120]} and {other[:120]}. Write the parts alike, or make them flights of their "
            "own."
        )

    def _shared(self, name: str, key: Any) -> np.ndarray:
        """A dataset that is not along time, and the same in all parts. Raises `DataError` where it is not."""
        found: list[np.ndarray] = []
        for number, file in enumerate(self.each()):
            values = self._values(file, name, lambda item: item[key])
            if found and not np.array_equal(found[0], values, equal_nan=True):
                what = f"the values of '{name}', which has no row a time,"
                self._refuse(number, what, *(str(one.ravel()[:4].tolist()) for one in (found[0], values)))
            found = found or [values]
        return found[0]

    def _values(self, file: Any, name: str, cut: Callable[[Any], Any]) -> np.ndarray:
        """Numbers of one part, whose limits are checked as those of any file."""
        item = self._hdf5.dataset(file, name)
        with self._hdf5.library(file, name):
            return np.asarray(cut(item))

    def _read(
        self,
        name: str,
        rows: tuple[int, ...],
        axis: int,
        flat: bool,
        first: Entry,
        clocks: list[TimeUnit] | None,
        key: Any,
    ) -> np.ndarray:
        """Numbers of a dataset along time: from the parts that have them, one after the other."""
        rank = 1 if flat else len(first.shape)
        given = tuple(slice(None) if one is Ellipsis else one for one in (key if isinstance(key, tuple) else (key,)))
        cut = [*given, *[slice(None)] * (rank - len(given))]
        places = np.arange(sum(rows))[cut[axis]]
        wanted = np.atleast_1d(places)
        pieces: list[np.ndarray] = []
        for number, start in enumerate(np.cumsum([0, *rows[:-1]])):
            own = wanted[(wanted >= start) & (wanted < start + rows[number])] - start
            if not len(own) and (pieces or number < len(rows) - 1):
                continue
            span = slice(int(own.min()), int(own.max()) + 1) if len(own) else slice(0, 0)
            inner = tuple(span if place == axis else one for place, one in enumerate(cut))

            def piece(item: Any, inner: tuple[Any, ...] = inner) -> Any:
                return np.ravel(item[()])[inner[0]] if flat else item[inner]

            file = self._part(number)
            values = self._values(file, name, piece)
            if clocks is not None:
                counted = unpack(values, self._hdf5.packing(file[name])) * clocks[number].unit_s
                values = to_utc(counted, clocks[number], 0.0)
            out = axis - sum(isinstance(one, int | np.integer) for one in cut[:axis])
            pieces.append(values if len(own) == values.shape[out] else np.take(values, own - own.min(), out))
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=out)
        return np.take(whole, 0, out) if np.ndim(places) == 0 else whole


def _rows(entries: Sequence[Entry], axis: int) -> tuple[int, ...]:
    """The length of each part along an axis; of vectors, however they are written, all of it."""
    if all(_is_vector(entry.shape) for entry in entries):
        return tuple(math.prod(entry.shape) for entry in entries)
    return tuple(entry.shape[axis] if len(entry.shape) > axis else 0 for entry in entries)


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    """A shape without its axis along time."""
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])


def _described(attrs: dict[str, Any]) -> dict[str, Any]:
    """What describes a dataset in words, without what says how its numbers are to be read."""
    return {key: attrs[key] for key in ("long_name", "standard_name", "description", "comment") if key in attrs}


def _same(one: Any, other: Any) -> bool:
    return other is not None and str(np.ravel(one).tolist()) == str(np.ravel(other).tolist())


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _few(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
