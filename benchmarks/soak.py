"""Memory and open files over an hour of training and predicting in turn: `python benchmarks/soak.py --minutes 60`.

One process trains a small network, as `cloudml train` does, then predicts a flight with it, as `cloudml predict` does,
and begins again. After each cycle the resident memory, open files and threads are read from /proc, and what glibc has
handed out and not got back: that grows by a leak alone, the resident memory also by holes between what is kept. Printed
is the slope of each after a warm-up, with its 95 % interval from the means of ten stretches (neighbouring cycles are
not independent).
"""

import argparse
import ctypes
import gc
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 0.25  # of the cycles
STRETCHES = 10
FIELDS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
WORK = {
    "training.max_epochs": 2,
    "data.simulation.frames_per_flight": 240,
    "evaluation.bootstrap_samples": 100,
    "output.export": False,
}


def main() -> None:
    """Cycle, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/example.json")
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as home:
        rows = list(cycles(args.config, 60.0 * args.minutes, Path(home)))
    print(table(np.asarray(rows)))


def cycles(path: str, seconds: float, home: Path) -> Any:
    """(seconds since the start, resident MB, MB handed out, open files, threads) after each cycle."""
    from cloudml_tf.commands.predict import predict
    from cloudml_tf.config.load import load_config
    from cloudml_tf.experiments.run import train
    from cloudml_tf.utils.console import Console

    config = load_config(path, {**WORK, "data.cache": str(home / "cache"), "output.runs": str(home / "runs")})
    started, console = time.perf_counter(), Console(quiet=True)
    while time.perf_counter() - started < seconds:
        run, _ = train(config, console, str(home / "run"))
        predict(run, ["sim01"], {}, str(home / "out.nc"), None, console)
        shutil.rmtree(run)
        gc.collect()
        row = (time.perf_counter() - started, *state())
        print(
            "{:7.0f} s  {:7.1f} MB resident  {:7.2f} MB handed out  {} files  {} threads".format(*row), file=sys.stderr
        )
        yield row


def state() -> tuple[float, float, int, int]:
    """Resident MB, MB handed out, open files and threads of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident = int(status["VmRSS"].split()[0]) / 1024.0
    return resident, handed_out(), len(os.listdir("/proc/self/fd")), int(status["Threads"])


class Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` gives."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def handed_out() -> float:
    """MB of `malloc` that are in use; NaN without glibc 2.33 or newer."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return float("nan")
    libc.mallinfo2.restype = Mallinfo
    found = libc.mallinfo2()
    return float(found.uordblks + found.hblkhd) / 2**20


def table(rows: np.ndarray) -> str:
    """Markdown: each quantity's slope after the warm-up."""
    kept = rows[int(WARM_UP * len(rows)) :]
    lines = [
        f"{len(rows)} cycles in {rows[-1, 0] / 60:.0f} min; the first {len(rows) - len(kept)} are the warm-up\n",
        "| | first | last | an hour adds (95 %) |",
        "|---|---|---|---|",
    ]
    for column, name in enumerate(("resident memory, MB", "handed out, MB", "open files", "threads"), start=1):
        slope, half = slope_an_hour(kept[:, 0], kept[:, column])
        lines.append(f"| {name} | {kept[0, column]:.0f} | {kept[-1, column]:.0f} | {slope:+.2f} ± {half:.2f} |")
    return "\n".join(lines)


def slope_an_hour(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Least squares through the means of the stretches, and half of the 95 % interval."""
    from scipy.stats import linregress, t

    parts = np.array_split(np.arange(len(values)), min(STRETCHES, len(values)))
    if np.ptp(values) == 0:  # whose correlation with the time is not defined
        return 0.0, 0.0
    hours = np.asarray([seconds[part].mean() for part in parts]) / 3600.0
    fit = linregress(hours, [values[part].mean() for part in parts])
    return float(fit.slope), float(t.ppf(0.975, len(parts) - 2) * fit.stderr)


if __name__ == "__main__":
    main()
