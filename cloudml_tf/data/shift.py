"""What differs from flight to flight: the camera's gain, and the distributions of labels and brightness."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import ks_2samp, kstwobign, spearmanr

from cloudml_tf.data.flights import Flight
from cloudml_tf.data.quality import FrameScan

BINS = 5  # of the label, with equal numbers of the judged flight
FEWEST_IN_BIN = 5
SMALLEST_GAIN = 1.35  # clouds, sun and regimes of flights with one gain have given 0.91 to 1.17
LEAST_CORRELATION = 0.3  # of label and brightness; below, equal labels do not mean equal clouds
CLEAR_OF_THE_OTHERS = 4.0  # standard deviations of the other flights among themselves


@dataclass(frozen=True)
class Gain:
    """A flight's brightness at equal labels, over that of the other flights."""

    flight: str
    channel: int
    ratio: float
    scatter: float  # std of the logarithm of the same ratio among the other flights
    outlier: bool


def brightness_at_labels(flight: Flight, scan: FrameScan) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and nadir brightness (n,C) of the labelled frames that are images of their own moment."""
    label = flight.label[scan.frames]
    chosen = np.isfinite(label) & scan.usable
    return label[chosen], scan.nadir[chosen]


def gains(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Gain]:
    """Compare each flight with all others; `pairs` is what `brightness_at_labels` found. Needs three flights.

    A gain multiplies the brightness at every label, thin and thick cloud alike. A flight is an outlier if its ratio is
    far from 1, far outside of the scatter of the others, and on one side in every bin of the label. Flights whose
    labels say little about their brightness are left out.
    """
    channels = max((brightness.shape[1] for _, brightness in pairs.values()), default=0)
    found = []
    for channel in range(channels):
        names = [name for name, pair in pairs.items() if _is_related(*pair, channel)]
        found += [_gain(name, channel, names, pairs) for name in names] if len(names) > 2 else []
    return [gain for gain in found if gain is not None]


def _is_related(label: np.ndarray, brightness: np.ndarray, channel: int) -> bool:
    if len(label) < BINS * FEWEST_IN_BIN or np.ptp(label) == 0 or np.ptp(brightness[:, channel]) == 0:
        return False
    return bool(abs(spearmanr(label, brightness[:, channel]).statistic) >= LEAST_CORRELATION)


def _gain(name: str, channel: int, names: list[str], pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Gain | None:
    edges = np.quantile(pairs[name][0], np.linspace(0, 1, BINS + 1))
    logs = {other: _binned(pairs[other][0], pairs[other][1][:, channel], edges) for other in names}  # (BINS,) each
    others = np.stack([values for other, values in logs.items() if other != name])  # (flights,BINS)
    shared = np.isfinite(logs[name]) & (np.isfinite(others).sum(axis=0) >= 2)
    if shared.sum() < 2:
        return None
    others = others[np.isfinite(others[:, shared]).any(axis=1)][:, shared]
    middle = np.nanmedian(others, axis=0)
    difference = logs[name][shared] - middle
    log_ratio = float(np.median(difference))
    scatter = float(np.std(np.nanmean(others - middle, axis=1), ddof=1))
    one_sided = bool((np.sign(difference) == np.sign(log_ratio)).all())
    far = abs(log_ratio) > max(float(np.log(SMALLEST_GAIN)), CLEAR_OF_THE_OTHERS * scatter)
    return Gain(name, channel, float(np.exp(log_ratio)), scatter, far and one_sided)


def _binned(label: np.ndarray, brightness: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Log of the median brightness in each bin of the label; NaN for too few, or where it is not positive."""
    found = np.full(len(edges) - 1, np.nan)
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (label >= low) & (label <= high)
        if inside.sum() >= FEWEST_IN_BIN:
            middle = float(np.median(brightness[inside]))
            found[i] = np.log(middle) if middle > 0 else np.nan
    return found


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray, n_first: float, n_second: float) -> tuple[float, float]:
    """The largest distance of two distributions, and how likely chance makes one as large, by effective sizes."""
    distance = float(ks_2samp(first, second).statistic)
    size = n_first * n_second / (n_first + n_second)
    return distance, float(kstwobign.sf(np.sqrt(size) * distance))
