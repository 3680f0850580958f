"""Killed processes, damaged and full disks, two processes at once: what was finished stays, and goes on."""

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.config.run_folder import CHECKPOINT, PREVIOUS, new_run
from cloudml_tf.experiments.run import train
from cloudml_tf.train.checkpoint import Checkpoint, keep, load, newest, save
from cloudml_tf.utils import files
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import RunError
from cloudml_tf.utils.files import whole_file, whole_folder, write_text
from cloudml_tf.utils.locks import alone_at, alone_in, is_held

ROOT = Path(__file__).parent.parent
CONTENT = {"epoch": 1, "model": [np.arange(200, dtype="float32")], "states": {"a": {"wait": 2, "best": None}}}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A function: MB -> a folder on a file system of that size of its own."""
    mounted: list[Path] = []

    def make(megabytes: float) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        size = f"size={int(megabytes * 1024)}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("a small file system needs the right to mount one")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


# --- checkpoints


@pytest.mark.parametrize("step", [23, pytest.param(5, marks=pytest.mark.slow)])  # 5: each byte, and each bit of some
@pytest.mark.no_cover
def test_no_flipped_bit_and_no_cut_of_a_checkpoint_gives_another_content(tmp_path: Path, step: int) -> None:
    """The arrays and the JSON are checked as they are read; of the zip's own fields, those that lead to them."""
    path = tmp_path / CHECKPOINT
    save(path, CONTENT)
    whole = path.read_bytes()
    np.testing.assert_array_equal(load(path)["model"][0], CONTENT["model"][0])
    with np.load(path) as file:  # still an npz file for everybody else
        assert "_json" in file.files
    content = set()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            names, extra = struct.unpack("<HH", whole[entry.header_offset + 26 : entry.header_offset + 30])
            begin = entry.header_offset + 30 + names + extra
            content |= set(range(begin, begin + entry.file_size))
    assert len(content) > 800
    for bit in range(0, 8 * len(whole), step):
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        if bit // 8 in content:
            with pytest.raises(RunError, match="the checkpoint is damaged"):
                load(path)
        try:
            found = load(path)
        except RunError:
            continue
        np.testing.assert_array_equal(found["model"][0], CONTENT["model"][0])
        assert {**found, "model": []} == {**CONTENT, "model": []}
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="the checkpoint is damaged"):
            load(path)


def test_a_checkpoint_without_one_of_its_arrays_is_damaged(tmp_path: Path) -> None:
    save(tmp_path / "whole.npz", CONTENT)
    with np.load(tmp_path / "whole.npz") as file:
        np.savez(tmp_path / CHECKPOINT, _json=file["_json"])
    with pytest.raises(RunError, match="the checkpoint is damaged"):
        load(tmp_path / CHECKPOINT)


def test_a_checkpoint_of_version_0_1_0_is_still_loaded(tmp_path: Path) -> None:
    """Its comment was the SHA-256 of all before, and it held no seconds."""
    path = tmp_path / CHECKPOINT
    save(path, CONTENT)
    body = path.read_bytes()[:-2]
    path.write_bytes(body + struct.pack("<H", 64) + hashlib.sha256(body).hexdigest().encode())
    found = load(path)
    np.testing.assert_array_equal(found["model"][0], CONTENT["model"][0])
    assert Checkpoint(tmp_path, {}, found).seconds < 10


@pytest.mark.slow
def test_the_seconds_of_a_training_are_those_of_all_its_processes(tiny, tmp_path: Path) -> None:
    config, folder = tiny(training={"max_epochs": 2}), tmp_path / "run"
    _, metrics = train(config, Console(quiet=True), str(folder))
    content = load(folder / CHECKPOINT)
    assert 0 < content["seconds"] <= metrics["training"]["seconds"]
    save(folder / CHECKPOINT, {**content, "seconds": 1000.0})
    (folder / "metrics.json").unlink()
    _, metrics = train(config, Console(quiet=True), str(folder), resume=True)
    assert 1000 < metrics["training"]["seconds"] < 1100


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    said: list[str] = []
    for epoch in (1, 2, 3):
        keep(tmp_path, {**CONTENT, "epoch": epoch})
    assert [load(tmp_path / name)["epoch"] for name in (CHECKPOINT, PREVIOUS)] == [3, 2]
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-1])
    assert newest(tmp_path, said.append)["epoch"] == 2
    assert "checkpoint.npz: the checkpoint is damaged" in said[0]
    keep(tmp_path, {**CONTENT, "epoch": 3})  # the damaged one does not become the one before
    assert [load(tmp_path / name)["epoch"] for name in (CHECKPOINT, PREVIOUS)] == [3, 2]
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    assert newest(tmp_path, said.append) is None
    assert "the training starts with its first epoch" in said[-1]


