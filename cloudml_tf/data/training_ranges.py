"""The range of each input, and of the label, in the training split.

Outside it a prediction is an extrapolation, and `cloudml predict` flags it. The same rule and messages serve held-out
flights whose sun or brightness the training does not cover.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from cloudml_tf.config.schema import Config
from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.samples import Samples
from cloudml_tf.nn.sightlines import GEOMETRY, TIME

TAIL = 0.001  # share of the values below `low`, and above `high`


@dataclass(frozen=True)
class Range:
    """The range of some values: of all, and of all but 0.1 % at either end."""

    minimum: float
    low: float
    high: float
    maximum: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Range":
        """The range of finite values (n,)."""
        low, high = np.quantile(values, [TAIL, 1.0 - TAIL], method="inverted_cdf")
        return cls(*(float(value) for value in (values.min(), low, high, values.max())))

    @classmethod
    def of_arc(cls, degrees: np.ndarray) -> "Range":
        """The shortest arc that holds directions (n,), eastward from `minimum`; its end may exceed 180."""
        ordered = np.unique(degrees % 360.0)
        steps = np.diff(ordered, append=ordered[0] + 360.0)
        first = ordered[(steps.argmax() + 1) % len(ordered)]
        start = (first + 180.0) % 360.0 - 180.0
        return cls.of(start + (degrees - first) % 360.0)

    def outside(self, values: np.ndarray, slack: float = 0.0) -> np.ndarray:
        """Which values are outside, in their shape; False for NaN."""
        return (values < self.low - slack) | (values > self.high + slack)

    def outside_arc(self, degrees: np.ndarray, slack: float = 0.0) -> np.ndarray:
        """Which directions are outside, in their shape; False for NaN."""
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        return np.abs((degrees - middle + 180.0) % 360.0 - 180.0) > half + slack


@dataclass(frozen=True)
class TrainingRanges:
    """Ranges over the frames of the training sequences, each counted once, and over their labels."""

    radiance: list[Range]  # mean radiance of a frame, one range per channel
    solar_zenith_deg: Range | None
    relative_azimuth_deg: Range | None  # an arc of `folded` directions
    features: list[Range]
    label: Range  # in the target's own unit
    # Of `nn.sightlines.GEOMETRY` without the time, where the network reads it.
    geometry: list[Range] = field(default_factory=list)
    span_s: Range | None = None  # from the first to the last frame of a sequence, with that geometry

    def to_json(self) -> dict[str, Any]:
        """Convert to a dictionary for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TrainingRanges":
        """The inverse of `to_json`."""
        return TypeAdapter(cls).validate_python(content)


def fit_ranges(train: Samples, config: Config) -> TrainingRanges:
    """Fit the ranges of the training split."""
    rows = np.unique(train.index)
    light = np.concatenate([frame_means(frames) for frames in train.training_frames()])  # (m,C)
    sun = None if train.sun_angles_deg is None else train.sun_angles_deg[rows].astype("float64")
    sight = train.sight if train.sight is not None and train.sight.network_input else None
    return TrainingRanges(
        radiance=_columns(light),
        solar_zenith_deg=None if sun is None else Range.of(sun[:, 0]),
        relative_azimuth_deg=None if sun is None else Range.of_arc(folded(sun[:, 1], config.augmentation)),
        features=_columns(train.features[rows]),
        label=Range.of(train.label),
        geometry=[] if sight is None else _columns(sight.geometry[rows, 1:]),
        span_s=None if sight is None else Range.of(np.ptp(sight.geometry[train.index, TIME], axis=1)),
    )


def frame_means(radiance: np.ndarray) -> np.ndarray:
    """Mean radiance of each frame and channel, (n,H,W,C) -> (n,C)."""
    return radiance.mean(axis=(1, 2), dtype="float64")


