"""An archive of simulated flights, predicted whole while workers are killed, and timed: `python benchmarks/archive.py`.

    --kill     200 short flights: one process; two workers of which one is killed; all killed half way, and a restart
    --timed    a job of five minutes: one worker of one core, then two of one core each, on a machine left alone

Flights and models are made once, below --home; `--prepare` makes them and does nothing else.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import xarray as xr

from cloudml_tf.commands.simulate import simulation_config
from cloudml_tf.data.simulation.simulator import simulate_flights

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "savedmodels/example"
SMALL = {"frame_rows": 12, "frame_columns": 12, "strip_width_m": 3200.0}  # as the example was trained on
SPLIT = {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]}
FEW = {"flight_count": 3, "frames_per_flight": 240}
QUICK: dict[str, Any] = {  # a network of the usual size, not trained well: its answers cost the same
    "experiment_name": "timed",
    "split": SPLIT,
    "training": {"max_epochs": 1},
    "evaluation": {"baselines": False},
}


def make_archive(folder: Path, count: int, size: dict[str, Any]) -> Path:
    """A folder with `count` different flights, simulated once."""
    while not (folder / f"f{count - 1:03d}").is_dir():
        made = len(list(folder.glob("f*")))
        settings = {**size, "flight_count": min(count - made, 99), "seed": 100 + made}
        for number, flight in enumerate(simulate_flights(simulation_config(None, settings), folder / "making")):
            os.replace(flight, folder / f"f{made + number:03d}")
        shutil.rmtree(folder / "making")
    return folder


def repeated(archive: Path, folder: Path, count: int) -> Path:
    """A folder with `count` flights that are links to the same few files again and again."""
    shutil.rmtree(folder, ignore_errors=True)
    originals = sorted(archive.glob("f*"))
    for number in range(count):
        (folder / f"f{number:03d}").mkdir(parents=True)
        for path in originals[number % len(originals)].iterdir():
            (folder / f"f{number:03d}" / path.name).symlink_to(path)
    return folder


def make_model(home: Path) -> Path:
    """A run with a network of the usual size."""
    run = home / "run"
    if not (run / "metrics.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        places = {"runs": str(home), "savedmodels": str(home), "export": False, "report": False}
        content = {**QUICK, "data": {"simulation": FEW, "cache": str(home / "cache")}, "output": places}
        (home / "timed.json").write_text(json.dumps(content))
        command = [sys.executable, "-m", "cloudml_tf.train", str(home / "timed.json"), "--run-dir", str(run)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def start(model: Path, flights: Path, out: Path, *options: str, cores: str = "") -> subprocess.Popen[str]:
    """`cloudml predict --archive` as a process, on some cores only; what it says goes to a file beside `out`."""
    pinned = ["taskset", "-c", cores] if cores else []
    command = [*pinned, sys.executable, "-m", "cloudml_tf", "predict", str(model), str(flights)]
    with open(out.with_suffix(".log"), "a") as log:
        return subprocess.Popen([*command, "-o", str(out), "--archive", *options], stdout=log, stderr=log, text=True)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Worker processes of a command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until so many flights are done."""
    while process.poll() is None and len(list(out.glob("f*.nc"))) < count:
        time.sleep(0.005)


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """flight -> variable -> its bytes."""
    found = {}
    for path in sorted(folder.glob("f*.nc")):
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as file:
            found[path.stem] = {str(name): values.values.tobytes() for name, values in file.variables.items()}
    return found


def said(out: Path) -> Counter[str]:
    """How often each flight was told to be predicted."""
    lines = out.with_suffix(".log").read_text().splitlines()
    return Counter(line.split(":")[0] for line in lines if " frames predicted, " in line and line.startswith("f"))


def judge(what: str, out: Path, alone: dict[str, dict[str, bytes]], code: int) -> bool:
    """A row; whether every flight is there once, and equal."""
    found, told = contents(out), said(out)
    content = json.loads((out / "archive.json").read_text())
    equal = sum(found.get(name) == values for name, values in alone.items())
    again = out.with_suffix(".log").read_text().count("its worker died")
    repeated = sum(count > 1 for count in told.values())
    earlier = content["flights"]["done_earlier"]
    print(f"| {what} | {len(found)} | {equal} | {repeated} | {again} | {earlier} | {code} |", flush=True)
    return len(found) == equal == len(alone) == content["flights"]["done"] and repeated == 0 and code == 0


