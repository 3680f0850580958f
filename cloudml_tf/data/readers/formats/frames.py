"""A camera that writes one file a frame: a folder, or a pattern such as `cam/*.png`, as one file of images and times.
Files of several rows each are `parts`.

Every file is looked at once, for its channels, its packing and its time; images are read file by file, when they are
asked for. What does not fit the others is left out, counted and named.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cloudml_tf.config.data import Limits
from cloudml_tf.data.readers.formats import pictures
from cloudml_tf.data.readers.formats.base import Array, ArrayFile
from cloudml_tf.data.readers.formats.calibration import KNMI, ODIM, packing_beside
from cloudml_tf.data.readers.formats.dates import moment_in, moment_of_name
from cloudml_tf.data.readers.formats.parts import Parts, is_clock, open_parts
from cloudml_tf.data.readers.packing import may_pack, packing_of
from cloudml_tf.data.readers.time_units import parse, to_utc
from cloudml_tf.utils.errors import DataError

OTHERS = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".cdf", ".mat", ".ict")
CLOCKS = ("time", "Time", "TIME")
SMALLEST_SIDE = 4
LOOKED_AT = 3  # files that tell a camera of one file a frame from parts of a flight
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable"
TIMES = (  # attributes that are the time of a file, the best first
    "product_datetime_start", "time_coverage_start", "start_time", "DateTimeOriginal", "acquisition_time", "datetime",
    "date_time", "timestamp", "time_stamp", "time", "date",
)  # fmt: skip
PLACES = ("", "overview", "what", "image1", "dataset1/what")  # groups that have them
NAMED = ("image_geo_parameter", "quantity", "long_name", "standard_name", "title", "image_product_name")
UNREADABLE, SIZE, UNTIMED = "whose file cannot be read", "unlike the others", "whose file has no time"


@dataclass(frozen=True)
class Frame:
    """One file: its images by name as (shape, type, attributes), its time, and what says so."""

    path: Path
    images: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]]
    time_s: float | None
    source: str

    @property
    def layout(self) -> str:
        """What all files of a camera share: names, shapes, types and packing."""
        parts = []
        for name, (shape, dtype, attrs) in sorted(self.images.items()):
            packed = {key: np.ravel(value).tolist() for key, value in attrs.items() if may_pack(key)}
            parts.append(f"'{name}' {' x '.join(map(str, shape))} {dtype}{packed or ''}")
        return ", ".join(parts)


@dataclass
class Index:
    """The frames of a series, and the files that are left out, by the reason."""

    frames: list[Frame]
    left_out: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def leave(self, path: Path, kind: str, why: str) -> None:
        """Leave a file out."""
        self.counts[f"frames {kind}"] += 1
        self.left_out.append(f"{path.name} {why.rstrip('.')}")


def is_series(path: Path) -> bool:
    """Whether a path names several files: a folder, or a pattern."""
    return path.is_dir() or (any(sign in path.name for sign in "*?") and not path.exists())


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of a series in the order of their names. Raises `ValueError` for none, or several kinds."""
    found = sorted(one for one in (path.iterdir() if path.is_dir() else path.parent.glob(path.name)) if one.is_file())
    if not path.is_dir():
        if not found:
            raise ValueError("matches no file; name a folder, or a pattern such as cam/*.png")
        return tuple(found)
    kinds = Counter(one.suffix.lower() for one in found if one.suffix.lower() in (*pictures.SUFFIXES, *OTHERS))
    if len(kinds) != 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
        example = f"{path}/*{next(iter(kinds), '.png')}"
        raise ValueError(
            f"needs files of one kind, an image or a part of a flight each. Received: {shown}. Name them by a pattern, "
            f"{example}"
        )
    return tuple(one for one in found if one.suffix.lower() in kinds)


def open_series(path: Path, limits: Limits, hdf5: ModuleType) -> "Series | Parts":
    """Open the files of a path as one. `hdf5` is the module that opens each of them, which imports this one.

    Raises `DataError`.
    """
    try:
        paths = files_of(path)
        if not _of_one_frame(paths, limits, hdf5):
            return open_parts(paths, path, limits, hdf5)
        states = tuple((state.st_size, state.st_mtime_ns) for state in (one.stat() for one in paths))
        index = _index(paths, states, limits, hdf5)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: {error}.") from None
    return Series(path, index, limits, hdf5)


