"""The layers that Keras does not have: normalisation with training statistics, angles, nadir crops, time, mirrors.

All take plain arguments, keep their constants in their config, and use `keras.ops`, so that a saved or exported model
needs nothing else and every Keras backend runs them. Letters: B batch, T time, H rows, W columns, C channels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cloudml_tf.nn.arguments import is_true, number
from cloudml_tf.nn.saved import Saved, register
from cloudml_tf.nn.sightlines import MIRRORED_ACROSS, signs

# The names of a model's inputs.
FRAMES, SUN, FEATURES, GEOMETRY = "frames", "sun_angles_deg", "features", "geometry"
# Which frames make a sequence, where sequences share frames. Keras takes the first input in the order of the alphabet
# for the number of samples, so this one has to come before the others (`models.share_frames` asks for it).
CHOSEN = "chosen_frames"


@register
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


class _SameShape(Saved, layers.Layer):
    """A layer whose output has the shape of its input."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape does not change."""
        return input_shape


class Standardize(_SameShape):
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
        if log_offset is not None:
            log_offset = number("Standardize", "log_offset", log_offset, lambda n: True, "to be a number, or None")
        self.log_offset = log_offset
        self.per_frame = is_true("Standardize", "per_frame", per_frame)
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


class SunVector(Saved, layers.Layer):
    """Solar zenith and azimuth relative to the heading, in degrees, as sines and cosines. (B,T,2) -> (B,T,4).

    An angle itself jumps at 360; its sine and cosine do not. The azimuth's pair is scaled by the sine of the zenith:
    with the sun overhead there is no sunny side. Row mirror images change the sign of the second output only.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # degrees lose their digits in half precision

    def call(self, angles_deg: Any) -> Any:
        """Turn degrees into unit-free numbers."""
        angles = ops.cast(angles_deg, "float32") * (np.pi / 180.0)
        zenith, azimuth = angles[..., 0], angles[..., 1]
        sine = ops.sin(zenith)
        parts = [sine * ops.cos(azimuth), sine * ops.sin(azimuth), ops.cos(zenith), sine]
        return ops.cast(ops.stack(parts, axis=-1), self.compute_dtype)  # (B,T,4)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(..., 2) -> (..., 4)."""
        return (*input_shape[:-1], 4)


def numbers(inputs: dict[str, Any], feature_scaler: layers.Layer | None) -> list[Any]:
    """The numbers of each frame that a network reads beside its pixels, each (B,T,·)."""
    found = [SunVector()(inputs[SUN])] if SUN in inputs else []  # (B,T,4)
    if FEATURES in inputs:
        found.append(feature_scaler(inputs[FEATURES]) if feature_scaler is not None else inputs[FEATURES])
    return found


