"""The layers that Keras does not have: normalisation with training statistics, angles, nadir crops, time, mirrors.

All take plain arguments, keep their constants in their config, and use `keras.ops`, so that a saved or exported model
needs nothing else and every Keras backend runs them. Letters: B batch, T time, H rows, W columns, C channels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

FRAMES, SUN, FEATURES = "frames", "sun_angles_deg", "features"  # the names of a model's inputs
# Which frames make a sequence, where sequences share frames. Keras takes the first input in the order of the alphabet
# for the number of samples, so this one has to come before the others.
CHOSEN = "chosen_frames"
_register = keras.saving.register_keras_serializable(package="cloudml_tf")


@_register
def gelu(x: Any) -> Any:
    """Keras's exact GELU (Hendrycks & Gimpel 2016). On TensorFlow its derivative is worked out on the way forward.

    There every operation reads and writes the whole map; other backends fuse them.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.activations.gelu(x, approximate=False)

    @ops.custom_gradient
    def with_slope(x: Any) -> Any:
        h = x * 0.5**0.5
        twice_below = 1.0 + ops.erf(h)  # the normal distribution up to x, twice
        slope = 0.5 * twice_below + (h * np.pi**-0.5) * ops.exp(-(h * h))

        def gradient(*args: Any, upstream: Any = None) -> Any:
            return (args[0] if upstream is None else upstream) * slope

        return (0.5 * x) * twice_below, gradient

    return with_slope(x)


@_register
class Standardize(layers.Layer):
    """(x - mean) / std with training statistics, over the last axis; optionally of log(x + offset).

    The statistics are constants of the layer, in its config, so a saved or exported model carries them.

    Args:
        mean, std: one number a channel, after the logarithm if there is one.
        log_offset: None for no logarithm; else a positive number added first. Values under 0 count as 0.
        flat_field: None, or an image (H, W, C) of relative response that the input is divided by first (vignetting).
        per_frame: use each frame's own mean and std instead. This destroys absolute radiance, which carries optical
            depth.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        log_offset: float | None = None,
        flat_field: Any = None,
        per_frame: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # raw radiance loses its digits in half precision
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]
        self.log_offset, self.per_frame = log_offset, per_frame
        self.flat_field = None if flat_field is None else np.asarray(flat_field, "float32").tolist()

    def call(self, x: Any) -> Any:
        """(..., C) -> (..., C)."""
        x = ops.cast(x, "float32")
        if self.flat_field is not None:
            x = x / ops.convert_to_tensor(self.flat_field, dtype="float32")
        if self.log_offset is not None:
            x = ops.log(ops.maximum(x, 0.0) + self.log_offset)
        if self.per_frame:
            mean = ops.mean(x, axis=(-3, -2), keepdims=True)
            std = ops.std(x, axis=(-3, -2), keepdims=True)
            return ops.cast((x - mean) / (std + 1e-6), self.compute_dtype)
        mean, std = ops.convert_to_tensor(self.mean), ops.convert_to_tensor(self.std)
        return ops.cast((x - mean) / std, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        names = ("mean", "std", "log_offset", "flat_field", "per_frame")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@_register
class SunVector(layers.Layer):
    """Solar zenith and azimuth relative to the heading, in degrees, as sines and cosines. (B,T,2) -> (B,T,4).

    An angle itself jumps at 360; its sine and cosine do not. The azimuth's pair is scaled by the sine of the zenith:
    with the sun overhead there is no sunny side. Row mirror images change the sign of the second output only.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # degrees lose their digits in half precision

    def call(self, angles_deg: Any) -> Any:
        """Degrees in, unit-free numbers out."""
        angles = ops.cast(angles_deg, "float32") * (np.pi / 180.0)
        zenith, azimuth = angles[..., 0], angles[..., 1]
        parts = [
            ops.sin(zenith) * ops.cos(azimuth),
            ops.sin(zenith) * ops.sin(azimuth),
            ops.cos(zenith),
            ops.sin(zenith),
        ]
        return ops.cast(ops.stack(parts, axis=-1), self.compute_dtype)  # (B,T,4)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(..., 2) -> (..., 4)."""
        return (*input_shape[:-1], 4)


