"""Score what each dataset may be by small rules: its name, its description, its unit and its values.

A rule needs at least a name or a description; unit and values then make it more certain, or exclude it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from cloudml_tf.data.discovery.datasets import Found
from cloudml_tf.data.readers.lidar import METRE_WORDS
from cloudml_tf.data.readers.navigation import RADIANS

NAME, WHOLE_NAME, TEXT, UNIT, RANGE = 3.0, 1.0, 2.0, 1.0, 1.0
PREFERRED = 0.5  # decides between equals
USUAL_WAVELENGTH = r"\b5[0-9]{2}\b"  # nm; lidars have others, and the infrared is noisier
LEAST = 2.0
DEGREES = (
    "degree", "degrees", "deg", "degree north", "degrees north", "degree east", "degrees east", "degree true",
    "degrees true", "°",
)  # fmt: skip
HEIGHTS = (*METRE_WORDS, "km", "kilometer", "kilometers", "kilometre", "kilometres")
NONE = ("", "1", "none", "unitless", "dimensionless", "n/a", "-")
NEVER = r"\b(err|error|uncertainty|unc|std|sigma|quality|qa|qc|flag|flags|mask|confidence|variance|index|fraction)\b"


@dataclass(frozen=True)
class Rule:
    """What names, describes and bounds one field of the configuration."""

    field: str
    name: str  # pattern of the words of the name
    units: tuple[str, ...]
    low: float = -np.inf
    high: float = np.inf
    never: str = NEVER
    ranks: tuple[int, ...] = (1, 2)
    text: str = ""  # pattern of the description; that of the name if empty


@dataclass(frozen=True)
class Choice:
    """A dataset for a field, and the reason."""

    field: str
    found: Found
    score: float
    why: str

    @property
    def sure(self) -> str:
        """The certainty in words."""
        return "sure" if self.score >= 5 else "likely" if self.score >= 4 else "a guess"


NOT_HEIGHT = NEVER + r"|\b(type|temperature|pressure)\b"
NOT_KIND = r"\b(error|quality|confidence)\b"
DEPTH = r"\b(optical (depth|thickness)|c?od|cot|tau|optd)\b"
LABELS = (
    Rule("lidar.optical_depth", DEPTH, NONE, -0.5, 300.0, NEVER + r"|aerosol|\baod\b"),
    Rule("lidar.base", r"\b(base|bottom|cbh|cloudbase)\b", HEIGHTS, -500.0, 25_000.0, NOT_HEIGHT),
    Rule("lidar.top", r"\b(top|cth|cloudtop)\b", HEIGHTS, -500.0, 25_000.0, NOT_HEIGHT),
)
COUNTED = r"\b(number (of )?(\w+ )?layers|n ?layers|num(ber)? layers|layer count)\b"
KIND = r"\b((feature|layer|cloud|target) (type|class|classification|kind))\b|\bkind\b"
KIND_TEXT = rf"{KIND}|\bcloud\b.*\baerosol\b|\baerosol\b.*\bcloud\b"  # a legend of its codes
BESIDE_LABELS = (
    Rule("lidar.number_layers", COUNTED, NONE, 0, 100, ranks=(1,)),
    Rule("lidar.feature_type", KIND, NONE, -9999, 255, never=NOT_KIND, text=KIND_TEXT),
    Rule("lidar.opaque", r"\b(opacity|opaque|attenuated)\b", NONE, -9999, 10, never=NOT_KIND),
    Rule("lidar.latitude", r"\b(lat|latitude)\b", DEGREES, -90, 90),
    Rule("lidar.longitude", r"\b(lon|lng|longitude)\b", DEGREES, -180, 360),
)
ANGLE = (*DEGREES, *RADIANS)
SUN = r"\b(solar|sun|sol)\b"
VIEW = NEVER + r"|\b(view|viewing|sensor|satellite|vza|vaa|cos|cosine|sin)\b"
ABSOLUTE = VIEW + r"|\brel(ative)?\b"
ZENITH = rf"\bsza\b|{SUN}.*\bzen(ith)?\b|\bzen(ith)?\b.*{SUN}"
ELEVATION = rf"{SUN}.*\b(elevation|elev|altitude)\b"
AZIMUTH = rf"\bsaa\b|{SUN}.*\baz(i|im|imuth)?\b|\baz(i|im|imuth)?\b.*{SUN}"
ANGLES = (
    Rule("navigation.solar_zenith", ZENITH, ANGLE, 0, 180, VIEW, (1,)),
    Rule("navigation.elevation", ELEVATION, ANGLE, -90, 90, VIEW, (1,)),
    Rule("navigation.solar_azimuth", AZIMUTH, ANGLE, -360, 360, ABSOLUTE, (1,)),
    Rule("navigation.relative_azimuth", r"\braa\b|\brel(ative)?\b.*\baz(i|imuth)?\b", ANGLE, -360, 360, VIEW, (1,)),
    Rule("navigation.heading", r"\b(heading|hdg|thdg|course|track angle|yaw)\b", ANGLE, -360, 360, NEVER, (1,)),
)
POSITION = (
    Rule("navigation.latitude", r"\b(lat|latitude)\b", DEGREES, -90, 90, ranks=(1,)),
    Rule("navigation.longitude", r"\b(lon|lng|long|longitude)\b", DEGREES, -180, 360, ranks=(1,)),
)
IMAGE = (
    r"\b(signal|radiances?|reflectances?|rad|ref|images?|img|frames?|intensity|counts|dn|brightness|channel|band|camera"
    r"|pixels?)\b"
)
NOT_IMAGE = (
    NEVER + r"|\b(lat|lon|latitude|longitude|zenith|azimuth|angle|altitude|height|time|dark|backscatter|profile)\b"
)
SMALLEST_SIDE = 4


def score(rule: Rule, found: Found) -> Choice | None:
    """Score how well a dataset fits a rule; None where it does not."""
    described = f"{found.words} {found.text}"
    if len(found.shape) not in rule.ranks or re.search(rule.never, described):
        return None
    total, why = 0.0, []
    if match := re.search(rule.name, found.words):
        total += NAME + (WHOLE_NAME if match.group(0) == found.words else 0)
        why.append(f"name '{match.group(0)}'")
    if match := re.search(rule.text or rule.name, found.text):
        total += TEXT
        why.append(f"described as '{match.group(0)}'")
    if not total:
        return None
    total += PREFERRED if re.search(USUAL_WAVELENGTH, found.words) else 0.0
    for points, reason in (_unit(rule, found), _range(rule, found)):
        total += points
        why.append(reason)
    return Choice(rule.field, found, total, ", ".join(w for w in why if w)) if total >= LEAST else None


def is_unit(found: Found, units: tuple[str, ...]) -> bool:
    """Whether a dataset's unit is one of these."""
    return found.units.lower().replace("_", " ") in units