def folded(azimuth_deg: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Fold directions (n,) of the sun; those that training mirrors into each other (`augmentation`) become
    one."""
    if augmentation.mirror_along_track:  # a and 180 - a
        azimuth_deg = np.rad2deg(np.arcsin(np.sin(np.deg2rad(azimuth_deg))))
    if augmentation.mirror_across_track:  # a and -a
        azimuth_deg = np.abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    return azimuth_deg


def _columns(values: np.ndarray) -> list[Range]:
    return [Range.of(column) for column in values.T]


# How far outside of the training a column of the geometry is flagged: a share of the range's ends, and in its own unit.
GEOMETRY_SLACK = {"altitude_km": (0.05, 0.0), "pixels_per_radian": (0.05, 0.0), "forward_m_s": (0.05, 0.0)}
SPAN_SLACK = 0.1  # share of the duration of a sequence
OTHER_SLACK = (0.0, 3.0)  # degrees, and m/s across the track and of the wind
SUN_SLACK_DEG = 1.0  # a sun this little outside the training range is not flagged
FAR_SUN_DEG = 10.0  # a sun this far outside is worth a warning about the flight
MOST = 0.5  # share of the frames
FAR_SUN = "choose a split in which training covers it, or --set data.sun_angles=false"
HELD_OUT = {"val": "validation", "test": "test"}


def outside_sun(
    sun_deg: np.ndarray, ranges: TrainingRanges, augmentation: Augmentation, slack_deg: float = SUN_SLACK_DEG
) -> np.ndarray:
    """Which of (n,2) solar zenith and azimuth from the heading are outside the training range -> (n,2); NaN is
    False."""
    found = np.zeros(sun_deg.shape, bool)
    if ranges.solar_zenith_deg and ranges.relative_azimuth_deg:
        found[:, 0] = ranges.solar_zenith_deg.outside(sun_deg[:, 0], slack_deg)
        found[:, 1] = ranges.relative_azimuth_deg.outside_arc(folded(sun_deg[:, 1], augmentation), slack_deg)
    return found


def outside_geometry(geometry: np.ndarray, span_s: np.ndarray, ranges: TrainingRanges) -> np.ndarray:
    """Which frames (n,9), whose sequences last so many seconds (n,), have a geometry outside the training range, (n,).

    NaN is False.
    """
    found = np.zeros(len(geometry), bool)
    if ranges.span_s is not None:
        found |= ranges.span_s.outside(span_s, SPAN_SLACK * ranges.span_s.high)
    for name, values, trained in zip(GEOMETRY[1:], geometry[:, 1:].T, ranges.geometry, strict=False):
        share, own = GEOMETRY_SLACK.get(name, OTHER_SLACK)
        found |= trained.outside(values, own + share * max(abs(trained.low), abs(trained.high)))
    return found


def far_sun(
    sun_deg: np.ndarray | None, ranges: TrainingRanges, augmentation: Augmentation, slack_deg: float = FAR_SUN_DEG
) -> str:
    """Describe a sun that is outside by `slack_deg` for most frames: "azimuth 130°, training has 60 to 115°"; else
    ""."""
    known = np.zeros((0, 2)) if sun_deg is None else sun_deg[np.isfinite(sun_deg).all(axis=1)].astype("float64")
    outside = outside_sun(known, ranges, augmentation, slack_deg)
    if not outside.any(axis=1).sum() > MOST * len(known):
        return ""
    described = []
    trained = (ranges.solar_zenith_deg, ranges.relative_azimuth_deg)
    seen = (Range.of(known[:, 0]), Range.of_arc(folded(known[:, 1], augmentation)))
    for n, angle in enumerate(("zenith", "azimuth")):
        if outside[:, n].sum() > 0.5 * MOST * len(known):  # true of at least one
            described.append(f"{angle} {degrees(seen[n])}, training has {degrees(trained[n])}")
    return "; ".join(described)


def degrees(found: Range | None) -> str:
    """Describe a range: "60 to 115°", or "60°" if it is narrow."""
    if found is None:
        return "none"
    low, high = round(found.low), round(found.high)
    return f"{low}°" if low == high else f"{low} to {high}°"


def far_light(light: np.ndarray, ranges: TrainingRanges) -> str:
    """Describe mean radiances (n,C) that are far outside for most frames, for each channel; else ""."""
    known = light[np.isfinite(light).all(axis=1)]
    described = [
        f"mean radiance of channel {channel} {_span(Range.of(known[:, channel]))}, training has {_span(trained)}"
        for channel, trained in enumerate(ranges.radiance)
        if trained.outside(known[:, channel]).sum() > MOST * len(known)
    ]
    return "; ".join(described)


def _span(found: Range) -> str:
    return f"{found.low:.3g} to {found.high:.3g}"


def extrapolated(
    flight: str,
    sun_deg: np.ndarray | None,
    light: np.ndarray,
    ranges: TrainingRanges,
    augmentation: Augmentation,
    slack_deg: float = FAR_SUN_DEG,
) -> list[str]:
    """A sentence for each input, sun (n,2) and mean radiance (n,C), that most frames of a flight have outside, the sun
    by `slack_deg`."""
    return [
        f"{flight}: most frames are outside the training range: {text}. Their predictions extrapolate."
        for text in (far_sun(sun_deg, ranges, augmentation, slack_deg), far_light(light, ranges))
        if text
    ]


def far_flights(parts: Mapping[str, Samples], ranges: TrainingRanges, config: Config) -> list[str]:
    """Describe each held-out flight far outside: "test flight 20240615: azimuth 130°, training has 60 to 115°"."""
    found = []
    for part, word in HELD_OUT.items():
        samples = parts[part]
        for number in np.unique(samples.flight):
            rows = np.unique(samples.index[samples.flight == number])
            sun = None if samples.sun_angles_deg is None else samples.sun_angles_deg[rows]
            if described := far_sun(sun, ranges, config.augmentation):
                found.append(f"{word} flight {samples.flight_names[number]}: {described}")
    return found
