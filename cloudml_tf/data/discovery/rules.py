"""Score what each dataset may be by small rules: its name, its description, its unit and its values.

A rule needs at least a name or a description; unit and values then make it more certain, or exclude it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.units import KINDS, Wanted, convert, is_none, measures, measures_as

NAME, WHOLE_NAME, TEXT, UNIT, RANGE = 3.0, 1.0, 2.0, 1.0, 1.0
PREFERRED = 0.5  # decides between equals
USUAL_WAVELENGTH = r"\b5[0-9]{2}\b"  # nm; lidars have others, and the infrared is noisier
LEAST = 2.0
NEVER = (
    r"\b(err(or)?s?|uncertaint(y|ies)|unc|std(ev)?|sigma|precision|accuracy|quality|qa|qc|flags?|mask|confidence"
    r"|variance|index|fraction|amount|count)\b"
)


@dataclass(frozen=True)
class Rule:
    """What names, describes and bounds one field of the configuration."""

    field: str
    name: str  # pattern of the words of the name
    measure: Wanted | None  # what its unit must measure; any unit if None
    low: float = -np.inf
    high: float = np.inf
    never: str = NEVER
    ranks: tuple[int, ...] = (1, 2)
    text: str = ""  # pattern of the description; that of the name if empty
    whole: bool = False  # codes or counts: whole numbers


@dataclass(frozen=True)
class Choice:
    """A dataset for a field, and the reason; or why it cannot be that field, though its name says so."""

    field: str
    found: Found
    score: float
    why: str
    refused: str = ""

    @property
    def sure(self) -> str:
        """The certainty in words."""
        return "sure" if self.score >= 5 else "likely" if self.score >= 4 else "a guess"


NOT_HEIGHT = NEVER + r"|\b(type|temperature|pressure|time|phase|speed|velocity)\b"
NOT_KIND = r"\b(error|quality|confidence|backscatter|profile|probability|coefficient|fraction)\b"
DEPTH = r"\b(optical (depth|thickness)|c?od|cot|tau|optd)\b"
LABELS = (
    Rule("lidar.optical_depth", DEPTH, "1", -0.5, 300.0, NEVER + r"|aerosol|\baod\b"),
    Rule("lidar.base", r"\b(base|bottom|cbh|cloudbase)\b", "km", -500.0, 25_000.0, NOT_HEIGHT),
    Rule("lidar.top", r"\b(top|cth|cloudtop)\b", "km", -500.0, 25_000.0, NOT_HEIGHT),
)
COUNTED = r"\b(number (of )?(\w+ )?layers|n ?layers|num(ber)? layers|layer count)\b"
KIND = r"\b((feature|layer|cloud|target) (type|class|classification|kind))\b|\bkind\b"
KIND_TEXT = rf"{KIND}|\bcloud\b.*\baerosol\b|\baerosol\b.*\bcloud\b"  # a legend of its codes
BESIDE_LABELS = (
    Rule("lidar.number_layers", COUNTED, None, 0, 100, ranks=(1,), whole=True),
    Rule("lidar.feature_type", KIND, None, -9999, 255, never=NOT_KIND, text=KIND_TEXT, whole=True),
    Rule("lidar.opaque", r"\b(opacity|opaque|attenuated)\b", None, -9999, 10, never=NOT_KIND, whole=True),
    Rule("lidar.latitude", r"\b(lat|latitude)\b", "degree", -90, 90),
    Rule("lidar.longitude", r"\b(lon|lng|longitude)\b", "degree", -180, 360),
)
SUN = r"\b(solar|sun|sol)\b"
VIEW = NEVER + r"|\b(view|viewing|sensor|satellite|vza|vaa|cos|cosine|sin)\b"
ABSOLUTE = VIEW + r"|\brel(ative)?\b"
ZENITH = rf"\b(sza|solze|sol zen)\b|{SUN}.*\bzen(ith)?\b|\bzen(ith)?\b.*{SUN}"
ELEVATION = rf"{SUN}.*\b(elevation|elev|altitude)\b"
AZIMUTH = rf"\b(saa|solaz|sol azim?|sun az grd)\b|{SUN}.*\baz(i|im|imuth)?\b|\baz(i|im|imuth)?\b.*{SUN}"
ANGLES = (
    Rule("navigation.solar_zenith", ZENITH, "degree", 0, 180, VIEW, (1,)),
    Rule("navigation.elevation", ELEVATION, "degree", -90, 90, VIEW, (1,)),
    Rule("navigation.solar_azimuth", AZIMUTH, "degree", -360, 360, ABSOLUTE, (1,)),
    Rule("navigation.relative_azimuth", r"\braa\b|\brel(ative)?\b.*\baz(i|imuth)?\b", "degree", -360, 360, VIEW, (1,)),
    Rule(
        "navigation.heading",
        r"\b(heading|hdg|thdg|course|track angle|yaw)\b",
        "degree",
        -360,
        720,
        NEVER + r"|\brates?\b|acceleration",
        (1,),
    ),
)
LAT, LON = r"\b(lat|latitude|gglat|latc)\b", r"\b(lon|lng|long|longitude|gglon|lonc)\b"
POSITION = (
    Rule("navigation.latitude", LAT, "degree", -90, 90, ranks=(1,)),
    Rule("navigation.longitude", LON, "degree", -180, 360, ranks=(1,)),
)
IMAGE = (
    r"\b(signal|radiances?|reflectances?|rad|ref|images?|img|frames?|intensity|counts|dn|brightness|channel|band|camera"
    r"|pixels?)\b"
)
NOT_IMAGE = (  # angles, places, other instruments, and what is to be predicted, as words or inside of them
    NEVER + r"|\b(lat|lon|lats|lons|latitude|longitude|zenith|azimuth|angles?|altitude|heights?|time|dark|backscatter"
    r"|profiles?|dem|terrain|topography|orography|elevation|geoid|surface type|land|sea|water|snow|ice|x|y|z|easting"
    r"|northing|rows?|columns?|lines?|distance|roll|pitch|yaw|heading|ndvi|ndsi|evi|index|gain|offset|wavelengths?"
    r"|bins?|range|depol(arisation|arization)?|phase|probability|class(es|ification)?|labels?|categor(y|ies))\b"
    rf"|mask|flag|cloud ?(top|base|height|type|cover|optical|phase|fraction)|optical (depth|thickness)|{DEPTH}"
)
NO_AXIS_OF_PIXELS = (  # names of dimensions, or of vectors along them
    r"\b(chan(nel)?s?|freq(uency|uencies)?|bands?|wavelengths?|beams?|polari[sz]ations?|layers?|levels?|heights?|range"
    r"|altitudes?|gates?|bins?|scans?|times?|class(es)?|categor(y|ies)|components?|layer index|index)\b"
)
NO_MEASURE_OF_LIGHT = ("m", "degree", "s")  # an image in such a unit is a map of heights, angles or times
FEW_VALUES = 8  # a mask or classes have no more
LOOKED_AT = 6  # frames
SMALLEST_SIDE = 4
MOST_OUTSIDE = 0.05  # share of numbers that may lie out of range


def judge(rule: Rule, found: Found) -> Choice | None:
    """Score how well a dataset fits a rule; None where nothing says that it is that field."""
    described = f"{found.words} {found.text}"
    if re.search(rule.never, described):
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
    total += UNIT if found.units and rule.measure and measures(found.units, rule.measure) else 0.0
    total += RANGE if np.isfinite(rule.low) else 0.0
    refused = _refused(rule, found)
    if not refused:
        low, high = np.percentile(found.finite, [1, 99])
        why += [*(["unit"] if found.units and rule.measure else []), f"{low:.4g} to {high:.4g}"]
    return Choice(rule.field, found, total, ", ".join(why), refused) if total >= LEAST else None


def score(rule: Rule, found: Found) -> Choice | None:
    """The choice of a dataset for a rule; None where it does not fit in every respect."""
    choice = judge(rule, found)
    return choice if choice is not None and not choice.refused else None


def _refused(rule: Rule, found: Found) -> str:
    """Why a dataset cannot be the field that its name says: shape, unit or numbers; "" where it can."""
    if len(found.shape) not in rule.ranks:
        return f"its shape is {found.shape}"
    if rule.measure is not None and found.units and not measures(found.units, rule.measure):
        return f"its unit '{found.units}' is not known as {KINDS[rule.measure]}"
    if not found.finite.size:
        return "it holds no number"
    values = found.finite
    if rule.whole and (values % 1 != 0).any():
        return "its numbers are not whole"
    if rule.measure == "km" and not is_none(found.units):
        values = 1e3 * convert(values, found.units, "km")
    elif rule.measure == "degree" and not is_none(found.units):
        values = convert(values, found.units, "degree")
    outside = (values < rule.low) | (values > rule.high)
    if outside.mean() <= MOST_OUTSIDE:
        return ""
    return (
        f"{outside.mean():.0%} of its numbers are outside {rule.low:g} to {rule.high:g}, such as "
        f"{found.finite[outside][0]:g} (a fill that no _FillValue declares?)"
    )


def refusals(rules: Iterable[Rule], datasets: Iterable[Found]) -> list[str]:
    """The datasets that fit rules by name and are refused all the same, in words."""
    there = list(datasets)
    judged = [(choice, rule) for rule in rules for found in there if (choice := judge(rule, found))]
    return [
        f"'{choice.found.name}' is not data.{rule.field}: {choice.refused}" for choice, rule in judged if choice.refused
    ]


def best(rule: Rule, datasets: Iterable[Found], fits: Callable[[Found], bool] = lambda found: True) -> Choice | None:
    """The dataset with the highest score, the first among equals."""
    scored = [choice for choice in (score(rule, found) for found in datasets if fits(found)) if choice is not None]
    return max(scored, key=lambda choice: choice.score, default=None)


def channels(content: FileContent) -> list[Choice]:
    """The images: all 3-D datasets of the best-scoring shape that can be images."""
    by_shape: dict[tuple[int, ...], list[Choice]] = {}
    for found in content.datasets:
        if len(found.shape) != 3 or found.shape[0] < 2 or min(found.shape[1:]) < SMALLEST_SIDE:
            continue
        if why_no_image(found, content):
            continue
        named = re.search(IMAGE, f"{found.words} {found.text}")
        why = "frame × row × column" + (f", name '{named.group(0)}'" if named else "")
        choice = Choice("camera.channels", found, LEAST + (NAME if named else 0), why)
        by_shape.setdefault(found.shape, []).append(choice)
    groups = sorted(by_shape.values(), key=lambda group: max(choice.score for choice in group))
    if not groups:
        return []
    strongest = max(choice.score for choice in groups[-1])
    return [choice for choice in groups[-1] if choice.score == strongest]


def why_no_image(found: Found, content: FileContent) -> str:
    """Why a 3-D dataset is no channel of a camera, by name, unit, axes or content; "" where it may be one."""
    if match := re.search(NOT_IMAGE, f"{found.words} {found.text}"):
        return f"its name or description says '{match.group(0)}'"
    if any(measures_as(found.units, unit) for unit in NO_MEASURE_OF_LIGHT):
        return f"its unit is '{found.units}'"
    for length, name in zip(found.shape[1:], [*found.dims, "", "", ""][1:3], strict=True):
        along = {other.words for other in content.datasets if other.shape == (length,) and length != found.shape[0]}
        if axis := next((words for words in (name, *sorted(along)) if re.search(NO_AXIS_OF_PIXELS, words)), ""):
            return f"'{axis}' runs along one of its axes, which is none of pixels"
    first = hdf5.first_frames(found.file, found.name, LOOKED_AT, found.frames_last)
    finite = first[np.isfinite(first)]
    if finite.size and len(np.unique(finite)) <= FEW_VALUES and np.equal(np.mod(finite, 1), 0).all():
        return f"it holds {len(np.unique(finite))} whole values alone: a mask or classes"
    if len(first) > 1 and np.ptp(finite if finite.size else np.zeros(1)) > 0 and (first == first[0]).all():
        return "it is the same in every frame"
    return ""


def refused_images(content: FileContent) -> list[str]:
    """Datasets of three and more dimensions that are not taken for images, with the reason or the step that helps."""
    found = []
    for item in content.datasets:
        shape, name = item.shape, f"'{item.name}' {item.shape}"
        if len(shape) == 4:
            found.append(f"{name}: a channel is (frame, row, column); write one dataset a channel")
        elif (
            len(shape) == 3
            and shape[0] > 1
            and min(shape[1:]) >= SMALLEST_SIDE
            and (why := why_no_image(item, content))
        ):
            found.append(f"{name}: {why}")
        elif len(shape) == 3:
            found.append(f"{name}: no images of {SMALLEST_SIDE} pixels and more along both axes")
    return found
