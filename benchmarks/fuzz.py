"""Spoilt flight files and configurations, thousands of them, into the readers: `make fuzz`.

    python benchmarks/fuzz.py --target flights --minutes 20
    python benchmarks/fuzz.py --target config --minutes 10

atheris (libFuzzer) bends bytes so that they reach lines which no input has reached yet; tests/spoilt.py makes a case of
them: real files with wrong names, ranks, types, values, attributes, storage, links and bytes. Every case goes through
the readers, the samples, a prediction's blocks, `check` and `init`; anything but a clear error of
`cloudml_tf.utils.errors` is a fault, and so are a warning, a case of more than 20 s, and more than 1 GB. A process
that dies is a crash; it is counted and started again. "tamed" are files that the HDF5 library died of, or hung at, in
the helper process that tries each first. `--without-atheris` draws the bytes at random, where atheris is not installed.

Prints a table, and leaves findings (the bytes of each kind of fault, and the traceback) in build/fuzz.
"""

import argparse
import collections
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOUND = ROOT / "build" / "fuzz"
MOST_MB, MOST_S = 1024, 20
LIMIT_GB = 4  # of address space, so that a runaway ends in an error rather than in swap
ENDINGS = ("cases", "used", "refused", "tamed")
EVERY = 100  # cases between two notes of how far it is


def main() -> int:
    """Fuzz for some minutes, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=["flights", "config"], default="flights")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cases", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-atheris", action="store_true")
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_child(args)
    return judge(args.target, supervise(args))


def supervise(args: argparse.Namespace) -> dict[str, Any]:
    """Run children until the time is up; a child that dies is a crash. Returns the sums."""
    sums: dict[str, Any] = {"cases": 0, "used": 0, "refused": 0, "tamed": 0, "crashes": 0, "peak_mb": 0.0, "faults": {}}
    folder = FOUND / args.target
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    end, number, began = time.time() + 60 * args.minutes, 0, time.time()
    while time.time() < end - 2 and sums["cases"] < args.cases:
        number += 1
        notes = folder / "notes.json"
        notes.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--target", args.target, "--child", str(notes)]
        command += ["--minutes", str((end - time.time()) / 60), "--cases", str(args.cases - sums["cases"])]
        command += ["--seed", str(args.seed + 1000 * number)] + ["--without-atheris"] * args.without_atheris
        with open(folder / "log.txt", "ab") as log:
            done = subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False)
        if not notes.is_file():
            raise SystemExit(f"the fuzzer does not start; see {folder / 'log.txt'}")
        add(sums, json.loads(notes.read_text()), done.returncode, folder)
    return {**sums, "seconds": time.time() - began}


def add(sums: dict[str, Any], found: dict[str, Any], returncode: int, folder: Path) -> None:
    """Put what one child did into the sums."""
    for key in ENDINGS:
        sums[key] += found[key]
    sums["peak_mb"] = max(sums["peak_mb"], found["peak_mb"])
    for name, count in found["faults"].items():
        sums["faults"][name] = sums["faults"].get(name, 0) + count
    if not found["ended"]:
        sums["crashes"] += 1
        name = f"process ended with {returncode}"
        sums["faults"][name] = sums["faults"].get(name, 0) + 1
        shutil.copy(folder / "case.bin", folder / f"crash-{sums['crashes']}.bin")


def judge(target: str, sums: dict[str, Any]) -> int:
    """The table; 1 where anything is wrong."""
    titles = ("cases", "used", "refused", "tamed", "crashes", "faults", "peak MB", "a second")
    print(f"{'target':10}" + "".join(f"{title:>10}" for title in titles))
    faults = sum(sums["faults"].values()) - sums["crashes"]
    rate = sums["cases"] / max(sums["seconds"], 1.0)
    cells = [*(sums[key] for key in (*ENDINGS, "crashes")), faults, round(sums["peak_mb"]), round(rate)]
    print(f"{target:10}" + "".join(f"{cell:>10}" for cell in cells))
    for name, count in sorted(sums["faults"].items(), key=lambda item: -item[1]):
        print(f"  {count:>6}  {name}")
    wrong = bool(sums["faults"]) or sums["peak_mb"] > MOST_MB
    print(f"{'WRONG' if wrong else 'nothing wrong'}; findings: {FOUND / target}" if wrong else "nothing wrong")
    return int(wrong)


class Child:
    """One process: a target, and what came of it."""

    def __init__(self, args: argparse.Namespace, home: Path) -> None:
        from fuzz_targets import TARGETS

        self.target = TARGETS[args.target](home)
        self.notes, self.most = Path(args.child), args.cases
        self.case = FOUND / args.target / "case.bin"
        self.end = time.time() + 60 * args.minutes
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.note()

    def one(self, data: bytes) -> None:
        """One case; a fault is kept and counted, and the next case goes on."""
        self.case.write_bytes(data)
        began = time.time()
        try:
            self.counts[self.target.one(data)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.fault(data, error)
        self.counts["cases"] += 1
        if time.time() - began > MOST_S:
            self.faults[f"a case of more than {MOST_S} s"] += 1
            self.keep(data, "slow")
        done = time.time() > self.end or self.counts["cases"] >= self.most
        if done or self.counts["cases"] % EVERY == 0:
            self.note(ended=done)
        if done:
            shutil.rmtree(self.target.home, ignore_errors=True)
            os._exit(0)

    def fault(self, data: bytes, error: BaseException) -> None:
        """Name it by its type and by the last line of the product."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "cloudml_tf" in f.filename]
        frames = frames or traceback.extract_tb(error.__traceback__)
        name = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}: {str(error)[:100]}"
        kind = name.split(": ")[0]
        self.faults[kind] += 1
        if self.faults[kind] == 1:
            self.keep(data, kind.replace(" ", "-").replace(":", "-"))
            print(name, "".join(traceback.format_exception(error)), file=sys.stderr, flush=True)

    def keep(self, data: bytes, name: str) -> None:
        """The bytes of a case."""
        (FOUND / self.case.parent.name / f"{name}.bin").write_bytes(data)

    def note(self, ended: bool = False) -> None:
        """How far it is, for the parent to read even when this process dies."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        counts = {key: self.counts[key] for key in ENDINGS}
        self.notes.write_text(json.dumps({**counts, "faults": self.faults, "peak_mb": peak, "ended": ended}))


def run_child(args: argparse.Namespace) -> int:
    """Draw cases until the time is up."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_GB * 2**30, LIMIT_GB * 2**30))
    shared = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(prefix="cloudml-fuzz-", dir=shared if shared.is_dir() else None))
    if args.without_atheris:
        child, rng = Child(args, home), random.Random(args.seed)
        while True:
            child.one(rng.randbytes(rng.randrange(8, 256)))
    import atheris

    with atheris.instrument_imports(include=["cloudml_tf"]):
        child = Child(args, home)
    options = [
        sys.argv[0],
        "corpus",
        "-max_len=512",
        "-len_control=0",
        "-timeout=60",
        f"-seed={args.seed}",
        "-print_final_stats=1",
    ]
    atheris.Setup(options, child.one, enable_python_coverage=True)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
