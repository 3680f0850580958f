"""A search that is killed twice, and one that two workers share: `python benchmarks/search_resume.py [--parallel]`.

The first: 20 trials, killed with SIGKILL at two random moments and resumed, end with 20 results, none repeated, and no
finished one is trained again. The second: a chief and two workers of one core each against one such worker.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools import twin

BASE: dict[str, Any] = {**twin.BASE, "training": {"max_epochs": 2, "batch_size": 32, "learning_rate": 3e-3}}
# Large enough that a worker of one core needs over ten minutes for it.
LONGER: dict[str, Any] = {
    **BASE,
    "data": {"simulation": {**twin.SIMULATION, "frames_per_flight": 1200}},
    "training": {"max_epochs": 56, "early_stopping_patience": 56, "batch_size": 16, "learning_rate": 3e-3},
}
SPACE = {
    "training.learning_rate": {"min": 1e-3, "max": 1e-2, "sampling": "log"},
    "loss.weight": [0, 0.5],
    "model.dropout": {"min": 0.0, "max": 0.3},
}


def write_search(home: Path, base: dict[str, Any], tuner: dict[str, Any]) -> Path:
    """The search as a file; its flights are kept in `home`."""
    base = json.loads(json.dumps(base))
    base["data"]["cache"] = str(home / "cache")
    path = home / "search.json"
    path.write_text(json.dumps({"experiment_name": "resumed", "base": base, "space": SPACE, "tuner": tuner}))
    return path


def start(search: Path, folder: Path, *options: str, cores: str | None = None, **names: str) -> subprocess.Popen[str]:
    """`cloudml search` as a process, on some cores only."""
    pinned = ["taskset", "-c", cores] if cores else []
    command = [*pinned, sys.executable, "-m", "cloudml_tf", "search", str(search), "--run-dir", str(folder), *options]
    log = open(folder.with_suffix(".log"), "a")  # noqa: SIM115
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **names}, text=True)


def stamps(folder: Path) -> dict[str, int]:
    """When each result was written, in ns."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}


def killed_twice(home: Path, trials: int, seed: int, kind: str) -> list[str]:
    """Search with two kills; returns what is wrong with the outcome."""
    search = write_search(home, BASE, {"kind": kind, "trials": trials, "seed": seed})
    folder = home / f"killed_{kind}_{seed}"
    rng = random.Random(seed)
    moments = sorted(rng.sample(range(1, trials), 2))  # finished trials after which a kill comes, within one trial
    kept: dict[str, int] = {}
    for number, moment in enumerate(moments):
        process = start(search, folder, *(["--resume"] if number else []))
        while process.poll() is None and len(stamps(folder)) < moment:
            time.sleep(0.1)
        time.sleep(rng.uniform(0.0, 8.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.update({name: stamp for name, stamp in stamps(folder).items() if name not in kept})
        print(f"killed with {len(stamps(folder))} results", flush=True)
    code = start(search, folder, "--resume").wait()
    return faults(folder, trials, kept, code)


def faults(folder: Path, trials: int, kept: dict[str, int], code: int) -> list[str]:
    """Anything but that many different results, all in the table, the early ones untouched."""
    found = json.loads((folder / "search.json").read_text())["trials"] if code == 0 else []
    values = {json.dumps(result["values"], sort_keys=True) for result in found}
    after = stamps(folder)
    checks = {
        f"exit code {code}": code != 0,
        f"{len(found)} rows in the table": len(found) != trials,
        f"{len({result['id'] for result in found})} different trials": len({r["id"] for r in found}) != trials,
        f"{len(values)} different values": len(values) != trials,
        f"{len(after)} results": len(after) != trials,
        "a finished trial was written again": any(after.get(name) != stamp for name, stamp in kept.items()),
        "no best.json": not (folder / "best.json").is_file(),
    }
    return [text for text, wrong in checks.items() if wrong]


def timed_parallel(home: Path, trials: int) -> None:
    """Wall-clock of one worker on one core, and of a chief and two workers on one core each."""
    search = write_search(home, LONGER, {"kind": "random", "trials": trials})
    subprocess.run([sys.executable, "-m", "cloudml_tf", "check", str(_base(home)), "--no-probe"], capture_output=True)
    ends: list[tuple[float, float]] = []
    for workers in (1, 2):
        names = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(18000 + workers)}
        folder = home / f"workers_{workers}"
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        chief = start(search, folder, cores="0", KERASTUNER_TUNER_ID="chief", **names)
        started = [
            start(search, folder, "--threads", "1", cores=str(n), KERASTUNER_TUNER_ID=f"worker{n}", **names)
            for n in range(workers)
        ]
        codes = [process.wait() for process in started]
        trained = time.perf_counter() - begun
        codes.append(chief.wait())
        ends.append((trained, time.perf_counter() - begun))
        shown = f"{ends[-1][0]:.0f} s until the workers ended, {ends[-1][1]:.0f} s until the chief had"
        print(f"{workers} of one core: {shown}; {len(stamps(folder))} results, exit codes {codes}", flush=True)
    ratios = [two / one for one, two in zip(*ends, strict=True)]
    print(f"ratio {ratios[0]:.3f} of the workers, {ratios[1]:.3f} with the chief's end (bar: 0.65, from 600 s)")


def _base(home: Path) -> Path:
    """The base as a file of its own: its flights are simulated before the clock starts."""
    content = json.loads((home / "search.json").read_text())["base"]
    (home / "base.json").write_text(json.dumps({**content, "experiment_name": "base"}))
    return home / "base.json"


def main() -> int:
    """Kill and resume, or time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("runs/search_resume"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--kind", choices=["random", "bayesian"], default="random")
    parser.add_argument("--parallel", action="store_true", help="time a chief and two workers instead")
    args = parser.parse_args()
    home = args.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    if args.parallel:
        timed_parallel(home, args.trials)
        return 0
    wrong = 0
    for seed in args.seeds:
        shutil.rmtree(home / f"killed_{args.kind}_{seed}", ignore_errors=True)
        found = killed_twice(home, args.trials, seed, args.kind)
        print(f"seed {seed}: {args.trials} trials, killed twice: {', '.join(found) or 'all there, none repeated'}")
        wrong += bool(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
