"""The network, top to bottom: frames of radiance in, one number per sequence out.

    frames (B,T,H,W,C) ─ Standardize ─ FoldedTime(frame encoder) ─┐
    sun_angles_deg (B,T,2) ─ SunVector ───────────────────────────┼─ (B,T,D) ─ attention over time ─ head ─ (B,1)
    features (B,T,F) ─ Standardize ───────────────────────────────┘

Letters: B batch, T time, H rows, W columns, C channels, D and F features. Everything is plain arguments and
`keras.ops`, so it runs on every Keras backend. Inputs are raw (radiance, degrees); the regressor's output is in units
of the training target's standard deviation, and `physical_model` turns it into optical depth or kilometres.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

Architecture = Literal["attention", "single_frame", "simple_cnn"]
FRAMES, SUN, FEATURES = "frames", "sun_angles_deg", "features"
_register = keras.saving.register_keras_serializable(package="cloudml_tf")


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
        super().__init__(**kwargs)
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


@_register
class NadirCrop(layers.Layer):
    """The `rows` x `columns` pixels around the nadir pixel, at full resolution. (B,H,W,C) -> (B,rows,columns,C).

    Args:
        nadir: (row, column) of the lidar's footprint in the image.
        rows, columns: odd sizes; the crop is moved inwards at the image's border.
    """

    def __init__(self, nadir: Sequence[int], rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nadir, self.rows, self.columns = [int(n) for n in nadir], int(rows), int(columns)

    def call(self, x: Any) -> Any:
        """Crop."""
        top = _crop_start(self.nadir[0], self.rows, x.shape[1])
        left = _crop_start(self.nadir[1], self.columns, x.shape[2])
        return x[:, top : top + self.rows, left : left + self.columns, :]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,rows,columns,C)."""
        return (input_shape[0], self.rows, self.columns, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "nadir": self.nadir, "rows": self.rows, "columns": self.columns}


