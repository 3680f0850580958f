"""Training, validation and test splits, and the check that no frame is in two of them."""

import difflib
import itertools
from collections.abc import Sequence

import numpy as np

from cloudml_tf.config.data import Data, FlightSplit, LeaveOneOut, TimeBlocks
from cloudml_tf.data.samples import Samples
from cloudml_tf.utils.errors import DataError

PARTS = ("train", "val", "test")


def flights_needed(split: FlightSplit | LeaveOneOut | TimeBlocks, available: Sequence[str]) -> dict[str, list[str]]:
    """The flights of each split. Raises `DataError` where the configuration names one that does not exist."""
    names = sorted(available)
    if isinstance(split, TimeBlocks):
        return dict.fromkeys(PARTS, names)
    if isinstance(split, FlightSplit):
        wanted = {part: list(getattr(split, part)) for part in PARTS}
    else:
        kept = [name for name in names if name not in split.exclude]
        _check_names(split.exclude, names, "split.exclude")
        _check_names([split.test], kept, "split.test")
        _check_names([split.val] if split.val else [], kept, "split.val")
        val = split.val or kept[(kept.index(split.test) + 1) % len(kept)]
        train = [name for name in kept if name not in (split.test, val)]
        wanted = {"train": train, "val": [val], "test": [split.test]}
        if not train or val == split.test:
            raise DataError(
                f"split leave_one_out needs three flights or more. Received: {', '.join(kept)}. Add flights, or cut "
                "each in time with split.kind 'time_blocks'."
            )
    for part in PARTS:
        _check_names(wanted[part], names, f"split.{part}")
    return wanted


def split_samples(
    samples: Samples, split: FlightSplit | LeaveOneOut | TimeBlocks, needed: dict[str, list[str]] | None = None
) -> dict[str, Samples]:
    """The three splits. Raises `DataError` for an empty split, a constant target or a leak.

    `needed` is the result of `flights_needed` for all flights, where the samples are of fewer.
    """
    parts = cut_samples(samples, split, needed)
    for part, chosen in parts.items():
        check_labels(chosen, f"the {part} split")
    check_leak(parts)
    return parts


def cut_samples(
    samples: Samples, split: FlightSplit | LeaveOneOut | TimeBlocks, needed: dict[str, list[str]] | None = None
) -> dict[str, Samples]:
    """The three splits without a check; a training uses `split_samples`."""
    if isinstance(split, TimeBlocks):
        masks = _time_masks(samples, split)
    else:
        needed = needed or flights_needed(split, samples.flight_names)
        numbers = {name: n for n, name in enumerate(samples.flight_names)}
        chosen = {part: [numbers[name] for name in needed[part] if name in numbers] for part in PARTS}
        masks = {part: np.isin(samples.flight, wanted) for part, wanted in chosen.items()}
    return {part: samples.take(mask) for part, mask in masks.items()}


def keep_labels(parts: dict[str, Samples], data: Data, seed: int) -> dict[str, Samples]:
    """Reduce the splits to as many training and validation labels as `data.labels` and `data.val_labels` allow.

    A split is in order of flight and time. It is cut into n runs of equal length, give or take a label, and one label
    of each is drawn: even in time, and different for another seed. The test split stays complete.
    """
    wanted = {"train": ("data.labels", data.labels), "val": ("data.val_labels", data.val_labels)}
    kept = dict(parts)
    for number, (part, (field, count)) in enumerate(wanted.items()):
        if count is None or part not in parts:
            continue
        n, there = (round(count * len(parts[part])) if isinstance(count, float) else count), len(parts[part])
        if not 2 <= n <= there:
            raise DataError(f"{field} {count} is {n} labels; it must be 2 or more, and the {part} split has {there}.")
        rng = np.random.default_rng([seed, number])
        kept[part] = parts[part].take(np.array([rng.choice(run) for run in np.array_split(np.arange(there), n)]))
        check_labels(kept[part], f"the {part} split, of which {field} keeps {n} labels,")
    return kept


def check_labels(samples: Samples, what: str) -> None:
    """Refuse samples that cannot be learned or evaluated. Raises `DataError`; `what` names them."""
    if len(samples) < 2:
        raise DataError(
            f"{what} has {len(samples)} labelled sequences; it needs 2 or more. Give it more flights or time, or "
            "shorter sequences (temporal_frames)."
        )
    if np.ptp(samples.label) == 0:
        raise DataError(
            f"all {len(samples)} labels of {what} are {samples.label[0]:g}: nothing can be learned or evaluated. "
            "Check data.lidar and the target's name."
        )


def check_leak(parts: dict[str, Samples]) -> None:
    """Refuse splits that share a frame. Raises `DataError` naming the splits, the flights and how many frames."""
    for first, second in itertools.combinations(parts, 2):
        shared = np.intersect1d(parts[first].index, parts[second].index)
        if not len(shared):
            continue
        hit = np.isin(parts[second].index, shared).any(axis=1)
        flights = sorted({parts[second].flight_names[n] for n in parts[second].flight[hit]})
        raise DataError(
            f"leak: {len(shared)} frames of flight {', '.join(flights)} are in both the {first} and the {second} "
            "split. Split by flight, or set a gap of at least the length of a sequence."
        )


def _time_masks(samples: Samples, split: TimeBlocks) -> dict[str, np.ndarray]:
    """Cut each flight's time axis at two instants, with `gap_s` left out around each."""
    masks = {part: np.zeros(len(samples), bool) for part in PARTS}
    for number in np.unique(samples.flight):
        here = samples.flight == number
        spans = block_spans(samples.time_s[here], split)
        for part, (begin, end) in spans.items():
            masks[part] |= here & (samples.time_s > begin) & (samples.time_s < end)
    return masks


def block_spans(time_s: np.ndarray, split: TimeBlocks) -> dict[str, tuple[float, float]]:
    """The open time interval of each split of one flight, whose labelled frames are at `time_s`."""
    begin, end = time_s.min(), time_s.max()
    to_val = begin + (1.0 - split.val_fraction - split.test_fraction) * (end - begin)
    to_test = begin + (1.0 - split.test_fraction) * (end - begin)
    half = 0.5 * split.gap_s
    return {"train": (-np.inf, to_val - half), "val": (to_val + half, to_test - half), "test": (to_test + half, np.inf)}


def _check_names(wanted: Sequence[str], available: Sequence[str], field: str) -> None:
    for name in wanted:
        if name not in available:
            near = difflib.get_close_matches(name, available, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise DataError(f"{field} names flight '{name}'; the flights are {', '.join(available)}.{hint}")
