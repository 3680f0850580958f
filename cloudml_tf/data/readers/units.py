"""Lengths, angles, speeds and pure numbers in the unit that a file writes, by UDUNITS, the library of CF.

A unit that is not understood, or that measures something else, is refused by name.
"""

import functools
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from cf_units import Unit

Wanted = Literal["km", "degree", "1", "m s-1"]
KINDS: dict[Wanted, str] = {"km": "a length", "degree": "an angle", "1": "a pure number", "m s-1": "a speed"}
NONE = ("", "1", "none", "unitless", "dimensionless", "no unit", "no units", "nounits", "unity", "n/a", "na", "-", "--")
# Spellings that UDUNITS does not know, or takes for something else (its nmi is a thousand-millionth of a mile).
_ALIASES = {
    "deg": "degree", "degs": "degree", "deg.": "degree", "degt": "degree_true", "deg_t": "degree_true",
    "deg true": "degree", "degrees true": "degree", "degree true": "degree", "degrees north": "degree",
    "degree north": "degree", "degrees east": "degree", "degree east": "degree", "deg north": "degree",
    "deg east": "degree", "deg_north": "degree", "deg_east": "degree", "decimal degrees": "degree",
    "decimal degree": "degree", "decimal_degrees": "degree", "rads": "radian",
    "nmi": "nautical_mile", "nautical miles": "nautical_mile", "nautical mile": "nautical_mile",
    "mps": "m s-1", "kt": "knot", "kts": "knot", "knots": "knot",
    "mtr": "m", "mtrs": "m", "mts": "m", "kms": "km", "fts": "ft",
}  # fmt: skip
_LEVEL = re.compile(  # what a height counts from does not change its unit
    r"[\s_,]*\(?\b(above (the )?)?((mean )?sea[ _]level|ground( level)?|surface|ellipsoid|geoid|wgs ?84|a?msl|agl|asl"
    r"|m\.s\.l|a\.s\.l|a\.g\.l)\b\.?\)?$",
    re.IGNORECASE,
)


def is_none(unit: str) -> bool:
    """Whether a unit says that there is none."""
    return unit.strip().lower() in NONE


@functools.cache
def _parsed(unit: str) -> "Unit | None":
    """A unit as UDUNITS reads it, also in capitals; None where it does not."""
    import cf_units

    plain = _LEVEL.sub("", unit.strip()).strip()
    for spelling in (_ALIASES.get(plain.lower(), plain), plain.lower()):
        try:
            found = cf_units.Unit(spelling)
        except ValueError:
            continue
        return None if found.is_unknown() or found.is_no_unit() or found.is_time_reference() else found
    return None


def measures(unit: str, wanted: Wanted) -> bool:
    """Whether a unit, which is not empty, measures a length, an angle or a pure number."""
    if is_none(unit):
        return wanted == "1"
    found = _parsed(unit)
    if found is None:
        return False
    angle = "rad" in str(found.definition)  # a pure number to UDUNITS, and to nobody else
    return bool(found.is_convertible(wanted)) and angle == (wanted == "degree")


def measures_as(unit: str, other: str) -> bool:
    """Whether a unit, none excluded, can be converted to another and is no pure number."""
    found = None if is_none(unit) else _parsed(unit)
    angle = found is not None and "rad" in str(found.definition)
    return found is not None and bool(found.is_convertible(other)) and (other != "degree" or angle)


def convert(values: np.ndarray, unit: str, wanted: Wanted) -> np.ndarray:
    """Values of a unit in km, degrees, m/s or as pure numbers. Raises `ValueError` for a unit of something else."""
    if not measures(unit, wanted):
        raise ValueError(f"unit '{unit[:80]}' is not known as {KINDS[wanted]}")
    if is_none(unit):
        return values
    found: Any = _parsed(unit)
    with np.errstate(over="ignore"):
        return np.asarray(found.convert(np.array(values, "float64"), wanted))
