"""Read where the camera is and how it moves, for each frame: the columns of `nn.sightlines.GEOMETRY`.

N frames. What the files do not have is unknown, and said; what a setting names and a file lacks is an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Data, FlightFiles
from cloudml_tf.config.geometry import Geometry
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.navigation import rows_of_frames
from cloudml_tf.data.readers.units import Wanted, convert
from cloudml_tf.utils.errors import DataError

UNITS: dict[str, tuple[Wanted, float]] = {  # the unit of a dataset that writes one, and its factor to the field's own
    **dict.fromkeys(("altitude", "pixel_m"), ("km", 1000.0)),
    **dict.fromkeys(("ground_speed", "wind_along", "wind_across", "wind_speed"), ("m s-1", 1.0)),
    **dict.fromkeys(("roll", "pitch", "drift", "course", "wind_from"), ("degree", 1.0)),
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


UNKNOWN = CameraMotion(None, {}, False)
Read = Callable[[str], np.ndarray | None]  # a field of data.geometry -> (N,), None where the files lack it


def read_geometry(
    files: FlightFiles, data: Data, time_s: np.ndarray, total: int, row: np.ndarray, beside: np.ndarray
) -> CameraMotion:
    """The geometry of each frame. `row` is its row in the camera file, `beside` that in a navigation without a clock.

    Raises `DataError` for a source that was named and is missing or impossible; a default one is told in `missing`.
    """
    geometry = data.geometry or Geometry()
    found: dict[str, np.ndarray | None] = {}
    missing: dict[str, str] = {}

    def read(field: str) -> np.ndarray | None:
        if field not in found:
            found[field] = None
            try:
                found[field] = _read(field, files, data, time_s, total, row, beside)
            except DataError as error:
                if _is_named(field, geometry):
                    raise
                missing[field] = str(error)
        return found[field]

    pixel = "pixel_m" if geometry.pixel_mrad is None else "pixel_mrad"
    size, altitude, speed = read(pixel), read("altitude"), read("ground_speed")
    if size is None or altitude is None or speed is None:
        return CameraMotion(None, missing, False)
    scale = (altitude / size if pixel == "pixel_m" else 1000.0 / size) / data.camera.downsample
    zero = np.zeros(len(time_s))
    roll, pitch = (zero if (angle := read(field)) is None else angle for field in ("roll", "pitch"))
    roll = roll if geometry.roll_positive == "right wing down" else -roll
    pitch = pitch if geometry.pitch_positive == "nose up" else -pitch
    drift = _drift(read, zero)
    wind = _wind(read, drift, geometry, files)
    ahead, aside = (zero, zero) if wind is None else wind
    forward, right = speed * np.cos(drift), speed * np.sin(drift)
    columns = (time_s, altitude / 1000.0, scale, roll, pitch, forward, right, ahead, aside)
    return CameraMotion(np.stack(columns, axis=1), missing, wind is not None)


def _is_named(field: str, geometry: Geometry) -> bool:
    """Whether a source is other than the default."""
    return field != "heading" and getattr(geometry, field) != Geometry.model_fields[field].default


def _drift(read: Read, zero: np.ndarray) -> np.ndarray:
    """Course over ground minus heading, radians: the camera looks along the heading and moves along the course."""
    drift, course = read("drift"), read("course")
    if drift is None and course is not None:
        heading = read("heading")
        drift = None if heading is None else course - heading
    return zero if drift is None else np.deg2rad((drift + 180.0) % 360.0 - 180.0)


def _wind(
    read: Read, drift: np.ndarray, geometry: Geometry, files: FlightFiles
) -> tuple[np.ndarray, np.ndarray] | None:
    """The clouds' wind forward and to the right of the camera, m/s; None where it is unknown."""
    if geometry.wind_speed is not None or geometry.wind_from is not None:
        speed, blows_from, heading = read("wind_speed"), read("wind_from"), read("heading")
        if speed is None or blows_from is None or heading is None:
            raise DataError(
                f"{files.camera}: the clouds' wind needs data.geometry.wind_speed, wind_from and "
                "data.navigation.heading. Name all three, or leave wind_speed and wind_from out."
            )
        to = np.deg2rad(blows_from + 180.0 - heading)  # where it blows to, from the camera's axis to the right
        return speed * np.cos(to), speed * np.sin(to)
    along, across = read("wind_along"), read("wind_across")
    if along is None or across is None:
        return None
    return along * np.cos(drift) - across * np.sin(drift), along * np.sin(drift) + across * np.cos(drift)


