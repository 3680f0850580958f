"""Simulated flights on disk: camera, lidar, navigation and truth files in the instruments' layout."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.config.simulation import FlightRegime, SimulationConfig

FRAMES_A_CHUNK = 16
SIGNAL = {"solar": "solar reflectance", "thermal": "brightness temperature"}
THERMAL_SCALE_K, THERMAL_OFFSET_K = 0.01, 100.0  # of one count, and of none: 100 to 755 K


@dataclass(frozen=True)
class SimulatedFlight:
    """One flight: datasets by path for each instrument file, and what only the simulator knows.

    T recorded frames, P profiles. `camera["Product/Signal"]` is uint16 (T, H, W) in counts.
    """

    identifier: str
    start: datetime
    camera: dict[str, np.ndarray]
    lidar: dict[str, np.ndarray]
    navigation: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    facts: dict[str, float]
    settings: SimulationConfig
    regime: FlightRegime


def file_names(flight: SimulatedFlight) -> dict[str, str]:
    """File names by kind, in the instruments' naming."""
    date = flight.start.strftime("%Y%m%d")
    months = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    # Not strftime("%b"): month names there follow the machine's language.
    lidar_date = f"{flight.start.day:02d}{months[flight.start.month - 1]}{flight.start.year % 100:02d}"
    return {
        "camera": f"SIM{flight.start.year}_CAM_L1B_{date}.h5",
        "lidar": f"CPL_L2_V1-02_01kmLay_{flight.identifier}_{lidar_date}.hdf5",
        "navigation": f"NAV_{date}.h5",
        "truth": f"TRUTH_{flight.identifier}.h5",
    }


def packing(settings: SimulationConfig) -> tuple[float, float]:
    """The signal of one count, and that of none."""
    thermal = settings.camera_kind == "thermal"
    return (THERMAL_SCALE_K, THERMAL_OFFSET_K) if thermal else (settings.signal_scale_factor, 0.0)


def dataset_attributes(settings: SimulationConfig) -> dict[str, dict[str, Any]]:
    """The attributes of the datasets, by path."""
    degrees = ("solarZenith", "sunAzGrd", "heading", "roll", "pitch", "latitude", "longitude")
    named: dict[str, dict[str, Any]] = {f"nav/{name}": {"units": "degrees"} for name in degrees}
    named["nav/altitude"] = {"units": "m"}
    named["nav/groundSpeed"] = {"units": "m s-1"}
    named["weather/windAlongTrack"] = {"units": "m s-1", "long_name": "wind at the clouds, from behind, forecast"}
    named["weather/windAcrossTrack"] = {"units": "m s-1", "long_name": "wind at the clouds, to the right, forecast"}
    named["terrain/surfaceAlbedo"] = {"units": "1", "long_name": "surface albedo, map of 1 km"}
    named["weather/liftingCondensationLevel"] = {"units": "km", "long_name": "lifting condensation level, forecast"}
    named["Time/TimeUTC"] = {"units": "seconds since 1970-01-01 00:00:00 UTC"}
    scale, offset = packing(settings)
    signal = {"long_name": SIGNAL[settings.camera_kind], "scale_factor": scale, "units": "1"}
    if settings.camera_kind == "thermal":
        signal |= {"add_offset": offset, "units": "K"}
    named["Product/Signal"] = signal
    named["truth/swath_optical_depth"] = {"units": "1", "long_name": "column optical depth that each pixel sees"}
    named["layer_descriptor/Feature_Type"] = {"meaning": "3 = cloud, 4 = aerosol, -9999 = no layer"}
    return named


def file_attributes(flight: SimulatedFlight) -> dict[str, dict[str, Any]]:
    """The attributes of each file, by kind."""
    settings = flight.settings
    camera = {
        "axes": "frame, across_track, along_track",
        "axis_directions": "rows run left to right, columns run forward",
        "frame_rate_hz": 1 / settings.frame_interval_s,
        "ground_speed_m_s": settings.ground_speed_m_s,
        "pixel_m": settings.pixel_m,
        "source": f"cloudml_tf simulator, {SIGNAL[settings.camera_kind]}",
    }
    truth = {**flight.facts, "regime": flight.regime.model_dump_json(), "settings": settings.model_dump_json()}
    return {"camera": camera, "lidar": {}, "navigation": {}, "truth": truth}


def write_file(
    path: Path, datasets: dict[str, np.ndarray], attributes: dict[str, Any], settings: SimulationConfig
) -> None:
    """Write one HDF5 file under a temporary name, renamed when whole."""
    partial = path.with_name(path.name + ".part")
    described = dataset_attributes(settings)
    try:
        with h5py.File(partial, "w") as file:
            file.attrs.update(attributes)
            for name, values in datasets.items():
                file.create_dataset(name, data=values, **_storage(values)).attrs.update(described.get(name, {}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _storage(values: np.ndarray) -> dict[str, Any]:
    """Storage options: chunks of whole frames for imagery, so that a sequence takes one or two reads."""
    if values.ndim < 3:
        return {"compression": "gzip", "compression_opts": 4}
    chunks = (min(FRAMES_A_CHUNK, len(values)), *values.shape[1:])
    return {"chunks": chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True}


def write_flight(flight: SimulatedFlight, folder: Path | str) -> dict[str, Path]:
    """Write the three instrument files and the truth file of one flight; return their paths by kind."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "camera": flight.camera,
        "lidar": flight.lidar,
        "navigation": flight.navigation,
        "truth": {f"truth/{name}": values for name, values in flight.truth.items()},
    }
    paths = {kind: folder / name for kind, name in file_names(flight).items()}
    attributes = file_attributes(flight)
    for kind, path in paths.items():
        write_file(path, contents[kind], attributes[kind], flight.settings)
    return paths
