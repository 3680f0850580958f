"""`data.bad_flights`: a flight that is or turns bad is named; it ends the run, or is left out of it and counted."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import (
    SIGNAL,
    camera_file,
    images,
    lidar_file,
    navigation_file,
    tiny_config,
    write_config,
    write_flight,
    write_three_flights,
)

from cloudml_tf.commands.check import check
from cloudml_tf.commands.main import main
from cloudml_tf.config.schema import Config
from cloudml_tf.data import sources
from cloudml_tf.data.left_out import LeftOut, in_words
from cloudml_tf.data.prepare import prepare, prepare_frames
from cloudml_tf.data.readers import frames as frames_module
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.sources import samples_of
from cloudml_tf.train.batches import Batches
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError, FlightError

SPLIT = {"kind": "flights", "train": ["a", "d"], "val": ["b"], "test": ["c"]}
Spoil = Callable[[Path], Any]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Flights a to d; `a` is the one that goes bad."""
    write_three_flights(tmp_path / "flights")
    write_flight(tmp_path / "flights" / "d", seed=3)
    return tmp_path


def config_of(home: Path, mode: str, **changes: Any) -> Config:
    return tiny_config(home, {"split": SPLIT, "data.bad_flights": mode, **changes})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_frames(folder: Path) -> None:
    """The header is whole; the frames lie in a chunk that cannot be unpacked."""
    path = camera_file(folder)
    with h5py.File(path, "r+") as file:
        del file[SIGNAL]
        item = file.create_dataset(SIGNAL, data=images(), chunks=(10, 8, 10), compression="gzip")
        place = item.id.get_chunk_info(1)  # frames 10 to 19; the first and last frame are good
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\x00" * place.size)


def nothing_but_nan(folder: Path) -> None:
    with h5py.File(camera_file(folder), "r+") as file:
        del file[SIGNAL]
        file[SIGNAL] = np.full((40, 8, 10), np.nan)


FAULTS: dict[str, tuple[Spoil, str]] = {
    "camera removed": (lambda folder: camera_file(folder).unlink(), "there is no flight 'a'|names flight 'a'"),
    "lidar removed": (lambda folder: lidar_file(folder).unlink(), "no lidar file"),
    "navigation truncated": (lambda folder: truncate(navigation_file(folder)), "is truncated"),
    "frames damaged": (damage_frames, "'/?Product/Signal' cannot be read, the file is damaged"),
    "NaN": (nothing_but_nan, "every labelled sequence of flight a has a black, saturated or"),
    "another shape": (lambda folder: write_flight(folder, camera={SIGNAL: images(width=12)}), "differ in frame shape"),
    "no label": (lambda folder: write_flight(folder, label=np.full(10, np.nan)), "flight a has no label"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_flight_stops_or_is_left_out(home: Path, fault: str) -> None:
    spoil, why = FAULTS[fault]
    spoil(home / "flights" / "a")
    with pytest.raises(DataError, match=why) as caught:
        prepare(config_of(home, "stop"))
    assert "\n" not in str(caught.value)
    prepared = prepare(config_of(home, "skip"))
    assert list(prepared.left_out) == ["a"]
    described = prepared.description()
    assert described["left_out"].keys() == {"a"}
    assert described["split"]["train"]["flights"] == ["d"]
    assert sorted(described["files"]) == ["b", "c", "d"]
    alone = prepare(config_of(home, "skip", split={**SPLIT, "train": ["d"]}))
    assert alone.left_out == {}  # no part draws on it
    assert alone.fingerprint == prepared.fingerprint


def test_the_default_is_to_stop(home: Path) -> None:
    assert tiny_config(home).data.bad_flights == "stop"
    assert "left_out" not in prepare(config_of(home, "skip")).description()


def test_a_part_without_a_flight_is_an_error_that_says_why(home: Path) -> None:
    truncate(camera_file(home / "flights" / "b"))
    with pytest.raises(
        DataError, match=r"the val split has no flight left, data\.bad_flights 'skip' left out b: .*trunc"
    ):
        prepare(config_of(home, "skip"))


def test_no_flight_changes_its_part_for_another(home: Path) -> None:
    """The flight that validates is the one after the test flight, be the others there or not."""
    split = {"kind": "leave_one_out", "test": "b"}
    truncate(camera_file(home / "flights" / "a"))
    parts = prepare(config_of(home, "skip", split=split)).description()["split"]
    assert {part: found["flights"] for part, found in parts.items()} == {"train": ["d"], "val": ["c"], "test": ["b"]}
    truncate(camera_file(home / "flights" / "c"))
    with pytest.raises(DataError, match="the val split has no flight left"):
        prepare(config_of(home, "skip", split=split))


def going_bad(monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[], Any]) -> list[str]:
    """While the frames of a flight are read, something happens to its files. Returns the flights that were read."""
    read, seen = frames_module.read_frames, []

    def slowly(flight: Flight, wanted: np.ndarray, camera: Any) -> Iterator[Any]:
        if flight.name == name and name not in seen:
            spoil()
        seen.append(flight.name)
        return read(flight, wanted, camera)

    monkeypatch.setattr(frames_module, "read_frames", slowly)
    return seen


@pytest.mark.parametrize("how", ["removed", "truncated"])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_flight_that_turns_bad_while_it_is_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, how: str, mapped: bool
) -> None:
    camera = camera_file(home / "flights" / "a")
    act = camera.unlink if how == "removed" else lambda: truncate(camera)
    changes = {"data.memory_gb": 1e-9} if mapped else {}
    seen = going_bad(monkeypatch, "a", act)
    prepared = prepare(config_of(home, "skip", **changes))
    assert seen[0] == "a"
    assert seen.count("d") == 1  # all began again without it
    assert list(prepared.left_out) == ["a"]
    assert str(camera) in prepared.left_out["a"] or "no flight 'a'" in prepared.left_out["a"]
    assert list((home / "cache").glob(".writing*")) == []


