"""The ensemble's tables and page."""

from pathlib import Path
from typing import Any

from cloudml_tf.evaluation.scores import COLUMNS, S_IS, labels, texts
from cloudml_tf.inference.ensemble.calibration import OWN, percent
from cloudml_tf.reports import html, report
from cloudml_tf.reports.figure import Picture, side_by_side
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_text

HEAD = ["", *labels(OWN)]
INTERVAL_COLUMNS = ["test flight", "labels", "coverage", "width", "interval score", "spread alone covers"]


def member_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """Rows of each member, their mean ± std, and the ensemble."""
    rows = [[name, *texts(found, OWN)] for name, found in metrics["member_scores"].items()]
    rows.append(["mean member", *(COLUMNS[key].with_std(metrics["mean_member"][key]) for key in OWN)])
    rows.append(["ensemble", *texts(metrics["test"], OWN)])
    return rows


def interval_rows(intervals: dict[str, Any]) -> list[list[str]]:
    """One row per test flight, and the mean over flights."""
    each = {**intervals["test"], "mean over flights": {"n": "", **intervals["mean"]}}
    rows = []
    for name, found in each.items():
        widths = [f"{found['width']:.3f}", f"{found['interval_score']:.3f}"]
        rows.append([name, str(found["n"]), percent(found["coverage"]), *widths, percent(found["spread_alone"])])
    return rows


def gain(metrics: dict[str, Any]) -> str:
    """The gain of the ensemble in words."""
    found, members = metrics["gain"], len(metrics["member_scores"])
    fall = found["rmse_fall"]
    text = f"RMSE {abs(100 * fall):.1f} % {'below' if fall >= 0 else 'above'} the mean member's"
    return text if members == 1 else f"{text}; better than {found['better_than']} of {members} members"


def tell(console: Console, metrics: dict[str, Any]) -> None:
    """Print the tables."""
    console.table(f"test, {metrics['space']['loss']}; {S_IS}", HEAD, member_rows(metrics))
    console.say(gain(metrics))
    if "intervals" in metrics:
        console.table(f"intervals, {metrics['space']['loss']}", INTERVAL_COLUMNS, interval_rows(metrics["intervals"]))
        for line in metrics["intervals"]["words"]:
            (console.warn if "fail" in line else console.say)(line)


def write_page(path: Path, metrics: dict[str, Any], chapters: list[report.Chapter], pictures: list[Picture]) -> None:
    """Write report.html, which needs no other file."""
    title = f"{metrics['experiment']}: ensemble of {len(metrics['member_scores'])}"
    members = html.table(HEAD, member_rows(metrics), strong={"ensemble"})
    note = f"{gain(metrics)}. Below, 'network' is the ensemble."
    parts = [*report.summary(metrics), html.section("Members", members, note=note)]
    if "intervals" in metrics:
        table = html.table(INTERVAL_COLUMNS, interval_rows(metrics["intervals"]))
        note = "Widths and scores in the loss's space. Spread alone: mean ± z spread, without calibration."
        parts.append(html.section("Intervals", html.bullets(metrics["intervals"]["words"]), table, note=note))
    parts.append(html.section("Uncertainty", side_by_side(pictures)))
    parts += [*report.score_tables(metrics), *report.sections(chapters)]
    runs = html.bullets([f"{name}: {folder}" for name, folder in metrics["members"].items()])
    parts.append(html.section("Details", html.details("members", runs)))
    write_text(path, html.page(title, *parts, data={"metrics": metrics}))
