"""Train a grid of settings over seeds and measure the effect of each: `cloudml ablate configs/ablation.json`.

The cells are ordinary run folders; see `cloudml_tf.experiments.grid.cells`. A grid that was killed continues where it
stopped: `cloudml ablate configs/ablation.json --run-dir FOLDER`.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from cloudml_tf.commands.arguments import add_common, finish, overrides_from
from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import read_json
from cloudml_tf.evaluation.scores import FEWEST_EPOCHS
from cloudml_tf.experiments.grid.cells import Cell, Grid, cells, load_grid, run_cells
from cloudml_tf.experiments.grid.summary import summarise
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import alone_in

NAME = "grid.json"  # in the grid's folder: the grid as it was run


MINIMAL = """a minimal GRID, beside config.json:
  {"experiment_name": "my_grid",
   "base": "config.json",
   "seeds": [1, 2, 3],
   "rows": {"as it is": {}, "no penalty": {"set": {"loss.weight": 0}}}}"""


def train_grid(grid: Grid, home: Path, jobs: int, console: Console, retry: bool = False) -> dict[str, Any]:
    """Train the gate first, then all cells; write the summary and the page, and return the summary."""
    wanted = cells(grid)
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / NAME, grid.model_dump(mode="json"))
    console.say(f"{len(wanted)} cells, {jobs} at a time; folder: {home}")
    if grid.gate is not None:
        _pass_gate(grid, wanted, home, jobs, console, retry)
    run_cells(wanted, home, jobs, console, retry)
    found = summarise(grid, wanted, home)
    write_json(home / "summary.json", found)
    from cloudml_tf.experiments.grid import page  # loads Matplotlib

    page.write(home, found, grid)
    return found


def _pass_gate(grid: Grid, wanted: list[Cell], home: Path, jobs: int, console: Console, retry: bool) -> None:
    """Train the gate's row; refuse the rest where its median seed fails the acceptance."""
    first = [cell for cell in wanted if cell.row == grid.gate]
    run_cells(first, home, jobs, console, retry)
    folders = [cell.folder(home) / "metrics.json" for cell in first]
    passed = [bool(read_json(path)["phase3"]["passed"]) for path in folders if path.is_file()]
    if sum(passed) * 2 <= len(first):
        raise ConfigError(
            f"row {grid.gate} passed the acceptance (R² above 0, s above 40 %, spread, rising s) with {sum(passed)} of "
            f"{len(first)} seeds, and more than half must pass before the other rows are trained. "
            f"`cloudml diagnose` says why a run failed, and one of fewer than {FEWEST_EPOCHS} epochs is not judged; "
            "--no-gate trains them anyway."
        )
    console.say(f"gate: {grid.gate} passed the acceptance with {sum(passed)} of {len(first)} seeds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.epilog = f"{MINIMAL}\n\n{parser.epilog}"
    parser.add_argument(
        "grid",
        metavar="GRID",
        help="a grid file, or a shipped one by name, such as ablation: rows of settings, each trained with every seed",
    )
    add_grid_arguments(parser)


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every grid."""
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: the cores)"
    )
    parser.add_argument("--rows", metavar="A;B;…", help="only these rows")
    parser.add_argument("--reference", metavar="ROW", help="compare with this row instead of the file's")
    parser.add_argument("--seeds", metavar="1,2,…", help="these seeds instead of the file's")
    parser.add_argument("--retry-failed", action="store_true", help="repeat the trainings that failed")
    parser.add_argument(
        "--no-gate",
        action="store_true",
        help="train all rows, even where the row that the file names as its gate fails",
    )
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, and print the tables."""
    console = Console(machine=args.json)
    if args.jobs < 1:
        raise ConfigError(f"--jobs must be 1 or more. Received: {args.jobs}")
    grid = chosen(load_grid(args.grid, overrides_from(args)), args)
    home = Path(args.run_dir) if args.run_dir else expand(grid.runs) / grid.experiment_name
    home.mkdir(parents=True, exist_ok=True)
    with alone_in(home, "a grid", below=False):  # the workers of a killed grid may run for another half second
        found = train_grid(grid, home, args.jobs, console, args.retry_failed)
    from cloudml_tf.experiments.grid.page import print_tables

    print_tables(console, found)
    console.say(f"page: {home / 'grid.html'}")
    return finish(args, {"grid": str(home), **found})


def chosen(grid: Grid, args: argparse.Namespace) -> Grid:
    """The rows and seeds of a command line."""
    changes: dict[str, Any] = {}
    if args.rows:
        names = [name.strip() for name in args.rows.split(";")]
        unknown = [name for name in names if name not in grid.rows]
        if unknown:
            raise ConfigError(f"--rows names '{unknown[0]}'; the rows are: {'; '.join(grid.rows)}.")
        changes["rows"] = {name: grid.rows[name] for name in names}
        changes["reference"] = grid.reference if grid.reference in names else None
        changes["gate"] = grid.gate if grid.gate in names else None
    if args.reference is not None:
        there = changes.get("rows", grid.rows)
        if args.reference not in there:
            raise ConfigError(f"--reference names '{args.reference}'; the rows are: {'; '.join(there)}.")
        changes["reference"] = args.reference
    if args.seed is not None:
        changes["seeds"] = (args.seed,)
    if args.seeds:
        try:
            changes["seeds"] = tuple(int(seed) for seed in args.seeds.split(","))
        except ValueError:
            raise ConfigError(f"--seeds needs whole numbers, such as 1,2,3. Received: {args.seeds!r}") from None
    if args.no_gate:
        changes["gate"] = None
    return grid.model_copy(update=changes)
