"""Read the sun's direction and further features of each frame from the navigation file.

N frames, of F in the camera file.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Data, Feature, FlightFiles, Navigation
from cloudml_tf.data.readers import clocks, hdf5, times
from cloudml_tf.data.readers.ground_track import course
from cloudml_tf.data.readers.packing import FILLS_NOT_DECLARED, impossible
from cloudml_tf.data.readers.sun import sun_position
from cloudml_tf.data.readers.units import convert
from cloudml_tf.utils.errors import DataError

MOST_DEGREES = 1e6  # headings may count turns; larger values are not angles
FARTHEST = np.array([[90.0], [360.0]])  # latitude and longitude, degrees
LARGEST = float(np.finfo("float32").max)  # largest input of a network


def read_navigation(
    files: FlightFiles,
    data: Data,
    time_s: np.ndarray,
    total: int,
    row: np.ndarray,
    counts: dict[str, int],
    position: np.ndarray,
) -> tuple[np.ndarray | None, dict[tuple[str, str], np.ndarray]]:
    """The sun's angles (N, 2) or None, and the features that this file holds, by (file, name).

    `position` is latitude and longitude, (2, N): where the sun is computed, it is seen from there.
    """
    wanted = [f for f in data.features if f.file == "navigation"]
    if not data.sun_angles and not wanted:
        return None, {}
    computed = data.sun_angles and data.navigation.solar_zenith is None
    by_course = computed and (files.navigation is None or data.navigation.heading is None)
    sun = _computed_sun(files, time_s, position, course(time_s, *position)) if by_course else None
    columns: dict[tuple[str, str], np.ndarray] = {}
    if wanted or not by_course:
        if files.navigation is None:
            raise DataError(
                f"{files.camera}: this flight has no navigation file, and the sun's angles or features are inputs. "
                "Name one in data.flights, or set data.sun_angles to false."
            )
        with hdf5.open_file(Path(files.navigation), data.limits) as file:
            count, rows, near = rows_of_frames(file, data.navigation, time_s, total, row)
            for one in wanted:
                values = feature_rows(file, one, count, "rows")[rows]
                columns["navigation", one.name] = np.where(near, values, np.nan)
            if computed and not by_course:
                heading = np.where(near, _degrees(file, data.navigation, "heading", count)[rows], np.nan)
                sun = _computed_sun(files, time_s, position, heading)
            elif data.sun_angles and not by_course:
                sun = _sun_angles(file, data.navigation, count, rows, near)
    if sun is not None:
        counts["frames without sun angles"] = int(np.isnan(sun).any(axis=1).sum())
    return sun, columns


def rows_of_frames(
    file: h5py.File, navigation: Navigation, time_s: np.ndarray, total: int, row: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """The file's number of rows; the row of each frame (N,); and whether it is near enough in time (N,)."""
    if navigation.time is None:
        return total, row, np.ones(len(row), bool)
    row_s = clocks.read_times(file, navigation, "navigation", 1)
    order, _ = times.in_order(row_s)
    if len(order) == 0:
        raise DataError(f"{file.filename}: '{navigation.time}' holds no finite time.")
    index, apart_s = times.nearest(row_s[order], time_s)
    near = apart_s <= navigation.tolerance_s
    if not near.any():
        raise DataError(
            f"{file.filename}: no row is within {navigation.tolerance_s:g} s of a frame: the rows begin "
            f"{(row_s[order[0]] - time_s[0]) / 3600:+.2f} h after the camera. Set data.navigation.time_unit, "
            "time_since, time_offset_s or tolerance_s."
        )
    return len(row_s), order[index], near


def check_parts(files: FlightFiles, data: Data, lengths: Sequence[int]) -> None:
    """Refuse parts of a navigation with a row a frame that are cut elsewhere than those of the camera.

    `lengths` are the frames of each part of the camera. Without a clock only their names say which rows come first.
    """
    navigation = data.navigation
    if files.navigation is None or navigation.time is not None:
        return
    with hdf5.open_file(Path(files.navigation), data.limits) as file:
        names = (navigation.solar_zenith, navigation.latitude, navigation.longitude)
        name = next((name for name in names if name and hdf5.has(file, name)), None)
        rows = hdf5.rows_of_parts(file, name) if name else ()
    if len(rows) > 1 and len(lengths) > 1 and tuple(rows) != tuple(lengths):
        raise DataError(
            f"{files.navigation}: parts without a clock must have one row per frame of the camera's parts, in the "
            f"order of the names: {', '.join(map(str, lengths))}. Received: {', '.join(map(str, rows))}. Name their "
            "times in data.navigation.time, or cut the parts as the camera's."
        )


def read_positions(
    files: FlightFiles, data: Data, time_s: np.ndarray, total: int, row: np.ndarray, otherwise: np.ndarray
) -> np.ndarray:
    """(2, N) latitude and longitude of the navigation file, or `otherwise` where it lacks one of them.

    A name that the user chose must exist; a default one may be missing.
    """
    navigation = data.navigation
    names = {key: getattr(navigation, key) for key in ("latitude", "longitude")}
    if files.navigation is None or None in names.values():
        return otherwise
    with hdf5.open_file(Path(files.navigation), data.limits) as file:
        missing = [key for key, name in names.items() if not hdf5.has(file, name)]
        if any(names[key] == Navigation.model_fields[key].default for key in missing):
            return otherwise
        count, rows, near = rows_of_frames(file, navigation, time_s, total, row)
        values = np.stack([_degrees(file, navigation, key, count)[rows] for key in names])
    return np.where((np.abs(values) <= FARTHEST) & near, values, np.nan)


