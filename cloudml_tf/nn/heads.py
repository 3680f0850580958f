"""Heads that predict a distribution, and their levels and bins: a further way to keep the variance.

Under noise the best single number is the conditional mean, which spreads less than the truth (s = r). A head with a
distribution represents the rest of the spread instead of losing it.

    quantile     K quantiles at the levels (k + 1/2)/K; the prediction is their mean
    histogram    a softmax over K bins; the prediction is its expectation

The output of such a model is (B, 1+K): the prediction first, so that metrics and callbacks use column 0, then the
quantiles or the probabilities of the bins.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn.arguments import as_number
from cloudml_tf.nn.saved import Saved

POINT = 0  # the column of the prediction


def quantile_levels(count: int) -> np.ndarray:
    """(K,) evenly spaced levels, whose mean quantile is close to the mean."""
    return ((np.arange(count) + 0.5) / count).astype("float32")


def bin_centres(count: int, low: float, high: float) -> np.ndarray:
    """(K,) centres of K equal bins over [low, high], in standard deviations of the target."""
    return (low + (high - low) * (np.arange(count) + 0.5) / count).astype("float32")


class QuantileHead(Saved, keras.layers.Layer):
    """Turns (B, K) free numbers into (B, 1+K): their mean as the prediction, and quantiles that cannot cross.

    The middle number is the middle quantile; the steps away from it are made positive by softplus.
    """

    def call(self, inputs: Any) -> Any:
        """(B, K) -> (B, 1+K)."""
        steps = ops.softplus(inputs)
        middle = inputs.shape[-1] // 2
        start = inputs[:, middle : middle + 1]
        above = start + ops.cumsum(steps[:, middle + 1 :], axis=1)
        below = start - ops.flip(ops.cumsum(ops.flip(steps[:, :middle], axis=1), axis=1), axis=1)
        quantiles = ops.concatenate([below, start, above], axis=1)
        return ops.concatenate([ops.mean(quantiles, axis=1, keepdims=True), quantiles], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, K) -> (B, 1+K)."""
        return (*input_shape[:-1], (input_shape[-1] or 0) + 1)


class HistogramHead(Saved, keras.layers.Layer):
    """Turns (B, K) logits into (B, 1+K): the expectation as the prediction, and the probabilities of the bins.

    Args:
        low, high: the range of the bins, in standard deviations of the target.
    """

    def __init__(self, low: float = -4.0, high: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        ends = [end for end in map(as_number, (low, high)) if end is not None]
        if len(ends) < 2 or not np.isfinite(ends).all() or not low < high:
            raise ValueError(f"HistogramHead needs `low` below `high`. Received: low={low}, high={high}")
        self.low, self.high = map(float, ends)

    def call(self, inputs: Any) -> Any:
        """(B, K) -> (B, 1+K)."""
        shares = ops.softmax(inputs, axis=-1)
        centres = ops.convert_to_tensor(bin_centres(inputs.shape[-1], self.low, self.high), dtype=shares.dtype)
        return ops.concatenate([ops.sum(shares * centres, axis=1, keepdims=True), shares], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, K) -> (B, 1+K)."""
        return (*input_shape[:-1], (input_shape[-1] or 0) + 1)
