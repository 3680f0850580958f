"""Unpack a file's packed numbers to values, by the CF conventions. NumPy only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

NETCDF_FILL = 9.969209968386869e36  # default fill of floats that were never written
RANGES = ("valid_range", "valid_min", "valid_max")
SCALE = {"scale_factor": 1.0, "add_offset": 0.0}
PACKING = ("_FillValue", "missing_value", *SCALE, *RANGES)


def check_packing(attributes: Mapping[str, Any]) -> None:
    """Refuse attributes that are not numbers, or that would make every value the same. Raises `ValueError`."""
    for key in PACKING:
        numbers(attributes, key)
    for key in SCALE:
        value = _first(attributes, key)
        if not np.isfinite(value) or (key == "scale_factor" and value == 0.0):
            raise ValueError(f"attribute {key} must be finite, and no scale may be 0. Received: {value}")


def numbers(attributes: Mapping[str, Any], key: str) -> list[float]:
    """An attribute's numbers, none where it is missing. Raises `ValueError` for anything but numbers."""
    found = np.ravel(attributes.get(key, ()))
    try:
        if found.dtype.kind not in "iufSUO":
            raise ValueError
        with np.errstate(over="ignore"):
            return [float(value) for value in found]
    except (TypeError, ValueError):
        shown = found[0].decode(errors="replace") if isinstance(found[0], bytes) else str(found[0])
        shown = shown[:80].encode(errors="replace").decode()  # h5py makes lone surrogates of invalid UTF-8
        raise ValueError(f"attribute {key} must be a number. Received: '{shown}'") from None


def unpack(raw: np.ndarray, attributes: Mapping[str, Any], dtype: str = "float64") -> np.ndarray:
    """Unpack numbers to values: fill and what is out of the valid range to NaN, then scale and offset.

    -9999 counts as fill too: the lidar's files use it without declaring it. Any shape, unchanged.
    """
    fills = [*numbers(attributes, "_FillValue"), *numbers(attributes, "missing_value")]
    if raw.dtype.kind != "u":
        fills.append(-9999.0)
    if raw.dtype.kind == "f" and raw.dtype.itemsize >= 4:  # half precision cannot hold it
        fills.append(float(raw.dtype.type(NETCDF_FILL)))
    missing = np.isin(raw, fills) if fills else None  # before the cast: float32 rounds large integers
    scale, offset = (_first(attributes, key) for key in SCALE)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 they become infinite: a frame to leave out
        values = raw.astype(dtype)
        if scale != 1.0 or offset != 0.0:
            values *= scale
            values += offset
    if missing is not None and missing.any():
        values[missing] = np.nan
    low, high = _valid_range(attributes)
    if low > -np.inf or high < np.inf:
        seen = raw if _range_is_packed(raw, attributes) else values
        with np.errstate(over="ignore", invalid="ignore"):
            values[(seen < low) | (seen > high)] = np.nan
    return values


def _first(attributes: Mapping[str, Any], key: str) -> float:
    return (numbers(attributes, key) or [SCALE[key]])[0]


def _range_is_packed(raw: np.ndarray, attributes: Mapping[str, Any]) -> bool:
    """Whether a valid range refers to packed numbers: it does, unless these are integers and it has the type of the
    values (CF 2.5)."""
    kinds = {np.asarray(attributes[key]).dtype.kind for key in RANGES if key in attributes}
    return raw.dtype.kind == "f" or "f" not in kinds


def _valid_range(attributes: Mapping[str, Any]) -> tuple[float, float]:
    both = numbers(attributes, "valid_range")
    low = numbers(attributes, "valid_min") or both[:1] or [-np.inf]
    high = numbers(attributes, "valid_max") or both[1:2] or [np.inf]
    return low[0], high[0]
