"""`cloudml predict --archive`: each flight once, by whichever worker lives; what is done stays, what fails is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from flight_files import SIGNAL, camera_file, navigation_file
from test_predict import campaign

from cloudml_tf.commands.main import main
from cloudml_tf.config.data import FlightFiles
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.inference.archive.archive import check_options
from cloudml_tf.inference.archive.engines import DEATHS, share_out
from cloudml_tf.inference.archive.work import Outcome, Task
from cloudml_tf.inference.files import input_fingerprint
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.locks import alone_in
from cloudml_tf.utils.threads import THREADS, threads_of_children

# --- dealing out


class Plain:
    """A worker process that predicts nothing: a flight is the file whose presence says that it was begun."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))

    def submit(self, task: Task) -> "Future[Outcome]":
        return self.pool.submit(begin, task)

    def end(self) -> None:
        self.pool.shutdown()


def begin(task: Task) -> Outcome:
    """Flights that are called "dies" take their process down the first time, "deadly" ones each time."""
    begun = Path(task.files.camera)
    again = begun.exists()
    begun.touch()
    if task.name == "deadly" or (task.name.startswith("dies") and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task.name, 0.0, {"worker": os.getpid()})


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_flight_alone(tmp_path: Path) -> None:
    names = ["a", "dies", "b", "deadly", "c"]
    tasks = [Task(name, FlightFiles(camera=str(tmp_path / name))) for name in names]
    outcomes = list(share_out(tasks, Plain, 2, (BrokenProcessPool,)))
    assert sorted(outcome.flight for outcome in outcomes) == sorted(names)  # each once
    failed = {outcome.flight: outcome.reason for outcome in outcomes if outcome.record is None}
    assert failed == {"deadly": DEATHS}
    told = {outcome.flight: outcome.warnings for outcome in outcomes if outcome.warnings}
    assert told == {"dies": ["dies: its worker died; another worker repeated it."]}


def test_threads_are_limited_for_children_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    with threads_of_children(1):
        assert [os.environ[name] for name in THREADS] == ["1"] * len(THREADS)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


# --- what a file was made of


def test_a_fingerprint_changes_with_any_file_of_a_flight(tmp_path: Path) -> None:
    camera, navigation = tmp_path / "camera.h5", tmp_path / "navigation.h5"
    camera.write_bytes(bytes(40 * 2**20))
    navigation.write_bytes(b"0123456789")
    files = FlightFiles(camera=str(camera), navigation=str(navigation))
    found = {input_fingerprint(files), input_fingerprint(FlightFiles(camera=str(camera)))}
    navigation.write_bytes(b"0123456780")
    found.add(input_fingerprint(files))
    whole = np.frombuffer(camera.read_bytes(), "uint8")
    camera.write_bytes((whole + 1).tobytes())
    found.add(input_fingerprint(files))
    camera.write_bytes(whole.tobytes())
    os.utime(camera, (0, 0))
    found.add(input_fingerprint(files))  # as before: a copy of the archive is the same archive
    assert len(found) == 4


def test_what_cannot_be_an_archive_is_refused(tmp_path: Path) -> None:
    assert check_options(None, str(tmp_path / "new"), None) == tmp_path / "new"
    with pytest.raises(ConfigError, match=r"--workers must be 1 or more\. Received: 0"):
        check_options(0, "out", None)
    with pytest.raises(ConfigError, match="--archive needs -o FOLDER"):
        check_options(2, None, None)
    with pytest.raises(ConfigError, match=r"out\.nc: is a file; an archive needs a folder"):
        check_options(2, "out.nc", None)


# --- whole commands


