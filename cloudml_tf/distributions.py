"""Heads that answer with a distribution, and their losses: a further way to keep the variance.

Under noise the best single number is the conditional mean, which spreads less than the truth (s = r). A head with a
distribution puts the rest into the distribution instead of losing it.

    quantile     K quantiles at the levels (k + 1/2)/K; the prediction is their mean
    histogram    a softmax over K bins; the prediction is its expectation

The output of such a model is (B, 1+K): the prediction first, so that metrics and guards look at column 0, then the
quantiles or the shares of the bins.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.losses import BASES, VariancePreservingLoss

POINT = 0  # the column of the prediction


def quantile_levels(count: int) -> np.ndarray:
    """(K,) evenly spaced levels, whose mean quantile is close to the mean."""
    return ((np.arange(count) + 0.5) / count).astype("float32")


def bin_centres(count: int, low: float, high: float) -> np.ndarray:
    """(K,) centres of K equal bins over [low, high], in standard deviations of the target."""
    return (low + (high - low) * (np.arange(count) + 0.5) / count).astype("float32")


@keras.saving.register_keras_serializable(package="cloudml_tf")
class QuantileHead(keras.layers.Layer):
    """(B, K) free numbers to (B, 1+K): their mean as the prediction, and quantiles that cannot cross.

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
        """One column more."""
        return (*input_shape[:-1], (input_shape[-1] or 0) + 1)


@keras.saving.register_keras_serializable(package="cloudml_tf")
class HistogramHead(keras.layers.Layer):
    """(B, K) logits to (B, 1+K): the expectation as the prediction, and the shares of the bins.

    Args:
        low, high: the range of the bins, in standard deviations of the target.
    """

    def __init__(self, low: float = -4.0, high: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not low < high:
            raise ValueError(f"HistogramHead needs `low` below `high`. Received: low={low}, high={high}")
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        """(B, K) -> (B, 1+K)."""
        shares = ops.softmax(inputs, axis=-1)
        centres = ops.convert_to_tensor(bin_centres(inputs.shape[-1], self.low, self.high), dtype=shares.dtype)
        return ops.concatenate([ops.sum(shares * centres, axis=1, keepdims=True), shares], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """One column more."""
        return (*input_shape[:-1], (input_shape[-1] or 0) + 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "low": self.low, "high": self.high}


class _HeadLoss(VariancePreservingLoss):
    """A loss on (B, 1+K) outputs, whose penalty looks at the prediction."""

    def point(self, output: Any) -> Any:
        """(B, 1+K) -> (B, 1)."""
        return output[:, POINT : POINT + 1]


@keras.saving.register_keras_serializable(package="cloudml_tf")
class QuantileLoss(_HeadLoss):
    """Twice the pinball loss, averaged over the quantiles: half of it is an approximation of the CRPS.

    Args:
        kwargs: those of `VariancePreservingLoss` without `base`; the penalty is on the mean of the quantiles.
    """

    def __init__(self, base: str = "pinball", name: str = "quantile_loss", **kwargs: Any) -> None:
        super().__init__(base=base, name=name, **kwargs)

    @staticmethod
    def bases() -> tuple[str, ...]:
        """The pinball loss alone: another one would leave the quantiles undetermined."""
        return ("pinball",)

    def base_terms(self, target: Any, output: Any) -> Any:
        """(B, 1), (B, 1+K) -> (B, 1)."""
        quantiles = output[:, 1:]
        levels = ops.convert_to_tensor(quantile_levels(quantiles.shape[-1]), dtype=quantiles.dtype)
        error = target - quantiles  # (B, K)
        pinball = ops.maximum(levels * error, (levels - 1.0) * error)
        return 2.0 * ops.mean(pinball, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="cloudml_tf")
class HistogramLoss(_HeadLoss):
    """Cross-entropy to a target that is smeared over the bins by a Gaussian (Imani & White 2018, HL-Gauss).

    Args:
        base: "cross_entropy", or any base of `VariancePreservingLoss` on the expectation.
        low, high: the range of the head's bins.
        smoothing: std of the Gaussian, in widths of a bin.
        kwargs: those of `VariancePreservingLoss`; the penalty is on the expectation.
    """

    def __init__(
        self,
        base: str = "cross_entropy",
        low: float = -4.0,
        high: float = 4.0,
        smoothing: float = 0.75,
        name: str = "histogram_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(base=base, name=name, **kwargs)
        if not (low < high and smoothing > 0):
            raise ValueError(
                "HistogramLoss needs `low` below `high` and `smoothing` above 0. "
                f"Received: low={low}, high={high}, smoothing={smoothing}"
            )
        self.low, self.high, self.smoothing = low, high, smoothing

    @staticmethod
    def bases() -> tuple[str, ...]:
        """Cross-entropy, and those on the expectation."""
        return ("cross_entropy", *BASES)

    def base_terms(self, target: Any, output: Any) -> Any:
        """(B, 1), (B, 1+K) -> (B, 1)."""
        if self.base != "cross_entropy":
            return super().base_terms(target, self.point(output))
        shares = output[:, 1:]
        logs = ops.log(ops.maximum(shares, 1e-7))
        return -ops.sum(self.smeared(target, shares.shape[-1]) * logs, axis=1, keepdims=True)

    def smeared(self, target: Any, count: int) -> Any:
        """(B, 1) targets to (B, K) shares of a Gaussian around each; one beyond the range falls into the end bin."""
        width = (self.high - self.low) / count
        edges = ops.convert_to_tensor(np.linspace(self.low, self.high, count + 1, dtype="float32"))
        inside = ops.clip(target, self.low + 0.5 * width, self.high - 0.5 * width)
        below = 0.5 * (1.0 + ops.erf((edges - inside) / (self.smoothing * width * 2.0**0.5)))  # (B, K+1)
        return (below[:, 1:] - below[:, :-1]) / (below[:, -1:] - below[:, :1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this loss."""
        return {**super().get_config(), "low": self.low, "high": self.high, "smoothing": self.smoothing}
