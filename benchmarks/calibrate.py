"""What a few labels mend of a flight with another gain: `python benchmarks/calibrate.py`.

A network of six simulated flights meets others, whose cameras have gains of their own. Of each flight some labels
fit a level and a scale, as `cloudml calibrate` does, and all others score it, beside the best straight line through
them: "recovered" is the share of what that line takes away of the mean squared error.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from new_campaign import OLD, SIZE, config_of

from cloudml_tf.commands.simulate import simulation_config
from cloudml_tf.config.load import parse_config
from cloudml_tf.config.run_folder import read_model
from cloudml_tf.config.schema import Config
from cloudml_tf.data.independence import effective_size
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.data.sources import samples_of
from cloudml_tf.evaluation.level_scale import (
    LevelScale,
    chosen_labels,
    fit_level_scale,
    share_recovered,
    straight_line,
)  # fmt: skip
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.experiments.run import train
from cloudml_tf.utils.console import Console

Flight = tuple[np.ndarray, np.ndarray]  # targets and predictions (n,) in the space in which the network learns


def new_flights(home: Path, config: Config, args: argparse.Namespace) -> list[tuple[float, Samples]]:
    """Flights of another seed, each with a gain: normal in the logarithm."""
    gains = np.exp(args.gain_std * np.random.default_rng(args.seed).normal(size=args.flights))
    size = {**SIZE, "seed": args.seed + 1, "flight_count": args.flights, "frames_per_flight": args.frames}
    folder = simulate_flights(simulation_config(None, size), home / "new")[0].parent
    samples = samples_of(find_flights(folder, config.data), config)
    found = []
    for number, gain in enumerate(gains):
        one = samples.take(samples.flight == number)
        found.append((float(gain), replace(one, table=(gain * one.table).astype(one.table.dtype))))
    return found


def calibrated(flight: Flight, labels: int, consecutive: bool, std: float) -> dict[str, float]:
    """Scores of a flight's other labels: as it is, calibrated, and by the best straight line through them."""
    target, prediction = flight
    chosen = chosen_labels(len(target), labels, consecutive)
    n_eff = effective_size(target[chosen], np.zeros(labels))
    line = fit_level_scale(target[chosen], prediction[chosen], n_eff, std)
    rest = np.delete(np.arange(len(target)), chosen)
    best = straight_line(target[rest], prediction[rest])
    found = {
        name: scores(target[rest], each.of(prediction[rest]))
        for name, each in (("before", LevelScale()), ("after", line), ("line", best))
    }
    mse = {name: one["rmse"] ** 2 for name, one in found.items()}
    recovered = share_recovered(mse["before"], mse["after"], mse["line"])
    return {"n_eff": n_eff, "recovered": recovered, **{name: one["r2"] for name, one in found.items()}}


def main() -> int:
    """Train, plant, calibrate, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flights", type=int, default=24)
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--gain-std", type=float, default=0.2, help="of the logarithm of the gain")
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--transform", default="log", help="target.transform")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        size = {**SIZE, "seed": args.seed, "flight_count": 6, "frames_per_flight": args.frames}
        campaign = simulate_flights(simulation_config(None, size), home / "old")[0].parent
        split = {"kind": "leave_one_out", "test": "sim06", "val": "sim05"}
        content = config_of(campaign, split, {**OLD, "max_epochs": args.epochs}, args.seed).model_dump(mode="json")
        content["target"]["transform"] = args.transform
        run = train(parse_config(content), Console(machine=True), str(home / "run"))[0]
        flights, std = predicted(run, home, args)
    report(flights, std, args)
    return 0


def predicted(run: Path, home: Path, args: argparse.Namespace) -> tuple[list[Flight], float]:
    """Targets and predictions of each new flight, and the standard deviation of the training labels."""
    from cloudml_tf.inference.model import open_record

    record = read_model(run)
    model, scaling = open_record(record), Scaling.from_json(record.description["scaling"]).target
    found: list[Flight] = []
    for gain, samples in new_flights(home, record.config, args):
        target, value = (scaling.transform(each) for each in (samples.label, model.predict(samples)["value"]))
        found.append((target, value))
        shown = scores(target, value)
        print(f"gain {gain:.2f}: R² {shown['r2']:.3f}, r {shown['correlation']:.3f}", file=sys.stderr)
    return found, scaling.std


def report(flights: list[Flight], std: float, args: argparse.Namespace) -> None:
    """Print the table: means over flights, and the median of what was recovered."""
    print("| labels | effective | R² before | after | best line | recovered, median | flights made worse |")
    print("|---|---|---|---|---|---|---|")
    for consecutive in (False, True):
        for labels in args.labels:
            rows = [calibrated(flight, labels, consecutive, std) for flight in flights]
            middle = {key: np.nanmean([row[key] for row in rows]) for key in rows[0]}
            recovered = np.nanmedian([row["recovered"] for row in rows])
            worse = sum(row["after"] < row["before"] for row in rows)
            print(
                f"| {labels} {'consecutive' if consecutive else 'spread'} | {middle['n_eff']:.1f} | "
                f"{middle['before']:.3f} | {middle['after']:.3f} | {middle['line']:.3f} | "
                f"{recovered:.0%} | {worse} of {len(rows)} |"
            )


if __name__ == "__main__":
    sys.exit(main())
