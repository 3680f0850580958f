"""The network of cloud heights: frames in sequence and their geometry in, heights out.

    frames (B,T,H,W,C) ─ Standardize ─ LevelStrip ─ strip (B,T,R,W,C) ─ strip encoder ─ (B,T,R',W,D) ─┐
    geometry (B,T,9) ─────────────────────┘                                                          ├─ CostVolume
    └───────────── frame model: each frame on its own ───────────────────────────────────────────────┘

    (B,K,N,·) ─ attention over the N pairs of frames ─ convolutions over the K heights ─ softmax ─ height that is seen
    the middle frame's strip ─ content encoder ─ head ─ thickness, other quantities ────────────── the answers (B,Q)

Whatever says how high a cloud is, is in the cost volume: every height is treated by the same weights, so that no level
can be learned by heart. Of image content comes only the thickness between top and base, which is bounded.

Letters: B batch, T time, H rows, W columns, C channels, R rows of a strip, D features of a pixel, K heights, N pairs of
frames, Q quantities.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from cloudml_tf.nn import layers as own
from cloudml_tf.nn.arguments import with_plain_numbers
from cloudml_tf.nn.frame_encoder import build_frame_encoder
from cloudml_tf.nn.heads import bin_centres
from cloudml_tf.nn.layers import FRAMES, GEOMETRY, FoldedTime, MiddleFrame, gelu
from cloudml_tf.nn.parallax import CostVolume, LevelStrip, LocalNormalization, WindowAgreement
from cloudml_tf.nn.saved import Saved
from cloudml_tf.nn.sightlines import GEOMETRY as COLUMNS

STRIP, COMPARED, NUMBERS = "strip", "compared", "numbers"  # the outputs of the frame model, beside the geometry
STRIP_ROWS, COMPARED_ROWS = 19, 5  # rows around nadir that are read, and that features are compared on
STRIP_WIDTHS, PIXEL_FEATURES, GROUP = (8, 8), 16, 4  # of the strip encoder; features that are correlated together
PLACES = (-3, 0, 3)  # pixels along the track around nadir at which frames are compared
PAIR_UNITS = 16  # size of the vector of a pair of frames
HEIGHT_UNITS, KERNEL, DEPTH = 16, 5, 1  # of the convolutions over heights
HEIGHTS = ("top", "base")
THICKEST_KM, USUAL_KM = 2.0, 0.35  # a cloud's thickness: its largest, and the mean that training starts from


def build_strip_encoder(strip_shape: tuple[int, int, int]) -> keras.Model:
    """A levelled strip (R,W,C) to features of each pixel at full resolution, (3,W,D): what is compared between frames.

    Two convolutions, then one over nearly all rows that are left; the grey values themselves are beside.
    """
    strip = x = keras.Input(strip_shape, name="strip")
    for number, width in enumerate(STRIP_WIDTHS):
        x = layers.ZeroPadding2D(((0, 0), (1, 1)))(x)
        x = layers.Conv2D(width, 3, activation=gelu, name=f"near_{number}")(x)
    lost = len(STRIP_WIDTHS)
    x = layers.Concatenate()([x, layers.Cropping2D(((lost, lost), (0, 0)))(strip)])
    vector = layers.Conv2D(PIXEL_FEATURES, (x.shape[1] - COMPARED_ROWS + 1, 1), name="vector")(x)
    return keras.Model(strip, vector, name="strip_encoder")


class HeightAnswer(Saved, layers.Layer):
    """Answers from the distribution of the top over heights, and free numbers of the content: (B,K), (B,U) -> (B,Q).

    The base lies below the top by a thickness, whose distribution the content gives; that of the base is the sum over
    both. Any other quantity is a free number. All are in standard deviations of their target. With `bins` the
    distributions of the heights follow, in the order of the quantities: (B,Q+H·bins) for H heights.

    Args:
        height_km: (K,) evenly spaced heights of the distribution.
        quantities: (Q,) names, heights first, each "top", "base" or another.
        means, stds: (Q,) of the targets, in their own units.
        bins: of a distribution; 0 for none.
        low, high: the range of the bins, in standard deviations of the target.
    """

    def __init__(
        self,
        height_km: Sequence[float],
        quantities: Sequence[str] = ("top",),
        means: Sequence[float] = (0.0,),
        stds: Sequence[float] = (1.0,),
        bins: int = 0,
        low: float = -4.0,
        high: float = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.height_km, self.quantities = [float(h) for h in height_km], [str(name) for name in quantities]
        self.means, self.stds = [float(m) for m in means], [float(s) for s in stds]
        self.bins, self.low, self.high = int(bins), float(low), float(high)
        step = self.height_km[1] - self.height_km[0]
        self.thickness_km = step * np.arange(round(THICKEST_KM / step) + 1)  # (J,)
        heights = [name in HEIGHTS for name in self.quantities]
        if heights != sorted(heights, reverse=True):
            raise ValueError(f"HeightAnswer needs heights before other quantities. Received: {self.quantities}")
        self.heights = sum(heights)

    @property
    def units(self) -> int:
        """U, how many free numbers it takes."""
        return len(self.thickness_km) + len(self.quantities) - self.heights

    def call(self, inputs: Sequence[Any]) -> Any:
        """Put the answers together."""
        top, free = inputs
        height = ops.convert_to_tensor(self.height_km, "float32")
        thickness = ops.convert_to_tensor(self.thickness_km.astype("float32"))
        count = len(self.thickness_km)
        thick = ops.softmax(free[:, :count] - thickness / USUAL_KM, axis=1)  # (B,J)
        seen = ops.sum(top * height, axis=1, keepdims=True)  # km
        value = {"top": seen, "base": seen - ops.sum(thick * thickness, axis=1, keepdims=True)}
        scaled = zip(self.quantities[: self.heights], self.means, self.stds, strict=False)
        points = [(value[name] - mean) / std for name, mean, std in scaled]
        points = ops.concatenate([*points, free[:, count:]], axis=1)
        if not self.bins:
            return points
        share = {"top": top, "base": _below(top, thick)}
        scaled = zip(self.quantities[: self.heights], self.means, self.stds, strict=False)
        shares = [ops.matmul(share[name], self._bins(mean, std)) for name, mean, std in scaled]
        return ops.concatenate([points, *shares], axis=1)

    def _bins(self, mean: float, std: float) -> Any:
        """How each height is divided among the bins on both sides, (K,bins)."""
        value = np.clip((np.asarray(self.height_km) - mean) / std, self.low, self.high)
        reach = max((self.high - self.low) / self.bins, (self.height_km[1] - self.height_km[0]) / std)
        centre = bin_centres(self.bins, self.low, self.high)
        near = np.maximum(1.0 - np.abs(value[:, None] - centre) / reach, 0.0)
        return ops.convert_to_tensor((near / near.sum(axis=1, keepdims=True)).astype("float32"))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B,Q), or (B,Q+H·bins)."""
        return (input_shape[0][0], len(self.quantities) + self.heights * self.bins)