def _crop_start(centre: int, size: int, length: int) -> int:
    return int(np.clip(centre - size // 2, 0, length - size))


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
    """

    def __init__(self, mean: float, std: float, log: bool = False, smearing: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean, self.std, self.log, self.smearing = float(mean), float(std), bool(log), float(smearing)

    def call(self, z: Any) -> Any:
        """(B,1) -> (B,1)."""
        value = ops.cast(z, "float32") * self.std + self.mean
        return ops.exp(value) * self.smearing if self.log else value

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        own = {"mean": self.mean, "std": self.std, "log": self.log, "smearing": self.smearing}
        return {**super().get_config(), **own}


def build_frame_encoder(
    frame_shape: tuple[int, int, int],
    nadir: tuple[int, int],
    widths: Sequence[int] = (24, 32, 48),
    footprint: int = 11,
    features: int = 64,
    dropout: float = 0.0,
    nadir_skip: bool = True,
) -> keras.Model:
    """One standardised frame (H,W,C) to a vector (D = `features`), keeping the nadir pixels at full resolution.

    The *footprint* path convolves the pixels around nadir at full resolution and then takes a learned weighted sum
    over `footprint` x `footprint` of them, a channel at a time: the lidar's kilometre is a line of pixels, and pooling
    it away costs more than any loss repairs. The *context* path looks at the whole frame at half resolution and less:
    clear-sky level, sun side, cloud type. `nadir_skip` adds the untouched 3 x 3 pixels.
    """
    height, width, _ = frame_shape
    footprint = min(footprint, height, width)
    frame = keras.Input(frame_shape, name="frame")
    parts = [_footprint_path(frame, nadir, widths[0], footprint)]
    x = layers.AveragePooling2D(2, padding="same")(frame)  # (B,H/2,W/2,C)
    for channels in widths:
        x = layers.Conv2D(channels, 3, strides=1 if channels == widths[0] else 2, padding="same", activation="gelu")(x)
    parts.append(layers.GlobalAveragePooling2D()(x))
    if nadir_skip:
        parts.append(layers.Flatten()(NadirCrop(nadir, 3, 3)(frame)))
    joined = layers.Dropout(dropout)(layers.Concatenate()(parts))
    return keras.Model(frame, layers.Dense(features, activation="gelu")(joined), name="frame_encoder")


def _footprint_path(frame: Any, nadir: tuple[int, int], channels: int, footprint: int) -> Any:
    """(B,H,W,C) -> (B, 2·channels): two 3 x 3 convolutions around nadir, then weighted sums over the footprint."""
    rows, columns = (min(footprint + 4, side) for side in frame.shape[1:3])
    x = NadirCrop(nadir, rows, columns)(frame)
    for _ in range(2):
        x = layers.Conv2D(channels, 3, padding="same", activation="gelu")(x)
    x = layers.CenterCrop(footprint, footprint)(x)
    x = layers.Conv2D(channels, 1, activation="gelu")(x)
    mean_kernel = keras.initializers.Constant(1.0 / footprint)
    x = layers.DepthwiseConv2D(footprint, depth_multiplier=2, depthwise_initializer=mean_kernel)(x)
    return layers.Flatten()(x)


def build_simple_encoder(
    frame_shape: tuple[int, int, int], widths: Sequence[int], features: int, dropout: float
) -> keras.Model:
    """The plain CNN that most people try first: strided convolutions and global pooling, no nadir path."""
    frame = keras.Input(frame_shape, name="frame")
    x = frame
    for channels in widths:
        x = layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(frame, layers.Dense(features, activation="relu")(x), name="frame_encoder")


def temporal_attention(x: Any, heads: int, dropout: float) -> Any:
    """Self-attention over the frames of a sequence, then its middle frame beside the mean. (B,T,D) -> (B,2D)."""
    steps, size = x.shape[1], x.shape[2]
    x = TimeEmbedding()(x)
    normed = layers.LayerNormalization()(x)
    # Not fused: the fused path refuses sequences as short as ours on some GPUs.
    attended = layers.MultiHeadAttention(
        heads, max(size // heads, 1), dropout=dropout, flash_attention=False, name="temporal_attention"
    )(normed, normed)
    x = layers.Add()([x, attended])  # (B,T,D)
    middle = layers.Flatten()(layers.Cropping1D((steps // 2, steps - 1 - steps // 2))(x))
    return layers.Concatenate()([middle, layers.GlobalAveragePooling1D()(x)])


def output_layer(init: str | float, bias: float) -> layers.Layer:
    """The last layer, always float32. `init` is "default" (Glorot) or a standard deviation of its weights."""
    kernel = "glorot_uniform" if init == "default" else keras.initializers.RandomNormal(stddev=float(init))
    bias_start = keras.initializers.Constant(bias)
    return layers.Dense(1, kernel_initializer=kernel, bias_initializer=bias_start, dtype="float32", name="output")


def build_regressor(
    frame_shape: tuple[int, int, int],
    temporal_frames: int = 3,
    nadir: tuple[int, int] | None = None,
    sun_angles: bool = True,
    features: int = 0,
    frame_scaler: layers.Layer | None = None,
    feature_scaler: layers.Layer | None = None,
    architecture: Architecture = "attention",
    widths: Sequence[int] = (24, 32, 48),
    footprint: int = 11,
    encoder_features: int = 64,
    heads: int = 4,
    head_units: int = 64,
    dropout: float = 0.1,
    output_init: str | float = "default",
    output_bias: float = 0.0,
) -> keras.Model:
    """The regressor: raw sequences in, a prediction in standard deviations of the target out, (B,1).

    Args:
        frame_shape: (H, W, C) of a frame.
        temporal_frames: T. With "single_frame" only the middle one is looked at.
        nadir: (row, column) of the lidar's footprint; the middle of the frame by default.
        sun_angles: whether the model takes `sun_angles_deg` (B,T,2): solar zenith, azimuth relative to heading.
        features: how many further numbers a frame it takes as `features` (B,T,F).
        frame_scaler, feature_scaler: `Standardize` layers with training statistics; none leaves the input as it is.
        architecture: "attention"; "single_frame" (middle frame, no attention); "simple_cnn" (pooled, no nadir path).
        widths: channels of the convolutions; the first at full resolution, each further one at half the last.
        footprint: side in pixels of the nadir neighbourhood that is kept at full resolution.
        encoder_features, heads, head_units, dropout: sizes of the frame vector, attention and head.
        output_init, output_bias: see `output_layer`.
    """
    nadir = nadir or (frame_shape[0] // 2, frame_shape[1] // 2)
    frames = keras.Input((temporal_frames, *frame_shape), name=FRAMES)
    inputs: dict[str, Any] = {FRAMES: frames}
    x = frame_scaler(frames) if frame_scaler is not None else frames
    if architecture == "simple_cnn":
        encoder = build_simple_encoder(frame_shape, widths, encoder_features, dropout)
    else:
        encoder = build_frame_encoder(frame_shape, nadir, widths, footprint, encoder_features, dropout)
    tokens = [FoldedTime(encoder, name="encode_frames")(x)]  # (B,T,D)
    if sun_angles:
        inputs[SUN] = keras.Input((temporal_frames, 2), name=SUN)
        tokens.append(SunVector()(inputs[SUN]))  # (B,T,4)
    if features:
        inputs[FEATURES] = keras.Input((temporal_frames, features), name=FEATURES)
        tokens.append(feature_scaler(inputs[FEATURES]) if feature_scaler is not None else inputs[FEATURES])
    x = layers.Concatenate()(tokens) if len(tokens) > 1 else tokens[0]
    x = layers.Dense(encoder_features, activation="gelu", name="frame_token")(x)  # (B,T,D)
    if architecture == "single_frame" or temporal_frames == 1:
        before = temporal_frames // 2
        x = layers.Flatten()(layers.Cropping1D((before, temporal_frames - 1 - before))(x))  # (B,D)
    else:
        x = temporal_attention(x, heads, dropout)  # (B,2D)
    x = layers.Dropout(dropout)(layers.Dense(head_units, activation="gelu", name="head")(x))
    return keras.Model(inputs, output_layer(output_init, output_bias)(x), name="regressor")


def physical_model(regressor: keras.Model, units: PhysicalUnits) -> keras.Model:
    """The model that is exported: raw radiance and degrees in, physical units out."""
    return keras.Model(regressor.inputs, units(regressor.outputs[0]), name="cloudml")
