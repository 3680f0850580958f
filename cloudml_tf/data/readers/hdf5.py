"""Read HDF5, NetCDF-4, which is HDF5 inside, and the `formats` beside them, with errors that name the file, the dataset
and the remedy.

A file may be damaged or malicious. What it asks for is checked before it is granted: see `Limits`.
"""

import contextlib
import difflib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.config.data import Limits
from cloudml_tf.data.readers import causes, formats
from cloudml_tf.data.readers.formats import frames as frame_files
from cloudml_tf.data.readers.formats import matlab
from cloudml_tf.data.readers.formats.parts import Parts
from cloudml_tf.data.readers.packing import may_pack, packing_of, unpack
from cloudml_tf.utils.errors import DataError

SHORTENED = 0.8
NEAR, AS_NEAR = 0.4, 0.2  # similarity of a name worth proposing, and how far below the best one's
MOST_NAMES, DEEPEST = 2000, 32  # limits of the list of a file's datasets
MOST_LINKS = 16  # soft links in a chain
UNSUSPICIOUS_BYTES = 2**24  # smaller datasets may have any compression ratio
LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


class File(h5py.File):
    """A file that is open for reading, with its limits."""

    limits = Limits()
    opening: Callable[[Path], None] | None = None  # called with each path before it is opened


@contextlib.contextmanager
def open_file(path: Path, limits: Limits | None = None) -> Iterator[File]:
    """Open a file for reading. Raises `DataError` for a missing, truncated or other kind of file."""
    if frame_files.is_series(path):
        with frame_files.open_series(path, limits or Limits(), sys.modules[__name__]) as series:
            yield series  # type: ignore[misc]
        return
    if not path.is_file():
        problem = "is a folder, a device or a pipe, not a file" if path.exists() else "no such file"
        raise DataError(f"{path}: {problem}.")
    if File.opening is not None:
        File.opening(path)
    file: Any
    try:
        file = File(path, "r")
    except LIBRARY_ERRORS as error:
        file = formats.open_other(path)
        if file is None:
            raise DataError(f"{path}: {causes.not_opened(path, error)} ({causes.first_line(error)}).") from None
    file.limits = limits or Limits()
    with file:
        yield file


