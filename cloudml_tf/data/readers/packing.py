"""Unpack a file's packed numbers to values, as the CF conventions, NetCDF's and HDF4's own say. NumPy only.

What the attributes say is followed exactly, or refused: a dataset that cannot be unpacked is named, never guessed.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NETCDF_FILL = 9.969209968386869e36  # default fill of floats that were never written
SIGNED_FILLS = {2: -32767, 4: -2147483647, 8: -9223372036854775806}  # and of signed integers, by their size in bytes
RANGES = ("valid_range", "valid_min", "valid_max")
SCALE = {"scale_factor": 1.0, "add_offset": 0.0}
FILLS = ("_FillValue", "missing_value")
HDF4 = ("calibrated_nt", "scale_factor_err", "add_offset_err")  # they come with HDF4's SDsetcal and nothing else
PACKING = (*FILLS, *SCALE, *RANGES, "_Unsigned", *HDF4)
_SPELLINGS = {key.lower().replace("_", ""): key for key in PACKING if key not in HDF4}  # FillValue, ScaleFactor
# Attributes that scale a dataset by a formula of their own: of MODIS, of HDF-EOS, of CALIPSO and others.
_OTHER_FORMULAS = re.compile(
    r"(radiance|reflectance|corrected_counts)_(scales?|offsets?)|slope|intercept|scaling_(factor|equation|method)"
    r"|scale|offset|calibration_formulas?|log_?scale",
    re.IGNORECASE,
)


def may_pack(key: str) -> bool:
    """Whether an attribute of that name may say how numbers are packed."""
    return key in PACKING or _usual(key) in _SPELLINGS or _OTHER_FORMULAS.fullmatch(key) is not None


def _usual(key: str) -> str:
    return re.sub("[^a-z]", "", key.lower())


def packing_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that say how a dataset is packed, in their usual spelling; `attributes` are those that may.

    Raises `ValueError` where one is invalid, where two contradict each other, or where numbers are scaled by a formula
    that is not known.
    """
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        name = key if key in PACKING else _SPELLINGS.get(_usual(key))
        if name is None:
            _refuse_formula(key, value)
        elif name in found and name not in FILLS and np.any(np.ravel(found[name]) != np.ravel(value)):
            raise ValueError(f"attribute {key} contradicts {name} of another spelling")
        else:
            found[name] = np.concatenate([np.ravel(found[name]), np.ravel(value)]) if name in found else value
    check_packing(found)
    return found


def _refuse_formula(key: str, value: Any) -> None:
    """Raise `ValueError` for an attribute that may scale the numbers in a way of its own, unless it changes nothing."""
    if not _OTHER_FORMULAS.fullmatch(key):
        return
    given = np.ravel(value)
    nothing = 0.0 if re.search("offset|intercept", key.lower()) else 1.0
    if (given == nothing).all() if given.dtype.kind in "iuf" else not re.search(r"log|[*/+^]", _text(value)):
        return
    raise ValueError(
        f"attribute {key} scales the numbers in a way that is not known ({_shown(given)}); write the values "
        "themselves, or their scale_factor and add_offset"
    )


def check_packing(attributes: Mapping[str, Any]) -> None:
    """Refuse attributes that are not numbers, are several, or would make every value the same or missing.

    Raises `ValueError`.
    """
    for key in (*FILLS, *SCALE, *RANGES):
        numbers(attributes, key)
    for key in SCALE:
        several = sorted(set(numbers(attributes, key)))
        if len(several) > 1:
            raise ValueError(f"attribute {key} has several numbers ({_shown(np.array(several))}); one is needed")
        value = _first(attributes, key)
        if not np.isfinite(value) or (key == "scale_factor" and value == 0.0):
            raise ValueError(f"attribute {key} must be finite, and no scale may be 0. Received: {value}")
    _valid_range(attributes)
    if _text(attributes.get("_Unsigned", "")).lower() not in ("", "true", "false"):
        raise ValueError(
            f"attribute _Unsigned must be true or false. Received: '{_text(attributes['_Unsigned'])[:80]}'"
        )


def _text(value: Any) -> str:
    given = np.ravel(value)
    first = given[0] if given.size else ""
    return (first.decode(errors="replace") if isinstance(first, bytes) else str(first)).strip("\x00 ")


def _shown(values: np.ndarray) -> str:
    return ", ".join(_text(value)[:40] for value in values[:4]) + (", …" if values.size > 4 else "")


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
        shown = "null" if type(found[0]).__name__ == "Empty" else shown
        shown = shown[:80].encode(errors="replace").decode()  # h5py makes lone surrogates of invalid UTF-8
        raise ValueError(f"attribute {key} must be a number. Received: '{shown}'") from None


