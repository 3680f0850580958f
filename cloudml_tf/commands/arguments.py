"""Arguments that commands share, and how they are read."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from cloudml_tf.utils.errors import EXIT_CODES, ConfigError

if TYPE_CHECKING:  # help should not wait for the configuration's models
    from cloudml_tf.config.schema import Config


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that every verb takes."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a configuration field by its path",
    )
    parser.add_argument("--seed", type=int, help="the seed of every random choice (overrides the configuration's)")
    add_json(parser)
    parser.add_argument("--run-dir", metavar="DIR", help="where to write, instead of the default folder")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that every verb takes, and the only common one of those that know no configuration."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, on stdout")


def overrides_from(args: argparse.Namespace) -> dict[str, Any]:
    """What `--set` and `--seed` change, by dotted path."""
    from cloudml_tf.config.load import parse_overrides

    overrides = parse_overrides(args.set)
    return overrides if args.seed is None else {**overrides, "seed": args.seed}


def config_from(args: argparse.Namespace) -> "Config":
    """The configuration that a command line asks for."""
    from cloudml_tf.config.load import load_config

    return load_config(args.config, overrides_from(args))


def check_one_place(output: str | None, run_dir: str | None) -> None:
    """Refuse two places to write to. Raises `ConfigError`."""
    if output is not None and run_dir is not None:
        raise ConfigError("-o and --run-dir both say where to write; keep one.")


def print_json(content: Any) -> None:
    """Print for machines: one JSON document on stdout."""
    from cloudml_tf.utils.files import finite

    print(json.dumps(finite(content), indent=2))


def exit_code_table() -> str:
    """The exit codes, for help texts."""
    lines = [f"{code} {text}" for code, text in EXIT_CODES.items()]
    return "exit codes: " + "\n            ".join(lines)