@pytest.mark.slow
def test_a_run_whose_last_checkpoint_is_damaged_ends_as_if_it_were_not(
    tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sys_path = [str(ROOT / "benchmarks"), *sys.path]
    monkeypatch.setattr(sys, "path", sys_path)
    from faulting.checks import corrupt, differences
    from test_train import _interrupt_after

    config = tiny(training={"max_epochs": 3})
    train(config, Console(quiet=True), str(tmp_path / "whole"))
    assert not (tmp_path / "whole" / PREVIOUS).exists()
    with monkeypatch.context() as patch:
        patch.setattr("cloudml_tf.train.checkpoint.Checkpoint.on_epoch_end", _interrupt_after(2))
        with pytest.raises(KeyboardInterrupt):
            train(config, Console(quiet=True), str(tmp_path / "cut"))
    path = tmp_path / "cut" / CHECKPOINT
    spoilt = bytearray(path.read_bytes())
    spoilt[len(spoilt) // 2] ^= 4
    path.write_bytes(spoilt)
    assert corrupt(tmp_path / "cut")  # the check of the benchmark sees it too
    train(config, Console(), str(tmp_path / "cut"), resume=True)
    assert "checkpoint.npz: the checkpoint is damaged" in capsys.readouterr().out
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
    (tmp_path / "cut" / "history.csv").write_text("epoch\n1.0\n")
    assert differences(tmp_path / "whole", tmp_path / "cut") == ["history.csv"]


@pytest.mark.slow
@pytest.mark.tensorflow("the other backends draw batches themselves")
def test_one_or_two_threads_that_draw_batches_give_the_same_bits(tiny, tmp_path: Path) -> None:
    import threading

    from test_train import same

    from cloudml_tf.data.prepare import prepare
    from cloudml_tf.train.batches import Batches
    from cloudml_tf.train.tf_dataset import as_dataset

    drawn_by = set()

    class Told(Batches):
        def __getitem__(self, number: int) -> tuple:
            drawn_by.add(threading.get_ident())
            return super().__getitem__(number)

    for threads in (1, 2):
        training = {"max_epochs": 2, "data_threads": threads}
        config = tiny(training=training, augmentation={"gain_std": 0.05, "noise_std": 0.1})
        train(config, Console(quiet=True), str(tmp_path / f"{threads}"))
    samples = prepare(config).parts["train"]
    for _ in as_dataset(Told(samples, samples.label, 2, workers=config.training.data_threads)):
        pass
    assert len(drawn_by - {threading.get_ident()}) > 1
    same(tmp_path / "1", tmp_path / "2")


# --- files


def test_a_folder_is_replaced_in_one_step_and_comes_back_where_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "model"
    for swap in (True, False):
        if not swap:
            monkeypatch.setattr(files, "_swapped", lambda *_: False)
        for text in ("old", "new"):
            with whole_folder(place) as made:
                (made / "file").write_text(text)
        assert (place / "file").read_text() == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # Killed between the two renames of the slow way: the old one is put back by whoever comes next.
    old = tmp_path / ".old-model-abcdefgh"
    old.mkdir()
    os.replace(place, old / "model")
    (tmp_path / ".writing-model-abcdefgh").mkdir()
    (tmp_path / ".writing-model-2-abcdefgh").mkdir()  # of another target, which may be at work
    with alone_at(place, "an export"):
        assert (place / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-model-2-abcdefgh", "model"]


def test_a_full_disk_leaves_what_was_there(small_disk) -> None:
    disk = small_disk(0.5)
    write_text(disk / "a.txt", "before")
    keep(disk, {**CONTENT, "epoch": 1})
    with whole_folder(disk / "model") as made:
        (made / "file").write_text("before")
    with pytest.raises(RunError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_text(disk / "a.txt", "x" * 10**6)
    with pytest.raises(RunError, match=r"checkpoint\.npz: cannot be written \(No space left on device\)"):
        keep(disk, {**CONTENT, "model": [np.zeros(10**6)]})
    with pytest.raises(RunError, match="No space left"), whole_folder(disk / "model") as made:
        (made / "file").write_bytes(bytes(10**6))
    assert (disk / "a.txt").read_text() == (disk / "model" / "file").read_text() == "before"
    assert load(disk / CHECKPOINT)["epoch"] == 1
    assert not list(disk.rglob(".writing-*"))


def test_what_libraries_say_of_a_full_disk_is_one_line(finished: Path, small_disk, capsys) -> None:
    import h5py

    disk = small_disk(0.2)
    with (
        pytest.raises(RunError, match=r"a\.h5: cannot be written \(No space left on device\)"),
        whole_file(disk / "a.h5") as made,
        h5py.File(made, "w") as file,
    ):
        file["x"] = np.random.default_rng(0).random(10**5)
    assert main(["export", str(finished), "--format", "savedmodel", "-o", str(disk / "model")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert list(disk.iterdir()) == []


def test_a_folder_that_becomes_read_only_leaves_what_was_there(small_disk) -> None:
    disk = small_disk(0.5)
    write_text(disk / "a.txt", "before")
    if subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
        pytest.skip("a read-only file system needs the right to mount one")
    with pytest.raises(RunError, match=r"a\.txt: cannot be written \(Read-only file system\)"):
        write_text(disk / "a.txt", "after")
    with pytest.raises(RunError, match="Read-only file system"), alone_in(disk, "a training"):
        pass
    assert (disk / "a.txt").read_text() == "before"


def test_files_beyond_a_limit_of_their_size_are_not_begun(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "before")
    code = (
        "import resource, sys; from pathlib import Path; from cloudml_tf.utils.files import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_text(Path(sys.argv[1]), 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], capture_output=True, text=True)
    assert "cannot be written (File too large)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


# --- one process a folder


HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from cloudml_tf.utils.locks import *; from cloudml_tf.utils.files import *\n"
    "with alone_in(Path(sys.argv[1]), 'a training'), whole_file(Path(sys.argv[1]) / 'plots' / 'a.txt'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def test_a_folder_has_one_process_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert is_held(tmp_path)
    with (
        pytest.raises(RunError, match=rf"a training is running in this folder \(process {other.pid} on .*Wait for it"),
        alone_in(tmp_path, "a training", patience_s=0.2),
    ):
        pass
    assert list((tmp_path / "plots").iterdir())  # what it writes is left alone
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert not is_held(tmp_path)
    assert list((tmp_path / "plots").iterdir())
    with alone_in(tmp_path, "a training"):
        assert not list((tmp_path / "plots").iterdir())  # half-written by nobody
    assert not (tmp_path / ".lock").exists()


def test_runs_of_the_same_second_have_folders_of_their_own(tiny, tmp_path: Path) -> None:
    config = tiny()
    assert len({new_run(config, None) for _ in range(5)}) == 5
    home = new_run(config, str(tmp_path / "chosen"))
    (home / ".writing-abcdefgh-config.json").touch()  # of a process that was killed while it began
    assert new_run(config, str(home)) == home
    (home / "config.json").touch()
    with pytest.raises(RunError, match="exists and is not empty"):
        new_run(config, str(home))


@pytest.mark.slow
def test_two_trainings_of_one_name_that_begin_together_end_alike_and_apart(tiny_file) -> None:
    command = [sys.executable, "-m", "cloudml_tf", "train", str(tiny_file()), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    told = [json.loads(one.communicate()[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert told[0]["run"] != told[1]["run"]
    runs = [Path(one["run"]) for one in told]
    assert len({(run / "history.csv").read_text() for run in runs}) == 1
    assert all((run / "metrics.json").is_file() for run in runs)


def test_resume_leaves_a_run_alone_that_is_going_on(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file()
    run = tmp_path / "runs" / "tiny" / "20260101-120000"
    run.mkdir(parents=True)
    (run / "config.json").touch()
    with alone_in(run, "a training"):
        assert main(["train", str(path), "--resume"]) == 2
    assert f"no interrupted run to resume. ({run} is being trained.)" in capsys.readouterr().err


# --- real kills


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch):
    """The benchmark's own modules."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import faults

    return faults


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["checkpoint", "ended_by_sigterm"])
def test_a_killed_training_ends_bit_equal(finished: Path, tmp_path: Path, killing, moment: str) -> None:
    """SIGKILL in a checkpoint's write, or SIGTERM in an epoch; the rest of the table: `make faults`."""
    from faulting.chains import Training

    class Short(Training):
        def __init__(self) -> None:
            self.phases, self.wrong, self.rng = {}, [], random.Random(1)
            self.place, self.out, self.whole = tmp_path, tmp_path / "run", finished
            self.times = {"epoch": 0.2, "test": 0.05}
            self.config = tmp_path / "tiny.json"
            content = json.loads((finished.parent / "tiny.json").read_text())
            content["output"]["savedmodels"] = str(tmp_path / "savedmodels")
            self.config.write_text(json.dumps(content))

        def moments(self):
            return [getattr(self, moment)]

    found = Short().play()
    assert found["wrong"] == []
    assert found["count"] == 1
    assert [phase["equal"] for phase in found["phases"].values()] == [1]


@pytest.mark.slow
def test_killed_searches_grids_exports_and_predictions_lose_nothing(tmp_path: Path, killing) -> None:
    for seed in (1, 3, 5, 7):
        found = killing.played(seed, tmp_path)
        assert found["wrong"] == []
        assert found["count"] >= 3
