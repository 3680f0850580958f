"""Lidar profiles to labels: one value a profile, or the reason why there is none."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.data import hdf5, times
from cloudml_tf.errors import DataError
from cloudml_tf.settings import Lidar, Target


@dataclass(frozen=True)
class Profiles:
    """Lidar profiles in the order of their middle times. P profiles; times in s since 1970 UTC, degrees, labels."""

    start_s: np.ndarray
    middle_s: np.ndarray
    end_s: np.ndarray
    label: np.ndarray  # NaN where unlabelled; optical depth, or km
    latitude_deg: np.ndarray
    longitude_deg: np.ndarray
    counts: dict[str, int]  # how many profiles are unlabelled, by reason
    order: np.ndarray  # rows of the file, so that further datasets can be put in the same order


def read_profiles(path: Path, lidar: Lidar, target: Target) -> Profiles:
    """Read a lidar file. Profiles may be unsorted or duplicated; each time is kept once."""
    with hdf5.open_file(path) as file:
        span_s = _profile_times(file, path, lidar)  # (P, 3)
        label, counts = _labels(file, lidar, target, len(span_s))
        latitude, longitude = (_positions(file, name, len(span_s)) for name in (lidar.latitude, lidar.longitude))
    order = np.argsort(span_s[:, 1], kind="stable")
    order = order[np.isfinite(span_s[order, 1])]
    kept = np.concatenate([[True], np.diff(span_s[order, 1]) > 0]) if len(order) else np.zeros(0, bool)
    counts["profiles duplicated"] = int((~kept).sum())
    counts["profiles without a time"] = int(len(span_s) - len(order))
    order = order[kept]
    start, middle, end = span_s[order].T
    return Profiles(start, middle, end, label[order], latitude[order], longitude[order], counts, order)


def _profile_times(file: h5py.File, path: Path, lidar: Lidar) -> np.ndarray:
    days = hdf5.read(file, lidar.time, (1, 2), "data.lidar.time")
    if days.ndim == 1:
        days = np.repeat(days[:, None], 3, axis=1)
    if days.shape[1] != 3:
        raise DataError(
            f"{path}: '{lidar.time}' must be (profile, 3): start, middle, end. Received: shape {days.shape}."
        )
    if len(days) == 0:
        raise DataError(f"{path}: '{lidar.time}' holds no profile.")
    finite = days[np.isfinite(days)]
    if finite.size and (finite.min() < 0 or finite.max() > 368):
        raise DataError(
            f"{path}: '{lidar.time}' must be a decimal day of year, 1 to 367. "
            f"Received: {finite.min():g} to {finite.max():g}. Name the right dataset in data.lidar.time."
        )
    year = lidar.year if lidar.year is not None else times.year_of_name(path)
    return times.day_of_year_to_seconds(days, year) + lidar.time_offset_s


def _positions(file: h5py.File, name: str, count: int) -> np.ndarray:
    values = hdf5.read_optional(file, name, (1, 2))
    if values is None or len(values) != count:
        return np.full(count, np.nan)
    return values if values.ndim == 1 else values[:, values.shape[1] // 2]


def _labels(file: h5py.File, lidar: Lidar, target: Target, count: int) -> tuple[np.ndarray, dict[str, int]]:
    """(P,) labels with NaN where there is none, and how many were lost to which reason."""
    name = {
        "optical_depth": lidar.optical_depth,
        "cloud_base_km": lidar.base,
        "cloud_top_km": lidar.top,
    }[target.name]
    field = {"optical_depth": "optical_depth", "cloud_base_km": "base", "cloud_top_km": "top"}[target.name]
    layers = _per_layer(file, name, count, f"data.lidar.{field}")  # (P, L)
    is_cloud = _cloud_layers(file, lidar, layers)
    label = _choose_layer(layers, is_cloud, lidar, target)
    counts = {"profiles": count}

    clear = ~is_cloud.any(axis=1)
    number = hdf5.read_optional(file, lidar.number_layers, 1)
    if number is not None and len(number) == count:
        clear |= number == 0
    if lidar.clear_sky == "zero":
        label[clear] = 0.0
    else:
        label[clear] = np.nan
    counts["profiles of clear sky"] = int(clear.sum())

    counts["profiles opaque"] = _drop(label, _opaque(file, lidar, target, count))
    counts["profiles off the ocean"] = _drop(label, _off_ocean(file, lidar, count))
    with np.errstate(invalid="ignore"):
        below = label < (-np.inf if target.minimum is None else target.minimum)
        above = label > (np.inf if target.maximum is None else target.maximum)
    counts["profiles out of range"] = _drop(label, below | above)
    counts["profiles not finite"] = _drop(label, np.isinf(label))
    counts["profiles labelled"] = int(np.isfinite(label).sum())
    return label, counts


def _drop(label: np.ndarray, where: np.ndarray) -> int:
    """Unlabel in place; returns how many lost their label here."""
    lost = where & ~np.isnan(label)
    label[lost] = np.nan
    return int(lost.sum())


def _per_layer(file: h5py.File, name: str, count: int, field: str) -> np.ndarray:
    values = hdf5.read(file, name, (1, 2), field)
    values = values[:, None] if values.ndim == 1 else values
    if len(values) != count:
        raise DataError(
            f"{file.filename}: '{name}' must have one row a profile, {count}. Received: shape {values.shape}."
        )
    return values


def _cloud_layers(file: h5py.File, lidar: Lidar, layers: np.ndarray) -> np.ndarray:
    """(P, L): which layers are cloud with a usable value. Negative values are as good as fill."""
    with np.errstate(invalid="ignore"):
        usable = ~np.isnan(layers) & (layers >= 0)
    kinds = hdf5.read_optional(file, lidar.feature_type, 2, "data.lidar.feature_type")
    if kinds is not None and kinds.shape == layers.shape:
        usable &= np.isin(kinds, lidar.cloud_types)
    return usable


def _choose_layer(layers: np.ndarray, is_cloud: np.ndarray, lidar: Lidar, target: Target) -> np.ndarray:
    """(P, L), top layer first -> (P,)."""
    choice = lidar.layer
    if choice == "default":
        choice = "column" if target.name == "optical_depth" else "top"
    if choice == "column":
        return np.where(is_cloud, layers, 0.0).sum(axis=1)
    first = is_cloud.argmax(axis=1)
    last = layers.shape[1] - 1 - is_cloud[:, ::-1].argmax(axis=1)
    return layers[np.arange(len(layers)), first if choice == "top" else last].copy()


def _opaque(file: h5py.File, lidar: Lidar, target: Target, count: int) -> np.ndarray:
    """(P,): columns whose optical depth is only a lower limit. Heights of an opaque top layer stay good."""
    flags = hdf5.read_optional(file, lidar.opaque, (1, 2), "data.lidar.opaque")
    if flags is None or len(flags) != count or lidar.opaque_profiles == "keep" or target.name != "optical_depth":
        return np.zeros(count, bool)
    return (flags.reshape(count, -1) == 1).any(axis=1)


def _off_ocean(file: h5py.File, lidar: Lidar, count: int) -> np.ndarray:
    """(P,): not over the sea, or without a surface return (which drops opaque columns: a selection bias)."""
    if lidar.scene == "any":
        return np.zeros(count, bool)
    surface = hdf5.read(file, lidar.surface, 1, "data.lidar.surface")
    dem = hdf5.read(file, lidar.dem, 1, "data.lidar.dem")
    with np.errstate(invalid="ignore"):
        return ~((dem == 0) & (np.abs(surface) <= 900.0))
