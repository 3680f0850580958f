"""Regressions on image statistics as layers, so that an exported model carries the baselines that it is averaged with.

    frames, sun, features ─┬─ network ────────────────────────────┐
                           └─ ImageStatistics ─┬─ StraightLine ───┼─ WeightedSum ─ (B,1)
                                               └─ BoostedTrees ───┘

What was fitted are constants of the layers, in their config. `keras.ops` alone, on any backend. Letters: B batch,
T time, H rows, W columns, C channels, S statistics, K trees, N nodes of a tree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cloudml_tf.nn.layers import FEATURES, FRAMES, SUN
from cloudml_tf.nn.saved import Saved

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ImageStatistics(Saved, layers.Layer):
    """The statistics of `cloudml_tf.data.statistics`, then sine and cosine of the sun, then features: (B,S).

    Args:
        nadir: (row, column) of the lidar's footprint.
        log_offset: None for radiance itself; else it is added before a logarithm.
    """

    def __init__(self, nadir: Sequence[int], log_offset: float | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **{"dtype": "float32", **kwargs})
        self.nadir = [int(index) for index in nadir]
        self.log_offset = None if log_offset is None else float(log_offset)

    def call(self, inputs: dict[str, Any]) -> Any:
        """{frames (B,T,H,W,C), sun_angles_deg (B,T,2), features (B,T,F)} -> (B,S)."""
        frames = ops.cast(inputs[FRAMES], "float32")
        steps, channels = frames.shape[1], frames.shape[-1]
        if self.log_offset is not None:
            frames = ops.log(ops.maximum(frames, 0.0) + self.log_offset)
        columns: list[Any] = []
        for step in range(steps):
            for channel in range(channels):
                image = frames[:, step, :, :, channel]
                columns += self._whole(image) if step == steps // 2 else self._brief(image)
        if SUN in inputs:
            angles = ops.cast(inputs[SUN][:, steps // 2], "float32") * (np.pi / 180.0)
            columns += [ops.sin(angles), ops.cos(angles)]
        if FEATURES in inputs:
            columns.append(ops.cast(inputs[FEATURES][:, steps // 2], "float32"))
        return ops.concatenate([x if len(x.shape) == 2 else ops.expand_dims(x, 1) for x in columns], axis=1)

    def _window(self, image: Any, rows: int, columns: int) -> Any:
        row, column = self.nadir
        top, left = max(row - rows // 2, 0), max(column - columns // 2, 0)
        return image[:, top : row + rows // 2 + 1, left : column + columns // 2 + 1]

    def _brief(self, image: Any) -> list[Any]:
        small, large = (ops.mean(self._window(image, side, side), axis=(1, 2)) for side in (3, 9))
        return [image[:, self.nadir[0], self.nadir[1]], small, large, ops.mean(image, axis=(1, 2))]

    def _whole(self, image: Any) -> list[Any]:
        found = [ops.mean(image, axis=(1, 2)), ops.std(image, axis=(1, 2)), *_quantiles(image)]
        found.append(image[:, self.nadir[0], self.nadir[1]])
        for side in (3, 5, 9, 15):
            window = self._window(image, side, side)
            found += [ops.mean(window, axis=(1, 2)), ops.std(window, axis=(1, 2))]
        for length in (5, 11):
            found += [ops.mean(self._window(image, *size), axis=(1, 2)) for size in ((length, 1), (1, length))]
        for length in (3, 7):
            half = length // 2
            for line in (self._window(image, length, 1)[:, :, 0], self._window(image, 1, length)[:, 0, :]):
                found.append(ops.mean(line[:, -half:], axis=1) - ops.mean(line[:, :half], axis=1))
        return found

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        """(B,S)."""
        _, steps, *_, channels = input_shape[FRAMES]
        angles, features = input_shape.get(SUN), input_shape.get(FEATURES)
        beside = (4 if angles else 0) + (features[-1] if features else 0)
        return (input_shape[FRAMES][0], channels * (24 + 4 * (steps - 1)) + beside)


def _quantiles(image: Any) -> list[Any]:
    """Quantiles of images (B,H,W), each (B,): between two pixels on the straight line, as NumPy has it."""
    pixels = image.shape[1] * image.shape[2]
    ranked = ops.sort(ops.reshape(image, (-1, pixels)), axis=1)
    found = []
    for share in QUANTILES:
        place = share * (pixels - 1)
        low = int(place)
        high, part = min(low + 1, pixels - 1), place - low
        found.append(ranked[:, low] * (1.0 - part) + ranked[:, high] * part)
    return found


class StraightLine(Saved, layers.Layer):
    """A ridge regression that was fitted elsewhere: (B,S) -> (B,1).

    Args:
        mean, scale: of each statistic in the training.
        coefficients: (S,) of the standardised statistics.
        intercept: at their means.
    """

    def __init__(
        self,
        mean: Sequence[float],
        scale: Sequence[float],
        coefficients: Sequence[float],
        intercept: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **{"dtype": "float32", **kwargs})
        self.mean, self.scale = [float(m) for m in mean], [float(s) for s in scale]
        self.coefficients, self.intercept = [float(c) for c in coefficients], float(intercept)

    def call(self, x: Any) -> Any:
        """(B,S) -> (B,1)."""
        centred = (x - ops.convert_to_tensor(self.mean)) / ops.convert_to_tensor(self.scale)
        return ops.sum(centred * ops.convert_to_tensor(self.coefficients), axis=1, keepdims=True) + self.intercept

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,S) -> (B,1)."""
        return (input_shape[0], 1)


