"""Planted failures, really trained, and what `cloudml diagnose` calls them: `python benchmarks/diagnose_cases.py`.

Each case is a small configuration with one fault planted in it, in the flight files or in the settings. A case is
trained once and kept in --home, so that the rules can be judged again in seconds.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.config import parse_config
from cloudml_tf.console import Console
from cloudml_tf.errors import NotFiniteError
from cloudml_tf.simulation.settings import SimulationConfig
from cloudml_tf.simulation.simulator import simulate_flights

SIMULATION = {
    "flight_count": 6,
    "frames_per_flight": 600,
    "frame_rows": 12,
    "frame_columns": 12,
    "lidar_interval_s": 2.0,
    "strip_width_m": 3200.0,
}
BASE: dict[str, Any] = {
    "seed": 3,
    "split": {"kind": "flights", "train": ["sim01", "sim02", "sim03", "sim04"], "val": ["sim05"], "test": ["sim06"]},
    "data": {"simulation": SIMULATION},
    "model": {"widths": [8, 12], "footprint": 5, "encoder_features": 24, "heads": 2, "head_units": 24},
    "training": {"max_epochs": 12, "batch_size": 32, "learning_rate": 3e-3},
    "evaluation": {"bootstrap_samples": 200},
    "output": {"export": False},
}
BLOCKS = {"kind": "time_blocks", "val_fraction": 0.2, "test_fraction": 0.2, "gap_s": 5.0}
DAYS, SIGNAL = "layer_descriptor/Profile_Decimal_Julian_Day", "Product/Signal"
Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A configuration with one fault, and the name that the fault should be given."""

    name: str
    expected: str
    changes: dict[str, Any] = field(default_factory=dict)
    edit: Edit | None = None  # of the folder that holds the flights, before training
    held_out: Edit | None = None  # the same for a copy of sim06 that the finished run is evaluated on


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with the sections of `changes` laid over it; a split is replaced whole."""
    out = json.loads(json.dumps(base))
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict) and "kind" not in value
        out[key] = merged(out[key], value) if both else value
    return out


def shift_lidar(seconds: float, *flights: str) -> Edit:
    """Set the lidar's clock wrong."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, flights, "CPL_*"):
            with h5py.File(path, "r+") as file:
                file[DAYS][...] += seconds / 86400.0

    return edit


def brighten(factor: float, *flights: str) -> Edit:
    """Multiply the radiance."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, flights, "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                scaled = np.clip(file[SIGNAL][()] * factor, 0, np.iinfo(file[SIGNAL].dtype).max - 1)
                file[SIGNAL][...] = scaled.astype(file[SIGNAL].dtype)

    return edit


def shuffle_profiles(seed: int = 0) -> Edit:
    """Deal the profiles' times out anew: every label belongs to another scene."""

    def edit(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        for path in chosen(folder, (), "CPL_*"):
            with h5py.File(path, "r+") as file:
                days = file[DAYS][()]
                file[DAYS][...] = days[rng.permutation(len(days))]

    return edit


def copy_flight(source: str, target: str, noise: float = 0.02) -> Edit:
    """Replace one flight by a noisy copy of another: the same scenes under another name."""

    def edit(folder: Path) -> None:
        shutil.rmtree(folder / target)
        shutil.copytree(folder / source, folder / target)
        for path in chosen(folder, (target,), "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                counts = file[SIGNAL][()]
                noisy = counts * (1 + noise * np.random.default_rng(1).standard_normal(counts.shape))
                file[SIGNAL][...] = np.clip(noisy, 0, np.iinfo(counts.dtype).max - 1).astype(counts.dtype)

    return edit


def chosen(folder: Path, flights: Sequence[str], pattern: str) -> list[Path]:
    """The files of one kind, of all flights or of those named."""
    return sorted(path for path in folder.glob(f"*/{pattern}") if not flights or path.parent.name in flights)


def training(**changes: Any) -> dict[str, Any]:
    """A change of the training section."""
    return {"training": changes}


def simulation(**changes: Any) -> dict[str, Any]:
    """A change of the simulated flights."""
    return {"data": {"simulation": changes}}


SMALL: dict[str, Any] = {"split": {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]}}
FOUR = {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]}


