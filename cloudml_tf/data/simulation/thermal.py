"""A thermal camera: the brightness temperature of surface and clouds, each layer mixed in by its emissivity.

The air cools with height, so a cloud is the colder the higher it is; a thin one lets the warmth from below through. A
cloud absorbs about half of its visible optical depth (Platt 1973, J. Atmos. Sci. 30, 1191). Temperatures are mixed
linearly, a simplification. Surface and lapse rate differ from day to day, and so does the camera.
"""

import numpy as np

from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.data.simulation import camera
from cloudml_tf.data.simulation.camera import Corners, LineOfSight, Track
from cloudml_tf.data.simulation.cloud_fields import CloudScene, FloatField, fractal_field


def of_day(settings: SimulationConfig, rng: np.random.Generator) -> SimulationConfig:
    """The settings with the surface's temperature and the lapse rate of one day."""
    drawn = rng.standard_normal(2)
    surface_k = settings.surface_temperature_k + settings.surface_temperature_spread_k * drawn[0]
    lapse_k_km = max(settings.lapse_rate_k_km + settings.lapse_rate_spread_k_km * drawn[1], 0.0)
    return settings.model_copy(update={"surface_temperature_k": float(surface_k), "lapse_rate_k_km": float(lapse_k_km)})


def emission_chunk(
    track: Track, scene: CloudScene, fields: dict[str, FloatField], settings: SimulationConfig
) -> FloatField:
    """Brightness temperature (T, H, W) in K of a few frames; `fields` are wrapped by `StripSampler.wrap`."""
    sight = LineOfSight(track, scene, settings)
    altitude_m = np.float32(1000 * settings.altitude_km)
    cos_view = 1 / np.sqrt(1 + (sight.forward_m**2 + sight.right_m**2) / altitude_m**2)
    found = sight.sampler.look_up(fields["surface_k"], sight.ground)
    layers: dict[str, tuple[FloatField | float, Corners]] = {
        name: sight.meet(fields[f"{name}_top_km"], float(layer.top_km.mean()))
        for name, layer in camera.layers_of(scene).items()
    }
    if scene.upper_optical_depth.any():
        layers["upper"] = scene.upper_height_km, sight.at(scene.upper_height_km)
    for name, (height_km, place) in layers.items():
        depth = sight.sampler.look_up(fields[f"{name}_optical_depth"], place)
        emissivity = 1 - np.exp(-np.float32(settings.thermal_absorption) * depth / cos_view)
        cloud_k = np.float32(settings.surface_temperature_k) - np.float32(settings.lapse_rate_k_km) * height_km
        found = found + emissivity * (cloud_k - found)
    return found


def observe(track: Track, scene: CloudScene, settings: SimulationConfig, seed: list[int]) -> FloatField:
    """Noise-free brightness temperature (T, H, W) in K at the aperture for every exposure."""
    rng = np.random.default_rng(seed)
    pattern = fractal_field(rng, scene.optical_depth.shape, scene.grid_m, 5 / 3, settings.surface_scale_m)
    surface_k = settings.surface_temperature_k + settings.surface_temperature_contrast_k * pattern
    fields = {**camera.optical_depths(scene), "surface_k": surface_k.astype(np.float32)}
    return camera.in_chunks(emission_chunk, track, scene, fields, settings)


def record(
    aperture: FloatField, gain: float, drift_k: float, settings: SimulationConfig, rng: np.random.Generator
) -> tuple[FloatField, FloatField]:
    """Recorded and noise-free brightness temperature in K, both (T, H, W): point spread, gain, drift, then noise.

    The gain acts on the difference from the surface's temperature, at which the camera is calibrated.
    """
    reference = np.float32(settings.surface_temperature_k)
    clean = (camera.blurred(aperture, settings) - reference) * np.float32(gain) + reference + np.float32(drift_k)
    noise = np.float32(settings.thermal_noise_k) * rng.standard_normal(clean.shape, dtype=np.float32)
    return clean + noise, clean
