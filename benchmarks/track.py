"""Labels along the track against labels at nadir, by encoder passes: `python benchmarks/track.py`.

Trains by seed on the flights of configs/tier1.json, which show parallax: the configuration as it stands; with labels
along the track, in at most half of its passes; and, so that a gain can be told from that of the settings, with these
settings and labels at nadir. All are judged at nadir: on the test flight, and on eight flights of another simulation
that none of them saw. A pass is one frame through the encoder in training.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tools.overrides import add_set

from cloudml_tf.config.load import load_config, parse_overrides
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.train.loaders import training_batches
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.tf_logging import quiet_tensorflow

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "tier1.json"
# Chosen with one seed, by the validation flight and flights of simulation seed 2026; the test flight was in sight.
SHORT = {"training.max_epochs": 12, "training.early_stopping_patience": 12, "loss.weight": 0.25}
ARMS: dict[str, dict[str, Any]] = {
    "nadir, configs/tier1.json": {},
    "track, 12 epochs": {**SHORT, "target.coverage": "track"},
    "nadir, 12 epochs": SHORT,
}
FURTHER = {"data.simulation.seed": 2027}  # the same regimes, other clouds; judged once
JUDGED = {"test": "test flight", "further": "eight further flights"}


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    add_set(parser)
    parser.add_argument("--worker", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(trained(args.worker[0], int(args.worker[1]), parse_overrides(args.set))))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for seed in range(1, args.seeds + 1):
        for name, rows in found.items():
            command = [sys.executable, __file__, "--worker", name, str(seed)]
            command += [part for pair in args.set for part in ("--set", pair)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr[-3000:]}")
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"seed {seed}, {name}: {rows[-1]}", flush=True)
    print(f"\n{table(found)}")


def trained(name: str, seed: int, overrides: dict[str, Any]) -> dict[str, float]:
    """R² of each judged part, mean over its flights; the validation R²; encoder passes."""
    quiet_tensorflow()
    from cloudml_tf.train.fit import fit
    from cloudml_tf.train.network import make_model, predict, start_keras

    config = load_config(CONFIG, {**ARMS[name], "seed": seed, **overrides})
    prepared, further = prepare(config), prepare(load_config(CONFIG, {**overrides, **FURTHER}))
    start_keras(config)
    model = make_model(config, prepared.scaling, **prepared.geometry)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(model, config, prepared, Path(folder), Console(quiet=True))
    found = {"validation": max(row["val_r2"] for row in fitted.history)}
    for key, parts in (("test", [prepared.parts["test"]]), ("further", list(further.parts.values()))):
        r2 = []
        for samples in parts:
            target, prediction = prepared.scaling.target.standardise(samples.label), predict(model, samples)
            flights = [samples.group == number for number in np.unique(samples.group)]
            r2 += [scores(target[here], prediction[here])["r2"] for here in flights]
        found[key] = float(np.mean(r2))
    passes = frames_of_an_epoch(config, prepared) * len(fitted.history)
    return {**{key: round(value, 4) for key, value in found.items()}, "passes": passes}


def frames_of_an_epoch(config: Config, prepared: Prepared) -> int:
    """Frames that the encoder sees in an epoch."""
    batches = training_batches(config, prepared)
    return sum(int(np.prod(batches[n][0]["frames"].shape[:-3])) for n in range(len(batches)))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean ± std over seeds, and paired differences to the first with their 95 % intervals."""
    columns = "".join(f" R², {words} | difference (95 %) |" for words in JUDGED.values())
    lines = [f"| labels at | passes |{columns}", "|---|---|" + "---|---|" * len(JUDGED)]
    first = next(iter(found.values()))
    for name, rows in found.items():
        share = np.mean([row["passes"] for row in rows]) / np.mean([row["passes"] for row in first])
        line = f"| {name} | {share:.2f} × |"
        for key in JUDGED:
            r2 = np.asarray([row[key] for row in rows])
            told = "" if rows is first else interval(r2 - np.asarray([row[key] for row in first]))
            line += f" {r2.mean():.4f} ± {r2.std(ddof=1):.4f} | {told} |"
        lines.append(line)
    return "\n".join(lines)


def interval(values: np.ndarray) -> str:
    """The mean and where it lies with 95 %, by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.4f} [{values.mean() - half:+.4f}, {values.mean() + half:+.4f}]"


if __name__ == "__main__":
    main()
