"""Reproduce the reference recipe's three collapsed runs and its remedy: `cloudml reproduce`.

Its recipes are trained on simulated flights without signal, with little signal and few labels, and with a good signal,
each over several seeds; then the remedy is taken back one change at a time. All of it is a grid file, the shipped
configs/reproduce.json, which this command runs. An interrupted run is continued.
"""

import argparse

from cloudml_tf.commands import ablate

DEFAULT = "reproduce"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("grid", metavar="GRID", nargs="?", default=DEFAULT, help=f"a grid file (default: the shipped {DEFAULT})")
    ablate.add_grid_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, and print the tables."""
    return ablate.run(args)
