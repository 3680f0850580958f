"""Leave-one-flight-out: a training for each test flight, and their joint scores."""

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightSplit, LeaveOneOut
from cloudml_tf.config.load import parse_config
from cloudml_tf.config.run_folder import WHOLE, has_begun, new_run, read_json
from cloudml_tf.config.schema import Config
from cloudml_tf.evaluation.scores import S_IS, labels, means_and_stds, number, texts
from cloudml_tf.evaluation.selection import against_in_words, paired
from cloudml_tf.experiments.run import train
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import CloudMLError, ConfigError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import alone_in

SHOWN = ("rmse", "r2", "variance_ratio", "correlation", "bias")


def leave_one_out(
    config: Config, console: Console, names: list[str], run_dir: str | None, resume: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Run one training for each test flight, and join their scores.

    Flights that the configuration keeps for its own test, or excludes, are left out unless they are named. `resume`
    reads the finished folds of `run_dir` and continues with the others.
    """
    from cloudml_tf.data.sources import available_flights

    exclude = [name for name in _held_back(config) if name not in names]
    available = sorted(available_flights(config, left_out={}))
    wrong = sorted(set(names) - set(available))
    if wrong:
        raise ConfigError(f"--lofo names {', '.join(wrong)}; the flights are {', '.join(available)}.")
    if exclude and not names:
        console.warn(f"kept apart by the split, so neither left out nor trained on: {', '.join(exclude)}")
    parent = Path(run_dir) if resume and run_dir is not None else new_run(config, run_dir)
    try:
        with alone_in(parent, "a leave-one-flight-out", below=False):
            folds = {
                name: _fold(config, exclude, name, console, parent / name)
                for name in names or [name for name in available if name not in exclude]
            }
    except CloudMLError:
        with contextlib.suppress(OSError):
            parent.rmdir()  # only if it is empty: bad input must not leave a folder behind
        raise
    joined = join_folds(folds)
    write_json(parent / WHOLE, joined)
    return parent, joined


def _fold(config: Config, exclude: list[str], name: str, console: Console, folder: Path) -> dict[str, Any]:
    """The scores of one fold; a finished one is read, an interrupted one continued."""
    console.say(f"leave-one-flight-out: {name}", style="bold")
    changed = config.model_dump(mode="json")
    changed["split"] = {"kind": "leave_one_out", "test": name, "exclude": exclude}
    changed["experiment_name"] = re.sub(r"[^A-Za-z0-9._-]", "_", f"{config.experiment_name}_{name}")
    fold = parse_config(changed, f"leave-one-flight-out, flight {name}")
    if (folder / WHOLE).is_file():
        return read_json(folder / WHOLE)
    return train(fold, console, str(folder), resume=has_begun(folder))[1]


def _held_back(config: Config) -> list[str]:
    split = config.split
    if isinstance(split, LeaveOneOut):
        return list(split.exclude)
    return list(split.test) if isinstance(split, FlightSplit) else []


def join_folds(folds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and std over folds of the test scores of the network and each baseline."""
    first, keys = next(iter(folds.values())), (*SHOWN, "mae")
    network = means_and_stds([f["test"] for f in folds.values()], keys)
    joined: dict[str, Any] = {"space": first["space"], "network": network}
    joined["baselines"] = {
        name: means_and_stds([f["baselines"][name]["test"] for f in folds.values()], keys)
        for name in first.get("baselines", {})
    }
    joined["folds"] = {name: {key: fold[key] for key in ("test", "tier", "training")} for name, fold in folds.items()}
    for name, fold in folds.items():
        baselines = {baseline: scores["test"] for baseline, scores in fold.get("baselines", {}).items()}
        joined["folds"][name]["baselines"] = baselines
    flights = [fold["test"] for fold in folds.values()]
    joined["bias_spread"] = float(np.std([one["bias"] for one in flights]))
    joined["worst_r2"] = float(np.nanmin(np.array([one["r2"] for one in flights], float)))  # JSON has null for NaN
    if joined["baselines"] and len(folds) > 1:
        best = min(joined["baselines"], key=lambda name: joined["baselines"][name]["rmse"]["mean"])
        theirs = {name: fold["baselines"][best]["test"] for name, fold in folds.items()}
        ours = {name: fold["test"] for name, fold in folds.items()}
        joined["against_best"] = {"baseline": best, **paired({"flights": ours}, {"flights": theirs})}
    return joined


def print_folds(console: Console, joined: dict[str, Any]) -> None:
    """Print the joint table."""
    rows = []
    for name, fold in joined["folds"].items():
        references = [number(scores["rmse"]) for b, scores in fold["baselines"].items() if b != "mean"]
        rows.append([name, *texts(fold["test"], SHOWN), *references])
    network = {key: found["mean"] for key, found in joined["network"].items()}
    references = [number(scores["rmse"]["mean"]) for b, scores in joined["baselines"].items() if b != "mean"]
    rows.append(["mean", *texts(network, SHOWN), *references])
    titles = [f"{name} RMSE" for name in joined["baselines"] if name != "mean"]
    title = f"leave-one-flight-out, {joined['space']['loss']}; {S_IS}"
    console.table(title, ["test flight", *labels(SHOWN), *titles], rows)
    console.say(f"std of the flights' biases {joined['bias_spread']:.3f}; worst R² {joined['worst_r2']:.3f}")
    if "against_best" in joined:
        console.say(against_in_words("the network", joined["against_best"]["baseline"], joined["against_best"]))
