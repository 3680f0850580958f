"""Is each frame an image of its own moment? Artefacts, frozen frames, vignetting, copies and gains.

Every frame is read once (of a long flight, runs of neighbours spread over it) and reduced to a few numbers.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import read_frames
from cloudml_tf.data.samples import nadir_pixel

MOST_FRAMES, RUN = 6000, 100  # frames of a flight that are read, in runs of neighbours
THUMBNAIL = 8  # pixels per side
JUST_BELOW = 0.01  # of the highest value: where pixels pile up, few lie there
CORNER = 8  # the corners and the centre are an eighth and a quarter of the frame's sides


@dataclass(frozen=True)
class FrameScan:
    """M frames of one flight, each as a few numbers. C channels."""

    name: str
    frames: np.ndarray  # (M,) indices into the flight, increasing
    black: np.ndarray  # (M,) bool: all pixels of a channel are equal
    not_finite: np.ndarray  # (M,) bool
    saturated: np.ndarray  # (M,) bool, by data.camera.saturation and bad_pixel_fraction
    frozen: np.ndarray  # (M,) bool: an image equal to the one before
    nadir: np.ndarray  # (M,C) mean of 3 x 3 pixels; NaN where the frame is not an image
    centre: np.ndarray  # (M,C) mean of the middle
    corners: np.ndarray  # (M,C) mean of the four corners
    thumbnail: np.ndarray  # (M,8,8) of the first channel
    piled_up: list[tuple[float, float]]  # of each channel: the highest value, and the share of pixels that have it

    @property
    def usable(self) -> np.ndarray:
        """Which frames (M,) are images of their own moment, as bool."""
        return ~(self.black | self.not_finite | self.saturated | self.frozen)

    def longest_frozen(self) -> tuple[int, int, int]:
        """The length of the longest run of equal frames, and its first and last frame (indices of the flight)."""
        begins = np.flatnonzero(~self.frozen)  # each with the frames that repeat it
        lengths = np.diff(begins, append=len(self.frozen))
        longest, count = begins[lengths.argmax()], int(lengths.max())
        if count == 1:
            return 0, 0, 0
        return count, int(self.frames[longest]), int(self.frames[longest + count - 1])


def frozen_words(flight: Flight, scan: FrameScan) -> str:
    """What is said of frames that repeat the one before."""
    count, first, last = scan.longest_frozen()
    seconds = float(flight.time_s[last] - flight.time_s[first]) if count else 0.0
    return (
        f"{flight.name}: {scan.frozen.sum()} of {len(scan.frames)} frames repeat the one before; the longest run is "
        f"{count} frames, {seconds:.0f} s, from frame {first}"
    )


def scan_frames(flight: Flight, config: Config) -> FrameScan:
    """Scan a flight's frames."""
    chosen = _runs(len(flight))
    height, width, channels = flight.frame_shape
    row, column = nadir_pixel(flight.frame_shape, config.data)
    near = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
    count = len(chosen)
    flags = {name: np.zeros(count, bool) for name in ("black", "not_finite", "saturated")}
    means = {name: np.full((count, channels), np.nan) for name in ("nadir", "centre", "corners")}
    small = np.zeros((count, *(min(THUMBNAIL, side) for side in (height, width)), channels), "float32")
    tops = [Top() for _ in range(channels)]
    for place, radiance, bad in read_frames(flight, chosen, config.data.camera):
        flat = radiance.reshape(len(radiance), -1, channels)
        flags["not_finite"][place] = ~np.isfinite(flat).all(axis=(1, 2))
        flags["black"][place] = (flat == flat[:, :1]).all(axis=1).any(axis=1)
        flags["saturated"][place] = bad & ~flags["not_finite"][place] & ~flags["black"][place]
        means["nadir"][place[~bad]] = radiance[~bad][:, near[0], near[1]].mean(axis=(1, 2))
        means["corners"][place[~bad]], means["centre"][place[~bad]] = _corners_and_centre(radiance[~bad])
        small[place] = _shrunk(radiance)
        for channel, top in enumerate(tops):
            top.add(radiance[~bad][..., channel])
    frozen = np.zeros(count, bool)
    frozen[1:] = (small[1:] == small[:-1]).all(axis=(1, 2, 3)) & (np.diff(chosen) == 1)
    frozen &= ~(flags["black"] | flags["not_finite"] | flags["saturated"])
    return FrameScan(
        name=flight.name,
        frames=chosen,
        frozen=frozen,
        thumbnail=small[..., 0],
        **flags,
        **means,
        piled_up=[top.found() for top in tops],
    )


