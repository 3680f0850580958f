"""How far the inputs and labels of other flights are from those of the training, and whether that is chance.

What is compared is the Kolmogorov-Smirnov distance of two distributions. Frames of one flight are alike, and flights of
one kind differ from each other: how much, the training flights say themselves, each against the others.
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
LIKELY = 0.001  # a shift that chance brings about more often is none
# n D² of n independent samples has the mean π²/12 and a relative scatter of 0.63, as χ² of 5 degrees over 5 has.
MEAN_SQUARE, FREEDOM = np.pi**2 / 12, 5


@dataclass(frozen=True)
class Series:
    """An input or the label, in order of time."""

    values: np.ndarray  # (m,)
    flight: np.ndarray  # (m,)
    given: np.ndarray | None = None  # (m,K) what the values are compared at equal of; see `given_label_and_sun`

    def left(self, coefficients: np.ndarray) -> np.ndarray:
        """(m,) what a straight line in `given` does not explain."""
        return self.values if self.given is None else self.values - self.given @ coefficients

    def line(self, chosen: np.ndarray) -> np.ndarray:
        """(K,) coefficients of that line through chosen values; none without `given`."""
        if self.given is None:
            return np.zeros(0)
        found: np.ndarray = np.linalg.lstsq(self.given[chosen], self.values[chosen], rcond=None)[0]
        return found


@dataclass(frozen=True)
class Distribution:
    """An input, or the label, in training."""

    quantiles: list[float]  # 101, of equal weight
    flights: int
    scatter: float | None  # mean n D² of one training flight against the others, n in flights; None of a single flight
    independent: float  # samples of a training flight, by their autocorrelation
    coefficients: list[float] = field(default_factory=list)  # of the line whose rest this is

    @classmethod
    def of(cls, series: Series) -> "Distribution":
        """Of the training part."""
        names = np.unique(series.flight)
        count, line = len(names), series.line(np.ones(len(series.flight), bool))
        rest = series.left(line)
        independent = effective_size(rest, series.flight) / count
        scatter = None
        if count > 1:
            alone = [_distance_from_others(series, series.flight == name) ** 2 for name in names]
            least = MEAN_SQUARE / independent  # what is left where flights do not differ
            scatter = max(float(np.mean(alone)) * (count - 1) / count, least)
        return cls(_short(quantiles_of(rest)), count, scatter, independent, line.tolist())

    def chance(self, distance: float, flights: int, independent: float) -> float | None:
        """How likely other flights of the same kind are as far away; `independent` samples each.

        None where a single training flight does not tell how much flights differ.
        """
        if self.scatter is None:
            return None
        shorter = MEAN_SQUARE * max(1.0 / independent - 1.0 / self.independent, 0.0)
        expected = self.scatter / self.flights + (self.scatter + shorter) / flights
        return float(fisher.sf(distance**2 / expected, FREEDOM, FREEDOM * (self.flights - 1)))


@dataclass(frozen=True)
class Shift:
    """An input of some flights beside that of the training."""

    name: str
    flights: list[str]
    training: list[float]  # 5, 50 and 95 % of the values are below
    here: list[float]
    stds: float  # how far the median is away, in standard deviations of the training
    distance: float  # Kolmogorov-Smirnov, 0 to 1
    chance: float | None  # of such a distance between flights of one kind

    @property
    def certain(self) -> bool:
        """Whether it is no chance."""
        return self.chance is not None and self.chance < LIKELY

    def sentence(self) -> str:
        """In words, with the numbers."""
        who = ", ".join(self.flights) if len(self.flights) < 4 else f"the {len(self.flights)} flights together"
        before, now = self.training[1], self.here[1]
        ratio = self.name.startswith((LIGHT, LABEL)) and not self.name.endswith(AT_EQUAL) and before > 0
        times = f", {now / before:.2f} times" if ratio else ""
        return (
            f"{self.name} of {who}: median {now:.3g}, training {before:.3g}{times} ({self.stds:+.2f} std); "
            f"Kolmogorov-Smirnov distance {self.distance:.2f}, chance {self.chance:.0e}"
        )


def _distance_from_others(series: Series, own: np.ndarray) -> float:
    """Of the chosen flight, with a line that knows nothing of it."""
    rest = series.left(series.line(~own))
    return ks_distance(rest[own], quantiles_of(rest[~own]))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def quantiles_of(values: np.ndarray) -> np.ndarray:
    """(101,) values that stand for equal shares."""
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    found: np.ndarray = np.quantile(values, levels, method="inverted_cdf")
    return found


def fit_distributions(train: Samples, config: Config) -> dict[str, Any]:
    """Of every input and of the label in the training part, for a file."""
    return {name: asdict(Distribution.of(series)) for name, series in series_of(train, config).items()}


def given_label_and_sun(label: np.ndarray, zenith_deg: np.ndarray | None) -> np.ndarray:
    """(n,K): what light depends on, a parabola of the label and the height of the sun."""
    sun = [] if zenith_deg is None else [np.cos(np.deg2rad(zenith_deg))]
    return np.stack([np.ones_like(label), label, label**2, *sun], axis=1)


def series_of(samples: Samples, config: Config) -> dict[str, Series]:
    """Inputs of the frames, each once, labels of the sequences, and the light at equal labels and sun."""
    rows = np.unique(samples.index)
    flight = np.empty(len(samples.table), int)
    flight[samples.index] = samples.flight[:, None]
    pieces = np.array_split(rows, len(rows) // samples.rows_at_once() + 1)
    light = np.concatenate([frame_means(samples.table[piece]) for piece in pieces])  # (m,C)
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
    """Every input and the label: of all flights together, then of each where there are several."""
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
    """`groups` are compared: each may be as far as this by chance."""
    distance = ks_distance(values, np.asarray(reference.quantiles))
    chance = reference.chance(distance, len(names), effective_size(values, flight) / len(names))
    before, now = (np.quantile(of, [0.05, 0.5, 0.95], method="inverted_cdf") for of in (reference.quantiles, values))
    stds = float(now[1] - before[1]) / (float(np.std(reference.quantiles)) or 1.0)
    likely = None if chance is None else min(chance * groups, 1.0)
    return Shift(name, names, before.tolist(), now.tolist(), stds, distance, likely)


def meaning(found: list[Shift]) -> str:
    """What the shifts say together; "" where there is none."""
    names = {shift.name for shift in found if shift.certain}
    light, label = (any(name.startswith(word) for name in names) for word in (LIGHT, LABEL))
    if any(name.endswith(AT_EQUAL) for name in names):
        return (
            "At equal labels and sun the light is another than in training: another gain or calibration of the camera, "
            "another surface, or labels of another kind. The scores tell more of that than of the model; mend the "
            "radiance or the labels, or train on flights of this kind too."
        )
    if light and label:
        return "Light and labels are others than in training: other clouds, of which the model has seen few or none."
    if light:
        return "The labels are as in training and the light is not: another sun, another surface or another camera."
    if label:
        return (
            "The light is as in training and the labels are not: look at the lidar's calibration and at the filters of "
            "data.lidar and target."
        )
    return "Sun or further inputs are others than in training: look at their files and units." if names else ""


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray, n_first: float, n_second: float) -> tuple[float, float]:
    """The largest distance of two distributions, and how likely chance makes one as large, by effective sizes."""
    distance = ks_distance(first, second)
    size = n_first * n_second / (n_first + n_second)
    return distance, float(kstwobign.sf(np.sqrt(size) * distance))


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest difference of two distribution functions, 0 to 1."""
    return float(ks_2samp(first, second, method="asymp").statistic)
