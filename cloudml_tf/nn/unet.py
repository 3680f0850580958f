"""The dense network: an image in, a value for every pixel out.

    frames (B,H,W,C) ─ Standardize ─┬─ encoder at full, half, quarter … resolution ─ decoder ─┐
                                    └─ pixels, one by one ────────────────────────────────────┴─ head ─ (B,H,W)

A U-Net of residual blocks (Ronneberger et al. 2015; He et al. 2016), with a path that sees each pixel alone: most of
the information about optical depth is in the pixel's own reflectance, and the neighbourhood adds shadows and bright
sides. Where scenes are periodic, convolutions wrap around, so that no border is invented. Keras and NumPy only.

Letters: B batch, H rows, W columns, C channels. Inputs are raw; the prediction is in standard deviations of the
training target, and `models.physical_model` turns it into optical depth.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers, ops

from cloudml_tf.nn.arguments import with_plain_numbers
from cloudml_tf.nn.layers import FRAMES, AverageOverMirror, FramesAsChannels, gelu
from cloudml_tf.nn.saved import Saved

AXES = {"rows": 1, "columns": 2}  # of an image (B,H,W,C)
NORM_MOMENTUM = 0.97  # of the running statistics, which are used outside of training


class AroundImage(Saved, layers.Layer):
    """Pads an image: with the opposite side where it is periodic, else with the pixels at its own border.

    Args:
        width: width of the border, pixels.
        periodic: whether the image repeats itself.
    """

    def __init__(self, width: int = 1, periodic: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.periodic = int(width), bool(periodic)

    def call(self, x: Any) -> Any:
        """(B,H,W,C) -> (B,H+2·width,W+2·width,C)."""
        if not self.periodic:
            border = (self.width, self.width)
            return ops.pad(x, ((0, 0), border, border, (0, 0)), mode="symmetric")
        for axis in (1, 2):
            ahead, behind = [slice(None)] * 4, [slice(None)] * 4
            ahead[axis], behind[axis] = slice(-self.width, None), slice(None, self.width)
            x = ops.concatenate([x[tuple(ahead)], x, x[tuple(behind)]], axis=axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,H+2·width,W+2·width,C)."""
        batch, rows, columns, channels = input_shape
        rows, columns = (side and side + 2 * self.width for side in (rows, columns))
        return (batch, rows, columns, channels)


