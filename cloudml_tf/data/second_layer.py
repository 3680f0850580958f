"""A cloud of another flight laid below a sequence, as if both had been in the camera's sight.

Two layers over one another are rare in a handful of flights, and what moves fastest in the images is then not what is
brightest. The frames of the other flight are resampled to where its cloud, at another height, would have been seen by
this camera: each frame by its own time and attitude. Letters: n sequences, T frames, H rows, W columns, C channels.
"""

from dataclasses import dataclass

import numpy as np

from cloudml_tf.data.plane_sweep import Axes
from cloudml_tf.nn.sightlines import ALTITUDE, SCALE, motion_px_km, nadir_px


@dataclass(frozen=True)
class SecondLayer:
    """How a lower cloud shines through an upper one, and how images lie.

    Args:
        axes: of the images.
        nadir: (row, column) that looks along the camera's axis.
        dark, bright: (C,) of a surface without cloud, and of the brightest clouds, in the frames' unit.
    """

    axes: Axes
    nadir: tuple[int, int]
    dark: np.ndarray
    bright: np.ndarray

    def below(
        self,
        frames: np.ndarray,
        geometry: np.ndarray,
        other_frames: np.ndarray,
        other_geometry: np.ndarray,
        other_km: np.ndarray,
        height_km: np.ndarray,
    ) -> np.ndarray:
        """Sequences (n,T,H,W,C) with the clouds of others below: those stood at `other_km` and are put to `height_km`.

        The geometry of both is (n,T,9); the heights are (n,). What the other camera did not see repeats its border.
        An upper cloud hides the lower one by the square of its brightness, since light passes it twice.
        """
        upright, nadir = self.axes.upright(frames, self.nadir)
        lower, _ = self.axes.upright(other_frames, self.nadir)
        rows, columns = _places(geometry, other_geometry, other_km, height_km, nadir, upright.shape[2:4])
        seen = _interpolation(rows, lower.shape[2]) @ lower.reshape(*lower.shape[:3], -1)  # (n,T,H,W·C)
        seen = np.swapaxes(seen.reshape(lower.shape), 2, 3)
        seen = _interpolation(columns, lower.shape[3]) @ seen.reshape(*seen.shape[:3], -1)
        seen = np.swapaxes(seen.reshape(*upright.shape[:2], lower.shape[3], *lower.shape[2:3], -1), 2, 3)
        through = 1.0 - np.clip((upright - self.dark) / (self.bright - self.dark), 0.0, 1.0)
        found = np.empty_like(frames)
        self.axes.upright(found, self.nadir)[0][...] = upright + through**2 * np.maximum(seen - self.dark, 0.0)
        return found


def _places(
    geometry: np.ndarray,
    other_geometry: np.ndarray,
    other_km: np.ndarray,
    height_km: np.ndarray,
    nadir: tuple[int, int],
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,T,H) and columns (n,T,W) of the other images that each row and column of these sees.

    A point so many km beside the middle frame's nadir is at `tilt + (motion + scale · km) / below` pixels from the
    camera's axis, in both flights.
    """
    middle = geometry.shape[1] // 2
    scale, other_scale = (each[:, middle, SCALE][:, None, None] for each in (geometry, other_geometry))
    below, other_below = (
        (each[:, middle, ALTITUDE] - height)[:, None, None]
        for each, height in ((geometry, height_km), (other_geometry, other_km))
    )
    tilts, other_tilts = nadir_px(geometry), nadir_px(other_geometry)
    motions, other_motions = motion_px_km(geometry, middle), motion_px_km(other_geometry, middle)
    found = []
    for axis in (1, 0):  # across the track, then along
        tilt, other_tilt, motion, other_motion = (
            each[axis][..., None] for each in (tilts, other_tilts, motions, other_motions)
        )
        beside = np.arange(size[1 - axis]) - nadir[1 - axis]
        km = ((beside - tilt) * below - motion) / scale
        found.append(nadir[1 - axis] + other_tilt + (other_motion + other_scale * km) / other_below)
    return found[0], found[1]


def _interpolation(place: np.ndarray, size: int) -> np.ndarray:
    """Weights of `size` pixels for places (…) between them, linear: (…) -> (…,size). The border is repeated."""
    apart = np.abs(np.clip(place, 0.0, size - 1.0)[..., None] - np.arange(size))
    return np.maximum(1.0 - apart, 0.0).astype("float32")
