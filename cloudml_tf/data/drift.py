"""How far inputs and labels of other flights are from those of the training, and whether that is chance.

The measure is the Kolmogorov-Smirnov distance of two distributions. Frames of one flight are alike, and flights of one
kind differ from each other: the training flights, each against the others, show by how much.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.stats import f as fisher
from scipy.stats import ks_2samp, kstwobign

from cloudml_tf.config.schema import Config
from cloudml_tf.data.independence import effective_size
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.training_ranges import folded, frame_means

QUANTILES = 101
LIGHT, LABEL, AT_EQUAL = "mean radiance of channel", "label", "at equal label and sun"
LIKELY = 0.001  # a shift that chance explains more often is not reported
# n D² of n independent samples has the mean π²/12 and a relative scatter of 0.63, as χ² of 5 degrees over 5 has.
MEAN_SQUARE, FREEDOM = np.pi**2 / 12, 5


@dataclass(frozen=True)
class Series:
    """An input or the label, in order of time."""

    values: np.ndarray  # (m,)
    flight: np.ndarray  # (m,)
    given: np.ndarray | None = None  # (m,K) what is held equal in the comparison; see `given_label_and_sun`

    def left(self, coefficients: np.ndarray) -> np.ndarray:
        """The residual (m,) of a straight line in `given`."""
        return self.values if self.given is None else self.values - self.given @ coefficients

    def line(self, chosen: np.ndarray) -> np.ndarray:
        """The coefficients (K,) of that line through chosen values; none without `given`."""
        if self.given is None:
            return np.zeros(0)
        return np.linalg.lstsq(self.given[chosen], self.values[chosen], rcond=None)[0]


@dataclass(frozen=True)
class Distribution:
    """The distribution of an input, or of the label, in training."""

    quantiles: list[float]  # 101, of equal weight
    flights: int
    scatter: float | None  # mean n D² of one training flight against the others, n in flights; None of a single flight
    independent: float  # effective samples per training flight, by their autocorrelation
    coefficients: list[float] = field(default_factory=list)  # of the line whose residual this is

    @classmethod
    def of(cls, series: Series) -> "Distribution":
        """Fit the distribution of the training split."""
        names = np.unique(series.flight)
        count, line = len(names), series.line(np.ones(len(series.flight), bool))
        rest = series.left(line)
        independent = effective_size(rest, series.flight) / count
        scatter = None
        if count > 1:
            alone = [_distance_from_others(series, series.flight == name) ** 2 for name in names]
            least = MEAN_SQUARE / independent  # the remaining scatter where flights do not differ
            scatter = max(float(np.mean(alone)) * (count - 1) / count, least)
        quantiles = [float(f"{value:.6g}") for value in quantiles_of(rest)]
        return cls(quantiles, count, scatter, independent, line.tolist())

    def chance(self, distance: float, flights: int, independent: float) -> float | None:
        """The probability that other flights of the same kind are as far away; `independent` samples each.

        None where a single training flight does not show how much flights differ.
        """
        if self.scatter is None:
            return None
        shorter = MEAN_SQUARE * max(1.0 / independent - 1.0 / self.independent, 0.0)
        expected = self.scatter / self.flights + (self.scatter + shorter) / flights
        return float(fisher.sf(distance**2 / expected, FREEDOM, FREEDOM * (self.flights - 1)))


@dataclass(frozen=True)
class Shift:
    """An input of some flights compared with that of the training."""

    name: str
    flights: list[str]
    training: list[float]  # 5, 50 and 95 % of the values are below
    here: list[float]
    stds: float  # how far the median is away, in standard deviations of the training
    distance: float  # Kolmogorov-Smirnov, 0 to 1
    chance: float | None  # of such a distance between flights of one kind

    @property
    def certain(self) -> bool:
        """Whether chance is an unlikely explanation."""
        return self.chance is not None and self.chance < LIKELY

    def sentence(self) -> str:
        """The shift in words, with the numbers."""
        who = ", ".join(self.flights) if len(self.flights) < 4 else f"the {len(self.flights)} flights together"
        before, now = self.training[1], self.here[1]
        ratio = self.name.startswith((LIGHT, LABEL)) and not self.name.endswith(AT_EQUAL) and before > 0
        times = f", {now / before:.2f} times" if ratio else ""
        return (
            f"{self.name} of {who}: median {now:.3g}, training {before:.3g}{times} ({self.stds:+.2f} std); "
            f"Kolmogorov-Smirnov distance {self.distance:.2f}, chance {self.chance:.0e}"
        )


def _distance_from_others(series: Series, own: np.ndarray) -> float:
    """The distance of the chosen flight from the others, by a line fitted without it."""
    rest = series.left(series.line(~own))
    return ks_distance(rest[own], quantiles_of(rest[~own]))


def quantiles_of(values: np.ndarray) -> np.ndarray:
    """The quantiles (101,) at equal probability steps."""
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.quantile(values, levels, method="inverted_cdf")


def fit_distributions(train: Samples, config: Config) -> dict[str, Any]:
    """Fit the distribution of every input and of the label in the training split, for a file."""
    return {name: asdict(Distribution.of(series)) for name, series in series_of(train, config).items()}


def given_label_and_sun(label: np.ndarray, zenith_deg: np.ndarray | None) -> np.ndarray:
    """The variables (n,K) that mean radiance depends on: a parabola in the label, and the height of the sun."""
    sun = [] if zenith_deg is None else [np.cos(np.deg2rad(zenith_deg))]
    return np.stack([np.ones_like(label), label, label**2, *sun], axis=1)


def series_of(samples: Samples, config: Config) -> dict[str, Series]:
    """Inputs of the frames, each once, labels of the sequences, and the mean radiance at equal labels and sun."""
    rows = np.unique(samples.index)
    flight = np.empty(len(samples.table), int)
    flight[samples.index] = samples.flight[:, None]
    light = np.concatenate([frame_means(frames) for frames in samples.training_frames()])  # (m,C)
    found = {f"{LIGHT} {n}": values for n, values in enumerate(light.T)}
    sun = None if samples.sun_angles_deg is None else samples.sun_angles_deg.astype("float64")
    if sun is not None:
        found["solar zenith, degrees"] = sun[rows, 0]
        found["sun's azimuth from the heading, degrees"] = folded(sun[rows, 1], config.augmentation)
    found |= {f"feature {f.name}": samples.features[rows, n] for n, f in enumerate(config.data.features)}
    by_name = {name: Series(values, flight[rows]) for name, values in found.items()}
    by_name[f"{LABEL} {config.target.name}"] = Series(samples.label, samples.flight)
    middle = samples.index[:, samples.index.shape[1] // 2]
    given = given_label_and_sun(samples.label, None if sun is None else sun[middle, 0])
    for n, values in enumerate(light[np.searchsorted(rows, middle)].T):
        by_name[f"{LIGHT} {n} {AT_EQUAL}"] = Series(values, samples.flight, given)
    return by_name


def shifts(samples: Samples, distributions: dict[str, Any], config: Config) -> list[Shift]:
    """The shift of every input and the label: for all flights together, then for each where there are several."""
    found = []
    for name, series in series_of(samples, config).items():
        if name not in distributions:
            continue
        reference, numbers = Distribution(**distributions[name]), np.unique(series.flight)
        rest = series.left(np.asarray(reference.coefficients))
        groups = [numbers, *(numbers[:, None] if len(numbers) > 1 else [])]
        for group in groups:
            here = np.isin(series.flight, group)
            names = [samples.flight_names[number] for number in group]
            found.append(_shift(name, names, reference, rest[here], series.flight[here], len(groups)))
    return found


def _shift(
    name: str, names: list[str], reference: Distribution, values: np.ndarray, flight: np.ndarray, groups: int
) -> Shift:
    """The shift of one group out of `groups`: chance has as many tries."""
    distance = ks_distance(values, np.asarray(reference.quantiles))
    chance = reference.chance(distance, len(names), effective_size(values, flight) / len(names))
    before, now = (np.quantile(of, [0.05, 0.5, 0.95], method="inverted_cdf") for of in (reference.quantiles, values))
    stds = float(now[1] - before[1]) / (float(np.std(reference.quantiles)) or 1.0)
    likely = None if chance is None else min(chance * groups, 1.0)
    return Shift(name, names, before.tolist(), now.tolist(), stds, distance, likely)


def meaning(found: list[Shift]) -> str:
    """Interpret the shifts together; "" where there is none."""
    names = {shift.name for shift in found if shift.certain}
    light, label = (any(name.startswith(word) for name in names) for word in (LIGHT, LABEL))
    if any(name.endswith(AT_EQUAL) for name in names):
        return (
            "At equal labels and sun the mean radiance differs from training: another gain or calibration of the "
            "camera, another surface, or labels of another kind. The scores show that more than the model; correct the "
            "radiance or the labels, or train on flights of this kind too."
        )
    if light and label:
        return "Mean radiance and labels differ from training: other clouds, of which the model has seen few or none."
    if light:
        return (
            "The labels are as in training, the mean radiance is not: another sun, another surface or another camera."
        )
    if label:
        return (
            "The mean radiance is as in training, the labels are not: check the lidar's calibration and the filters of "
            "data.lidar and target."
        )
    return "Sun or further inputs differ from training: check their files and units." if names else ""


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray, n_first: float, n_second: float) -> tuple[float, float]:
    """The largest distance of two distributions, and the probability of one as large by chance, by effective sizes."""
    distance = ks_distance(first, second)
    size = n_first * n_second / (n_first + n_second)
    return distance, float(kstwobign.sf(np.sqrt(size) * distance))


def compared(own: np.ndarray, reference: np.ndarray, n_own: float, n_reference: float) -> dict[str, float]:
    """`ks` and `p` of `kolmogorov_smirnov`, and the difference of the means in `stds` of the reference."""
    distance, chance = kolmogorov_smirnov(own, reference, n_own, n_reference)
    return {"ks": distance, "p": chance, "stds": float((own.mean() - reference.mean()) / (reference.std() or 1.0))}


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance: the largest difference of two distribution functions, 0 to 1."""
    return float(ks_2samp(first, second, method="asymp").statistic)
