"""Turn lidar profiles into labels: one value per profile, or the reason why there is none."""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Lidar, Limits, Target
from cloudml_tf.data.readers import clocks, hdf5, times
from cloudml_tf.data.readers.flag_values import BAD, read_flags
from cloudml_tf.data.readers.units import Wanted, convert
from cloudml_tf.utils.errors import DataError

NOT_OPAQUE = r"\b(not|non|un|no)\b ?-?(opaque|attenuated|saturated)|transparent|semi ?transparent"
HIGHEST_GROUND_M = 9000.0  # fills are below, -9999
UNLIKELY_HEIGHT = -500.0  # in any unit: fills are below
OPAQUE = r"opaque|attenuated|saturated|extinguish|beam ended|no (surface|ground) (return|echo|signal)"
NO_CLOUD = r"\b(no|not|non|without)\b|clear|aerosol|dust|smoke|surface|precip|rain|noise|invalid|unknown|undetermined"


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


def read_profiles(path: Path, lidar: Lidar, target: Target, limits: Limits | None = None) -> Profiles:
    """Read a lidar file. Profiles may be unsorted or duplicated; each time is kept once."""
    with hdf5.open_file(path, limits) as file:
        span_s = _profile_times(file, path, lidar)  # (P, 3)
        label, counts = _labels(file, lidar, target, len(span_s))
        latitude, longitude = (_positions(file, lidar, key, len(span_s)) for key in ("latitude", "longitude"))
        if hdf5.has(file, clocks.FILE_YEAR):  # its layout marks invalid profiles by latitudes of 0 and less
            invalid = latitude <= 0
            counts["profiles without a position"] = int((invalid & np.isfinite(label)).sum())
            label, latitude, longitude = (np.where(invalid, np.nan, values) for values in (label, latitude, longitude))
    order, left = times.in_order(span_s[:, 1])
    counts |= {f"profiles {why}": count for why, count in left.items()}
    start, middle, end = span_s[order].T
    return Profiles(start, middle, end, label[order], latitude[order], longitude[order], counts, order)


