"""What the labelled frames of each flight show beside those of the others, before any network.

Labels that fit another flight's frames, labels outside of those of the training, one value repeated, brightness at
equal labels. NumPy only; n labelled frames of a flight, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloudml_tf.data.independence import effective_size
from cloudml_tf.data.samples import Examples
from cloudml_tf.diagnostics.alignment import ranks
from cloudml_tf.diagnostics.gain import ratios_at_labels

FEWEST_LABELS = 20
NEAR = 5  # labels to either side, by which two flights' times may differ from their starts
ITS_FRAMES = 0.5  # r of labels and brightness from which on they belong together
BESIDE_OWN = 0.3  # by which another flight's frames must fit better
CERTAIN = 5.0  # standard errors of r = 0
NEVER_SHOWN = 0.2  # share of a flight's labels that lie outside of those of the training
REPEATED = 0.5  # share of a flight's labels that are one value
RANGE_MARGIN = 0.05  # of the std of the training's labels


@dataclass(frozen=True)
class Series:
    """The labelled frames of a flight, in the order of time."""

    time_s: np.ndarray  # (n,)
    label: np.ndarray  # (n,)
    brightness: np.ndarray  # (n,C) at nadir


@dataclass(frozen=True)
class Seen:
    """A flight in numbers."""

    labels: int
    worth: float  # effective number of labels
    mean: float  # of the labels
    std: float
    brightness: float  # median at nadir, of the first channel
    ratio: float | None  # brightness at equal labels, over that of the other flights
    below: float  # share of the labels under all those of the training
    above: float  # share of the labels over all those of the training
    by_chance: float  # share that would be under or over, were all flights alike
    repeated: float  # share of the labels that are one value other than 0
    own_r: float  # |r| of ranks of labels and brightness
    fits: str = ""  # the flight whose frames its labels fit instead
    fits_r: float = 0.0

    @property
    def outside(self) -> float:
        """Share of the labels that training has not shown."""
        return self.below + self.above

    @property
    def never_shown(self) -> bool:
        """Whether much of the labels lies outside of those of the training, beyond doubt."""
        share = self.outside
        doubt = 2.0 * float(np.sqrt(share * (1.0 - share) / max(self.worth, 1.0)))
        return share > NEVER_SHOWN and share - doubt > self.by_chance


def series_of(parts: Mapping[str, Examples]) -> dict[str, Series]:
    """Labelled frames by flight, over all splits; empty for scenes, and for labels along a track."""
    pieces: dict[str, list[Series]] = {}
    for examples in parts.values():
        if examples.time_s is None or examples.label.ndim > 1:
            return {}
        known = examples.known
        time_s, label = examples.time_s[known], examples.label[known]
        light, group = examples.radiance_at_labels(), examples.group[known]
        for number in np.unique(group):
            here = group == number
            name = examples.group_names[number]
            pieces.setdefault(name, []).append(Series(time_s[here], label[here], light[here]))
    return {name: _joined(found) for name, found in pieces.items()}


def _joined(found: list[Series]) -> Series:
    time_s, label, light = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("time_s", "label", "brightness")
    )
    order = np.argsort(time_s)
    return Series(time_s[order], label[order], light[order])


def look(series: Mapping[str, Series], training: Sequence[str]) -> dict[str, Seen]:
    """Each flight beside the others; `training` names those of the training split."""
    known = [series[name].label for name in training if name in series]
    some = np.concatenate(known) if known else np.zeros(0)
    margin = RANGE_MARGIN * float(some.std()) if len(some) else 0.0
    low, high = (float(some.min()) - margin, float(some.max()) + margin) if len(some) else (-np.inf, np.inf)
    ratios = ratios_at_labels({name: (one.label, one.brightness) for name, one in series.items()})
    worth = {name: _worth(one.label) for name, one in series.items()}
    by_chance = 2.0 / (sum(worth[name] for name in training if name in worth) + 1.0)
    found = {}
    for name, one in series.items():
        label = one.label
        found[name] = Seen(
            labels=len(label),
            worth=worth[name],
            mean=float(label.mean()),
            std=float(label.std()),
            brightness=float(np.median(one.brightness[:, 0])),
            ratio=ratios.get(name),
            below=float(np.mean(label < low)),
            above=float(np.mean(label > high)),
            by_chance=by_chance,
            repeated=repeated(label),
            own_r=_r(label, one.brightness),
        )
    fits = {name: _fits(name, one, series) for name, one in found.items()}
    return {name: replace(one, fits=fits[name][0], fits_r=fits[name][1]) for name, one in found.items()}


def _worth(label: np.ndarray) -> float:
    return effective_size(label, np.zeros(len(label))) if np.ptp(label) > 0 else 1.0


def repeated(label: np.ndarray) -> float:
    """The share of the labels that are one value; 0, which clear sky may be, does not count."""
    values, count = np.unique(label[label != 0], return_counts=True)
    return float(count.max() / len(label)) if len(values) and len(label) >= FEWEST_LABELS else 0.0


def _r(label: np.ndarray, brightness: np.ndarray) -> float:
    """|r| of ranks, of the channel with the highest; 0 for too few."""
    if len(label) < FEWEST_LABELS:
        return 0.0
    return float(np.abs(ranks(label) @ np.stack([ranks(c) for c in brightness.T], axis=1)).max() / len(label))


def _fits(name: str, own: Seen, series: Mapping[str, Series]) -> tuple[str, float]:
    """The flight whose frames these labels fit far better than their own, beyond doubt, at the same time since the
    start; and r. Its name is empty where there is none."""
    label = series[name].label
    if len(label) < FEWEST_LABELS or np.ptp(label) == 0:
        return "", 0.0
    least = max(ITS_FRAMES, own.own_r + BESIDE_OWN, CERTAIN / np.sqrt(own.worth))
    other, r = max(
        ((other, _r_across(series[name], series[other])) for other in series if other != name),
        key=lambda pair: pair[1],
        default=("", 0.0),
    )
    return (other, r) if r > least else ("", 0.0)


def _r_across(labels: Series, frames: Series) -> float:
    """The highest |r| of one flight's labels and another's brightness, at times since the start that are a few labels
    apart at most."""
    since, there = labels.time_s - labels.time_s[0], frames.time_s - frames.time_s[0]
    if len(since) < FEWEST_LABELS or len(there) < FEWEST_LABELS:
        return 0.0
    step = float(np.median(np.diff(since)))
    best = 0.0
    for shift in range(-NEAR, NEAR + 1):
        wanted = since + shift * step
        place = np.clip(np.searchsorted(there, wanted - 0.5 * step), 0, len(there) - 1)
        near = np.abs(there[place] - wanted) <= 0.5 * step
        if near.sum() >= max(FEWEST_LABELS, 0.5 * len(since)):
            best = max(best, _r(labels.label[near], frames.brightness[place[near]]))
    return best
