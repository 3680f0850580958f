"""Runs side by side: the table for the terminal, the figures and the page."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudml_tf.config.run_folder import read_history
from cloudml_tf.evaluation.scores import COLUMNS, S_IS
from cloudml_tf.reports.tables import excess_tag
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_text


def shown(key: str, value: float | None, inflated: bool = False) -> str:
    """Format a score for the table."""
    return COLUMNS[key].text(value) + (excess_tag(value or 0.0) if inflated and key == "variance_ratio" else "")


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells: a row for each score, then tier, diagnosis and epochs."""
    names = list(found["runs"])
    cells = []
    for one in found["rows"]:
        key = one["metric"]
        values = [shown(key, one["values"][name], name in found["inflated"]) for name in names]
        cells.append([one["label"], *values, one["winner"] or ("none" if "lead" in one else ""), _lead(one)])
    epochs = [f"{found['best_epoch'][n]} of {found['epochs'][n]}" for n in names]
    cells.append(["Tier", *found["tier"].values(), "", ""])
    cells.append(["Diagnosis", *(verdict or "-" for verdict in found["diagnosis"].values()), "", ""])
    cells.append(["Best epoch", *epochs, "", ""])
    return ["Metric", *names, "Winner", "Lead, 95 % interval"], cells


def _lead(one: dict[str, Any]) -> str:
    if "lead" not in one:
        return ""
    low, high = one["interval"]
    chance = "beyond chance" if one["exceeds_interval"] else "within chance"
    samples = "" if one["paired"] else ", other samples"
    return f"{one['leader']}: {one['lead']:.3f} [{low:.3f}, {high:.3f}] {chance}{samples}"


def remarks(found: dict[str, Any]) -> list[str]:
    """The remarks under the table."""
    lines = [
        f"{name}: s exceeds r by {excess:.2f}, so its spread is noise" for name, excess in found["inflated"].items()
    ]
    if found["inflated"]:
        lines.append("an s above r is not better: the best s is r")
    return lines


def difference_cells(found: dict[str, Any]) -> list[list[str]]:
    """The fields that differ and each run's value, long ones cut."""
    return [
        [field, *(_cut(json.dumps(value)) for value in each.values())]
        for field, each in found["config_difference"].items()
    ]


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def print_comparison(console: Console, found: dict[str, Any]) -> None:
    """Print the comparison."""
    console.warn(*found["warnings"])
    columns, cells = table(found)
    console.table(f"test split, {found['space']}, by the best epoch; {S_IS}", columns, cells)
    console.say(*remarks(found))
    if found["config_difference"]:
        console.table("configuration, where it differs", ["", *found["runs"]], difference_cells(found))
    else:
        console.say("the configurations are the same")


def draw(folders: list[Path]) -> dict[str, list[Any]]:
    """Figures by heading: the runs' curves, one Taylor diagram with the first run's references, a scatter plot each."""
    from cloudml_tf.evaluation.collect import table_rows
    from cloudml_tf.evaluation.comparison import read_all, space_of
    from cloudml_tf.reports import plots
    from cloudml_tf.reports.figure import worded

    runs = read_all(folders)
    space = space_of(runs)
    unit = worded(runs[0].metrics["space"][space])
    references = [(n, f) for n, f in table_rows(runs[0].metrics) if n != "network"]
    if space == "physical":
        references = [(n, f["physical"]) for n, f in references]
    scatters = [
        replace(plots.scatter(*run.test(space), run.scores(space), unit, f"scatter_{n}"), caption=run.name)
        for n, run in enumerate(runs, 1)
        if run.scores(space)["correlation"] is not None
    ]
    return {
        "Curves": plots.curves_of_runs({run.name: read_history(run.folder) for run in runs}),
        "Predictions and lidar": [plots.taylor([*references, *((r.name, r.scores(space)) for r in runs)]), *scatters],
    }


def write_page(path: Path, found: dict[str, Any], drawn: dict[str, list[Any]]) -> None:
    """Write compare.html, which needs no other file."""
    from cloudml_tf.reports import html
    from cloudml_tf.reports.figure import side_by_side

    columns, cells = table(found)
    parts = [html.element("p", html.badge("not the same data", "bad"), text) for text in found["warnings"]]
    note = f"Test split, {found['space']}, by the best epoch; {S_IS}. {'. '.join(remarks(found))}"
    parts.append(html.section("Scores", html.table(columns, cells), note=note))
    parts += [html.section(title, side_by_side(pictures)) for title, pictures in drawn.items()]
    rows = difference_cells(found)
    content = html.table(["", *found["runs"]], rows) if rows else html.element("p", "The same.")
    parts.append(html.section("Configuration, where it differs", content))
    reports = {
        name: os.path.relpath(Path(folder) / "report.html", path.parent) for name, folder in found["runs"].items()
    }
    links = [html.element("a", name, href=target) for name, target in reports.items()]
    parts.append(html.section("Reports", html.bullets(links)))
    write_text(path, html.page("Comparison of runs", *parts, data={"comparison": found}))