class BoostedTrees(Saved, layers.Layer):
    """Boosted regression trees that were fitted elsewhere: (B,S) -> (B,1), the sum over trees.

    A tree that asks "is x at most t?" jumps where a statistic is as good as t, so that two runtimes whose sums differ
    in the last digit would answer differently. Here the answer goes from one branch to the other on a narrow ramp above
    the threshold.

    Args:
        feature: (K,N) the statistic that a node asks for; -1 at a leaf.
        threshold: (K,N) the largest value that goes left.
        left, right: (K,N) the node's children; 0 at a leaf.
        value: (K,N) what a leaf adds.
        ramp: (S,) the width of the ramp at each statistic.
        start: added to the sum.
    """

    def __init__(
        self,
        feature: Any,
        threshold: Any,
        left: Any,
        right: Any,
        value: Any,
        ramp: Sequence[float],
        start: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **{"dtype": "float32", **kwargs})
        self.feature, self.left, self.right = (np.asarray(each, int).tolist() for each in (feature, left, right))
        self.threshold, self.value = (np.asarray(each, "float64").tolist() for each in (threshold, value))
        self.ramp, self.start = [float(width) for width in ramp], float(start)
        self._levels = _levels(*(np.asarray(each) for each in (feature, threshold, left, right, value)))

    def call(self, x: Any) -> Any:
        """(B,S) -> (B,1).

        Level by level of all trees at once: the share of an example that reaches a node is its parent's share, times
        what the parent sends to this side.
        """
        first, *below = self._levels
        share = ops.ones_like(x[:, :1]) * ops.ones((1, len(first.value)))  # (B,K): all of it is at the roots
        total = ops.sum(share * ops.convert_to_tensor(first.value), axis=1, keepdims=True)
        for level in below:
            width = np.asarray(self.ramp)[level.feature].astype("float32")
            seen = ops.take(x, level.feature, axis=1)
            goes_left = ops.clip(
                (ops.convert_to_tensor(level.threshold) - seen) / ops.convert_to_tensor(width) + 1.0, 0.0, 1.0
            )
            sent = ops.convert_to_tensor(level.base) + ops.convert_to_tensor(level.sign) * goes_left
            share = ops.take(share, level.parent, axis=1) * sent
            total = total + ops.sum(share * ops.convert_to_tensor(level.value), axis=1, keepdims=True)
        return total + self.start

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,S) -> (B,1)."""
        return (input_shape[0], 1)


@dataclass(frozen=True)
class _Level:
    """All nodes of one depth, (n,) each: their parents' question, and which answer leads to them."""

    parent: np.ndarray  # its position in the level above
    feature: np.ndarray
    threshold: np.ndarray
    base: np.ndarray  # a left child gets p of its parent's share, 0 + 1 p; a right one 1 - 1 p
    sign: np.ndarray
    value: np.ndarray  # 0 at nodes that are no leaves


