"""Read where the camera is and how it moves, for each frame: the columns of `nn.sightlines.GEOMETRY`.

N frames. What the files do not have is unknown, and said; what a setting names and a file lacks is an error.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Data, FlightFiles
from cloudml_tf.config.geometry import POSITIONS, Geometry
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.ground_track import course, ground_speed
from cloudml_tf.data.readers.navigation import rows_of_frames
from cloudml_tf.data.readers.units import Wanted, convert
from cloudml_tf.utils.errors import DataError

UNITS: dict[str, tuple[Wanted, float]] = {  # the unit of a dataset that writes one, and its factor to the field's own
    **dict.fromkeys(("altitude", "pixel_m"), ("km", 1000.0)),
    **dict.fromkeys(("ground_speed", "wind_along", "wind_across", "wind_speed"), ("m s-1", 1.0)),
    **dict.fromkeys(("roll", "pitch", "drift", "course", "wind_from", "heading"), ("degree", 1.0)),
    "pixel_mrad": ("degree", 1000.0 * np.pi / 180.0),
}
LIMITS = {  # what is possible; beyond, another unit or another quantity was read
    "altitude": (100.0, 100_000.0),
    "ground_speed": (5.0, 1000.0),
    "pixel_m": (0.1, 10_000.0),
    "pixel_mrad": (0.001, 100.0),
    "wind_along": (-150.0, 150.0),
    "wind_across": (-150.0, 150.0),
    "wind_speed": (0.0, 150.0),
}


@dataclass(frozen=True)
class CameraMotion:
    """The geometry of a flight's frames, or why it is unknown."""

    columns: np.ndarray | None  # (N, 9), `GEOMETRY`; NaN where a frame lacks something
    missing: Mapping[str, str]  # field of data.geometry -> why no file gives it
    wind_known: bool
    network_input: bool = False  # whether a frame without it is useless

    @property
    def usable(self) -> np.ndarray | bool:
        """(N,) the frames that have what a network reads of it; True where it reads nothing."""
        return np.isfinite(self.columns).all(axis=1) if self.network_input and self.columns is not None else True


UNKNOWN = CameraMotion(None, {}, False)


def read_geometry(
    geometry: Geometry,
    files: FlightFiles,
    data: Data,
    time_s: np.ndarray,
    total: int,
    row: np.ndarray,
    beside: np.ndarray,
    place: np.ndarray,
) -> CameraMotion:
    """The geometry of each frame. `row` is its row in the camera file, `beside` that in a navigation without a clock.

    `place` is its latitude and longitude, (2,N), NaN where unknown.

    Raises `DataError` for a source that was named and is missing or impossible; a default one is told in `missing`.
    """
    with contextlib.ExitStack() as open_files:
        motion = _motion(_Sources(geometry, files, data, time_s, total, row, beside, place, open_files))
    if geometry.network_input and motion.columns is None:
        why = "; ".join(f"data.geometry.{name}: {reason}" for name, reason in motion.missing.items())
        raise DataError(f"{files.camera}: the network needs the camera's geometry, which is unknown: {why}")
    return replace(motion, network_input=geometry.network_input)


def _motion(sources: "_Sources") -> CameraMotion:
    geometry, read, zero = sources.geometry, sources.read, np.zeros(len(sources.time_s))
    pixel = "pixel_m" if geometry.pixel_mrad is None else "pixel_mrad"
    size, altitude, speed = read(pixel), read("altitude"), read("ground_speed")
    if speed is None and geometry.ground_speed is not None:
        speed = sources.of_positions("ground_speed")
    if size is None or altitude is None or speed is None:
        return CameraMotion(None, sources.missing, False)
    scale = (altitude / size if pixel == "pixel_m" else 1000.0 / size) / sources.data.camera.downsample
    roll, pitch = (zero if (angle := read(field)) is None else angle for field in ("roll", "pitch"))
    roll = roll if geometry.roll_positive == "right wing down" else -roll
    pitch = pitch if geometry.pitch_positive == "nose up" else -pitch
    roll, pitch = roll + geometry.camera_roll_deg, pitch + geometry.camera_pitch_deg
    drift = _drift(sources, zero)
    wind = _wind(sources, drift)
    ahead, aside = (zero, zero) if wind is None else wind
    forward, right = speed * np.cos(drift), speed * np.sin(drift)
    columns = (sources.time_s, altitude / 1000.0, scale, roll, pitch, forward, right, ahead, aside)
    return CameraMotion(np.stack(columns, axis=1), sources.missing, wind is not None)


def _drift(sources: "_Sources", zero: np.ndarray) -> np.ndarray:
    """From where the camera looks to where it moves, radians: the course over ground, less heading and camera's yaw."""
    drift, course = sources.read("drift"), sources.read("course")
    if drift is None and course is not None:
        drift = course - sources.heading("data.geometry.course")
    drift = (zero if drift is None else drift) - sources.geometry.camera_yaw_deg
    return np.deg2rad((drift + 180.0) % 360.0 - 180.0)


