"""A flight's frames in order of time, a block at a time: as many as a prediction needs in memory at once."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.data import Data
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import read_pieces
from cloudml_tf.data.samples import Samples, nadir_pixel, sight_of

BLOCK_BYTES, MOST_FRAMES = 2**26, 1024  # limits of the decoded frames of a block


@dataclass(frozen=True)
class Block:
    """Frames [first, first + M) of a flight, and the faults of each."""

    first: int
    known: int  # how many of them, at the start, were in the block before
    radiance: np.ndarray  # (M,H,W,C)
    saturated: np.ndarray  # (M,) bool
    no_image: np.ndarray  # (M,) bool
    invalid: np.ndarray  # (M,) bool, those of them with pixels that are no numbers or impossible

    @property
    def end(self) -> int:
        """The index after the last frame."""
        return self.first + len(self.radiance)

    @property
    def bad(self) -> np.ndarray:
        """Frames (M,) that no network may use, as bool."""
        return self.saturated | self.no_image

    def good_sequences(self, sequences: np.ndarray) -> np.ndarray:
        """The sequences of (n,T), in order of time, that end in this block but not before, with good frames only."""
        ends = sequences[:, -1]
        here = sequences[np.searchsorted(ends, self.first + self.known) : np.searchsorted(ends, self.end)]
        return here[~self.bad[here - self.first].any(axis=1)]


def reach(sequences: np.ndarray) -> int:
    """From the first to the last frame of the longest of some sequences (n,T)."""
    return int(np.ptp(sequences, axis=1).max(initial=0))


def read_blocks(flight: Flight, data: Data, overlap: int) -> Iterator[Block]:
    """Yield every frame once, except for an overlap: each sequence whose `reach` it is lies in one block as a whole."""
    frame_bytes = 4 * int(np.prod(flight.frame_shape))
    count = int(np.clip(BLOCK_BYTES // frame_bytes, overlap + 1, max(MOST_FRAMES, overlap + 1)))
    pieces = [np.arange(first, min(first + count, len(flight))) for first in range(0, len(flight), count)]
    slabs = read_pieces(flight, pieces, data.camera)
    before: Block | None = None
    for number, group in itertools.groupby(slabs, key=lambda item: item[0]):
        kept = 0 if before is None else min(overlap, len(before.radiance))
        length = kept + len(pieces[number])
        radiance, flags = np.empty((length, *flight.frame_shape), "float32"), np.zeros((3, length), bool)
        if before is not None and kept:
            radiance[:kept] = before.radiance[-kept:]
            flags[:, :kept] = before.saturated[-kept:], before.no_image[-kept:], before.invalid[-kept:]
        for _, slab in group:
            rows = kept + slab.position
            radiance[rows], flags[:, rows] = slab.radiance, (slab.saturated, slab.no_image, slab.invalid)
        before = Block(int(pieces[number][0]) - kept, kept, radiance, *flags)
        yield before


def samples_of_block(block: Block, sequences: np.ndarray, flight: Flight, data: Data) -> Samples:
    """Sequences (n,T) of frame indices inside a block, without labels."""
    inside, middle = slice(block.first, block.end), sequences[:, sequences.shape[1] // 2]
    sun = flight.sun_angles_deg
    return Samples(
        table=block.radiance,
        sun_angles_deg=None if sun is None else sun[inside].astype("float32"),
        features=flight.features[inside].astype("float32"),
        index=sequences - block.first,
        label=np.full(len(middle), np.nan),
        weight=np.ones(len(middle), "float32"),
        time_s=flight.time_s[middle],
        flight=np.zeros(len(middle), int),
        piece=flight.piece[middle],
        flight_names=(flight.name,),
        nadir=nadir_pixel(flight.frame_shape, data),
        sight=sight_of([flight], {flight.name: np.arange(block.first, block.end)}, data),
    )
