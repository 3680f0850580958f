"""What labels reveal about themselves: their unit, their memory along the track, and their noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloudml_tf.config.data import Data, Target
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.lidar import read_profiles
from cloudml_tf.data.samples import Examples

METRES_IN_A_KILOMETRE = 1000.0
HIGHEST_CLOUD_KM, LOWEST_MEDIAN_M = 25.0, 60.0  # a median of 60 cannot be km; clouds of 60 m hardly exist
RESOLVED = 0.5  # neighbours' share of the variance, above which noise and clouds cannot be separated


def height_unit(path: Path, data: Data, target: Target) -> tuple[str, float]:
    """("km" or "m", median in that unit) of a height label, regardless of its range.

    "m" where the values are heights in metres and impossible as they are configured.
    """
    if not target.quantity.is_height:
        return "km", float("nan")
    free = target.model_copy(update={"minimum": None, "maximum": None})
    for lidar, unit, factor in ((data.lidar, "km", 1.0), (metres(data).lidar, "m", METRES_IN_A_KILOMETRE)):
        values = read_profiles(path, lidar, free, data.limits).label
        values = values[np.isfinite(values)]
        median = factor * float(np.median(values)) if len(values) else float("nan")
        if len(values) and (unit == "km" or LOWEST_MEDIAN_M < median < METRES_IN_A_KILOMETRE * HIGHEST_CLOUD_KM):
            return unit, median
    return "km", float("nan")


def metres(data: Data) -> Data:
    """The same data with heights read as metres."""
    return data.model_copy(update={"lidar": data.lidar.model_copy(update={"height_unit": "m"})})


def height_dataset(config: Config) -> str:
    """The dataset that a height label is read from."""
    return str(getattr(config.data.lidar, config.target.quantity.lidar))


@dataclass(frozen=True)
class LabelNoise:
    """Half the mean squared difference of neighbouring labels, as shares of the variance."""

    interval_s: float  # between neighbouring labels
    first: float  # one interval apart
    second: float  # two
    share: float | None  # noise as a share of the variance, extrapolated to distance 0; None where unknown


def label_noise(samples: Examples, value: np.ndarray) -> LabelNoise | None:
    """Estimate the noise from the structure function of (n,) labels, in the loss's space; None for too few.

    Clouds give γ(h) = noise + a h^(2/3) (the k^-5/3 spectrum), so two distances give the noise. It holds where
    neighbouring labels still resemble each other; else a rough cloud and a noisy lidar look the same.
    """
    steps = [np.diff(np.asarray(samples.time_s)[samples.group == number]) for number in np.unique(samples.group)]
    steps = [step for step in steps if len(step)]
    if not steps:
        return None
    interval = float(np.median(np.concatenate(steps)))
    first, second = (_half_squared_difference(samples, value, k * interval, 0.3 * interval) for k in (1, 2))
    if not (np.isfinite(first) and np.isfinite(second)):
        return None
    rise = (second - first) / (2.0 ** (2.0 / 3.0) - 1.0)
    share = float(np.clip(first - rise, 0.0, first)) if first < RESOLVED else None
    return LabelNoise(interval, first, second, share)


def _half_squared_difference(samples: Examples, value: np.ndarray, apart_s: float, slack_s: float) -> float:
    """Half the mean squared difference over pairs of one flight that are `apart_s` apart, relative to the variance
    within flights. NaN for few pairs."""
    squares, variance = [], []
    for number in np.unique(samples.group):
        here = samples.group == number
        t, x = np.asarray(samples.time_s)[here], value[here]
        partner = np.minimum(np.searchsorted(t, t + apart_s - slack_s), len(t) - 1)
        paired = np.abs(t[partner] - t - apart_s) < slack_s
        squares.append((x[partner] - x)[paired] ** 2)
        variance.append((x - x.mean()) ** 2)
    joined, spread = np.concatenate(squares), np.concatenate(variance)
    if len(joined) < 20 or spread.mean() == 0:
        return float("nan")
    return float(0.5 * joined.mean() / spread.mean())
