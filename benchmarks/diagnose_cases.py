"""Planted failures, really trained, and what `cloudml diagnose` calls them: `python benchmarks/diagnose_cases.py`.

Each case is a small configuration with one fault planted in it, in the flight files or in the settings. A case is
trained once and kept in --home, so that the rules can be judged again in seconds.
"""

import argparse
import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from planted.development import DEVELOPMENT
from planted.faults import BASE, Case, Edit, merged, simulation
from planted.held_out import FIRST
from planted.held_out_2 import SECOND
from planted.held_out_3 import THIRD

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import NotFiniteError

# A bias of a flight is told as part of a flight shift since there is that finding.
ALSO = {"bias": ("flight shift",)}
SETS = {"development": DEVELOPMENT, "held-out-1": FIRST, "held-out-2": SECOND, "held-out-3": THIRD}


def flights_of(content: dict[str, Any], cache: Path) -> Path:
    """The folder of the simulated flights of a configuration."""
    settings = SimulationConfig.model_validate(content["data"]["simulation"])
    return Path(simulate_flights(settings, cache)[0]).parent


def edited_copy(flights: Path, target: Path, edit: Edit, only: str = "*") -> Path:
    """A copy of the flights with the fault planted."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in sorted(flights.glob(only)):
        shutil.copytree(folder, target / folder.name)
    edit(target)
    return target


def train_case(case: Case, home: Path, console: Console) -> tuple[Path, Path | None]:
    """Train a case, unless it is there; its run folder, and the folder of its evaluation."""
    from cloudml_tf.commands.main import main
    from cloudml_tf.experiments.run import train

    folder = home / case.name.replace(" ", "_").replace(",", "").replace(".", "")
    run, evaluation = folder / "run", folder / "evaluation" if case.held_out else None
    done, planted = folder / "done", json.dumps(case.changes)
    if done.is_file() and done.read_text() == planted:
        return run, evaluation
    shutil.rmtree(folder, ignore_errors=True)
    content = merged(BASE, {"experiment_name": "case", **case.changes})
    flights = flights_of(content, home / "simulated")
    content["data"]["path"] = str(flights if case.edit is None else edited_copy(flights, folder / "flights", case.edit))
    try:
        train(parse_config(content), console, str(run))
    except NotFiniteError as error:
        console.say(str(error))
    if case.held_out is not None:
        all_six = flights_of(merged(BASE, simulation(seed=2024)), home / "simulated")
        judged = edited_copy(all_six, folder / "held_out", case.held_out, only="sim06")
        with contextlib.redirect_stdout(sys.stderr):
            main(["evaluate", str(run), "--flights", str(judged), "--run-dir", str(evaluation)])
    done.write_text(planted)
    return run, evaluation


def main() -> int:
    """Train what is not there yet, diagnose all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=sorted(SETS), default="development", help="which cases")
    parser.add_argument("--home", type=Path, default=Path("runs/diagnose_cases"), help="where trained cases are kept")
    parser.add_argument("--only", nargs="*", default=[], help="names of cases, or the verdict they expect")
    args = parser.parse_args()
    console = Console(machine=True)
    wanted = [case for case in SETS[args.set] if not args.only or {case.name, case.expected} & set(args.only)]
    right = {True: [0, 0], False: [0, 0]}  # healthy? -> right, of all
    print("| planted | expected | verdict | right |\n|---|---|---|---|")
    for case in wanted:
        run, evaluation = train_case(case, args.home / args.set, console)
        got = verdict_of(run, evaluation)
        count = right[case.expected == "healthy"]
        right_one = got in (case.expected, *ALSO.get(case.expected, ()))
        count[0], count[1] = count[0] + right_one, count[1] + 1
        print(f"| {case.name} | {case.expected} | {got} | {'yes' if right_one else '**no**'} |", flush=True)
    print(
        f"\nfailures: {right[False][0]} of {right[False][1]} right; healthy runs: {right[True][0]} of {right[True][1]}"
    )
    return 0 if all(found == of_all for found, of_all in right.values()) else 1


def verdict_of(run: Path, evaluation: Path | None) -> str:
    """What the rules say."""
    from cloudml_tf.diagnostics.diagnosis.verdict import diagnose

    return str(diagnose(run, evaluation)["verdict"])


if __name__ == "__main__":
    sys.exit(main())
