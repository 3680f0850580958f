"""`cloudml diagnose`: say why a run failed, and what to try."""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, overrides_from, print_json
from cloudml_tf.diagnostics.diagnosis.verdict import diagnose, print_diagnosis
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_OK, ConfigError
from cloudml_tf.utils.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    parser.add_argument("folder", metavar="RUN", help="a run folder, finished or cut off")
    parser.add_argument("--evaluation", metavar="DIR", help="a folder of `cloudml evaluate` on a held-out flight")
    parser.add_argument("--quick", action="store_true", help="look at the run folder alone, not at the flight files")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; with --run-dir write it as diagnosis.json too."""
    overrides = overrides_from(args)
    wrong = [key for key in overrides if not key.startswith(("data.", "evaluation.", "seed"))]
    if wrong:
        raise ConfigError(
            f"--set {wrong[0]}: a diagnosis is of the run as it was. Free are data.*, evaluation.*, seed."
        )
    console = Console(machine=args.json)
    evaluation = None if args.evaluation is None else Path(args.evaluation)
    found = diagnose(Path(args.folder), evaluation, console, args.quick, overrides)
    print_diagnosis(console, found)
    if args.run_dir is not None:
        write_json(Path(args.run_dir) / "diagnosis.json", found)
    if args.json:
        print_json({"run": args.folder, "diagnosis": found})
    return EXIT_OK
