"""List the datasets of an HDF5 or NetCDF-4 file: names, shapes, units, and the values of the small ones."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.formats import matlab
from cloudml_tf.data.readers.packing import unpack
from cloudml_tf.utils.errors import DataError

MOST_NUMBERS = 4_000_000  # of larger datasets only the first rows are read
MOST_SKIPPED = 4  # named in a message
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True)
class Found:
    """One numeric dataset."""

    file: Path
    name: str  # its path in the file
    shape: tuple[int, ...]
    units: str
    text: str  # description from its attributes
    dims: tuple[str, ...]  # names of its dimensions, "" where they have none
    values: np.ndarray  # unpacked; the first rows of a large one, empty for images
    calendar: str = ""
    type: str = ""  # float32
    frames_last: bool = False  # (row, column, frame) in the file; shape and dims have the frame first

    @property
    def words(self) -> str:
        """The last part of the name as plain words: solarZenith and solar_zenith are both "solar zenith"."""
        return plain(self.name.rsplit("/", 1)[-1])

    @property
    def finite(self) -> np.ndarray:
        """The values that are finite."""
        return self.values[np.isfinite(self.values)]


@dataclass(frozen=True)
class FileContent:
    """A file and its datasets."""

    path: Path
    datasets: tuple[Found, ...]
    attributes: dict[str, str]  # root attributes that are text
    skipped: tuple[str, ...] = ()  # datasets that cannot be read, each with the reason
    notes: tuple[str, ...] = ()  # what a person should know of the file
    parts: tuple[Path, ...] = ()  # the files of which it is made, where `path` is a pattern

    def rows(self, name: str) -> int:
        """The length of the dataset at a path; 0 where there is none."""
        return next((found.shape[0] for found in self.datasets if found.name == name), 0)


def plain(name: str) -> str:
    """Split CamelCase, underscores and digits into lower-case words."""
    cut = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    cut = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", cut)
    cut = re.sub(r"([A-Za-z])(\d)", r"\1 \2", cut)
    return " ".join(re.split(r"[^A-Za-z0-9]+", cut)).strip().lower()


def read_content(path: Path) -> FileContent:
    """List all numeric datasets. Raises `DataError` for a file that cannot be read, or that has none."""
    with hdf5.open_file(path) as file:
        datasets, skipped = _readable(file, path)
        with hdf5.library(file, "the attributes"):
            known = list(file.attrs)
        attributes = {key: hdf5.text(file, key) for key in known}
        notes = tuple(getattr(file, "notes", ()))
    if not datasets:
        seen = f" that can be read: {'; '.join(skipped[:MOST_SKIPPED])}" if skipped else ""
        raise DataError(f"{path}: it holds no numeric dataset{seen}. Give camera, lidar and navigation files.")
    return FileContent(
        path, tuple(_frame_first(found, datasets) for found in datasets), attributes, tuple(skipped), notes
    )


def _readable(file: h5py.File, path: Path) -> tuple[list[Found], list[str]]:
    """The numeric datasets, and those that cannot be read, with the reason: one that nobody needs costs nothing."""
    datasets, skipped = [], []
    for name in hdf5.names(file):
        try:
            if _has_numbers(file, name):
                datasets.append(_describe(file, path, name))
            elif file[name].shape is None or file[name].dtype.kind == "V":
                what = "is null" if file[name].shape is None else "holds records; write each field as a dataset"
                skipped.append(f"'{name}' {what}")
        except DataError as error:
            skipped.append(str(error).removeprefix(f"{path}: ").rstrip("."))
    return datasets, skipped


def _frame_first(found: Found, datasets: Sequence[Found]) -> Found:
    """Images whose last axis alone has as many entries as there are times, with that axis first."""
    if len(found.shape) != 3:
        return found
    rising = {len(one.values) for one in datasets if len(one.shape) == 1 and len(one.values) > 2 and _rises(one.values)}
    if found.shape[0] in rising or found.shape[2] not in rising:
        return found
    dims = (found.dims[2], *found.dims[:2]) if len(found.dims) == 3 else found.dims
    return replace(found, shape=(found.shape[2], *found.shape[:2]), dims=dims, frames_last=True)


def _rises(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).mean() > 0.8)


def _has_numbers(file: h5py.File, name: str) -> bool:
    with hdf5.library(file, name):
        kind, shape = file[name].dtype.kind, file[name].shape
    pure_dimension = hdf5.text(file[name], "NAME").startswith(DIMENSION_ONLY)
    no_numbers = pure_dimension or bool(matlab.no_numbers(file[name]))
    return kind in "iuf" and bool(shape) and math.prod(shape) > 0 and not no_numbers


def _describe(file: h5py.File, path: Path, name: str) -> Found:
    item = hdf5.dataset(file, name)
    values = np.zeros(0)
    if item.ndim <= 2:
        columns = math.prod(item.shape[1:])
        if columns > MOST_NUMBERS:
            raise DataError(f"{path}: '{name}' has {columns} columns; no instrument writes rows this long.")
        with hdf5.library(file, name):
            raw = np.asarray(item[: max(MOST_NUMBERS // columns, 1)])
        values = unpack(raw, hdf5.packing(item))
    text = " ".join(hdf5.text(item, key) for key in ("standard_name", "long_name", "description", "comment"))
    shape = item.shape
    if len(shape) == 2 and hdf5.is_vector(shape) and max(shape) > 1:  # as MATLAB writes vectors
        shape, values = (max(shape),), values.ravel()
    dims = _dims(file, item)
    return Found(
        path, name, shape, hdf5.unit(item), plain(text), dims, values, hdf5.text(item, "calendar"), type=item.dtype.name
    )


def _dims(file: h5py.File, item: h5py.Dataset) -> tuple[str, ...]:
    """Names of the attached dimension scales, as NetCDF-4 has them."""
    with hdf5.library(file, f"{item.name}, its dimensions"):
        names = [str(dim[0].name).rsplit("/", 1)[-1] if len(dim) else str(dim.label) for dim in item.dims]
    return tuple(map(plain, names))