def why_no_positions(files: FlightFiles, navigation: Navigation) -> str:
    """Which datasets of the navigation file were expected, and those that it has under a name like theirs."""
    names = {key: getattr(navigation, key) for key in ("latitude", "longitude")}
    if files.navigation is None:
        return "the flight has no navigation file"
    if None in names.values():
        return "data.navigation.latitude or longitude is null"
    with hdf5.open_file(Path(files.navigation)) as file:
        missing = {key: name for key, name in names.items() if not hdf5.has(file, name)}
        found = [f"'{name}'{hdf5.meant_name(file, name)}" for name in missing.values()]
    if found:
        return f"{files.navigation} has no dataset {' and no '.join(found)}"
    known = "' and '".join(names.values())
    return f"'{known}' of {files.navigation} have no number near a frame"


def _computed_sun(files: FlightFiles, time_s: np.ndarray, position: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """(N, 2): solar zenith, and azimuth relative to the heading, from time and place. Raises `DataError`."""
    if not np.isfinite(position).all(axis=0).any():
        raise DataError(
            f"{files.camera}: the sun is to be computed (data.navigation.solar_zenith null), and no frame has a "
            "position. Name data.navigation.latitude and longitude, or data.lidar's, or set data.sun_angles to false."
        )
    zenith, azimuth = sun_position(time_s, *position).T
    return np.stack([zenith, (azimuth - heading + 180.0) % 360.0 - 180.0], axis=1)


def _sun_angles(file: h5py.File, navigation: Navigation, count: int, rows: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(N, 2): solar zenith, and solar azimuth relative to the heading in [-180, 180), degrees."""
    angles = {}
    for key in ("solar_zenith", "solar_azimuth", "heading"):
        if getattr(navigation, key) is None:
            continue
        degrees = np.where(near, _degrees(file, navigation, key, count)[rows], np.nan)
        angles[key] = _fill_angles(degrees, navigation.max_filled_frames)  # neighbours in time, not in the file
    zenith = 90.0 - angles["solar_zenith"] if navigation.elevation else angles["solar_zenith"]
    relative = (angles["solar_azimuth"] - angles.get("heading", 0.0) + 180.0) % 360.0 - 180.0
    return np.stack([zenith, relative], axis=1)


def _column(file: h5py.File, navigation: Navigation, key: str, count: int) -> np.ndarray:
    """The dataset that field `key` names, with one value for each of `count` rows."""
    name = getattr(navigation, key)
    values = hdf5.read(file, name, 1, f"data.navigation.{key}")
    if len(values) != count:
        what = "one row per camera frame" if navigation.time is None else f"one row per time of '{navigation.time}'"
        hint = " Name the file's own times in data.navigation.time." if navigation.time is None else ""
        raise DataError(f"{file.filename}: '{name}' must have {what}, {count}. Received: {len(values)}.{hint}")
    return values


def _degrees(file: h5py.File, navigation: Navigation, key: str, count: int) -> np.ndarray:
    """One angle of every row, in degrees, by the setting or the unit that the file writes. Raises `DataError`."""
    name, values = getattr(navigation, key), _column(file, navigation, key, count)
    given = navigation.angle_unit
    unit = hdf5.unit(file[name]) if given == "attribute" or key in ("latitude", "longitude") else given
    if not unit:
        return values
    try:
        return convert(values, unit, "degree")
    except ValueError as error:
        raise DataError(
            f"{file.filename}: '{name}' (data.navigation.{key}): {error}. Set data.navigation.angle_unit to 'deg' or "
            "'rad', or name another dataset."
        ) from None


def _fill_angles(degrees: np.ndarray, longest: int) -> np.ndarray:
    """Fill NaN runs of up to `longest` from both sides, through sine and cosine, so that 359 and 1 average to 0.

    A run at either end has one side only and stays NaN.
    """
    degrees = np.where(np.abs(degrees) <= MOST_DEGREES, degrees, np.nan)
    degrees = np.where(impossible(degrees, np.array(FILLS_NOT_DECLARED)), np.nan, degrees)
    known = np.flatnonzero(~np.isnan(degrees))
    if len(known) < 2:
        return degrees
    steps = np.diff(known)
    inside = np.arange(known[0], known[-1])
    short = np.repeat(steps <= longest + 1, steps)
    index = inside[short & np.isnan(degrees[inside])]
    radians = np.deg2rad(degrees[known])
    sine, cosine = np.interp(index, known, np.sin(radians)), np.interp(index, known, np.cos(radians))
    degrees[index] = np.rad2deg(np.arctan2(sine, cosine))
    return degrees


def feature_rows(file: h5py.File, feature: Feature, total: int, what: str) -> np.ndarray:
    """A feature's value in each of `total` rows, the middle one of several; NaN where it is unknown."""
    values = hdf5.read(file, feature.dataset, (1, 2), f"data.features '{feature.name}'")
    values = values.ravel() if values.size == total != len(values) else values  # a vector as MATLAB writes it
    values = values if values.ndim == 1 else values[:, values.shape[1] // 2]
    if len(values) != total:
        raise DataError(
            f"{file.filename}: '{feature.dataset}' of feature '{feature.name}' must have one row for each of the "
            f"{total} {what}. Received: {len(values)}."
        )
    values = np.where(np.abs(values) <= LARGEST, values, np.nan)
    return np.where(impossible(values, np.array(FILLS_NOT_DECLARED)), np.nan, values)
