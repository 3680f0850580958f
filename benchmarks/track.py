"""Labels along the track against labels at nadir, by encoder passes: `python benchmarks/track.py`.

Trains configs/tier1.json on simulated flights (with parallax) by seed: as it is, every sequence apart; and with
`target.coverage: "track"` in runs of neighbours, for as many epochs, and for as many encoder passes. Both are judged
at nadir, on the flight that none of them saw. A pass is one frame through the encoder in training.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config import Config, load_config
from cloudml_tf.console import Console
from cloudml_tf.judge import scores
from cloudml_tf.material import training_batches
from cloudml_tf.pipeline import prepare
from cloudml_tf.quiet import quiet_tensorflow
from cloudml_tf.training import fit, make_model, predict, start_keras

TRACK = {"target.coverage": "track", "training.run_length": 8}


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/tier1.json")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--equal", type=int, default=0, help="epochs along the track at equal passes; 0 leaves it out")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    quiet_tensorflow()
    arms: dict[str, dict[str, Any]] = {
        "nadir": {"training.max_epochs": args.epochs},
        "track, as many epochs": TRACK | {"training.max_epochs": args.epochs},
    }
    if args.equal:
        arms["track, as many passes"] = TRACK | {"training.max_epochs": args.equal}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for seed in range(1, args.seeds + 1):
        for name, changes in arms.items():
            config = load_config(args.config, {**changes, "training.early_stopping_patience": 1000, "seed": seed})
            found[name].append(trained(config))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    print(f"\n{table(found)}")


def trained(config: Config) -> dict[str, float]:
    """Scores on the test flight, encoder passes, and seconds."""
    prepared = prepare(config)
    start_keras(config)
    model = make_model(config, prepared.scaling, *prepared.geometry)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(model, config, prepared, Path(folder), Console(quiet=True))
    test = prepared.parts["test"]
    found = scores(prepared.scaling.target.standardise(test.label), predict(model, test))
    passes = frames_of_an_epoch(config, prepared) * len(fitted.history)
    kept = {key: round(found[key], 4) for key in ("r2", "rmse", "correlation", "variance_ratio")}
    return {**kept, "passes": passes, "seconds": round(fitted.seconds, 1)}


def frames_of_an_epoch(config: Config, prepared: Any) -> int:
    """Frames that the encoder sees in an epoch."""
    batches = training_batches(config, prepared)
    return sum(int(np.prod(batches[n][0]["frames"].shape[:-3])) for n in range(len(batches)))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean ± std over seeds, and the paired difference to the first with its 95 % interval."""
    lines = ["| | passes | seconds | test R² | difference (95 %) |", "|---|---|---|---|---|"]
    first = next(iter(found.values()))
    for name, rows in found.items():
        r2 = np.asarray([row["r2"] for row in rows])
        share = np.mean([row["passes"] for row in rows]) / np.mean([row["passes"] for row in first])
        difference = r2 - np.asarray([row["r2"] for row in first])
        told = "" if rows is first else interval(difference)
        seconds = np.mean([row["seconds"] for row in rows])
        lines.append(f"| {name} | {share:.2f} × | {seconds:.0f} | {r2.mean():.3f} ± {r2.std(ddof=1):.3f} | {told} |")
    return "\n".join(lines)


def interval(values: np.ndarray) -> str:
    """The mean and where it lies with 95 %, by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.4f} [{values.mean() - half:+.4f}, {values.mean() + half:+.4f}]"


if __name__ == "__main__":
    main()
