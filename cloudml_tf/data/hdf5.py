"""Reading HDF5 with errors that name the file, the dataset and the remedy."""

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.errors import DataError


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open for reading. Raises `DataError` for a missing, truncated or other kind of file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        truncated = "truncated" in str(error)
        reason = "is truncated; copy it again" if truncated else "is not an HDF5 file"
        raise DataError(f"{path}: {reason} ({str(error).splitlines()[0]}).") from None
    try:
        yield file
    finally:
        file.close()


def dataset(file: h5py.File, name: str, rank: int | tuple[int, ...] | None = None, field: str = "") -> h5py.Dataset:
    """A numeric dataset of the given rank. `field` is the configuration field that names it, for the error."""
    where = f" (configuration field {field})" if field else ""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        known: list[str] = []
        file.visititems(lambda key, item: known.append(key) if isinstance(item, h5py.Dataset) else None)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Nearest: '{near[0]}'." if near else f"It has: {', '.join(known[:12]) or 'no dataset'}."
        raise DataError(f"{file.filename}: no dataset '{name}'{where}. {hint}")
    if found.dtype.kind not in "iuf":
        raise DataError(f"{file.filename}: '{name}'{where} must hold numbers. Received: type {found.dtype}.")
    ranks = (rank,) if isinstance(rank, int) else rank
    if ranks is not None and found.ndim not in ranks:
        expected = " or ".join(str(r) for r in ranks)
        raise DataError(
            f"{file.filename}: '{name}'{where} must have {expected} dimensions. Received: shape {found.shape}."
        )
    return found


def unpack(raw: np.ndarray, attributes: Any, dtype: str = "float64") -> np.ndarray:
    """Packed numbers to values as CF has it: fill to NaN, then scale_factor and add_offset. Any shape, unchanged.

    -9999 counts as fill too: the lidar's files use it without saying so.
    """
    fills = [float(np.ravel(attributes[key])[0]) for key in ("_FillValue", "missing_value") if key in attributes]
    if raw.dtype.kind != "u":
        fills.append(-9999.0)
    missing = np.isin(raw, fills) if fills else None  # before the cast: float32 rounds large integers
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and a frame with such pixels is left out
        values = raw.astype(dtype)
    scale, offset = (float(np.ravel(attributes.get(key, d))[0]) for key, d in (("scale_factor", 1), ("add_offset", 0)))
    if scale != 1.0 or offset != 0.0:
        values = (values * scale + offset).astype(dtype)
    if missing is not None and missing.any():
        values[missing] = np.nan
    return values


def read(file: h5py.File, name: str, rank: int | tuple[int, ...], field: str = "") -> np.ndarray:
    """A whole small dataset as float64, unpacked, NaN where filled."""
    found = dataset(file, name, rank, field)
    try:
        return unpack(found[()], found.attrs)
    except OSError as error:
        raise damaged(file, name, error) from None


def damaged(file: h5py.File, name: str, error: Exception) -> DataError:
    """The error for a dataset that exists and cannot be read."""
    reason = str(error).splitlines()[0]
    return DataError(f"{file.filename}: '{name}' cannot be read, the file is damaged ({reason}); copy it again.")