def killed(home: Path, flights: Path, count: int) -> bool:
    """One process, a killed worker, a killed whole with a restart."""
    options = ["--set", "output.report=false"]
    for name in ("one", "worker", "all"):
        shutil.rmtree(home / name, ignore_errors=True)
        (home / f"{name}.log").unlink(missing_ok=True)
    print(f"| {count} flights | files | equal | predicted twice | worker died | done earlier | exit code |")
    print("|---|---|---|---|---|---|---|")
    code = start(EXAMPLE, flights, home / "one", *options).wait()
    alone = contents(home / "one")
    fine = judge("one process", home / "one", alone, code) and len(alone) == count
    process = start(EXAMPLE, flights, home / "worker", *options, "--workers", "2")
    wait_for(process, home / "worker", count // 2)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    fine &= judge("two workers, one killed half way", home / "worker", alone, process.wait())
    process = start(EXAMPLE, flights, home / "all", *options, "--workers", "2")
    wait_for(process, home / "all", count // 2)
    process.kill()
    process.wait()
    time.sleep(2.0)  # the workers end with it
    done = {path: path.stat().st_mtime_ns for path in (home / "all").glob("f*.nc")}
    code = start(EXAMPLE, flights, home / "all", *options, "--workers", "2").wait()
    fine &= judge("all killed half way, started again", home / "all", alone, code)
    fine &= all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    return fine


def seconds(home: Path, model: Path, flights: Path, workers: int) -> float:
    """Of the whole command."""
    out = home / f"timed_{workers}"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    code = start(model, flights, out, "--workers", str(workers), cores=",".join(map(str, range(workers)))).wait()
    if code:
        raise SystemExit(f"exit code {code}: {out.with_suffix('.log').read_text()[-2000:]}")
    return time.perf_counter() - began


def timed(home: Path, archive: Path, wanted_s: float) -> bool:
    """One worker of one core, then two of one core each, on as many flights as take the one `wanted_s`."""
    model, job = make_model(home), home / "job"
    few, more = (seconds(home, model, repeated(archive, job, count), 1) for count in (10, 50))
    count = 50 + int((wanted_s - more) / (more - few) * 40)
    print(f"{few:.1f} s for 10 flights, {more:.1f} s for 50: the job is {count} flights", flush=True)
    repeated(archive, job, count)
    one, two = (seconds(home, model, job, workers) for workers in (1, 2))
    frames = json.loads((home / "timed_1/archive.json").read_text())["frames"]
    print(f"| {count} flights, {frames} frames | seconds | of one |\n|---|---|---|")
    print(f"| one worker of one core | {one:.0f} | 1 |\n| two workers of one core each | {two:.0f} | {two / one:.3f} |")
    print(f"bar: 0.65, from 300 s; outputs equal: {contents(home / 'timed_1') == contents(home / 'timed_2')}")
    return two / one <= 0.65


def main() -> int:
    """Kill, or time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("runs/archive"))
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="make flights and model of --timed, no more")
    parser.add_argument("--flights", type=int, default=200, help="of --kill; --timed has 24, again and again")
    parser.add_argument("--frames", type=int, default=None, help="of a flight; by default 120, and 3600 with --timed")
    parser.add_argument("--seconds", type=float, default=320.0, help="that the timed job should take one worker")
    args = parser.parse_args()
    home = args.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    fine = True
    if args.prepare or args.timed:
        size = {"frames_per_flight": args.frames or 3600}
        flights = make_archive(home / f"long_{args.frames or 3600}", 24, size)
        make_model(home)
        print(f"flights and model: {flights}")
        fine &= args.prepare or timed(home, flights, args.seconds)
    if args.kill or not (args.prepare or args.timed):
        size = {**SMALL, "frames_per_flight": args.frames or 120}
        flights = make_archive(home / f"short_{args.frames or 120}_{args.flights}", args.flights, size)
        fine &= killed(home, flights, args.flights)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
