"""How often intervals hold on flights that nobody saw: `python benchmarks/coverage.py`.

Simulated flights of eight regimes: five train the members, one validates, nine calibrate, ten are held out. Every way
of calibrating is measured on the same ten.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tools.overrides import add_set, overridden

from cloudml_tf.commands.ensemble import EnsembleOptions, ensemble
from cloudml_tf.commands.simulate import simulation_config
from cloudml_tf.config.load import parse_config
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.evaluation.uncertainty import Pooling, Scale
from cloudml_tf.experiments.run import train
from cloudml_tf.utils.console import Console

TRAIN, VAL, CALIBRATE, TEST = range(5), 5, range(6, 15), range(15, 25)
SIZE = {"frame_rows": 16, "frame_columns": 16, "strip_width_m": 3200.0, "frames_per_flight": 960, "flight_count": 25}
CONTENT: dict[str, Any] = {
    "experiment_name": "coverage",
    "model": {"widths": [8, 12, 16], "footprint": 7, "encoder_features": 32, "head_units": 32, "mirror_average": True},
    "training": {"max_epochs": 20, "batch_size": 32, "learning_rate": 3e-3, "ema_momentum": 0.99},
    "evaluation": {"baselines": False, "bootstrap_samples": 100},
    "output": {"report": False, "export": False},
}
GAIN = 1.3
WAYS: tuple[tuple[int, Pooling, Scale], ...] = (
    (1, "pooled", "constant"),
    (1, "pooled", "spread"),
    (3, "pooled", "constant"),
    (3, "pooled", "spread"),
    (3, "largest", "spread"),
    (9, "pooled", "constant"),
    (9, "pooled", "spread"),
    (9, "largest", "spread"),
    (9, "guaranteed", "spread"),
)


def members(flights: list[Path], home: Path, count: int, overrides: list[str]) -> list[Path]:
    """Run folders of as many seeds."""
    names = [flight.name for flight in flights]
    split = {
        "kind": "flights",
        "train": [names[i] for i in TRAIN],
        "val": [names[VAL]],
        "test": [names[i] for i in TEST],
    }
    content = {**CONTENT, "split": split, "data": {"path": str(flights[0].parent)}}
    console = Console(machine=True)
    return [
        train(parse_config(overridden({**content, "seed": seed}, overrides)), console, str(home / str(seed)))[0]
        for seed in range(1, count + 1)
    ]


def measure(found: Any, count: int, pooling: Pooling, scale: Scale) -> dict[str, Any]:
    """Intervals calibrated on the first `count` calibration flights, on every held-out flight."""
    from cloudml_tf.inference.ensemble.calibration import Judged, calibrate, covered

    every = found.parts["calibration"]
    chosen = np.isin(every.flights(), np.unique(every.flights())[:count])
    part = Judged(every.samples.take(chosen), [output[chosen] for output in every.outputs])
    combination = replace(found.combination, scale=scale, q=None)
    return covered(calibrate(combination, part, pooling)[0], found.parts["test"])


def shifted(found: Any, gain: float) -> dict[str, Any]:
    """The same held-out flights with another gain of the camera, which no calibration flight had."""
    from cloudml_tf.inference.ensemble.calibration import Judged, covered
    from cloudml_tf.inference.ensemble.members import outputs

    samples = found.parts["test"].samples
    samples = replace(samples, table=(gain * samples.table).astype("float32"))
    return covered(found.combination, Judged(samples, outputs(found.networks, samples)))


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    coverage = np.array([one["coverage"] for one in found["test"].values()])
    mean = found["mean"]
    cells = [name, f"{100 * coverage.mean():.1f} %", f"{100 * coverage.min():.0f} to {100 * coverage.max():.0f} %"]
    cells += [f"{np.sum(coverage < 0.85)} of {len(coverage)}", f"{mean['width']:.3f}", f"{mean['interval_score']:.3f}"]
    return f"| {' | '.join(cells)} |"


def tell(found: Any, alone: dict[str, Any], out: Path) -> None:
    """Print the table, and draw."""
    from cloudml_tf.inference.ensemble.pictures import draw

    print({key: found.metrics[key] for key in ("gain", "crps", "spread")}, file=sys.stderr)
    columns = ("calibrated on", "mean coverage", "of flights", "flights under 85 %", "width", "interval score")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    print(row("validation flight, pooled, spread", alone))
    ways = {f"{count} flights, {pooling}, {scale}": (count, pooling, scale) for count, pooling, scale in WAYS}
    for name, way in ways.items():
        print(row(name, measure(found, *way)))
    print(row(f"9 flights, and held out with the gain x {GAIN:g}", shifted(found, GAIN)))
    told = found.metrics["intervals"]
    print(f"\nSpread alone, without calibration: {100 * told['mean']['spread_alone']:.0f} %\n")
    print("\n".join(told["words"]))
    for picture in draw(found.combination, found.parts["test"], found.metrics):
        if not picture.name.startswith("intervals") or picture.name == "intervals_sim16":
            picture.write(out)


def main() -> None:
    """Simulate, train, calibrate in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=11, help="of the simulated flights")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--frames", type=int, default=SIZE["frames_per_flight"], help="of a flight")
    add_set(parser)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "uncertainty")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        size = {**SIZE, "frames_per_flight": args.frames, "seed": args.seed}
        simulated = simulate_flights(simulation_config(None, size), home / "flights")
        flights = [Path(flight) for flight in simulated]
        runs = tuple(members(flights, home / "runs", args.members, args.set))
        console = Console(machine=True)
        alone = ensemble(EnsembleOptions(runs), {}, console).metrics["intervals"]
        found = ensemble(EnsembleOptions(runs, tuple(str(flights[i]) for i in CALIBRATE)), {}, console)
        tell(found, alone, args.out)


if __name__ == "__main__":
    main()
