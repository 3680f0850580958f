"""The console script `cloudml`: one entry point for all commands, with the same options and exit codes.

Each command is a module of this package with `add_arguments(parser)` and `run(args) -> exit code`; `python -m
cloudml_tf` runs the same. Nothing here loads Keras or TensorFlow.
"""

import argparse
import difflib
import importlib
import re
import shlex
import sys
from typing import Any, NoReturn

from cloudml_tf.commands.arguments import exit_code_table, help_texts, print_json
from cloudml_tf.utils import errors
from cloudml_tf.utils.environment import show_what_can_be_shown
from cloudml_tf.utils.errors import EXIT_BAD_INPUT, CloudMLError, ConfigError
from cloudml_tf.utils.signals import Terminated, raise_on_sigterm
from cloudml_tf.utils.tf_logging import set_log_level

RUN, OTHER = (f"runs/tier1_variance_fix_test/{day}-120000" for day in (20260101, 20260102))
_VERBS = {  # what each does, and the arguments of an example
    "init": ("start a folder for flights of your own", "my_campaign --from data/*.nc"),
    "train": ("train, evaluate and export a model", "tier1 --set training.max_epochs=20"),
    "pretrain": ("pretrain the frame encoder on frames without labels", "pretrain"),
    "evaluate": ("score a run or an exported model on labelled flights", f"{RUN} --flights flights"),
    "predict": (
        "write predictions for every frame of a flight as a CF NetCDF file",
        "savedmodels/tier1_variance_fix_test flights/sim08 -o sim08.nc",
    ),
    "calibrate": (
        "fit level and scale of a model's predictions to a few labels of a new flight",
        f"{RUN} flights/new --labels 20 -o calibrated",
    ),
    "diagnose": ("find out why a run failed, and what to try", RUN),
    "compare": ("compare runs, with the winner of each score", f"{RUN} {OTHER}"),
    "reproduce": ("reproduce the reference recipe: its collapsed runs and its remedy", "--jobs 2"),
    "ablate": ("train a grid of settings over seeds, and measure the effect of each", "ablation"),
    "search": ("train many variants and keep the best", "search"),
    "ensemble": ("join runs to one prediction with its uncertainty", f"{RUN} {OTHER}"),
    "export": ("write a finished run as SavedModel, ONNX or LiteRT", f"{RUN} --format savedmodel,onnx,litert"),
    "simulate": ("write simulated flights in the instruments' layout", "flights --preset hard"),
    "scenes": (
        "write flights as one file of gridded scenes, for networks that predict every pixel",
        "flights -o scenes.h5",
    ),
    "check": ("check the data, the split and the network before a training", "tier1"),
    "benchmark": ("list and run the project's own benchmarks", "seeds configs/tier1.json"),
    "completion": ("print the completion of a shell", "bash"),
    "config": ("list or print configurations, print their JSON Schema, or explain a setting", "explain loss.weight"),
}
VERBS = {name: (text, f"cloudml {name} {example}") for name, (text, example) in _VERBS.items()}

FIRST_STEPS = """flights of your own:  cloudml init my_campaign --from FILE…, then check, train and predict
without flights:      cloudml train tier1 (simulates its flights)"""

RESUMED = ("train", "search")  # --resume continues where they were interrupted
IN_FOLDER = "; --resume and --run-dir with its folder continue it"
CONTINUED_BY = {
    "predict": "; with --archive the same command continues with what is missing",
    "pretrain": IN_FOLDER,
    "ablate": "; the same command continues with what is missing",
    "reproduce": "; the same command continues with what is missing",
}


_MESSAGES = {  # argparse's words, and ours
    r"^argument ([^:/]*)[^:]*: ": r"\1: ",
    r"invalid int value: (.*)": r"must be a whole number. Received: \1",
    r"invalid float value: (.*)": r"must be a number. Received: \1",
    r"invalid choice: (.*) \(choose from (.*)\)": r"must be one of \2. Received: \1",
}


class _Parser(argparse.ArgumentParser):
    """Raises `ConfigError` for a wrong command line, and names a wrong option before anything that follows from it.

    argparse takes the value behind an option that it does not know for a positional argument: `train --epochs 5 CONFIG`
    would blame CONFIG.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; words that are not options are left over. Raises `ConfigError`."""
        # Another parser may take the rest of the line, with options of its own.
        if not any(action.nargs in (argparse.REMAINDER, argparse.PARSER) for action in self._actions):
            self._check_options(list(args or ()))
        return super().parse_known_args(args, namespace)

    def _check_options(self, words: list[str]) -> None:
        """Raise for the first word that looks like an unknown option; argparse accepts abbreviations."""
        known = [option for action in self._actions for option in action.option_strings]
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if not re.match(r"-[^\d.]", name) or " " in name or name[:2] in known:
                continue  # a value, perhaps a negative number; or a short option with its value
            if not any(option.startswith(name) for option in known):
                near = difflib.get_close_matches(name, known, n=1)
                text = f"unknown option {name}." + (f" Did you mean {near[0]}?" if near else "")
                if not near and "--set" in known:
                    text += " Settings are given as --set KEY=VALUE, such as --set training.max_epochs=5."
                raise ConfigError(f"{text} See `{self.prog} --help`.")

    def error(self, message: str) -> NoReturn:
        """Raise `ConfigError`: a wrong command line is shown as every other mistake, in one line and as JSON."""
        for pattern, ours in _MESSAGES.items():
            message = re.sub(pattern, ours, message)
        raise ConfigError(f"{message}. See `{self.prog} --help`.")