@contextlib.contextmanager
def library(item: Any, name: str) -> Iterator[None]:
    """Turn the errors of h5py in the block, and of nothing else, into a `DataError` that names their cause."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise DataError(f"{item.file.filename}: {causes.not_read(item.file, name, error)}.") from None


def text(item: Any, key: str) -> str:
    """A text attribute of a file, group or dataset; "" where it is missing."""
    with library(item, f"{item.name}, attribute {key}"):
        value = item.attrs.get(key, "")
    value = "" if isinstance(value, h5py.Empty) else value
    value = np.ravel(value)[0] if isinstance(value, np.ndarray) and value.size else value
    value = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return value.encode(errors="replace").decode()  # h5py makes lone surrogates of invalid UTF-8


def unit(item: Any) -> str:
    """The unit that a dataset writes, as `units`, `unit`, `Units` or `UNITS`; "" where it has none.

    Raises `DataError` where two contradict each other.
    """
    with library(item, f"{item.name}, its attributes"):
        names = [key for key in item.attrs if key.lower() in ("units", "unit")]
    found = {text(item, key).strip("\x00 ") for key in names} - {""}
    if len(found) > 1:
        shown = " and ".join(f"'{_plain(one)}'" for one in sorted(found))
        raise DataError(f"{item.file.filename}: '{item.name}' has two units, {shown}. Remove the wrong one.")
    return found.pop() if found else ""


def packing(item: h5py.Dataset) -> dict[str, Any]:
    """The attributes that describe how a dataset is packed. Raises `ValueError` where they are invalid."""
    with library(item, f"{item.name}, its attributes"):
        found = {key: item.attrs[key] for key in item.attrs if may_pack(key)}
    return packing_of(found)


def find(file: h5py.File, name: str) -> Any:
    """The item at a path, None where there is none."""
    return _found(file, name)


def has(file: h5py.File, name: str) -> bool:
    """Whether the file has an item of that name."""
    return name in file if isinstance(file, formats.ArrayFile) else _found(file, name) is not None


def parts(file: h5py.File) -> Iterator[Any]:
    """The files that are read as one, each open until the next is asked for; of one file itself."""
    return file.each() if isinstance(file, Parts) else iter((file,))


def rows_of_parts(file: h5py.File, name: str) -> tuple[int, ...]:
    """How many rows of a dataset along time lie in each part; of one file all of them; none of what has no rows."""
    if isinstance(file, Parts):
        return file.lengths(name)
    shape = getattr(_found(file, name), "shape", None)  # a group has none
    return () if shape is None else (math.prod(shape),)


def dataset(file: h5py.File, name: str, rank: int | tuple[int, ...] | None = None, field: str = "") -> h5py.Dataset:
    """A numeric dataset of the given rank. `field` is the configuration field that names it, for the error."""
    where = f" (configuration field {field})" if field else ""
    found = _found(file, name)
    if not isinstance(found, h5py.Dataset | formats.Array):
        raise DataError(f"{file.filename}: no dataset '{name}'{where}. {near_names(file, name)}")
    with library(file, name):
        dtype, shape = found.dtype, found.shape
    if dtype.kind not in "iuf" or shape is None or matlab.no_numbers(found):
        what = matlab.no_numbers(found) or f"type {dtype}"
        raise DataError(f"{file.filename}: '{name}'{where} must hold numbers. Received: {what}.")
    try:
        packing(found)
    except ValueError as error:
        raise DataError(f"{file.filename}: '{name}'{where}: {error}. Fix the file.") from None
    ranks = (rank,) if isinstance(rank, int) else rank
    if ranks is not None and len(shape) not in ranks and not (1 in ranks and is_vector(shape)):
        expected = " or ".join(str(r) for r in ranks)
        raise DataError(f"{file.filename}: '{name}'{where} must have {expected} dimensions. Received: shape {shape}.")
    if isinstance(found, h5py.Dataset):  # others are held against the size of the file as it is opened
        _check_storage(file, name, found)
    return found


class FramesLast:
    """A dataset (row, column, frame) that is read as (frame, row, column)."""

    def __init__(self, item: Any) -> None:
        self.item, self.attrs, self.name, self.file, self.dtype = item, item.attrs, item.name, item.file, item.dtype
        self.shape = (item.shape[2], *item.shape[:2])
        self.chunks = item.chunks and (item.chunks[2], *item.chunks[:2])

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = (*key, *[slice(None)] * 3)[:3] if isinstance(key, tuple) else (key, slice(None), slice(None))
        found = np.asarray(self.item[(*rest, first)])
        return found if isinstance(first, int | np.integer) else np.moveaxis(found, -1, 0)


def images(file: h5py.File, name: str, field: str, frames_last: bool = False) -> Any:
    """A dataset (frame, row, column), or (row, column, frame) read so, whose frames and chunks are small enough to be
    read at once."""
    found = dataset(file, name, 3, field)
    found = FramesLast(found) if frames_last else found
    frame = math.prod(found.shape[1:]) * max(found.dtype.itemsize, 4)  # as stored, or as float32
    chunk = math.prod(found.chunks) * found.dtype.itemsize if found.chunks else 0
    _check_size(file, name, max(frame, chunk) / 2**20, "limits.read_mb", "MB per frame or chunk")
    return found


def read(file: h5py.File, name: str, rank: int | tuple[int, ...], field: str = "") -> np.ndarray:
    """Read a whole small dataset as float64, unpacked, NaN where filled."""
    found = dataset(file, name, rank, field)
    if 0 in found.shape[1:]:
        raise DataError(f"{file.filename}: '{name}' is empty. Received: shape {found.shape}. Choose another dataset.")
    count = max(math.prod(found.shape), math.prod(found.chunks or ()))
    _check_size(file, name, count, "limits.column_values", "numbers")
    with library(file, name):
        raw = np.asarray(found[()])
    ranks = (rank,) if isinstance(rank, int) else rank
    if raw.ndim == 2 and 2 not in ranks:
        raw = raw.ravel()  # a vector as MATLAB writes it
    return unpack(raw, packing(found))


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of a vector: MATLAB writes (1, N) or (N, 1)."""
    return len(shape) == 1 or (len(shape) == 2 and 1 in shape)


def first_frames(path: Path, name: str, count: int, frames_last: bool = False) -> np.ndarray:
    """The first frames of a dataset of images, unpacked; none where they cannot be read."""
    try:
        with open_file(path) as file:
            item = images(file, name, "", frames_last)
            with library(file, name):
                raw = np.asarray(item[:count])
            return unpack(raw, packing(item))
    except (DataError, ValueError):
        return np.zeros((0, 0, 0))


def _check_size(file: h5py.File, name: str, asked: float, key: str, unit: str) -> None:
    most = getattr(file.limits, key.removeprefix("limits."))
    if asked > most:
        raise DataError(
            f"{file.filename}: '{name}' declares {asked:.4g} {unit}, more than data.{key} {most:g} allows. Choose "
            f"another dataset, or set data.{key} higher if you trust the file."
        )


