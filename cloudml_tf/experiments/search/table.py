"""The table of a search, a row per trial, for the terminal and the page."""

import json
from typing import Any

from cloudml_tf.evaluation.scores import labels, number, texts
from cloudml_tf.experiments.search.settings import Search

OPTIMISM = (
    "The best of many trials is partly lucky: its validation score is too good by about the spread that a seed makes. "
    "Its real score is that on the test split, which no trial has used: cloudml train best.json."
)


def columns(search: Search) -> list[str]:
    """The columns of the table: short names, whole paths where two fields share one."""
    names = [key.rpartition(".")[2] for key in search.space]
    return [name if names.count(name) == 1 else key for name, key in zip(names, search.space, strict=True)]


def cells(result: dict[str, Any], search: Search) -> list[str]:
    """The cells of a table row."""
    epochs = f"{result['best_epoch']} of {result['epochs']}" if "epochs" in result else "-"
    values = [value_text(result["values"].get(key)) for key in search.space]
    scores = texts({key: result.get(f"val_{key}") for key in SHOWN}, SHOWN)
    scores += [number(result.get("composite")), epochs, f"{result['seconds']:.0f}"]
    return [result["id"], result["status"], *scores, *values]


MOST_FIELDS = 5


SHOWN = ("r2", "variance_ratio", "correlation", "bias")
HEAD = ["trial", "", *labels(SHOWN), "composite", "best epoch", "seconds"]


def value_text(value: Any) -> str:
    """Format a value for the table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def values_text(result: dict[str, Any]) -> str:
    """The values of a trial in one line."""
    return ", ".join(f"{key} {value_text(value)}" for key, value in result["values"].items())