def small(**changes: Any) -> dict[str, Any]:
    """Three short flights and a smaller network's training."""
    flights = {"flight_count": 3, "frames_per_flight": 300, **changes}
    return {**simulation(**flights), **training(max_epochs=15, batch_size=16)}


TINY_INIT = {"model": {"output_init": 1e-6}, "loss": {"weight": 0}}
CASES = [
    Case("healthy", "healthy"),
    Case("healthy, no penalty", "healthy", {"loss": {"weight": 0}, "seed": 5, **simulation(seed=12)}),
    Case("healthy, log target", "healthy", {"target": {"transform": "log"}, **simulation(seed=8)}),
    Case("healthy, time blocks", "healthy", {"split": {**BLOCKS, "gap_s": 30.0}, **simulation(seed=9)}),
    Case("healthy, one frame", "healthy", {"temporal_frames": 1, "model": {"architecture": "single_frame"}, "seed": 4}),
    Case("healthy, averaged", "healthy", {**training(ema_momentum=0.95), "loss": {"base": "huber"}, "seed": 6}),
    Case("healthy, hard imagery", "healthy", {**simulation(preset="hard"), "loss": {"weight": 0.1}}),
    Case("healthy, wider", "healthy", simulation(frame_rows=16, frame_columns=16, seed=11, lidar_interval_s=3.0)),
    Case("no signal", "no correlation", simulation(preset="no_signal")),
    Case("no signal, no penalty", "no correlation", {"loss": {"weight": 0}, **simulation(preset="no_signal", seed=3)}),
    Case("labels dealt anew", "no correlation", edit=shuffle_profiles()),
    Case("tiny output", "collapse", {**TINY_INIT, **training(learning_rate=1e-9, collapse_grace_epochs=1)}),
    Case(
        "average of the start",
        "collapse",
        {
            "model": {"output_init": 1e-3},
            "loss": {"weight": 0},
            **training(ema_momentum=0.9, max_epochs=4, learning_rate=1e-4),
        },
    ),
    Case("lambda 50, noisy labels", "inflation", {"loss": {"weight": 50}, **simulation(lidar_relative_noise=0.8)}),
    Case("lambda 50, hard imagery", "inflation", {"loss": {"weight": 50}, **simulation(preset="hard")}),
    Case(
        "lambda 5, noisy labels",
        "inflation",
        {"loss": {"weight": 5}, **simulation(lidar_relative_noise=1.0, seed=5)},
    ),
    Case("test flight bright", "bias", edit=brighten(1.5, "sim06")),
    Case("test flight dim", "bias", edit=brighten(0.6, "sim06")),
    Case("validation flight bright", "bias", edit=brighten(1.4, "sim05")),
    Case(
        "blocks and another flight",
        "leak",
        {"split": BLOCKS, **simulation(flight_count=4)},
        held_out=brighten(1.3),
    ),
    Case("validation is a copy", "leak", edit=copy_flight("sim02", "sim05")),
    Case("dropout 0.9", "over-regularised", {"model": {"dropout": 0.9}}),
    Case("weight decay 10", "over-regularised", {"loss": {"weight": 0}, **training(weight_decay=10.0)}),
    Case(
        "frames, dropout, overweight",
        "over-regularised",
        {"temporal_frames": 15, "overweight_factor": 5.0, "model": {"dropout": 0.8}, **training(weight_decay=1.0)},
    ),
    Case("rate 1", "learning rate", training(learning_rate=1.0)),
    Case("rate 0.1", "learning rate", training(learning_rate=0.1, gradient_clip_norm=None)),
    Case("rate 1e-7", "learning rate", training(learning_rate=1e-7)),
    Case("rate 2e-5", "learning rate", training(learning_rate=2e-5)),
    Case(
        "not finite",
        "learning rate",
        {"model": {"output_init": 1e30}, **training(learning_rate=10, gradient_clip_norm=None, warmup_epochs=0)},
    ),
    Case("a profile in 40 s", "too few labels", simulation(lidar_interval_s=40.0)),
    Case(
        "one short flight",
        "too few labels",
        {
            "split": {"kind": "flights", "train": ["sim02"], "val": ["sim05"], "test": ["sim06"]},
            **simulation(frames_per_flight=160, lidar_interval_s=8.0, preset="hard"),
        },
    ),
    Case("clock 30 s late", "bad clock", edit=shift_lidar(30.0)),
    Case("clock 12 s early", "bad clock", edit=shift_lidar(-12.0)),
    Case("clock of the test flight", "bad clock", edit=shift_lidar(40.0, "sim06")),
    # The second half was planted once the rules stood, on other flights, seeds and sizes.
    Case("B healthy, three flights", "healthy", {**SMALL, **small(seed=20), "seed": 1}),
    Case("B healthy, three flights, other clouds", "healthy", {**SMALL, "seed": 2, **small(seed=21)}),
    Case("B healthy, four flights", "healthy", {**SMALL, "split": FOUR, **small(seed=22, flight_count=4)}),
    Case("B healthy, no dropout", "healthy", {**SMALL, "model": {"dropout": 0.0}, **small(seed=23)}),
    Case("B healthy, five frames", "healthy", {**SMALL, "temporal_frames": 5, **small(seed=24)}),
    Case("B healthy, small lambda", "healthy", {**SMALL, "loss": {"weight": 0.1}, **small(seed=25)}),
    Case("B healthy, wide frames", "healthy", {**SMALL, **small(seed=26, frame_rows=16, frame_columns=16)}),
    Case("B healthy, simple network", "healthy", {**SMALL, "model": {"architecture": "simple_cnn"}, **small(seed=27)}),
    Case("B healthy, log", "healthy", {**SMALL, "target": {"transform": "log"}, **small(seed=28)}),
    Case("B healthy, augmented", "healthy", {**SMALL, "augmentation": {"gain_std": 0.05}, **small(seed=29)}),
    Case("B no signal", "no correlation", {**SMALL, **small(preset="no_signal", seed=31)}),
    Case("B labels dealt anew", "no correlation", {**SMALL, **small(seed=32)}, edit=shuffle_profiles(5)),
    Case(
        "B collapse by init and absolute loss",
        "collapse",
        {
            **SMALL,
            "model": {"output_init": 0.001},
            "loss": {"base": "mae", "weight": 0},
            **merged(small(seed=33), training(learning_rate=2e-4, max_epochs=4, warmup_epochs=4)),
        },
    ),
    Case(
        "B original recipe",
        "collapse",
        {
            **SMALL,
            "temporal_frames": 7,
            "overweight_factor": 1.5,
            "model": {"output_init": 0.01, "dropout": 0.25},
            "loss": {"base": "huber", "weight": 0},
            **merged(
                small(seed=34),
                training(
                    weight_decay=0.04,
                    learning_rate=1e-4,
                    warmup_epochs=8,
                    early_stopping_monitor="val_loss",
                    early_stopping_patience=2,
                    max_epochs=8,
                ),
            ),
        },
    ),
    Case("B lambda 20, hard", "inflation", {**SMALL, "loss": {"weight": 20}, **small(seed=35, preset="hard")}),
    Case("B lambda 100, noise", "inflation", {**SMALL, "loss": {"weight": 100}, **small(seed=36, shot_noise=0.2)}),
    Case("B test flight 1.4", "bias", {**SMALL, **small(seed=37)}, edit=brighten(1.4, "sim03")),
    Case("B test flight 0.7", "bias", {**SMALL, **small(seed=38)}, edit=brighten(0.7, "sim03")),
    Case(
        "B blocks without a gap",
        "leak",
        {**SMALL, "split": {**BLOCKS, "gap_s": 0.5}, "temporal_frames": 1, **small(seed=39)},
        held_out=brighten(0.8),
    ),
    Case("B validation is a copy", "leak", {**SMALL, **small(seed=40)}, edit=copy_flight("sim01", "sim02", 0.01)),
    Case("B dropout 0.8", "over-regularised", {**SMALL, "model": {"dropout": 0.8}, **small(seed=41)}),
    Case(
        "B weight decay 10, eleven frames",
        "over-regularised",
        {
            **SMALL,
            "temporal_frames": 11,
            "model": {"dropout": 0.6},
            **merged(small(seed=42), training(weight_decay=10)),
        },
    ),
    Case("B rate 0.3", "learning rate", {**SMALL, **merged(small(seed=43), training(learning_rate=0.3))}),
    Case("B rate 1e-6", "learning rate", {**SMALL, **merged(small(seed=44), training(learning_rate=1e-6))}),
    Case("B a profile in 25 s", "too few labels", {**SMALL, **small(seed=45, lidar_interval_s=25.0)}),
    Case("B forty frames", "too few labels", {**SMALL, **small(seed=46, frames_per_flight=40)}),
    Case("B clock 20 s", "bad clock", {**SMALL, **small(seed=47)}, edit=shift_lidar(20.0)),
    Case("B clock -60 s", "bad clock", {**SMALL, **small(seed=48)}, edit=shift_lidar(-60.0)),
    Case("B clock 6 s", "bad clock", {**SMALL, **small(seed=49)}, edit=shift_lidar(6.0)),
]


