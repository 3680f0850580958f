"""What ruins the next flight, really trained, and whether it is named: `python benchmarks/planted_ruin.py`.

30 runs: 15 are ruined (planted/next_flight.py says by what), 15 are sound. Every ruined run has to be named, with one
of the names that were fixed before, and at most one sound run may be blamed. A run is trained once and kept in --home,
so that rules can be judged again in seconds; with --check the flights are looked at by `cloudml check` too. With
--remedies, what is advised for a flight shift, and what is not, is tried out on other flights: R² on the test flight.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from diagnose_cases import train_case
from planted.faults import merged
from planted.next_flight import DEVELOPMENT, NEXT_FLIGHT, SHIFTED, Planted

from cloudml_tf.commands.check import check
from cloudml_tf.config.load import load_config
from cloudml_tf.config.run_folder import read_json
from cloudml_tf.data.independence import effective_size
from cloudml_tf.evaluation.level_scale import chosen_labels, fit_level_scale
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.utils.console import Console

SETS = {"next-flight": NEXT_FLIGHT, "development": DEVELOPMENT}
MOST_BLAMED = 1  # sound runs
COLUMNS = ("planted", "seeds", "expected", "verdict", "findings", "R² val", "R² test", "r test", "right")


def judged(case: Planted, home: Path, console: Console) -> tuple[bool, list[str]]:
    """Train a case unless it is there, and diagnose it: whether it is named rightly, and its row of the table."""
    from cloudml_tf.diagnostics.diagnosis.verdict import diagnose

    run = train_case(case, home, console)[0]
    found, metrics = diagnose(run), read_json(run / "metrics.json")
    right = case.is_right(found["verdict"])
    simulation = case.changes["data"]["simulation"]
    cells = [
        case.name,
        f"{simulation['seed']}, {case.changes['seed']}",
        " or ".join((case.expected, *case.also)),
        found["verdict"],
        ", ".join(finding["name"] for finding in found["findings"]) or "-",
        *(f"{metrics[part]['r2']:.2f}" for part in ("val", "test")),
        f"{metrics['test']['correlation'] or 0:.2f}",
        "yes" if right else "**no**",
    ]
    return right, cells


def checked(run: Path, console: Console) -> str:
    """What `cloudml check` warns of on the flights of a run, without its network."""
    found = check(load_config(run / "config.json", {}), console, probe=False)
    names = [f.name for f in found.findings if f.level in ("problem", "warning")]
    return ", ".join(dict.fromkeys(names)) or "-"


REMEDIES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "gain_std 0.1": {"augmentation": {"gain_std": 0.1}},
    "gain_std 0.2": {"augmentation": {"gain_std": 0.2}},
    "gain_std 0.3": {"augmentation": {"gain_std": 0.3}},
    "per_frame": {"preprocessing": {"per_frame": True}},
}
FEW = 20  # labels of the test flight, of a calibration


def try_remedies(wanted: list[Planted], home: Path, console: Console) -> None:
    """Train each case with each remedy, and print R² on the test flight; the last column is calibrated as it is."""
    columns = ("planted", *REMEDIES, f"calibrated to {FEW} labels", "r²")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for case in wanted:
        cells = []
        for name, changes in REMEDIES.items():
            one = replace(case, name=f"{case.name} {name}", changes=merged(case.changes, changes))
            run = train_case(one, home, console)[0]
            cells.append(f"{read_json(run / 'metrics.json')['test']['r2']:.2f}")
        plain = train_case(replace(case, name=f"{case.name} as it is"), home, console)[0]
        print(f"| {' | '.join([case.name, *cells, *calibrated(plain)])} |", flush=True)


def calibrated(run: Path) -> tuple[str, str]:
    """R² on the test flight with level and scale of a few of its labels, on the others; and r² on all."""
    arrays = np.load(run / "predictions.npz")
    label, prediction = arrays["test_label"], arrays["test_prediction"]
    few = chosen_labels(len(label), FEW, consecutive=False)
    worth = effective_size(label[few], np.zeros(FEW))
    line = fit_level_scale(label[few], prediction[few], worth, float(arrays["train_label"].std()))
    others = np.setdiff1d(np.arange(len(label)), few)
    after = scores(label[others], line.of(prediction[others]))["r2"]
    return f"{after:.2f}", f"{scores(label, prediction)['correlation'] ** 2:.2f}"


def main() -> int:
    """Train what is not there yet, diagnose all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=sorted(SETS), default="next-flight", help="which runs")
    parser.add_argument("--home", type=Path, default=Path("runs/planted_ruin"), help="where trained runs are kept")
    parser.add_argument("--only", nargs="*", default=[], help="names of runs, or parts of them")
    parser.add_argument("--check", action="store_true", help="show what `cloudml check` warns of, too")
    parser.add_argument("--remedies", action="store_true", help="try out what helps against a flight shift")
    args = parser.parse_args()
    if args.remedies:
        few = [case for case in SHIFTED if not args.only or any(part in case.name for part in args.only)]
        try_remedies(few, args.home / "remedies", Console(machine=True))
        return 0
    console, home = Console(machine=True), args.home / args.set
    wanted = [case for case in SETS[args.set] if not args.only or any(part in case.name for part in args.only)]
    columns = (*COLUMNS, "check") if args.check else COLUMNS
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    right: dict[bool, list[bool]] = {True: [], False: []}  # sound? -> right or wrong
    for case in wanted:
        is_right, cells = judged(case, home, console)
        cells += [checked(train_case(case, home, console)[0], console)] if args.check else []
        right[case.expected == "healthy"].append(is_right)
        print(f"| {' | '.join(cells)} |", flush=True)
    named, blamed = sum(right[False]), right[True].count(False)
    print(f"\nruined: {named} of {len(right[False])} named; sound: {blamed} of {len(right[True])} blamed")
    return 0 if named == len(right[False]) and blamed <= MOST_BLAMED else 1


if __name__ == "__main__":
    sys.exit(main())
