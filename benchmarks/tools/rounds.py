"""Contenders that take turns in one process, A B C A B C, and the table of their medians."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rates:
    """What each contender does a second, by round. The first one is what the others are compared with."""

    unit: str
    values: dict[str, np.ndarray]  # (rounds,) each

    def ratio(self, name: str) -> np.ndarray:
        """(rounds,) of a contender over the first one."""
        return self.values[name] / next(iter(self.values.values()))

    def table(self) -> str:
        """Markdown: medians, and the lowest and highest round."""
        first = next(iter(self.values))
        lines = [f"| | {self.unit}/s | against {first} |", "|---|---|---|"]
        for name, values in self.values.items():
            ratio = self.ratio(name)
            spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
            lines.append(f"| {name} | {np.median(values):,.0f} | {'1' if name == first else spread} |")
        return "\n".join(lines)


def take_turns(contenders: dict[str, Callable[[], float]], unit: str, rounds: int = 5) -> Rates:
    """Each contender does its work and says how much that was; one turn of each beforehand does not count."""
    for work in contenders.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            started = time.perf_counter()
            amount = work()
            found[name].append(amount / (time.perf_counter() - started))
    return Rates(unit, {name: np.asarray(rates) for name, rates in found.items()})


def machine() -> str:
    """What a figure was taken on, in words."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