class ImageMirrorAverage(AverageOverMirror):
    """Averages a model's maps of an image and of its mirror image, outside of training.

    The mirror image keeps the sun's side, so that both maps predict the same truth.

    Args:
        layer: a model (B,H,W,C) -> (B,H,W).
        axis: the axis that is flipped: "rows" or "columns".
    """

    def __init__(self, layer: keras.Model, axis: Literal["rows", "columns"] = "rows", **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.axis = axis

    def mirrored(self, inputs: Any) -> Any:
        """Images (B,H,W,C), flipped."""
        return ops.flip(inputs, axis=AXES[self.axis])

    def back(self, prediction: Any) -> Any:
        """Maps (B,H,W), flipped back."""
        return ops.flip(prediction, axis=AXES[self.axis])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,H,W)."""
        return input_shape[:3]


class ImageShiftAverage(Saved, layers.Wrapper):
    """Averages a model's maps of a periodic image and of shifted copies, each shifted back, outside of training.

    Pooling lays a grid over the image, so the prediction depends on how the image lies on that grid, which nature does
    not. One diagonal of shifts puts each row and each column once on every line of the grid.

    Args:
        layer: a model (B,H,W,C) -> (B,H,W).
        step: spacing of the coarsest grid, pixels: as many shifts are averaged.
    """

    def __init__(self, layer: keras.Model, step: int, **kwargs: Any) -> None:
        super().__init__(layer, autocast=False, **kwargs)
        self.step = int(step)

    def build(self, input_shape: Any) -> None:
        """The model is built already."""
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B,H,W,C) -> (B,H,W)."""
        if training:
            return self.layer(x, training=training)
        shifts = range(self.step)  # all in one call, which leaves a small graph
        together = ops.concatenate([ops.roll(x, (n, n), axis=(1, 2)) for n in shifts], axis=0)
        maps = ops.split(self.layer(together, training=training), self.step, axis=0)
        return sum(ops.roll(each, (-n, -n), axis=(1, 2)) for n, each in zip(shifts, maps, strict=True)) / self.step

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,H,W,C) -> (B,H,W)."""
        return input_shape[:3]


@with_plain_numbers
def build_swath_network(
    frame_shape: tuple[int | None, ...],
    frame_scaler: layers.Layer | None = None,
    widths: Sequence[int] = (16, 32, 64),
    dropout: float = 0.1,
    head_dropout: float | None = None,
    head_units: int = 32,
    periodic: bool = True,
    mirror_average: Literal["rows", "columns"] | None = None,
    shift_average: bool = False,
    output_init: str | float = "default",
    output_bias: float = 0.0,
) -> keras.Model:
    """Raw images in, a map in standard deviations of the target out: {frames (B,H,W,C)} -> (B,H,W).

    Of T frames, {frames (B,T,H,W,C)}, the channels of all are read together, and the map is that of the middle one.

    Args:
        frame_shape: (H,W,C) or (T,H,W,C); H and W are multiples of 2 to the power of the levels below the first, or
            None for any.
        frame_scaler: a `Standardize` layer; none leaves the input as it is.
        widths: channels at full resolution, at half, at a quarter, and so on.
        dropout: dropout of whole feature maps inside a block.
        head_dropout: dropout of single features before the head; None takes `dropout`.
        head_units: size of the head's hidden layer, and twice that of the path that sees each pixel alone.
        periodic: whether images repeat themselves.
        mirror_average: the axis that mirror images flip, to average over them outside of training.
        shift_average: average over shifts along the diagonal too; for periodic images.
        output_init, output_bias: as for `models.build_regressor`.
    """
    check_sides(frame_shape[-3:-1], len(widths))
    frames = keras.Input(frame_shape, name=FRAMES)
    maps = frame_scaler(frames) if frame_scaler is not None else frames
    maps = maps if len(frame_shape) == 3 else FramesAsChannels(name="frames_as_channels")(maps)
    core = _core(maps.shape[1:], widths, dropout, head_dropout, head_units, periodic, output_init, output_bias)
    model = ImageShiftAverage(core, 2 ** (len(widths) - 1), name="shift_average") if shift_average else core
    if mirror_average is not None:
        model = ImageMirrorAverage(model, mirror_average, name="mirror_average")
    return keras.Model({FRAMES: frames}, model(maps), name="swath_network")


def check_sides(sides: tuple[int | None, ...], levels: int) -> None:
    """Refuse an image that cannot be halved often enough. Raises `ValueError`."""
    step = 2 ** (levels - 1)
    if any(side is not None and side % step for side in sides):
        raise ValueError(
            f"a swath network of {levels} widths needs rows and columns that are multiples of {step}. "
            f"Received: {sides[0]} x {sides[1]}"
        )


def _core(
    shape: tuple[int | None, ...],
    widths: Sequence[int],
    dropout: float,
    head_dropout: float | None,
    head_units: int,
    periodic: bool,
    output_init: str | float,
    output_bias: float,
) -> keras.Model:
    """Standardised images (H,W,C) -> (H,W)."""
    image = x = keras.Input(shape, name="image")
    kept = []
    for level, width in enumerate(widths):
        x = layers.AveragePooling2D(2)(x) if level else x
        x = _block(x, width, dropout, periodic, f"down_{level}")
        kept.append(x)
    for level in reversed(range(len(widths) - 1)):
        x = layers.Conv2D(widths[level], 1, name=f"narrow_{level}")(x)
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), kept[level]])
        x = _block(x, widths[level], dropout, periodic, f"up_{level}")
    pixel = image
    for number in range(2):
        pixel = layers.Conv2D(max(head_units // 2, 1), 1, activation=gelu, name=f"pixel_{number}")(pixel)
    x = layers.Concatenate()([x, pixel])
    x = layers.Dropout(dropout if head_dropout is None else head_dropout)(x)
    x = layers.Conv2D(head_units, 1, activation=gelu, name="head")(x)
    kernel = "glorot_uniform" if output_init == "default" else keras.initializers.RandomNormal(stddev=output_init)
    bias = keras.initializers.Constant(output_bias)
    x = layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias, dtype="float32", name="output")(x)
    return keras.Model(image, x[..., 0], name="swath_core")


def _block(x: Any, width: int, dropout: float, periodic: bool, name: str) -> Any:
    """Two convolutions beside a straight path. (B,H,W,C) -> (B,H,W,width).

    Batches are a few scenes of thousands of pixels each, enough for the statistics of a batch normalisation.
    """
    straight = x if x.shape[-1] == width else layers.Conv2D(width, 1, name=f"{name}_straight")(x)
    x = layers.Activation(gelu)(_normed_convolution(x, width, periodic, f"{name}_0"))
    x = layers.SpatialDropout2D(dropout)(x)
    x = _normed_convolution(x, width, periodic, f"{name}_1")
    return layers.Activation(gelu)(layers.Add()([x, straight]))


def _normed_convolution(x: Any, width: int, periodic: bool, name: str) -> Any:
    x = AroundImage(1, periodic)(x)
    x = layers.Conv2D(width, 3, use_bias=False, kernel_initializer="he_normal", name=name)(x)
    return layers.BatchNormalization(momentum=NORM_MOMENTUM, name=f"{name}_norm")(x)