def with_sign(raw: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """Whole numbers with the sign that `_Unsigned` gives them: the same bits of another type. Others as they are."""
    kind = {"true": "u", "false": "i"}.get(_text(attributes.get("_Unsigned", "")).lower(), raw.dtype.kind)
    if raw.dtype.kind not in "iu" or kind == raw.dtype.kind:
        return raw
    return raw.view(np.dtype(f"{raw.dtype.byteorder}{kind}{raw.dtype.itemsize}"))


def unpack(raw: np.ndarray, attributes: Mapping[str, Any], dtype: str = "float64") -> np.ndarray:
    """Unpack numbers to values: fill and what is out of the valid range to NaN, then scale and offset.

    -9999 counts as fill too, as the lidar's files use it without declaring it, and NetCDF's default fills of signed
    integers and floats. Any shape, unchanged.
    """
    raw = with_sign(raw, attributes)
    missing = _missing(raw, attributes)  # before the cast: float32 rounds large integers
    scale, offset = (_first(attributes, key) for key in SCALE)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 they become infinite: a frame to leave out
        values = raw.astype(dtype)
        if any(key in attributes for key in HDF4):  # HDF4: value = scale (number - offset)
            offset *= -scale
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


def _missing(raw: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray | None:
    """Which numbers are fill; None where none can be.

    A fill may have another type than the numbers: either may have been rounded to the other's.
    """
    exact, rounded = [], []
    if raw.dtype.kind != "u":
        exact.append(-9999.0)
    if raw.dtype.kind == "f" and raw.dtype.itemsize >= 4:  # half precision cannot hold it
        exact.append(float(raw.dtype.type(NETCDF_FILL)))
    elif raw.dtype.kind == "i" and raw.dtype.itemsize in SIGNED_FILLS and not any(key in attributes for key in FILLS):
        exact.append(SIGNED_FILLS[raw.dtype.itemsize])
    for key in FILLS:
        given = np.ravel(attributes.get(key, ()))
        if given.dtype.kind in "iu" and given.dtype.itemsize == raw.dtype.itemsize and raw.dtype.kind in "iu":
            exact += given.astype(raw.dtype).tolist()  # the same bits, of the other sign
        elif given.dtype.kind == "f" and raw.dtype.kind == "f":
            with np.errstate(over="ignore"):
                exact += [float(raw.dtype.type(value)) for value in given]
            if given.dtype.itemsize < raw.dtype.itemsize:
                rounded += [given.dtype.type(value) for value in given]
        else:
            exact += numbers(attributes, key)
    if not exact:
        return None
    missing: np.ndarray = np.isin(raw, exact)
    for value in rounded:
        with np.errstate(over="ignore"):
            missing |= raw.astype(value.dtype) == value
    return missing


def _first(attributes: Mapping[str, Any], key: str) -> float:
    return (numbers(attributes, key) or [SCALE[key]])[0]


def _range_is_packed(raw: np.ndarray, attributes: Mapping[str, Any]) -> bool:
    """Whether a valid range refers to packed numbers: it does, unless these are integers and it has the type of the
    values (CF 2.5)."""
    kinds = {np.asarray(attributes[key]).dtype.kind for key in RANGES if key in attributes}
    return raw.dtype.kind == "f" or "f" not in kinds


def _valid_range(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """The smallest and the largest valid number, of the numbers' own sign. Raises `ValueError` where none is valid."""
    signed = {key: with_sign(np.ravel(attributes[key]), attributes) for key in RANGES if key in attributes}
    both = numbers(signed, "valid_range")
    low = (numbers(signed, "valid_min") or both[:1] or [-np.inf])[0]
    high = (numbers(signed, "valid_max") or both[1:2] or [np.inf])[0]
    if low > high:
        raise ValueError(f"the valid range goes from {low:g} to {high:g}, so that no number is valid")
    return low, high


FILLS_NOT_DECLARED = (  # numbers that files use for "missing" without saying so
    -99.0, 999.0, -999.0, 9999.0, -9999.0, 99999.0, -99999.0, 999999.0, -999999.0, 1e10, -1e10, 1e15, -1e15, 1e20,
    -1e20, 1e30, -1e30,
    32767.0, -32768.0, 65535.0, 2147483647.0, -2147483648.0, 4294967295.0, NETCDF_FILL, -999.9, -9999.9,
)  # fmt: skip
APART, HUGE = 3.0, 1e6  # how far a fill lies beyond the other numbers, in their spread; and a size that no light has


@np.errstate(over="ignore")  # a limit beyond the type is infinite, which is right
def impossible(values: np.ndarray, fills: np.ndarray) -> np.ndarray:
    """Which numbers, any shape, are finite and cannot be measured: a fill that stands apart, or far too large.

    `fills` are `FILLS_NOT_DECLARED` as the values have them, after scale and offset.
    """
    finite = np.isfinite(values)
    rest = np.abs(values[finite])
    if not rest.size:
        return np.zeros(values.shape, bool)
    found = finite & (np.abs(values) > HUGE * max(float(np.median(rest)), 1.0))
    marked = finite & ~found & np.isin(values, fills)
    others = values[finite & ~found & ~marked]
    if marked.any() and others.size:
        low, high = float(others.min()), float(others.max())
        far = APART * max(high - low, 0.1 * max(abs(low), abs(high)))
        found |= marked & ((values > high + far) | (values < low - far))
    return found


def scaled_fills(attributes: Mapping[str, Any]) -> np.ndarray:
    """`FILLS_NOT_DECLARED` as values of a dataset with this packing, in float32."""
    scale, offset = (_first(attributes, key) for key in SCALE)
    offset *= -scale if any(key in attributes for key in HDF4) else 1.0
    with np.errstate(over="ignore"):
        raw = np.array(FILLS_NOT_DECLARED, "float32")
        return raw * np.float32(scale) + np.float32(offset) if scale != 1.0 or offset else raw
