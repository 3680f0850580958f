"""Memory and time of a prediction over longer and longer flights: `python benchmarks/long_flights.py`.

Each simulated flight goes through `cloudml predict` in a process of its own. Printed are its peak resident memory, its
seconds, and the exponent of time over frames, without the start, which is that of a flight of a hundred frames.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cloudml_tf.config.load import load_config
from cloudml_tf.data.simulation.simulator import simulate_flights

HOME = Path(__file__).resolve().parent.parent
START = 100  # frames that cost next to nothing beside the start


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=str(HOME / "savedmodels" / "example"), help="a run or an export")
    parser.add_argument(
        "--config", default=str(HOME / "configs" / "example.json"), help="how its flights are simulated"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[200_000, 400_000, 800_000])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    simulation = load_config(args.config).data.simulation
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "out").mkdir()
        flights = {}
        # In another process: the peak of a child counts from its parent's size when it was started.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for count in [START, *args.frames]:
                settings = simulation.model_copy(update={"flight_count": 1, "frames_per_flight": count})
                flights[count] = pool.apply(simulate_flights, (settings, Path(home) / "flights"))[0]
        measured: dict[int, list[tuple[float, float]]] = {count: [] for count in flights}
        for _ in range(args.rounds):
            for count, folder in flights.items():
                measured[count].append(predicted(args.model, folder, Path(home) / "out"))
    seconds = {count: float(np.median([s for s, _ in rows])) for count, rows in measured.items()}
    memory = {count: float(np.median([m for _, m in rows])) for count, rows in measured.items()}
    print(table(seconds, memory, args.frames))


def predicted(model: str, folder: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of one prediction."""
    command = [sys.executable, "-m", "cloudml_tf", "predict", model, str(folder), "-o", str(out / f"{folder.name}.nc")]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024.0


def table(seconds: dict[int, float], memory: dict[int, float], frames: list[int]) -> str:
    """Markdown, and the exponent."""
    lines = ["| frames | seconds | frames/s without the start | peak memory, MB |", "|---|---|---|---|"]
    own = {count: seconds[count] - seconds[START] for count in frames}
    for count in frames:
        lines.append(f"| {count:,} | {seconds[count]:.1f} | {count / own[count]:,.0f} | {memory[count]:,.0f} |")
    exponent = np.polyfit(np.log(frames), np.log([own[count] for count in frames]), 1)[0]
    growth = f"memory at {frames[-1]:,} frames over {frames[0]:,}: {memory[frames[-1]] / memory[frames[0]]:.2f}"
    return "\n".join([*lines, f"\ntime ~ frames^{exponent:.3f}; {growth}; start {seconds[START]:.1f} s"])


if __name__ == "__main__":
    main()