def _profile_times(file: h5py.File, path: Path, lidar: Lidar) -> np.ndarray:
    """(P, 3) start, middle, end in s since 1970; a profile with one time has no length."""
    found = clocks.read_times(file, lidar, "lidar", (1, 2))
    if found.ndim == 1:
        found = found[:, None]
    if found.shape[1] not in (1, 2, 3):
        raise DataError(
            f"{path}: '{lidar.time}' must be (profile, 3): start, middle, end; (profile, 2): start, end; or "
            f"(profile,). Received: shape {found.shape}."
        )
    if len(found) == 0:
        raise DataError(f"{path}: '{lidar.time}' holds no profile.")
    middle = found.mean(axis=1) if found.shape[1] == 2 else found[:, found.shape[1] // 2]
    return np.stack([found[:, 0], middle, found[:, -1]], axis=1)


def _positions(file: h5py.File, lidar: Lidar, key: str, count: int) -> np.ndarray:
    values = _optional(file, lidar, key, (1, 2), count)
    if values is None:
        return np.full(count, np.nan)
    values = values if values.ndim == 1 else values[:, values.shape[1] // 2]
    return _in_its_unit(file, lidar, key, values, "degree", "Name another dataset, or one that is not there")


def _labels(file: h5py.File, lidar: Lidar, target: Target, count: int) -> tuple[np.ndarray, dict[str, int]]:
    """(P,) labels with NaN where there is none, and how many were lost for each reason (the first that applies)."""
    key, quantity = target.quantity.lidar, target.quantity
    layers = _rows(file, lidar, key, (1, 2), count)  # (P, L)
    layers = layers[:, None] if layers.ndim == 1 else layers
    if quantity.is_height:
        remedy = "Set data.lidar.height_unit to the unit of the numbers"
        layers = _in_its_unit(file, lidar, key, layers, quantity.unit, remedy, lidar.height_unit)
    else:
        layers = _in_its_unit(file, lidar, key, layers, quantity.unit, "Choose another dataset")
    number = _optional(file, lidar, "number_layers", 1, count)
    is_cloud = _cloud_layers(file, lidar, layers, number)
    if layers.shape[1] > 1 and _lowest_first(file, lidar, count):
        layers, is_cloud = layers[:, ::-1], is_cloud[:, ::-1]
    label = _choose_layer(layers, is_cloud, lidar, target)
    # A list of layers without any is clear sky; one label that is missing is not.
    known = np.isfinite(layers).any(axis=1) | (layers.shape[1] > 1) if number is None else ~np.isnan(number)
    clear = ~is_cloud.any(axis=1) & known
    if lidar.clear_sky == "zero":
        label[clear] = 0.0

    counts = {"profiles": count, "profiles of clear sky": int(clear.sum())}
    left = ~clear | (lidar.clear_sky == "zero")
    for reason, where in (
        ("profiles opaque", _opaque(file, lidar, target, count)),
        ("profiles whose beam ended in the cloud", _beam_ended(file, lidar, target, count)),
        ("profiles off the ocean", _off_ocean(file, lidar, count)),
        *(
            (f"profiles flagged {text}", where)
            for text, where in _flagged_bad(file, getattr(lidar, key), count).items()
        ),
        ("profiles without a usable value", np.isnan(label)),
        ("profiles out of range", _out_of_range(label, target)),
    ):
        counts[reason] = int((left & where).sum())
        left &= ~where
    counts["profiles labelled"] = int(left.sum())
    return np.where(left, label, np.nan), counts


def _in_its_unit(
    file: h5py.File, lidar: Lidar, key: str, values: np.ndarray, wanted: Wanted, remedy: str, given: str = "attribute"
) -> np.ndarray:
    """Values of the dataset that field `key` names, converted from the unit that the file writes or a setting gives.

    Without a unit they stay as they are. Raises `DataError` for a unit that measures something else.
    """
    name = getattr(lidar, key)
    unit = hdf5.unit(file[name]) if given == "attribute" else given
    if not unit:
        return values
    try:
        return convert(values, unit, wanted)
    except ValueError as error:
        raise DataError(f"{file.filename}: '{name}' (data.lidar.{key}): {error}. {remedy}.") from None


def _rows(file: h5py.File, lidar: Lidar, key: str, rank: int | tuple[int, ...], count: int) -> np.ndarray:
    """The dataset that field `key` names: one row per profile."""
    values = hdf5.read(file, getattr(lidar, key), rank, f"data.lidar.{key}")
    return _one_a_profile(file, values, key, getattr(lidar, key), count)


def _one_a_profile(file: h5py.File, values: np.ndarray, key: str, name: str, count: int) -> np.ndarray:
    values = values.ravel() if values.size == count != len(values) else values  # a vector as MATLAB writes it
    if len(values) != count:
        raise DataError(
            f"{file.filename}: '{name}' (configuration field data.lidar.{key}) must have one row per "
            f"profile, {count}. Received: shape {values.shape}."
        )
    return values


def _named(file: h5py.File, lidar: Lidar, key: str) -> str | None:
    """The dataset that field `key` names; None where it is null, or has its default and the file lacks that dataset.

    A name that the user chose must exist: a misspelt one would silently let aerosol or opaque columns in.
    """
    name = getattr(lidar, key)
    absent = name is None or (name == Lidar.model_fields[key].default and not hdf5.has(file, name))
    return None if absent else str(name)


def _optional(file: h5py.File, lidar: Lidar, key: str, rank: int | tuple[int, ...], count: int) -> np.ndarray | None:
    """Like `_rows`; None where `_named` is."""
    return None if _named(file, lidar, key) is None else _rows(file, lidar, key, rank, count)


def _cloud_layers(file: h5py.File, lidar: Lidar, layers: np.ndarray, number: np.ndarray | None) -> np.ndarray:
    """Which layers are cloud, (P, L), with or without a usable value. `number` (P,) is the number of layers."""
    present = ~np.isnan(layers)
    if number is not None:
        counted = np.arange(layers.shape[1]) < number[:, None]
        present = np.where(np.isnan(number)[:, None], present, counted)
    name = _named(file, lidar, "feature_type")
    if name is None:
        return present
    flags = read_flags(file, name, "data.lidar.feature_type")
    kinds = _one_a_profile(file, flags.codes, "feature_type", name, len(layers))
    told = flags.where("cloud", NO_CLOUD) if lidar.cloud_types == Lidar.model_fields["cloud_types"].default else None
    kinds = kinds[:, None] if kinds.ndim == 1 else kinds
    if kinds.shape != layers.shape:
        raise DataError(
            f"{file.filename}: '{lidar.feature_type}' (configuration field data.lidar.feature_type) must have the "
            f"shape of the layers, {layers.shape}. Received: {kinds.shape}. Set it to null to ignore it."
        )
    if told is not None:  # the file's own meanings, where no setting names codes
        return present & told.reshape(kinds.shape)
    return present & np.isin(kinds, lidar.cloud_types)


def _lowest_first(file: h5py.File, lidar: Lidar, count: int) -> bool:
    """Whether a file has the lowest layer first, by the heights of its columns of several layers."""
    for key in ("base", "top"):
        heights = _optional(file, lidar, key, (1, 2), count) if hdf5.has(file, getattr(lidar, key)) else None
        if heights is not None and heights.ndim == 2:
            with np.errstate(invalid="ignore"):
                heights = np.where(heights > UNLIKELY_HEIGHT, heights, np.nan)
                steps = np.diff(heights, axis=1)
            if np.isfinite(steps).any():
                return bool((steps > 0).sum() > (steps < 0).sum())
    return False


def _choose_layer(layers: np.ndarray, is_cloud: np.ndarray, lidar: Lidar, target: Target) -> np.ndarray:
    """Choose the label, (P, L), top layer first -> (P,); NaN without cloud, or where a needed layer is invalid.

    Fill, negative and infinite values are invalid. A column with one unknown layer is unknown: the sum of the others
    would be too small.
    """
    usable = (layers >= 0) & (layers <= target.quantity.largest)
    choice = lidar.layer
    if choice == "default":
        choice = "column" if target.quantity.of_column else "top"
    if choice == "column":
        known = is_cloud.any(axis=1) & (usable | ~is_cloud).all(axis=1)
        return np.where(known, np.where(is_cloud & usable, layers, 0.0).sum(axis=1), np.nan)
    first = is_cloud.argmax(axis=1)
    last = layers.shape[1] - 1 - is_cloud[:, ::-1].argmax(axis=1)
    chosen = np.arange(len(layers)), first if choice == "top" else last
    return np.where(is_cloud[chosen] & usable[chosen], layers[chosen], np.nan)


def _out_of_range(label: np.ndarray, target: Target) -> np.ndarray:
    low = -np.inf if target.minimum is None else target.minimum
    high = np.inf if target.maximum is None else target.maximum
    return (label < low) | (label > high)


def _opaque(file: h5py.File, lidar: Lidar, target: Target, count: int) -> np.ndarray:
    """Columns (P,) whose optical depth is a lower limit, and whose lowest base is where the beam ended."""
    name = _named(file, lidar, "opaque")
    if name is None or lidar.opaque_profiles == "keep" or target.name == "cloud_top_km":
        return np.zeros(count, bool)
    flags = read_flags(file, name, "data.lidar.opaque")
    codes = _one_a_profile(file, flags.codes, "opaque", name, count)
    if flags.explained:
        found = flags.where(OPAQUE, NOT_OPAQUE)
        if found is None:
            transparent = flags.where(NOT_OPAQUE)
            found = None if transparent is None else ~transparent & np.isfinite(flags.codes)
        if found is None:
            said = ", ".join([*flags.by_code.values(), *flags.by_bit.values()][:8])
            raise DataError(
                f"{file.filename}: '{name}' (data.lidar.opaque): none of its flag_meanings says which columns are "
                f"opaque. Received: {said}. Set data.lidar.opaque to null, or to another dataset."
            )
        return np.asarray(found.reshape(count, -1).any(axis=1))
    other = np.unique(codes[np.isfinite(codes) & ~np.isin(codes, (0, 1))])
    if len(other):
        shown = ", ".join(f"{code:g}" for code in other[:5])
        raise DataError(
            f"{file.filename}: '{name}' (data.lidar.opaque) must hold 0 and 1, or say in flag_values and flag_meanings "
            f"which code is opaque. Received: {shown}. Set data.lidar.opaque to null, or fix the file."
        )
    return (codes.reshape(count, -1) == 1).any(axis=1)


def _beam_ended(file: h5py.File, lidar: Lidar, target: Target, count: int) -> np.ndarray:
    """Columns (P,) without a return of the surface, where the lowest base is where the beam ended and not the cloud's.

    A file without any return of the surface says nothing about its beams.
    """
    name = _named(file, lidar, "surface")
    if name is None or lidar.beam_ended == "keep" or target.name != "cloud_base_km":
        return np.zeros(count, bool)
    seen = np.abs(_metres(file, lidar, "surface", count)) <= HIGHEST_GROUND_M
    return ~seen if seen.any() else np.zeros(count, bool)


def _flagged_bad(file: h5py.File, name: str, count: int) -> dict[str, np.ndarray]:
    """Profiles (P,) that the quality flags of a dataset call bad, by meaning: its `ancillary_variables`, qc_NAME,
    NAME_qc or NAME_quality_flag."""
    group, _, last = name.rpartition("/")
    place = f"{group}/" if group else ""
    beside = [f"qc_{last}", f"{last}_qc", f"{last}_quality_flag", f"{last}_flag", f"{last}_quality"]
    named = [place + word for word in hdf5.text(file[name], "ancillary_variables").split()]
    found: dict[str, np.ndarray] = {}
    for candidate in dict.fromkeys([*named, *(place + word for word in beside)]):
        if not hdf5.has(file, candidate):
            continue
        flags = read_flags(file, candidate, "quality flags")
        if len(flags.codes) != count:
            continue
        for text, raised in flags.each().items():
            if re.search(BAD, text) and not re.search(rf"\b(not|no|non)\b.*({BAD})", text) and raised.any():
                found[text] = np.asarray(raised.reshape(count, -1).any(axis=1))
    return found


def _off_ocean(file: h5py.File, lidar: Lidar, count: int) -> np.ndarray:
    """Profiles (P,) off the sea, or without a surface return (which drops opaque columns: a selection bias)."""
    if lidar.scene == "any":
        return np.zeros(count, bool)
    surface, dem = (_metres(file, lidar, key, count) for key in ("surface", "dem"))
    return ~((dem == 0) & (np.abs(surface) <= 900.0))


def _metres(file: h5py.File, lidar: Lidar, key: str, count: int) -> np.ndarray:
    """A height of the ground (P,) in m; m without a unit."""
    values = _rows(file, lidar, key, 1, count)
    if not hdf5.unit(file[getattr(lidar, key)]):
        return values
    return 1e3 * _in_its_unit(file, lidar, key, values, "km", "Choose another dataset, or data.lidar.scene 'any'")
