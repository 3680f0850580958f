"""Combine three instrument files into one validated `Flight`. Images stay in the file until `frames.py` reads them."""

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Camera, Data, FlightFiles, Limits, Target
from cloudml_tf.data.readers import clocks, hdf5, times
from cloudml_tf.data.readers.folders import features_in
from cloudml_tf.data.readers.formats.frames import is_series
from cloudml_tf.data.readers.geometry import UNKNOWN, CameraMotion, read_geometry
from cloudml_tf.data.readers.lidar import Profiles, read_profiles
from cloudml_tf.data.readers.navigation import check_parts, feature_rows, read_navigation, read_positions
from cloudml_tf.utils.errors import DataError


@dataclass(frozen=True)
class Flight:
    """A flight's frames in order of time, with the data of each. N frames, F further features.

    Checked at the boundary; code that takes a `Flight` trusts it.
    """

    name: str
    camera_path: Path
    frame_shape: tuple[int, int, int]  # (H, W, C) after slicing and down-sampling
    row: np.ndarray  # (N,) row of each frame in the camera file
    time_s: np.ndarray  # (N,) seconds since 1970 UTC, increasing
    piece: np.ndarray  # (N,) index of the gap-free segment
    label: np.ndarray  # (N,) optical depth or km; NaN where unlabelled
    sun_angles_deg: np.ndarray | None  # (N, 2) solar zenith, azimuth relative to heading; NaN where unknown
    features: np.ndarray  # (N, F); NaN where unknown
    latitude_deg: np.ndarray  # (N,) from the navigation file, else from the nearest profile; NaN where unknown
    longitude_deg: np.ndarray  # (N,)
    motion: CameraMotion = UNKNOWN
    further: np.ndarray | None = None  # (N, E) labels of target.further; NaN where unknown
    counts: dict[str, int] = field(default_factory=dict)  # frames and profiles left out, by reason
    limits: Limits = field(default_factory=Limits)  # for its files

    def __len__(self) -> int:
        return len(self.time_s)


def load_flight(name: str, files: FlightFiles, data: Data, target: Target, labels: bool = True) -> Flight:
    """Read and check one flight. Raises `DataError` naming the file and field of the first fault.

    Without `labels` the lidar file is read only if it holds a feature.
    """
    camera_path = Path(files.camera)
    counts: dict[str, int] = {}
    with hdf5.open_file(camera_path, data.limits) as file:
        frame_shape, total = _frame_shape(file, data.camera)
        time_s, row, beside = _frame_times(file, data.camera, total, counts)
        counts |= getattr(file, "counts", {})  # of a camera of one file a frame
        lengths = hdf5.rows_of_parts(file, data.camera.time)
        columns = {("camera", f.name): feature_rows(file, f, total, "frames")[row] for f in features_in("camera", data)}
    if files.navigation is not None and is_series(Path(files.navigation)):
        beside = row  # its parts without a clock go by their names, as the camera's rows do
    label, position = np.full(len(time_s), np.nan), np.full((2, len(time_s)), np.nan)
    if labels or features_in("lidar", data):
        profiles = read_profiles(files.lidar_path(), data.lidar, target, data.limits)
        counts.update(profiles.counts)
        _check_overlap(name, camera_path, files.lidar_path(), time_s, profiles.middle_s)
        label, matched = _label_frames(time_s, profiles, data)
        position = np.stack([profiles.latitude_deg[matched], profiles.longitude_deg[matched]])
        columns |= _lidar_features(files, data, time_s, profiles)
    further = [_further_label(time_s, files, data, each) for each in target.of_further()] if labels else []
    counts["frames labelled"] = int(np.isfinite(label).sum())
    check_parts(files, data, lengths)
    latitude, longitude = read_positions(files, data, time_s, total, beside, position)
    place = np.stack([latitude, longitude])
    sun, navigation_columns = read_navigation(files, data, time_s, total, beside, counts, place)
    motion = UNKNOWN
    if data.geometry is not None:
        motion = read_geometry(data.geometry, files, data, time_s, total, row, beside, place)
    by_name = {key[1]: values for key, values in {**columns, **navigation_columns}.items()}
    features = [by_name[f.name] for f in data.features]
    return Flight(
        name=name,
        camera_path=camera_path,
        frame_shape=frame_shape,
        row=row,
        time_s=time_s,
        piece=times.pieces(time_s, data.camera.max_gap_s),
        label=label,
        sun_angles_deg=sun,
        features=np.stack(features, axis=1) if features else np.zeros((len(time_s), 0)),
        latitude_deg=latitude,
        longitude_deg=longitude,
        motion=motion,
        further=np.stack(further, axis=1) if further else None,
        counts=counts,
        limits=data.limits,
    )


