"""Infer the image geometry: which axis the flight follows, and how far to shrink the images."""

import re
from pathlib import Path

import numpy as np

from cloudml_tf.data.discovery.datasets import Found
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.packing import unpack

LARGE_SIDE, WANTED_SIDE = 96, 32  # pixels
ACROSS = r"across|cross track|xtrack|swath"
ALONG = r"along"
PAIRS, LOOKED_AT = 12, 96  # pairs of neighbouring frames, and the side of their middle, pixels
CLEAR = 0.7  # largest residual of a shift along the track, relative to no shift
AXES = ("rows", "columns")


def shrinking(sides: tuple[int, ...]) -> int:
    """Pixels to average over, so that large frames approach the size that the network is made for."""
    return max(min(sides) // WANTED_SIDE, 1) if max(sides) > LARGE_SIDE else 1


def across_track(path: Path, frames: Found) -> tuple[str | None, str]:
    """The image axis across the flight ("rows" or "columns"), or None, and why.

    Dimension names decide; otherwise the scene, which moves along the track from frame to frame.
    """
    for axis, name in zip(AXES, frames.dims[1:], strict=True):
        if re.search(ACROSS, name):
            return axis, f"dimension '{name}'"
        if re.search(ALONG, name):
            return AXES[1 - AXES.index(axis)], f"the other is '{name}'"
    left = _left_by_shifts(path, frames.name, frames.frames_last)
    if left is None:
        return None, "the images do not show which way they move"
    along = int(np.argmin(left))
    if left[along] > CLEAR or left[along] > 0.8 * left[1 - along]:
        return None, "the images do not show which way they move"
    moved = AXES[along]
    return AXES[1 - along], f"the scene moves along the {moved} from frame to frame"


def _left_by_shifts(path: Path, name: str, frames_last: bool) -> tuple[float, float] | None:
    """The least mean squared difference of neighbouring frames over shifts along each axis, relative to no shift."""
    with hdf5.open_file(path) as file:
        item = hdf5.images(file, name, "", frames_last)
        middle = [slice(max((side - LOOKED_AT) // 2, 0), (side + LOOKED_AT) // 2) for side in item.shape[1:]]
        starts = np.unique(np.linspace(0, item.shape[0] - 2, PAIRS).astype(int))
        with hdf5.library(file, name):
            raw = [np.asarray(item[start : start + 2, middle[0], middle[1]]) for start in starts]
        pairs = [unpack(pair, hdf5.packing(item)) for pair in raw]
    pairs = [pair for pair in pairs if np.isfinite(pair).all() and np.ptp(pair[0]) > 0 and (pair[0] != pair[1]).any()]
    if not pairs:
        return None
    still = np.mean([np.mean((a - b) ** 2) for a, b in pairs])
    return _least(pairs, 0) / still, _least(pairs, 1) / still


def _least(pairs: list[np.ndarray], axis: int) -> float:
    """The least difference over all shifts except none, up to a third of the frame."""
    reach = pairs[0].shape[1 + axis] // 3
    shifts = [shift for size in range(1, reach + 1) for shift in (size, -size)]
    return float(min((_difference(pairs, axis, shift) for shift in shifts), default=np.inf))


def _difference(pairs: list[np.ndarray], axis: int, shift: int) -> float:
    """The mean squared difference in the overlap of both frames, the second one shifted."""
    size, cut = abs(shift), []
    for first, second in pairs:
        a, b = (first, second) if shift > 0 else (second, first)
        cut.append(np.mean((np.moveaxis(a, axis, 0)[size:] - np.moveaxis(b, axis, 0)[:-size]) ** 2))
    return float(np.mean(cut))