def _below(top: Any, thick: Any) -> Any:
    """The distribution of the base over heights (B,K): that of the top, lowered by that of the thickness (B,J).

    What would lie below the lowest height counts there.
    """
    count, thicknesses = top.shape[1], thick.shape[1]
    padded = ops.pad(top, ((0, 0), (0, thicknesses - 1)))
    batch = ops.shape(top)[0]
    lowered = [thick[:, j : j + 1] * ops.slice(padded, (0, j), (batch, count)) for j in range(thicknesses)]
    found = sum(lowered[1:], lowered[0])  # (B,K)
    lost = 1.0 - ops.sum(found, axis=1, keepdims=True)
    return ops.concatenate([found[:, :1] + lost, found[:, 1:]], axis=1)


@with_plain_numbers
def build_height_network(
    frame_shape: tuple[int, int, int],
    height_km: Sequence[float],
    temporal_frames: int = 7,
    nadir: tuple[int, int] | None = None,
    quantities: Sequence[str] = ("top",),
    means: Sequence[float] = (0.0,),
    stds: Sequence[float] = (1.0,),
    sun_angles: bool = False,
    features: int = 0,
    frame_scaler: layers.Layer | None = None,
    feature_scaler: layers.Layer | None = None,
    attention: bool = True,
    widths: Sequence[int] = (24, 32, 48),
    footprint: int = 11,
    encoder_features: int = 64,
    heads: int = 4,
    head_units: int = 64,
    dropout: float = 0.1,
    head_dropout: float | None = None,
    bins: int = 0,
    bin_range: tuple[float, float] = (-4.0, 4.0),
    mirror_average: Literal["rows", "columns"] | None = None,
    output_init: str | float = "default",
    output_bias: float = 0.0,
    along: Literal["rows", "columns"] = "columns",
    forward_sign: int = 1,
    right_sign: int = 1,
) -> keras.Model:
    """The network of heights: raw sequences in, heights in standard deviations of their targets out, (B,Q).

    Args:
        frame_shape: (H, W, C) of a frame.
        height_km: (K,) evenly spaced heights at which frames are compared.
        temporal_frames: T, 3 or more.
        nadir: (row, column) that looks along the camera's axis; the middle of the frame by default.
        quantities, means, stds: the Q targets, see `HeightAnswer`; the first is the one that is scored.
        sun_angles, features, frame_scaler, feature_scaler, mirror_average: as for `models.build_regressor`.
        attention: whether the pairs of frames attend to one another, with so many `heads`.
        widths, footprint, encoder_features: of the content encoder, as for `models.build_frame_encoder`.
        head_units: size of the content's hidden layer.
        dropout, head_dropout: inside the network, and before the output.
        bins, bin_range: of a histogram head; without `bins` the output is one number a quantity.
        output_init, output_bias: of the content's last layer, from whose 0 a thickness of about 0.35 km follows;
            "default" is a standard deviation of 0.01.
        along, forward_sign, right_sign: how images lie, see `parallax.LevelStrip`.
    """
    if temporal_frames < 3:
        text = "a cost volume compares frames: temporal_frames must be 3 or more."
        raise ValueError(f"{text} Received: {temporal_frames}")
    nadir = nadir or (frame_shape[0] // 2, frame_shape[1] // 2)
    inputs = own.sequence_inputs(frame_shape, temporal_frames, sun_angles, features, len(COLUMNS))
    level = LevelStrip(nadir, STRIP_ROWS, 0 if along == "rows" else 1, forward_sign, right_sign, name="level_strip")
    shapes = {name: tuple(x.shape[2:]) for name, x in inputs.items()}
    frame_model = _frame_model(shapes, level, frame_scaler, feature_scaler)
    known = frame_model(inputs)
    strip_shape = tuple(known[STRIP].shape[2:])
    middle = (strip_shape[0] // 2, strip_shape[1] // 2)
    content = build_frame_encoder(strip_shape, middle, widths, footprint, encoder_features, dropout)
    init = keras.initializers.RandomNormal(stddev=0.01 if output_init == "default" else float(output_init))
    bias = keras.initializers.Constant(output_bias)
    answer = HeightAnswer(height_km, quantities, means, stds, bins, *bin_range, dtype="float32", name="answer")
    output = layers.Dense(answer.units, kernel_initializer=init, bias_initializer=bias, dtype="float32", name="output")
    sequence_model = _sequence_model(
        {name: (temporal_frames, *x.shape[2:]) for name, x in known.items()},
        height_km,
        heads if attention else 0,
        content,
        head_units,
        (dropout, dropout if head_dropout is None else head_dropout),
        output,
        answer,
    )
    core = keras.Model(inputs, sequence_model(known), name="regressor")
    return own.averaged_over_mirror(core, inputs, nadir, mirror_average)


def _frame_model(
    shapes: dict[str, tuple[int, ...]],
    level: layers.Layer,
    frame_scaler: layers.Layer | None,
    feature_scaler: layers.Layer | None,
) -> keras.Model:
    """Each frame on its own, for any T: its strip, the features that are compared, its numbers and its geometry."""
    inputs = {name: keras.Input((None, *shape), name=name) for name, shape in shapes.items()}
    maps = frame_scaler(inputs[FRAMES]) if frame_scaler is not None else inputs[FRAMES]
    strip = level([maps, inputs[GEOMETRY]])
    encoder = build_strip_encoder(tuple(strip.shape[2:]))
    texture = LocalNormalization(name="texture")(strip)
    known = {STRIP: strip, COMPARED: FoldedTime(encoder, name="encode_frames")(texture)}
    known[GEOMETRY] = layers.Identity(dtype="float32", name="geometry_of_frames")(inputs[GEOMETRY])
    numbers = own.numbers(inputs, feature_scaler)
    if numbers:
        known[NUMBERS] = layers.Concatenate(name="numbers")(numbers) if len(numbers) > 1 else numbers[0]
    return keras.Model(inputs, known, name="frame_model")


def _sequence_model(
    shapes: dict[str, tuple[int, ...]],
    height_km: Sequence[float],
    heads: int,
    content: keras.Model,
    head_units: int,
    dropout: tuple[float, float],
    output: layers.Layer,
    answer: HeightAnswer,
) -> keras.Model:
    """From the frames of a sequence to the answers."""
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    volume = CostVolume(height_km, PLACES, PIXEL_FEATURES // GROUP, name="cost_volume")
    grey = WindowAgreement(height_km, name="window_agreement")
    pairs = [volume([inputs[COMPARED], inputs[GEOMETRY]]), grey([inputs[STRIP], inputs[GEOMETRY]])]
    pairs = layers.Concatenate()(pairs)  # (B,K,N,·)
    x = FoldedTime(_pair_model(tuple(pairs.shape[2:]), heads), name="mix_pairs")(pairs)  # (B,K,·)
    x = layers.Dense(HEIGHT_UNITS, activation=gelu, name="mixed")(x)
    for number in range(DEPTH):
        x = layers.Conv1D(HEIGHT_UNITS, KERNEL, padding="same", activation=gelu, name=f"over_heights_{number}")(x)
    x = layers.Dropout(dropout[0])(x)
    logits = layers.Flatten()(layers.Conv1D(1, 1, dtype="float32", name="score")(x))  # (B,K)
    share = layers.Softmax(dtype="float32", name="share")(logits)
    y = content(MiddleFrame()(inputs[STRIP]))
    if NUMBERS in inputs:
        y = layers.Concatenate()([y, MiddleFrame()(inputs[NUMBERS])])
    y = layers.Dropout(dropout[1])(layers.Dense(head_units, activation=gelu, name="head")(y))
    return keras.Model(inputs, answer([share, output(y)]), name="sequence_model")


def _pair_model(shape: tuple[int, ...], heads: int) -> keras.Model:
    """What the pairs of frames say together at one height: (N,·) -> (2 PAIR_UNITS)."""
    pairs = keras.Input(shape, name="pairs")
    x = layers.Dense(PAIR_UNITS, name="pair")(pairs)
    x = own.TimeEmbedding(name="kind_of_pair")(x)
    if heads:
        size = max(PAIR_UNITS // heads, 1)
        attention = layers.MultiHeadAttention(heads, size, flash_attention=False, name="pair_attention")
        x = layers.Add()([x, attention(x, x)])
    x = layers.Activation(gelu)(x)
    weight = layers.Softmax(axis=1)(layers.Dense(1, name="weight")(x))  # (B,N,1)
    chosen = layers.Flatten()(layers.Dot(axes=1)([weight, x]))
    return keras.Model(pairs, layers.Concatenate()([chosen, layers.GlobalAveragePooling1D()(x)]), name="pair_model")