def _of_one_frame(paths: Sequence[Path], limits: Limits, hdf5: ModuleType) -> bool:
    """Whether files hold one image each: the first few that can be read. A part of a flight may have one row too."""
    seen = 0
    for path in paths:
        if path.suffix.lower() in pictures.SUFFIXES or seen == LOOKED_AT:
            return True
        with contextlib.suppress(DataError), hdf5.open_file(path, limits) as file:
            shapes = {name: getattr(file[name], "shape", None) or () for name in hdf5.names(file)}
            if not _is_frame(shapes):
                return False
            seen += 1
    return True


def _is_frame(shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a file with datasets of these shapes holds one image: it has one time, or no row of times at all."""
    if any(shapes.get(name) in ((), (1,)) for name in CLOCKS):
        return True
    images = [sides for sides in map(_sides, shapes.values()) if len(sides) == 2 and min(sides) >= SMALLEST_SIDE]
    return bool(images) and not any(is_clock(name, shape) for name, shape in shapes.items())


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image, (row, column) or (1, row, column), without its frame."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


@functools.lru_cache(maxsize=4)
def _index(paths: tuple[Path, ...], states: tuple[Any, ...], limits: Limits, hdf5: ModuleType) -> Index:
    """Look at every file. Raises `ValueError` where fewer than half of them are frames."""
    index = Index([])
    for path in paths:
        try:
            frame = _picture(path, limits) if path.suffix.lower() in pictures.SUFFIXES else _other(path, limits, hdf5)
        except (DataError, ValueError) as error:
            index.leave(path, UNREADABLE, str(error).removeprefix(f"{path}: "))
            continue
        if frame.time_s is None:
            index.leave(path, UNTIMED, "has no time in its attributes or its name (…_20240603_120000.png)")
        else:
            index.frames.append(frame)
    usual = Counter(frame.layout for frame in index.frames).most_common(1)
    for frame in index.frames:
        if frame.layout != usual[0][0]:
            index.leave(frame.path, SIZE, f"has {frame.layout}, and most have {usual[0][0]}")
    index.frames = [frame for frame in index.frames if frame.layout == usual[0][0]]
    if 2 * len(index.frames) < len(paths):
        raise ValueError(
            f"{len(index.frames)} of its {len(paths)} files are frames of a camera: {'; '.join(index.left_out[:3])}"
        )
    return index


def _picture(path: Path, limits: Limits) -> Frame:
    found, taken, source = pictures.probe(path, limits.read_mb)
    images: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]] = {
        name: (shape, dtype, {"long_name": f"image, {name}" if name != "image" else "image"})
        for name, (shape, dtype) in found.items()
    }
    return _timed(path, images, taken, source)


def _timed(path: Path, images: dict[str, Any], time_s: float | None, source: str) -> Frame:
    """A frame with its own time, or that in its name."""
    if time_s is None:
        time_s, source = moment_of_name(path.stem), "the files' names"
    return Frame(path, images, time_s, source)


def _other(path: Path, limits: Limits, hdf5: ModuleType) -> Frame:
    """A file of HDF5 or NetCDF with an image."""
    with hdf5.open_file(path, limits) as file:
        images = {}
        for name in hdf5.names(file):
            sides = _sides(getattr(file[name], "shape", None) or ())
            if len(sides) == 2 and min(sides) >= SMALLEST_SIDE:
                item = hdf5.dataset(file, name)
                images[name] = (tuple(sides), item.dtype.str, _attributes(file, item, name, hdf5))
        if not images:
            raise ValueError("holds no image (row, column)")
        time_s, source = _time(file, hdf5)
    return _timed(path, images, time_s, source)


def _attributes(file: Any, item: Any, name: str, hdf5: ModuleType) -> dict[str, Any]:
    """How an image is packed, by its own attributes or those of the group beside it; its unit and its name."""
    found = dict(hdf5.packing(item))
    parent = name.rpartition("/")[0]
    said = [hdf5.text(item, key) for key in NAMED]
    for group in (KNMI, ODIM, ""):
        place = "/".join(filter(None, (parent, group)))
        if not place or not hdf5.has(file, place):
            continue
        attributes = dict(file[place].attrs)
        said += [hdf5.text(file[place], key) for key in NAMED]
        beside = packing_beside(group, attributes) if group else {}
        if beside and found:
            raise ValueError(f"has two packings of '{name}', its own and that of '{place}'; remove the wrong one")
        found |= beside
    packing_of(found)
    return {**found, "units": hdf5.unit(item), "long_name": " ".join(dict.fromkeys(filter(None, said)))}


def _time(file: Any, hdf5: ModuleType) -> tuple[float | None, str]:
    """The time of a file by a dataset or an attribute. Raises `ValueError` for one that is not understood."""
    for name in CLOCKS:
        if not hdf5.has(file, name) or hdf5.text(file[name], "NAME").startswith(DIMENSION_ONLY):
            continue
        if getattr(file[name], "shape", None) in ((), (1,)):
            unit = hdf5.unit(file[name])
            counts = parse(unit, hdf5.text(file[name], "calendar"), name) if unit else None
            if counts is None or counts.since_s is None:
                raise ValueError(f"has a '{name}' without a unit such as 'seconds since 1970-01-01'")
            seconds = np.ravel(np.asarray(file[name][()], "float64")) * counts.unit_s
            return float(to_utc(seconds, counts, counts.since_s)[0]), f"'{name}'"
    for place, key, written in _written(file, hdf5):
        moment = moment_in(written)
        if moment is not None:
            return moment, f"'{key}'" + (f" of '{place}'" if place else "")
        if key not in ("time", "date"):
            raise ValueError(f"has a time that is not understood: attribute {key} '{written[:60]}'")
    return None, ""


def _written(file: Any, hdf5: ModuleType) -> Iterator[tuple[str, str, str]]:
    """The attributes that may be the time, as (group, attribute, text); ODIM's date and time are one text."""
    for place in PLACES:
        if place and not hdf5.has(file, place):
            continue
        group = file[place] if place else file
        known = {key.lower(): hdf5.text(group, key) for key in group.attrs}
        for first, second in (("startdate", "starttime"), ("date", "time")):
            if known.get(first) and known.get(second):
                yield place, first, f"{known[first]} {known[second]}"
        for key in TIMES:
            if known.get(key.lower()):
                yield place, key, known[key.lower()]


class Series(ArrayFile):
    """The files of a camera as one: a dataset (frame, row, column) for each of their images, and `time`."""

    def __init__(self, path: Path, index: Index, limits: Limits, hdf5: ModuleType) -> None:
        super().__init__(str(path), {})
        self.limits, self.counts = limits, dict(index.counts)
        self._frames, self._hdf5 = index.frames, hdf5
        for name, (shape, dtype, attrs) in index.frames[0].images.items():
            full = (len(self._frames), *shape)
            self.arrays[name] = Array(self, name, full, dtype, functools.partial(self._read, name), attrs)
        sources = sorted({frame.source for frame in self._frames})
        times = {"units": "seconds since 1970-01-01", "long_name": f"time of each file by {' or '.join(sources)}"}
        self.add("time", np.array([frame.time_s for frame in self._frames], "float64"), times)
        self.notes = [*self._remarks(sources), *_few(index.left_out)]

    def _remarks(self, sources: list[str]) -> list[str]:
        """What a person should know of the times."""
        named = [moment_of_name(frame.path.stem) for frame in self._frames]
        apart = [one - frame.time_s for one, frame in zip(named, self._frames, strict=True) if one and frame.time_s]
        found = [f"times are {' or '.join(sources)}"]
        if apart and max(map(abs, apart)) >= 1.0:
            largest = max(apart, key=abs)
            found.append(f"the names give other times, {largest:+g} s at most; if they are right set time_offset_s")
        return found

    def _read(self, name: str, key: Any) -> np.ndarray:
        """Frames of an image: one file after the other."""
        parts = key if isinstance(key, tuple) else (key,)
        first, *inner = [slice(None) if part is Ellipsis else part for part in parts] or [slice(None)]
        shape, dtype, _ = self._frames[0].images[name]
        if isinstance(first, int | np.integer):
            return self._image(self._frames[first], name)[tuple(inner)]
        chosen = np.arange(len(self._frames))[first]
        empty = np.empty(shape, np.dtype(dtype))[tuple(inner)]
        values = np.empty((len(chosen), *empty.shape), np.dtype(dtype).newbyteorder("="))
        for place, number in enumerate(chosen):
            values[place] = self._image(self._frames[number], name)[tuple(inner)]
        return values

    def _image(self, frame: Frame, name: str) -> np.ndarray:
        """A whole image (row, column). Raises `DataError` naming its file."""
        shape = frame.images[name][0]
        try:
            if frame.path.suffix.lower() in pictures.SUFFIXES:
                found = pictures.read(frame.path, name)
            else:
                with self._hdf5.open_file(frame.path, self.limits) as file:
                    item = self._hdf5.dataset(file, name)
                    with self._hdf5.library(file, name):
                        found = np.asarray(item[()])
            return found.reshape(shape)
        except ValueError as error:
            raise DataError(f"{frame.path}: {error}.") from None


def _few(left_out: list[str]) -> list[str]:
    """The files that are left out, the first ones by name."""
    if not left_out:
        return []
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return [f"{len(left_out)} files are left out: {'; '.join(left_out[:3])}{more}"]
