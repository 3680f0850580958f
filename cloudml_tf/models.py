"""The network, top to bottom: frames of radiance in, one number per sequence out.

    frames (B,T,H,W,C) ─ Standardize ─ FoldedTime(frame encoder) ─┐
    sun_angles_deg (B,T,2) ─ SunVector ───────────────────────────┼─ (B,T,D) ─ attention over time ─ head ─ (B,1)
    features (B,T,F) ─ Standardize ───────────────────────────────┘

Optional: contrasts to the neighbourhood as further channels, a straight line from the nadir pixels to the answer, and
the mean over mirror images.

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
        return ops.reshape(maps, (-1, *x.shape[1:-1], maps.shape[-1]))

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
        axis: the across-track axis of `frames`: 2 for rows, 3 for columns.
    """

    def __init__(self, layer: keras.Model, nadir: int, axis: int = 2, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.nadir, self.axis = int(nadir), int(axis)

    def build(self, input_shape: Any) -> None:
        """The model is built already."""
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """(B,1)."""
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
            found[SUN] = inputs[SUN] * ops.convert_to_tensor([1.0, -1.0], dtype=inputs[SUN].dtype)
        return found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One number a sequence."""
        return (input_shape[FRAMES][0], 1)

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
) -> keras.Model:
    """One standardised frame (H,W,C) to a vector (D = `features`), keeping the nadir pixels at full resolution.

    Three paths. The *footprint* path convolves the pixels around nadir at full resolution and takes learned weighted
    sums over `footprint` x `footprint` of them, a channel at a time: the lidar's kilometre is a line of pixels, and
    pooling it away costs more than any loss repairs. From the same convolutions the *nadir* path keeps what is around
    nadir at full resolution and at each halved one, and the pixels themselves. The *context* path averages over the
    whole frame: clear-sky level, sun side, cloud type.
    """
    frame = keras.Input(frame_shape, name="frame")
    parts = _near_nadir(frame, nadir, widths, footprint)
    parts.append(_context(frame, widths))
    learned = layers.Dropout(dropout)(layers.Concatenate()(parts))
    pixels = layers.Flatten()(NadirCrop(nadir, *(min(3, side) for side in frame_shape[:2]))(frame))
    joined = layers.Concatenate()([learned, pixels])  # the radiance itself is never dropped
    vector = layers.Dropout(dropout)(layers.Dense(features, activation="gelu")(joined))
    return keras.Model(frame, vector, name="frame_encoder")


def _near_nadir(frame: Any, nadir: tuple[int, int], widths: Sequence[int], footprint: int) -> list[Any]:
    """Footprint sums (B, 2·D0), and the features around nadir at each resolution.

    Valid convolutions from a window that is wide enough see real neighbours where padding would put zeros.
    """
    reach = max(footprint + 4, 19)  # two convolutions eat 4; 19 leaves 15, 7 and 5 pixels
    x = NadirCrop(nadir, *(min(reach, side) for side in frame.shape[1:3]))(frame)
    for _ in range(2):
        x = layers.Conv2D(widths[0], 3, activation="gelu")(x)
    footprint = min(footprint, *x.shape[1:3])
    mixed = layers.Conv2D(widths[0], 1, activation="gelu")(_middle(x, footprint))
    mean_kernel = keras.initializers.Constant(1.0 / footprint)
    sums = layers.DepthwiseConv2D(footprint, depth_multiplier=2, depthwise_initializer=mean_kernel)(mixed)
    parts = [layers.Flatten()(sums), layers.Flatten()(_middle(x, 3))]
    for i, channels in enumerate(widths[1:]):
        if min(x.shape[1:3]) < 3:
            break
        x = layers.Conv2D(channels, 3, strides=1 if i else 2, activation="gelu")(x)
        last = i == len(widths) - 2
        parts.append(layers.Flatten()(_middle(x, 5 if last else 3)))
    return parts


def _middle(x: Any, size: int) -> Any:
    """The middle of a feature map, (B,H,W,D) -> (B,size,size,D), or all of a smaller one."""
    height, width = x.shape[1:3]
    return NadirCrop((height // 2, width // 2), min(size, height), min(size, width))(x)


def _context(frame: Any, widths: Sequence[int]) -> Any:
    """(B,H,W,C) -> (B,Dn): the whole frame at half resolution and less, averaged."""
    x = layers.AveragePooling2D(2, padding="same")(frame)
    for i, channels in enumerate(widths):
        x = layers.Conv2D(channels, 3, strides=2 if i else 1, padding="same", activation="gelu")(x)
    return layers.GlobalAveragePooling2D()(x)


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
    size = x.shape[2]
    x = TimeEmbedding()(x)
    normed = layers.LayerNormalization()(x)
    # Not fused: the fused path refuses sequences as short as ours on some GPUs.
    attended = layers.MultiHeadAttention(heads, max(size // heads, 1), dropout=dropout, flash_attention=False)(
        normed, normed
    )
    x = layers.Add()([x, attended])  # (B,T,D)
    return layers.Concatenate()([MiddleFrame()(x), layers.GlobalAveragePooling1D()(x)])


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
    contrast_boxes: Sequence[int] = (),
    nadir_linear: bool = False,
    mirror_average: Literal["rows", "columns"] | None = None,
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
        contrast_boxes: sides of the squares of `LocalContrast`; none leaves the frames as they are.
        nadir_linear: add a straight line from the 5 x 5 nadir pixels of the middle frame to the answer.
        mirror_average: the across-track axis of the image, to average over mirror images outside of training.
        output_init, output_bias: see `output_layer`.
    """
    nadir = nadir or (frame_shape[0] // 2, frame_shape[1] // 2)
    inputs: dict[str, Any] = {FRAMES: keras.Input((temporal_frames, *frame_shape), name=FRAMES)}
    if sun_angles:
        inputs[SUN] = keras.Input((temporal_frames, 2), name=SUN)
    if features:
        inputs[FEATURES] = keras.Input((temporal_frames, features), name=FEATURES)
    maps = frame_scaler(inputs[FRAMES]) if frame_scaler is not None else inputs[FRAMES]
    if contrast_boxes:
        maps = LocalContrast(contrast_boxes)(maps)  # (B,T,H,W,C')
    if architecture == "simple_cnn":
        encoder = build_simple_encoder(maps.shape[2:], widths, encoder_features, dropout)
    else:
        encoder = build_frame_encoder(maps.shape[2:], nadir, widths, footprint, encoder_features, dropout)
    tokens = [FoldedTime(encoder, name="encode_frames")(maps), *_numbers(inputs, feature_scaler)]  # each (B,T,·)
    x = layers.Concatenate()(tokens) if len(tokens) > 1 else tokens[0]
    x = layers.Dense(encoder_features, activation="gelu", name="frame_token")(x)  # (B,T,D)
    alone = architecture == "single_frame" or temporal_frames == 1
    x = MiddleFrame()(x) if alone else temporal_attention(x, heads, dropout)  # (B,D) or (B,2D)
    x = layers.Dropout(dropout)(layers.Dense(head_units, activation="gelu", name="head")(x))
    answer = output_layer(output_init, output_bias)(x)
    if nadir_linear:
        pixels = layers.Flatten()(NadirCrop(nadir, *(min(5, side) for side in frame_shape[:2]))(MiddleFrame()(maps)))
        answer = layers.Add()([answer, layers.Dense(1, use_bias=False, dtype="float32", name="nadir_linear")(pixels)])
    core = keras.Model(inputs, answer, name="regressor")
    if mirror_average is None:
        return core
    axis = 2 if mirror_average == "rows" else 3
    averaged = MirrorAverage(core, nadir[axis - 2], axis, name="mirror_average")(inputs)
    return keras.Model(inputs, averaged, name="regressor")


def _numbers(inputs: dict[str, Any], feature_scaler: layers.Layer | None) -> list[Any]:
    """What is known of each frame besides its pixels."""
    found = [SunVector()(inputs[SUN])] if SUN in inputs else []  # (B,T,4)
    if FEATURES in inputs:
        found.append(feature_scaler(inputs[FEATURES]) if feature_scaler is not None else inputs[FEATURES])
    return found


def physical_model(regressor: keras.Model, units: PhysicalUnits) -> keras.Model:
    """The model that is exported: raw radiance and degrees in, physical units out."""
    return keras.Model(regressor.inputs, units(regressor.outputs[0]), name="cloudml")