def _read(
    field: str, files: FlightFiles, data: Data, time_s: np.ndarray, total: int, row: np.ndarray, beside: np.ndarray
) -> np.ndarray | None:
    """One quantity of each frame, (N,), in the field's unit; None where no file has it."""
    source = (
        f"navigation:{data.navigation.heading}" if field == "heading" else getattr(data.geometry or Geometry(), field)
    )
    if source is None or source == "navigation:None":
        return None
    if isinstance(source, int | float):
        return _possible(field, np.full(len(time_s), float(source)), f"data.geometry.{field}")
    role, _, name = source.partition(":")
    path = files.camera if role == "camera" else files.navigation
    if path is None:
        raise DataError(f"{files.camera}: data.geometry.{field} is '{source}', and the flight has no {role} file.")
    with hdf5.open_file(Path(path), data.limits) as file:
        if name.startswith("@"):
            rows = np.full(len(time_s), _attribute(file, name[1:], field))
        else:
            rows = _rows(file, field, name, data, role, time_s, total, row if role == "camera" else beside)
    return _possible(field, rows, f"{path}: '{name}'")


def _rows(
    file: h5py.File, field: str, name: str, data: Data, role: str, time_s: np.ndarray, total: int, row: np.ndarray
) -> np.ndarray:
    """A dataset's number of each frame, (N,): one a frame, one for all, or of the navigation row that is nearest."""
    values = _dataset(file, field, name)
    if values.size == 1:
        return np.full(len(time_s), values.ravel()[0])
    count, index, near = total, row, np.ones(len(row), bool)
    if role == "navigation":
        count, index, near = rows_of_frames(file, data.navigation, time_s, total, row)
    if len(values) != count:
        raise DataError(
            f"{file.filename}: '{name}' (data.geometry.{field}) must have {count} rows, one a frame or a time. "
            f"Received: {len(values)}."
        )
    return np.where(near, values[index], np.nan)


def _attribute(file: h5py.File, key: str, field: str) -> float:
    with hdf5.library(file, f"attribute {key}"):
        value = file.attrs.get(key)
    try:
        return float(np.ravel(np.asarray(value if value is not None else "", "float64"))[0])
    except (TypeError, ValueError, IndexError):
        raise DataError(
            f"{file.filename}: data.geometry.{field} needs a number in the attribute '{key}'. Received: {value!r}."
        ) from None


def _dataset(file: h5py.File, field: str, name: str) -> np.ndarray:
    """The numbers of a dataset, in the field's unit where it writes one."""
    values = hdf5.read(file, name, (0, 1), f"data.geometry.{field}")
    unit = hdf5.unit(file[name])
    wanted, factor = UNITS.get(field, ("degree", 1.0))
    if not unit or field == "pixel_mrad":
        return values
    try:
        return factor * convert(values, unit, wanted)
    except ValueError as error:
        raise DataError(
            f"{file.filename}: '{name}' (data.geometry.{field}): {error}. Name another dataset, or give a number."
        ) from None


def _possible(field: str, values: np.ndarray, what: str) -> np.ndarray:
    """The values, NaN where they are none. Raises `DataError` where most are impossible: another unit was read."""
    low, high = LIMITS.get(field, (-3600.0, 3600.0))
    with np.errstate(invalid="ignore"):
        fits = (values >= low) & (values <= high)
    known = np.isfinite(values)
    if not known.any():
        raise DataError(f"{what} (data.geometry.{field}): holds no number. Name another dataset.")
    if fits[known].mean() < 0.5:
        middle = float(np.median(values[known]))
        raise DataError(
            f"{what} (data.geometry.{field}): values must lie between {low:g} and {high:g}. Received: {middle:g} in "
            "the middle. Name a dataset with its unit, or another one."
        )
    return np.where(fits, values, np.nan)
