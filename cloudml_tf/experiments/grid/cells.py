"""Many small trainings as one: variants x rows x seeds, each cell an ordinary run folder.

    grid file ─ cells (checked all at once) ─ worker processes ─ <folder>/<variant>/<row>/seed<k>/ ─ summary

A cell is done when its metrics.json exists; a failed one leaves failed.json with the reason and stays in the tables. An
interrupted grid is continued where it stopped.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from cloudml_tf.config.data import Settings
from cloudml_tf.config.load import parse_config, read_content, set_by_path, validated
from cloudml_tf.config.run_folder import WHOLE, flat, has_begun, read_json
from cloudml_tf.config.schema import Config
from cloudml_tf.config.shipped import located
from cloudml_tf.evaluation.scores import labels, texts
from cloudml_tf.train.devices import refuse_workers
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import CloudMLError, RunError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.threads import begin_child, threads_of_children

FAILED, DONE = "failed.json", WHOLE
ATTEMPTS = 2  # for a cell whose worker process dies
TASKS = 16  # cells that a worker process trains, about; then new processes replace them, which frees all memory


class Row(Settings):
    """One set of changes, trained with every seed."""

    set: dict[str, Any] = Field({}, description="Overrides by dotted path, on top of the base and the variant.")
    variants: tuple[str, ...] | None = Field(None, description="Variants that have this row; all by default.")
    against: str | None = Field(None, description="Row to compare with, instead of `reference`.")
    expected: str = Field("", description="Expected result, shown beside the actual one.")
    figures: dict[str, float] = Field({}, description="Scores published elsewhere, shown beside the actual ones.")
    group: str = Field("", description="Name of the group; rows of one group share a table.")


class Grid(Settings):
    """A grid file."""

    experiment_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    base: str | dict[str, Any] = Field(
        description="A configuration, its path relative to this file, or the name of a shipped one."
    )
    set: dict[str, Any] = Field({}, description="Overrides of the base, by dotted path.")
    seeds: tuple[int, ...] = Field((1, 2, 3, 4, 5), min_length=1)
    variants: dict[str, dict[str, Any]] = Field({}, description="Overrides by name, e.g. of the data.")
    rows: dict[str, Row] = Field(min_length=1)
    reference: str | None = Field(None, description="Row that the others are compared with, seed by seed.")
    gate: str | None = Field(None, description="Row that must pass the acceptance before the others run.")
    runs: str = Field("runs", description="Parent of the grid's folder.")

    @model_validator(mode="after")
    def _names(self) -> "Grid":
        for key in ("reference", "gate"):
            name = getattr(self, key)
            if name is not None and name not in self.rows:
                raise ValueError(f"{key} names row '{name}'; the rows are {', '.join(self.rows)}")
        for name, row in self.rows.items():
            if row.against is not None and row.against not in self.rows:
                raise ValueError(f"row {name} is against '{row.against}'; the rows are {', '.join(self.rows)}")
        for name in [*self.rows, *self.variants]:
            if not name.strip() or "/" in name or name.startswith("."):
                raise ValueError(f"'{name}' names a folder, so it must not be empty, start with a dot or hold a slash")
        for name, row in self.rows.items():
            unknown = set(row.variants or ()) - set(self.variants)
            if unknown:
                raise ValueError(
                    f"row {name} names variant {', '.join(sorted(unknown))}; there are {list(self.variants)}"
                )
        return self


@dataclass(frozen=True)
class Cell:
    """One training of a grid."""

    variant: str  # "" where the grid has none
    row: str
    seed: int
    config: Config

    def folder(self, home: Path) -> Path:
        """The folder of its training."""
        return home / self.variant / self.row / f"seed{self.seed}"

    @property
    def name(self) -> str:
        """A name for people."""
        return f"{self.variant + ', ' if self.variant else ''}{self.row}, seed {self.seed}"


def load_grid(path: str | Path, overrides: dict[str, Any]) -> Grid:
    """Read a grid file. `overrides` are applied to every cell's base."""
    path = located(path)
    grid = validated(Grid, read_content(path, "grid"), str(path))
    base = read_content(located(grid.base, path.parent)) if isinstance(grid.base, str) else grid.base
    return grid.model_copy(update={"base": base, "set": {**grid.set, **overrides}})


def cells(grid: Grid) -> list[Cell]:
    """All cells, seeds outermost, so that every row has some result early. Raises `ConfigError` for an invalid one."""
    found = []
    for seed in grid.seeds:
        for variant in grid.variants or {"": {}}:
            for name, row in grid.rows.items():
                if row.variants is not None and variant not in row.variants:
                    continue
                found.append(Cell(variant, name, seed, _config(grid, variant, name, seed)))
    return found


def _config(grid: Grid, variant: str, name: str, seed: int) -> Config:
    content = json.loads(json.dumps(grid.base))
    content.pop("$schema", None)
    content["experiment_name"] = grid.experiment_name
    for changes in (grid.set, grid.variants.get(variant, {}), grid.rows[name].set):
        for key, value in changes.items():
            set_by_path(content, key, value)
    content["seed"] = seed
    config = parse_config(content, source=f"row {name}{f' of {variant}' if variant else ''}")
    refuse_workers(config.training, "a grid")
    return config


