"""Level and scale of a flight: two numbers that a few of its labels correct a model's predictions by. NumPy only.

A model that was trained on other flights often ranks the clouds of a new one well and has its level and scale wrong. A
straight line through a few labels mends that; it is drawn towards the identity where they are few or alike.
"""

from dataclasses import dataclass

import numpy as np

FEWEST, MOST = 5, 50  # labels that are fitted to
# How far flights are expected to differ: standard deviations of the level, in those of the training labels, and of the
# scale. Wider than this, a fit to few labels is wild; narrower, a shift is not followed.
LEVEL_STD, SCALE_STD = 0.5, 0.25
LEAST_SCALE = 0.1  # predictions that labels contradict are flattened, and never turned over


@dataclass(frozen=True)
class LevelScale:
    """level + scale · prediction, in the space in which a model learns."""

    level: float = 0.0
    scale: float = 1.0

    def of(self, prediction: np.ndarray) -> np.ndarray:
        """The corrected prediction, in its shape. `scale` is positive, so order and the ends of intervals keep."""
        return self.level + self.scale * prediction


def chosen_labels(count: int, wanted: int, consecutive: bool) -> np.ndarray:
    """Which of a flight's labels are fitted to: the first ones, or the middles of as many runs of equal length."""
    if consecutive:
        return np.arange(wanted)
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(int)


def straight_line(target: np.ndarray, prediction: np.ndarray) -> LevelScale:
    """The best straight line through predictions (k,): the least mean squared error that two numbers can give."""
    centred = prediction - prediction.mean()
    scale = float(centred @ (target - target.mean()) / (centred @ centred))
    return LevelScale(float(target.mean() - scale * prediction.mean()), scale)


def fit_level_scale(target: np.ndarray, prediction: np.ndarray, n_eff: float, training_std: float) -> LevelScale:
    """Fit it to k labels of a flight, drawn towards 0 and 1.

    The mean of the posterior for normal errors: level (where the predictions have their mean) and scale have normal
    priors, and the k labels inform as `n_eff` independent ones.

    Args:
        target, prediction: (k,) in the space in which the model learns; the predictions differ.
        n_eff: how many independent labels they are worth.
        training_std: standard deviation of the training labels in that space.
    """
    line = straight_line(target, prediction)
    noise = float(np.mean((target - line.of(prediction)) ** 2)) * n_eff / max(n_eff - 2.0, 0.5)
    middle, spread = float(prediction.mean()), float(prediction.var())
    of_level = _trust(n_eff * (LEVEL_STD * training_std) ** 2, noise)
    of_scale = _trust(n_eff * spread * SCALE_STD**2, noise)
    scale = max(1.0 + of_scale * (line.scale - 1.0), LEAST_SCALE)
    level = middle + of_level * (float(target.mean()) - middle)
    return LevelScale(level - scale * middle, scale)


def _trust(signal: float, noise: float) -> float:
    return signal / (signal + noise) if signal + noise > 0 else 0.0


def share_recovered(before: float, after: float, best: float) -> float:
    """How much of the mean squared error that a straight line could take away is gone; NaN where there is none."""
    return (before - after) / (before - best) if before > best else float("nan")