def _wind(sources: "_Sources", drift: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The clouds' wind forward and to the right of the camera, m/s; None where it is unknown."""
    speed, blows_from = sources.read("wind_speed"), sources.read("wind_from")
    if speed is not None and blows_from is not None:
        # where it blows to, from the camera's axis to the right
        looks = sources.heading("data.geometry.wind_from") + sources.geometry.camera_yaw_deg
        to = np.deg2rad(blows_from + 180.0 - looks)
        return speed * np.cos(to), speed * np.sin(to)
    along, across = sources.read("wind_along"), sources.read("wind_across")
    if along is None or across is None:
        return None
    return along * np.cos(drift) - across * np.sin(drift), along * np.sin(drift) + across * np.cos(drift)


@dataclass(frozen=True)
class _Sources:
    """Reads fields of `data.geometry` for the N frames of a flight; each file is opened once."""

    geometry: Geometry
    files: FlightFiles
    data: Data
    time_s: np.ndarray  # (N,)
    total: int  # frames in the camera file
    row: np.ndarray  # (N,) in the camera file
    beside: np.ndarray  # (N,) in a navigation file without a clock
    place: np.ndarray  # (2,N) latitude and longitude
    open_files: contextlib.ExitStack
    missing: dict[str, str] = field(default_factory=dict)
    opened: dict[str, h5py.File] = field(default_factory=dict)

    def read(self, name: str) -> np.ndarray | None:
        """One quantity of each frame, (N,), in the field's unit; None where it is null, or missing at its default."""
        source = getattr(self.geometry, name)
        try:
            return None if source is None else self.of_source(name, source)
        except DataError as error:
            if source != Geometry.model_fields[name].default:
                raise
            self.missing[name] = str(error)
            return None

    def heading(self, needed_by: str) -> np.ndarray:
        """The heading of each frame, degrees from north. Raises `DataError` where there is none."""
        name = self.data.navigation.heading
        if name is None:
            raise DataError(f"{self.files.camera}: {needed_by} needs data.navigation.heading, which is null. Name it.")
        return self.of_source("heading", f"navigation:{name}")

    def of_source(self, name: str, source: float | str) -> np.ndarray:
        """A number, an attribute or a dataset for each frame. Raises `DataError`."""
        where = "data.navigation.heading" if name == "heading" else f"data.geometry.{name}"
        if source == POSITIONS:
            found = self.of_positions(name)
            if found is None:
                raise DataError(f"{self.files.camera}: {where} is '{POSITIONS}', and the flight has none.")
            return found
        if isinstance(source, int | float):
            return _possible(name, np.full(len(self.time_s), float(source)), where)
        role, _, place = source.partition(":")
        file = self.file(role, where, source)
        rows = self.attribute(file, place[1:], where) if place.startswith("@") else self.rows(file, name, place, role)
        return _possible(name, rows, f"{file.filename}: '{place}' ({where})")

    def of_positions(self, name: str) -> np.ndarray | None:
        """Speed or course of each frame from its positions; None without them."""
        found = (course if name == "course" else ground_speed)(self.time_s, *self.place)
        low, high = LIMITS.get(name, (0.0, 360.0))
        with np.errstate(invalid="ignore"):
            fits = (found >= low) & (found <= high)
        return np.where(fits, found, np.nan) if fits.any() else None

    def file(self, role: str, where: str, source: str) -> h5py.File:
        """The camera or navigation file, open."""
        path = self.files.camera if role == "camera" else self.files.navigation
        if path is None:
            raise DataError(f"{self.files.camera}: {where} is '{source}', and the flight has no {role} file.")
        if role not in self.opened:
            self.opened[role] = self.open_files.enter_context(hdf5.open_file(Path(path), self.data.limits))
        return self.opened[role]

    def attribute(self, file: h5py.File, key: str, where: str) -> np.ndarray:
        """A number of the whole file."""
        with hdf5.library(file, f"attribute {key}"):
            value = file.attrs.get(key)
        try:
            return np.full(len(self.time_s), float(np.ravel(np.asarray("" if value is None else value, "float64"))[0]))
        except (TypeError, ValueError, IndexError):
            raise DataError(
                f"{file.filename}: {where} needs a number in the attribute '{key}'. Received: {value!r}."
            ) from None

    def rows(self, file: h5py.File, name: str, place: str, role: str) -> np.ndarray:
        """A dataset's number of each frame: one a frame, one for all, or of the navigation row that is nearest."""
        values = _dataset(file, name, place)
        if values.size == 1:
            return np.full(len(self.time_s), values.ravel()[0])
        count, index, near = self.total, self.row, np.ones(len(self.row), bool)
        if role == "navigation":
            count, index, near = rows_of_frames(file, self.data.navigation, self.time_s, self.total, self.beside)
        if len(values) != count:
            raise DataError(
                f"{file.filename}: '{place}' (data.geometry.{name}) must have {count} rows, one a frame or a time. "
                f"Received: {len(values)}."
            )
        return np.where(near, values[index], np.nan)


def _dataset(file: h5py.File, name: str, place: str) -> np.ndarray:
    """The numbers of a dataset, in the field's unit where it writes one."""
    values = hdf5.read(file, place, (0, 1), f"data.geometry.{name}")
    unit = hdf5.unit(file[place])
    if not unit:
        return values
    wanted, factor = UNITS[name]
    try:
        return factor * convert(values, unit, wanted)
    except ValueError as error:
        raise DataError(
            f"{file.filename}: '{place}' (data.geometry.{name}): {error}. Name another dataset, or give a number."
        ) from None


def _possible(name: str, values: np.ndarray, what: str) -> np.ndarray:
    """The values, NaN where they are none. Raises `DataError` where most are impossible: another unit was read."""
    low, high = LIMITS.get(name, (-3600.0, 3600.0))
    with np.errstate(invalid="ignore"):
        fits = (values >= low) & (values <= high)
    known = np.isfinite(values)
    if not known.any():
        raise DataError(f"{what}: holds no number. Name another dataset.")
    if fits[known].mean() < 0.5:
        middle = float(np.median(values[known]))
        raise DataError(
            f"{what}: values must lie between {low:g} and {high:g}. Received: {middle:g} in "
            "the middle. Name a dataset with its unit, or another one."
        )
    return np.where(fits, values, np.nan)
