"""Turn flights into gridded scenes: frames far apart, with the lidar's labels on the nadir line. NumPy only.

flight ─ good frames ─ motion of the scene ─ frames that share no cloud ─ labels at the pixels where they are seen
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.coverage import LIDAR, SUN, TRUTH, scene_settings
from cloudml_tf.config.data import Data
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import Progress, build_table, downsample
from cloudml_tf.data.samples import check_sequences, nadir_pixel, samples_of_table
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.data.sequences import sequences, sequences_around
from cloudml_tf.data.track import along_track, pixels_per_s, seen_labels
from cloudml_tf.utils.errors import ConfigError, DataError, of_flight

FRAMES_A_FLIGHT = 1_000_000  # a scene is called flight number * this + row of the camera file
SIMULATED = "truth/swath_optical_depth"


@dataclass(frozen=True)
class FlightScenes:
    """n frames of one flight, of H x W pixels, or n sequences of T."""

    frames: np.ndarray  # (n,H,W,C) as the reader calibrates them; (n,T,H,W,C) with more than one temporal_frames
    row: np.ndarray  # (n,) in the camera file
    time_s: np.ndarray  # (n,) seconds since 1970 UTC
    label: np.ndarray | None  # (n,H,W) from the lidar, NaN where there is none; None without a lidar
    truth: np.ndarray | None  # (n,H,W) from the simulator
    sun: np.ndarray | None  # (n,3) the unit vector towards the sun: ahead, to the right, up
    pixels_per_s: float  # how fast the scene moves, to lower indices along the track


def scenes_of_flight(
    flight: Flight, config: Config, labels: bool = True, overlap: float = 0.0, progress: Progress | None = None
) -> FlightScenes:
    """The good frames of a flight, so far apart that neighbours share `overlap` of their length.

    Args:
        flight: the flight as read.
        config: the configuration it was read with, as `reading` makes it.
        labels: add the flight's labels, at least one.
        overlap: 0 to below 1, share of a frame along the track.
        progress: called with (frames decoded, of all).

    Raises `DataError` for a flight without labels, without two good frames, or whose motion cannot be seen.
    """
    if labels:
        check_sequences(flight, sequences(flight, config.model_copy(update={"temporal_frames": 1})), config)
    windows = sequences_around(flight, np.arange(len(flight)), config)
    table = build_table([flight], {flight.name: np.unique(windows)}, config.data, progress)
    samples = samples_of_table([flight], {flight.name: windows}, table, config)
    if len(samples) < 2:
        raise DataError(
            f"{flight.camera_path}: flight {flight.name} has {len(samples)} good frames, and its motion is measured "
            f"from pairs of them. Counts: {flight.counts}. Check data.camera, or leave the flight out."
        )
    speed = pixels_per_s(samples, config)
    side = flight.frame_shape[along_track(config)]
    chosen = far_apart(samples.time_s, (1.0 - overlap) * side / abs(speed))
    steps, time_s = samples.index[chosen], samples.time_s[chosen]  # (n,T)
    middle = steps[:, steps.shape[1] // 2]
    row = flight.row[np.searchsorted(flight.time_s, time_s)]
    sun = None if samples.sun_angles_deg is None else towards_sun(samples.sun_angles_deg[middle])
    return FlightScenes(
        frames=np.asarray(samples.table[middle if steps.shape[1] == 1 else steps]),
        row=row,
        time_s=time_s,
        label=_on_the_nadir_line(flight, time_s, speed, config) if labels else None,
        truth=_simulated_truth(flight, row, config.data),
        sun=sun,
        pixels_per_s=speed,
    )


def reading(config: Config) -> Config:
    """How flights are read for scenes: with the sun where the configuration or its scenes have it."""
    scenes = config.data.scenes
    sun = config.data.sun_angles or (scenes is not None and bool(set(SUN) & set(scenes.channels)))
    data = config.data.model_copy(update={"scenes": None, "sun_angles": sun})
    return config.model_copy(update={"data": data})


def scenes_in_memory(flights: Mapping[str, FlightScenes], config: Config) -> Scenes:
    """The scenes of flights, by name, as a network of `config` reads them; its groups are the flights.

    Raises `ConfigError` for a channel that flights do not have.
    """
    settings, found = scene_settings(config), list(flights.values())
    images = np.concatenate([each.frames for each in found])  # (n,H,W,C) or (n,T,H,W,C)
    known = {name: images[..., number] for number, name in enumerate(config.data.camera.channels)}
    if all(each.sun is not None for each in found):
        sun = np.concatenate([np.asarray(each.sun) for each in found])
        spread = sun.reshape(len(sun), *(1,) * (images.ndim - 2), len(SUN))
        known |= {name: np.broadcast_to(spread[..., n], images.shape[:-1]) for n, name in enumerate(SUN)}
    missing = [name for name in settings.channels if name not in known]
    if missing:
        raise ConfigError(
            f"data.scenes.channels names {', '.join(missing)}; scenes of these flights have {', '.join(known)}. The "
            "sun needs a navigation file with data.navigation.sun_zenith and sun_azimuth."
        )
    return Scenes.of(
        frames=np.stack([known[name] for name in settings.channels], axis=-1).astype("float32"),
        label=_joined(found, "label"),
        target=config.target,
        names=tuple(f"{name} row {row}" for name, each in flights.items() for row in each.row),
        groups=tuple(name for name, each in flights.items() for _ in each.row),
        single=tuple(n for n, name in enumerate(settings.channels) if name in SUN),
        time_s=np.concatenate([each.time_s for each in found]),
    )


def scenes_of_flights(
    flights: Sequence[Flight], config: Config, progress: Progress | None = None, labels: bool = True
) -> Scenes:
    """The scenes of flights for a network with coverage "swath", without a file between them."""
    found: dict[str, FlightScenes] = {}
    for flight in flights:
        with of_flight(flight.name):
            found[flight.name] = scenes_of_flight(flight, reading(config), labels, progress=progress)
    return scenes_in_memory(found, config)


def far_apart(time_s: np.ndarray, least_s: float) -> np.ndarray:
    """Indices of the first of rising times (n,), and of each next one that is at least `least_s` later."""
    chosen = [0]
    for number in range(1, len(time_s)):
        if time_s[number] - time_s[chosen[-1]] >= least_s:
            chosen.append(number)
    return np.array(chosen)


def towards_sun(angles_deg: np.ndarray) -> np.ndarray:
    """Convert zenith and azimuth relative to the heading (n,2), degrees, to a unit vector ahead, right, up (n,3)."""
    zenith, azimuth = np.deg2rad(np.asarray(angles_deg, "float64")).T
    level = np.sin(zenith)
    return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.cos(zenith)], axis=1)


def _on_the_nadir_line(flight: Flight, time_s: np.ndarray, speed: float, config: Config) -> np.ndarray:
    """Put every label at the pixel of the nadir line where its cloud is seen, the nearest of several. (n,H,W)."""
    labelled = np.isfinite(flight.label)
    along, nadir = along_track(config), nadir_pixel(flight.frame_shape, config.data)
    offsets = np.arange(flight.frame_shape[along]) - nadir[along]
    nearest, there = seen_labels(time_s, flight.time_s[labelled], offsets.tolist(), speed, 1.0)
    line = np.where(there, flight.label[labelled][nearest], np.nan)
    maps = np.full((len(time_s), *flight.frame_shape[:2]), np.nan, "float32")
    if along == 1:
        maps[:, nadir[0], :] = line
    else:
        maps[:, :, nadir[1]] = line
    return maps


def _simulated_truth(flight: Flight, row: np.ndarray, data: Data) -> np.ndarray | None:
    """The truth (n,H,W) from the truth file beside the camera's, cut like the images; None where there is none."""
    path = next(flight.camera_path.parent.glob("TRUTH_*.h5"), None)
    if path is None:
        return None
    rows, columns = (slice(*cut) if cut else slice(None) for cut in (data.camera.rows, data.camera.columns))
    with hdf5.open_file(path, data.limits) as file:
        if not hdf5.has(file, SIMULATED):
            return None
        item = hdf5.images(file, SIMULATED, "data.simulation.swath_truth")
        with hdf5.library(file, SIMULATED):
            found = np.stack([item[number, rows, columns] for number in row])
    return downsample(found, data.camera.downsample).astype("float32")