def build_parser(verb: str | None = None, every: bool = False) -> argparse.ArgumentParser:
    """Build the parser; only the module of the given command is imported, or all of them with `every`."""
    parser = _Parser(
        prog="cloudml",
        description=__doc__.splitlines()[0],
        epilog=f"{FIRST_STEPS}\n\n{exit_code_table(errors.EXIT_CODES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from cloudml_tf import __version__

    parser.add_argument("--version", action="version", version=f"cloudml_tf {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, (text, example) in VERBS.items():
        command = verbs.add_parser(name, **help_texts(name, text, example))
        if every or name == verb:
            module = importlib.import_module(f"cloudml_tf.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; turn a user's mistake into one clear message and its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    show_what_can_be_shown()
    set_log_level()
    verb = argv[0] if argv else ""
    if verb not in VERBS:
        return _without_command(argv)
    args = argparse.Namespace(verb=verb, json="--json" in argv)  # until they are parsed
    try:
        args, unknown = build_parser(verb).parse_known_args(argv)
        if unknown:
            raise ConfigError(_unknown_arguments(args, unknown))
        with raise_on_sigterm():
            return int(args.run(args))
    except CloudMLError as error:
        return _refuse(f"cloudml {args.verb}", str(error), error.exit_code, args.json)
    except KeyboardInterrupt:
        return _refuse(f"cloudml {verb}", f"interrupted{_how_to_continue(verb, argv)}.", errors.EXIT_INTERRUPTED, False)
    except Terminated:
        text = f"ended by SIGTERM{_how_to_continue(verb, argv)}."
        return _refuse(f"cloudml {verb}", text, errors.EXIT_TERMINATED, False)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        # A full disk or a folder that may not be written: the user can fix it, and a traceback would hide it.
        reason = f"{error.filename}: {error.strerror}. Choose a writable folder or free some space."
        return _refuse(f"cloudml {args.verb}", reason, EXIT_BAD_INPUT, args.json)


def _without_command(argv: list[str]) -> int:
    """Print the help or the version, which exit; print the help where nothing is given; or report what is wrong."""
    if not argv:
        build_parser().print_help()
        return EXIT_BAD_INPUT
    if not argv[0].startswith("-"):
        return _refuse("cloudml", _unknown_command(argv[0]), EXIT_BAD_INPUT, "--json" in argv)
    try:
        build_parser().parse_args(argv)
    except ConfigError as error:
        return _refuse("cloudml", str(error), error.exit_code, "--json" in argv)
    return _refuse(
        "cloudml", f"the command comes first, before {argv[0]}. See `cloudml --help`.", EXIT_BAD_INPUT, False
    )


def _how_to_continue(verb: str, argv: list[str]) -> str:
    """How to continue an interrupted command, for the end of a sentence; empty for one that starts from the
    beginning."""
    if any(word.startswith("--lofo") for word in argv) and "--run-dir" not in argv:
        return IN_FOLDER
    if verb in RESUMED:
        again = argv if "--resume" in argv else [*argv, "--resume"]
        return f"; `{shlex.join(['cloudml', *again])}` continues it"
    return CONTINUED_BY.get(verb, "")


def _refuse(command: str, reason: str, exit_code: int, machine: bool) -> int:
    if machine:
        print_json({"error": reason, "exit_code": exit_code})
    print(f"{command}: {reason}", file=sys.stderr)
    return exit_code


def _unknown_command(verb: str) -> str:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the commands are {', '.join(VERBS)}."
    return f"unknown command '{verb}'; {hint} See `cloudml --help`."


def _unknown_arguments(args: argparse.Namespace, unknown: list[str]) -> str:
    """Report unknown arguments, and what may be missing before them."""
    text, settings = f"unknown arguments: {' '.join(unknown)}.", getattr(args, "set", None)
    if settings and "=" not in settings[-1]:
        text += f" Did you mean --set {settings[-1]}={unknown[0]}?"
    elif args.verb in ("predict", "scenes") and getattr(args, "output", None) is not None:
        text += " Put all flights before -o."
    return f"{text} See `cloudml {args.verb} --help`."