def cut(x: Any, row: int, column: int, rows: int, columns: int) -> Any:
    """Some rows and columns of maps (B,H,W,C).

    One slice: its gradient is a padding, where that of x[:, a:b] takes ten times as long on TensorFlow's CPU.
    """
    return ops.slice(x, (0, row, column, 0), (ops.shape(x)[0], rows, columns, x.shape[-1]))


@_register
class FootprintSums(layers.Layer):
    """Learned weighted sums over the pixels of a square, a channel at a time: (..., pixels·C) -> (..., sums·C).

    A depthwise convolution as large as its input, as one product of matrices, which is several times faster.

    Args:
        channels: C.
        sums: of each channel.
    """

    def __init__(self, channels: int, sums: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.sums = int(channels), int(sums)

    def build(self, input_shape: Any) -> None:
        """Sums that begin as means, times the square's side."""
        pixels = input_shape[-1] // self.channels
        mean = keras.initializers.Constant(1.0 / pixels**0.5)
        self.kernel = self.add_weight(shape=(pixels, self.channels, self.sums), initializer=mean, name="kernel")
        self.bias = self.add_weight(shape=(self.channels * self.sums,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        """The kernel as a matrix: what belongs to another channel is 0."""
        own = ops.reshape(ops.eye(self.channels, dtype=self.compute_dtype), (1, self.channels, self.channels, 1))
        matrix = ops.expand_dims(self.kernel, 2) * own  # (pixels,C,C,sums)
        return ops.matmul(x, ops.reshape(matrix, (-1, self.channels * self.sums))) + self.bias

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The sums of all channels."""
        return (*input_shape[:-1], self.channels * self.sums)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "channels": self.channels, "sums": self.sums}


@_register
class NadirCrop(layers.Layer):
    """The `rows` x `columns` pixels around the nadir pixel, at full resolution. (B,H,W,C) -> (B,rows,columns,C).

    Args:
        nadir: (row, column) of the lidar's footprint in the image.
        rows, columns: odd sizes. Nadir stays in the middle; beyond the image its border pixels are repeated.
    """

    def __init__(self, nadir: Sequence[int], rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nadir, self.rows, self.columns = [int(n) for n in nadir], int(rows), int(columns)

    def call(self, x: Any) -> Any:
        """Crop."""
        starts = [place - size // 2 for place, size in zip(self.nadir, (self.rows, self.columns), strict=True)]
        if min(starts) >= 0 and starts[0] + self.rows <= x.shape[1] and starts[1] + self.columns <= x.shape[2]:
            return cut(x, starts[0], starts[1], self.rows, self.columns)
        for axis, start, size in zip((1, 2), starts, (self.rows, self.columns), strict=True):
            x = ops.take(x, np.clip(np.arange(start, start + size), 0, x.shape[axis] - 1), axis=axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,rows,columns,C)."""
        return (input_shape[0], self.rows, self.columns, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "nadir": self.nadir, "rows": self.rows, "columns": self.columns}


@_register
class Around(layers.Layer):
    """The pixels around one place, or several in a row: (B,H,W,C) -> (B,K), or (B,P,K) for P offsets.

    Args:
        size: side of the square; less where the map is smaller.
        offsets: of the places from the centre, along `axis`.
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
        self.centre = None if centre is None else [int(place) for place in centre]

    def call(self, x: Any) -> Any:
        """Pick them."""
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
                room = shape[axis] - (2 * max(self.offsets) if self.centre is None and axis == self.axis else 0)
                size = min(self.size, room)
                middle = centre[axis - 1] + (offset if axis == self.axis else 0)
                lines.append(np.clip(np.arange(size) + middle - size // 2, 0, shape[axis] - 1))
            wanted.append((lines[0][:, None] * shape[2] + lines[1][None, :]).ravel())
        return np.stack(wanted)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """K pixels of all channels."""
        count = self._places(input_shape).shape[1] * input_shape[-1]
        return (input_shape[0], count) if len(self.offsets) == 1 else (input_shape[0], len(self.offsets), count)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        own = {"size": self.size, "offsets": self.offsets, "axis": self.axis, "centre": self.centre}
        return {**super().get_config(), **own}


@_register
class AlongTrack(layers.Wrapper):
    """A model of sequences, at P places: {name: (B,T,P,·)} -> the model on (B·P,T,·) -> (B,P).

    A cloud looks different ahead of nadir and behind it than below. So a learned vector for each place is added to its
    `shifted` input; nadir, the first place, has none, and the model is whole without them.

    Args:
        layer: the model.
        shifted: the name of that input.
    """

    def __init__(self, layer: keras.Model, shifted: str = "token", **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.shifted = shifted

    def build(self, input_shape: dict[str, Any]) -> None:
        """The model is built already."""
        _, _, places, size = input_shape[self.shifted]
        self.places = self.add_weight(shape=(places - 1, size), initializer="zeros", name="places")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Each place as a sequence of its own."""
        x = inputs[self.shifted]
        added = ops.pad(ops.cast(self.places, x.dtype), ((1, 0), (0, 0)))  # (P,·), 0 at nadir
        apart = {
            name: ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, x.shape[1], x.shape[3]))
            for name, x in {**inputs, self.shifted: x + added}.items()
        }
        return ops.reshape(self.layer(apart, training=training), (-1, x.shape[2]))

    def compute_output_shape(self, input_shape: dict[str, Any]) -> Any:
        """A number a place."""
        first = next(iter(input_shape.values()))
        return (first[0], first[2])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "shifted": self.shifted}