def _frame_shape(file: h5py.File, camera: Camera) -> tuple[tuple[int, int, int], int]:
    """(H, W, C) as the network will see it, and the number of frames in the file."""
    shapes = {
        name: hdf5.images(file, name, "data.camera.channels", camera.frame_axis == "last").shape
        for name in camera.channels
    }
    if len(set(shapes.values())) > 1:
        raise DataError(f"{file.filename}: channels differ in shape: {shapes}. Choose others in data.camera.channels.")
    total, rows, columns = next(iter(shapes.values()))
    if total == 0:
        raise DataError(f"{file.filename}: '{camera.channels[0]}' holds no frame.")
    sides = []
    for length, cut, key in ((rows, camera.rows, "rows"), (columns, camera.columns, "columns")):
        first, end = cut or (0, length)
        if not 0 <= first < end <= length:
            raise DataError(f"{file.filename}: data.camera.{key} {list(cut or ())} does not fit {length} {key}.")
        sides.append((end - first) // camera.downsample)
    if min(sides) < 1:
        raise DataError(
            f"{file.filename}: nothing is left of a frame after data.camera.downsample {camera.downsample}."
        )
    return (sides[0], sides[1], len(camera.channels)), total


def _frame_times(
    file: h5py.File, camera: Camera, total: int, counts: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted times (N,) in s, the file row of each, and its row in a navigation file with one a frame.

    Frames without a time, or with one seen before, are left out.
    """
    time_s = clocks.read_times(file, camera, "camera", 1)
    if len(time_s) != total:
        raise DataError(
            f"{file.filename}: '{camera.time}' must have one time per frame, {total}. Received: {len(time_s)}."
        )
    order, left = times.in_order(time_s)
    if len(order) == 0:
        raise DataError(f"{file.filename}: '{camera.time}' holds no finite time.")
    counts |= {"frames": total, **{f"frames {why}": count for why, count in left.items()}}
    return time_s[order], order, times.in_time(time_s, hdf5.rows_of_parts(file, camera.time))[order]


def _check_overlap(name: str, camera: Path, lidar: Path, frame_s: np.ndarray, profile_s: np.ndarray) -> None:
    if len(profile_s) and profile_s[0] <= frame_s[-1] and frame_s[0] <= profile_s[-1]:
        return
    if len(profile_s) == 0:
        raise DataError(f"{lidar}: no profile of flight {name} has a time. Check data.lidar.time.")
    shift_h = (profile_s[0] - frame_s[0]) / 3600.0
    raise DataError(
        f"{camera} and {lidar} do not overlap in time: the lidar starts {shift_h:+.2f} h after the camera. "
        "For another time zone or unit set data.camera.time_offset_s or time_unit; check data.lidar.year."
    )


def _label_frames(time_s: np.ndarray, profiles: Profiles, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels, and (N,) the nearest profile of each frame (for its position)."""
    lidar = data.lidar
    labelled = np.flatnonzero(np.isfinite(profiles.label))
    label = np.full(len(time_s), np.nan)
    if lidar.match == "nearest":
        frames, found = times.match_nearest(time_s, profiles.middle_s[labelled], lidar.tolerance_s)
        label[frames] = profiles.label[labelled][found]
    else:
        spans = (profiles.start_s[labelled], profiles.end_s[labelled], profiles.label[labelled])
        label = times.average_over_spans(time_s, *spans, lidar.tolerance_s)
    return label, times.nearest(profiles.middle_s, time_s)[0]


def _further_label(time_s: np.ndarray, files: FlightFiles, data: Data, target: Target) -> np.ndarray:
    """(N,) labels of a further quantity."""
    return _label_frames(time_s, read_profiles(files.lidar_path(), data.lidar, target, data.limits), data)[0]


def _lidar_features(
    files: FlightFiles, data: Data, time_s: np.ndarray, profiles: Profiles
) -> dict[tuple[str, str], np.ndarray]:
    """Features from the lidar file, taken at the profile nearest in time to each frame."""
    wanted = features_in("lidar", data)
    if not wanted:
        return {}
    index, _ = times.nearest(profiles.middle_s, time_s)
    total = profiles.counts["profiles"]
    with hdf5.open_file(files.lidar_path(), data.limits) as file:
        return {("lidar", f.name): feature_rows(file, f, total, "profiles")[profiles.order][index] for f in wanted}
