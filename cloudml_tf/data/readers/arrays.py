"""Check the arrays of a run folder before loading them: numbers only, no code, and no more bytes than the file holds.

Weights are HDF5 files that Keras reads; everything else is .npz. A pickled object, a link into another file, and a few
bytes that claim to be terabytes are refused.
"""

import math
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.data.readers import hdf5
from cloudml_tf.utils.errors import DataError, RunError
from cloudml_tf.utils.files import whole_file

MOST_EXPANSION = 1100.0  # largest compression ratio: zlib reaches 1032
_DAMAGED = (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path, what: str = "file") -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises `RunError` where it is damaged, or holds anything but arrays of numbers."""
    try:
        _check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGED as error:
        raise RunError(f"{path}: the {what} is damaged ({error}). Start the run again.") from None


def write_npz(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> None:
    """Write arrays as a compressed .npz file, whole or not at all; those without a name are called arr_0, arr_1, …"""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, *arrays, **named)  # type: ignore[arg-type]


def _check_npz(path: Path) -> None:
    """Raise `ValueError` for an array that declares more than its file holds."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > MOST_EXPANSION * max(entry.compress_size, 1):
                raise ValueError(f"{entry.filename} expands to {entry.file_size} bytes")
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.hasobject:
                raise ValueError(f"{entry.filename} holds Python objects, which are not loaded")
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"{entry.filename} declares the shape {shape}, but holds {entry.file_size} bytes")


def check_weights(path: Path) -> None:
    """Refuse a weights file with links to other files, or that declares more than it holds. Raises `RunError`."""
    try:
        with hdf5.open_file(path) as file:
            declared = _declared(file, file, set())
    except DataError as error:
        raise RunError(f"{path}: does not fit the run's configuration or is damaged ({error}).") from None
    if declared > 2 * path.stat().st_size + hdf5.UNSUSPICIOUS_BYTES:
        raise RunError(f"{path}: declares {declared} bytes of weights, but does not hold them; it is not loaded.")


def _declared(file: h5py.File, group: h5py.Group, seen: set[int]) -> int:
    """Bytes of all datasets below a group."""
    total = 0
    with hdf5.library(file, str(group.name)):
        links = {key: group.get(key, getlink=True) for key in group}
        address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        return 0
    seen.add(address)
    for key, link in links.items():
        name = f"{group.name}/{key}"
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"'{name}' is a link, which weights must not have")
        with hdf5.library(file, name):
            item = group[key]
        if isinstance(item, h5py.Group):
            total += _declared(file, item, seen)
        elif isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf":
            hdf5.dataset(file, name)
            total += math.prod(item.shape or (0,)) * item.dtype.itemsize
    return total
