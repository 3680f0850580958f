"""The simulated lidar: profiles that average the column below the aircraft, with noise, fills and a ceiling.

Layout as in the Cloud Physics Lidar's 1-km layer product: ten slots per profile, top layer first, fill -9999.
P profiles, S samples of the field in each, L = 10 layer slots.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.data.simulation import camera
from cloudml_tf.data.simulation.camera import StripSampler, Track
from cloudml_tf.data.simulation.cloud_fields import CloudScene, FloatField

FILL = -9999.0
LAYER_SLOTS = 10
CLOUD, AEROSOL = 3, 4


@dataclass(frozen=True)
class Footprint:
    """Noise-free means over each profile, all (P,)."""

    main_depth: FloatField
    upper_depth: FloatField
    base_km: FloatField
    top_km: FloatField
    lower: "Footprint | None" = None  # of the second layer


def profile_times_s(settings: SimulationConfig) -> FloatField:
    """Start, middle and end (P, 3) of each profile in s after the first exposure, by the camera's clock.

    The first profile starts half an exposure interval early, so 5-s profiles are centred on a 1-Hz frame.
    """
    duration_s = settings.frames_per_flight * settings.frame_interval_s
    count = int(np.floor(duration_s / settings.lidar_interval_s + 1e-9))
    start = -settings.frame_interval_s / 2 + settings.lidar_interval_s * np.arange(count)
    return start[:, None] + settings.lidar_interval_s * np.array([0.0, 0.5, 1.0])


def beam_corners(
    times_s: FloatField, track: Track, scene: CloudScene, settings: SimulationConfig
) -> tuple[StripSampler, tuple[np.ndarray, FloatField, FloatField]]:
    """Where the beam meets the cloud at `times_s` (any shape): it rolls and pitches with the aircraft, or is level."""
    frame_times_s = settings.frame_interval_s * np.arange(len(track.distance_m))
    moved = 0.0 if settings.lidar_at_nadir else 1.0
    roll, pitch = (np.interp(times_s, frame_times_s, moved * angle) for angle in (track.roll_deg, track.pitch_deg))
    reach = 1 - float(scene.top_km.mean()) / settings.altitude_km
    altitude_m = settings.altitude_km * 1000
    ahead_m = altitude_m * np.tan(np.deg2rad(pitch)) + settings.boresight_columns_px * settings.pixel_m
    right_m = -altitude_m * np.tan(np.deg2rad(roll)) + settings.boresight_rows_px * settings.pixel_m
    sampler = StripSampler((scene.top_km.shape[0], scene.top_km.shape[1]), scene.grid_m)
    x_m = (settings.ground_speed_m_s - settings.wind_along_m_s) * times_s + ahead_m * reach
    return sampler, sampler.corners(x_m, right_m * reach - settings.wind_across_m_s * times_s)


def footprints(track: Track, scene: CloudScene, settings: SimulationConfig) -> Footprint:
    """Average the scene over every profile; heights are means over its cloudy part."""
    edges_s = profile_times_s(settings)
    inside = (np.arange(settings.lidar_samples) + 0.5) / settings.lidar_samples
    times_s = edges_s[:, :1] + settings.lidar_interval_s * inside  # (P, S)
    sampler, corners = beam_corners(times_s, track, scene, settings)
    names = ("optical_depth", "upper_optical_depth", "base_km", "top_km")
    depth, upper, base, top = (sampler.look_up(StripSampler.wrap(getattr(scene, n)), corners) for n in names)
    cloudy = depth > 0
    count = np.maximum(cloudy.sum(1), 1)
    base_km, top_km = ((height * cloudy).sum(1) / count for height in (base, top))
    lower = None if scene.lower is None else footprints(track, scene.lower, settings)
    return Footprint(depth.mean(1), upper.mean(1), base_km, top_km, lower)


def nadir_optical_depth(track: Track, scene: CloudScene, settings: SimulationConfig) -> FloatField:
    """Noise-free column optical depth (T,) in the beam at every exposure."""
    times_s = settings.frame_interval_s * np.arange(len(track.distance_m))
    sampler, corners = beam_corners(times_s, track, scene, settings)
    fields = camera.optical_depths(scene).values()
    return sum((sampler.look_up(StripSampler.wrap(f), corners) for f in fields), np.zeros(len(times_s)))


def _noisy(truth: FloatField, settings: SimulationConfig, rng: np.random.Generator) -> FloatField:
    """Measured optical depth (P,): relative and absolute noise, never negative."""
    relative = 1 + settings.lidar_relative_noise * rng.standard_normal(len(truth))
    return np.maximum(truth * relative + settings.lidar_absolute_noise * rng.standard_normal(len(truth)), 0)


def measured_layers(
    footprint: Footprint, settings: SimulationConfig, rng: np.random.Generator
) -> tuple[dict[str, FloatField], np.ndarray]:
    """Candidate layers from above, each (P, K): upper cloud, cloud, a second one, aerosol; which are seen (P, K)."""
    count = len(footprint.main_depth)
    has_aerosol = rng.random(count) < settings.aerosol_fraction
    aerosol = has_aerosol * settings.aerosol_optical_depth * rng.uniform(0.5, 1.5, count)
    clouds = [footprint] if footprint.lower is None else [footprint, footprint.lower]
    truth = np.stack([footprint.upper_depth, *(cloud.main_depth for cloud in clouds), aerosol], 1)
    # The upper layer and the aerosol are thin: only the main layers carry the absolute noise.
    measured = truth.copy()
    for layer in range(1, 1 + len(clouds)):
        measured[:, layer] = _noisy(truth[:, layer], settings, rng)
    seen = np.minimum(truth, measured) > settings.lidar_detection_limit
    upper_km = settings.upper_layer_height_km
    upper = (upper_km, upper_km + settings.upper_layer_thickness_km)
    heights: list[tuple[Any, Any]] = [upper, *((cloud.base_km, cloud.top_km) for cloud in clouds)]
    heights.append((settings.aerosol_base_km, settings.aerosol_top_km))
    base, top = (np.stack([np.broadcast_to(pair[end], count) for pair in heights], 1) for end in (0, 1))
    noise_km = settings.lidar_height_noise_km * rng.standard_normal((2, *seen.shape))
    base_km = np.maximum(base + noise_km[0], 0.02)
    return {"depth": measured, "base": base_km, "top": np.maximum(top + noise_km[1], base_km + 0.03)}, seen


def censor(depth: FloatField, seen: np.ndarray, saturation: float) -> tuple[FloatField, np.ndarray, np.ndarray]:
    """Layers (P, K) and seen (P, K) once the beam is extinguished, and the opaque flag (P,).

    Column depth stops at `saturation` and lower layers vanish. Layers run from the top down.
    """
    above = np.cumsum(np.where(seen, depth, 0), 1) - np.where(seen, depth, 0)
    opaque = np.where(seen, depth, 0).sum(1) >= saturation
    return np.minimum(depth, np.maximum(saturation - above, 0)), seen & (above < saturation), opaque


def into_slots(values: FloatField, seen: np.ndarray) -> FloatField:
    """Pack seen layers (P, K) to the front of ten slots (P, L); the rest is fill."""
    slots = np.full((len(values), LAYER_SLOTS), FILL, np.float32)
    profile, layer = np.nonzero(seen)
    slots[profile, (np.cumsum(seen, 1) - 1)[profile, layer]] = values[profile, layer]
    return slots


def lidar_datasets(footprint: Footprint, settings: SimulationConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Datasets of the lidar file, by path, without times and positions."""
    layers, seen = measured_layers(footprint, settings, rng)
    depth, seen, opaque = censor(layers["depth"], seen, settings.lidar_saturation)
    kinds = np.broadcast_to(np.array([*[CLOUD] * (seen.shape[1] - 1), AEROSOL], float), seen.shape)
    count = len(seen)
    # An opaque column has no surface return: readers that insist on one lose the thickest clouds.
    surface_m = np.where(opaque, FILL, 5 * rng.standard_normal(count))
    group = "layer_descriptor/"
    return {
        group + "Feature_Optical_Depth_532": into_slots(depth, seen),
        group + "Layer_Base_Altitude": into_slots(layers["base"], seen),
        group + "Layer_Top_Altitude": into_slots(layers["top"], seen),
        group + "Feature_Type": into_slots(kinds, seen).astype(np.int32),
        group + "Number_Layers": seen.sum(1).astype(np.int32),
        group + "Opacity": opaque.astype(np.int8),
        group + "DEM_Surface_Altitude": np.zeros(count, np.float32),
        group + "Lidar_Surface_Altitude": surface_m.astype(np.float32),
    }
