"""What pretraining and ensembles are worth on third-party imagery: `python benchmarks/les_pretraining.py`.

For each held-out flight of les03, les06 and les09: an encoder is pretrained on the frames of the training flights;
then `configs/les.json` is trained from random weights and from that encoder, with 10 % of the labels and with all,
five seeds each. The members of a row together are an ensemble. A second call goes on where the first one was killed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.cli import main as cloudml
from cloudml_tf.grid_summary import spread_of, with_std
from cloudml_tf.runs import read_json

CONFIGS = Path(__file__).parents[1] / "configs"
FLIGHTS = [f"les{n:02d}" for n in range(1, 10)]
TESTS = ("les03", "les06", "les09")
FEW = {  # of the training labels; the validation flight keeps its own. Smaller batches, more epochs, a shorter average
    "data.labels": 0.1,
    "training.batch_size": 32,
    "training.max_epochs": 60,
    "training.early_stopping_patience": 30,
    "training.ema_momentum": 0.99,
}


def split(test: str) -> dict[str, Any]:
    """One flight tests, the next one validates, the other seven train; les10 is in no part."""
    val = FLIGHTS[(FLIGHTS.index(test) + 1) % len(FLIGHTS)]
    train = [name for name in FLIGHTS if name not in (test, val)]
    return {"kind": "flights", "train": train, "val": [val], "test": [test]}


def pretrain(home: Path, test: str) -> Path:
    """The folder of one pretraining, now or from an earlier call."""
    folder = home / "pretrained" / test
    if not (folder / "pretraining.json").is_file():
        changes = [f"split.{part}={json.dumps(names)}" for part, names in split(test).items() if part != "kind"]
        command = ["pretrain", str(CONFIGS / "pretrain.json"), "--run-dir", str(folder)]
        if cloudml([*command, *(word for change in changes for word in ("--set", change))]):
            raise SystemExit(1)
    return folder


def grid_file(home: Path, encoders: dict[str, Path]) -> Path:
    """Four rows on three flights."""
    pretrained = {"pretraining.enabled": True, "pretraining.control": False}
    content = {
        "experiment_name": "les_pretraining",
        "base": json.loads((CONFIGS / "les.json").read_text()),
        "set": {"output.export": False, "output.report": False, "evaluation.baselines": False},
        "variants": {
            test: {"split": split(test), "pretraining.from_run": str(folder)} for test, folder in encoders.items()
        },
        "rows": {
            "10 % of the labels, random": {"set": FEW},
            "10 % of the labels, pretrained": {"set": {**FEW, **pretrained}, "against": "10 % of the labels, random"},
            "all labels, random": {},
            "all labels, pretrained": {"set": pretrained, "against": "all labels, random"},
        },
    }
    path = home / "grid_file.json"
    path.write_text(json.dumps(content, indent=2))
    return path


def joined(home: Path, rows: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """row -> flight -> RMSE of the ensemble and of its mean member."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        for test in TESTS:
            members = sorted(str(path.parent) for path in (home / test / row).glob("seed*/metrics.json"))
            folder = home / "ensembles" / row / test
            if not (folder / "metrics.json").is_file():
                quiet = ["--set", "output.export=false", "--set", "output.report=false"]
                if cloudml(["ensemble", *members, "--run-dir", str(folder), *quiet]):
                    raise SystemExit(1)
            alone = [read_json(Path(member) / "metrics.json")["test"]["rmse"] for member in members]
            together = read_json(folder / "metrics.json")["test"]["rmse"]
            found.setdefault(row, {})[test] = {"members": float(np.mean(alone)), "ensemble": together}
    return found


def main() -> int:
    """Pretrain, train, join, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("runs/les_pretraining"))
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    args = parser.parse_args()
    home = args.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    path = grid_file(home, {test: pretrain(home, test) for test in TESTS})
    if cloudml(["ablate", str(path), "--run-dir", str(home), "--jobs", args.jobs, "--seeds", args.seeds]):
        return 1
    variants = read_json(home / "summary.json")["variants"]
    rows = list(next(iter(variants.values())))
    print("\n| row | " + " | ".join(TESTS) + " | mean | RMSE against random |\n|---|" + "---|" * 5)
    for row in rows:
        rmse = [variants[test][row]["rmse"] for test in TESTS]
        change = [variants[test][row].get("rmse_change", {}).get("mean", np.nan) for test in TESTS]
        mean = f"{np.mean([one['mean'] for one in rmse]):.3f}"
        less = "" if np.isnan(change).any() else with_std(spread_of(np.asarray(change)), "+.1f", 100.0) + " %"
        print(f"| {row} | " + " | ".join(with_std(one) for one in rmse) + f" | {mean} | {less} |")
    print("\n| ensemble of five | " + " | ".join(TESTS) + " | mean | against the mean member |\n|---|" + "---|" * 5)
    for row, by_flight in joined(home, rows).items():
        together = np.array([by_flight[test]["ensemble"] for test in TESTS])
        gain = together / np.array([by_flight[test]["members"] for test in TESTS]) - 1.0
        cells = " | ".join(f"{value:.3f}" for value in together)
        print(f"| {row} | {cells} | {together.mean():.3f} | {100 * gain.mean():+.1f} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
