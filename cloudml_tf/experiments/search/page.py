"""The report of a search: one page, with a figure of all trials as lines across the fields of the space."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cloudml_tf.evaluation.scores import COLUMNS, S_IS
from cloudml_tf.experiments.search.settings import Range, Search
from cloudml_tf.experiments.search.table import HEAD, OPTIMISM, cells, columns, value_text
from cloudml_tf.nn.directions import direction
from cloudml_tf.reports import html
from cloudml_tf.reports.figure import GREY, INK, LIGHT, ORANGE, Picture, limits, panel, styled
from cloudml_tf.utils.files import write_text

SEEN = "#4087d9"  # a blue for both themes; the better a trial, the less transparent
TONES = {"completed": "good", "collapsed": "bad", "not finite": "bad"}
TITLES = {"val_r2": "R² (validation)", "composite": "val_loss - 2 R²"}


@styled()
def parallel_coordinates(found: dict[str, Any], search: Search) -> Picture:
    """Draw a line per trial, through its value of each field to its score. The best in orange; failed trials end
    below."""
    keys = list(search.space)
    made, (ax,) = panel((max(5.5, 1.05 * (len(keys) + 1)), 4.0))
    trials = [trial for trial in found["trials"] if all(key in trial["values"] for key in keys)]
    done = [trial for trial in trials if trial["status"] == "completed"]
    scores = np.asarray([trial[found["objective"]] for trial in done], "float64")
    low, high = limits(scores) if len(scores) else (0.0, 1.0)
    for i, trial in enumerate(reversed(trials)):
        heights = [height(search.space[key], trial["values"][key], i) for key in keys]
        if trial["status"] != "completed":
            ax.plot([*heights, -0.12], color=GREY, linestyle=":", linewidth=1)
            continue
        score = (trial[found["objective"]] - low) / (high - low)
        merit = score if direction(found["objective"]) == "max" else 1.0 - score
        best = trial["id"] == found["best"]
        style: dict[str, Any] = {"color": ORANGE, "linewidth": 2.2} if best else {"color": SEEN, "linewidth": 1.1}
        ax.plot([*heights, score], alpha=1.0 if best else 0.15 + 0.8 * merit, **style)
    for x, (key, name) in enumerate(zip(keys, columns(search), strict=True)):
        _axis(ax, x, name, ticks(search.space[key]))
    ends = [(y, f"{low + y * (high - low):.3g}") for y in (0.0, 0.5, 1.0)] if len(scores) else []
    failed = [(-0.12, "failed")] if len(done) < len(trials) else []
    _axis(ax, len(keys), TITLES[found["objective"]], [*ends, *failed], strong=True)
    ax.set(xlim=(-0.35, len(keys) + 0.5), ylim=(-0.2, 1.3))
    ax.set_axis_off()
    caption = "One line per trial, from its values to its score: the best in orange, collapsed or failed ones dotted."
    return Picture("parallel", caption, made, wide=True)


def _axis(ax: Axes, x: int, title: str, marks: list[tuple[float, str]], strong: bool = False) -> None:
    """Draw a vertical axis with its title above and its values to the right."""
    ax.plot([x, x], [0, 1], color=INK if strong else GREY, linewidth=1.4 if strong else 1, zorder=1)
    ax.text(x, 1.08, title.replace("_", "_\n"), ha="center", va="bottom", color=INK, fontsize=9)
    box = {"facecolor": LIGHT["page"], "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    for y, text in marks:
        ax.text(x + 0.04, y, text, color=INK, fontsize=8, va="center", bbox=box, zorder=4)


def height(options: tuple[Any, ...] | Range, value: Any, number: int = 0) -> float:
    """The position of a value on its axis, 0 to 1. Lines through one value of a list are drawn slightly apart."""
    if isinstance(options, Range):
        form = math.log if options.sampling == "log" else float
        return (form(value) - form(options.min)) / (form(options.max) - form(options.min))
    place = [json.dumps(option) for option in options].index(json.dumps(value))
    return (place / (len(options) - 1) if len(options) > 1 else 0.5) + 0.012 * (number % 7 - 3)


def ticks(options: tuple[Any, ...] | Range) -> list[tuple[float, str]]:
    """Positions and labels of an axis."""
    if isinstance(options, Range):
        middle = math.sqrt(options.min * options.max) if options.sampling == "log" else (options.min + options.max) / 2
        return [(height(options, value), f"{value:.2g}") for value in (options.min, middle, options.max)]
    return [(height(options, value, 3), _short(value_text(value))) for value in options]


def _short(text: str) -> str:
    return text if len(text) <= 12 else f"{text[:4]}…{text[-7:]}"  # ends differ more often than beginnings


def write_page(folder: Path, found: dict[str, Any], search: Search, best: dict[str, Any] | None) -> None:
    """Write report.html, which needs no other file, and plots/parallel.png."""
    picture = parallel_coordinates(found, search)
    picture.write(folder / "plots")
    badges = [html.badge(f"{number} {status}", TONES.get(status, "fair")) for status, number in found["counts"].items()]
    rows = [cells(trial, search) for trial in found["trials"]]
    parts = [html.element("p", *badges), *_leader(found)]
    parts.append(html.section("Trials", picture.html()))
    table = html.table([*HEAD, *columns(search)], rows, strong=[found["best"] or ""])
    parts.append(html.section("Table", table, note=OPTIMISM))
    reasons = [f"{t['id']}: {t['reason']}" for t in found["trials"] if t["status"] != "completed"]
    if reasons:
        parts.append(html.section("Collapsed or failed trials", html.bullets(reasons)))
    if best is not None:
        parts.append(html.details("The best trial's configuration", html.json_block(best)))
    parts.append(html.details("The search", html.json_block(search.model_dump(mode="json"))))
    write_text(folder / "report.html", html.page(f"Search {search.experiment_name}", *parts, data={"search": found}))


def _leader(found: dict[str, Any]) -> list[html.Markup]:
    if found["best"] is None:
        return [html.element("p", "No trial was completed.")]
    best = found["trials"][0]
    words = {"r2": "validation", "variance_ratio": S_IS, "correlation": "correlation"}
    score = [(COLUMNS[key].label, COLUMNS[key].text(best[f"val_{key}"]), text) for key, text in words.items()]
    return [html.numbers([*score, ("trial", best["id"], "best.json")])]