def test_a_mapped_table_outlives_the_flights(home: Path) -> None:
    """What is being trained on lies in the cache: nothing is read from the flights after the start."""
    prepared = prepare(config_of(home, "stop", **{"data.memory_gb": 1e-9}))
    for folder in "abcd":
        camera_file(home / "flights" / folder).unlink()
    train = prepared.parts["train"]
    batches = Batches(train, train.label, 4)
    seen = np.concatenate([batches[number][0]["frames"] for number in range(len(batches))])
    assert np.isfinite(seen).all()
    assert len(seen) == len(train)


def test_a_kept_table_that_is_cut_short_is_made_anew(home: Path) -> None:
    """Mapped as it is, reading it would end the process."""
    config = config_of(home, "stop", **{"data.memory_gb": 1e-9})
    first = prepare(config).parts["train"].inputs()["frames"]
    kept = [path for path in (home / "cache").glob("frames-*.npy") if not path.name.endswith(".bad.npy")]
    truncate(kept[0])
    assert np.array_equal(prepare(config).parts["train"].inputs()["frames"], first)
    (home / "cache" / kept[0].name.replace(".npy", ".bad.npy")).write_bytes(b"")
    assert np.array_equal(prepare(config).parts["train"].inputs()["frames"], first)


def test_pretraining_and_evaluation_leave_it_out_and_name_it(home: Path) -> None:
    config = config_of(home, "skip")
    files = sources.available_flights(config)
    damage_frames(home / "flights" / "a")
    left_out: LeftOut = {}
    chunks = prepare_frames(config, left_out=left_out)
    assert in_words(left_out)[0].startswith("flight a is left out (data.bad_flights): ")
    assert chunks["train"].flights == ("d",)
    left_out = {}
    samples = samples_of({name: files[name] for name in "ab"}, config, left_out=left_out)
    assert list(left_out) == ["a"]
    assert samples.flight_names == ("b",)
    with pytest.raises(DataError, match="no flight is left: a: "):
        samples_of({"a": files["a"]}, config)


