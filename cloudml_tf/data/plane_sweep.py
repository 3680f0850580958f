"""The height of a cloud by geometry alone: try every height, and take the one at which the frames agree best.

A window around nadir in the middle frame is compared with where it would be in each other frame if it lay at a height,
by the mean of their normalised cross-correlations: a plane sweep (Collins 1996, doi 10.1109/CVPR.1996.517097). Nothing
is trained, so nothing can learn the flight. Letters: n sequences, T frames, K heights, W the window's side.
"""

from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.data import Data
from cloudml_tf.config.geometry import Geometry
from cloudml_tf.nn.sightlines import ALTITUDE, TIME, motion_px_km, nadir_px

WINDOW, SIGMA_PX = 7, 2.0
FLATTEST = 1e-12  # variance below which a window has no texture
LEAST_BELOW_KM = 0.5  # heights nearer to the camera are not tried
AWAY_PX, FOLLOWED = np.arange(-3.0, 3.1, 0.5), 0.7  # where a window is looked for, and the correlation of one found


@dataclass(frozen=True)
class Axes:
    """How images lie: the array axis along the track (0 rows, 1 columns), and which way each index grows."""

    along: int
    forward: int  # 1 where the index along the track grows forward, else -1
    right: int  # 1 where the index across the track grows to the right, else -1

    def upright(self, frames: np.ndarray, nadir: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """Images (…,H,W,C) with rows that run to the right and columns that run forward; and nadir there. A view."""
        row, column = nadir
        if self.along == 0:
            frames, (row, column) = np.swapaxes(frames, -3, -2), (column, row)
        if self.right < 0:
            frames, row = frames[..., ::-1, :, :], frames.shape[-3] - 1 - row
        if self.forward < 0:
            frames, column = frames[..., ::-1, :], frames.shape[-2] - 1 - column
        return frames, (row, column)


@dataclass(frozen=True)
class Sight:
    """From where M frames were taken, and the heights at which clouds are looked for."""

    geometry: np.ndarray  # (M,9), the columns of `nn.sightlines.GEOMETRY`; times count from the flight's first frame
    axes: Axes
    height_km: np.ndarray  # (K,)
    network_input: bool = False  # whether the network reads it

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """The geometry of frames (F,), or of sequences (n,T) with times from the middle frame: float32."""
        found = self.geometry[rows]  # (...,9)
        if rows.ndim == 2:
            found[..., TIME] -= found[:, found.shape[1] // 2, TIME][:, None]
        return found.astype("float32")


def axes_of(data: Data, geometry: Geometry) -> Axes:
    """How the images of a configuration lie."""
    forward, right = (1 if way == "increasing" else -1 for way in (geometry.forward, geometry.right))
    return Axes(1 if data.camera.across_track_axis == "rows" else 0, forward, right)


def contrast(frames: np.ndarray, nadir: tuple[int, int]) -> np.ndarray:
    """The spread of grey values around nadir over their mean, the largest of the channels: (n,H,W,C) -> (n,)."""
    reach = WINDOW
    rows, columns = (slice(max(place - reach, 0), place + reach + 1) for place in nadir)
    near = frames[:, rows, columns].astype("float64")
    spread = near.std(axis=(1, 2)) / np.maximum(np.abs(near.mean(axis=(1, 2))), 1e-9)
    return spread.max(axis=-1)


def heights_km(top: float, step: float) -> np.ndarray:
    """(K,) the heights that are tried."""
    return np.arange(round(top / step) + 1) * step


def positions_px(geometry: np.ndarray, height_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far to the right and ahead of the camera's axis a point lies that is at nadir in the middle frame.

    (n,T,9), (K,) or (n,K) -> (n,T,K), (n,T,K); NaN for heights that are not below the camera.
    """
    middle = geometry.shape[1] // 2
    ahead, right = nadir_px(geometry)
    motion_ahead, motion_right = motion_px_km(geometry, middle)
    below = geometry[:, middle, ALTITUDE][:, None] - height_km  # (n,K)
    below = np.where(below > LEAST_BELOW_KM, below, np.nan)[:, None]
    return (right[..., None] + motion_right[..., None] / below, ahead[..., None] + motion_ahead[..., None] / below)


def agreement(frames: np.ndarray, geometry: np.ndarray, nadir: tuple[int, int], height_km: np.ndarray) -> np.ndarray:
    """The mean correlation of the middle frame's window with those of the others at each height, (n,K).

    NaN where no other frame shows the place, or nothing can be compared.

    Args:
        frames: (n,T,H,W,C), upright.
        geometry: (n,T,9), the columns of `nn.sightlines.GEOMETRY`.
        nadir: (row, column) that looks along the camera's axis.
        height_km: (K,) the heights.
    """
    steps, middle = frames.shape[1], frames.shape[1] // 2
    right, ahead = positions_px(geometry, height_km)
    weight = _gaussian()
    reference = _windows(frames[:, middle], nadir[0] + right[:, middle], nadir[1] + ahead[:, middle])
    total, count = np.zeros(right[:, 0].shape), np.zeros(right[:, 0].shape)
    for step in (step for step in range(steps) if step != middle):
        found = _windows(frames[:, step], nadir[0] + right[:, step], nadir[1] + ahead[:, step])
        score = _correlation(reference, found, weight)
        known = np.isfinite(score)
        total += np.where(known, score, 0.0)
        count += known
    with np.errstate(invalid="ignore"):
        return total / np.where(count, count, np.nan)


def sweep(
    frames: np.ndarray, geometry: np.ndarray, nadir: tuple[int, int], height_km: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The height of the best agreement, km, between the heights by a parabola; and that agreement. (n,), (n,).

    NaN where nothing can be compared. Arguments as for `agreement`.
    """
    score = agreement(frames, geometry, nadir, height_km)
    filled = np.where(np.isfinite(score), score, -np.inf)
    best, rows = filled.argmax(axis=1), np.arange(len(score))
    inner = np.clip(best, 1, len(height_km) - 2)
    shift = np.where(inner == best, _summit(*(score[rows, inner + side] for side in (-1, 0, 1))), 0.0)
    height = height_km[best] + shift * (height_km[1] - height_km[0])
    known = np.isfinite(filled[rows, best])
    return np.where(known, height, np.nan), np.where(known, filled[rows, best], np.nan)


def residual_px(
    frames: np.ndarray, geometry: np.ndarray, nadir: tuple[int, int], height_km: np.ndarray, along: bool
) -> np.ndarray:
    """How far ahead (`along`), or to the right, of its place each frame shows the middle frame's nadir, (n,T) pixels.

    The place is that of a cloud at the known height (n,) km. What is left over is what the geometry does not know:
    wind, and attitude. NaN in the middle frame, and where the window is not found within 3 pixels.
    """
    right, ahead = positions_px(geometry, height_km[:, None])  # (n,T,1)
    middle, weight, rows = frames.shape[1] // 2, _gaussian(), np.arange(len(frames))
    place = [nadir[0] + right, nadir[1] + ahead]
    reference = _windows(frames[:, middle], place[0][:, middle], place[1][:, middle])
    tried = [each + (AWAY_PX if way == along else 0.0 * AWAY_PX) for way, each in enumerate(place)]
    found = np.full(frames.shape[:2], np.nan)
    for step in (step for step in range(frames.shape[1]) if step != middle):
        score = _correlation(reference, _windows(frames[:, step], tried[0][:, step], tried[1][:, step]), weight)
        best = np.where(np.isfinite(score), score, -1.0).argmax(axis=1)
        inner = np.clip(best, 1, len(AWAY_PX) - 2)
        shift = _summit(*(score[rows, inner + side] for side in (-1, 0, 1)))
        there = (inner == best) & (score[rows, inner] > FOLLOWED)
        found[:, step] = np.where(there, AWAY_PX[inner] + (AWAY_PX[1] - AWAY_PX[0]) * shift, np.nan)
    return found


def _summit(left: np.ndarray, top: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where the parabola through three values has its maximum, in steps from the middle one; 0 where it has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        bend = left - 2.0 * top + right
        return np.nan_to_num(np.where(bend < 0, 0.5 * (left - right) / bend, 0.0))


def _gaussian() -> np.ndarray:
    """(W,W,1) weights of a window; their sum is 1."""
    line = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA_PX) ** 2)
    square = line[:, None] * line[None, :]
    return (square / square.sum())[..., None]


def _windows(images: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Windows around places between pixels, by cubic interpolation: (n,H,W,C), (n,K), (n,K) -> (n,K,W,W,C).

    NaN where a window leaves the image.
    """
    reach = WINDOW // 2 + 1
    fits = (row >= reach) & (row < images.shape[1] - reach - 1) & (column >= reach)
    fits &= column < images.shape[2] - reach - 1
    row, column = (np.where(fits, place, reach) for place in (row, column))
    whole = [np.floor(place).astype(int) for place in (row, column)]
    taps = np.arange(-reach, reach + 2)  # W + 3 pixels
    n = np.arange(len(images))[:, None, None, None]
    patch = images[n, (whole[0][..., None] + taps)[..., :, None], (whole[1][..., None] + taps)[..., None, :]]
    kernels = [_cubic(place - floor) for place, floor in zip((row, column), whole, strict=True)]  # (n,K,4)
    patch = sum(kernels[0][..., k, None, None, None] * patch[:, :, k : k + WINDOW] for k in range(4))
    patch = sum(kernels[1][..., k, None, None, None] * patch[:, :, :, k : k + WINDOW] for k in range(4))
    return np.where(fits[..., None, None, None], patch, np.nan)


def _cubic(between: np.ndarray) -> np.ndarray:
    """The weights of the four pixels around a place (…), which lies so far after the second: (…,4). Keys (1981)."""
    t = between[..., None]
    return np.concatenate(
        [
            -0.5 * t**3 + t**2 - 0.5 * t,
            1.5 * t**3 - 2.5 * t**2 + 1.0,
            -1.5 * t**3 + 2.0 * t**2 + 0.5 * t,
            0.5 * t**3 - 0.5 * t**2,
        ],
        axis=-1,
    )


def _correlation(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of windows (n,K,W,W,C), the mean over channels, (n,K)."""
    window = (2, 3)
    one, other = (each - (weight * each).sum(axis=window, keepdims=True) for each in (one, other))
    spread = [(weight * each**2).sum(axis=window) for each in (one, other)]
    with np.errstate(invalid="ignore", divide="ignore"):
        score = (weight * one * other).sum(axis=window) / np.sqrt(spread[0] * spread[1])
    return np.where((spread[0] > FLATTEST) & (spread[1] > FLATTEST), score, np.nan).mean(axis=-1)
