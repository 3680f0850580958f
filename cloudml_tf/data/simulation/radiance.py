"""Sunlight on a cloud scene: reflectance, sun-side brightening, shadows and photon diffusion.

Axes of every field: (along track X cells, across track Y cells), periodic; x forward, y to the right.
Sources: Coakley & Chylek (1975, J. Atmos. Sci. 32, 409) for the two-stream reflectance of a non-absorbing
layer; Nakajima & King (1990, J. Atmos. Sci. 47, 1878) for reflectance over a surface at a non-absorbing
wavelength; Marshak et al. (1995, J. Geophys. Res. 100, 26247) and Davis et al. (1997) for the radiative
smoothing scale, which grows with geometric thickness; Varnai & Marshak (2002) for bright sun-facing slopes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from cloudml_tf.config.simulation import FlightRegime, SimulationConfig
from cloudml_tf.data.simulation.cloud_fields import CloudScene, FloatField, fractal_field, wavenumbers


@dataclass(frozen=True)
class RadianceFields:
    """The reflecting and transmitting layers on a line of sight; every array is (X, Y).

    The surface's reflectance holds the clouds' shadows where these stand still; with wind they are `surface_light`, the
    share of light that arrives, which travels with the clouds.
    """

    cloud_reflectance: FloatField
    cloud_transmittance: FloatField
    upper_reflectance: FloatField
    surface_reflectance: FloatField
    surface_light: FloatField | None = None
    lower_reflectance: FloatField | None = None
    lower_transmittance: FloatField | None = None


def sun_direction(sun_azimuth_deg: float, heading_deg: float) -> tuple[float, float]:
    """Unit vector (forward, right) that points at the sun, seen along the flight."""
    angle = np.deg2rad(sun_azimuth_deg - heading_deg)
    return float(np.cos(angle)), float(np.sin(angle))


def two_stream_reflectance(optical_depth: FloatField, cos_zenith: float, asymmetry: float) -> FloatField:
    """Reflectance of a non-absorbing layer: R = b tau/mu / (1 + b tau/mu), saturating with tau."""
    scaled = 0.75 * (1 - asymmetry) * optical_depth / cos_zenith
    return scaled / (1 + scaled)


def shifted(field: FloatField, cells_x: float, cells_y: float) -> FloatField:
    """Value `cells_x` forward and `cells_y` to the right of each cell, (X, Y), bilinear and periodic."""
    whole_x, whole_y = int(np.floor(cells_x)), int(np.floor(cells_y))
    part_x, part_y = np.float32(cells_x - whole_x), np.float32(cells_y - whole_y)
    corner = np.roll(field, (-whole_x, -whole_y), (0, 1))
    along = corner + part_x * (np.roll(corner, -1, 0) - corner)
    return along + part_y * (np.roll(along, -1, 1) - along)


def sun_side_factor(
    top_km: FloatField, grid_m: float, sun: tuple[float, float], tan_zenith: float, strength: float
) -> FloatField:
    """Brightness of each cell relative to a flat cloud's: slopes that face the sun receive more sunlight.

    A facet of slope s toward the sun receives 1 - tan(zenith) * s of what a level one does.
    """
    ahead, behind = shifted(top_km, *sun), shifted(top_km, -sun[0], -sun[1])
    slope = (ahead - behind) * np.float32(1000 / (2 * grid_m))
    return np.clip(1 - strength * tan_zenith * slope, 0.3, 2.0)


def cloud_shadow(scene: CloudScene, sun: tuple[float, float], zenith_deg: float, reach_km: float) -> FloatField:
    """Direct beam (X, Y), 1 = full, that reaches the cloud tops past higher cloud on the sun side.

    Marches toward the sun; a neighbour shades where its top stands above the ray, softened over 100 m.
    """
    tan_zenith = np.tan(np.deg2rad(zenith_deg))
    beam = np.ones_like(scene.top_km)
    if tan_zenith < 0.05:
        return beam
    opacity = 1 - np.exp(-scene.optical_depth / np.float32(np.cos(np.deg2rad(zenith_deg))))
    reach_cells = int(np.ceil(reach_km * 1000 * tan_zenith / scene.grid_m))
    for cells in range(1, min(reach_cells, 8) + 1):
        ray_km = scene.top_km + np.float32(cells * scene.grid_m / 1000 / tan_zenith)
        excess_km = shifted(scene.top_km, cells * sun[0], cells * sun[1]) - ray_km
        covered = np.clip(excess_km / np.float32(0.1), 0, 1)
        beam = np.minimum(beam, 1 - covered * shifted(opacity, cells * sun[0], cells * sun[1]))
    return beam


def surface_beam(scene: CloudScene, sun: tuple[float, float], zenith_deg: float, level_km: float = 0.0) -> FloatField:
    """Direct beam (X, Y), 1 = full, at the surface or a level: a shadow lies height * tan(zenith) away from the sun."""
    radians = np.deg2rad(zenith_deg)
    cells = (float(scene.base_km.mean()) - level_km) * 1000 * np.tan(radians) / scene.grid_m
    beam = np.exp(-scene.optical_depth / np.float32(np.cos(radians)))
    return shifted(beam, cells * sun[0], cells * sun[1])


def diffuse(field: FloatField, length_m: float, grid_m: float) -> FloatField:
    """Field (X, Y) smoothed by photon diffusion over `length_m`.

    The multiple-scattering point spread is exponential rather than Gaussian: 1 / (1 + (k l)^2) in wavenumber.
    """
    if length_m == 0:
        return field
    kernel = 1 / (1 + (wavenumbers((field.shape[0], field.shape[1]), grid_m) * np.float32(length_m)) ** 2)
    return fft.irfft2(fft.rfft2(field) * kernel, s=field.shape)


def photon_diffusion(reflectance: FloatField, thickness_km: FloatField, scale: float, grid_m: float) -> FloatField:
    """Reflectance (X, Y) smoothed more where the cloud is thicker: length = scale * thickness.

    Blends two uniform smoothings by local thickness; a kernel for each cell would cost a hundred times more.
    """
    if scale == 0:
        return reflectance
    thin_km, thick_km = 0.5 * thickness_km.mean(), 2.0 * thickness_km.mean()
    weight = np.clip((thickness_km - thin_km) / (thick_km - thin_km), 0, 1)
    thin, thick = (diffuse(reflectance, 1000 * scale * float(h), grid_m) for h in (thin_km, thick_km))
    return thin + weight * (thick - thin)


def surface_albedo(scene: CloudScene, settings: SimulationConfig, seed: list[int]) -> FloatField:
    """Albedo of the patchy surface (X, Y)."""
    shape = scene.optical_depth.shape
    pattern = fractal_field(np.random.default_rng(seed), shape, scene.grid_m, 5 / 3, settings.surface_scale_m)
    return settings.surface_albedo * np.clip(1 + settings.surface_contrast * pattern, 0.1, 3)


def lit_cloud(scene: CloudScene, settings: SimulationConfig, regime: FlightRegime) -> FloatField:
    """Reflectance (X, Y) of one layer in full sunlight, with its sunlit and shaded sides."""
    radians = np.deg2rad(regime.solar_zenith_deg)
    cos_zenith, tan_zenith = float(np.cos(radians)), float(np.tan(radians))
    sun = sun_direction(regime.sun_azimuth_deg, regime.heading_deg)
    flat = two_stream_reflectance(scene.optical_depth, cos_zenith, settings.asymmetry_factor)
    relief = sun_side_factor(scene.top_km, scene.grid_m, sun, tan_zenith, settings.sun_side_brightening)
    thickness_km = scene.top_km - scene.base_km
    shade = 1 - cloud_shadow(scene, sun, regime.solar_zenith_deg, float(thickness_km.max()))
    lit = flat * relief * (1 - settings.shadow_strength * shade)
    return photon_diffusion(lit, thickness_km, settings.diffusion_scale, scene.grid_m)


def light_scene(scene: CloudScene, settings: SimulationConfig, regime: FlightRegime, seed: list[int]) -> RadianceFields:
    """Radiance fields of a scene under the sun of one flight."""
    zenith_deg, sun = regime.solar_zenith_deg, sun_direction(regime.sun_azimuth_deg, regime.heading_deg)
    cloud = lit_cloud(scene, settings, regime)
    beam = surface_beam(scene, sun, zenith_deg)  # darker where the clouds' shadow lies
    cos_zenith = float(np.cos(np.deg2rad(zenith_deg)))
    upper = two_stream_reflectance(scene.upper_optical_depth, cos_zenith, settings.asymmetry_factor)
    # Light reaches the camera from below through the cloud a second time: T = 1 - R without absorption.
    fields = {"cloud_reflectance": cloud, "cloud_transmittance": 1 - cloud, "upper_reflectance": upper}
    if scene.lower is not None:
        arriving = surface_beam(scene, sun, zenith_deg, float(scene.lower.top_km.mean()))
        lower = lit_cloud(scene.lower, settings, regime)
        fields["lower_reflectance"] = lower * (1 - settings.shadow_strength * (1 - arriving))
        fields["lower_transmittance"] = 1 - lower
        beam = beam * surface_beam(scene.lower, sun, zenith_deg)
    albedo, arriving = surface_albedo(scene, settings, seed), 1 - settings.shadow_strength * (1 - beam)
    if settings.wind_along_m_s or settings.wind_across_m_s:
        fields |= {"surface_reflectance": albedo, "surface_light": arriving}
    else:
        fields["surface_reflectance"] = albedo * arriving
    return RadianceFields(**{name: np.ascontiguousarray(field, dtype=np.float32) for name, field in fields.items()})
