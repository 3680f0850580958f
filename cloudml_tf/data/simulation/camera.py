"""The camera: a pinhole on a moving aircraft that meets every cloud at the cloud's own top height.

Frames are (frame T, rows H across track, columns W along track): row 0 = left, later columns = forward, the
nadir pixel at (H//2, W//2). A pixel `d` metres off nadir on the ground sees a cloud of top z at d (1 - z/Z)
from the aircraft at altitude Z, so a high cloud crosses more pixels between two frames than a low one
(parallax).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.data.simulation.cloud_fields import CloudScene, FloatField
from cloudml_tf.data.simulation.radiance import RadianceFields

FRAMES_AT_ONCE = 128  # keeps the working arrays inside the processor's cache
HEIGHT_STEPS = 2  # fixed-point steps of the line of sight; a third moves 99 % of pixels by less than 0.04 px


Corners = tuple[np.ndarray, FloatField, FloatField]  # flat index of the lower corner, and the two fractions


@dataclass(frozen=True)
class Track:
    """Aircraft at each exposure (T,): distance flown in m, right wing down and nose up in degrees.

    Relative to the clouds, which the wind carries, it is `ahead_m` ahead and `right_m` to the right of its start.
    """

    distance_m: FloatField
    roll_deg: FloatField
    pitch_deg: FloatField
    ahead_m: FloatField
    right_m: FloatField


class StripSampler:
    """Bilinear look-ups in periodic (X, Y) fields that share one grid."""

    def __init__(self, shape: tuple[int, int], grid_m: float) -> None:
        """Store the grid; fields must already be wrapped by `wrap`."""
        self.shape = shape
        self.grid_m = grid_m

    @staticmethod
    def wrap(field: FloatField) -> FloatField:
        """Flatten a field (X, Y), its first row and column repeated at the end so that no look-up runs over."""
        return np.pad(field, ((0, 1), (0, 1)), mode="wrap").ravel()

    def corners(self, x_m: FloatField, y_m: FloatField) -> Corners:
        """The corners and fractions of positions in metres, any shape."""
        x, y = x_m / np.float32(self.grid_m), y_m / np.float32(self.grid_m)
        x_floor, y_floor = np.floor(x), np.floor(y)
        row = x_floor.astype(np.int32) % self.shape[0]
        column = y_floor.astype(np.int32) % self.shape[1]
        return row * (self.shape[1] + 1) + column, x - x_floor, y - y_floor

    def look_up(self, wrapped: FloatField, corners: Corners) -> FloatField:
        """Interpolate field values at `corners`, in their shape."""
        index, part_x, part_y = corners
        width = self.shape[1] + 1
        near = wrapped[index] * (1 - part_y) + wrapped[index + 1] * part_y
        far = wrapped[index + width] * (1 - part_y) + wrapped[index + width + 1] * part_y
        return near + part_x * (far - near)


def pixel_offsets_m(settings: SimulationConfig) -> tuple[FloatField, FloatField]:
    """Ground offsets (1, H, W) in m of every pixel from nadir: forward and to the right."""
    rows = (np.arange(settings.frame_rows) - settings.frame_rows // 2) * settings.pixel_m
    columns = (np.arange(settings.frame_columns) - settings.frame_columns // 2) * settings.pixel_m
    right, forward = np.meshgrid(rows, columns, indexing="ij")
    return forward[None].astype(np.float32), right[None].astype(np.float32)


class LineOfSight:
    """Where the pixels of a few frames look, (T, H, W): at any height, where they meet a layer's top, at the surface.

    Args:
        track: the track of these frames.
        scene: the clouds that they look at.
        settings: the simulator's settings.
    """

    def __init__(self, track: Track, scene: CloudScene, settings: SimulationConfig) -> None:
        self.sampler = StripSampler((scene.top_km.shape[0], scene.top_km.shape[1]), scene.grid_m)
        self.altitude_km = np.float32(settings.altitude_km)
        forward_m, right_m = pixel_offsets_m(settings)
        altitude_m = settings.altitude_km * 1000
        self.forward_m = forward_m + _column(altitude_m * np.tan(np.deg2rad(track.pitch_deg)))
        # With the right wing down the camera looks to the left.
        self.right_m = right_m - _column(altitude_m * np.tan(np.deg2rad(track.roll_deg)))
        self.ahead_m, self.aside_m = _column(track.ahead_m), _column(track.right_m)
        self.ground = self.sampler.corners(_column(track.distance_m) + self.forward_m, self.right_m)

    def at(self, height_km: FloatField | float) -> Corners:
        """Where each pixel looks among the clouds at a height, one for all or one per pixel."""
        reach = np.float32(1) - np.asarray(height_km, np.float32) / self.altitude_km
        return self.sampler.corners(self.ahead_m + self.forward_m * reach, self.aside_m + self.right_m * reach)

    def meet(self, top_km: FloatField, near_km: float) -> tuple[FloatField, Corners]:
        """The height in km at which each pixel meets a layer's top, and where.

        `top_km` is wrapped by `StripSampler.wrap`; the search begins at `near_km`.
        """
        height_km: Any = near_km
        for _ in range(HEIGHT_STEPS):
            height_km = self.sampler.look_up(top_km, self.at(height_km))
        return height_km, self.at(height_km)


def layers_of(scene: CloudScene) -> dict[str, CloudScene]:
    """The layers by name, from below."""
    return {"cloud": scene} if scene.lower is None else {"lower": scene.lower, "cloud": scene}


def observe_chunk(
    track: Track, scene: CloudScene, fields: dict[str, FloatField], settings: SimulationConfig
) -> FloatField:
    """Reflectance (T, H, W) of a few frames; `fields` are wrapped by `StripSampler.wrap`."""
    sight = LineOfSight(track, scene, settings)
    look_up = sight.sampler.look_up
    below = look_up(fields["surface_reflectance"], sight.ground)
    if "surface_light" in fields:
        below = below * look_up(fields["surface_light"], sight.at(0.0))
    for name, layer in layers_of(scene).items():
        _, place = sight.meet(fields[f"{name}_top_km"], float(layer.top_km.mean()))
        cloud, transmittance = (look_up(fields[f"{name}_{what}"], place) for what in ("reflectance", "transmittance"))
        if settings.clouds_hide:  # what is scattered on the way up comes from all around
            around = below.mean(axis=(1, 2), keepdims=True)
            below = around + np.exp(-look_up(fields[f"{name}_optical_depth"], place)) * (below - around)
        # Nakajima & King (1990): light from below passes the cloud and may bounce between the two.
        below = cloud + below * transmittance / (1 - below * cloud)
    if not scene.upper_optical_depth.any():
        return below
    upper = look_up(fields["upper_reflectance"], sight.at(scene.upper_height_km))
    return upper + (1 - upper) ** 2 * below


def depth_chunk(
    track: Track, scene: CloudScene, fields: dict[str, FloatField], settings: SimulationConfig
) -> FloatField:
    """Optical depth (T, H, W) of the layers that each pixel of a few frames looks through, like `observe_chunk`."""
    sight = LineOfSight(track, scene, settings)
    total = sight.sampler.look_up(fields["upper_optical_depth"], sight.at(scene.upper_height_km))
    for name, layer in layers_of(scene).items():
        _, place = sight.meet(fields[f"{name}_top_km"], float(layer.top_km.mean()))
        total = total + sight.sampler.look_up(fields[f"{name}_optical_depth"], place)
    return total


def _column(values: FloatField) -> FloatField:
    """Reshape (T,) to (T, 1, 1) in single precision."""
    return np.asarray(values, np.float32)[:, None, None]


def observe(track: Track, scene: CloudScene, light: RadianceFields, settings: SimulationConfig) -> FloatField:
    """Noise-free reflectance (T, H, W) at the aperture for every exposure."""
    fields = {name: field for name, field in vars(light).items() if field is not None} | optical_depths(scene)
    return in_chunks(observe_chunk, track, scene, fields, settings)


def swath_optical_depth(track: Track, scene: CloudScene, settings: SimulationConfig) -> FloatField:
    """Noise-free column optical depth (T, H, W) of what each pixel sees, of all layers, for every exposure."""
    return in_chunks(depth_chunk, track, scene, optical_depths(scene), settings)


def optical_depths(scene: CloudScene) -> dict[str, FloatField]:
    """The optical depth (X, Y) of each layer, by name."""
    depths = {f"{name}_optical_depth": layer.optical_depth for name, layer in layers_of(scene).items()}
    return {**depths, "upper_optical_depth": scene.upper_optical_depth}


def in_chunks(
    look: Callable[[Track, CloudScene, dict[str, FloatField], SimulationConfig], FloatField],
    track: Track,
    scene: CloudScene,
    fields: Mapping[str, FloatField],
    settings: SimulationConfig,
) -> FloatField:
    """Compute (T, H, W) of all frames, a few at a time; `look` is given the layers' tops beside the `fields`."""
    tops = {f"{name}_top_km": layer.top_km for name, layer in layers_of(scene).items()}
    wrapped = {name: StripSampler.wrap(values) for name, values in {**fields, **tops}.items()}
    count = len(track.distance_m)
    frames = np.empty((count, settings.frame_rows, settings.frame_columns), np.float32)
    for start in range(0, count, FRAMES_AT_ONCE):
        part = slice(start, start + FRAMES_AT_ONCE)
        chunk = Track(*(values[part] for values in vars(track).values()))
        frames[part] = look(chunk, scene, wrapped, settings)
    return frames