def run_cells(wanted: list[Cell], home: Path, jobs: int, console: Console, retry: bool = False) -> None:
    """Train unfinished cells, `jobs` at a time, each in its own process with its share of the cores."""
    check_unchanged(wanted, home)
    waiting = [cell for cell in wanted if not is_done(cell, home, retry)]
    if len(waiting) < len(wanted):
        console.say(f"{len(wanted) - len(waiting)} of {len(wanted)} cells are done already")
    todo, started = len(waiting), time.perf_counter()
    deaths: dict[str, int] = {}
    while waiting:
        try:
            with _workers(jobs) as pool:
                for cell in _as_trained(pool, waiting[: jobs * TASKS], home):
                    waiting.remove(cell)
                    left_s = (time.perf_counter() - started) / (todo - len(waiting)) * len(waiting)
                    place = f"{len(wanted) - len(waiting):>4}/{len(wanted)}"
                    console.say(f"{place}  {cell.name}: {outcome(cell, home)}; about {left_s / 60:.0f} min left")
        except BrokenProcessPool:
            _count_deaths(waiting, home, deaths)
            waiting = [cell for cell in waiting if not is_done(cell, home)]


def _as_trained(pool: ProcessPoolExecutor, waiting: list[Cell], home: Path) -> Iterator[Cell]:
    """Yield cells in the order in which they finish."""
    futures = {
        pool.submit(train_cell, cell.config.model_dump(mode="json"), str(cell.folder(home))): cell for cell in waiting
    }
    for future in as_completed(futures):
        future.result()
        yield futures[future]


def _count_deaths(waiting: list[Cell], home: Path, deaths: dict[str, int]) -> None:
    """Mark a cell as failed when its process has died more than once."""
    for cell in waiting:
        if not running_mark(cell.folder(home)).is_file() or is_done(cell, home):
            continue
        deaths[cell.name] = deaths.get(cell.name, 0) + 1
        if deaths[cell.name] >= ATTEMPTS:
            cell.folder(home).mkdir(parents=True, exist_ok=True)
            write_json(cell.folder(home) / FAILED, {"error": "its process died twice; memory may be short: --jobs 1."})


def running_mark(folder: Path) -> Path:
    """A file beside a cell's folder that exists while the cell is trained."""
    return folder.with_name(f"{folder.name}.running")


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    leash, theirs = context.Pipe()
    pool = ProcessPoolExecutor(jobs, context, begin_child, (theirs.recv_bytes,))
    try:
        with threads_of_children(max((os.cpu_count() or 1) // jobs, 1)):
            yield pool
        pool.shutdown()
    finally:
        leash.close()  # after an error: Python would wait for the end of what they train
        pool.shutdown(wait=False, cancel_futures=True)


def train_cell(content: dict[str, Any], folder: str) -> None:
    """In a worker: train or continue one cell; an error that a user can fix is recorded as a failure."""
    from cloudml_tf.experiments.run import train

    home = Path(folder)
    home.parent.mkdir(parents=True, exist_ok=True)
    running_mark(home).touch()
    with open(home.with_name(f"{home.name}.log"), "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            train(parse_config(content), Console(), folder, resume=has_begun(home))
        except CloudMLError as error:
            home.mkdir(exist_ok=True)
            write_json(home / FAILED, {"error": str(error)})
    running_mark(home).unlink()
    gc.collect()  # a network is a circle of references


def is_done(cell: Cell, home: Path, retry: bool = False) -> bool:
    """Whether a cell is finished; or failed, unless failed cells are repeated."""
    folder = cell.folder(home)
    if retry and (folder / FAILED).is_file() and not (folder / DONE).is_file():
        shutil.rmtree(folder)
    return (folder / DONE).is_file() or (folder / FAILED).is_file()


def check_unchanged(wanted: list[Cell], home: Path) -> None:
    """Refuse to mix cells of two different grids. Raises `RunError`."""
    for cell in wanted:
        path = cell.folder(home) / "config.json"
        if not path.is_file():
            continue
        old = parse_config(read_json(path), str(path))
        was, now = (flat(config.model_dump(mode="json", exclude={"output"})) for config in (old, cell.config))
        changed = [key for key in now if was.get(key) != now[key]]
        if changed:
            raise RunError(
                f"{path}: {changed[0]} was {was.get(changed[0])}, but is {now[changed[0]]} in the grid now. "
                "Finish it unchanged, or give another --run-dir."
            )


def outcome(cell: Cell, home: Path) -> str:
    """The result of a cell in one line."""
    folder = cell.folder(home)
    if not (folder / DONE).is_file():
        return f"failed: {read_json(folder / FAILED)['error'].splitlines()[0]}"
    found = read_json(folder / DONE)
    test = found["test"]
    keys = ("r2", "variance_ratio", "correlation")
    numbers = [f"{name} {text}" for name, text in zip(labels(keys), texts(test, keys), strict=True)]
    return f"{', '.join(numbers)}, tier {found['tier']['name']}, {found['training']['seconds']:.0f} s"
