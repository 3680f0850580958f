"""`cloudml config`: list the shipped configurations, print one or its JSON Schema, or explain a setting."""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, add_config, add_json, config_from, finish, help_texts
from cloudml_tf.config.described import describe, in_words
from cloudml_tf.config.load import is_schema, resolved_json, schema_json
from cloudml_tf.config.shipped import SHIPPED, folder
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|print|explain|schema")
    shipped, show, why, schema = (
        actions.add_parser(name, **help_texts("config", text, f"cloudml config {name} {example}".strip()))
        for name, text, example in (
            ("list", "list the shipped configurations, which every command takes by name", ""),
            ("print", "print a configuration with every default filled in", "tier1 --set seed=2"),
            ("explain", "say what a setting or a section is", "loss.weight"),
            ("schema", "print the JSON Schema of configurations", "-o schema.json"),
        )
    )
    add_config(show)
    why.add_argument("key", metavar="KEY", nargs="?", default="", help="a dotted path; by default all sections")
    schema.add_argument("-o", "--output", metavar="FILE", help="write there instead of printing")
    schema.add_argument("--check", metavar="FILE", help="only say whether FILE is current")
    add_common(show, run_dir="where to write config.json too")
    add_json(shipped)
    add_json(why)
    add_json(schema)


def run(args: argparse.Namespace) -> int:
    """Print a resolved configuration, or its schema, which are JSON with and without `--json`; list, or explain."""
    if args.action == "list":
        Console(quiet=args.json).table("shipped configurations", ["name", ""], [list(row) for row in SHIPPED.items()])
        return finish(args, {"folder": str(folder()), "configurations": SHIPPED})
    if args.action == "explain":
        found = describe(args.key)
        if not args.json:
            print(in_words(found))
        return finish(args, found)
    if args.action == "print":
        text = resolved_json(config_from(args))
        if args.run_dir is not None:
            write_text(Path(args.run_dir) / "config.json", text)
        print(text, end="")
        return 0
    if args.check is not None:
        if not is_schema(Path(args.check)):
            raise ConfigError(f"{args.check} is not current; run `cloudml config schema -o {args.check}`.")
    elif args.output is not None:
        write_text(Path(args.output), schema_json())
    else:
        print(schema_json(), end="")
        return 0
    return finish(args, {"schema": args.check or args.output, "current": True})
