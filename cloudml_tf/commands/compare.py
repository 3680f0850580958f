"""Compare runs: `cloudml compare RUN RUN …`, on the terminal and as a page.

The comparison itself is computed in `cloudml_tf.evaluation.comparison`.
"""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, finish, overrides_from
from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import check_overrides, new_folder, read_run, run_of
from cloudml_tf.evaluation.comparison import compare
from cloudml_tf.reports.comparison import draw, print_comparison, write_page
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="finished run folders, or models that were exported from them, two or more",
    )
    add_common(parser, "evaluation.block_s=60")


def run(args: argparse.Namespace) -> int:
    """Print the tables; write comparison.json and compare.html."""
    overrides = overrides_from(args)
    free = ("evaluation.bootstrap_samples", "evaluation.block_s", "output.runs", "seed")
    check_overrides(overrides, free, "a comparison is of runs as they were")
    console = Console(machine=args.json)
    folders = [run_of(Path(path)) for path in args.runs]
    found = compare(folders, overrides)
    home = new_folder(args.run_dir, expand(read_run(folders[0], overrides)[0].output.runs), "comparison-")
    print_comparison(console, found)
    write_json(home / "comparison.json", found)
    drawn = draw(folders)
    for picture in (one for pictures in drawn.values() for one in pictures):
        picture.write(home / "plots")
    write_page(home / "compare.html", found, drawn)
    console.say(f"page: {home / 'compare.html'}")
    return finish(args, {"comparison": str(home), **found})
