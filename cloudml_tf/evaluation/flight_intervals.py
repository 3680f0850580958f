"""Intervals from the errors on flights that were left out: split conformal prediction whose unit is the flight.

The errors of a model within the flights that it was trained on say nothing about the level of the next one. Here the
errors are those of `experiments.selection`, each on a flight that neither the network nor its factors had seen. They
are divided by a width that grows with the prediction, and an interval reaches as far as the wanted share of the
quotients, every flight counting alike ("pooling CDFs" of Dunn, Wasserman and Ramdas 2023, "Distribution-free prediction
sets for two-layer hierarchical models"). NumPy only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEAST = 0.25  # of the mean width, which no prediction goes below
SHARES = np.linspace(0.0, 1.0, 201)


@dataclass(frozen=True)
class FlightIntervals:
    """How far an interval reaches on either side of a prediction, in the space in which the network learns.

    Args:
        base, slope: the width at 0 and its growth with the prediction.
        least: the smallest width.
        quotients: quantiles of |error| / width at `SHARES`.
        flights: how many flights were left out.
    """

    base: float
    slope: float
    least: float
    quotients: list[float]
    flights: int

    def half_width(self, prediction: np.ndarray, level: float) -> np.ndarray:
        """(n,) -> (n,), for intervals of this level.

        No correction for few flights is made: level (1 + 1/F) of F flights reaches for the worst of ten, and was far
        too wide.
        """
        return self.width(prediction) * float(np.interp(level, SHARES, self.quotients))

    def width(self, prediction: np.ndarray) -> np.ndarray:
        """The usual size of an error at each prediction, (n,)."""
        return np.maximum(self.base + self.slope * np.asarray(prediction, "float64"), self.least)

    def to_json(self) -> dict[str, Any]:
        """Convert to a dictionary for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "FlightIntervals":
        """The inverse of `to_json`."""
        return cls(**content)


def fit_flight_intervals(
    target: Mapping[str, np.ndarray], prediction: Mapping[str, np.ndarray], constant: bool = False
) -> FlightIntervals | None:
    """Fit them to targets and predictions (n,) of each flight that was left out; None where a prediction is no number.

    Every flight has the same weight. `constant` asks for one width everywhere, which a varying one has to beat.
    """
    seen = np.concatenate([prediction[name] for name in target])
    error = np.abs(np.concatenate([prediction[name] - target[name] for name in target]))
    weight = np.concatenate([np.full(len(each), 1.0 / len(each)) for each in target.values()])
    if not np.isfinite(seen).all():
        return None
    slope, base = np.polyfit(seen, error, 1, w=np.sqrt(weight)) if np.ptp(seen) > 0 else (0.0, 0.0)
    mean = float(np.average(error, weights=weight))
    if constant or slope <= 0:  # errors that shrink with the prediction are those of too few labels
        slope, base = 0.0, mean
    flat = FlightIntervals(float(base), float(slope), max(LEAST * mean, 1e-9), [], len(target))
    quotient = error / flat.width(seen)
    order = np.argsort(quotient)
    reached = np.cumsum(weight[order]) / weight.sum()
    quantiles = quotient[order][np.minimum(np.searchsorted(reached, SHARES - 1e-12), len(order) - 1)]
    return FlightIntervals(flat.base, flat.slope, flat.least, quantiles.tolist(), len(target))
