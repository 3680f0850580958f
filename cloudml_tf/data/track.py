"""Labels of neighbouring times inside one frame: the lidar's shots along the nadir line. NumPy only.

A frame shows not only its own footprint but those of the seconds before and after. A cloud that the lidar meets at
time s stands, in a frame of time t, `pixels_per_s` (s - t) pixels ahead of nadir. How fast the scene moves is measured
from the images, so that clouds are found where they are seen: a high cloud is nearer to the camera and moves faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.motion import fine_shift
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import FrameTable
from cloudml_tf.data.samples import Samples, samples_of_table
from cloudml_tf.data.sequences import sequences_around
from cloudml_tf.utils.errors import DataError

STEP_PX = 2  # between places: the network's second resolution is half of the first
PAIRS, LEAST_PAIRS = 60, 5  # of frames that a flight's motion is measured from


@dataclass(frozen=True)
class TrackSamples(Samples):
    """Sequences around frames of the training flights, labelled or not, with the labels that their frame shows.

    `label` and `weight` are (n,P) for P locations; a location without a label has the weight 0.
    """

    pixels_per_s: dict[str, float] = field(default_factory=dict)  # of each flight

    def description(self) -> dict[str, Any]:
        """For the run folder."""
        return {
            "offsets": list(self.offsets),
            "sequences": len(self),
            "labels_a_sequence": float(self.known.sum() / len(self)),
            "pixels_per_s": self.pixels_per_s,
        }


def offsets_of(frame_shape: tuple[int, int, int], config: Config) -> tuple[int, ...]:
    """Even distances from nadir whose footprint lies in the frame, 0 first."""
    side = frame_shape[along_track(config)]
    reach = config.target.track_reach
    if reach is None:
        reach = side // 2 - config.model.footprint // 2 - 1
    if not 0 < 2 * reach < side:
        raise DataError(
            f"target.track_reach {reach} does not fit a frame of {side} pixels along the track with model.footprint "
            f"{config.model.footprint}. Give a smaller one, or set target.coverage to nadir."
        )
    steps = range(STEP_PX, reach + 1, STEP_PX)
    return (0, *(sign * step for step in steps for sign in (1, -1)))


def track_windows(flights: list[Flight], names: Sequence[str], config: Config) -> dict[str, np.ndarray]:
    """Flight -> (n,T) frame indices around every frame of these training flights, labelled or not."""
    used = [flight for flight in flights if flight.name in names]
    return {flight.name: sequences_around(flight, np.arange(len(flight)), config) for flight in used}


def track_samples(
    flights: list[Flight], windows: Mapping[str, np.ndarray], train: Samples, table: FrameTable, config: Config
) -> TrackSamples:
    """The labels of the training split as each frame of its flights shows them.

    Only labels of `train` are used, and only sequences between a flight's first and last, so that a split stays one.
    Raises `DataError` where the motion of a flight cannot be seen in its images.
    """
    offsets = offsets_of(train.frame_shape, config)
    chosen = {}
    for number, flight in enumerate(flights):
        labelled_s = train.time_s[train.flight == number]
        found = windows.get(flight.name, np.zeros((0, config.temporal_frames), int))
        middle_s = flight.time_s[found[:, found.shape[1] // 2]]
        inside = (middle_s >= labelled_s[0]) & (middle_s <= labelled_s[-1]) if len(labelled_s) else np.zeros(len(found))
        chosen[flight.name] = found[inside.astype(bool)]
    samples = samples_of_table(flights, chosen, table, config)
    label, weight = np.full((len(samples), len(offsets)), np.nan), np.zeros((len(samples), len(offsets)), "float32")
    speed = {}
    for number in np.unique(train.flight):
        here, name = np.flatnonzero(samples.flight == number), samples.flight_names[number]
        speed[name] = pixels_per_s(samples.take(here), config)
        labels = train.take(train.flight == number)
        found, there = seen_labels(samples.time_s[here], labels.time_s, offsets, speed[name], STEP_PX)
        label[here], weight[here] = labels.label[found], np.where(there, labels.weight[found], 0.0)
    label = np.where(weight > 0, label, np.nan)
    plain = {own.name: getattr(samples, own.name) for own in fields(samples)}
    plain |= {"label": label, "weight": weight, "offsets": offsets}
    return TrackSamples(**plain, pixels_per_s=speed).take((weight > 0).any(axis=1))


def seen_labels(
    time_s: np.ndarray, label_s: np.ndarray, offsets: Sequence[int], speed: float, step_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which label stands at each place of each frame: the nearest one, and whether it lies within half a step, (n,P).

    Args:
        time_s: (n,) of the frames.
        label_s: (m,) rising times of one label or more.
        offsets: (P,) places, pixels ahead of nadir.
        speed: of the scene, pixels a second to lower indices.
        step_px: between places.
    """
    # the time at which the lidar meets what stands at each place
    wanted = time_s[:, None] + np.asarray(offsets)[None, :] / speed  # (n,P)
    after = np.clip(np.searchsorted(label_s, wanted), 1, max(len(label_s) - 1, 1)) % len(label_s)
    before = np.maximum(after - 1, 0)
    nearest = np.where(wanted - label_s[before] < label_s[after] - wanted, before, after)
    return nearest, np.abs(label_s[nearest] - wanted) * abs(speed) <= 0.5 * step_px


def pixels_per_s(samples: Samples, config: Config) -> float:
    """How fast the scene of one flight moves through the image, to lower indices along the track; pixels a second.

    Pairs of frames are taken so far apart that the scene moves by about a third of the image.
    """
    frame = samples.table[..., 0] if along_track(config) else samples.table[..., 0].swapaxes(1, 2)
    middle = samples.index[:, samples.index.shape[1] // 2]
    step_s = float(np.median(np.diff(samples.time_s)))
    apart, speed = 1, None
    for _ in range(3):
        first = np.arange(len(middle) - apart)
        lasting = samples.time_s[first + apart] - samples.time_s[first]
        pairs = first[np.abs(lasting - apart * step_s) < 0.2 * step_s]
        pairs = pairs[:: max(len(pairs) // PAIRS, 1)]
        shift = fine_shift(frame[middle[pairs]], frame[middle[pairs + apart]]) if len(pairs) >= LEAST_PAIRS else None
        if shift is None:
            break
        speed = shift / (apart * step_s)
        wider = int(frame.shape[2] / 3 / max(abs(speed) * step_s, 1e-6))
        if wider <= apart:
            break
        apart = wider
    if speed is None:
        name = samples.flight_names[samples.flight[0]]
        raise DataError(
            f"flight {name}: its images do not show by how much the scene moves from frame to frame, so that labels "
            "cannot be placed along the nadir line. Leave the flight out, or train with target.coverage nadir."
        )
    return speed


def along_track(config: Config) -> int:
    """The axis of a frame (H,W,C) along the track."""
    return 1 if config.data.camera.across_track_axis == "rows" else 0
