"""Terminal output of a command: rows, tables and progress bars; silent where there is no terminal."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cloudml_tf.utils.environment import show_what_can_be_shown

SENTENCE = 26  # characters: longer cells are sentences
GAP = 2  # columns of the terminal between those of a table without lines


class Console:
    """Prints for people. With `machine` everything goes to stderr, so that stdout holds JSON alone; `quiet` prints
    nothing."""

    def __init__(self, machine: bool = False, quiet: bool = False) -> None:
        show_what_can_be_shown()
        terminal = False if "JPY_PARENT_PID" in os.environ else None  # a notebook's shell line only looks like one
        self.rich = RichConsole(stderr=machine, highlight=False, quiet=quiet, force_terminal=terminal)
        if not self.rich.is_terminal:
            self.rich.width = 140  # a file or a pipe has no width; tables should not wrap there

    def say(self, *texts: str, style: str = "") -> None:
        """Print lines."""
        for text in texts:
            self.rich.print(text, style=style, markup=False, soft_wrap=True)

    def warn(self, *texts: str) -> None:
        """Print warning lines."""
        self.say(*(f"warning: {text}" for text in texts), style="yellow")

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table, numbers to the right. One that is too wide loses its lines, and is then split by columns.

        No word and no number is broken, unless it is longer than half the width.
        """
        cells = [[row[i] for row in rows] for i in range(len(columns))]
        wanted = [max(map(cell_len, [name, *column])) for name, column in zip(columns, cells, strict=True)]
        least = [_least(name, column, self.rich.width) for name, column in zip(columns, cells, strict=True)]
        lined = sum(wanted) + 3 * len(columns) + 1 <= self.rich.width
        self.rich.print(Text(title, style="italic"))
        for number, chosen in enumerate([[*range(len(columns))]] if lined else _pieces(least, self.rich.width)):
            table = (
                Table() if lined else Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
            )
            spare = self.rich.width - sum(least[i] + GAP for i in chosen) + GAP
            for i in chosen:
                width = wanted[i] if lined else min(wanted[i], least[i] + max(spare, 0))
                spare -= width - least[i]
                left = i == 0 or _is_text(cells[i])
                table.add_column(columns[i], justify="left" if left else "right", overflow="fold", width=width)
            for row in zip(*(cells[i] for i in chosen), strict=True):
                table.add_row(*map(Text, row))
            self.rich.print(*([""] if number else []), table, sep="\n")

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar; yield its update function (done, total). Nothing is drawn where the output is not a terminal."""
        with self._bar() as bar:
            task = bar.add_task(text, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def training(self, epochs: int, steps: int, first_epoch: int) -> Iterator["TrainingProgress"]:
        """Show a bar of batches under one row per epoch."""
        with self._bar() as bar:
            yield TrainingProgress(self, bar, epochs, steps, first_epoch)

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Progress]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=self.rich, transient=True, disable=not self.rich.is_terminal)
        # Older versions of rich end a bar that is switched off with an empty line.
        with bar if self.rich.is_terminal else contextlib.nullcontext():
            yield bar


def _is_text(cells: list[str]) -> bool:
    """Whether a column holds sentences, which may wrap between words."""
    return any(cell_len(cell) > SENTENCE for cell in cells)


def _least(name: str, cells: list[str], width: int) -> int:
    """How wide a column has to be to break no word and no number; at most half of `width`."""
    whole = [word for cell in cells for word in cell.split()] if _is_text(cells) else cells
    return min(max(map(cell_len, ["", *name.split(), *whole])), width // 2)


def _pieces(least: list[int], width: int) -> list[list[int]]:
    """Numbers of the columns of each piece of a table: the first column and as many others as fit."""
    pieces = [[0]]
    for i in range(1, len(least)):
        taken = sum(least[k] + GAP for k in pieces[-1])
        if len(pieces[-1]) > 1 and taken + least[i] > width:
            pieces.append([0])
        pieces[-1].append(i)
    return pieces


def minutes(seconds: float) -> str:
    """A time such as 2m05s."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}m{rest:02d}s"


ROW = "{epoch:>7} {loss:>8} {val_loss:>8} {r2:>7} {s:>5} {r:>6} {bias:>8} {lr:>7} {time:>7} {left:>7}"  # 79 wide
NUMBERS = {  # name in the row -> key in the log, form, head of the column
    "loss": ("loss", ".4f", "loss"),
    "val_loss": ("val_loss", ".4f", "val loss"),
    "r2": ("val_r2", ".3f", "val R²"),
    "s": ("val_variance_ratio", ".0%", "s"),
    "r": ("val_correlation", ".3f", "r"),
    "bias": ("val_bias", "+.3f", "bias/std"),
    "lr": ("learning_rate", ".1e", "rate"),
}


class TrainingProgress:
    """The rows and the bar of one training."""

    def __init__(self, console: Console, bar: Progress, epochs: int, steps: int, first_epoch: int) -> None:
        self.console, self.bar, self.epochs, self.first_epoch = console, bar, epochs, first_epoch
        self.task = bar.add_task("epoch", total=steps)
        self.started = self.epoch_started = time.perf_counter()
        names = {name: label for name, (_, _, label) in NUMBERS.items()}
        console.say(ROW.format(epoch="epoch", time="time", left="left", **names), style="bold")

    def begin(self, epoch: int) -> None:
        """Start the epoch's progress bar."""
        self.epoch_started = time.perf_counter()
        self.bar.reset(self.task, description=f"epoch {epoch + 1}")

    def step(self) -> None:
        """Advance the bar by one batch."""
        self.bar.advance(self.task)

    def end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Print the epoch's row."""
        now = time.perf_counter()
        left = (now - self.started) / (epoch + 1 - self.first_epoch) * (self.epochs - epoch - 1)
        numbers = {name: format(float(logs.get(key, math.nan)), form) for name, (key, form, _) in NUMBERS.items()}
        shown = {"epoch": f"{epoch + 1}/{self.epochs}", "time": f"{now - self.epoch_started:.1f}s"}
        self.console.say(ROW.format(**shown, left=minutes(left), **numbers))