@_register
class LocalContrast(layers.Layer):
    """Appends each channel minus its mean over squares of several sizes. (B,T,H,W,C) -> (B,T,H,W,C·(1 + boxes)).

    Brightness against the neighbourhood tells a thick core from a bright surrounding, which radiance alone does not
    where light leaks sideways between columns.

    Args:
        boxes: odd sides of the squares, pixels. Means are taken inside the image.
        gain: the differences are smaller than the channels; this brings them to about the same size.
    """

    def __init__(self, boxes: Sequence[int], gain: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.boxes, self.gain = [int(box) for box in boxes], float(gain)

    def call(self, x: Any) -> Any:
        """Append the differences."""
        flat = ops.reshape(x, (-1, *x.shape[2:]))  # (B·T,H,W,C)
        means = [ops.average_pool(flat, box, strides=1, padding="same") for box in self.boxes]
        maps = ops.concatenate([flat, *[self.gain * (flat - mean) for mean in means]], axis=-1)
        return ops.reshape(maps, (*ops.shape(x)[:-1], maps.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """More channels."""
        return (*input_shape[:-1], input_shape[-1] * (1 + len(self.boxes)))

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "boxes": self.boxes, "gain": self.gain}


@_register
class MirrorAverage(layers.Wrapper):
    """The mean of a model's answers to a sequence and to its across-track mirror image, outside of training.

    Nature does not know left from right; a network trained on few flights does. In training the model is called once,
    on what it is given (mirrored at random by the pipeline).

    Args:
        layer: a model of the inputs {frames, sun_angles_deg, features}.
        nadir: index of the nadir pixel on the across-track axis, about which the image is mirrored.
        axis: the across-track axis of `frames`: of (B,T,H,W,C), 2 for rows, 3 for columns.
    """

    def __init__(self, layer: keras.Model, nadir: int, axis: int = 2, **kwargs: Any) -> None:
        super().__init__(layer, autocast=False, **kwargs)
        self.nadir, self.axis = int(nadir), int(axis)

    def build(self, input_shape: Any) -> None:
        """The model is built already."""
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The model's own answer, (B,1) or (B,1+K)."""
        once = self.layer(inputs, training=training)
        if training:
            return once
        return 0.5 * (once + self.layer(self.mirrored(inputs), training=training))

    def mirrored(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The mirror image: rows (or columns) about nadir, border pixels repeated, and the azimuth's sign."""
        length = inputs[FRAMES].shape[self.axis]
        source = np.clip(2 * self.nadir - np.arange(length), 0, length - 1)
        found = {**inputs, FRAMES: ops.take(inputs[FRAMES], source, axis=self.axis)}
        if SUN in inputs:
            angles = ops.convert_to_tensor(inputs[SUN])  # an array times a tensor of PyTorch is an error
            found[SUN] = angles * ops.convert_to_tensor([1.0, -1.0], dtype=angles.dtype)
        return found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the model: one number a sequence, and those of a distribution."""
        return (input_shape[FRAMES][0], *self.layer.output.shape[1:])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "nadir": self.nadir, "axis": self.axis}


@_register
class MiddleFrame(layers.Layer):
    """The labelled frame of a sequence. (B,T,...) -> (B,...)."""

    def call(self, x: Any) -> Any:
        """Pick it."""
        return x[:, x.shape[1] // 2]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Without T."""
        return (input_shape[0], *input_shape[2:])


@_register
class GatherFrames(layers.Layer):
    """The frames of each sequence out of those of all: (1,F,...), (B,T) integers -> (B,T,...)."""

    def call(self, inputs: Sequence[Any]) -> Any:
        """Pick them."""
        x, chosen = inputs
        return ops.take(x[0], chosen, axis=0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """A sequence each."""
        return (*input_shape[1], *input_shape[0][2:])


@_register
class FoldedTime(layers.Wrapper):
    """`TimeDistributed` with time folded into the batch: (B,T,...) -> the layer on (B·T,...) -> (B,T,...).

    Equal to Keras's own for a static T (tested), several times faster, since that one calls the layer once a frame,
    and right for a dynamic T, where that one (Keras 3.15) iterates over the batch.
    """

    def build(self, input_shape: Any) -> None:
        """Build the wrapped layer for one frame."""
        if not self.layer.built:
            self.layer.build((None, *input_shape[2:]))
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Run all frames as one batch."""
        batch, time = ops.shape(x)[0], ops.shape(x)[1]
        frames = ops.reshape(x, (-1, *x.shape[2:]))  # (B·T, ...)
        encoded = self.layer(frames, training=training)
        return ops.reshape(encoded, (batch, time, *encoded.shape[1:]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,T,...) -> (B,T, the layer's output)."""
        inner = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (input_shape[0], input_shape[1], *inner[1:])


@_register
class TimeEmbedding(layers.Layer):
    """Adds a learned vector a time step, so that attention can tell the middle frame from its neighbours."""

    def build(self, input_shape: Any) -> None:
        """One vector (D) for each of T steps."""
        self.steps = self.add_weight(shape=tuple(input_shape[1:]), initializer="zeros", name="steps")

    def call(self, x: Any) -> Any:
        """(B,T,D) -> (B,T,D)."""
        return x + self.steps

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Unchanged."""
        return input_shape


@_register
class PhysicalUnits(layers.Layer):
    """Standardised prediction to physical units: z·std + mean; then, for a log target, exp times `smearing`.

    Args:
        mean, std: of the training target, after its transform.
        log: whether the target was ln(value).
        smearing: the mean of exp(residual) (Duan 1983), which makes exp of a predicted mean log a mean; 1 leaves it a
            median.
        log_offset: what the target's logarithm was taken with: ln(value + log_offset). The answer is 0 or more then.
    """

    def __init__(
        self,
        mean: float,
        std: float,
        log: bool = False,
        smearing: float = 1.0,
        log_offset: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.mean, self.std, self.log, self.smearing = float(mean), float(std), bool(log), float(smearing)
        self.log_offset = float(log_offset)

    def call(self, z: Any) -> Any:
        """Of any shape, which stays."""
        value = ops.cast(z, "float32") * self.std + self.mean
        if not self.log:
            return value
        value = ops.exp(value) * self.smearing
        return ops.maximum(value - self.log_offset, 0.0) if self.log_offset else value

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        names = ("mean", "std", "log", "smearing", "log_offset")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
