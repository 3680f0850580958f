"""Reasons against a frame's value: one bit each, as CF's flag_masks. NumPy only."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.sequences import frames_around, known_inputs
from cloudml_tf.data.training_ranges import TrainingRanges, outside_geometry, outside_sun

FLAGS = (  # written files hold the bits of these places: add new ones at the end
    "black_frame",
    "saturated_frame",
    "gap",
    "missing_angles",
    "sun_outside_training",
    "radiance_outside_training",
    "feature_outside_training",
    "glint",
    "opaque",
    "below_training_labels",
    "invalid_pixels",
    "geometry_outside_training",
    "wind_unknown",
    "little_texture",
    "above_training_labels",
)
MASKS = np.array([1 << bit for bit in range(len(FLAGS))], "int16")  # which holds 15 flags at most
# Frames with one of these have no value; the quick look greys them. `inference.flight.good_sequences` withholds it.
NO_VALUE = ("black_frame", "saturated_frame", "gap", "missing_angles", "invalid_pixels")


@dataclass(frozen=True)
class Frames:
    """Measurements of a flight's N frames. C channels."""

    saturated: np.ndarray  # (N,) bool
    no_image: np.ndarray  # (N,) bool
    invalid: np.ndarray  # (N,) bool, with pixels that are no numbers or impossible
    light: np.ndarray  # (N,C) mean radiance
    value: np.ndarray  # (N,) predictions, NaN where there is none
    texture: np.ndarray | float = np.inf  # (N,) contrast around nadir, of `plane_sweep.contrast`


def quality_flags(flight: Flight, frames: Frames, config: Config, ranges: TrainingRanges | None) -> np.ndarray:
    """The flags of each frame, (N,) int16. Without `ranges` the bits that compare with the training stay 0.

    Each of `FLAGS` is raised here or in `_outside_training`; what a new one needs to know of a frame is measured by
    `inference.flight` and handed over in `Frames`.
    """
    known, bad, around = known_inputs(flight), frames.saturated | frames.no_image, frames_around(flight, config)
    raised = {
        "black_frame": frames.no_image & ~frames.saturated & ~frames.invalid,
        "invalid_pixels": frames.invalid,
        "saturated_frame": frames.saturated,
        "gap": ~whole_around(around, known & ~bad),
        "missing_angles": ~known,
        "glint": glint_possible(flight, config.prediction.glint_angle_deg),
        "opaque": opaque(frames.value, config, ranges),
        "below_training_labels": below_labels(frames.value, config, ranges),
        "above_training_labels": above_labels(frames.value, config, ranges),
    }
    if flight.motion.network_input and config.data.geometry is not None:
        raised["little_texture"] = frames.texture < config.data.geometry.least_contrast
        raised["wind_unknown"] = np.full(len(flight), not flight.motion.wind_known)
    if ranges is not None:
        raised |= _outside_training(flight, frames, around, config, ranges)
    flags = np.zeros(len(flight), "int16")
    for name, where in raised.items():
        flags |= np.where(where, MASKS[FLAGS.index(name)], 0).astype("int16")
    return flags


def whole_around(frames: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Whether all other frames of the sequence around a frame exist and are usable: (N,T), (N,) -> (N,)."""
    other = np.delete(frames, frames.shape[1] // 2, axis=1)
    whole: np.ndarray = ((other >= 0) & usable[other]).all(axis=1)
    return whole


def glint_possible(flight: Flight, limit_deg: float) -> np.ndarray:
    """Whether, over water, the sun's mirror image may shine into the nadir pixel, (N,).

    The glint angle is between the view and the direct reflection of the sun off a level sea. The view at nadir is
    straight down, so it equals the solar zenith angle.
    """
    if flight.sun_angles_deg is None:
        return np.zeros(len(flight), bool)
    return flight.sun_angles_deg[:, 0] < limit_deg


def opaque(value: np.ndarray, config: Config, ranges: TrainingRanges | None) -> np.ndarray:
    """Whether an optical depth is a lower limit, (N,): at the top of the training labels or above, or beyond
    `target.maximum`."""
    tops = [end for end in (config.target.maximum, ranges.label.high if ranges else None) if end is not None]
    if not config.target.quantity.of_column or not tops:
        return np.zeros(len(value), bool)
    return value >= min(tops)


def below_labels(value: np.ndarray, config: Config, ranges: TrainingRanges | None) -> np.ndarray:
    """Whether a value is below all training labels, or below `target.minimum`, (N,); it may be negative."""
    bottoms = [end for end in (config.target.minimum, ranges.label.low if ranges else None) if end is not None]
    return value < max(bottoms, default=-np.inf)


def _outside_training(
    flight: Flight, frames: Frames, around: np.ndarray, config: Config, ranges: TrainingRanges
) -> dict[str, np.ndarray]:
    light = [part.outside(frames.light[:, c]) for c, part in enumerate(ranges.radiance)]
    features = flight.features.astype("float32")  # the precision of the network and the ranges
    others = [part.outside(features[:, f]) for f, part in enumerate(ranges.features)]
    found = {"radiance_outside_training": np.any(light, axis=0) & ~frames.no_image}
    if others:
        found["feature_outside_training"] = np.any(others, axis=0)
    if flight.sun_angles_deg is not None:
        found["sun_outside_training"] = outside_sun(flight.sun_angles_deg, ranges, config.augmentation).any(axis=1)
    if ranges.geometry and flight.motion.columns is not None:
        whole, ends = (around >= 0).all(axis=1), flight.time_s[around[:, [0, -1]]]
        span_s = np.where(whole, ends[:, 1] - ends[:, 0], np.nan)
        found["geometry_outside_training"] = outside_geometry(flight.motion.columns, span_s, ranges)
    return found


def above_labels(value: np.ndarray, config: Config, ranges: TrainingRanges | None) -> np.ndarray:
    """Whether a value is above all training labels, or above `target.maximum`, (N,); of a column `opaque` says so."""
    tops = [end for end in (config.target.maximum, ranges.label.high if ranges else None) if end is not None]
    if config.target.quantity.of_column or not tops:
        return np.zeros(len(value), bool)
    return value > min(tops)


def mask_of(names: Iterable[str]) -> np.int16:
    """All bits of some flags."""
    return np.int16(sum(int(MASKS[FLAGS.index(name)]) for name in names))


def counts(flags: np.ndarray) -> dict[str, int]:
    """The number of frames with each flag."""
    return {name: int((flags & mask).astype(bool).sum()) for name, mask in zip(FLAGS, MASKS, strict=True)}