def vignette(settings: SimulationConfig) -> FloatField:
    """Relative response (H, W): 1 in the centre, lower by `vignetting` in the corners."""
    rows = np.linspace(-1, 1, settings.frame_rows)[:, None]
    columns = np.linspace(-1, 1, settings.frame_columns)[None, :]
    return (1 - settings.vignetting * (rows**2 + columns**2) / 2).astype(np.float32)


def blurred(aperture: FloatField, settings: SimulationConfig) -> FloatField:
    """Frames (T, H, W) after the camera's point spread."""
    if settings.psf_sigma_px == 0:
        return aperture
    sigma = (0, settings.psf_sigma_px, settings.psf_sigma_px)
    return ndimage.gaussian_filter(aperture, sigma, mode="nearest", truncate=3)


def record(
    aperture: FloatField, gain: float, settings: SimulationConfig, rng: np.random.Generator
) -> tuple[FloatField, FloatField]:
    """Recorded and noise-free reflectance, both (T, H, W): point spread, vignetting, gain, then noise."""
    clean = blurred(aperture, settings) * (vignette(settings) * np.float32(gain))
    variance = settings.read_noise**2 + settings.shot_noise**2 * np.maximum(clean, 0)
    noise = rng.standard_normal(clean.shape, dtype=np.float32) * np.sqrt(variance)
    return clean + noise, clean
