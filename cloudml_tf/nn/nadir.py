"""The layers that know where nadir is: pixels around it, or around locations along the track, at full resolution.

Plain arguments and `keras.ops`, as in `layers`. Letters: B batch, T time, P locations, H rows, W columns, C channels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cloudml_tf.nn.saved import Saved


def cut(x: Any, row: int, column: int, rows: int, columns: int) -> Any:
    """Cut some rows and columns out of maps (B,H,W,C).

    One slice: its gradient is a padding, where that of x[:, a:b] takes ten times as long on TensorFlow's CPU.
    """
    return ops.slice(x, (0, row, column, 0), (ops.shape(x)[0], rows, columns, x.shape[-1]))


class FootprintSums(Saved, layers.Layer):
    """Learned weighted sums over the pixels of a square, a channel at a time: (..., pixels·C) -> (..., sums·C).

    A depthwise convolution as large as its input, as one product of matrices, which is several times faster.

    Args:
        channels: C.
        sums: number of sums per channel.
    """

    def __init__(self, channels: int, sums: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.sums = int(channels), int(sums)

    def build(self, input_shape: Any) -> None:
        """Create the weights. The sums begin as means, times the square's side."""
        pixels = input_shape[-1] // self.channels
        mean = keras.initializers.Constant(1.0 / pixels**0.5)
        self.kernel = self.add_weight(shape=(pixels, self.channels, self.sums), initializer=mean, name="kernel")
        self.bias = self.add_weight(shape=(self.channels * self.sums,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        """(..., pixels·C) -> (..., sums·C), by a block-diagonal matrix: entries between two channels are 0."""
        own = ops.reshape(ops.eye(self.channels, dtype=self.compute_dtype), (1, self.channels, self.channels, 1))
        matrix = ops.expand_dims(self.kernel, 2) * own  # (pixels,C,C,sums)
        return ops.matmul(x, ops.reshape(matrix, (-1, self.channels * self.sums))) + self.bias

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(..., pixels·C) -> (..., sums·C)."""
        return (*input_shape[:-1], self.channels * self.sums)


class NadirCrop(Saved, layers.Layer):
    """The `rows` x `columns` pixels around the nadir pixel, at full resolution. (B,H,W,C) -> (B,rows,columns,C).

    Args:
        nadir: (row, column) of the lidar's footprint in the image.
        rows, columns: odd sizes. Nadir stays in the middle; beyond the image its border pixels are repeated.
    """

    def __init__(self, nadir: Sequence[int], rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nadir, self.rows, self.columns = [int(n) for n in nadir], int(rows), int(columns)

    def call(self, x: Any) -> Any:
        """(B,H,W,C) -> (B,rows,columns,C)."""
        starts = [centre - size // 2 for centre, size in zip(self.nadir, (self.rows, self.columns), strict=True)]
        if min(starts) >= 0 and starts[0] + self.rows <= x.shape[1] and starts[1] + self.columns <= x.shape[2]:
            return cut(x, starts[0], starts[1], self.rows, self.columns)
        for axis, start, size in zip((1, 2), starts, (self.rows, self.columns), strict=True):
            x = ops.take(x, np.clip(np.arange(start, start + size), 0, x.shape[axis] - 1), axis=axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,rows,columns,C)."""
        return (input_shape[0], self.rows, self.columns, input_shape[-1])


class Around(Saved, layers.Layer):
    """The pixels around one location, or several in a row: (B,H,W,C) -> (B,K), or (B,P,K) for P offsets.

    Args:
        size: side of the square; less where the map is smaller.
        offsets: offsets of the locations from the centre, along `axis`.
        axis: 1 for rows, 2 for columns.
        centre: (row, column); the middle of the map by default. Beyond the map its border pixels are repeated.
    """

    def __init__(
        self,
        size: int,
        offsets: Sequence[int] = (0,),
        axis: int = 2,
        centre: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.axis, self.offsets = int(size), int(axis), [int(offset) for offset in offsets]
        self.centre = None if centre is None else [int(index) for index in centre]

    def call(self, x: Any) -> Any:
        """(B,H,W,C) -> (B,K), or (B,P,K)."""
        places = self._places(x.shape)  # (P,K)
        if len(self.offsets) > 1:
            flat = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
            return ops.reshape(ops.take(flat, places, axis=1), self.compute_output_shape((-1, *x.shape[1:])))
        rows, columns = np.unique(places // x.shape[2]), np.unique(places % x.shape[2])
        if len(rows) * len(columns) == places.size:  # a cut, which is cheaper, where no border is repeated
            x = cut(x, int(rows[0]), int(columns[0]), len(rows), len(columns))
        else:
            x = ops.take(ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])), places[0], axis=1)
        return ops.reshape(x, (-1, places.size * x.shape[-1]))

    def _places(self, shape: Sequence[int]) -> np.ndarray:
        """(P,K) positions in the flattened map."""
        centre = self.centre or [shape[1] // 2, shape[2] // 2]
        wanted = []
        for offset in self.offsets:
            lines = []
            for axis in (1, 2):
                free = shape[axis] - (2 * max(self.offsets) if self.centre is None and axis == self.axis else 0)
                size = min(self.size, free)
                middle = centre[axis - 1] + (offset if axis == self.axis else 0)
                lines.append(np.clip(np.arange(size) + middle - size // 2, 0, shape[axis] - 1))
            wanted.append((lines[0][:, None] * shape[2] + lines[1][None, :]).ravel())
        return np.stack(wanted)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,K), or (B,P,K): K is the pixels of a square times C."""
        count = self._places(input_shape).shape[1] * input_shape[-1]
        return (input_shape[0], count) if len(self.offsets) == 1 else (input_shape[0], len(self.offsets), count)


class AlongTrack(Saved, layers.Wrapper):
    """Applies a model of sequences at P locations: {name: (B,T,P,·)} -> the model on (B·P,T,·) -> (B,P).

    A cloud looks different ahead of nadir and behind it than below. So a learned vector for each location is added to
    its `shifted` input; nadir, the first location, has none, and the model is complete without them.

    Args:
        layer: the model.
        shifted: the name of that input.
    """

    def __init__(self, layer: keras.Model, shifted: str = "token", **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.shifted = shifted

    def build(self, input_shape: dict[str, Any]) -> None:
        """Create the vectors of the locations; the model is built already."""
        _, _, places, size = input_shape[self.shifted]
        self.places = self.add_weight(shape=(places - 1, size), initializer="zeros", name="places")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Run the model on each location as a sequence of its own."""
        x = inputs[self.shifted]
        added = ops.pad(ops.cast(self.places, x.dtype), ((1, 0), (0, 0)))  # (P,·), 0 at nadir
        rows = {name: ops.transpose(x, (0, 2, 1, 3)) for name, x in {**inputs, self.shifted: x + added}.items()}
        apart = {name: ops.reshape(each, (-1, *each.shape[2:])) for name, each in rows.items()}
        return ops.reshape(self.layer(apart, training=training), (-1, x.shape[2]))

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        """(B,T,P,·) -> (B,P)."""
        first = next(iter(input_shape.values()))
        return (first[0], first[2])
