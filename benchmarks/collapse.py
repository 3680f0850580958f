"""The pictures of docs/collapse.md: `python benchmarks/collapse.py --out docs/collapse` (about two minutes).

A tiny network is trained on six simulated flights: with a signal, and with none (camera and lidar see unrelated
clouds), each with λ = 0 and λ = 0.5. curves.png shows validation loss, s and R² of each epoch; plane.png shows the
epochs on the plane of r and s, over the R² that the identity R² = r² - (s - r)² gives there.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from tools.overrides import add_set

CONFIG = Path(__file__).parent.parent / "configs/tutorial.json"
FAST = (
    "output.export=false",
    "output.report=false",
    "training.early_stopping_patience=15",
    "evaluation.baselines=false",
)
RUNS = {  # name: (colour, settings)
    "signal, λ = 0": ("#2166ac", ["loss.weight=0"]),
    "signal, λ = 0.5": ("#67a9cf", []),
    "no signal, λ = 0": ("#b2182b", ["data.simulation.preset=no_signal", "loss.weight=0"]),
    "no signal, λ = 0.5": ("#ef8a62", ["data.simulation.preset=no_signal"]),
}


def main() -> int:
    """Train the four runs, draw the two pictures, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    add_set(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = {name: train(Path(home), name, [*changes, *args.set]) for name, (_, changes) in RUNS.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    draw_curves(found, args.out / "curves.png")
    draw_plane(found, args.out / "plane.png")
    print(table(found))
    return 0


def train(home: Path, name: str, changes: list[str]) -> dict:
    """One run; its history by column, and the scores of its test part."""
    folder = home / name
    options = [part for pair in [f"data.cache={home / 'flights'}", *FAST, *changes] for part in ("--set", pair)]
    command = [sys.executable, "-m", "cloudml_tf.train", str(CONFIG), *options, "--run-dir", str(folder)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode not in (0, 3):  # 3: stopped as collapsed, which is a result here
        raise SystemExit(done.returncode)
    rows = list(csv.DictReader((folder / "history.csv").open()))
    history = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    return {"history": history, "test": json.loads((folder / "metrics.json").read_text())["test"]}


def draw_curves(found: dict, path: Path) -> None:
    """Validation loss, s and R² over the epochs, a line a run."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.1), layout="constrained")
    columns = {"val_loss": "validation loss", "val_variance_ratio": "s = std(p) / std(t)", "val_r2": "R²"}
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for name, run in found.items():
            values = run["history"][column]
            axis.plot(np.arange(1, len(values) + 1), values, color=RUNS[name][0], label=name, marker=".")
        axis.set(xlabel="epoch", title=label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[2].axhline(0, color="0.7", lw=0.8)
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def draw_plane(found: dict, path: Path) -> None:
    """Each epoch at its r and s; lines of equal R² = 2rs - s² behind, and s = r where it is largest."""
    figure, axis = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    r, s = np.meshgrid(np.linspace(-0.2, 1, 121), np.linspace(0, 1.2, 121))
    lines = axis.contour(r, s, 2 * r * s - s**2, levels=[-1, -0.5, -0.2, 0, 0.2, 0.4, 0.6, 0.8], colors="0.75")
    axis.clabel(lines, fontsize=8)
    axis.plot([0, 1], [0, 1], color="0.4", ls="--", lw=1, label="s = r: the best R² at each r")
    for name, run in found.items():
        h = run["history"]
        axis.plot(h["val_correlation"], h["val_variance_ratio"], ".-", color=RUNS[name][0], label=name, lw=0.8)
    axis.set(xlabel="r, correlation", ylabel="s, spread of predictions over spread of labels", ylim=(0, 1.2))
    axis.legend(fontsize=8, framealpha=1, edgecolor="none", loc="upper left")
    figure.savefig(path, dpi=110)


def table(found: dict) -> str:
    """Markdown: validation part, first and last epoch of each run."""
    lines = ["| run | epoch | validation loss | s | r | bias, std | R² |", "|---|---|---|---|---|---|---|"]
    keys = ("val_loss", "val_variance_ratio", "val_correlation", "val_bias", "val_r2")
    for name, run in found.items():
        count = len(run["history"]["val_loss"])
        for epoch in (1, count):
            cells = [f"{run['history'][key][epoch - 1]:.3f}" for key in keys]
            lines.append(f"| {name} | {epoch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
