"""What the training part has shown the network: the range of each input, and of the label.

Outside of it a prediction is an extrapolation, and `cloudml predict` says so.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cloudml_tf.data.samples import Samples
from cloudml_tf.settings import Augmentation, Config

TAIL = 0.001  # of the values are below `low`, and as many above `high`


@dataclass(frozen=True)
class Range:
    """Of some values: all of them, and all but 0.1 % at either end."""

    minimum: float
    low: float
    high: float
    maximum: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Range":
        """(n,) of finite values."""
        low, high = np.quantile(values, [TAIL, 1.0 - TAIL], method="inverted_cdf")
        return cls(*(float(value) for value in (values.min(), low, high, values.max())))

    @classmethod
    def of_arc(cls, degrees: np.ndarray) -> "Range":
        """(n,) of directions: the shortest arc that holds them, eastward from `minimum`; its end may exceed 180."""
        ordered = np.unique(degrees % 360.0)
        steps = np.diff(ordered, append=ordered[0] + 360.0)
        first = ordered[(steps.argmax() + 1) % len(ordered)]
        start = (first + 180.0) % 360.0 - 180.0
        return cls.of(start + (degrees - first) % 360.0)

    def outside(self, values: np.ndarray, slack: float = 0.0) -> np.ndarray:
        """Of the same shape; False for NaN."""
        found: np.ndarray = (values < self.low - slack) | (values > self.high + slack)
        return found

    def outside_arc(self, degrees: np.ndarray, slack: float = 0.0) -> np.ndarray:
        """The same for directions."""
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        found: np.ndarray = np.abs((degrees - middle + 180.0) % 360.0 - 180.0) > half + slack
        return found


@dataclass(frozen=True)
class TrainingRanges:
    """Over the frames of the training sequences, each counted once, and over their labels."""

    radiance: list[Range]  # mean of a frame, a channel each
    solar_zenith_deg: Range | None
    relative_azimuth_deg: Range | None  # an arc of `folded` directions
    features: list[Range]
    label: Range  # in the target's own unit

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TrainingRanges":
        """The inverse of `to_json`."""

        def read(part: Any) -> Any:
            if isinstance(part, list):
                return [read(one) for one in part]
            return None if part is None else Range(**part)

        return cls(**{name: read(part) for name, part in content.items()})


def fit_ranges(train: Samples, config: Config) -> TrainingRanges:
    """Of the training part."""
    rows = np.unique(train.index)
    pieces = np.array_split(rows, len(rows) // train.rows_at_once() + 1)
    light = np.concatenate([frame_means(train.table[piece]) for piece in pieces])  # (m,C)
    sun = None if train.sun_angles_deg is None else train.sun_angles_deg[rows].astype("float64")
    return TrainingRanges(
        radiance=_columns(light),
        solar_zenith_deg=None if sun is None else Range.of(sun[:, 0]),
        relative_azimuth_deg=None if sun is None else Range.of_arc(folded(sun[:, 1], config.augmentation)),
        features=_columns(train.features[rows]),
        label=Range.of(train.label),
    )


def frame_means(radiance: np.ndarray) -> np.ndarray:
    """(n,H,W,C) -> (n,C)."""
    found: np.ndarray = radiance.mean(axis=(1, 2), dtype="float64")
    return found


def folded(azimuth_deg: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Directions (n,) of the sun; those that training mirrored into each other (`batches.augment`) become one."""
    if augmentation.mirror_along_track:  # a and 180 - a
        azimuth_deg = np.rad2deg(np.arcsin(np.sin(np.deg2rad(azimuth_deg))))
    if augmentation.mirror_across_track:  # a and -a
        azimuth_deg = np.abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    return azimuth_deg


def _columns(values: np.ndarray) -> list[Range]:
    return [Range.of(column) for column in values.T]
