"""The network, top to bottom: frames of radiance in, one number per sequence out.

    frames (B,T,H,W,C) ─ Standardize ─ FoldedTime(frame encoder) ─┐
    sun_angles_deg (B,T,2) ─ SunVector ───────────────────────────┼─ token (B,T,D) ─ attention over time ─ head ─ (B,1)
    features (B,T,F) ─ Standardize ───────────────────────────────┘
    └───────────── frame model: each frame on its own ────────────┘                └─────── sequence model ──────┘

Optional: contrasts to the neighbourhood as further channels, a linear path from the nadir pixels to the prediction,
and the mean over mirror images. Where sequences overlap, `share_frames` encodes each frame once.

The frame encoder is in `nn.frame_encoder`, the network of heights in `nn.height_network`, that of scenes in `nn.unet`.
Names of layers are looked up by `nn.introspection`.

Letters: B batch, T time, H rows, W columns, C channels, D and F features. Everything is plain arguments and
`keras.ops`, so it runs on every Keras backend. Inputs are raw (radiance, degrees); the regressor's output is in units
of the training target's standard deviation, and `physical_model` turns it into optical depth or kilometres.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import keras
from keras import layers

from cloudml_tf.nn import layers as own
from cloudml_tf.nn.arguments import with_plain_numbers
from cloudml_tf.nn.frame_encoder import build_frame_encoder
from cloudml_tf.nn.heads import POINT, HistogramHead, QuantileHead
from cloudml_tf.nn.introspection import core_of, last_of, mirror_average
from cloudml_tf.nn.layers import CHOSEN, FRAMES, FoldedTime, MiddleFrame, MirrorAverage, gelu
from cloudml_tf.nn.nadir import AlongTrack, Around
from cloudml_tf.nn.regressions import is_joined, network_of, with_network

Architecture = Literal["attention", "no_attention", "single_frame", "simple_cnn"]
Head = Literal["point", "quantile", "histogram"]
TOKEN, PIXELS = "token", "pixels"  # the outputs of the frame model


def build_simple_encoder(
    frame_shape: tuple[int, int, int], widths: Sequence[int], features: int, dropout: float
) -> keras.Model:
    """The plain CNN that most people try first: strided convolutions and global pooling, no nadir path."""
    frame = keras.Input(frame_shape, name="frame")
    x = frame
    for i, channels in enumerate(widths):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu", name=f"context_{i}")(x)
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(frame, layers.Dense(features, activation="relu", name="vector")(x), name="frame_encoder")


def temporal_attention(x: Any, heads: int, dropout: float) -> Any:
    """Self-attention over the frames of a sequence, then its middle frame beside the mean. (B,T,D) -> (B,2D)."""
    size = x.shape[2]
    x = own.TimeEmbedding(name="time")(x)
    normed = layers.LayerNormalization(name="norm")(x)
    # Not fused: the fused path refuses sequences as short as ours on some GPUs.
    attention = layers.MultiHeadAttention(
        heads, max(size // heads, 1), dropout=dropout, flash_attention=False, name="attention"
    )
    attended = attention(normed, normed)
    return middle_and_mean(layers.Add()([x, attended]))


def middle_and_mean(x: Any) -> Any:
    """The middle frame beside the mean over all. (B,T,D) -> (B,2D)."""
    return layers.Concatenate()([MiddleFrame()(x), layers.GlobalAveragePooling1D()(x)])


def output_layer(init: str | float, bias: float, units: int = 1) -> layers.Layer:
    """The last layer, always float32. `init` is "default" (Glorot) or a standard deviation of its weights."""
    kernel = "glorot_uniform" if init == "default" else keras.initializers.RandomNormal(stddev=float(init))
    bias_start = keras.initializers.Constant(bias)
    return layers.Dense(units, kernel_initializer=kernel, bias_initializer=bias_start, dtype="float32", name="output")


@with_plain_numbers
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
    head_dropout: float | None = None,
    head: Head = "point",
    quantiles: int = 9,
    bins: int = 32,
    bin_range: tuple[float, float] = (-4.0, 4.0),
    contrast_boxes: Sequence[int] = (),
    nadir_linear: bool = False,
    mirror_average: Literal["rows", "columns"] | None = None,
    output_init: str | float = "default",
    output_bias: float = 0.0,
    further: int = 0,
    offsets: Sequence[int] = (0,),
    along: Literal["rows", "columns"] = "columns",
) -> keras.Model:
    """The regressor: raw sequences in, a prediction in standard deviations of the target out, (B,1).

    A head with a distribution puts its quantiles or bins into further columns: (B,1+K), see `nn.heads`.
    With several `offsets` along the track the same network predicts each of these locations: (B,P). Weights do not
    depend on the offsets, so that what is trained along the track is used at nadir (`copy_weights`).

    Args:
        frame_shape: (H, W, C) of a frame.
        temporal_frames: T. With "single_frame" only the middle one is used.
        nadir: (row, column) of the lidar's footprint; the middle of the frame by default.
        sun_angles: whether the model takes `sun_angles_deg` (B,T,2): solar zenith, azimuth relative to heading.
        features: F, the number of further values per frame in `features` (B,T,F).
        frame_scaler, feature_scaler: `Standardize` layers with training statistics; None leaves the input as it is.
        architecture: "attention"; "no_attention" (middle frame and mean); "single_frame" (middle frame alone);
            "simple_cnn" (attention over pooled features, no nadir path).
        widths: channels of successive convolutions; around nadir the first two see full resolution.
        footprint: side in pixels of the nadir neighbourhood that is kept at full resolution.
        encoder_features, heads, head_units, dropout: sizes of the frame vector, attention and head.
        head_dropout: dropout before the last layer, where it differs.
        head: "point"; "quantile", of `quantiles`; "histogram", of `bins` over `bin_range` (in std of the target).
        contrast_boxes: sides of the squares of `LocalContrast`; empty leaves the frames as they are.
        nadir_linear: add a linear path from the 5 x 5 nadir pixels of the middle frame to the prediction.
        mirror_average: the across-track axis of the image, to average over mirror images outside of training.
        output_init, output_bias: see `output_layer`.
        further: E, quantities that are learned beside the target; with a point head the output is then (B,1+E).
        offsets: even numbers of pixels from nadir along the track, 0 first; with a point head, not for "simple_cnn".
        along: the image axis along the track.
    """
    nadir = nadir or (frame_shape[0] // 2, frame_shape[1] // 2)
    inputs = own.sequence_inputs(frame_shape, temporal_frames, sun_angles, features)
    encoder: Callable[..., keras.Model] = partial(
        build_frame_encoder, nadir=nadir, footprint=footprint, offsets=offsets, along=along
    )
    encoder = build_simple_encoder if architecture == "simple_cnn" else encoder
    encoder = partial(encoder, widths=widths, features=encoder_features, dropout=dropout)
    pixels = Around(5, offsets, 1 if along == "rows" else 2, nadir) if nadir_linear else None
    shapes = {name: tuple(x.shape[2:]) for name, x in inputs.items()}
    frame_model = build_frame_model(
        shapes, encoder, encoder_features, frame_scaler, feature_scaler, contrast_boxes, pixels
    )
    known = frame_model(inputs)
    alone = architecture == "single_frame" or temporal_frames == 1
    units = {"point": 1 + further, "quantile": quantiles, "histogram": bins}[head]
    sequence_model = build_sequence_model(
        {name: (temporal_frames, x.shape[-1]) for name, x in known.items()},
        mix="alone" if alone else "mean" if architecture == "no_attention" else "attention",
        heads=heads,
        head_units=head_units,
        dropout=dropout,
        head_dropout=dropout if head_dropout is None else head_dropout,
        output=partial(output_layer, output_init, output_bias, units),
        distribution=_distribution(head, bin_range),
    )
    several = len(known[TOKEN].shape) == 4  # sequences (B,T,P,D) of P locations give (B,P), others (B,1)
    predict = AlongTrack(sequence_model, TOKEN, name="along_track") if several else sequence_model
    core = keras.Model(inputs, predict(known), name="regressor")
    return own.averaged_over_mirror(core, inputs, nadir, mirror_average)


def build_frame_model(
    shapes: dict[str, tuple[int, ...]],
    build_encoder: Callable[..., keras.Model],
    token: int,
    frame_scaler: layers.Layer | None = None,
    feature_scaler: layers.Layer | None = None,
    contrast_boxes: Sequence[int] = (),
    nadir_pixels: layers.Layer | None = None,
) -> keras.Model:
    """Process each frame on its own: {frames (B,T,H,W,C), ...} -> {token (B,T,D)}, or (B,T,P,D), for any T.

    Args:
        shapes: shape of one frame's inputs by name, without B and T.
        build_encoder: the shape of a frame (H,W,C') -> a model (H,W,C') -> (D0), or (P,D0).
        token: D.
        frame_scaler, feature_scaler, contrast_boxes: as for `build_regressor`.
        nadir_pixels: gives the pixels around nadir, (H,W,C') -> (25C'), for `nadir_linear`.
    """
    inputs = {name: keras.Input((None, *shape), name=name) for name, shape in shapes.items()}
    maps = frame_scaler(inputs[FRAMES]) if frame_scaler is not None else inputs[FRAMES]
    if contrast_boxes:
        maps = own.LocalContrast(contrast_boxes, name="local_contrast")(maps)  # (B,T,H,W,C')
    encoder = build_encoder(maps.shape[2:])
    x = FoldedTime(encoder, name="encode_frames")(maps)
    numbers = own.numbers(inputs, feature_scaler)  # each (B,T,·)
    if len(x.shape) == 4:
        numbers = [FoldedTime(layers.RepeatVector(x.shape[2]))(each) for each in numbers]  # (B,T,P,·)
    x = layers.Concatenate()([x, *numbers]) if numbers else x
    known = {TOKEN: layers.Dense(token, activation=gelu, name="frame_token")(x)}
    if nadir_pixels is not None:
        known[PIXELS] = FoldedTime(nadir_pixels, name="nadir_pixels")(maps)
    return keras.Model(inputs, known, name="frame_model")


def build_sequence_model(
    shapes: dict[str, tuple[int, ...]],
    mix: Literal["attention", "mean", "alone"],
    heads: int,
    head_units: int,
    dropout: float,
    head_dropout: float,
    output: Callable[[], layers.Layer],
    distribution: layers.Layer | None = None,
) -> keras.Model:
    """From the tokens of a sequence's frames to the prediction: {token (B,T,D)} -> (B,1), or (B,1+K).

    Args:
        shapes: (T,D) of the frame model's outputs, by name.
        mix: how tokens are combined: by attention, the middle one beside the mean, or the middle one alone.
        heads, head_units, dropout, head_dropout: as for `build_regressor`.
        output: makes the last layer.
        distribution: the layer that turns its output into a distribution.
    """
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    x = inputs[TOKEN]
    if mix == "alone":
        x = MiddleFrame()(x)  # (B,D)
    else:
        x = middle_and_mean(x) if mix == "mean" else temporal_attention(x, heads, dropout)  # (B,2D)
    x = layers.Dropout(head_dropout)(layers.Dense(head_units, activation=gelu, name="head")(x))
    prediction = output()(x)
    if distribution is not None:
        prediction = distribution(prediction)  # (B,1+K)
    if PIXELS in inputs:
        units = prediction.shape[-1] if distribution is None else 1
        linear = layers.Dense(units, use_bias=False, dtype="float32", name="nadir_linear")
        prediction = layers.Add(dtype="float32")([prediction, linear(MiddleFrame()(inputs[PIXELS]))])
    return keras.Model(inputs, prediction, name="sequence_model")


def _distribution(head: Head, bin_range: tuple[float, float]) -> layers.Layer | None:
    if head == "histogram":
        return HistogramHead(*bin_range, dtype="float32", name="distribution")
    return QuantileHead(dtype="float32", name="distribution") if head == "quantile" else None


def share_frames(regressor: keras.Model) -> keras.Model:
    """Rebuild a regressor, with the same weights, for sequences that overlap: each frame is encoded once.

    The new inputs are those of the regressor for the F frames of a whole batch, {frames (F,H,W,C), ...}, and
    `chosen_frames` (B,T), integers that say which frames make each sequence. The output is the same, (B,1) or (B,1+K).
    """
    if is_joined(regressor):
        return with_network(regressor, share_frames(network_of(regressor)), _gathered)
    wrapped, core = mirror_average(regressor), core_of(regressor)
    inputs = {x.name: keras.Input(x.shape[2:], name=x.name) for x in core.inputs}
    chosen = keras.Input((core.inputs[0].shape[1],), dtype="int32", name=CHOSEN)
    known = core.get_layer("frame_model")({name: keras.ops.expand_dims(x, 0) for name, x in inputs.items()})
    sequences = {name: own.GatherFrames(name=f"gather_{name}")([x, chosen]) for name, x in known.items()}
    if min(inputs) < CHOSEN:
        raise ValueError(f"the name of an input must come after '{CHOSEN}' in the alphabet. Received: '{min(inputs)}'.")
    inputs[CHOSEN] = chosen
    shared = keras.Model(inputs, last_of(core)(sequences), name="regressor")
    if wrapped is None:
        return shared
    averaged = MirrorAverage(shared, wrapped.nadir, wrapped.axis - 1, name="mirror_average")(inputs)
    return keras.Model(inputs, averaged, name="regressor")


def _gathered(inputs: dict[str, Any]) -> dict[str, Any]:
    """The frames of sequences (B,T,·), from those of a whole batch (F,·) and the rows that make each sequence."""
    chosen = inputs[CHOSEN]
    gathered = {name: own.GatherFrames(name=f"gather_{name}") for name in inputs if name != CHOSEN}
    return {name: layer([keras.ops.expand_dims(inputs[name], 0), chosen]) for name, layer in gathered.items()}


def shares_frames(model: keras.Model) -> bool:
    """Whether a model was made by `share_frames`."""
    return any(x.name == CHOSEN for x in model.inputs)


def physical_model(regressor: keras.Model, units: own.PhysicalUnits, *further: own.PhysicalUnits) -> keras.Model:
    """Build the model that is exported: raw radiance and degrees in, physical units out; with `further` units a list of
    outputs, of the target and of each further quantity."""
    answer = regressor.outputs[0]  # (B,1), (B,1+K) of a distribution, or a map (B,H,W)
    distribution = len(answer.shape) == 2 and answer.shape[-1] != 1
    point = answer[:, POINT : POINT + 1] if distribution else answer
    if not further:
        return keras.Model(regressor.inputs, units(point), name="cloudml")
    beside = [convert(answer[:, column : column + 1]) for column, convert in enumerate(further, POINT + 1)]
    return keras.Model(regressor.inputs, [units(point), *beside], name="cloudml")
