"""All frames of the training and validation flights, labelled or not, for pretraining. Never one of the test split."""

from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.data import TimeBlocks
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import Progress, build_table
from cloudml_tf.data.samples import sequences
from cloudml_tf.data.splits import PARTS, block_spans
from cloudml_tf.utils.errors import DataError


@dataclass(frozen=True)
class FrameChunks:
    """Sequences of T frames that follow one another without overlap, so that every frame is used once per epoch."""

    table: np.ndarray  # (M,H,W,C) radiance
    index: np.ndarray  # (n,T) rows of the table
    flights: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)

    def frames(self, chosen: np.ndarray) -> np.ndarray:
        """The frames of chosen sequences, (k,T,H,W,C)."""
        return self.table[self.index[chosen]]


def chunks(flight: Flight, temporal_frames: int) -> np.ndarray:
    """Cut a flight into (n,T) frame indices, gap-free; the last chunk of a segment overlaps its neighbour where T does
    not divide it."""
    found = []
    for piece in np.unique(flight.piece):
        frames = np.flatnonzero(flight.piece == piece)
        if len(frames) < temporal_frames:
            continue
        starts = [*range(0, len(frames) - temporal_frames + 1, temporal_frames)]
        if starts[-1] + temporal_frames < len(frames):
            starts.append(len(frames) - temporal_frames)
        found.append(frames[np.asarray(starts)[:, None] + np.arange(temporal_frames)[None, :]])
    return np.concatenate(found) if found else np.zeros((0, temporal_frames), int)


def frame_chunks(
    flights: list[Flight], needed: dict[str, list[str]], config: Config, progress: Progress | None = None
) -> dict[str, FrameChunks]:
    """Chunks of `train` (with `pretraining.extra_flights`) and `val`. Raises `DataError` where a split has none."""
    cut = {flight.name: _by_part(flight, needed, config) for flight in flights}
    wanted = {name: np.unique(np.concatenate([c.ravel() for c in parts.values()])) for name, parts in cut.items()}
    table = build_table(flights, wanted, config.data, progress)
    found = {}
    for part in ("train", "val"):
        rows = {name: table.index(name, parts[part]) for name, parts in cut.items() if len(parts[part])}
        index = np.concatenate(list(rows.values())) if rows else np.zeros((0, config.temporal_frames), int)
        index = index[~table.bad[index].any(axis=1)]
        if not len(index):
            raise DataError(
                f"the {part} split has no gap-free sequence of temporal_frames = {config.temporal_frames} good frames "
                "to pretrain on. Check data.camera.max_gap_s and the split, or lower temporal_frames."
            )
        found[part] = FrameChunks(table.radiance, index, tuple(rows))
    return found


def _by_part(flight: Flight, needed: dict[str, list[str]], config: Config) -> dict[str, np.ndarray]:
    """A flight's chunks of the two splits; frames near a test sequence are left out of a split in time."""
    found = chunks(flight, config.temporal_frames)
    if not isinstance(config.split, TimeBlocks):
        names = {"train": (*needed["train"], *config.pretraining.extra_flights), "val": needed["val"]}
        return {part: found if flight.name in wanted else found[:0] for part, wanted in names.items()}
    labelled = sequences(flight, config)
    middle_s = flight.time_s[labelled[:, labelled.shape[1] // 2]]
    spans = block_spans(middle_s, config.split)
    first, last = flight.time_s[found[:, 0]], flight.time_s[found[:, -1]]
    apart = ~np.isin(found, labelled[middle_s > spans["test"][0]]).any(axis=1)
    return {p: found[apart & (first > spans[p][0]) & (last < spans[p][1])] for p in ("train", "val")}


def check_extra_flights(config: Config, needed: dict[str, list[str]], available: list[str]) -> None:
    """Refuse extra flights that do not exist, or that the split uses. Raises `DataError`."""
    used = {name for part in PARTS for name in needed[part]}
    for name in config.pretraining.extra_flights:
        if name not in available or name in used:
            problem = "is a flight of the split" if name in used else f"is not among {', '.join(available)}"
            raise DataError(f"pretraining.extra_flights: '{name}' {problem}. Name flights outside the split.")