def flights_of(content: dict[str, Any], cache: Path) -> Path:
    """The folder of the simulated flights of a configuration."""
    settings = SimulationConfig.model_validate(content["data"]["simulation"])
    return Path(simulate_flights(settings, cache)[0]).parent


def edited_copy(flights: Path, target: Path, edit: Edit, only: str = "*") -> Path:
    """A copy of the flights with the fault planted."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in sorted(flights.glob(only)):
        shutil.copytree(folder, target / folder.name)
    edit(target)
    return target


def train_case(case: Case, home: Path, console: Console) -> tuple[Path, Path | None]:
    """Train a case, unless it is there; its run folder, and the folder of its evaluation."""
    from cloudml_tf.cli import main
    from cloudml_tf.train import train

    folder = home / case.name.replace(" ", "_").replace(",", "").replace(".", "")
    run, evaluation = folder / "run", folder / "evaluation" if case.held_out else None
    done, planted = folder / "done", json.dumps(case.changes)
    if done.is_file() and done.read_text() == planted:
        return run, evaluation
    shutil.rmtree(folder, ignore_errors=True)
    content = merged(BASE, {"experiment_name": "case", **case.changes})
    flights = flights_of(content, home / "simulated")
    content["data"]["path"] = str(flights if case.edit is None else edited_copy(flights, folder / "flights", case.edit))
    try:
        train(parse_config(content), console, str(run))
    except NotFiniteError as error:
        console.say(str(error))
    if case.held_out is not None:
        all_six = flights_of(merged(BASE, simulation(seed=2024)), home / "simulated")
        judged = edited_copy(all_six, folder / "held_out", case.held_out, only="sim06")
        main(["evaluate", str(run), "--flights", str(judged), "--run-dir", str(evaluation)])
    done.write_text(planted)
    return run, evaluation


def main() -> int:
    """Train what is not there yet, diagnose all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("runs/diagnose_cases"))
    parser.add_argument("--only", nargs="*", default=[], help="names of cases, or the verdict they expect")
    args = parser.parse_args()
    console = Console(machine=True)
    wanted = [case for case in CASES if not args.only or case.name in args.only or case.expected in args.only]
    right = 0
    print("| planted | expected | verdict |\n|---|---|---|")
    for case in wanted:
        run, evaluation = train_case(case, args.home, console)
        got = verdict_of(run, evaluation)
        right += got == case.expected
        print(f"| {case.name} | {case.expected} | {got}{'' if got == case.expected else ' **wrong**'} |", flush=True)
    print(f"\n{right} of {len(wanted)} right")
    return 0 if right == len(wanted) else 1


def verdict_of(run: Path, evaluation: Path | None) -> str:
    """What the rules say."""
    from cloudml_tf.diagnose import diagnose

    return diagnose(run, evaluation)["verdict"]


if __name__ == "__main__":
    sys.exit(main())