def _unit(rule: Rule, found: Found) -> tuple[float, str]:
    if is_unit(found, rule.units):
        return (UNIT, "unit") if found.units else (0.0, "")
    return (0.0, "") if is_unit(found, NONE) else (-2.0, f"but unit '{found.units}'")


def _range(rule: Rule, found: Found) -> tuple[float, str]:
    finite = found.finite
    if not finite.size:
        return -np.inf, "no number"
    outside = float(((finite < rule.low) | (finite > rule.high)).mean())
    if outside > 0.05:
        return -np.inf, "numbers out of range"
    low, high = np.percentile(finite, [1, 99])
    return (RANGE if np.isfinite(rule.low) else 0.0), f"{low:.4g} to {high:.4g}"


def best(rule: Rule, datasets: Iterable[Found], fits: Callable[[Found], bool] = lambda found: True) -> Choice | None:
    """The dataset with the highest score, the first among equals."""
    scored = [choice for choice in (score(rule, found) for found in datasets if fits(found)) if choice is not None]
    return max(scored, key=lambda choice: choice.score, default=None)


def channels(datasets: Iterable[Found]) -> list[Choice]:
    """The images: all 3-D datasets of the best-scoring shape."""
    by_shape: dict[tuple[int, ...], list[Choice]] = {}
    for found in datasets:
        if len(found.shape) != 3 or found.shape[0] < 2 or min(found.shape[1:]) < SMALLEST_SIDE:
            continue
        described = f"{found.words} {found.text}"
        if re.search(NOT_IMAGE, described):
            continue
        named = re.search(IMAGE, described)
        why = "frame × row × column" + (f", name '{named.group(0)}'" if named else "")
        choice = Choice("camera.channels", found, LEAST + (NAME if named else 0), why)
        by_shape.setdefault(found.shape, []).append(choice)
    groups = sorted(by_shape.values(), key=lambda group: max(choice.score for choice in group))
    if not groups:
        return []
    strongest = max(choice.score for choice in groups[-1])
    return [choice for choice in groups[-1] if choice.score == strongest]
