"""The layers that see the height of a cloud by its motion: level the frames, then compare them height by height.

    frames (B,T,H,W,C) ─ LevelStrip ─┬─ encoder ─ (B,T,R,W,D) ─ CostVolume ─┬─ (B,K,N,·) ─ attention over the N pairs
                                     └─ WindowAgreement ────────────────────┘

Letters: B batch, T time, H rows, W columns, C channels, D features, R rows of features, K heights, N pairs of frames,
X places along the track, Y across it, G groups of features, S sizes of windows.

Images here are upright: rows run to the right, columns forward, and nadir is in the middle. Resampling is a product
with a matrix of interpolation weights, so that its gradient is one too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from cloudml_tf.nn.saved import Saved
from cloudml_tf.nn.sightlines import ALTITUDE, GEOMETRY, motion_px_km, nadir_px

LEAST_BELOW_KM = 0.5  # a cloud is at least so far below the camera


def interpolation(place: Any, size: int) -> Any:
    """Weights of `size` pixels for places (…) between them, by cubic interpolation (Keys 1981): (…) -> (…,size).

    Beyond the border its pixel is repeated.
    """
    place = ops.clip(place, 0.0, size - 1.0)
    apart = ops.abs(ops.expand_dims(place, -1) - ops.arange(size, dtype="float32"))
    near = (1.5 * apart - 2.5) * apart * apart + 1.0
    far = ((-0.5 * apart + 2.5) * apart - 4.0) * apart + 2.0
    weight = ops.where(apart < 1.0, near, ops.where(apart < 2.0, far, 0.0))
    return weight / ops.sum(weight, axis=-1, keepdims=True)


class LevelStrip(Saved, layers.Layer):
    """The pixels around the nadir line, moved by roll and pitch: (B,T,H,W,C), (B,T,9) -> (B,T,rows,W',C), upright.

    Of frames alone, without their geometry, it is what a level camera sees.

    Args:
        nadir: (row, column) of the camera's axis in the image.
        rows: odd number of rows around nadir.
        along: the array axis of an image along the track, 0 for rows or 1 for columns.
        forward_sign, right_sign: 1 where the index along (across) the track grows forward (to the right), else -1.
    """

    def __init__(
        self, nadir: Sequence[int], rows: int, along: int = 1, forward_sign: int = 1, right_sign: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.nadir, self.rows = [int(n) for n in nadir], int(rows)
        self.along, self.forward_sign, self.right_sign = int(along), int(forward_sign), int(right_sign)

    def call(self, inputs: Any) -> Any:
        """Resample rows and columns."""
        frames, geometry = inputs if isinstance(inputs, list | tuple) else (inputs, None)
        batch, time = ops.shape(frames)[0], ops.shape(frames)[1]
        geometry = ops.zeros((batch, time, len(GEOMETRY))) if geometry is None else geometry
        images = ops.reshape(ops.cast(frames, "float32"), (-1, *frames.shape[2:]))  # (B·T,H,W,C)
        ahead, aside = nadir_px(ops.reshape(ops.cast(geometry, "float32"), (-1, geometry.shape[-1])))  # (B·T)
        across, along = (1, 0) if self.along == 0 else (0, 1)
        images = ops.swapaxes(images, 1, 2) if self.along == 0 else images
        rows, columns = images.shape[1:3]
        row = self.nadir[across] + self.right_sign * (aside[:, None] + _around_middle(self.rows))
        column = self.nadir[along] + self.forward_sign * (ahead[:, None] + _around_middle(columns))
        images = _resampled(images, interpolation(row, rows))
        images = _resampled(ops.swapaxes(images, 1, 2), interpolation(column, columns))
        images = ops.swapaxes(images, 1, 2)
        return ops.cast(ops.reshape(images, (batch, time, *images.shape[1:])), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,T,rows,W',C)."""
        alone = not isinstance(input_shape[0], list | tuple)
        batch, steps, *sides, channels = input_shape if alone else input_shape[0]
        return (batch, steps, self.rows, sides[self.along], channels)


class LocalNormalization(Saved, layers.Layer):
    """A strip less its local mean, over its local spread: (B,T,R,W,C) -> (B,T,R,W,C).

    What is left is texture: neither the brightness nor the contrast of a flight is in it, so that a faint deck looks
    like a bright cloud. Both are taken over all rows and `columns` of them along the track.

    Args:
        columns: odd number of columns.
        faintest: a spread that counts as noise, in units of the input.
    """

    def __init__(self, columns: int = 15, faintest: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns, self.faintest = int(columns), float(faintest)

    def call(self, x: Any) -> Any:
        """Subtract, divide."""
        mean = self._averaged(x)
        apart = x - mean
        return apart / ops.sqrt(self._averaged(apart * apart) + self.faintest**2)

    def _averaged(self, x: Any) -> Any:
        """(B,T,R,W,C) -> (B,T,1,W,C)."""
        line = ops.reshape(ops.mean(x, axis=2), (-1, x.shape[3], x.shape[4]))
        line = ops.average_pool(line, self.columns, strides=1, padding="same")
        return ops.reshape(line, (-1, ops.shape(x)[1], 1, x.shape[3], x.shape[4]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape does not change."""
        return input_shape


def _around_middle(count: int) -> Any:
    """(count,) pixels from the middle one."""
    return ops.arange(count, dtype="float32") - count // 2


def _resampled(images: Any, weight: Any) -> Any:
    """(n,H,W,C), (n,R,H) -> (n,R,W,C)."""
    _, height, width, channels = images.shape
    found = ops.matmul(weight, ops.reshape(images, (-1, height, width * channels)))
    return ops.reshape(found, (-1, weight.shape[1], width, channels))


def _beside(line: Any, places: Sequence[int]) -> list[Any]:
    """Lines (B,T,W,D) as they are seen from so many columns further on; 0 beyond the border."""
    most = max(abs(place) for place in places)
    padded = ops.pad(line, ((0, 0), (0, 0), (most, most), (0, 0)))
    size = (ops.shape(line)[0], line.shape[1], line.shape[2], line.shape[3])
    return [ops.slice(padded, (0, 0, most + place, 0), size) for place in places]


class _AcrossHeights(Saved, layers.Layer):
    """What the layers share that compare frames at candidate heights: (K,) of them, and N pairs of frames."""

    height_km: list[float]

    def warped(self, maps: Any, geometry: Any, places: Sequence[int], rows: Sequence[int]) -> Any:
        """Maps (B,T,R,W,D) where each frame would show a cloud of each height that is at nadir in the middle one.

        And at places beside it, along the track and across it: (B,T,K,X,Y·D).
        """
        _, steps, height, columns, depth = maps.shape
        middle = steps // 2
        ahead, aside = motion_px_km(geometry, middle)  # (B,T)
        below = geometry[:, middle, ALTITUDE][:, None] - ops.convert_to_tensor(self.height_km, "float32")  # (B,K)
        nearer = 1.0 / ops.maximum(below, LEAST_BELOW_KM)
        # Across the track all heights share the row of the middle one: what differs between them is wind alone.
        row = height // 2 + aside * nearer[:, len(self.height_km) // 2][:, None]
        row = row[:, :, None] + ops.convert_to_tensor([float(place) for place in rows])  # (B,T,Y)
        lines = ops.matmul(interpolation(row, height), ops.reshape(maps, (-1, steps, height, columns * depth)))
        lines = ops.reshape(lines, (-1, steps, len(rows), columns, depth))
        lines = ops.reshape(ops.transpose(lines, (0, 1, 3, 2, 4)), (-1, steps, columns, len(rows) * depth))
        column = columns // 2 + ahead[:, :, None] * nearer[:, None, :]
        seen = ops.matmul(interpolation(column, columns), ops.concatenate(_beside(lines, places), axis=-1))
        return ops.reshape(seen, (-1, steps, len(self.height_km), len(places), len(rows) * depth))

    def pairs(self, steps: int) -> list[tuple[int, int]]:
        """Each frame with the middle one, and frames that are equally far before and after it."""
        middle = steps // 2
        found = [(step, middle) for step in range(steps) if step != middle]
        return found + [(step, steps - 1 - step) for step in range(middle)]

    def joined(self, alike: list[Any]) -> Any:
        """(B,K,·) of each pair -> (B,K,N,·)."""
        return ops.cast(ops.stack(alike, axis=2), self.compute_dtype)

    def sizes(self, input_shape: Any) -> tuple[Any, int, int]:
        """B, K, N."""
        return (input_shape[0][0], len(self.height_km), len(self.pairs(input_shape[0][1])))


class CostVolume(_AcrossHeights):
    """How alike learned features are where a cloud at each height would be: (B,T,R,W,D), (B,T,9) -> (B,K,N,X·G).

    Features are taken at nadir and at places beside it along the track. Groups of them are normalised, so that a gain
    changes nothing, and correlated.

    Args:
        height_km: (K,) the candidate heights.
        places: (X,) places along the track, pixels from nadir.
        groups: G, into which the features are divided.
    """

    def __init__(
        self, height_km: Sequence[float], places: Sequence[int] = (0,), groups: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.height_km, self.places = [float(h) for h in height_km], [int(p) for p in places]
        self.groups = int(groups)

    def call(self, inputs: Sequence[Any]) -> Any:
        """Warp, normalise, correlate."""
        features, geometry = (ops.cast(x, "float32") for x in inputs)
        steps, depth = features.shape[1], features.shape[4] // self.groups
        seen = self.warped(features, geometry, self.places, (0,))
        seen = ops.reshape(seen, (-1, steps, len(self.height_km), len(self.places), self.groups, depth))
        seen = seen - ops.mean(seen, axis=-1, keepdims=True)
        seen = seen / ops.sqrt(ops.sum(seen * seen, axis=-1, keepdims=True) + 1e-3)
        frames = ops.unstack(seen, axis=1)  # its gradient is a stack; that of seen[:, step] fills the whole array
        size = (-1, len(self.height_km), len(self.places) * self.groups)
        alike = (ops.sum(frames[one] * frames[other], axis=-1) for one, other in self.pairs(steps))
        return self.joined([ops.reshape(each, size) for each in alike])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,K,N,X·G)."""
        return (*self.sizes(input_shape), len(self.places) * self.groups)


class WindowAgreement(_AcrossHeights):
    """The correlation of grey values in square windows at each height: (B,T,R,W,C), (B,T,9) -> (B,K,N,S·C).

    What a plane sweep uses (`data.plane_sweep`), for windows of S sizes; nothing of it is learned.

    Args:
        height_km: (K,) the candidate heights.
        sides: (S,) odd sides of the windows, pixels.
        faintest: a spread that counts as noise, in units of the input.
    """

    def __init__(
        self, height_km: Sequence[float], sides: Sequence[int] = (3, 5, 9, 13), faintest: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.height_km, self.sides = [float(h) for h in height_km], [int(side) for side in sides]
        self.faintest = float(faintest)

    def call(self, inputs: Sequence[Any]) -> Any:
        """Warp, and correlate within each window."""
        strip, geometry = (ops.cast(x, "float32") for x in inputs)
        reach, channels = max(self.sides) // 2, strip.shape[4]
        around, side = range(-reach, reach + 1), 2 * reach + 1
        size = (-1, strip.shape[1], len(self.height_km), side * side, channels)
        seen = self.warped(strip, geometry, around, around)
        frames = ops.unstack(ops.reshape(seen, size), axis=1)  # each (B,K,pixels,C)
        mean = [self._within(frame) for frame in frames]
        spread = [self._within(frame * frame) - m * m for frame, m in zip(frames, mean, strict=True)]
        alike = []
        for one, other in self.pairs(strip.shape[1]):
            shared = self._within(frames[one] * frames[other]) - mean[one] * mean[other]
            alike.append(shared / ops.sqrt(ops.maximum(spread[one] * spread[other], 0.0) + self.faintest**4))
        return self.joined(alike)

    def _within(self, x: Any) -> Any:
        """Means over each window, of a smooth edge: (B,K,pixels,C) -> (B,K,S·C)."""
        reach = max(self.sides) // 2
        apart = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]).ravel()
        weight = np.stack([np.exp(-0.5 * (apart / (0.3 * side)) ** 2) for side in self.sides])  # (S,pixels)
        weight = ops.convert_to_tensor((weight / weight.sum(axis=1, keepdims=True)).astype("float32"))
        return ops.reshape(ops.matmul(weight, x), (-1, len(self.height_km), len(self.sides) * x.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,K,N,S·C)."""
        return (*self.sizes(input_shape), len(self.sides) * input_shape[0][-1])
