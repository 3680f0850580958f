"""A configuration over several seeds, as mean ± std: `python benchmarks/seeds.py configs/tier1.json --seeds 1 2 3 4 5`.

Each seed is a run of its own through the command line; the table below them is what README and docs quote.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

KEYS = ("r2", "variance_ratio", "correlation", "bias", "rmse")


def main() -> int:
    """Train each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to every run")
    args = parser.parse_args()
    options = [part for pair in args.set for part in ("--set", pair)]
    with tempfile.TemporaryDirectory() as home:
        found = [train(args.config, seed, options, Path(home)) for seed in args.seeds]
    print(table(args.seeds, found))
    return 0


def train(config: str, seed: int, options: list[str], home: Path) -> dict:
    """One run; returns its metrics."""
    command = [sys.executable, "-m", "cloudml_tf.train", config, "--seed", str(seed), "--set", "output.export=false"]
    folder = home / str(seed)
    subprocess.run([*command, *options, "--run-dir", str(folder)], check=True, stdout=sys.stderr)
    return json.loads((folder / "metrics.json").read_text())


def table(seeds: list[int], found: list[dict]) -> str:
    """Markdown: a row a seed, then mean ± std of the network and of each reference."""
    lines = [
        "| seed | R² | s | r | bias | RMSE | tier | acceptance | training, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for seed, m in zip(seeds, found, strict=True):
        cells = [f"{m['test'][key]:.3f}" for key in KEYS]
        passed = {True: "passed", False: "failed", None: "not judged"}[m["phase3"]["passed"]]
        seconds = f"{m['training']['seconds']:.0f}"
        lines.append("| " + " | ".join([str(seed), *cells, m["tier"]["name"], passed, seconds]) + " |")
    rows = {"network": [m["test"] for m in found]}
    rows |= {name: [m["baselines"][name]["test"] for m in found] for name in found[0].get("baselines", {})}
    rows |= {"oracle": [m["oracle"]["test"] for m in found]} if "oracle" in found[0] else {}
    for name, scores in rows.items():
        values = np.array([[s[key] for key in KEYS] for s in scores], dtype=float)
        cells = [
            f"{m:.3f} ± {d:.3f}"
            for m, d in zip(values.mean(0), values.std(0, ddof=min(1, len(scores) - 1)), strict=True)
        ]
        lines.append("| " + " | ".join([name, *cells, "", "", ""]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