def copies(finished: Path, folder: Path, names: str) -> Path:
    """Flights with those names (a letter each), all the same but for a pixel: camera and navigation only."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for path in (campaign(finished) / "sim03").iterdir():
            if path.name.startswith(("SIM", "NAV")):
                shutil.copy(path, folder / name)
        with h5py.File(camera_file(folder / name), "r+") as file:
            file[SIGNAL][:, 0, 0] += number
    return folder


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """flight -> variable -> its bytes."""
    found = {}
    for path in sorted(folder.glob("*.nc")):
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as file:
            found[path.stem] = {str(name): values.values.tobytes() for name, values in file.variables.items()}
    return found


BARE = ["--set", "output.report=false"]


def test_flights_that_fail_are_named_and_the_others_go_on(finished: Path, tmp_path: Path, capsys: Any) -> None:
    flights, out = copies(finished, tmp_path / "flights", "abcd"), tmp_path / "out"
    camera_file(flights / "b").write_bytes(b"no HDF5 file")
    navigation_file(flights / "d").unlink()
    command = ["predict", str(finished), str(flights), "-o", str(out), "--archive", "--json", *BARE]
    assert main(command) == 7
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told == json.loads((out / "archive.json").read_text())
    assert told["flights"] == {"found": 4, "done": 2, "done_earlier": 0, "failed": 2}
    assert told["complete"]
    assert list(told["failed"]) == ["d", "b"]
    assert "no navigation file" in told["failed"]["d"]
    assert told["failed"]["b"].startswith(str(camera_file(flights / "b")))
    assert "b: failed: " in shown.err
    assert sorted(path.name for path in out.iterdir()) == ["a.nc", "archive.json", "c.nc"]
    assert [record["flight"] for record in told["files"]] == ["a", "c"]
    assert told["frames"] == sum(record["frames"] for record in told["files"]) > told["predicted"] > 0


def test_a_restart_does_what_is_missing_or_has_changed(finished: Path, tmp_path: Path, capsys: Any) -> None:
    flights, out = copies(finished, tmp_path / "flights", "abc"), tmp_path / "out"
    command = ["predict", str(finished), str(flights), "-o", str(out), "--archive", "--json"]
    assert main([*command, *BARE]) == 0
    first = json.loads(capsys.readouterr().out)
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nc")}
    (out / "c.nc").unlink()
    (out / ".writing-x-c.nc").touch()  # as a killed worker leaves it
    with h5py.File(camera_file(flights / "b"), "r+") as file:
        file[SIGNAL][:] //= 2
    assert main([*command, *BARE]) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["flights"] == {"found": 3, "done": 3, "done_earlier": 1, "failed": 0}
    assert told["redone"] == {"b": "the flight's files changed"}
    assert "b: is repeated: the flight's files changed" in shown.err
    assert told["frames"] == first["frames"]
    assert told["files"][0] == first["files"][0]
    assert {name: time for name, time in written.items() if (out / name).stat().st_mtime_ns == time}.keys() == {"a.nc"}
    assert not list(out.glob(".writing-*"))
    assert main([*command, *BARE, "--set", "prediction.glint_angle_deg=20"]) == 0
    assert json.loads(capsys.readouterr().out)["redone"] == dict.fromkeys("abc", "the settings changed")
    (out / "a.nc").write_text("spoilt")
    assert main([*command, *BARE, "--set", "prediction.glint_angle_deg=20"]) == 0
    assert json.loads(capsys.readouterr().out)["redone"] == {"a": "the existing file cannot be read"}
    with alone_in(out, "another"):
        assert main([*command, *BARE]) == 2
    assert "a prediction of an archive is running in this folder" in capsys.readouterr().err


def workers_of(pid: int) -> list[int]:
    """Worker processes of a process; multiprocessing has a tracker of its own beside them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            worker = b"spawn_main" in (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and worker:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("whom", ["a worker", "all"])
def test_a_kill_in_the_middle_changes_no_output(finished: Path, tmp_path: Path, whom: str) -> None:
    flights = copies(finished, tmp_path / "flights", "abcdefghijkl")
    assert main(["predict", str(finished), str(flights), "-o", str(tmp_path / "one"), "--archive", *BARE]) == 0
    command = [sys.executable, "-m", "cloudml_tf", "predict", str(finished), str(flights), "--workers", "2", *BARE]
    command += ["-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list((tmp_path / "out").glob("*.nc"))) < 3:
        time.sleep(0.02)
    started = workers_of(process.pid)
    os.kill(started[0] if whom == "a worker" else process.pid, signal.SIGKILL)
    code = process.wait()
    if whom == "all":
        assert code == -signal.SIGKILL
        while any(Path(f"/proc/{pid}").exists() for pid in started):  # they end with the process that started them
            time.sleep(0.05)
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    assert code == 0
    told = json.loads((tmp_path / "out/archive.json").read_text())
    assert told["flights"]["done"] == 12
    assert (told["flights"]["done_earlier"] > 0) == (whom == "all")
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert not list((tmp_path / "out").glob(".writing-*"))


@pytest.mark.slow
def test_ray_gives_the_same(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    flights = copies(finished, tmp_path / "flights", "abcd")
    camera_file(flights / "b").write_bytes(b"no HDF5 file")
    command = ["predict", str(finished), str(flights), *BARE]
    assert main([*command, "-o", str(tmp_path / "one"), "--archive"]) == 7
    line = [sys.executable, "-m", "cloudml_tf", *command, "-o", str(tmp_path / "out"), "--engine", "ray"]
    done = subprocess.run([*line, "--workers", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("size", "camera", "flight"),
    [(10, "bc2802abd717b1a6", "b7472a5557bc4e75"), (3 * 2**20 + 5, "f32613927c492b6f", "080f89cca2997c12")],
)
def test_fingerprints_are_those_of_older_runs_and_archives(size: int, camera: str, flight: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.h5"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    assert camera_fingerprint(path) == camera
    assert input_fingerprint(FlightFiles(camera=str(path))) == flight
