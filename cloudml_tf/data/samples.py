"""Sequences of frames with a label: what a network, a baseline and a score all work on."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cloudml_tf.config.data import Data
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import FrameTable, build_table, camera_fingerprint
from cloudml_tf.utils.errors import DataError, FlightError, of_flight


@dataclass(frozen=True)
class Samples:
    """n sequences of T frames. Frames lie in a shared table of M; a sequence is a row of indices into it."""

    table: np.ndarray  # (M, H, W, C) radiance
    sun_angles_deg: np.ndarray | None  # (M, 2)
    features: np.ndarray  # (M, F)
    index: np.ndarray  # (n, T) rows of the table
    label: np.ndarray  # (n,) of the middle frame, in the target's own unit
    weight: np.ndarray  # (n,)
    time_s: np.ndarray  # (n,) of the middle frame
    flight: np.ndarray  # (n,) index into flight_names
    piece: np.ndarray  # (n,) gap-free piece within the flight
    flight_names: tuple[str, ...]
    nadir: tuple[int, int]  # (row, column) of the lidar's footprint

    def __len__(self) -> int:
        return len(self.label)

    def take(self, chosen: np.ndarray) -> "Samples":
        """A part of the sequences, by a mask or indices; the table stays shared."""
        names = ("index", "label", "weight", "time_s", "flight", "piece")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def inputs(self, chosen: Any = slice(None)) -> dict[str, np.ndarray]:
        """What the network takes: frames (n,T,H,W,C), sun_angles_deg (n,T,2), features (n,T,F)."""
        index = self.index[chosen]
        found = {"frames": self.table[index]}
        if self.sun_angles_deg is not None:
            found["sun_angles_deg"] = self.sun_angles_deg[index]
        if self.features.shape[1]:
            found["features"] = self.features[index]
        return found

    def shared_inputs(self, chosen: Any = slice(None), run: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The same with each frame once: what a network of `models.share_frames` takes.

        frames (F,H,W,C), sun_angles_deg (F,2), features (F,·), chosen_frames (n,T) of these frames. Sequences
        share frames within a `run` (n,) only; without it, all do.
        """
        index = self.index[chosen]  # (n,T)
        key = index if run is None else index + run[:, None] * len(self.table)
        wanted, place = np.unique(key, return_inverse=True)
        rows = wanted % len(self.table)
        found = {"frames": self.table[rows], "chosen_frames": place.reshape(index.shape).astype("int32")}
        if self.sun_angles_deg is not None:
            found["sun_angles_deg"] = self.sun_angles_deg[rows]
        if self.features.shape[1]:
            found["features"] = self.features[rows]
        return found

    def rows_at_once(self, budget_bytes: int = 2**26) -> int:
        """How many frames fit into a piece of work of about 64 MB."""
        return max(budget_bytes // max(int(np.prod(self.table.shape[1:])) * 8, 1), 1)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.table.shape[1:]


def sequences(flight: Flight, temporal_frames: int) -> np.ndarray:
    """(n, T) frame indices around each labelled frame: no gap inside, every frame with its angles and features."""
    return sequences_around(flight, np.flatnonzero(np.isfinite(flight.label)), temporal_frames)


def sequences_around(flight: Flight, middle: np.ndarray, temporal_frames: int) -> np.ndarray:
    """(n, T) frame indices around those of the given frames (m,) where a whole sequence is."""
    half = temporal_frames // 2
    middle = middle[(middle >= half) & (middle + half < len(flight))]
    found = middle[:, None] + np.arange(-half, half + 1)[None, :]  # (n,T)
    whole = flight.piece[found[:, 0]] == flight.piece[found[:, -1]]
    return found[whole & known_inputs(flight)[found].all(axis=1)]


def known_inputs(flight: Flight) -> np.ndarray:
    """(N,) whether a frame has its sun angles and features."""
    known: np.ndarray = np.isfinite(flight.features).all(axis=1)
    return known if flight.sun_angles_deg is None else known & np.isfinite(flight.sun_angles_deg).all(axis=1)


def build_samples(
    flights: list[Flight], config: Config, progress: Callable[[int, int], None] | None = None
) -> tuple[Samples, dict[str, dict[str, int]]]:
    """All sequences of the flights, in order of flight and time, and what was left out of each flight, by reason."""
    check_same_frames(flights)
    found = {flight.name: sequences(flight, config.temporal_frames) for flight in flights}
    for flight in flights:
        with of_flight(flight.name):
            check_sequences(flight, found[flight.name], config)
    wanted = {name: np.unique(windows) for name, windows in found.items()}
    table = build_table(flights, wanted, config.data, progress)
    counts = {flight.name: _counted(flight, found[flight.name], table) for flight in flights}
    return samples_of_table(flights, found, table, config), counts


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
    flights: list[Flight], windows: dict[str, np.ndarray], table: FrameTable, config: Config
) -> Samples:
    """The sequences `windows` (n,T) of each flight whose frames are all good; labels are those of the middle frames."""
    parts = []
    for number, flight in enumerate(flights):
        index = table.index(flight.name, windows[flight.name])  # (n,T)
        good = ~table.bad[index].any(axis=1)
        middle = windows[flight.name][good, index.shape[1] // 2]
        which = np.full(len(middle), number)
        parts.append((index[good], flight.label[middle], flight.time_s[middle], which, flight.piece[middle]))
    index, label, time_s, which, piece = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Samples(
        table=table.radiance,
        sun_angles_deg=_per_frame(flights, table.frames, "sun_angles_deg") if config.data.sun_angles else None,
        features=_per_frame(flights, table.frames, "features"),
        index=index,
        label=label,
        weight=_weights(label, which, flights, config),
        time_s=time_s,
        flight=which,
        piece=piece,
        flight_names=tuple(flight.name for flight in flights),
        nadir=nadir_pixel(flights[0].frame_shape, config.data),
    )


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
        lost = {reason: count for reason, count in flight.counts.items() if count}
        raise DataError(
            f"{flight.camera_path.parent}: flight {flight.name} has no label for {config.target.name} "
            f"between {config.target.minimum} and {config.target.maximum}. Counts: {lost}. "
            "Check data.lidar and target.minimum, target.maximum, or leave the flight out of the split."
        )
    longest = int(np.bincount(flight.piece).max())
    if longest >= config.temporal_frames:
        raise DataError(
            f"{flight.camera_path}: no labelled frame of flight {flight.name} has temporal_frames = "
            f"{config.temporal_frames} frames around it without a gap, all with sun angles and features. "
            f"Counts: {flight.counts}. Check the navigation file (data.sun_angles, data.navigation), data.features "
            "and data.camera.max_gap_s."
        )
    raise DataError(
        f"{flight.camera_path}: no labelled sequence of temporal_frames = {config.temporal_frames} fits into flight "
        f"{flight.name}, whose longest piece without a gap has {longest} frames. Lower temporal_frames, or set "
        "data.camera.max_gap_s."
    )


def _per_frame(flights: list[Flight], wanted: dict[str, np.ndarray], name: str) -> np.ndarray:
    return np.concatenate([getattr(flight, name)[wanted[flight.name]] for flight in flights]).astype("float32")


def _weights(label: np.ndarray, which: np.ndarray, flights: list[Flight], config: Config) -> np.ndarray:
    """1, or `overweight.factor` for high labels and named flights."""
    rule = config.overweight
    chosen = np.isin(which, [n for n, flight in enumerate(flights) if flight.name in rule.flights])
    if rule.threshold is not None:
        chosen |= label >= rule.threshold
    return np.where(chosen, rule.factor, 1.0).astype("float32")


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
