"""Intervals around predictions, and how good they are. NumPy only.

    members (m,n) ─ mean, spread (n,) ─ Band ─ flight_quantile (calibration flights) ─ intervals ─ coverage

Split-conformal intervals (Papadopoulos et al. 2002; Lei et al. 2018): the errors on flights that no member was trained
on show how wide an interval has to be. Frames of one flight share its clouds, its gain and its faults, so they are not
exchangeable with those of another; *flights* are. Calibration therefore counts flights, in one of three ways:

    pooled      the quantile of all errors, each flight with equal weight ("CDF pooling", Dunn, Wasserman and Ramdas
                2023, arXiv 1809.07441): correct on average over many flights, without a guarantee for few
    largest     the largest of the flights' own quantiles: a further exchangeable flight is covered as a whole with
                probability K/(K+1), K the number of calibration flights; wider
    guaranteed  as pooled, with one more flight at infinity (Lee, Barber and Willett, arXiv 2306.06342): covers on
                average for any number of flights, and for K < c/(1-c), 9 for c = 90 %, only by an infinite width

Functions with `xp` take NumPy (default) or `keras.ops`, so that an exported model uses the same lines.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Pooling = Literal["pooled", "largest", "guaranteed"]
Scale = Literal["constant", "spread", "head"]
TINY = 1e-12  # rounding of cumulated weights


def centre(members: Any, xp: Any = np) -> Any:
    """The mean of the members, (m,n) -> (n,)."""
    return xp.mean(members, axis=0)


def spread(members: Any, xp: Any = np) -> Any:
    """The standard deviation between members, (m,n) -> (n,), unbiased in its square; 0 for one member."""
    count = members.shape[0]
    return xp.std(members, axis=0) * (count / max(count - 1, 1)) ** 0.5


@dataclass(frozen=True)
class Band:
    """The basis of an interval: [lower - q unit, upper + q unit], q from calibration.

    lower = upper = mean and unit = 1 give the same width everywhere; unit = √(spread² + floor²) follows the members;
    the quantiles of a head with unit = 1 are conformalised quantile regression (Romano et al. 2019).
    """

    lower: Any  # (n,)
    upper: Any  # (n,)
    unit: Any  # (n,)

    def scores(self, target: np.ndarray) -> np.ndarray:
        """The q at which each target (n,) is just inside."""
        return np.maximum(self.lower - target, target - self.upper) / self.unit

    def widened(self, q: float, xp: Any = np) -> tuple[Any, Any]:
        """The ends (n,), (n,); a negative q narrows no further than to the middle."""
        middle = 0.5 * (self.lower + self.upper)
        low, high = self.lower - q * self.unit, self.upper + q * self.unit
        return xp.minimum(low, middle), xp.maximum(high, middle)

    def take(self, chosen: np.ndarray) -> "Band":
        """Select samples."""
        return Band(self.lower[chosen], self.upper[chosen], self.unit[chosen])


def flight_quantile(scores: np.ndarray, flight: np.ndarray, level: float, pooling: Pooling = "pooled") -> float:
    """The q that covers `level` of a new flight; infinite where "guaranteed" has too few flights.

    Args:
        scores: (n,) of `Band.scores` on calibration flights.
        flight: (n,) the flight of each.
        level: the share to be covered, such as 0.9.
        pooling: see the head of this module.
    """
    names, number, labels = np.unique(flight, return_inverse=True, return_counts=True)
    if pooling == "largest":
        return max(_quantile(scores[number == k], np.full(n, 1.0 / (n + 1)), level) for k, n in enumerate(labels))
    flights = len(names) + (pooling == "guaranteed")
    return _quantile(scores, 1.0 / (flights * labels[number]), level)


def _quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """The smallest value with `level` of the weight at or below it; weights that do not reach 1 are at infinity."""
    order = np.argsort(values, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), level - TINY)
    return float(values[order][reached]) if reached < len(values) else float("inf")


def left_out(band: Band, target: np.ndarray, flight: np.ndarray, level: float, pooling: Pooling) -> dict[str, float]:
    """Coverage of each calibration flight by a calibration on the others: what to expect for a new flight."""
    scores, names = band.scores(target), np.unique(flight)
    if len(names) < 2:
        return {}
    found = {}
    for name in names:
        others = flight != name
        q = flight_quantile(scores[others], flight[others], level, pooling)
        found[str(name)] = float(np.mean(scores[~others] <= q))
    return found


def with_error(value: np.ndarray, lower: np.ndarray, upper: np.ndarray, extra: np.ndarray) -> list[np.ndarray]:
    """The ends (n,) of an interval around values (n,), with a further error added: half-widths add up as squares."""
    return [
        value + way * np.sqrt(np.maximum(way * (end - value), 0.0) ** 2 + extra**2)
        for way, end in ((-1.0, lower), (1.0, upper))
    ]


def coverage_of(target: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The share of targets inside their interval."""
    return float(np.mean((lower <= target) & (target <= upper)))


def interval_scores(target: np.ndarray, lower: np.ndarray, upper: np.ndarray, level: float) -> dict[str, float]:
    """Coverage, mean width, and the interval score (Gneiting and Raftery 2007; lower is better). (n,) each.

    The interval score is the width plus 2/(1 - level) times the distance of a missed target from the interval.
    """
    missed = np.maximum(lower - target, 0.0) + np.maximum(target - upper, 0.0)
    return {
        "n": len(target),
        "coverage": coverage_of(target, lower, upper),
        "width": float(np.mean(upper - lower)),
        "interval_score": float(np.mean(upper - lower + 2.0 / (1.0 - level) * missed)),
    }


def crps(target: np.ndarray, members: np.ndarray) -> float:
    """The mean continuous ranked probability score of members (m,n): E|X - t| - E|X - X'| / 2. For one member it is the
    MAE."""
    apart = np.mean([np.abs(members - other).mean(axis=0) for other in members], axis=0)
    return float(np.mean(np.abs(members - target).mean(axis=0) - 0.5 * apart))


def spread_and_skill(between: np.ndarray, error: np.ndarray, bins: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of the spread and of the error, (bins,) each, in bins of equal number by rising spread."""
    parts = [part for part in np.array_split(np.argsort(between, kind="stable"), bins) if len(part)]
    rms = [np.array([np.sqrt(np.mean(values[part] ** 2)) for part in parts]) for values in (between, error)]
    return rms[0], rms[1]


def quantile_of_shares(shares: Any, level: float, low: float, high: float, xp: Any = np) -> Any:
    """A quantile (n,) of shares (n,K) of K equal bins over [low, high], linear within a bin."""
    width = (high - low) / shares.shape[-1]
    below = xp.cumsum(shares, axis=-1) - shares
    filled = xp.clip((level - below) / xp.maximum(shares, TINY), 0.0, 1.0)  # share of each bin that is below
    return low + width * xp.sum(filled, axis=-1)


def quantile_of_quantiles(quantiles: Any, level: float, levels: np.ndarray, xp: Any = np) -> Any:
    """The quantile at `level` (n,) from quantiles (n,K) at rising levels (K,), linear between two, constant beyond."""
    weights = np.array([np.interp(level, levels, row) for row in np.eye(len(levels))], "float32")
    return xp.sum(quantiles * weights, axis=-1)
