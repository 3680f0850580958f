"""Present a grid's summary: tables for the terminal, and a page with a dot for every seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.evaluation.scores import COLUMNS, S_IS
from cloudml_tf.experiments.grid.cells import Grid
from cloudml_tf.experiments.grid.summary import HEAD, cells_of
from cloudml_tf.reports import html
from cloudml_tf.reports.figure import BLUE, GREEN, GREY, INK, ORANGE, Picture, panel, side_by_side, styled
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_text

SHOWN = {"r2": BLUE, "variance_ratio": ORANGE, "correlation": GREEN}
FIGURES = ("r2", "mae", "variance_ratio", "pred_spread", "correlation")  # the columns of the reference recipe's table


def groups(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows by group, in their order."""
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        found.setdefault(row["group"], {})[name] = row
    return found


def winners(rows: Mapping[str, Any]) -> dict[str, str]:
    """For each score, the row with the best median over seeds, as in the reference recipe's table."""
    found = {}
    for key in FIGURES:
        medians = {name: row[key]["median"] for name, row in rows.items() if row[key]["median"] is not None}
        if medians:
            found[key] = _best(key, medians)
    return found


def _best(key: str, values: Mapping[str, float]) -> str:
    """The row with the highest value, or the lowest error; the highest s and spread too, as in the reference recipe's
    table."""
    return (min if COLUMNS[key].better == "lower" else max)(values, key=lambda name: values[name])


def published(rows: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """The reference recipe's table, a metric per row: mean ± std here, published values in brackets, and both winners.

    None where no row has published figures. Winners are by the median over seeds, the highest (MAE: the lowest).
    """
    if not any(row["figures"] for row in rows.values()):
        return None
    best, cells = winners(rows), []
    for key in FIGURES:
        column = COLUMNS[key]
        figures = {name: row["figures"][key] for name, row in rows.items() if key in row["figures"]}
        there = {name: f" ({column.text(figure)})" for name, figure in figures.items()}
        shown = [column.with_std(row[key]) + there.get(name, "") for name, row in rows.items()]
        cells.append([column.label, *shown, best.get(key, "-"), _best(key, figures) if figures else "-"])
    return ["Metric", *rows, "Winner", "Winner there"], cells


def title_of(variant: str, group: str) -> str:
    """The title of a table."""
    return ": ".join(part for part in (variant, group) if part) or "rows"


def references(rows: Mapping[str, Any]) -> list[str]:
    """The scores of the baselines and the oracle, from any row that has them."""
    first = next((row for row in rows.values() if "ridge_r2" in row), None)
    if first is None:
        return []
    names = {
        "ridge_r2": "ridge",
        "gradient_boosting_r2": "gradient boosting",
        "plane_sweep_r2": "plane sweep",
        "oracle_r2": "oracle",
    }
    reached = [f"{name} {first[key]['mean']:.3f}" for key, name in names.items() if key in first]
    return [f"R² of {', '.join(reached)}"]


def remarks(rows: Mapping[str, Any]) -> list[str]:
    """Winners, verdicts, expectations and published values."""
    lines, best = references(rows), winners(rows)
    if len(rows) > 1 and best:
        named = [f"{COLUMNS[key].label} {name}" for key, name in best.items()]
        lines.append(f"highest median (MAE: lowest): {', '.join(named)}")
    for name, row in rows.items():
        notes = [f"expected {row['expected']}"] if row["expected"] else []
        if "verdicts" in row:
            notes.append("diagnosis " + ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items()))
        if notes:
            lines.append(f"{name}: {'; '.join(notes)}")
    return lines


def print_tables(console: Console, found: dict[str, Any]) -> None:
    """Print the tables."""
    for variant, rows in found["variants"].items():
        for group, some in groups(rows).items():
            cells = [cells_of(name, row) for name, row in some.items()]
            console.table(f"{title_of(variant, group)} (test split, mean ± std over seeds; {S_IS})", HEAD, cells)
            beside = published(some)
            if beside is not None:
                console.table("with the reference recipe's figures, in brackets", *beside)
            console.say(*remarks(some))
    for failure in found["failed"]:
        console.warn(f"{failure['cell']} failed: {failure['error']}")


def write(home: Path, found: dict[str, Any], grid: Grid) -> None:
    """Write grid.html, which needs no other file, and its figures."""
    count = f"{found['done']} of {found['cells']} cells trained; {len(found['failed'])} failed."
    parts = [html.element("p", f"{count} In the tables {S_IS}.")]
    number = 0
    for variant, rows in found["variants"].items():
        for group, some in groups(rows).items():
            number += 1
            reference = rows.get(grid.reference or "", {}).get("r2", {}).get("mean")
            drawn = picture(f"grid_{number}", title_of(variant, group), some, reference)
            drawn.write(home / "plots")
            tables = [html.table(HEAD, [cells_of(name, row) for name, row in some.items()])]
            beside = published(some)
            if beside is not None:
                tables += [
                    html.element("p", "Mean ± std; in brackets the reference recipe's values."),
                    html.table(*beside),
                ]
            listed = html.bullets(remarks(some))
            parts.append(html.section(title_of(variant, group), *tables, listed, side_by_side([drawn])))
    if found["failed"]:
        lines = [f"{failure['cell']}: {failure['error']}" for failure in found["failed"]]
        parts.append(html.section("Failed cells", html.bullets(lines)))
    parts.append(html.details("Grid", html.json_block(grid.model_dump(mode="json"))))
    write_text(home / "grid.html", html.page(grid.experiment_name, *parts, data={"summary": found}))


@styled()
def picture(name: str, title: str, rows: Mapping[str, Any], reference: float | None = None) -> Picture:
    """Draw R², s and r of each row: mean, std and the ceiling r²; R² below -1 is cut. `reference`: R² of another
    row."""
    made, (ax,) = panel((8.0, 0.9 + 0.42 * len(rows)))
    height = np.arange(len(rows))[::-1]
    for shift, (key, colour) in zip((0.22, 0.0, -0.22), SHOWN.items(), strict=True):
        label = COLUMNS[key].label
        mean, std = (np.array([row[key][name] for row in rows.values()], "float64") for name in ("mean", "std"))
        ax.errorbar(mean, height + shift, xerr=std, fmt="o", color=colour, label=label, markersize=4, elinewidth=1.2)
    ceiling = np.array([row["r2_ceiling"]["mean"] for row in rows.values()], "float64")  # NaN for None
    ax.plot(ceiling, height + 0.22, "|", color=INK, markersize=10, label="ceiling r²")
    ax.axvline(0, color=GREY, linewidth=1)
    if reference is not None:
        ax.axvline(reference, color=BLUE, linewidth=1, linestyle=":", label="R² of the reference")
    low, high = ax.get_xlim()
    ax.set(yticks=height, title=title, xlim=(max(low, -1.0), min(high, 2.0)))
    ax.set_yticklabels(list(rows))
    ax.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.06))
    return Picture(name, "Mean and standard deviation over seeds.", made, wide=True)
