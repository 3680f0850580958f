"""The report of a run or an evaluation: tables for the terminal, pictures, and one HTML page with everything inside."""

import base64
import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf import plots
from cloudml_tf.console import Console
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.files import write_text
from cloudml_tf.judge import ABSOLUTE_LIMITS, SEED_STD
from cloudml_tf.results import table_rows

COLUMNS = ["", "R²", "s", "r", "bias", "RMSE", "MAE", "ceiling r²", "cost (s-r)²", "n (n_eff)"]


def score_cells(name: str, found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    s, r = found["variance_ratio"], found["correlation"]
    low, high = found.get("ci95", {}).get("r2", (None, None))
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    inflated = " inflated" if s > r + 0.1 else ""
    effective = f" ({found['n_eff']:.0f})" if "n_eff" in found else ""
    return [
        name,
        f"{found['r2']:.3f}{interval}",
        f"{100 * s:.1f} %{inflated}",
        f"{r:.3f}",
        f"{found['bias']:+.3f}",
        f"{found['rmse']:.3f}",
        f"{found['mae']:.3f}",
        f"{found['r2_ceiling']:.3f}",
        f"{(s - r) ** 2:.4f}",
        f"{found['n']}{effective}",
    ]


def print_scores(console: Console, metrics: dict[str, Any], part: str = "test") -> None:
    """The table and the verdict, on the terminal."""
    rows = [score_cells(name, found) for name, found in table_rows(metrics, part)]
    console.table(f"{part}, {metrics['space']['loss']}, 95 % intervals by block bootstrap", COLUMNS, rows)
    for line in verdict(metrics):
        console.say(line)


def verdict(metrics: dict[str, Any]) -> list[str]:
    """Tier and acceptance in words."""
    lines = []
    if "tier" in metrics:
        tier = metrics["tier"]
        above = f"; for {tier['next']}: {'; '.join(tier['failed'])}" if tier["failed"] else ""
        lines.append(f"tier: {tier['name']}{above}")
        lines += absolute_limits(metrics)
    if "phase3" in metrics:
        accepted = metrics["phase3"]
        lines.append("phase 3: " + ("passed" if accepted["passed"] else "; ".join(accepted["failed"])))
    return lines


def absolute_limits(metrics: dict[str, Any]) -> list[str]:
    """The original's absolute limits beside the relative ones, for an optical depth that was not transformed."""
    if metrics["space"]["loss"] != "optical_depth":
        return []
    found = metrics["test"]
    kept = []
    for name, limits in ABSOLUTE_LIMITS.items():
        fails = [
            f"{key} {found[key]:.3f}"
            for key, limit in limits.items()
            if not (found[key] > limit if key == "pred_spread" else found[key] < limit)
        ]
        kept.append(f"{name} {'met' if not fails else 'missed by ' + ', '.join(fails)}")
    return [f"in the original's absolute limits (made for std {SEED_STD:g}): " + "; ".join(kept)]


def draw(
    folder: Path,
    metrics: dict[str, Any],
    parts: dict[str, Samples],
    predictions: dict[str, np.ndarray],
    scaling: TargetScaling,
    history: list[dict[str, float]] | None = None,
    best_epoch: int | None = None,
    snapshots: dict[int, np.ndarray] | None = None,
) -> list[tuple[str, Path]]:
    """All pictures that the given results allow: (caption, file)."""
    unit = metrics["space"]["loss"]
    home = folder / "plots"
    test = parts["test"]
    target, prediction = scaling.transform(test.label), scaling.unscale(predictions["test"])
    made = []
    if history:
        made.append(("Training", plots.curves(history, best_epoch, home / "curves.png")))
    made.append(("Test part", plots.scatter(target, prediction, metrics["test"], unit, home / "scatter.png")))
    if snapshots is not None and "val" in parts:
        val = scaling.transform(parts["val"].label)
        steps = {epoch: scaling.unscale(z) for epoch, z in snapshots.items()}
        final = scaling.unscale(predictions["val"])
        path = plots.distributions(val, steps, final, unit, home / "distributions.png")
        made.append(("Predictions and labels of the validation part", path))
    made.append(("Flights", plots.flight_bars(metrics["per_flight"], home / "flights.png")))
    made.append(("Taylor diagram", plots.taylor(table_rows(metrics), home / "taylor.png")))
    number = test.flight[0]
    here = test.flight == number
    name = test.flight_names[number]
    path = plots.time_series(test.time_s[here], target[here], prediction[here], name, unit, home / "time_series.png")
    made.append(("Along a flight of the test part", path))
    return made


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #e6e8eb; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
pre {{ overflow: auto; background: #f6f7f8; padding: 1rem; }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


def write_html(
    path: Path, title: str, metrics: dict[str, Any], pictures: list[tuple[str, Path]], details: dict[str, Any]
) -> None:
    """One page that needs no other file."""
    parts = [f"<p>{html.escape(line)}</p>" for line in verdict(metrics)]
    for part in ("test", "val", "train"):
        if part in metrics:
            for name, space in {name: space for space, name in reversed(metrics["space"].items())}.items():
                parts.append(f"<h2>Scores: {part}, {html.escape(name)}</h2>{_table(metrics, part, space)}")
    parts.append("<p>R² = r² − (s − r)² − (bias/std)²: the ceiling r² is what the best rescaling could reach.</p>")
    for caption, picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        name = html.escape(caption)
        parts.append(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{data}">')
    for name, content in details.items():
        text = html.escape(json.dumps(content, indent=2))
        parts.append(f"<details><summary>{html.escape(name)}</summary><pre>{text}</pre></details>")
    write_text(path, PAGE.format(title=html.escape(title), body="\n".join(parts)))


def _table(metrics: dict[str, Any], part: str, space: str) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in COLUMNS)
    found_in = {"loss": lambda found: found, "physical": lambda found: found["physical"]}[space]
    rows = [score_cells(name, found_in(found)) for name, found in table_rows(metrics, part)]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
