"""What ruins the next flight, really trained, and whether it is named: `python benchmarks/planted_ruin.py`.

30 runs: 15 are ruined (planted/next_flight.py says by what), 15 are sound. Every ruined run has to be named, with one
of the names that were fixed before, and at most one sound run may be blamed. A run is trained once and kept in --home,
so that rules can be judged again in seconds; with --check the flights are looked at by `cloudml check` too.
"""

import argparse
import sys
from pathlib import Path

from diagnose_cases import train_case
from planted.next_flight import DEVELOPMENT, NEXT_FLIGHT, Planted

from cloudml_tf.commands.check import check
from cloudml_tf.config.load import load_config
from cloudml_tf.config.run_folder import read_json
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


def main() -> int:
    """Train what is not there yet, diagnose all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=sorted(SETS), default="next-flight", help="which runs")
    parser.add_argument("--home", type=Path, default=Path("runs/planted_ruin"), help="where trained runs are kept")
    parser.add_argument("--only", nargs="*", default=[], help="names of runs, or parts of them")
    parser.add_argument("--check", action="store_true", help="show what `cloudml check` warns of, too")
    args = parser.parse_args()
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
