"""NetCDF-3: classic files and those with 64-bit offsets, read slice by slice.

SciPy's reader keeps a variable's attributes and its own state in one place, so that an attribute called `data` replaces
the numbers without a word, and it reads negative lengths; hence this one. What the header claims is held against the
size of the file before anything is read.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cloudml_tf.data.readers.formats.base import Array, ArrayFile

TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}
CHAR, DIMENSIONS, VARIABLES, ATTRIBUTES = 2, 10, 11, 12
OFFSETS = {1: ">i", 2: ">q"}  # of a variable's first byte, by the version
MOST_ITEMS, LONGEST_TEXT = 20_000, 2**24
STREAMING = 2**32 - 1  # records that are counted by the size of the file
TRUNCATED = "is truncated; copy it again"


def begins(start: bytes) -> bool:
    """Whether a file begins as NetCDF-3 does, of whatever version."""
    return start.startswith(b"CDF") and len(start) > 3


@dataclass
class _Variable:
    """What the header says of a variable."""

    name: str
    axes: tuple[int, ...]  # its dimensions by number
    attrs: dict[str, Any]
    dtype: np.dtype
    begin: int  # its first byte in the file
    shape: tuple[int, ...] = ()
    is_record: bool = False

    @property
    def row(self) -> int:
        """Bytes of the whole variable, or of one record."""
        return math.prod(self.shape[1:] if self.is_record else self.shape) * self.dtype.itemsize


class _Header:
    """Reads a header, and believes none of its lengths. Raises `ValueError`."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise ValueError(TRUNCATED)
        return self.file.read(count)

    def number(self) -> int:
        """A count: four bytes without a sign, of which the library uses 31 bits."""
        found = int(struct.unpack(">I", self.read(4))[0])
        if found > 2**31 - 1:
            raise ValueError("is damaged: its header has a negative length; copy it again")
        return found

    def padded(self, count: int) -> bytes:
        """So many bytes, and those that fill up four."""
        if count > LONGEST_TEXT:
            raise ValueError(f"is damaged: its header has a text or a list of {count} bytes; copy it again")
        found = self.read(count)
        self.read(-count % 4)
        return found

    def text(self) -> str:
        return self.padded(self.number()).decode(errors="replace")

    def count_of(self, tag: int) -> int:
        """The length of a list of dimensions, variables or attributes."""
        found, count = self.number(), self.number()
        if count > MOST_ITEMS or found not in (0, tag) or (found == 0 and count):
            raise ValueError("is damaged: its header is none of NetCDF-3; copy it again")
        return count

    def attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.count_of(ATTRIBUTES)):
            name, dtype = self.text(), self.type()
            raw = self.padded(self.number() * dtype.itemsize)
            if dtype.kind == "S":
                found[name] = raw.decode(errors="replace").rstrip("\x00")
            else:
                found[name] = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
        return found

    def type(self) -> np.dtype:
        code = self.number()
        if code not in TYPES:
            raise ValueError(f"is damaged: its header has a type {code}; copy it again")
        return np.dtype(TYPES[code])

    def variable(self, dimensions: int, offset: str) -> _Variable:
        name = self.text()
        axes = tuple(self.number() for _ in range(min(self.number(), dimensions + 1)))
        if any(axis >= dimensions for axis in axes):
            raise ValueError(f"is damaged: '{name[:80]}' has a dimension that is not there; copy it again")
        attrs, dtype = self.attributes(), self.type()
        self.read(4)  # its size, which overflows in large files, and follows from its shape
        begin = int(struct.unpack(offset, self.read(struct.calcsize(offset)))[0])
        return _Variable(name, axes, attrs, dtype, begin)


def open_netcdf3(path: Path) -> ArrayFile:
    """Open a file of NetCDF-3. Raises `ValueError` with the rest of a sentence that begins with the path."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = _Header(file, size)
        version = header.read(4)[3]
        if version == 5:
            raise ValueError(
                "is a NetCDF-3 file with 64-bit data (CDF-5); convert it with `nccopy -k nc4 old.nc new.nc`"
            )
        if version not in OFFSETS:
            raise ValueError(f"is no NetCDF file of a known version (CDF-{version})")
        records = int(struct.unpack(">I", header.read(4))[0])
        dimensions = [(header.text(), header.number()) for _ in range(header.count_of(DIMENSIONS))]
        attrs = header.attributes()
        count = header.count_of(VARIABLES)
        variables = [header.variable(len(dimensions), OFFSETS[version]) for _ in range(count)]
        end = file.tell()
    return _File(path, attrs, dimensions, _placed(variables, dimensions, records, size, end), size)


def _placed(
    variables: list[_Variable], dimensions: list[tuple[str, int]], records: int, size: int, header: int
) -> tuple[list[_Variable], int]:
    """The variables with their shapes, and the bytes from a record to the next. Raises `ValueError`."""
    if len({one.name for one in variables}) < len(variables):
        raise ValueError("is damaged: two of its variables have one name; copy it again")
    for one in variables:
        one.is_record = bool(one.axes) and dimensions[one.axes[0]][1] == 0
        one.shape = tuple(dimensions[axis][1] for axis in one.axes)
    recorded = [one for one in variables if one.is_record]
    step = recorded[0].row if len(recorded) == 1 else sum(one.row + -one.row % 4 for one in recorded)
    if records == STREAMING:
        start = min((one.begin for one in recorded), default=size)
        records = max(size - start, 0) // step if step else 0
    for one in variables:
        one.shape = (records, *one.shape[1:]) if one.is_record else one.shape
        if 0 in one.shape:
            continue
        if one.begin < header:
            raise ValueError(f"is damaged: '{one.name[:80]}' would begin inside its header; copy it again")
        last = one.begin + (records - 1) * step + one.row if one.is_record else one.begin + one.row
        if last > size:
            raise ValueError(f"{TRUNCATED} ('{one.name[:80]}' ends at byte {last}, the file at {size})")
    return variables, step


class _File(ArrayFile):
    """An open file; its bytes are mapped, and what is read is copied."""

    def __init__(
        self,
        path: Path,
        attrs: dict[str, Any],
        dimensions: list[tuple[str, int]],
        placed: tuple[list[_Variable], int],
        size: int,
    ) -> None:
        super().__init__(str(path), attrs)
        self._bytes: np.memmap | None = np.memmap(path, "u1", "r", shape=(size,))
        variables, self._step = placed
        for one in variables:
            native, axes = one.dtype.newbyteorder("="), [dimensions[axis][0] for axis in one.axes]
            read = self._reader(one)
            self.arrays[one.name] = Array(self, one.name, one.shape, native, read, one.attrs, axes)

    def _reader(self, one: _Variable) -> Any:
        def read(key: Any) -> np.ndarray:
            if 0 in one.shape:
                return np.zeros(one.shape, one.dtype.newbyteorder("="))[key]
            if self._bytes is None:
                raise ValueError("the file is closed")
            inner = [math.prod(one.shape[axis + 1 :]) * one.dtype.itemsize for axis in range(len(one.shape))]
            strides = (self._step, *inner[1:]) if one.is_record else tuple(inner)
            view: np.ndarray = np.ndarray(one.shape, one.dtype, self._bytes, one.begin, strides)
            return np.array(view[key], one.dtype.newbyteorder("="))

        return read

    def close(self) -> None:
        """Let go of the mapped bytes; nothing that was read refers to them."""
        super().close()
        self._bytes = None
