"""`cloudml config`: print a configuration or its JSON Schema."""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, add_json, config_from, finish, help_texts
from cloudml_tf.config.load import is_schema, resolved_json, schema_json
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="print|schema")
    show, schema = (
        actions.add_parser(name, **help_texts("config", text, f"cloudml config {name} {example}"))
        for name, text, example in (
            ("print", "print a configuration with every default filled in", "configs/tier1.json --set seed=2"),
            ("schema", "print the JSON Schema of configurations", "-o schema.json"),
        )
    )
    show.add_argument("config", metavar="CONFIG", help="a JSON configuration, e.g. configs/tier1.json")
    schema.add_argument("-o", "--output", metavar="FILE", help="write there instead of printing")
    schema.add_argument("--check", metavar="FILE", help="only say whether FILE is current")
    add_common(show)
    add_json(schema)


def run(args: argparse.Namespace) -> int:
    """Print a resolved configuration, or its schema; both are JSON with and without `--json`."""
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
