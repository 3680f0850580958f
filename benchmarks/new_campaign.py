"""Skill on a shifted flight against the number of its labels: `python benchmarks/new_campaign.py`.

An old campaign of simulated flights trains a network. A new flight has another gain (times 1.3). Its first half gives a
few labels, its second half is the test. A number of labels is all that a user would have to make: four in five train,
the fifth stops the training. The network that goes on from the old run is compared with one that starts anew.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.commands.simulate import simulation_config
from cloudml_tf.config.load import parse_config
from cloudml_tf.config.run_folder import read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.experiments.run import train
from cloudml_tf.reports.figure import BLUE, GREY, INK, ORANGE, Picture, panel, styled
from cloudml_tf.utils.console import Console

SIZE = {"frame_rows": 16, "frame_columns": 16, "strip_width_m": 3200.0}
SHARED: dict[str, Any] = {
    "model": {"widths": [8, 12, 16], "footprint": 7, "encoder_features": 32, "head_units": 32, "mirror_average": True},
    "evaluation": {"baselines": False, "bootstrap_samples": 100},
    "output": {"report": False, "export": False},
}
RATE = 3e-3
OLD = {"batch_size": 64, "learning_rate": RATE, "ema_momentum": 0.99}
NEW: dict[str, Any] = {
    "max_epochs": 60,
    "batch_size": 16,
    "early_stopping_patience": 20,
    "ema_momentum": 0.9,
    "collapse_grace_epochs": 60,
}
HALVES = {"kind": "time_blocks", "val_fraction": 0.1, "test_fraction": 0.5, "gap_s": 60.0}


def write_flights(home: Path, gain: float, seed: int, frames: int) -> tuple[Path, Path, Path]:
    """Folders of the old campaign, of the new flight as it was flown, and of the same with another gain."""
    old = simulation_config(None, {**SIZE, "seed": seed, "flight_count": 6, "frames_per_flight": frames * 2 // 3})
    campaign = simulate_flights(old, home / "old")[0].parent
    new = simulation_config(None, {**SIZE, "seed": seed + 1, "flight_count": 8, "frames_per_flight": frames})
    flown = simulate_flights(new, home / "new")[-1]
    shifted = Path(shutil.copytree(flown, home / "shifted" / "new01"))
    camera = next(shifted.glob("*L1B*"))
    with h5py.File(camera, "r+") as file:
        signal = file["Product/Signal"]
        signal[...] = np.minimum(np.rint(gain * signal[...]), 65_534).astype(signal.dtype)
    return campaign, Path(shutil.copytree(flown, home / "as_flown" / "new01")).parent, shifted.parent


def config_of(folder: Path, split: dict[str, Any], training: dict[str, Any], seed: int, **data: Any) -> Config:
    """One run's configuration."""
    content = {"experiment_name": "new_campaign", "seed": seed, "split": split, "training": training, **SHARED}
    return parse_config({**content, "data": {"path": str(folder), **data}})


def score(run: Path, folder: Path) -> dict[str, float]:
    """Of a finished run on the second half of a flight, as it is."""
    from cloudml_tf.data.scaling import Scaling
    from cloudml_tf.evaluation.scores import scores
    from cloudml_tf.train.network import load_regressor, predict

    config, description = read_run(run)
    test = prepare(config_of(folder, HALVES, {}, 1)).parts["test"]
    z = predict(load_regressor(run, config, description), test)
    return scores(test.label, Scaling.from_json(description["scaling"]).target.unscale(z))


def fitted(config: Config) -> float:
    """R² on the test part after a training by the product's own parts, without its log and its run folder."""
    from cloudml_tf.callbacks import R2EarlyStopping, WeightAverage
    from cloudml_tf.evaluation.scores import scores
    from cloudml_tf.metrics import regression_metrics
    from cloudml_tf.train.batches import Batches, epoch_order
    from cloudml_tf.train.loaders import training_batches
    from cloudml_tf.train.network import make_loss, make_optimizer, predict
    from cloudml_tf.train.warm_start import first_model

    prepared = prepare(config)
    model, target, val = first_model(config, prepared), prepared.scaling.target, prepared.parts["val"]
    batches = training_batches(config, prepared)
    optimizer, loss = make_optimizer(config.training, len(batches)), make_loss(config, batches.variance())
    model.compile(optimizer=optimizer, loss=loss, metrics=regression_metrics())
    stopping, momentum = R2EarlyStopping(config.training.early_stopping_patience), config.training.ema_momentum
    assert momentum is not None  # OLD and NEW have one
    model.fit(
        batches,
        validation_data=Batches(val, target.standardise(val.label), 256),
        epochs=config.training.max_epochs,
        callbacks=[WeightAverage(momentum), epoch_order(batches), stopping],
        shuffle=False,
        verbose=0,
    )
    stopping.restore_best()
    test = prepared.parts["test"]
    return scores(test.label, target.unscale(predict(model, test)))["r2"]