@pytest.mark.parametrize("fault", ["camera removed", "navigation truncated", "frames damaged", "no label"])
@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_check_goes_on_with_the_others(home: Path, fault: str, mode: str) -> None:
    FAULTS[fault][0](home / "flights" / "a")
    found = check(config_of(home, mode, **{"evaluation.baselines": False}), Console(machine=True), probe=False)
    mine = [finding for finding in found.findings if finding.name == "flight a"]
    if mode == "stop" and fault == "camera removed":
        assert "split" in found.problems  # a name in the split that is none
        return
    assert [finding.level for finding in mine] == ["problem" if mode == "stop" else "warning"]
    assert ("flight a" in found.problems) == (mode == "stop")
    assert {flight.name for flight in found.flights} >= {"b", "c", "d"}


def test_check_names_a_flight_that_turns_bad_between_two_looks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudml_tf.diagnostics.check import survey

    gather = survey.alignment.gather

    def removed(flight: Flight, *rest: Any) -> Any:
        if flight.name == "a":
            camera_file(home / "flights" / "a").unlink()
        return gather(flight, *rest)

    monkeypatch.setattr(survey.alignment, "gather", removed)
    found = check(config_of(home, "stop", **{"evaluation.baselines": False}), Console(machine=True), probe=False)
    assert "flight a" in found.problems
    assert {flight.name for flight in found.flights} == {"b", "c", "d"}


def test_check_says_where_no_flight_of_a_part_is_left(home: Path) -> None:
    truncate(lidar_file(home / "flights" / "b"))
    found = check(config_of(home, "skip", **{"evaluation.baselines": False}), Console(machine=True), probe=False)
    assert "val split" in found.problems


def test_the_error_goes_through_another_process() -> None:
    error = pickle.loads(pickle.dumps(FlightError("a", "text")))
    assert (error.flight, str(error)) == ("a", "text")


def test_a_prediction_of_many_leaves_one_out(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flight cannot be opened, one breaks while its frames stream by; the third is predicted."""
    files = json.loads((finished / "data.json").read_text())["files"]
    for name in ("sim01", "sim02", "sim03"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for path in Path(files[name]["camera"]).parent.iterdir():
            (tmp_path / "in" / name / path.name).write_bytes(path.read_bytes())
    truncate(next((tmp_path / "in" / "sim01").glob("NAV_*")))
    cameras = {n: next((tmp_path / "in" / n).glob(Path(files[n]["camera"]).name)) for n in ("sim02", "sim03")}
    broken = cameras["sim02"]
    with h5py.File(broken, "r+") as file:
        values, attributes = file[SIGNAL][()], dict(file[SIGNAL].attrs)
        del file[SIGNAL]
        item = file.create_dataset(SIGNAL, data=values, chunks=(20, *values.shape[1:]), compression="gzip")
        item.attrs.update(attributes)
        place = item.id.get_chunk_info(5)
    with open(broken, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\x00" * place.size)
    command = ["predict", str(finished), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--json"]
    assert main([*command, "--set", "data.bad_flights=skip"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["left_out"].keys() == {"sim01", "sim02"}
    assert "truncated" in told["left_out"]["sim01"]
    assert "'/Product/Signal' cannot be read, the file is damaged" in told["left_out"]["sim02"]
    assert [record["flight"] for record in told["files"]] == ["sim03"]
    assert [path.name for path in (tmp_path / "out").glob("*.nc")] == ["sim03.nc"]
    assert err.count("is left out") == 2
    assert main(command) == 2
    assert "NAV" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.slow
def test_a_training_leaves_it_out_and_the_report_says_so(home: Path) -> None:
    truncate(camera_file(home / "flights" / "a"))
    config = write_config(home, {"split": SPLIT, "data.bad_flights": "skip", "training.max_epochs": 1})
    assert main(["train", str(config), "--run-dir", str(home / "run")]) == 0
    assert "truncated" in json.loads((home / "run" / "data.json").read_text())["left_out"]["a"]
    assert "truncated" in json.loads((home / "run" / "metrics.json").read_text())["left_out"]["a"]
    assert "flight a was left out" in (home / "run" / "report.html").read_text()
