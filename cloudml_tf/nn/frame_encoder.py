"""The frame encoder: a frame to a vector, with the pixels around nadir at full resolution."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers

from cloudml_tf.nn.layers import gelu
from cloudml_tf.nn.nadir import Around, FootprintSums, NadirCrop


def build_frame_encoder(
    frame_shape: tuple[int, int, int],
    nadir: tuple[int, int],
    widths: Sequence[int] = (24, 32, 48),
    footprint: int = 11,
    features: int = 64,
    dropout: float = 0.0,
    offsets: Sequence[int] = (0,),
    along: Literal["rows", "columns"] = "columns",
) -> keras.Model:
    """One standardised frame (H,W,C) to a vector (D = `features`), keeping the nadir pixels at full resolution.

    Three paths. The *footprint* path convolves the pixels around nadir at full resolution and takes learned weighted
    sums over `footprint` x `footprint` of them, a channel at a time: the lidar's kilometre is a line of pixels, and
    pooling it away costs more than any loss repairs. From the same convolutions the *nadir* path keeps what is around
    nadir after each convolution, and the pixels themselves. The *context* path averages over the whole frame:
    clear-sky level, sun side, cloud type.

    With several `offsets` (even numbers of pixels on the axis `along` the track) it gives the vectors (P,D) of the
    locations that far from nadir, with the same weights.
    """
    frame = keras.Input(frame_shape, name="frame")
    axis = 1 if along == "rows" else 2
    parts = _near_nadir(frame, nadir, widths, footprint, offsets, axis)
    context = _context(frame, widths)
    parts.append(context if len(offsets) == 1 else layers.RepeatVector(len(offsets))(context))
    learned = layers.Dropout(dropout)(layers.Concatenate()(parts))
    pixels = Around(min(3, *frame_shape[:2]), offsets, axis, nadir)(frame)
    joined = layers.Concatenate()([learned, pixels])  # the radiance itself is never dropped
    vector = layers.Dropout(dropout)(layers.Dense(features, activation=gelu, name="vector")(joined))
    return keras.Model(frame, vector, name="frame_encoder")


def _near_nadir(
    frame: Any, nadir: tuple[int, int], widths: Sequence[int], footprint: int, offsets: Sequence[int], axis: int
) -> list[Any]:
    """Footprint sums (B,[P,]2·D0), and the features around each location at each resolution.

    A window that is wide enough lets valid convolutions see real neighbours where padding would put zeros.
    """
    reach = max(footprint + 4, 19)  # two convolutions lose 4; 19 leaves 15, 7 and 5 pixels
    sides = [min(reach, side) for side in frame.shape[1:3]]
    sides[axis - 1] += 2 * max(offsets)
    x = NadirCrop(nadir, *sides, name="nadir_window")(frame)
    for i in range(2):
        x = layers.Conv2D(widths[0], 3, activation=gelu, name=f"near_{i}")(x)
    shorter = [x.shape[1], x.shape[2]]
    shorter[axis - 1] -= 2 * max(offsets)
    footprint = min(footprint, *shorter)
    strip = [footprint, footprint]
    strip[axis - 1] += 2 * max(offsets)
    middle = (x.shape[1] // 2, x.shape[2] // 2)
    mixed = layers.Conv2D(widths[0], 1, activation=gelu, name="mix")(NadirCrop(middle, *strip)(x))
    sums = FootprintSums(widths[0], name="footprint_sums")(Around(footprint, offsets, axis)(mixed))
    parts = [sums, Around(3, offsets, axis)(x)]
    for i, channels in enumerate(widths[1:]):
        if min(x.shape[1:3]) < 3:
            break
        x = layers.Conv2D(channels, 3, strides=1 if i else 2, activation=gelu, name=f"coarser_{i}")(x)
        last = i == len(widths) - 2
        halved = [offset // 2 for offset in offsets]  # the first of these convolutions has stride 2
        parts.append(Around(5 if last else 3, halved, axis)(x))
    return parts


def _context(frame: Any, widths: Sequence[int]) -> Any:
    """(B,H,W,C) -> (B,Dn): the whole frame at half resolution and less, averaged."""
    x = layers.AveragePooling2D(2, padding="same")(frame)
    for i, channels in enumerate(widths):
        x = layers.Conv2D(channels, 3, strides=2 if i else 1, padding="same", activation=gelu, name=f"context_{i}")(x)
    return layers.GlobalAveragePooling2D()(x)