def curve(old: Path, shifted: Path, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """(numbers of labels, seeds) R² of either way."""
    on: dict[str, Any] = {"init_from": str(old), "learning_rate": RATE}
    ways = {"gone on from": on, "from scratch": {"learning_rate": RATE}}
    found = {way: np.full((len(args.labels), len(args.seeds)), np.nan) for way in ways}
    for way, change in ways.items():
        for i, labels in enumerate(args.labels):
            few = {"labels": labels - labels // 5, "val_labels": labels // 5}
            for j, seed in enumerate(args.seeds):
                training = {**NEW, "max_epochs": args.epochs, **change}
                found[way][i, j] = fitted(config_of(shifted, HALVES, training, seed, **few))
                print(f"{way} {labels} labels, seed {seed}: R² {found[way][i, j]:.3f}", file=sys.stderr, flush=True)
    return found


@styled()
def draw(found: dict[str, np.ndarray], labels: list[int], before: float, after: float, gain: float) -> Picture:
    """R² over the number of labels, mean and range of the seeds."""
    made, (ax,) = panel((5.4, 3.4))
    for (way, values), colour in zip(found.items(), (BLUE, ORANGE), strict=True):
        ax.fill_between(labels, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
        ax.plot(labels, values.mean(1), color=colour, marker="o", markersize=4, label=way)
    ax.axhline(before, color=INK, linewidth=1, linestyle="--")
    ax.axhline(after, color=GREY, linewidth=1, linestyle="--")
    ax.axhline(0.5 * (before + after), color=GREY, linewidth=0.8, linestyle=":")
    near: Any = {"fontsize": 8, "va": "bottom", "xytext": (0, 2), "textcoords": "offset points"}
    ax.annotate("old network, gain as it was", (labels[0], before), color=INK, **near)
    ax.annotate("half of the loss", (labels[-1], 0.5 * (before + after)), color=GREY, ha="right", **near)
    ax.annotate(f"old network, gain x {gain:g}", (labels[-1], after), color=GREY, ha="right", **near)
    ax.set(xscale="log", xlabel="labels of the new flight", ylabel="R²", ylim=(min(after, 0.0) - 0.1, 1.0))
    ax.set_xticks(labels, [str(n) for n in labels])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    return Picture("new_campaign", "", made)


def main() -> None:
    """Train, go on, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "uncertainty")
    parser.add_argument("--gain", type=float, default=1.3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 25, 50, 100, 200])
    parser.add_argument("--flights", type=int, default=1, help="seed of the simulated flights")
    parser.add_argument("--frames", type=int, default=3600, help="of the new flight; the old ones have two thirds")
    parser.add_argument("--epochs", type=int, default=NEW["max_epochs"], help="at most; the old network has half")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        campaign, flown, shifted = write_flights(home, args.gain, args.flights, args.frames)
        whole = {"kind": "leave_one_out", "test": "sim06", "val": "sim05"}
        short = {**OLD, "max_epochs": max(args.epochs // 2, 1)}
        old = train(config_of(campaign, whole, short, 1), Console(machine=True), str(home / "run"))[0]
        before, after = (score(old, place)["r2"] for place in (flown, shifted))
        found = curve(old, shifted, args)
    print(f"R² of the old network on the new flight: {before:.3f}; with the gain x {args.gain:g}: {after:.3f}\n")
    print("| labels | gone on from | of the loss recovered | from scratch |\n|---|---|---|---|")
    print(f"| 0 | {after:.3f} | 0 % | - |")
    for labels, on, anew in zip(args.labels, *found.values(), strict=True):
        back = 100 * (on.mean() - after) / (before - after)
        told = [f"{v.mean():.3f} ± {v.std(ddof=min(1, len(v) - 1)):.3f}" for v in (on, anew)]
        print(f"| {labels} | {told[0]} | {back:.0f} % | {told[1]} |")
    draw(found, args.labels, before, after, args.gain).write(args.out)


if __name__ == "__main__":
    main()
