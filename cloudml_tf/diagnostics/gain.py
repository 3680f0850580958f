"""Differences between flights: the camera's gain, and the distributions of labels and brightness."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import spearmanr

from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.diagnostics.frames import FrameScan

BINS = 5  # of the label, with equal numbers in the tested flight; and quantiles of the brightness
FEWEST_IN_BIN = 5
SMALLEST_GAIN = 1.5  # clouds, sun, sea and regimes of flights with one gain have given 0.71 to 1.3
LEAST_CORRELATION = 0.3  # of label and brightness; below, equal labels do not mean equal clouds
CLEAR_OF_THE_OTHERS = 4.0  # standard deviations of the other flights among themselves
STEADY = 0.5  # of the logarithm: how much the ratio of distributions may vary from dark to bright


@dataclass(frozen=True)
class Gain:
    """A flight's brightness relative to that of the other flights, in one channel."""

    flight: str
    channel: int
    at_equal: str  # "labels", or "ranks" of the brightness itself
    ratio: float
    scatter: float  # std of the logarithm of the same ratio among the other flights
    outlier: bool


def brightness_at_labels(flight: Flight, scan: FrameScan) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and nadir brightness (n,C) of the labelled frames that are images of their own moment."""
    label = flight.label[scan.frames]
    chosen = np.isfinite(label) & scan.usable
    return label[chosen], scan.nadir[chosen]


def gains(flights: Sequence[Flight], scans: dict[str, FrameScan], aligned: set[str]) -> list[Gain]:
    """Compare each flight with all others. Needs three flights.

    A gain multiplies the brightness at every label, thin and thick cloud alike. A flight is an outlier if its ratio is
    far from 1, far outside the scatter of the others, and on one side in every bin of the label.

    Where labels say little about brightness, or are not `aligned` with their frames, the whole distributions of
    brightness are compared: a gain multiplies dark and bright alike, other clouds do not.
    """
    found: list[Gain | None] = []
    pairs = {flight.name: brightness_at_labels(flight, scans[flight.name]) for flight in flights}
    for channel in range(flights[0].frame_shape[2]):
        related = [name for name in pairs if name in aligned and _is_related(*pairs[name], channel)]
        related = related if len(related) > 2 else []
        found += [_gain_at_labels(name, channel, related, pairs) for name in related]
        rest = [name for name in pairs if name not in related]
        found += [_gain_at_ranks(name, channel, list(scans.values())) for name in rest]
    return [gain for gain in found if gain is not None]


def ratios_at_labels(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """How bright each flight is at equal labels, over the others; of the channel in which it is furthest from 1.

    `pairs` are labels (n,) and brightness (n,C). Flights whose labels say little about brightness are left out.
    """
    channels = min((light.shape[1] for _, light in pairs.values()), default=0)
    found: dict[str, float] = {}
    for channel in range(channels):
        related = [name for name in pairs if _is_related(*pairs[name], channel)]
        for name in related if len(related) > 2 else []:
            gain = _gain_at_labels(name, channel, related, pairs)
            if gain is not None and gain.ratio > 0:
                found[name] = max(found.get(name, 1.0), gain.ratio, key=lambda ratio: abs(np.log(ratio)))
    return found


def _is_related(label: np.ndarray, brightness: np.ndarray, channel: int) -> bool:
    if len(label) < BINS * FEWEST_IN_BIN or np.ptp(label) == 0 or np.ptp(brightness[:, channel]) == 0:
        return False
    return bool(abs(spearmanr(label, brightness[:, channel]).statistic) >= LEAST_CORRELATION)


def _gain_at_labels(
    name: str, channel: int, names: list[str], pairs: dict[str, tuple[np.ndarray, np.ndarray]]
) -> Gain | None:
    edges = np.quantile(pairs[name][0], np.linspace(0, 1, BINS + 1))
    logs = {other: _binned(pairs[other][0], pairs[other][1][:, channel], edges) for other in names}  # (BINS,) each
    others = np.stack([values for other, values in logs.items() if other != name])  # (flights,BINS)
    shared = np.isfinite(logs[name]) & (np.isfinite(others).sum(axis=0) >= 2)
    others = others[np.isfinite(others[:, shared]).any(axis=1)][:, shared]
    if shared.sum() < 2:
        return None
    log_ratio, scatter, difference = _compare(logs[name][shared], others)
    outlier = _is_far(log_ratio, scatter) and bool((np.sign(difference) == np.sign(log_ratio)).all())
    return Gain(name, channel, "labels", float(np.exp(log_ratio)), scatter, outlier)


def _gain_at_ranks(name: str, channel: int, scans: list[FrameScan]) -> Gain | None:
    ranks = (np.arange(BINS) + 0.5) / BINS
    quantiles = {s.name: np.quantile(s.nadir[s.usable, channel], ranks) for s in scans if s.usable.sum() >= 10 * BINS}
    logs = {other: np.log(values) for other, values in quantiles.items() if values[0] > 0}
    if name not in logs or len(logs) < 3:
        return None
    others = np.stack([values for other, values in logs.items() if other != name])
    log_ratio, scatter, difference = _compare(logs[name], others)
    outlier = _is_far(log_ratio, scatter) and bool(np.ptp(difference) < STEADY * abs(log_ratio))
    return Gain(name, channel, "ranks", float(np.exp(log_ratio)), scatter, outlier)


def _compare(own: np.ndarray, others: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Logarithms (K,) and (flights,K): of the ratio, its scatter among the others, and the ratio in each bin (K,)."""
    middle = np.nanmedian(others, axis=0)
    difference = own - middle
    scatter = float(np.std(np.nanmean(others - middle, axis=1), ddof=1))
    return float(np.median(difference)), scatter, difference


def _is_far(log_ratio: float, scatter: float) -> bool:
    return abs(log_ratio) > max(float(np.log(SMALLEST_GAIN)), CLEAR_OF_THE_OTHERS * scatter)


def _binned(label: np.ndarray, brightness: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Log of the median brightness in each bin of the label; NaN where there are too few, or it is not positive."""
    found = np.full(len(edges) - 1, np.nan)
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (label >= low) & (label <= high)
        if inside.sum() >= FEWEST_IN_BIN:
            middle = float(np.median(brightness[inside]))
            found[i] = np.log(middle) if middle > 0 else np.nan
    return found
