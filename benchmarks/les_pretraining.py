"""What pretraining and ensembles are worth on third-party imagery: `python benchmarks/les_pretraining.py`.

For each held-out flight of les03, les06 and les09: an encoder is pretrained on the frames of other flights; then
`configs/les.json` is trained from random weights and from that encoder, with 10 % of the labels and with all. That is
done five times, each time with another seed and another validation flight; the five of a row are an ensemble.

`--final` joins five for les10, which no setting was chosen on, with pretraining and all labels. A second call goes on
where the first one was killed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tools.overrides import add_set

from cloudml_tf.commands.main import main as cloudml
from cloudml_tf.config.load import parse_overrides
from cloudml_tf.config.run_folder import read_json
from cloudml_tf.evaluation.scores import COLUMNS
from cloudml_tf.experiments.grid.summary import spread_of, t_interval

CONFIGS = Path(__file__).parents[1] / "configs"
FLIGHTS = [f"les{n:02d}" for n in range(1, 10)]
TESTS, FINAL = ("les03", "les06", "les09"), ("les10",)
FEW = {  # of the training labels; the validation flight keeps its own. Smaller batches, more epochs, a shorter average
    "data.labels": 0.1,
    "training.batch_size": 32,
    "training.max_epochs": 60,
    "training.early_stopping_patience": 30,
    "training.ema_momentum": 0.99,
}
PRETRAINED = {"pretraining.enabled": True, "pretraining.control": False}
ROWS: dict[str, dict[str, Any]] = {
    "all labels, random": {},
    "all labels, pretrained": PRETRAINED,
    "10 % of the labels, random": FEW,
    "10 % of the labels, pretrained": {**FEW, **PRETRAINED},
}
QUIET = {"output.export": False, "output.report": False}
Scores = dict[str, dict[str, list[float]]]  # row -> flight -> RMSE of each member


def split(test: str, member: int) -> dict[str, Any]:
    """One flight tests, the member's own validates, the other seven (of les10: eight) train."""
    place = FLIGHTS.index(test) if test in FLIGHTS else 0
    val = FLIGHTS[(place + member) % len(FLIGHTS)]
    train = [name for name in FLIGHTS if name not in (test, val)]
    return {"kind": "flights", "train": train, "val": [val], "test": [test]}


def pretrain(home: Path, test: str, overrides: list[str]) -> Path:
    """The folder of one pretraining, now or from an earlier call; it serves all members. For les10 the file's own."""
    folder, own = home / "pretrained" / test, {} if test in FINAL else split(test, 1)
    if not (folder / "pretraining.json").is_file():
        changes = [f"split.{part}={json.dumps(names)}" for part, names in own.items() if part != "kind"]
        changes += overrides
        command = ["pretrain", str(CONFIGS / "pretrain.json"), "--run-dir", str(folder)]
        if cloudml([*command, *(word for change in changes for word in ("--set", change))]):
            raise SystemExit(1)
    return folder


def train(home: Path, member: int, encoders: dict[str, Path], rows: list[str], args: argparse.Namespace) -> None:
    """One member of every row on every flight, as a grid of its own."""
    content = {
        "experiment_name": f"les_pretraining_{member}",
        "base": json.loads((CONFIGS / "les.json").read_text()),
        "set": {**QUIET, "evaluation.baselines": False, **parse_overrides(args.set)},
        "variants": {
            test: {"split": split(test, member), "pretraining.from_run": str(folder)}
            for test, folder in encoders.items()
        },
        "rows": {row: {"set": ROWS[row]} for row in rows},
        "seeds": [member],
    }
    path = home / f"member{member}.json"
    path.write_text(json.dumps(content, indent=2))
    if cloudml(["ablate", str(path), "--run-dir", str(path.with_suffix("")), "--jobs", args.jobs]):
        raise SystemExit(1)


def members_of(home: Path, test: str, row: str, count: int) -> list[Path]:
    """The run folders of one ensemble."""
    return [home / f"member{member}" / test / row / f"seed{member}" for member in range(1, count + 1)]


def rmse(folder: Path) -> float:
    """On the test flight, of a run or an ensemble."""
    return float(read_json(folder / "metrics.json")["test"]["rmse"])


def join(home: Path, test: str, row: str, count: int) -> Path:
    """The folder of the ensemble, now or from an earlier call."""
    folder = home / "ensembles" / row / test
    if not (folder / "metrics.json").is_file():
        runs, quiet = [str(run) for run in members_of(home, test, row, count)], [f"{k}=false" for k in QUIET]
        if cloudml(["ensemble", *runs, "--run-dir", str(folder), *(w for q in quiet for w in ("--set", q))]):
            raise SystemExit(1)
    return folder


def table_of_rows(found: Scores) -> str:
    """RMSE of single networks, mean ± std over members; the change is paired, and a mean over the flights."""
    tests = list(next(iter(found.values())))
    lines = [f"| row | {' | '.join(tests)} | mean | RMSE against random, 95 % |", "|---|" + "---|" * (len(tests) + 2)]
    for row, by_flight in found.items():
        cells = [COLUMNS["rmse"].with_std(spread_of(np.asarray(by_flight[test]))) for test in tests]
        mean, less = np.mean([by_flight[test] for test in tests]), ""
        others = found.get(row.replace("pretrained", "random"), by_flight)
        if others is not by_flight:
            ratios = [np.asarray(by_flight[test]) / np.asarray(others[test]) - 1.0 for test in tests]
            change = t_interval(np.mean(ratios, axis=0))
            low, high = change["interval"]
            less = f"{100 * change['mean']:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"
        lines.append(f"| {row} | {' | '.join(cells)} | {mean:.3f} | {less} |")
    return "\n".join(lines)


def table_of_ensembles(home: Path, found: Scores, count: int) -> str:
    """RMSE of the members' mean prediction with its 95 % interval by blocks, against the mean RMSE of the members."""
    tests = list(next(iter(found.values())))
    lines = [f"| ensemble of {count} | {' | '.join(tests)} | mean | against the mean member |"]
    lines.append("|---|" + "---|" * (len(tests) + 2))
    for row, by_flight in found.items():
        scores = [read_json(join(home, test, row, count) / "metrics.json")["test"] for test in tests]
        together = np.array([score["rmse"] for score in scores])
        gain = together / np.array([np.mean(by_flight[test]) for test in tests]) - 1.0
        ranges = [score["ci95"]["rmse"] for score in scores]
        cells = " | ".join(f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, (low, high) in zip(together, ranges, strict=True))
        lines.append(f"| {row} | {cells} | {together.mean():.3f} | {100 * gain.mean():+.1f} % |")
    return "\n".join(lines)


def main() -> int:
    """Pretrain, train, join, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("runs/les_pretraining"))
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--members", type=int, default=5, help="networks of a row, each with a seed of its own")
    add_set(parser)
    parser.add_argument("--final", action="store_true", help="les10 instead, pretrained and with all labels")
    args = parser.parse_args()
    home = (args.home / ("final" if args.final else "chosen")).resolve()
    home.mkdir(parents=True, exist_ok=True)
    tests, rows = (FINAL, ["all labels, pretrained"]) if args.final else (TESTS, list(ROWS))
    encoders = {test: pretrain(home, test, args.set) for test in tests}
    for member in range(1, args.members + 1):
        train(home, member, encoders, rows, args)
    found = {
        row: {test: [rmse(run) for run in members_of(home, test, row, args.members)] for test in tests} for row in rows
    }
    print("\n" + table_of_rows(found))
    print("\n" + table_of_ensembles(home, found, args.members))
    return 0


if __name__ == "__main__":
    sys.exit(main())
