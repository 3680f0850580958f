"""Weights of labels: of high labels and named flights, and of rare labels.

Rare labels are weighted by label distribution smoothing (Yang et al. 2021, arXiv 2102.09554).
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from cloudml_tf.config.data import LabelDensity
from cloudml_tf.config.schema import Config


def density_weights(label: np.ndarray, settings: LabelDensity) -> np.ndarray:
    """Weight labels (n,), in the loss's space, by the inverse of their smoothed density; weights (n,) have mean 1.

    The density is a histogram smoothed by a Gaussian, since neighbouring labels are similar. Its power `exponent`
    moderates the weights, and `largest` bounds them.
    """
    low, high = float(label.min()), float(label.max())
    place = np.clip(((label - low) / (high - low) * settings.bins).astype(int), 0, settings.bins - 1)
    density = gaussian_filter1d(np.bincount(place, minlength=settings.bins).astype("float64"), settings.smoothing)
    weight = density[place] ** -settings.exponent
    for _ in range(20):  # bounding changes the mean, and the mean the bound
        weight = np.minimum(weight / weight.mean(), settings.largest)
    return (weight / weight.mean()).astype("float32")


def overweight(label: np.ndarray, named: np.ndarray, config: Config) -> np.ndarray:
    """Weights of labels (n, *P): `overweight.factor` for high ones, and where `named` (n, ...) is True; else 1."""
    chosen, threshold = np.broadcast_to(named, label.shape), config.overweight.threshold
    if threshold is not None:
        chosen = chosen | (label >= threshold)
    return np.where(chosen, config.overweight.factor, 1.0).astype("float32")