def _levels(
    feature: np.ndarray, threshold: np.ndarray, left: np.ndarray, right: np.ndarray, value: np.ndarray
) -> list[_Level]:
    """The nodes of all trees (K,N) by their depth, the roots first."""
    nothing, none = np.zeros(0, int), np.zeros(0, "float32")
    found = [_Level(nothing, nothing, none, none, none, value[:, 0].astype("float32"))]
    tree, node = np.arange(len(feature)), np.zeros(len(feature), int)  # of the level that was found last
    while True:
        asks = np.flatnonzero(feature[tree, node] >= 0)
        if not len(asks):
            return found
        parent = np.repeat(asks, 2)  # its left child, then its right one
        is_left = np.tile([True, False], len(asks))
        question = (tree[parent], node[parent])
        node = np.where(is_left, left[question], right[question])
        tree = tree[parent]
        base, sign = np.where(is_left, 0.0, 1.0), np.where(is_left, 1.0, -1.0)
        numbers = (threshold[question], base, sign, value[tree, node])
        found.append(_Level(parent, feature[question], *(each.astype("float32") for each in numbers)))


class WeightedSum(Saved, layers.Layer):
    """Sum of answers (B,1), each times its weight.

    Args:
        factors: one number for each answer.
    """

    def __init__(self, factors: Sequence[float], **kwargs: Any) -> None:
        super().__init__(autocast=False, **{"dtype": "float32", **kwargs})
        self.factors = [float(factor) for factor in factors]

    def call(self, answers: list[Any]) -> Any:
        """A list of (B,1) -> (B,1)."""
        return sum(factor * ops.cast(x, "float32") for factor, x in zip(self.factors, answers, strict=True))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,1)."""
        return tuple(input_shape[0])


def averaged_with_regressions(
    network: keras.Model,
    nadir: Sequence[int],
    log_offset: float | None,
    factors: Sequence[float],
    line: dict[str, Any],
    trees: dict[str, Any],
) -> keras.Model:
    """The weighted sum of a regressor and two regressions on image statistics, with the regressor's inputs.

    Args:
        network: of `models.build_regressor`, or of `models.share_frames`; with a point head.
        nadir, log_offset: as for `ImageStatistics`.
        factors: of the network, the line and the trees.
        line, trees: the arguments of `StraightLine` and `BoostedTrees`.
    """
    layers_of = (
        ImageStatistics(nadir, log_offset, name="statistics"),
        StraightLine(**line, name="line"),
        BoostedTrees(**trees, name="trees"),
        WeightedSum(factors, name="weighted_sum"),
    )
    return _joined(network, lambda inputs: inputs, *layers_of)


def with_network(model: keras.Model, network: keras.Model, seen: Callable[[Any], Any]) -> keras.Model:
    """The same weighted sum around another network; `seen` turns its inputs into those that statistics are taken of."""
    return _joined(network, seen, *(model.get_layer(name) for name in ("statistics", "line", "trees", "weighted_sum")))


def _joined(
    network: keras.Model,
    seen: Callable[[Any], Any],
    statistics: layers.Layer,
    line: layers.Layer,
    trees: layers.Layer,
    weighted_sum: layers.Layer,
) -> keras.Model:
    inputs = {x.name: x for x in network.inputs}
    found = statistics({name: x for name, x in seen(inputs).items() if name in (FRAMES, SUN, FEATURES)})
    return keras.Model(inputs, weighted_sum([network(inputs), line(found), trees(found)]), name="averaged")


def network_of(model: keras.Model) -> keras.Model:
    """The network inside a weighted sum with regressions; any other model itself."""
    if not is_joined(model):
        return model
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def is_joined(model: keras.Model) -> bool:
    """Whether a model is a weighted sum with regressions."""
    return any(isinstance(layer, WeightedSum) for layer in model.layers)
