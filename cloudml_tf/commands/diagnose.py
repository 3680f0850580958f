"""`cloudml diagnose`: find out why a run failed, and what to try."""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, finish, overrides_from
from cloudml_tf.config.run_folder import WHOLE, check_overrides, read_json, run_of
from cloudml_tf.diagnostics.diagnosis.verdict import diagnose, print_diagnosis
from cloudml_tf.reports.tables import below_baseline
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "folder", metavar="RUN", help="a run folder, finished or cut off; or a model that was exported from one"
    )
    parser.add_argument("--evaluation", metavar="DIR", help="a folder of `cloudml evaluate` on a held-out flight")
    parser.add_argument("--quick", action="store_true", help="read the run folder only, not the flight files")
    add_common(
        parser,
        "evaluation.baselines=false",
        seed=False,
        run_dir="where to write diagnosis.json; without it nothing is written",
    )


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; with --run-dir write it as diagnosis.json too."""
    overrides = overrides_from(args)
    check_overrides(overrides, ("data.", "evaluation.", "seed"), "a diagnosis is of the run as it was")
    console = Console(machine=args.json)
    evaluation = None if args.evaluation is None else Path(args.evaluation)
    folder = run_of(Path(args.folder))
    found = diagnose(folder, evaluation, console, args.quick, overrides)
    whole = folder / WHOLE
    console.say(*(below_baseline(read_json(whole)) if whole.is_file() else []))
    print_diagnosis(console, found)
    if args.run_dir is not None:
        write_json(Path(args.run_dir) / "diagnosis.json", found)
    return finish(args, {"run": str(folder), "diagnosis": found})