def _check_storage(file: h5py.File, name: str, item: h5py.Dataset) -> None:
    """Refuse data stored in other files, and a few bytes that would expand to very many. Raises `DataError`."""
    limits: Limits = file.limits
    with library(file, name):
        virtual = item.is_virtual
        elsewhere = [entry[0] for entry in item.external or ()]
        elsewhere += [source.file_name for source in item.virtual_sources()] if virtual else []
        stored = item.id.get_storage_size()
        lacking = causes.missing_filter(item)
    if lacking:
        raise DataError(f"{file.filename}: '{name}' {lacking}.")
    elsewhere = [str(path) for path in elsewhere if path != "."]
    if elsewhere:
        _check_elsewhere(file, name, elsewhere[0])
    declared = math.prod(item.shape) * item.dtype.itemsize
    if declared > max(UNSUSPICIOUS_BYTES, limits.expansion * stored) and not elsewhere:
        raise DataError(
            f"{file.filename}: '{name}' declares {declared / 2**20:.4g} MB, but the file holds {stored / 2**20:.3g} MB "
            f"of it, a ratio above data.limits.expansion {limits.expansion:g}: it was never written, or made to fill "
            "memory. Copy the file again."
        )


def _check_elsewhere(file: h5py.File, name: str, path: str) -> None:
    if not file.limits.other_files:
        raise DataError(
            f"{file.filename}: '{name}' lies in another file, '{path}', which a flight file may not read. Copy the "
            "data into the file (`h5repack`), or set data.limits.other_files to true if you trust it."
        )


def _found(file: h5py.File, name: str) -> Any:
    """The item at a path, None where there is none; links are followed here, so that they cannot leave the file or
    loop."""
    if isinstance(file, formats.ArrayFile):
        return file.find(name)
    with library(file, "/"):
        root = file["/"]
    place, steps, left = root, name.split("/")[::-1], MOST_LINKS
    while steps:
        step = steps.pop()
        if step in ("", "."):
            continue
        if not isinstance(place, h5py.Group) or "\x00" in step:
            return None
        with library(file, name):
            link = place.get(step, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            left -= 1
            if left < 0:
                raise DataError(f"{file.filename}: the links of '{name}' form a loop. Fix the file.")
            place = root if link.path.startswith("/") else place
            steps += link.path.split("/")[::-1]
            continue
        if isinstance(link, h5py.ExternalLink):
            _check_elsewhere(file, name, link.filename)
        with library(file, name):
            place = place[step]
    return place


def names(file: h5py.File) -> list[str]:
    """The datasets of a file by path, in order, up to `MOST_NAMES` and `DEEPEST`. Links are not followed."""
    if isinstance(file, formats.ArrayFile):
        return sorted(file)[:MOST_NAMES]
    found: list[str] = []
    seen: set[Any] = set()  # a group may contain itself

    def look(group: h5py.Group, prefix: str, depth: int) -> None:
        for key in sorted(group):
            if len(found) >= MOST_NAMES:
                return
            if not isinstance(group.get(key, getlink=True), h5py.HardLink) or key in matlab.INTERNAL:
                continue
            kind = group.get(key, getclass=True)
            if kind is h5py.Dataset:
                found.append(prefix + key)
            elif kind is h5py.Group and depth < DEEPEST:
                child = group[key]
                address = h5py.h5o.get_info(child.id).addr
                if address not in seen and not matlab.is_sparse(child):
                    seen.add(address)
                    look(child, f"{prefix}{key}/", depth + 1)

    with library(file, "/"):
        look(file, "", 1)
    return found


def near_names(file: h5py.File, name: str) -> str:
    """The datasets with the most similar names, without their groups: "Nearest: 'saa', 'sza'."."""
    known = names(file)
    alike = {key: _likeness(_last(name), _last(key)) for key in known}
    enough = max(NEAR, max(alike.values(), default=0.0) - AS_NEAR)
    near = sorted((key for key in known if alike[key] >= enough), key=lambda key: -alike[key])[:3]
    if near:
        return f"Nearest: {', '.join(repr(_plain(key)) for key in near)}."
    return f"It has: {', '.join(map(_plain, known[:12])) or 'no dataset'}."


def meant_name(file: h5py.File, name: str) -> str:
    """The dataset whose name shortens that of a missing one, as " (perhaps 'lat')"; nothing where there is none."""
    short = [key for key in names(file) if len(_last(key)) > 1 and _last(name).startswith(_last(key))]
    return f" (perhaps {_plain(short[0])!r})" if short else ""


def _plain(name: str) -> str:
    """Shorten a name, and remove the lone surrogates that h5py makes of invalid UTF-8."""
    return name[:200].encode(errors="replace").decode()


def _likeness(first: str, second: str) -> float:
    """Similarity of two names, 0 to 1; a shortening, lat for latitude, is very similar."""
    first, second = first[:200], second[:200]
    short, long = sorted((first, second), key=len)
    alike = difflib.SequenceMatcher(None, first, second).ratio()
    return max(alike, SHORTENED) if len(short) > 1 and long.startswith(short) else alike


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower()
