"""The report's section on inputs and labels that differ from the training's."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from cloudml_tf.evaluation.scores import number
from cloudml_tf.evaluation.shift import NOTE
from cloudml_tf.reports import html


def section(found: Mapping[str, Any]) -> Markup:
    """The section for the report."""
    lead = [html.element("p", html.badge("shift", "fair"), found["meaning"]), html.bullets(found["warnings"])]
    lead = lead if found["warnings"] else []
    rows = []
    for row in found["compared"]:
        ranges = [" to ".join(f"{row[side][end]:.3g}" for end in (0, 2)) for side in ("training", "here")]
        numbers = [f"{row['stds']:+.2f}", f"{row['distance']:.2f}", number(row["chance"], ".2g")]
        rows.append([f"{row['name']}: {', '.join(row['flights'])}", *ranges, *numbers])
    columns = ["", "training, 5 to 95 %", "here, 5 to 95 %", "median, std", "distance", "chance"]
    return html.section("Inputs and labels compared with training", *lead, html.table(columns, rows), note=NOTE)
