"""Simulated flights with known truth: geometry and instruments here, physics in the modules it calls.

`simulate_flight` returns arrays, `simulate_flights` a cached folder of instrument files. Cameras are solar (reflected
sunlight) or thermal, and part in `take_images`. Each step and its file: docs/simulator.md.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy import ndimage

from cloudml_tf.config import simulation as simulation_settings
from cloudml_tf.config.simulation import FlightRegime, SimulationConfig
from cloudml_tf.data.readers.ground_track import METRES_PER_DEGREE
from cloudml_tf.data.simulation import camera, cloud_fields, radiance, thermal
from cloudml_tf.data.simulation import lidar as simulated_lidar
from cloudml_tf.data.simulation.camera import Track
from cloudml_tf.data.simulation.cloud_fields import CloudScene, FloatField
from cloudml_tf.data.simulation.files import SimulatedFlight, packing, write_flight
from cloudml_tf.utils.files import whole_folder
from cloudml_tf.utils.locks import alone_at

__all__ = ["SimulatedFlight", "simulate_flight", "simulate_flights", "write_flight"]

MAP_M = 1000.0  # resolution of the map of surface albedo
FORECAST_ERROR_KM, FORECAST_MEMORY_S = 0.2, 120.0
# The random streams of a flight.
IMAGE_SCENE, LABEL_SCENE, SURFACE, ATTITUDE, CAMERA_NOISE, LIDAR_NOISE, FAULTS, INSTRUMENT, FORECAST = range(9)
WIND, ATTITUDE_ERROR, DAY = range(9, 12)


def wander(rng: np.random.Generator, count: int, std: float, memory: float) -> FloatField:
    """Smooth Gaussian random series (count,) of standard deviation `std` with a memory of `memory` steps."""
    reach = int(np.ceil(3 * memory))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / memory) ** 2)
    white = rng.standard_normal(count + 2 * reach)
    return std * np.convolve(white, kernel / np.sqrt((kernel**2).sum()), mode="valid")


def fly(settings: SimulationConfig, seed: list[int]) -> Track:
    """The track of one flight: straight and level except for roll and pitch; and how the wind moves the clouds."""
    rng = np.random.default_rng(seed)
    count = settings.frames_per_flight
    memory = settings.attitude_time_s / settings.frame_interval_s
    distance_m = settings.ground_speed_m_s * settings.frame_interval_s * np.arange(count)
    roll_deg = -wander(rng, count, settings.roll_std_deg, memory)
    pitch_deg = wander(rng, count, settings.pitch_std_deg, memory)
    times_s = settings.frame_interval_s * np.arange(count)
    ahead_m, right_m = distance_m - settings.wind_along_m_s * times_s, -settings.wind_across_m_s * times_s
    return Track(distance_m, roll_deg, pitch_deg, ahead_m, right_m)


def place(settings: SimulationConfig, regime: FlightRegime, times_s: FloatField) -> tuple[FloatField, FloatField]:
    """Latitude and longitude in degrees at `times_s`, in their shape."""
    distance_m = settings.ground_speed_m_s * times_s
    heading = np.deg2rad(regime.heading_deg)
    latitude = settings.start_latitude_deg + distance_m * np.cos(heading) / METRES_PER_DEGREE
    shrink = np.cos(np.deg2rad(settings.start_latitude_deg))
    return latitude, settings.start_longitude_deg + distance_m * np.sin(heading) / (METRES_PER_DEGREE * shrink)


def day_of_year(start: datetime, times_s: FloatField) -> FloatField:
    """1-based day of year with fraction, in the shape of `times_s`; starts again at 1 on new year."""
    new_year = datetime(start.year, 1, 1, tzinfo=UTC)
    days_in_year = (datetime(start.year + 1, 1, 1, tzinfo=UTC) - new_year).days
    days = (start - new_year).total_seconds() / 86_400 + times_s / 86_400
    return 1 + days % days_in_year


def navigation_datasets(leg: "Leg") -> dict[str, np.ndarray]:
    """Datasets (T,) of the navigation file, by path, for every exposure; roll and pitch with their error."""
    settings, regime, track = leg.settings, leg.regime, leg.track
    count = len(track.distance_m)
    latitude, longitude = place(settings, regime, settings.frame_interval_s * np.arange(count))
    constants = {
        "solarZenith": regime.solar_zenith_deg,
        "sunAzGrd": regime.sun_azimuth_deg,
        "heading": regime.heading_deg,
        "altitude": settings.altitude_km * 1000,
        "groundSpeed": settings.ground_speed_m_s,
    }
    single = {name: np.full(count, value, np.float32) for name, value in constants.items()}
    error_deg = settings.attitude_error_deg * leg.random(ATTITUDE_ERROR).standard_normal((2, count))
    attitude = {"roll": track.roll_deg + error_deg[0], "pitch": track.pitch_deg + error_deg[1]}
    single |= {name: values.astype(np.float32) for name, values in attitude.items()}
    return {f"nav/{name}": value for name, value in {**single, "latitude": latitude, "longitude": longitude}.items()}


def ancillary_datasets(leg: "Leg", scene: CloudScene) -> dict[str, np.ndarray]:
    """Datasets (T,) of the navigation file that come from maps and forecasts, by path.

    The surface albedo below the aircraft from a one-kilometre map; and from a forecast, with errors that last for
    minutes, the cloud-base level in km, and the wind that carries the clouds in m/s: from behind, and to the right.
    """
    settings = leg.settings
    albedo = radiance.surface_albedo(scene, settings, leg.seed(SURFACE))
    coarse = ndimage.uniform_filter(albedo, max(round(MAP_M / scene.grid_m), 1), mode="wrap")
    sampler = camera.StripSampler((albedo.shape[0], albedo.shape[1]), scene.grid_m)
    below = sampler.corners(leg.track.distance_m, np.zeros_like(leg.track.distance_m))
    memory = FORECAST_MEMORY_S / settings.frame_interval_s
    count, of_wind = len(leg.track.distance_m), leg.random(WIND)
    error_km = wander(leg.random(FORECAST), count, FORECAST_ERROR_KM, memory)
    error_m_s = [wander(of_wind, count, settings.wind_error_m_s, memory) for _ in range(2)]
    named = {
        "terrain/surfaceAlbedo": sampler.look_up(sampler.wrap(coarse), below),
        "weather/liftingCondensationLevel": leg.regime.base_height_km + error_km,
        "weather/windAlongTrack": settings.wind_along_m_s + error_m_s[0],
        "weather/windAcrossTrack": settings.wind_across_m_s + error_m_s[1],
    }
    return {name: values.astype(np.float32) for name, values in named.items()}


def spoil(
    signal: np.ndarray, navigation: dict[str, np.ndarray], settings: SimulationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Blacken frames and blank sun angles in place; return which exposures (T,) were recorded at all."""
    count = len(signal)
    kept, black, blank = (rng.random(count) for _ in range(3))
    signal[black < settings.black_frame_fraction] = 0
    for name in ("nav/solarZenith", "nav/sunAzGrd"):
        navigation[name][blank < settings.nav_missing_fraction] = np.nan
    return kept >= settings.dropped_frame_fraction


