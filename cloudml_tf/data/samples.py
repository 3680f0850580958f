"""Labelled examples: what a network, a baseline and a score all work on. Here, sequences of frames of flights.

Every target is a value at one or several locations of an example: at nadir (n,), along the nadir line (n,P), at every
pixel of a scene (n,H,W). `Examples` is what training and evaluation know of them; `Samples` are sequences of flights,
`cloudml_tf.data.scenes.Scenes` are gridded scenes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from cloudml_tf.config.data import Data
from cloudml_tf.config.schema import Config
from cloudml_tf.data.augmentation import Augment, SequenceAugmentation
from cloudml_tf.data.independence import block_ids, effective_size
from cloudml_tf.data.label_weights import overweight
from cloudml_tf.data.plane_sweep import Sight, axes_of, heights_km, sweep
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import FrameTable, Progress, build_table, camera_fingerprint
from cloudml_tf.data.sequences import frames_around, sequences
from cloudml_tf.data.statistics import image_statistics
from cloudml_tf.nn.sightlines import TIME
from cloudml_tf.utils.errors import DataError, FlightError, of_flight


class Examples(Protocol):
    """n labelled examples of one split, with labels of shape (n, *P): one number for each, or one for each location."""

    @property
    def label(self) -> np.ndarray:
        """(n, *P) in the target's own unit; not to be read where `weight` is 0."""

    @property
    def weight(self) -> np.ndarray:
        """(n, *P) in the loss; 0 where there is no label."""

    @property
    def known(self) -> np.ndarray:
        """(n, *P) bool: where there is a label."""

    @property
    def group(self) -> np.ndarray:
        """(n,) the flight, or the group of scenes, of each example: an index into `group_names`."""

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names by which a split chooses examples."""

    @property
    def time_s(self) -> np.ndarray | None:
        """(n,) seconds since 1970 UTC; None of scenes that have no time."""

    @property
    def segment(self) -> np.ndarray:
        """(n,) rising numbers of the gap-free segments in time; examples of two segments share no frame."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(H, W, C), or (T, H, W, C) of scenes of several frames."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """The locations of labels along the track, in pixels ahead of nadir; (0,) without a track."""

    @property
    def geometry(self) -> dict[str, Any]:
        """What a network is built for: `frame_shape` and, for sequences, `nadir`. Written into the run folder."""

    @property
    def at_nadir(self) -> "Samples | None":
        """Themselves, where they are sequences with one label each, at nadir."""

    @property
    def single(self) -> tuple[int, ...]:
        """Channels that hold one number for each example."""

    @property
    def batch_size(self) -> int:
        """How many examples are predicted at once."""

    def __len__(self) -> int: ...

    def keys(self) -> dict[str, np.ndarray]:
        """What identifies each example in predictions.npz, (n,) each: `flight`, and `time_s` or `scene`."""

    def take(self, chosen: Any) -> Self:
        """Some of the examples, by a mask or indices."""

    def inputs(self, chosen: Any = slice(None)) -> dict[str, np.ndarray]:
        """What the network takes, by name."""

    def shared_inputs(self, chosen: Any = slice(None), run: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The same with each frame once, for a network of `models.share_frames`."""

    def training_frames(self) -> Iterator[np.ndarray]:
        """Every frame once, in chunks (k,H,W,C)."""

    def frame_features(self) -> np.ndarray:
        """(k,F) the further features of these frames; F is 0 where there are none."""

    def further_labels(self) -> np.ndarray:
        """(n,E) labels of target.further, NaN where unknown; E is 0 where there are none."""

    def radiance_at_labels(self) -> np.ndarray:
        """(k,C) mean radiance of 3 x 3 pixels around each of the k known labels."""

    def blocks(self, block_s: float) -> np.ndarray:
        """(n, *P) the bootstrap block of each label: neighbours are correlated, blocks are not."""

    def effective_size(self, target: np.ndarray) -> float:
        """How many independent numbers the known labels are worth; `target` (k,) are these in the loss's space."""

    def augmentation(self, config: Config, heights: Mapping[int, tuple[float, float]]) -> Augment:
        """Random changes of training batches that keep the labels true; `heights` are the mean and std in
        km of each target that is a height, by its column."""

    def baseline_features(self, log_offset: float | None) -> Mapping[str, np.ndarray]:
        """What baselines see: by kind, (k,S) for the k known labels, or (n, *P) of another method."""


MOST_SEQUENCES = 512  # that are predicted at once


@dataclass(frozen=True)
class Samples:
    """n sequences of T frames. Frames lie in a shared table of M; a sequence is a row of indices into it."""

    table: np.ndarray  # (M, H, W, C) radiance
    sun_angles_deg: np.ndarray | None  # (M, 2)
    features: np.ndarray  # (M, F)
    index: np.ndarray  # (n, T) rows of the table
    label: np.ndarray  # (n,) of the middle frame, in the target's own unit; (n,P) along the nadir line
    weight: np.ndarray  # as `label`; 0 where there is none
    time_s: np.ndarray  # (n,) of the middle frame
    flight: np.ndarray  # (n,) index into flight_names
    piece: np.ndarray  # (n,) gap-free piece within the flight
    flight_names: tuple[str, ...]
    nadir: tuple[int, int]  # (row, column) of the lidar's footprint
    offsets: tuple[int, ...] = (0,)  # (P,) the labels' locations, pixels ahead of nadir
    sight: Sight | None = None  # of the frames of the table, where their geometry is known
    further: np.ndarray | None = None  # (n,E) labels of target.further, NaN where unknown
    single: ClassVar[tuple[int, ...]] = ()  # every channel is an image

    def __len__(self) -> int:
        return len(self.label)

    @property
    def at_nadir(self) -> "Samples | None":
        """Themselves; None along a track."""
        return self if self.label.ndim == 1 else None

    def take(self, chosen: Any) -> Self:
        """A part of the sequences, by a mask or indices; the table stays shared."""
        names = ("index", "label", "weight", "time_s", "flight", "piece")
        further = None if self.further is None else self.further[chosen]
        return replace(self, further=further, **{name: getattr(self, name)[chosen] for name in names})

    def inputs(self, chosen: Any = slice(None)) -> dict[str, np.ndarray]:
        """What the network takes: frames (n,T,H,W,C), sun_angles_deg (n,T,2), features (n,T,F), geometry (n,T,9)."""
        return self._of_frames(self.index[chosen])

    def _of_frames(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = {"frames": self.table[rows]}
        if self.sun_angles_deg is not None:
            found["sun_angles_deg"] = self.sun_angles_deg[rows]
        if self.features.shape[1]:
            found["features"] = self.features[rows]
        if self.sight is not None and self.sight.network_input:
            found["geometry"] = self.sight.inputs(rows)
        return found

    def shared_inputs(self, chosen: Any = slice(None), run: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The same with each frame once: what a network of `models.share_frames` takes.

        frames (F,H,W,C), sun_angles_deg (F,2), features (F,·), geometry (F,9), chosen_frames (n,T) of them. Sequences
        share frames within a `run` (n,) only; without it, all do.
        """
        index = self.index[chosen]  # (n,T)
        key = index if run is None else index + run[:, None] * len(self.table)
        wanted, place = np.unique(key, return_inverse=True)
        found = self._of_frames(wanted % len(self.table))
        return {**found, "chosen_frames": place.reshape(index.shape).astype("int32")}

    def rows_at_once(self, budget_bytes: int = 2**26) -> int:
        """How many frames fit into about 64 MB of work."""
        return max(budget_bytes // max(int(np.prod(self.table.shape[1:])) * 8, 1), 1)

    @property
    def known(self) -> np.ndarray:
        """(n,) or (n,P) bool: where there is a label."""
        return self.weight > 0

    @property
    def group(self) -> np.ndarray:
        """(n,) the flight of each sequence."""
        return self.flight

    @property
    def group_names(self) -> tuple[str, ...]:
        """The flights."""
        return self.flight_names

    @property
    def segment(self) -> np.ndarray:
        """(n,) rising numbers of the gap-free segments, counted over all flights."""
        return np.cumsum(np.r_[0, (np.diff(self.flight) != 0) | (np.diff(self.piece) != 0)])

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.table.shape[1:]

    @property
    def geometry(self) -> dict[str, Any]:
        """What a network is built for."""
        return {"frame_shape": list(self.frame_shape), "nadir": list(self.nadir)}

    @property
    def batch_size(self) -> int:
        """Fewer sequences of large frames: their feature maps take many times the memory of the frames."""
        return int(np.clip(self.rows_at_once() // self.index.shape[1], 1, MOST_SEQUENCES))

    def keys(self) -> dict[str, np.ndarray]:
        """Flight and time of each sequence."""
        return {"time_s": self.time_s, "flight": np.asarray(self.flight_names)[self.flight]}

    def training_frames(self) -> Iterator[np.ndarray]:
        """Every frame once, however many sequences hold it, in chunks (k,H,W,C)."""
        rows = np.unique(self.index)
        for chunk in np.array_split(rows, len(rows) // self.rows_at_once() + 1):
            yield self.table[chunk]

    def frame_features(self) -> np.ndarray:
        """(k,F) of the same frames."""
        return self.features[np.unique(self.index)]

    def further_labels(self) -> np.ndarray:
        """(n,E) of the further targets."""
        return np.zeros((len(self), 0)) if self.further is None else self.further

    def radiance_at_labels(self) -> np.ndarray:
        """(n,C) around nadir in the middle frames."""
        rows, columns = (slice(max(i - 1, 0), i + 2) for i in self.nadir)
        middle = self.index[:, self.index.shape[1] // 2]
        return self.table[middle, rows, columns].mean(axis=(1, 2))

    def blocks(self, block_s: float) -> np.ndarray:
        """(n,) `block_s` seconds of track, ending at gaps and flights."""
        return block_ids(self.time_s, self.flight, self.piece, block_s)

    def effective_size(self, target: np.ndarray) -> float:
        """By the autocorrelation of the labels along each flight."""
        return effective_size(target, self.flight)

    def augmentation(self, config: Config, heights: Mapping[int, tuple[float, float]]) -> SequenceAugmentation:
        """Mirror images about nadir, gain and noise; shifts of heights."""
        rows = np.unique(self.index)
        rows = rows[:: max(len(rows) // self.rows_at_once(), 1)]
        frame_std = self.table[rows].std(axis=(0, 1, 2), dtype="float64")  # of raw radiance: the unit of the noise
        top_km = 0.0 if self.sight is None else float(self.sight.height_km[-1])
        return SequenceAugmentation(
            config.augmentation, self.nadir, frame_std, config.data.camera.across_track_axis, heights, top_km
        )

    def baseline_features(self, log_offset: float | None) -> dict[str, np.ndarray]:
        """Image statistics, sine and cosine of the sun's angles, and the features of the middle frame, (n,S)."""
        chunks, middle = [], self.index.shape[1] // 2
        for first in range(0, len(self), self.rows_at_once()):
            index = self.index[first : first + self.rows_at_once()]  # (k,T)
            columns = image_statistics(self.table[index], self.nadir, log_offset)
            if self.sun_angles_deg is not None:
                angles = np.deg2rad(self.sun_angles_deg[index[:, middle]])
                columns += [*np.sin(angles).T, *np.cos(angles).T]
            chunks.append(np.stack([*columns, *self.features[index[:, middle]].T], axis=1))
        found = {"image_statistics": np.concatenate(chunks).astype("float32")}
        swept = self.swept()
        return found if swept is None else {**found, "plane_sweep": swept[0][:, None]}

    def swept(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The height of the cloud at nadir by geometry alone, km, and how well frames agree there, (n,) each.

        None where the geometry is unknown, or nothing can be compared.
        """
        if self.sight is None or self.index.shape[1] < 2:
            return None
        found = np.full((2, len(self)), np.nan)
        for first in range(0, len(self), MOST_SEQUENCES):
            here = slice(first, first + MOST_SEQUENCES)
            index = self.index[here]
            frames, nadir = self.sight.axes.upright(self.table[index], self.nadir)
            found[:, here] = sweep(frames, self.sight.geometry[index], nadir, self.sight.height_km)
        return (found[0], found[1]) if np.isfinite(found[0]).any() else None


def build_samples(
    flights: list[Flight], config: Config, progress: Progress | None = None
) -> tuple[Samples, dict[str, dict[str, int]]]:
    """All sequences of the flights, in order of flight and time, and what was left out of each flight, by reason."""
    windows = labelled_windows(flights, config)
    table = table_of(flights, [windows], config, progress)
    return samples_of_table(flights, windows, table, config), counts_of(flights, windows, table)


def labelled_windows(flights: list[Flight], config: Config) -> dict[str, np.ndarray]:
    """Flight -> (n,T) frame indices around each labelled frame. Raises `DataError` for a flight without any."""
    check_same_frames(flights)
    found = {flight.name: sequences(flight, config) for flight in flights}
    for flight in flights:
        with of_flight(flight.name):
            check_sequences(flight, found[flight.name], config)
    return found


def table_of(
    flights: list[Flight], windows: Sequence[Mapping[str, np.ndarray]], config: Config, progress: Progress | None = None
) -> FrameTable:
    """Every frame of some windows, decoded once."""
    frames = {f.name: [each[f.name].ravel() for each in windows if f.name in each] for f in flights}
    wanted = {name: np.unique(np.concatenate(found)) for name, found in frames.items()}
    return build_table(flights, wanted, config.data, progress)


def counts_of(flights: list[Flight], windows: Mapping[str, np.ndarray], table: FrameTable) -> dict[str, dict[str, int]]:
    """Flight -> what was left out of it, by reason. Raises `DataError` where nothing is left."""
    return {flight.name: _counted(flight, windows[flight.name], table) for flight in flights}


def _counted(flight: Flight, windows: np.ndarray, table: FrameTable) -> dict[str, int]:
    """What was left out of a flight, by reason. Raises `DataError` where nothing is left."""
    good = ~table.bad[table.index(flight.name, windows)].any(axis=1)
    if not good.any():
        raise FlightError(
            flight.name,
            f"{flight.camera_path}: every labelled sequence of flight {flight.name} has a black, saturated or "
            "non-finite frame. Check data.camera.channels, saturation and bad_pixel_fraction.",
        )
    bad_frames = int(table.bad[table.index(flight.name, np.unique(windows))].sum())
    return {
        **flight.counts,
        "frames black, saturated or not finite": bad_frames,
        "sequences left out for them": int((~good).sum()),
        "sequences": int(good.sum()),
    }


def samples_of_table(
    flights: list[Flight], windows: Mapping[str, np.ndarray], table: FrameTable, config: Config
) -> Samples:
    """The sequences `windows` (n,T) of each flight whose frames are all good; labels are those of the middle frames."""
    parts = []
    for number, flight in enumerate(flights):
        index = table.index(flight.name, windows[flight.name])  # (n,T)
        good = ~table.bad[index].any(axis=1)
        middle = windows[flight.name][good, index.shape[1] // 2]
        which = np.full(len(middle), number)
        further = np.zeros((len(flight), 0)) if flight.further is None else flight.further
        labels = (flight.label[middle], further[middle])
        parts.append((index[good], *labels, flight.time_s[middle], which, flight.piece[middle]))
    index, label, further, time_s, which, piece = (np.concatenate(column) for column in zip(*parts, strict=True))
    named = [number for number, flight in enumerate(flights) if flight.name in config.overweight.flights]
    return Samples(
        table=table.radiance,
        sun_angles_deg=_per_frame(flights, table.frames, "sun_angles_deg") if config.data.sun_angles else None,
        features=_per_frame(flights, table.frames, "features"),
        index=index,
        label=label,
        weight=overweight(label, np.isin(which, named), config),
        time_s=time_s,
        flight=which,
        piece=piece,
        flight_names=tuple(flight.name for flight in flights),
        nadir=nadir_pixel(flights[0].frame_shape, config.data),
        sight=sight_of(flights, table.frames, config.data),
        further=further if further.shape[1] else None,
    )


def sight_of(flights: Sequence[Flight], frames: Mapping[str, np.ndarray], data: Data) -> Sight | None:
    """From where these frames of the flights were taken; None where the geometry of one flight is unknown."""
    known = []
    for flight in flights:
        if flight.motion.columns is not None:
            rows = flight.motion.columns[frames[flight.name]]
            rows[:, TIME] -= flight.time_s[0]
            known.append(rows)
    if len(known) < len(flights) or data.geometry is None:
        return None
    height = heights_km(data.geometry.sweep_top_km, data.geometry.sweep_step_km)
    return Sight(np.concatenate(known), axes_of(data, data.geometry), height, data.geometry.network_input)


def check_same_frames(flights: list[Flight]) -> None:
    """Refuse flights whose frames differ in shape, or that share a camera file. Raises `DataError`."""
    shapes = {flight.name: flight.frame_shape for flight in flights}
    if len(set(shapes.values())) > 1:
        text = f"flights differ in frame shape (rows, columns, channels): {shapes}. Slice them to one shape."
        usual = Counter(shapes.values()).most_common(1)[0][0]
        raise FlightError(next(name for name, shape in shapes.items() if shape != usual), text)
    seen: dict[str, Flight] = {}
    for flight in flights:
        with of_flight(flight.name):
            content = camera_fingerprint(flight.camera_path)  # not the path: a copy or a link leaks as well
        if content in seen:
            first = seen[content]
            raise DataError(
                f"flights {first.name} and {flight.name} have the same camera file, {first.camera_path} and "
                f"{flight.camera_path}: it would leak. Take one of them out of the split."
            )
        seen[content] = flight


def check_sequences(flight: Flight, windows: np.ndarray, config: Config) -> None:
    """Refuse a flight without a labelled sequence. Raises `DataError` that says where they were lost."""
    if len(windows):
        return
    if not np.isfinite(flight.label).any():
        raise DataError(f"{flight.camera_path.parent}: flight {flight.name} has {_no_label(flight, config)}")
    longest, apart_s = int(np.bincount(flight.piece).max()), config.frame_spacing_s
    if apart_s is not None and not (frames_around(flight, config) >= 0).all(axis=1).any():
        interval_s = float(np.median(np.diff(flight.time_s))) if len(flight) > 1 else np.nan
        raise DataError(
            f"{flight.camera_path}: no frame of flight {flight.name} has temporal_frames = {config.temporal_frames} "
            f"frames around it that are frame_spacing_s = {apart_s:g} s apart, without a gap. Its frames are "
            f"{interval_s:.3g} s apart, and {longest} are in its longest piece. Set frame_spacing_s to a multiple of "
            "that interval, or to null; or lower temporal_frames."
        )
    if longest >= config.temporal_frames:
        raise DataError(
            f"{flight.camera_path}: no labelled frame of flight {flight.name} has temporal_frames = "
            f"{config.temporal_frames} frames around it without a gap, all with sun angles and features. "
            f"{_in_words(flight.counts)}. Check the navigation file (data.sun_angles, data.navigation), data.features "
            "and data.camera.max_gap_s."
        )
    raise DataError(
        f"{flight.camera_path}: no labelled sequence of temporal_frames = {config.temporal_frames} fits into flight "
        f"{flight.name}, whose longest piece without a gap has {longest} frames. Lower temporal_frames, or set "
        "data.camera.max_gap_s."
    )


def _no_label(flight: Flight, config: Config) -> str:
    """Where the labels of a flight without any were lost, and what can be done."""
    unusable, some = flight.counts.get("profiles without a usable value", 0), ("labelled", "out of range")
    end = "or leave the flight out of the split."
    if unusable and not any(flight.counts.get(f"profiles {which}") for which in some):
        key = config.target.quantity.lidar
        return (
            f"no label for {config.target.name}: data.lidar.{key} '{getattr(config.data.lidar, key)}' holds no usable "
            f"value in {unusable} profiles with cloud, only fill values, negative or infinite ones; "
            f"{config.target.name} cannot be trained. Check data.lidar.{key}, choose another target.name, {end}"
        )
    return (
        f"no label for {config.target.name} between {config.target.limits}: {_in_words(flight.counts)}. "
        f"Check data.lidar and target.minimum, target.maximum, {end}"
    )


def _in_words(counts: Mapping[str, int]) -> str:
    """Counts by reason, without those that are 0."""
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)


def _per_frame(flights: list[Flight], wanted: dict[str, np.ndarray], name: str) -> np.ndarray:
    return np.concatenate([getattr(flight, name)[wanted[flight.name]] for flight in flights]).astype("float32")


def nadir_pixel(frame_shape: tuple[int, int, int], data: Data) -> tuple[int, int]:
    """(row, column) of the lidar's spot in frames of shape (H, W, C), with the boresight offset."""
    height, width, _ = frame_shape
    row, column = data.camera.nadir or (height // 2, width // 2)
    row, column = row + data.camera.boresight_offset[0], column + data.camera.boresight_offset[1]
    if not (0 <= row < height and 0 <= column < width):
        raise DataError(
            f"data.camera.nadir with boresight_offset is ({row}, {column}), outside of a frame of {height} x {width}."
        )
    return row, column
