"""The datasets of an HDF5 or NetCDF-4 file: names, shapes, units, and the numbers of the small ones."""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.data import hdf5
from cloudml_tf.errors import DataError

MOST_NUMBERS = 4_000_000  # larger datasets are looked at by their first rows
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True)
class Found:
    """One dataset of numbers."""

    file: Path
    name: str  # its path in the file
    shape: tuple[int, ...]
    units: str
    text: str  # what its attributes say it is
    dims: tuple[str, ...]  # names of its dimensions, "" where they have none
    values: np.ndarray  # unpacked; the first rows of a large one, empty for images

    @property
    def words(self) -> str:
        """The last part of the name as plain words: solarZenith and solar_zenith are both "solar zenith"."""
        return plain(self.name.rsplit("/", 1)[-1])

    @property
    def finite(self) -> np.ndarray:
        """The values that are numbers."""
        return self.values[np.isfinite(self.values)]


@dataclass(frozen=True)
class FileContent:
    """A file and its datasets."""

    path: Path
    datasets: tuple[Found, ...]
    attributes: dict[str, str]  # root attributes that are text

    def get(self, name: str) -> Found | None:
        """A dataset by its path."""
        return next((found for found in self.datasets if found.name == name), None)


def plain(name: str) -> str:
    """CamelCase, underscores and digits cut into lower-case words."""
    cut = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    cut = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", cut)
    cut = re.sub(r"([A-Za-z])(\d)", r"\1 \2", cut)
    return " ".join(re.split(r"[^A-Za-z0-9]+", cut)).strip().lower()


def read_content(path: Path) -> FileContent:
    """All datasets of numbers. Raises `DataError` for a file that cannot be read, or that has none."""
    names: list[str] = []
    with hdf5.open_file(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        datasets = tuple(_describe(file, path, name) for name in names if _has_numbers(file[name]))
        attributes = {key: hdf5.text(file.attrs, key) for key in file.attrs}
    if not datasets:
        raise DataError(f"{path}: it holds no dataset of numbers. Give camera, lidar and navigation files.")
    return FileContent(path, datasets, attributes)


def _has_numbers(item: h5py.Dataset) -> bool:
    pure_dimension = hdf5.text(item.attrs, "NAME").startswith(DIMENSION_ONLY)
    return item.dtype.kind in "iuf" and item.ndim >= 1 and item.size > 0 and not pure_dimension


def _describe(file: h5py.File, path: Path, name: str) -> Found:
    item = file[name]
    values = np.zeros(0)
    if item.ndim <= 2:
        rows = max(MOST_NUMBERS // max(int(np.prod(item.shape[1:])), 1), 1)
        try:
            hdf5.dataset(file, name)
            values = hdf5.unpack(item[:rows], item.attrs)
        except OSError as error:
            raise hdf5.damaged(file, name, error) from None
    text = " ".join(hdf5.text(item.attrs, key) for key in ("standard_name", "long_name", "description", "comment"))
    return Found(path, name, item.shape, hdf5.text(item.attrs, "units").strip(), plain(text), _dims(item), values)


def _dims(item: h5py.Dataset) -> tuple[str, ...]:
    """Names of the attached dimension scales, as NetCDF-4 has them."""
    return tuple(plain(str(dim[0].name).rsplit("/", 1)[-1]) if len(dim) else plain(str(dim.label)) for dim in item.dims)
