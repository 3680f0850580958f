"""Arguments that commands share, and their values."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from cloudml_tf.utils import errors
from cloudml_tf.utils.errors import ConfigError

if TYPE_CHECKING:  # help should not wait for the configuration's models
    from cloudml_tf.config.schema import Config


def add_common(
    parser: argparse.ArgumentParser,
    example: str = "training.max_epochs=5",
    seed: bool = True,
    run_dir: str = "where to write, instead of the default folder",
) -> None:
    """Add the options of every command.

    Args:
        parser: of the command.
        example: a change that the command allows.
        seed: whether anything random happens, so that a seed has an effect.
        run_dir: what becomes of --run-dir.
    """
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a setting by its path, such as {example}; `cloudml config explain` says what there is",
    )
    if seed:
        parser.add_argument("--seed", type=int, help="the seed of every random choice (overrides the configuration's)")
    add_json(parser)
    parser.add_argument("--run-dir", metavar="DIR", help=run_dir)


def add_config(parser: argparse.ArgumentParser, example: str = "tier1", metavar: str = "CONFIG") -> None:
    """Add the file that a command is about, or the name of a shipped one."""
    kind = "search" if metavar == "SEARCH" else "configuration"
    parser.add_argument(
        "config",
        metavar=metavar,
        help=f"a JSON {kind}; or a shipped one by name, such as {example} (`cloudml config list` has all)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option of every command, and the only common one of commands without a configuration."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, on stdout")


def overrides_from(args: argparse.Namespace) -> dict[str, Any]:
    """The changes of `--set` and `--seed`, by dotted path."""
    from cloudml_tf.config.load import parse_overrides

    overrides = parse_overrides(args.set)
    seed = getattr(args, "seed", None)
    return overrides if seed is None else {**overrides, "seed": seed}


def config_from(args: argparse.Namespace) -> "Config":
    """The configuration of a command line."""
    from cloudml_tf.config.load import load_config

    return load_config(args.config, overrides_from(args))


def check_one_place(output: str | None, run_dir: str | None, name: str = "-o") -> None:
    """Refuse two destinations; `name` is what the first one is called. Raises `ConfigError`."""
    if output is not None and run_dir is not None:
        raise ConfigError(f"{name} and --run-dir both name the destination; keep one.")


def print_json(content: Any) -> None:
    """Print one JSON document on stdout, for programs."""
    from cloudml_tf.utils.files import finite

    print(json.dumps(finite(content), indent=2))


def finish(args: argparse.Namespace, content: Any, code: int = errors.EXIT_OK) -> int:
    """Print a command's result where `--json` asks for it; return its exit code."""
    if args.json:
        print_json(content)
    return code


# Codes of some commands only; every command ends with 0, 1 or 2, and by Ctrl-C or SIGTERM if it works for a while.
OWN_CODES = {
    "train": (errors.EXIT_COLLAPSED, errors.EXIT_NOT_FINITE, errors.EXIT_NOT_CONVERGED, errors.EXIT_NO_PARITY),
    "pretrain": (errors.EXIT_NOT_CONVERGED,),
    "evaluate": (errors.EXIT_NOT_FINITE,),
    "calibrate": (errors.EXIT_NOT_FINITE,),
    "predict": (errors.EXIT_NOT_FINITE, errors.EXIT_FLIGHTS_FAILED),
    "ensemble": (errors.EXIT_NOT_FINITE, errors.EXIT_NO_PARITY),
    "export": (errors.EXIT_NO_PARITY,),
}
IMMEDIATE = ("completion", "config")  # commands that end at once


def exit_codes(verb: str) -> dict[int, str]:
    """The exit codes of a command, and their meaning."""
    ended = () if verb in IMMEDIATE else (errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED)
    codes = (errors.EXIT_OK, errors.EXIT_FAULT, errors.EXIT_BAD_INPUT, *OWN_CODES.get(verb, ()), *ended)
    return {code: errors.EXIT_CODES[code] for code in codes}


def help_texts(verb: str, text: str, example: str) -> dict[str, Any]:
    """The options of a parser that say what a command does, with an example and its exit codes."""
    return {
        "help": text,
        "description": f"{text[0].upper()}{text[1:]}.",
        "epilog": f"example: {example}\n\n{exit_code_table(exit_codes(verb))}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def exit_code_table(codes: dict[int, str]) -> str:
    """Format exit codes for help texts."""
    return "exit codes: " + "\n            ".join(f"{code} {text}" for code, text in codes.items())
