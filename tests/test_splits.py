"""Parts of a split: who is in which, what is refused, and that a planted leak is caught."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import START_S, tiny_config, write_flight, write_three_flights
from pydantic import ValidationError

from cloudml_tf.config.data import FlightSplit, LeaveOneOut, TimeBlocks
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.samples import Samples, build_samples
from cloudml_tf.data.sources import available_flights, read_flights
from cloudml_tf.data.splits import PARTS, check_leak, flights_needed, split_samples
from cloudml_tf.utils.errors import DataError

NAMES = ("a", "b", "c", "d")
SECONDS = START_S + np.arange(200)


def build(home: Path, **changes: Any) -> Samples:
    config = tiny_config(home, changes)
    files = available_flights(config)
    return build_samples(read_flights(files, sorted(files), config), config)[0]


def long_flight(home: Path) -> Samples:
    """One flight of 200 frames, each with a label; sequences of three."""
    write_flight(home / "flights" / "a", frame_s=SECONDS, profile_s=SECONDS)
    return build(home)


# --- who is in which part


def test_flights_by_name() -> None:
    split = FlightSplit(train=("d", "a"), val=("b",), test=("c",))
    assert flights_needed(split, NAMES) == {"train": ["d", "a"], "val": ["b"], "test": ["c"]}


@pytest.mark.parametrize(
    ("split", "train", "val"),
    [
        (LeaveOneOut(test="b"), ["a", "d"], ["c"]),
        (LeaveOneOut(test="d"), ["b", "c"], ["a"]),  # the next one is cyclic
        (LeaveOneOut(test="b", val="a"), ["c", "d"], ["a"]),
        (LeaveOneOut(test="b", exclude=("c",)), ["a"], ["d"]),
        (LeaveOneOut(test="d", exclude=("a",)), ["c"], ["b"]),
    ],
)
def test_leave_one_out(split: LeaveOneOut, train: list[str], val: list[str]) -> None:
    assert flights_needed(split, NAMES) == {"train": train, "val": val, "test": [split.test]}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            FlightSplit(train=("a", "flight7"), val=("b",), test=("c",)),
            r"split\.train names flight 'flight7'; .*'flight1'",
        ),
        (FlightSplit(train=("a",), val=("b",), test=("flight_1",)), r"split\.test names .*Did you mean 'flight1'\?"),
        (
            LeaveOneOut(test="fligth1"),
            r"split\.test names flight 'fligth1'; the flights are .*Did you mean 'flight1'\?",
        ),
        (LeaveOneOut(test="a", val="z"), r"split\.val names flight 'z'; the flights are a, b, c, flight1\.$"),
        (LeaveOneOut(test="a", exclude=("flihgt1",)), r"split\.exclude names .*Did you mean 'flight1'\?"),
    ],
)
def test_a_missing_flight_is_told_with_the_nearest_name(split: FlightSplit | LeaveOneOut, message: str) -> None:
    with pytest.raises(DataError, match=message):
        flights_needed(split, ("a", "b", "c", "flight1"))


def test_leave_one_out_needs_three_flights() -> None:
    with pytest.raises(DataError, match=r"needs three flights or more\. Received: a, b\..*time_blocks"):
        flights_needed(LeaveOneOut(test="a"), ("a", "b"))


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "flights", "train": ["a"], "val": ["a"], "test": ["b"]},
        {"kind": "flights", "train": ["a", "a"], "val": ["c"], "test": ["b"]},
    ],
)
def test_a_flight_named_twice_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="named twice: a"):
        FlightSplit.model_validate(content)


@pytest.mark.parametrize("content", [{"test": "a", "val": "a"}, {"test": "a", "exclude": ["a"]}])
def test_test_val_and_exclude_must_differ(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must name different flights"):
        LeaveOneOut.model_validate(content)


# --- samples


def test_whole_flights_go_to_their_parts(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    samples = build(tmp_path)
    parts = split_samples(samples, FlightSplit(train=("c",), val=("a",), test=("b",)))
    assert {part: set(chosen.flight.tolist()) for part, chosen in parts.items()} == {
        "train": {2},
        "val": {0},
        "test": {1},
    }
    assert sum(len(chosen) for chosen in parts.values()) == len(samples)


def test_time_blocks_are_in_order_with_the_gap_between_every_two(tmp_path: Path) -> None:
    samples = long_flight(tmp_path)
    parts = split_samples(samples, TimeBlocks(val_fraction=0.2, test_fraction=0.3, gap_s=10.0))
    # Middles at 1 to 198 s; cuts at 1 + 0.5 * 197 = 99.5 s and 1 + 0.7 * 197 = 138.9 s, 5 s left out on either side.
    expected = {"train": (1, 94), "val": (105, 133), "test": (144, 198)}
    found = {part: (p.time_s.min() - START_S, p.time_s.max() - START_S) for part, p in parts.items()}
    assert found == expected


@pytest.mark.parametrize("seed", range(5))
def test_time_blocks_cut_every_flight_and_never_leak_with_a_gap(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number, name in enumerate("abc"):
        frame_s = START_S + np.cumsum(np.where(rng.random(200) < 0.05, 20.0, 1.0))
        write_flight(tmp_path / "flights" / name, seed=number, frame_s=frame_s, profile_s=frame_s)
    gap_s = float(rng.uniform(5.0, 30.0))
    parts = split_samples(build(tmp_path), TimeBlocks(gap_s=gap_s))
    for number in range(3):
        bounds = [parts[part].time_s[parts[part].flight == number] for part in PARTS]
        assert all(len(times) for times in bounds)
        assert bounds[1].min() - bounds[0].max() >= gap_s
        assert bounds[2].min() - bounds[1].max() >= gap_s


# --- leaks


def test_time_blocks_without_a_gap_share_frames_and_are_refused(tmp_path: Path) -> None:
    samples = long_flight(tmp_path)
    with pytest.raises(DataError, match=r"leak: \d+ frames of flight a are in both the train and the val split.*gap"):
        split_samples(samples, TimeBlocks(gap_s=0.0))


def test_a_planted_overlap_of_one_frame_is_caught(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    parts = split_samples(build(tmp_path), FlightSplit(train=("a",), val=("b",), test=("c",)))
    check_leak(parts)
    index = parts["test"].index.copy()
    index[3, 0] = parts["train"].index[5, 2]
    with pytest.raises(DataError, match=r"leak: 1 frames of flight c are in both the train and the test split"):
        check_leak({**parts, "test": replace(parts["test"], index=index)})


def test_a_copied_flight_in_another_part_is_caught_by_the_whole_pipeline(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights", seed=5)
    with pytest.raises(DataError, match=r"flights a and b have the same camera file"):
        prepare(tiny_config(tmp_path))


# --- parts that cannot be used


def test_a_part_of_one_sequence_is_refused(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    write_flight(tmp_path / "flights" / "b", seed=1, label=[1.0] + [np.nan] * 9)
    with pytest.raises(DataError, match=r"the val split has 1 labelled sequences; it needs 2 or more"):
        prepare(tiny_config(tmp_path))


def test_an_empty_time_block_is_refused(tmp_path: Path) -> None:
    samples = long_flight(tmp_path)
    with pytest.raises(DataError, match="the val split has 0 labelled sequences"):
        split_samples(samples, TimeBlocks(gap_s=60.0))


@pytest.mark.parametrize("constant", ["a", "b", "c"])
def test_constant_labels_of_a_part_are_refused(tmp_path: Path, constant: str) -> None:
    write_three_flights(tmp_path / "flights")
    write_flight(tmp_path / "flights" / constant, seed="abc".index(constant), label=np.full(10, 0.7))
    part = dict(zip("abc", PARTS, strict=True))[constant]
    with pytest.raises(DataError, match=rf"all 10 labels of the {part} split are 0\.7: nothing can be learned"):
        prepare(tiny_config(tmp_path))