class LocalContrast(Saved, layers.Layer):
    """Appends each channel minus its mean over squares of several sizes. (B,T,H,W,C) -> (B,T,H,W,C·(1 + boxes)).

    Brightness relative to the neighbourhood distinguishes a thick core from a bright surrounding, which radiance alone
    cannot where photons leak sideways between columns.

    Args:
        boxes: odd sides of the squares, pixels. Means are taken inside the image.
        gain: the differences are smaller than the channels; this brings them to about the same size.
    """

    def __init__(self, boxes: Sequence[int], gain: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.boxes, self.gain = [int(box) for box in boxes], float(gain)

    def call(self, x: Any) -> Any:
        """Append the differences to the channels."""
        flat = ops.reshape(x, (-1, *x.shape[2:]))  # (B·T,H,W,C)
        means = [ops.average_pool(flat, box, strides=1, padding="same") for box in self.boxes]
        maps = ops.concatenate([flat, *[self.gain * (flat - mean) for mean in means]], axis=-1)
        return ops.reshape(maps, (*ops.shape(x)[:-1], maps.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,T,H,W,C) -> (B,T,H,W,C·(1 + boxes))."""
        return (*input_shape[:-1], input_shape[-1] * (1 + len(self.boxes)))


class AverageOverMirror(Saved, layers.Wrapper):
    """Averages a model's predictions for an input and for its mirror image, outside of training.

    Nature does not distinguish left from right; a network trained on few flights does. During training the model is
    called once, on the input as it comes (the input pipeline mirrors it at random). The two subclasses define what is
    mirrored, and about which line; each keeps the name and the arguments under which models were saved.
    """

    def __init__(self, layer: keras.Model, **kwargs: Any) -> None:
        super().__init__(layer, autocast=False, **kwargs)

    def build(self, input_shape: Any) -> None:
        """The model is built already."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The average of both predictions, or the model's own during training."""
        once = self.layer(inputs, training=training)
        if training:
            return once
        return 0.5 * (once + self.back(self.layer(self.mirrored(inputs), training=training)))

    def mirrored(self, inputs: Any) -> Any:
        """The mirror image."""
        raise NotImplementedError

    def back(self, prediction: Any) -> Any:
        """The prediction for the mirror image, as that for the image itself: the same where it is a number."""
        return prediction


class MirrorAverage(AverageOverMirror):
    """Averages a model's predictions for a sequence and for its across-track mirror image, outside of training.

    Args:
        layer: a model of the inputs {frames, sun_angles_deg, features, geometry}, with the output (B,1) or (B,1+K).
        nadir: index of the nadir pixel on the across-track axis, about which the image is mirrored.
        axis: the across-track axis of `frames`: of (B,T,H,W,C), 2 for rows, 3 for columns.
    """

    def __init__(self, layer: keras.Model, nadir: int, axis: int = 2, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.nadir, self.axis = int(nadir), int(axis)

    def mirrored(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Mirror rows (or columns) about nadir, repeating border pixels.

        The sun's azimuth, roll, and motion and wind across the track change their signs.
        """
        length = inputs[FRAMES].shape[self.axis]
        source = np.clip(2 * self.nadir - np.arange(length), 0, length - 1)
        found = {**inputs, FRAMES: ops.take(inputs[FRAMES], source, axis=self.axis)}
        if SUN in inputs:
            angles = ops.convert_to_tensor(inputs[SUN])  # an array times a tensor of PyTorch is an error
            found[SUN] = angles * ops.convert_to_tensor([1.0, -1.0], dtype=angles.dtype)
        if GEOMETRY in inputs:
            columns = ops.convert_to_tensor(inputs[GEOMETRY])
            found[GEOMETRY] = columns * ops.convert_to_tensor(signs(MIRRORED_ACROSS), dtype=columns.dtype)
        return found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the model's output: one number per sequence, and the columns of a distribution."""
        return (input_shape[FRAMES][0], *self.layer.output.shape[1:])


def sequence_inputs(
    frame_shape: Sequence[int], temporal_frames: int, sun_angles: bool, features: int, geometry: int = 0
) -> dict[str, Any]:
    """The inputs of a network of sequences by name; `features` and `geometry` are columns, 0 for no such input."""
    columns = {GEOMETRY: geometry, SUN: 2 * sun_angles, FEATURES: features}
    shapes = {FRAMES: tuple(frame_shape), **{name: (count,) for name, count in columns.items() if count}}
    return {name: keras.Input((temporal_frames, *shape), name=name) for name, shape in shapes.items()}


def averaged_over_mirror(
    core: keras.Model, inputs: dict[str, Any], nadir: Sequence[int], across: str | None
) -> keras.Model:
    """The network, averaged over mirror images along the image axis `across` the track; itself where that is None."""
    if across is None:
        return core
    axis = 2 if across == "rows" else 3
    averaged = MirrorAverage(core, nadir[axis - 2], axis, name="mirror_average")(inputs)
    return keras.Model(inputs, averaged, name="regressor")


class MiddleFrame(Saved, layers.Layer):
    """The labelled frame of a sequence. (B,T,...) -> (B,...)."""

    def call(self, x: Any) -> Any:
        """Pick the middle frame."""
        return x[:, x.shape[1] // 2]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,T,...) -> (B,...)."""
        return (input_shape[0], *input_shape[2:])


class GatherFrames(Saved, layers.Layer):
    """Gathers the frames of each sequence from a table of frames: (1,F,...), (B,T) integers -> (B,T,...)."""

    def call(self, inputs: Sequence[Any]) -> Any:
        """Gather them."""
        x, chosen = inputs
        return ops.take(x[0], chosen, axis=0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(1,F,...), (B,T) -> (B,T,...)."""
        return (*input_shape[1], *input_shape[0][2:])


class FoldedTime(Saved, layers.Wrapper):
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


class TimeEmbedding(_SameShape):
    """Adds a learned vector to each time step, so that attention can distinguish the middle frame from its
    neighbours."""

    def build(self, input_shape: Any) -> None:
        """Create one vector (D) for each of T steps."""
        self.steps = self.add_weight(shape=tuple(input_shape[1:]), initializer="zeros", name="steps")

    def call(self, x: Any) -> Any:
        """(B,T,D) -> (B,T,D)."""
        return x + self.steps


class FramesAsChannels(Saved, layers.Layer):
    """The channels of T frames side by side: (B,T,H,W,C) -> (B,H,W,T*C)."""

    def call(self, x: Any) -> Any:
        """Frame by frame, in order of time."""
        return ops.concatenate([x[:, step] for step in range(x.shape[1])], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One image with the channels of all."""
        batch, steps, rows, columns, channels = input_shape
        return (batch, rows, columns, steps * channels)


class PhysicalUnits(_SameShape):
    """Converts a standardised prediction to physical units: z·std + mean; then, for a log target, exp times `smearing`.

    Args:
        mean, std: statistics of the training target, after its transform.
        log: whether the target was ln(value).
        smearing: the mean of exp(residual) (Duan 1983), which turns exp of a predicted mean log into a mean; with 1 it
            stays
            a median.
        log_offset: the offset of the target's logarithm, ln(value + log_offset). The prediction is then 0 or more.
    """

    def __init__(
        self, mean: float, std: float, log: bool = False, smearing: float = 1.0, log_offset: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.mean, self.std, self.log, self.smearing = float(mean), float(std), bool(log), float(smearing)
        self.log_offset = float(log_offset)

    def call(self, z: Any) -> Any:
        """Any shape, which does not change."""
        value = ops.cast(z, "float32") * self.std + self.mean
        if not self.log:
            return value
        value = ops.exp(value) * self.smearing
        return ops.maximum(value - self.log_offset, 0.0) if self.log_offset else value
