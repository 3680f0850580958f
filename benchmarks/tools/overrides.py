"""`--set key=value`, as for `cloudml train`: to try a benchmark out with shorter trainings and fewer frames."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from cloudml_tf.config.load import parse_overrides, set_by_path


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add the option; `args.set` holds the texts."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes every configuration")


def overridden(content: Mapping[str, Any], pairs: list[str]) -> dict[str, Any]:
    """A deep copy of a configuration with the values of `--set`."""
    found: dict[str, Any] = json.loads(json.dumps(content))
    for key, value in parse_overrides(pairs).items():
        set_by_path(found, key, value)
    return found
