"""Reading HDF5, and NetCDF-4, which is HDF5 inside, with errors that name the file, the dataset and the remedy."""

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.errors import DataError

NETCDF_FILL = 9.969209968386869e36  # of floats that were never written, where no _FillValue says otherwise
RANGES = ("valid_range", "valid_min", "valid_max")
PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", *RANGES)
SHORTENED = 0.8
NEAR, AS_NEAR = 0.4, 0.2  # likeness of a name worth proposing, and how much less than the best one's
_OTHER_FORMATS = {  # by the first bytes of the file
    b"CDF": "is a NetCDF-3 file; convert it with `nccopy -k nc4 old.nc new.nc`",
    b"\x0e\x03\x13\x01": "is an HDF4 file; convert it with `h4toh5 old.hdf new.h5`",
}


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open for reading. Raises `DataError` for a missing, truncated or other kind of file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "is truncated; copy it again" if "truncated" in str(error) else _other_format(path)
        raise DataError(f"{path}: {reason} ({str(error).splitlines()[0]}).") from None
    try:
        yield file
    finally:
        file.close()


def _other_format(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError:
        return "cannot be opened"
    return next((text for head, text in _OTHER_FORMATS.items() if start.startswith(head)), "is not an HDF5 file")


def text(attributes: Any, key: str) -> str:
    """A text attribute; "" where it is missing."""
    value = attributes.get(key, "")
    value = np.ravel(value)[0] if isinstance(value, np.ndarray) and value.size else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def dataset(file: h5py.File, name: str, rank: int | tuple[int, ...] | None = None, field: str = "") -> h5py.Dataset:
    """A numeric dataset of the given rank. `field` is the configuration field that names it, for the error."""
    where = f" (configuration field {field})" if field else ""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{file.filename}: no dataset '{name}'{where}. {near_names(file, name)}")
    if found.dtype.kind not in "iuf":
        raise DataError(f"{file.filename}: '{name}'{where} must hold numbers. Received: type {found.dtype}.")
    try:
        for key in PACKING:
            _numbers(found.attrs, key)
    except ValueError as error:
        raise DataError(f"{file.filename}: '{name}'{where}: {error}. Mend the file.") from None
    ranks = (rank,) if isinstance(rank, int) else rank
    if ranks is not None and found.ndim not in ranks:
        expected = " or ".join(str(r) for r in ranks)
        raise DataError(
            f"{file.filename}: '{name}'{where} must have {expected} dimensions. Received: shape {found.shape}."
        )
    return found


def near_names(file: h5py.File, name: str) -> str:
    """The datasets with the most similar names, without their groups: "Nearest: 'saa', 'sza'."."""
    known: list[str] = []
    file.visititems(lambda key, item: known.append(key) if isinstance(item, h5py.Dataset) else None)
    alike = {key: _likeness(_last(name), _last(key)) for key in known}
    enough = max(NEAR, max(alike.values(), default=0.0) - AS_NEAR)
    near = sorted((key for key in known if alike[key] >= enough), key=lambda key: -alike[key])[:3]
    if near:
        return f"Nearest: {', '.join(repr(key) for key in near)}."
    return f"It has: {', '.join(known[:12]) or 'no dataset'}."


def _likeness(first: str, second: str) -> float:
    """0 to 1; a shortening, lat for latitude, is very like."""
    short, long = sorted((first, second), key=len)
    alike = difflib.SequenceMatcher(None, first, second).ratio()
    return max(alike, SHORTENED) if len(short) > 1 and long.startswith(short) else alike


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower()


def unpack(raw: np.ndarray, attributes: Any, dtype: str = "float64") -> np.ndarray:
    """Packed numbers to values as CF has it: fill and what is out of the valid range to NaN, then scale and offset.

    -9999 counts as fill too: the lidar's files use it without saying so. Any shape, unchanged.
    """
    fills = [*_numbers(attributes, "_FillValue"), *_numbers(attributes, "missing_value")]
    if raw.dtype.kind != "u":
        fills.append(-9999.0)
    if raw.dtype.kind == "f":
        fills.append(float(raw.dtype.type(NETCDF_FILL)))
    missing = np.isin(raw, fills) if fills else None  # before the cast: float32 rounds large integers
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and a frame with such pixels is left out
        values = raw.astype(dtype)
    scale, offset = ((_numbers(attributes, key) or [d])[0] for key, d in (("scale_factor", 1.0), ("add_offset", 0.0)))
    if scale != 1.0 or offset != 0.0:
        values *= scale
        values += offset
    if missing is not None and missing.any():
        values[missing] = np.nan
    low, high = _valid_range(attributes)
    if low > -np.inf or high < np.inf:
        seen = raw if _range_is_packed(raw, attributes) else values
        values[(seen < low) | (seen > high)] = np.nan
    return values


def _range_is_packed(raw: np.ndarray, attributes: Any) -> bool:
    """A valid range is of the packed numbers, unless these are integers and it has the type of the values (CF 2.5)."""
    kinds = {np.asarray(attributes[key]).dtype.kind for key in RANGES if key in attributes}
    return raw.dtype.kind == "f" or "f" not in kinds


def _numbers(attributes: Any, key: str) -> list[float]:
    """An attribute's numbers, none where it is missing. Raises `ValueError` for a text that is no number."""
    if key not in attributes:
        return []
    try:
        return [float(value) for value in np.ravel(attributes[key])]
    except (TypeError, ValueError):
        raise ValueError(f"attribute {key} must be a number. Received: '{text(attributes, key)}'") from None


def _valid_range(attributes: Any) -> tuple[float, float]:
    both = _numbers(attributes, "valid_range")
    low = _numbers(attributes, "valid_min") or both[:1] or [-np.inf]
    high = _numbers(attributes, "valid_max") or both[1:2] or [np.inf]
    return low[0], high[0]


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