class Top:
    """The highest value of many images, and how many pixels have it, against those just below."""

    def __init__(self) -> None:
        self.high, self.count, self.below, self.pixels = -np.inf, 0, 0, 0

    def add(self, images: np.ndarray) -> None:
        """Add images (n,H,W) that are finite."""
        if not images.size:
            return
        high = float(images.max())
        if high > self.high:
            self.high, self.count, self.below = high, 0, 0
        self.pixels += images.size
        if high == self.high:
            at = int((images == high).sum())
            self.count += at
            self.below += int((images > high - JUST_BELOW * abs(high)).sum()) - at

    def found(self) -> tuple[float, float]:
        """The highest value and the share of pixels that have it; no share where as many lie just below it."""
        piled = self.count > self.below and self.pixels > 0
        return self.high, self.count / self.pixels if piled else 0.0


def _runs(count: int) -> np.ndarray:
    """All frames, or runs of neighbours spread evenly over the flight."""
    if count <= MOST_FRAMES:
        return np.arange(count)
    starts = np.linspace(0, count - RUN, MOST_FRAMES // RUN).astype(int)
    return (starts[:, None] + np.arange(RUN)).ravel()


def _corners_and_centre(radiance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the corners and of the centre, (n,H,W,C) -> (n,C) and (n,C)."""
    height, width = radiance.shape[1:3]
    y, x = max(height // CORNER, 1), max(width // CORNER, 1)
    edges = itertools.product((slice(y), slice(-y, None)), (slice(x), slice(-x, None)))
    four = [radiance[:, rows, columns] for rows, columns in edges]
    middle = radiance[:, height // 2 - y : height // 2 + y, width // 2 - x : width // 2 + x]
    return np.mean([part.mean(axis=(1, 2)) for part in four], axis=0), middle.mean(axis=(1, 2))


def _shrunk(radiance: np.ndarray) -> np.ndarray:
    """Average over rectangles, which gives equal results for equal frames. (n,H,W,C) -> (n,8,8,C)."""
    for axis in (1, 2):
        length = radiance.shape[axis]
        edges = np.linspace(0, length, min(THUMBNAIL, length) + 1).astype(int)
        shape = [1] * radiance.ndim
        shape[axis] = -1
        radiance = np.add.reduceat(radiance, edges[:-1], axis=axis) / np.diff(edges).reshape(shape).astype("float32")
    return radiance


# --- the same scene in two flights

ALIKE = 0.98  # correlation of two thumbnails of one scene; noise lowers it a little
UNLIKE_THE_REST = 0.3  # (1 - r) of the partner over (1 - r) of the best other frame, further than `NEIGHBOURS` away
NEIGHBOURS = 10
FEWEST_COPIES = 12  # frames in a row, with one distance between their indices


def copied_frames(first: FrameScan, second: FrameScan) -> np.ndarray:
    """Pairs (n,2) of frame indices that show the same scene in two flights.

    Two cloud scenes may look alike by chance, and clear sea always does. So a frame's partner must be far more similar
    than any other frame of that flight, and neighbours must have neighbours as partners.
    """
    a, b = _profiles(first), _profiles(second)
    if not len(a[0]) or not len(b[0]):
        return np.zeros((0, 2), int)
    partner, good = _partners(a[1], b[1], b[0])
    i, j = a[0][good], b[0][partner[good]]
    if not len(i):
        return np.zeros((0, 2), int)
    distances, times_seen = np.unique(j - i, return_counts=True)
    kept = np.isin(j - i, distances[times_seen >= FEWEST_COPIES])
    return np.stack([i[kept], j[kept]], axis=1)


def _profiles(scan: FrameScan) -> tuple[np.ndarray, np.ndarray]:
    """Usable frames (m,) and their thumbnails (m,64), each with mean 0 and length 1."""
    chosen = np.flatnonzero(scan.usable)
    flat = scan.thumbnail[chosen].reshape(len(chosen), int(np.prod(scan.thumbnail.shape[1:])))
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    structured = length[:, 0] > 0
    return scan.frames[chosen][structured], flat[structured] / length[structured]


def _partners(a: np.ndarray, b: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `a` the most similar row of `b`, and whether it stands out. (m,64), (n,64) -> (m,), (m,)."""
    partner, good = np.zeros(len(a), int), np.zeros(len(a), bool)
    for first in range(0, len(a), 512):
        r = a[first : first + 512] @ b.T  # (k,n)
        best = r.argmax(axis=1)
        highest = r[np.arange(len(r)), best]
        r[np.abs(frames[None, :] - frames[best][:, None]) <= NEIGHBOURS] = -1.0
        part = slice(first, first + len(r))
        partner[part] = best
        good[part] = (highest > ALIKE) & (1.0 - highest < UNLIKE_THE_REST * (1.0 - r.max(axis=1)))
    return partner, good