def write_scenes(
    path: Path, flights: Mapping[int, FlightScenes], channels: tuple[str, ...], about: dict[str, object]
) -> None:
    """Write one HDF5 file that `data.scenes` reads; flights by their number. Fields that a flight lacks are NaN.

    Raises `DataError` where a channel has the name of another dataset.
    """
    taken = sorted(set(channels) & {LIDAR, TRUTH, *SUN, "flight", "time_s", "name"})
    if taken:
        raise DataError(
            f"data.camera.channels: {', '.join(taken)} is the name of another dataset of scenes. Rename it."
        )
    found = list(flights.values())
    frames = np.concatenate([each.frames for each in found])
    maps = {channel: frames[..., number] for number, channel in enumerate(channels)}
    for name, field in ((LIDAR, "label"), (TRUTH, "truth")):
        if any(getattr(each, field) is not None for each in found):
            maps[name] = _joined(found, field)
    number = np.concatenate([np.full(len(each.row), n) for n, each in flights.items()])
    row = np.concatenate([each.row for each in found])
    single = {"flight": number, "name": number * FRAMES_A_FLIGHT + row}
    single["time_s"] = np.concatenate([each.time_s for each in found])
    if all(each.sun is not None for each in found):
        sun = np.concatenate([np.asarray(each.sun) for each in found])
        single |= {name: sun[:, n].astype("float32") for n, name in enumerate(SUN)}
    with h5py.File(path, "w") as file:
        file.attrs.update(about)
        for name, images in maps.items():
            packed = {"chunks": (1, *images.shape[1:]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
            file.create_dataset(name, data=images.astype("float32"), **packed)
        for name, numbers in single.items():
            file[name] = numbers
        file["time_s"].attrs["units"] = "seconds since 1970-01-01 00:00:00 UTC"


def _joined(found: Sequence[FlightScenes], name: str) -> np.ndarray:
    """(n,H,W) one kind of maps of all flights, NaN for a flight that has none."""
    maps = [getattr(each, name) for each in found]
    unknown = [np.full((len(each.frames), *each.frames.shape[-3:-1]), np.nan, "float32") for each in found]
    return np.concatenate([other if own is None else own for own, other in zip(maps, unknown, strict=True)])
