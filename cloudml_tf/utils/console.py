"""What a person sees while a command works: rows, tables and progress bars; quiet where nobody looks."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Console:
    """Prints for people. With `machine` everything goes to stderr, so that stdout holds JSON alone; `quiet` is mute."""

    def __init__(self, machine: bool = False, quiet: bool = False) -> None:
        terminal = False if "JPY_PARENT_PID" in os.environ else None  # a notebook's shell line only looks like one
        self.rich = RichConsole(stderr=machine, highlight=False, quiet=quiet, force_terminal=terminal)
        if not self.rich.is_terminal:
            self.rich.width = 140  # a file or a pipe has no width; tables should not wrap there

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        self.rich.print(text, style=style, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A warning line."""
        self.rich.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def table(self, title: str, columns: list[str], rows: list[list[str]], whole: tuple[str, ...] = ()) -> None:
        """A table; numbers to the right. Names in the columns `whole` stay whole if half the width holds them."""
        table = Table(title=title, title_justify="left")
        longest = [max(len(row[i]) for row in [columns, *rows]) for i, name in enumerate(columns) if name in whole]
        fit = 2 * sum(longest) <= self.rich.width
        for i, name in enumerate(columns):
            table.add_column(
                name, justify="left" if i == 0 else "right", overflow="fold", no_wrap=fit and name in whole
            )
        for row in rows:
            table.add_row(*row)
        self.rich.print(table)

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """A bar, told (done, of all). Nothing is drawn where the output is not a terminal."""
        with self._bar() as bar:
            task = bar.add_task(text, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def training(self, epochs: int, steps: int, first_epoch: int) -> Iterator["TrainingProgress"]:
        """A bar of batches under one row an epoch."""
        with self._bar() as bar:
            yield TrainingProgress(self, bar, epochs, steps, first_epoch)

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Progress]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=self.rich, transient=True, disable=not self.rich.is_terminal)
        # Older versions of rich end a bar that is switched off with an empty line.
        with bar if self.rich.is_terminal else contextlib.nullcontext():
            yield bar


ROW = "{epoch:>9} {loss:>9} {val_loss:>9} {r2:>7} {s:>6} {r:>6} {bias:>7} {lr:>9} {time:>6} {left:>7}"


class TrainingProgress:
    """The rows and the bar of one training."""

    def __init__(self, console: Console, bar: Progress, epochs: int, steps: int, first_epoch: int) -> None:
        self.console, self.bar, self.epochs, self.first_epoch = console, bar, epochs, first_epoch
        self.task = bar.add_task("epoch", total=steps)
        self.started = self.epoch_started = time.perf_counter()
        names = {"loss": "loss", "val_loss": "val loss", "r2": "val R²", "s": "s", "r": "r", "bias": "bias"}
        console.say(ROW.format(epoch="epoch", lr="rate", time="time", left="left", **names), style="bold")

    def begin(self, epoch: int) -> None:
        """A new epoch."""
        self.epoch_started = time.perf_counter()
        self.bar.reset(self.task, description=f"epoch {epoch + 1}")

    def step(self) -> None:
        """A batch is done."""
        self.bar.advance(self.task)

    def end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Print the epoch's row."""
        now = time.perf_counter()
        left = (now - self.started) / (epoch + 1 - self.first_epoch) * (self.epochs - epoch - 1)
        numbers = {key: f"{float(logs.get(key, float('nan'))):.4f}" for key in ("loss", "val_loss")}
        row = ROW.format(
            epoch=f"{epoch + 1}/{self.epochs}",
            **numbers,
            r2=f"{logs.get('val_r2', float('nan')):.3f}",
            s=f"{100 * logs.get('val_variance_ratio', float('nan')):.0f}%",
            r=f"{logs.get('val_correlation', float('nan')):.3f}",
            bias=f"{logs.get('val_bias', float('nan')):+.3f}",
            lr=f"{logs.get('learning_rate', float('nan')):.1e}",
            time=f"{now - self.epoch_started:.1f}s",
            left=f"{left // 60:.0f}m{left % 60:02.0f}s",
        )
        self.console.say(row)
