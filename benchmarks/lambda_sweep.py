"""The weight of the variance penalty against the closed form: `python benchmarks/lambda_sweep.py --out docs/losses`.

The original's form, with the batch's and with the training set's target variance, λ from 0 to 10, three seeds, on
simulated flights with little signal, without dropout. At a training correlation r the least of

    1 + s² - 2rs + λ (1 - s²)²

is at one s, and then R² = 2rs - s². The last epoch's training R², with the bias b² taken off, should be that. Then
base heights, in batches of 8 labels 200 m apart, which are all but the same: the largest loss of an epoch tells.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy.optimize import minimize_scalar
from tools.overrides import add_set, overridden

from cloudml_tf.config.load import parse_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.reports.figure import BLUE, INK, ORANGE, Picture, panel, styled
from cloudml_tf.train import fit, network
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import NotFiniteError
from cloudml_tf.utils.files import write_json

WEIGHTS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
SEEDS = (1, 2, 3)
NEIGHBOURS = {"lidar_interval_s": 1.0, "frames_per_flight": 500}  # a label every 200 m
CASES: dict[str, tuple[str, dict[str, Any]]] = {  # name: (target variance, further changes)
    "training": ("training", {}),
    "batch": ("batch", {}),
    "training, neighbours": ("training", {"order": "flight", "batch_size": 8}),
    "batch, neighbours": ("batch", {"order": "flight", "batch_size": 8}),
}
BASE: dict[str, Any] = {
    "experiment_name": "lambda_sweep",
    "temporal_frames": 3,
    "split": {"kind": "flights", "train": ["sim01", "sim02", "sim03"], "val": ["sim07"], "test": ["sim08"]},
    "data": {
        "simulation": {
            "preset": "weak_signal",
            "frames_per_flight": 1800,
            "frame_rows": 16,
            "frame_columns": 16,
            "strip_width_m": 3200.0,
            "lidar_interval_s": 5.0,
            "read_noise": 0.12,
            "shot_noise": 0.12,
        }
    },
    "model": {
        "widths": [4, 6], "footprint": 5, "encoder_features": 8, "heads": 2, "head_units": 8, "dropout": 0.0
    },
    "training": {"max_epochs": 15, "early_stopping_patience": 15, "collapse_grace_epochs": 15, "learning_rate": 2e-3},
}  # fmt: skip


def closed_form(r: float, weight: float) -> tuple[float, float]:
    """s and R² where the expected loss is least, at correlation r."""
    found = minimize_scalar(lambda s: s**2 - 2 * r * s + weight * (1 - s**2) ** 2, bounds=(0, 2), method="bounded")
    return float(found.x), float(2 * r * found.x - found.x**2)


def trained(weight: float, case: str, seed: int, folder: Path, overrides: list[str]) -> dict[str, float | bool]:
    """Scores of the training part after the last epoch, beside the closed form at their r."""
    variance, changes = CASES[case]
    content = {**BASE, "seed": seed, "loss": {"weight": weight, "target_variance": variance}}
    content["training"] = {**BASE["training"], **changes}
    if changes:
        content["target"] = {"name": "cloud_base_km"}
        content["data"] = {"simulation": {**BASE["data"]["simulation"], **NEIGHBOURS}}
    config = parse_config(overridden(content, overrides))
    prepared = prepare(config)
    keras.utils.clear_session()
    network.start_keras(config)
    model = network.make_model(config, prepared.scaling, **prepared.geometry)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fitted = fit.fit(model, config, prepared, folder, Console(quiet=True))
    except NotFiniteError:
        return {"diverged": True, "largest_loss": float("inf")}
    model.load_weights(folder / "last.weights.h5")
    train = prepared.parts["train"]
    found = scores(prepared.scaling.target.standardise(train.label), network.predict(model, train))
    s, r2 = closed_form(found["correlation"], weight)
    b = found["bias"] / found["target_std"]
    largest = max(row["loss"] for row in fitted.history)
    return {
        "r2": found["r2"],
        "s": found["variance_ratio"],
        "r": found["correlation"],
        "b": b,
        "r2_without_bias": found["r2"] + b**2,
        "closed_s": s,
        "closed_r2": r2,
        "val_r2": fitted.history[-1]["val_r2"],
        "largest_loss": largest,
        "diverged": not np.isfinite(largest) or found["r2"] < -1.0,
    }


@styled()
def picture(found: dict[str, dict[str, list[dict[str, float]]]]) -> Picture:
    """Training R² over λ, measured and closed form."""
    made, (ax,) = panel((5.4, 3.2))
    place = np.arange(len(WEIGHTS))
    for case, colour, shift in (("training", BLUE, -0.12), ("batch", ORANGE, 0.12)):
        measured = np.array([[run.get("r2_without_bias", np.nan) for run in found[case][str(w)]] for w in WEIGHTS])
        closed = np.array([[run.get("closed_r2", np.nan) for run in found[case][str(w)]] for w in WEIGHTS])
        spread = measured.std(axis=1, ddof=1)
        ax.errorbar(place + shift, measured.mean(axis=1), yerr=spread, fmt="o", color=colour, label=f"{case} variance")
        ax.plot(place + shift, closed.mean(axis=1), "_", color=INK, markersize=14)
    ax.plot([], [], "_", color=INK, markersize=14, label="closed form at the same r")
    ax.set(xlabel="λ", ylabel="training R² + b²", ylim=(0, 1))
    ax.set_xticks(place, [f"{w:g}" for w in WEIGHTS])
    ax.legend()
    return Picture("lambda_sweep", "", made)


def main() -> None:
    """Train, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/losses"))
    parser.add_argument(
        "--home", type=Path, default=Path("runs/lambda_sweep"), help="finished trainings are kept there"
    )
    add_set(parser)
    args = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    print("variance               λ   R²+b²  closed  |diff|      s  closed s      r   largest loss  val R²")
    for case in CASES:
        for weight in WEIGHTS if not CASES[case][1] else (0.5, 2.0, 10.0):
            runs = []
            for seed in SEEDS:
                kept = args.home / f"{case}_{weight:g}_{seed}.json"
                if not kept.is_file():
                    write_json(kept, trained(weight, case, seed, args.home / "work", args.set))
                runs.append(json.loads(kept.read_text()))
            found.setdefault(case, {})[str(weight)] = runs
            whole = [run for run in runs if "r2" in run]
            mean = {key: float(np.mean([run[key] for run in whole])) for key in whole[0]} if whole else {}
            gap = max((abs(run["r2_without_bias"] - run["closed_r2"]) for run in whole), default=float("nan"))
            largest = max(float("inf") if run["largest_loss"] is None else run["largest_loss"] for run in runs)
            columns = (mean.get(key, float("nan")) for key in ("r2_without_bias", "closed_r2"))
            rest = [mean.get(key, float("nan")) for key in ("s", "closed_s", "r")]
            numbers = " ".join(f"{value:7.3f}" for value in (*columns, gap, *rest))
            print(
                f"{case:<18}{weight:>5g} {numbers} {largest:14.4g} {mean.get('val_r2', float('nan')):7.3f}", flush=True
            )
    write_json(args.out / "lambda_sweep.json", found)
    picture(found).write(args.out)


if __name__ == "__main__":
    main()
