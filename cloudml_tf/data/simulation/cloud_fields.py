"""Cloud fields on a periodic strip under the flight: optical depth, base and top height.

Axes of every field: (along track X cells, across track Y cells); x grows forward, y grows to the right.
Sources: Cahalan et al. (1994, J. Atmos. Sci. 51, 2434) for fractal log-normal clouds with k^-5/3 spectra;
Brenguier et al. (2000, J. Atmos. Sci. 57, 803) for adiabatic clouds, tau ~ H^(5/3).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, special

from cloudml_tf.config.simulation import FlightRegime, SimulationConfig

FloatField = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CloudScene:
    """The clouds below the aircraft; every array is (X, Y) on a grid of `grid_m` metres that the wind carries."""

    optical_depth: FloatField
    base_km: FloatField
    top_km: FloatField
    upper_optical_depth: FloatField
    upper_height_km: float
    grid_m: float
    lower: "CloudScene | None" = None  # a second layer, below this one


def strip_shape(settings: SimulationConfig) -> tuple[int, int]:
    """Cells (X, Y) of the strip: the path plus two frames of margin, rounded up to fast FFT sizes.

    Against the wind more clouds are met than ground is crossed.
    """
    speed_m_s = settings.ground_speed_m_s + max(-settings.wind_along_m_s, 0.0)
    path_m = settings.frames_per_flight * settings.frame_interval_s * speed_m_s
    length_m = path_m + 2 * settings.frame_columns * settings.pixel_m
    cells = (length_m / settings.grid_m, settings.strip_width_m / settings.grid_m)
    return fft.next_fast_len(int(np.ceil(cells[0])), real=True), fft.next_fast_len(int(np.ceil(cells[1])), real=True)


def wavenumbers(shape: tuple[int, int], grid_m: float) -> FloatField:
    """Horizontal wavenumber (X, Y//2+1) in rad/m of the real FFT of a field."""
    along = 2 * np.pi * fft.fftfreq(shape[0], grid_m)
    across = 2 * np.pi * fft.rfftfreq(shape[1], grid_m)
    return np.hypot(along[:, None], across[None, :]).astype(np.float32)


def fractal_field(
    rng: np.random.Generator, shape: tuple[int, int], grid_m: float, slope: float, outer_scale_m: float
) -> FloatField:
    """Gaussian field (X, Y) of mean 0 and variance 1 whose 1-D spectrum falls as k^-slope.

    An isotropic 2-D field needs a density k^-(slope+1) for that; above the outer scale it is flat.
    """
    knee = 2 * np.pi / outer_scale_m
    k = wavenumbers(shape, grid_m)
    amplitude = (1 + (k / knee) ** 2) ** (-(slope + 1) / 4)
    amplitude[0, 0] = 0
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * amplitude
    field = fft.irfft2(spectrum, s=shape)  # (X, Y)
    return field / field.std()


def lognormal_optical_depth(
    field: FloatField, cloud_fraction: float, median: float, sigma: float, cap: float
) -> FloatField:
    """Optical depth (X, Y) from a Gaussian field: log-normal in cloud, 0 outside, levelling off at `cap`.

    The cloudy part of the Gaussian is stretched back to a full Gaussian, so optical depth falls
    to 0 at cloud edges without a step and its in-cloud distribution stays log-normal.
    """
    rank = (special.ndtr(field) - (1 - cloud_fraction)) / cloud_fraction
    cloudy = rank > 0
    score = special.ndtri(np.clip(rank, 1e-6, 1 - 1e-6))
    free = median * np.exp(sigma * score)
    capped = free * (1 + median / cap) / (1 + free / cap)  # keeps the median unchanged
    return np.where(cloudy, capped, 0).astype(np.float32)


def upper_layer(rng: np.random.Generator, shape: tuple[int, int], settings: SimulationConfig) -> FloatField:
    """Optical depth (X, Y) of a thin upper layer that covers a share of the strip."""
    if settings.upper_layer_fraction == 0 or settings.upper_layer_optical_depth == 0:
        return np.zeros(shape, np.float32)
    field = fractal_field(rng, shape, settings.grid_m, 3.0, settings.upper_layer_scale_m)
    # A capped narrow log-normal: thin cirrus varies little beside the main layer.
    depth = settings.upper_layer_optical_depth
    return lognormal_optical_depth(field, settings.upper_layer_fraction, depth, 0.4, 10 * depth)


def cloud_layer(
    streams: list[np.random.Generator], settings: SimulationConfig, regime: FlightRegime
) -> tuple[FloatField, FloatField, FloatField]:
    """Optical depth, base and top in km (X, Y) of a layer; one stream for its clouds, one for their bases."""
    shape = strip_shape(settings)
    gaussian = fractal_field(streams[0], shape, settings.grid_m, regime.spectral_slope, regime.outer_scale_m)
    cloud = (regime.cloud_fraction, regime.optical_depth_median)
    depth = lognormal_optical_depth(gaussian, *cloud, settings.optical_depth_sigma, settings.optical_depth_cap)
    # A steep spectrum keeps the base smooth: condensation level follows the boundary layer, not the eddies.
    base = fractal_field(streams[1], shape, settings.grid_m, 3.0, settings.base_height_scale_m)
    base_km = np.maximum(regime.base_height_km + settings.base_height_std_km * base, 0.2)
    # Adiabatic clouds: tau ~ H^(5/3), so H ~ tau^(3/5), which is the default exponent.
    thickness_km = settings.thickness_at_unit_depth_km * depth**settings.thickness_exponent
    return depth, base_km.astype(np.float32), (base_km + thickness_km).astype(np.float32)


def build_cloud_scene(settings: SimulationConfig, regime: FlightRegime, seed: list[int]) -> CloudScene:
    """Draw the clouds of one flight; each field has its own random stream, so one setting changes one field."""
    streams = [np.random.default_rng([*seed, stream]) for stream in range(5)]
    shape, cirrus = strip_shape(settings), (settings.upper_layer_height_km, settings.grid_m)
    depth, base_km, top_km = cloud_layer(streams[:2], settings, regime)
    upper, lower = upper_layer(streams[2], shape, settings), None
    if settings.lower_layer_fraction > 0:
        own = {
            "cloud_fraction": settings.lower_layer_fraction,
            "base_height_km": settings.lower_layer_height_km,
            "optical_depth_median": settings.lower_layer_optical_depth,
        }
        layer = cloud_layer(streams[3:], settings, regime.model_copy(update=own))
        lower = CloudScene(*layer, np.zeros(shape, np.float32), *cirrus)
    return CloudScene(depth, base_km, top_km, upper, *cirrus, lower)