@dataclass(frozen=True)
class Leg:
    """One flight before its instruments: weather, track, and the errors of clock and gain."""

    settings: SimulationConfig
    index: int
    regime: FlightRegime
    start: datetime
    track: Track
    gain: float
    clock_offset_s: float
    drift_k: float = 0.0  # offset of a thermal camera

    def seed(self, stream: int) -> list[int]:
        """Seed of one random stream of this flight, so that one setting cannot shift another's draws."""
        return [self.settings.seed, self.index, stream]

    def random(self, stream: int) -> np.random.Generator:
        """Generator of one random stream."""
        return np.random.default_rng(self.seed(stream))


def plan_leg(settings: SimulationConfig, index: int) -> Leg:
    """Weather, track, gain and clock of flight `index` (0-based)."""
    settings = settings.of_flight(index)
    regime = settings.regime(index)
    instrument = np.random.default_rng([settings.seed, index, INSTRUMENT])
    gain = float(max(1 + settings.gain_drift * instrument.standard_normal(), 0.1))
    clock_offset_s = float(settings.clock_offset_s * instrument.uniform(-1, 1))
    start = datetime.fromisoformat(regime.start_utc).replace(tzinfo=UTC)
    # Regimes repeat when there are more flights than regimes; their dates must not.
    start += timedelta(weeks=4 * (index // len(settings.regimes)))
    track = fly(settings, [settings.seed, index, ATTITUDE])
    if settings.camera_kind == "solar":
        return Leg(settings, index, regime, start, track, gain, clock_offset_s)
    day = np.random.default_rng([settings.seed, index, DAY])
    settings = thermal.of_day(settings, day)
    drift_k = float(settings.thermal_drift_k * day.standard_normal())
    return Leg(settings, index, regime, start, track, gain, clock_offset_s, drift_k)


def take_images(leg: Leg, scene: CloudScene) -> tuple[np.ndarray, float]:
    """Counts uint16 (T, H, W) of every exposure; and the mean signal, in K its spread, over the rms noise."""
    settings = leg.settings
    if settings.camera_kind == "thermal":
        aperture = thermal.observe(leg.track, scene, settings, leg.seed(SURFACE))
        recorded, clean = thermal.record(aperture, leg.gain, leg.drift_k, settings, leg.random(CAMERA_NOISE))
        signal = float(clean.std())
    else:
        light = radiance.light_scene(scene, settings, leg.regime, leg.seed(SURFACE))
        aperture = camera.observe(leg.track, scene, light, settings)
        recorded, clean = camera.record(aperture, leg.gain, settings, leg.random(CAMERA_NOISE))
        signal = float(clean.mean())
    scale, offset = packing(settings)
    counts = np.clip(np.rint((recorded - offset) / scale), 0, 65_535).astype(np.uint16)
    return counts, signal / max(float((recorded - clean).std()), 1e-12)


def take_profiles(leg: Leg, scene: CloudScene) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Datasets of the lidar file with times and positions, and the truth (P,) behind them."""
    settings = leg.settings
    footprint = simulated_lidar.footprints(leg.track, scene, settings)
    edges_s = simulated_lidar.profile_times_s(settings)  # (P, 3)
    latitude, longitude = place(settings, leg.regime, edges_s)
    lidar = simulated_lidar.lidar_datasets(footprint, settings, leg.random(LIDAR_NOISE)) | {
        "layer_descriptor/Profile_Decimal_Julian_Day": day_of_year(leg.start, edges_s + leg.clock_offset_s),
        "geolocation/CPL_Latitude": latitude,
        "geolocation/CPL_Longitude": longitude,
    }
    truth = {
        "footprint_optical_depth": footprint.main_depth + footprint.upper_depth,
        "footprint_base_km": footprint.base_km,
        "footprint_top_km": footprint.top_km,
    }
    return lidar, truth


def simulate_flight(settings: SimulationConfig, index: int) -> SimulatedFlight:
    """Flight `index` (0-based) as arrays; the same settings and index give the same bytes."""
    leg = plan_leg(settings, index)
    settings = leg.settings
    scene = cloud_fields.build_cloud_scene(settings, leg.regime, leg.seed(LABEL_SCENE))
    lidar, truth = take_profiles(leg, scene)
    nadir = simulated_lidar.nadir_optical_depth(leg.track, scene, settings)
    if not settings.image_sees_lidar_cloud:
        scene = cloud_fields.build_cloud_scene(settings, leg.regime, leg.seed(IMAGE_SCENE))
    signal, signal_to_noise = take_images(leg, scene)
    frames = {"nadir_optical_depth": nadir}
    if settings.swath_truth:
        frames["swath_optical_depth"] = camera.swath_optical_depth(leg.track, scene, settings)
    navigation = navigation_datasets(leg) | ancillary_datasets(leg, scene)
    kept = spoil(signal, navigation, settings, leg.random(FAULTS))
    times_s = leg.start.timestamp() + settings.frame_interval_s * np.arange(len(signal))
    return SimulatedFlight(
        identifier=f"sim{index + 1:02d}",
        start=leg.start,
        camera={"Product/Signal": signal[kept], "Time/TimeUTC": times_s[kept]},
        lidar=lidar,
        navigation={name: value[kept] for name, value in navigation.items()},
        truth=truth | {name: value[kept] for name, value in frames.items()},
        facts={
            "gain": leg.gain,
            "drift_k": leg.drift_k,
            "clock_offset_s": leg.clock_offset_s,
            "boresight_rows_px": settings.boresight_rows_px,
            "boresight_columns_px": settings.boresight_columns_px,
            "signal_to_noise": signal_to_noise,
        },
        settings=settings,
        regime=leg.regime,
    )


def content_key(settings: SimulationConfig) -> str:
    """Hash of the settings and of the simulator's own source: a change of either makes new files."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for path in [Path(str(simulation_settings.__file__)), *sorted(Path(__file__).parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def simulate_flights(
    settings: SimulationConfig, root: Path | str, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Folders root/<key>/simNN of the whole set, simulated now or found from an earlier call.

    The set is built in a temporary folder and renamed when complete, so a folder that exists is complete.
    `progress(done, total)` is called after every flight.
    """
    home = Path(root) / content_key(settings)
    folders = [home / f"sim{index + 1:02d}" for index in range(settings.flight_count)]
    if not home.is_dir():
        with alone_at(home, "a simulation of these flights"):
            if home.is_dir():  # another process has made them in the meantime
                return folders
            with whole_folder(home) as building:
                for index, folder in enumerate(folders):
                    write_flight(simulate_flight(settings, index), building / folder.name)
                    if progress is not None:
                        progress(index + 1, len(folders))
    return folders
