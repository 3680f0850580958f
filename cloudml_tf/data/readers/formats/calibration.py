"""How images of weather radars are packed: by attributes of the group beside the image, as KNMI and ODIM have them."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cloudml_tf.data.readers.packing import numbers

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LINE = re.compile(rf"\s*GEO\s*=\s*(?P<a>{_NUMBER})\s*\*\s*PV\s*(?:(?P<sign>[+-])\s*(?P<b>{_NUMBER}))?\s*")
KNMI, ODIM = "calibration", "what"  # the groups


def packing_beside(group: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A group's attributes as `scale_factor`, `add_offset` and `_FillValue`.

    Raises `ValueError` for a formula that is not understood.
    """
    if group == KNMI:
        return _knmi(attributes)
    if not {"gain", "offset"} <= set(attributes):
        return {}
    fill = [value for key in ("nodata", "undetect") for value in numbers(attributes, key)]
    (scale,), (offset,) = numbers(attributes, "gain"), numbers(attributes, "offset")
    return {"scale_factor": scale, "add_offset": offset, **({"_FillValue": np.array(fill)} if fill else {})}


def _knmi(attributes: Mapping[str, Any]) -> dict[str, Any]:
    formula = _text(attributes.get("calibration_formulas", ""))
    fill = [value for key in ("missing_data", "out_of_image") for value in numbers(attributes, f"calibration_{key}")]
    found: dict[str, Any] = {"_FillValue": np.unique(fill)} if fill else {}
    if not formula:
        return found
    match = _LINE.fullmatch(formula)
    if match is None or _text(attributes.get("calibration_flag", "Y")).upper() != "Y":
        raise ValueError(
            f"is calibrated by a formula that is not understood, '{formula[:80]}'; it must be GEO=a*PV+b, with "
            "calibration_flag Y"
        )
    offset = float(match["b"] or 0.0) * (-1.0 if match["sign"] == "-" else 1.0)
    return {"scale_factor": float(match["a"]), "add_offset": offset, **found}


def _text(value: Any) -> str:
    first = np.ravel(value)[0] if np.ravel(value).size else ""
    return (first.decode(errors="replace") if isinstance(first, bytes) else str(first)).strip("\x00 ")
