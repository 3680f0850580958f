"""A swath network trained on a lidar's line, and on dense truth, of simulated flights: where each of them errs.

    cloudml scenes --config configs/flights-swath.json
    python benchmarks/flight_swath.py

Each variant is one training of configs/flights-swath.json; what is finished in --folder is read, not done again. All
are judged by the simulator's truth on whole maps of the test flight, and by the distance from the nadir line.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tools.rounds import machine

from cloudml_tf.config.load import load_config, parse_overrides
from cloudml_tf.experiments.run import train
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_json

CONFIG = Path(__file__).parent.parent / "configs/flights-swath.json"
DENSE = {"data.scenes.label": "optical_depth_truth"}
VARIANTS: dict[str, dict[str, Any]] = {
    "line, whole scenes": {"augmentation.window": None},
    "line, windows": {},
    "truth, whole scenes": {**DENSE, "augmentation.window": None},
    "truth, windows": DENSE,
}
ROWS = ((0, 0), (1, 4), (5, 8), (9, 16))  # pixels from the nadir line


def trained(name: str, seed: int, home: Path, overrides: dict[str, Any]) -> Path:
    """The run folder of one variant."""
    folder = home / name.replace(", ", "-").replace(" ", "-") / f"seed{seed}"
    if not (folder / "metrics.json").is_file():
        light = {"output.export": False, "output.report": False, "seed": seed}
        train(load_config(CONFIG, {**light, **VARIANTS[name], **overrides}), Console(), str(folder))
    return folder


def rmse_by_row(folder: Path) -> list[float]:
    """RMSE on the test maps, by the distance from the nadir line."""
    saved = np.load(folder / "predictions.npz")
    error = saved["test_prediction"] - saved["test_label"]  # (n,H,W), NaN where the truth is out of range
    away = np.abs(np.arange(error.shape[1]) - error.shape[1] // 2)
    return [float(np.sqrt(np.nanmean(error[:, (away >= low) & (away <= high)] ** 2))) for low, high in ROWS]


def row_of(name: str, seeds: list[int], home: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """What a variant reaches, a list over the seeds."""
    folders = [trained(name, seed, home, overrides) for seed in seeds]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    keys = ("r2", "rmse", "variance_ratio", "bias")
    return {
        "variant": name,
        "network": {key: [one["test"][key] for one in metrics] for key in keys},
        "by row": [rmse_by_row(folder) for folder in folders],
        "baselines": {
            other: {key: found["test"][key] for key in keys} for other, found in metrics[0]["baselines"].items()
        },
        "seconds": [one["training"]["seconds"] for one in metrics],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the network of each variant, then the baselines of each kind of label."""
    rows_of_pixels = " | ".join(f"{low} to {high} rows" if high else "nadir line" for low, high in ROWS)
    lines = [f"| trained on | R² | RMSE | s | {rows_of_pixels} | seconds |", "|---" * (len(ROWS) + 5) + "|"]
    for row in rows:
        network, by_row = row["network"], np.mean(row["by row"], axis=0)
        cells = [_told(network[key]) for key in ("r2", "rmse", "variance_ratio")]
        cells += [f"{value:.3f}" for value in by_row] + [f"{np.mean(row['seconds']):.0f}"]
        lines.append(f"| {row['variant']} | {' | '.join(cells)} |")
    for row in rows[::2]:  # windows change no baseline
        for name, found in row["baselines"].items():
            cells = [f"{found[key]:.3f}" for key in ("r2", "rmse", "variance_ratio")]
            label = row["variant"].split(",")[0]
            lines.append(f"| {label}: {name.replace('_', ' ')} | {' | '.join(cells)} |{' |' * (len(ROWS) + 1)}")
    return "\n".join(lines)


def _told(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    """The door."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", default="runs/flight-swath", help="of the runs")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="as for cloudml train")
    args = parser.parse_args()
    home, overrides = Path(args.folder), parse_overrides(args.set)
    rows = [row_of(name, args.seeds, home, overrides) for name in args.variants]
    write_json(home / "table.json", {"rows": rows, "seeds": args.seeds, "machine": machine()})
    print(f"{machine()}; seeds {args.seeds}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
