"""The report of a run or an evaluation: tables for the terminal, pictures, and one HTML page with everything inside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from cloudml_tf.data.samples import Examples, Samples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.evaluation import selection
from cloudml_tf.evaluation.collect import table_rows
from cloudml_tf.evaluation.scores import labels, number, texts
from cloudml_tf.reports import html, images, maps, plots, shift, tables
from cloudml_tf.reports.figure import Picture, side_by_side, worded
from cloudml_tf.reports.html import Markup
from cloudml_tf.utils.files import write_text

ATTENTION = (
    "Bars: the attention of the middle frame, averaged over heads, that is how much of each frame is mixed into the "
    "middle one. The answer also uses the mean over all frames. "
)


@dataclass(frozen=True)
class Evidence:
    """What the pictures of a report are drawn from; "test" is needed, the rest is drawn where it is there."""

    parts: Mapping[str, Examples]
    predictions: Mapping[str, np.ndarray]  # (n, *P) standardised, of each split
    scaling: TargetScaling
    across_track_axis: str = "rows"  # of the image
    history: Sequence[Mapping[str, float]] = ()
    best_epoch: int | None = None  # 0-based
    snapshots: Mapping[int, np.ndarray] = field(default_factory=dict)  # epoch -> standardised, of "val"
    attend: Callable[[dict[str, np.ndarray]], np.ndarray | None] | None = None  # inputs of k sequences -> (k, T)

    @property
    def of_maps(self) -> bool:
        """Whether every pixel of a scene is predicted."""
        return self.parts["test"].label.ndim == 3

    @property
    def truth(self) -> str:
        """What labels are called in pictures."""
        return "truth" if self.of_maps else "lidar"

    def known(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions (k,) of one split where there is a label, in the loss's space."""
        examples, scaling = self.parts[part], self.scaling
        known = examples.known
        return scaling.transform(examples.label[known]), scaling.unscale(self.predictions[part][known])


@dataclass(frozen=True)
class Chapter:
    """Pictures under a heading, with a line on how to read them."""

    title: str
    note: str
    pictures: list[Picture]


def draw(folder: Path, metrics: dict[str, Any], evidence: Evidence) -> list[Chapter]:
    """All pictures that the results allow; each is also written as a file below plots/."""
    unit = worded(metrics["space"]["loss"])
    of_split = _of_scenes if evidence.of_maps else _of_flights
    chapters = [*_of_training(evidence, unit), _of_scores(metrics, evidence, unit), *of_split(metrics, evidence, unit)]
    for chapter in chapters:
        for picture in chapter.pictures:
            picture.write(folder / "plots")
    return chapters


def _of_training(evidence: Evidence, unit: str) -> list[Chapter]:
    """Curves and distributions over the epochs, for a run that was trained here."""
    chapters = []
    if evidence.history:
        note = "The dotted line is the best epoch, whose weights are scored below."
        chapters.append(Chapter("Training", note, plots.curves(evidence.history, evidence.best_epoch)))
    if evidence.snapshots and "val" in evidence.parts:
        label, final = evidence.known("val")
        steps = {epoch: evidence.scaling.unscale(z) for epoch, z in evidence.snapshots.items()}
        drawn = plots.distributions(label, steps, final, unit, truth=evidence.truth)
        note = "Predictions and labels of the validation split: a collapse is a spike where the labels are spread out."
        chapters.append(Chapter("Distributions", note, drawn))
    return chapters


def _of_scores(metrics: dict[str, Any], evidence: Evidence, unit: str) -> Chapter:
    """Predictions over labels, residuals, and the Taylor diagram; of maps also the bias by decade."""
    shown = (*evidence.known("test"), metrics["test"], unit)
    truth = evidence.truth
    drawn = [plots.scatter(*shown, truth=truth), *plots.residuals(*shown, truth=truth)]
    if "decades" in metrics:
        drawn.append(maps.decade_bias(metrics["decades"]["test"], unit))
    note = "All labelled pixels of the test split." if evidence.of_maps else "The test split."
    return Chapter(f"Predictions and {truth}", note, [*drawn, plots.taylor(table_rows(metrics))])


def _of_scenes(metrics: dict[str, Any], evidence: Evidence, unit: str) -> list[Chapter]:
    """Scores of each scene or group, and the maps of some."""
    test = cast(Scenes, evidence.parts["test"])
    z, scaling = evidence.predictions["test"], evidence.scaling
    drawn = [maps.scene_maps(test, z, scaling, number, unit) for number in maps.worst_and_best(test, z, scaling)]
    return [
        Chapter("Scenes", "", plots.flight_bars({"test": metrics["per_flight"]["test"]})),
        Chapter("Maps", "The scenes with the largest and with the smallest errors.", drawn),
    ]


def _of_flights(metrics: dict[str, Any], evidence: Evidence, unit: str) -> list[Chapter]:
    """Scores of each flight, the time series under what the camera saw, and the best and worst sequences."""
    test, (label, prediction) = cast(Samples, evidence.parts["test"]), evidence.known("test")
    along = images.time_series(test, label, prediction, unit, evidence.across_track_axis)
    note = "Above, what the camera saw at the labelled frames; the dashed line is nadir."
    chapters = [
        Chapter("Flights", "", plots.flight_bars(metrics["per_flight"])),
        Chapter("Along a flight", note, along),
    ]
    for name, worst in (("worst", True), ("best", False)):
        chosen = images.cases(test, prediction - label, worst)
        attention = None if evidence.attend is None else evidence.attend(test.inputs(chosen))
        note = f"The {'largest' if worst else 'smallest'} errors of the test split, a minute or more apart. "
        note += ATTENTION if attention is not None and worst else ""
        drawn = images.film(test, chosen, label, prediction, attention, name)
        chapters.append(Chapter(f"{name.capitalize()} cases", note + "The ring is nadir.", drawn))
    return chapters


def write_html(
    path: Path, title: str, metrics: dict[str, Any], chapters: Sequence[Chapter], extra: Mapping[str, Any]
) -> None:
    """One page that needs no other file. Its numbers are those of `metrics`, which it also holds as JSON."""
    shown = sections(chapters)
    if "pretraining" in metrics:
        shown.insert(0, _pretraining(metrics))
    if "selection" in metrics:
        shown.insert(0, _selection(metrics["selection"]))
    if "shift" in metrics:
        shown.insert(0, shift.section(metrics["shift"]))
    folded = [html.details(name, html.json_block(content)) for name, content in extra.items()]
    content = [*summary(metrics), *score_tables(metrics), *shown, html.section("Details", *folded)]
    write_text(path, html.page(title, *content, data={"metrics": metrics}))


def sections(chapters: Sequence[Chapter]) -> list[Markup]:
    """The sections of a page for the chapters that have pictures."""
    return [html.section(one.title, side_by_side(one.pictures), note=one.note) for one in chapters if one.pictures]


def _pretraining(metrics: dict[str, Any]) -> Markup:
    """Hidden patches beside their references, and what the encoder was worth beside random weights."""
    found = metrics["pretraining"]
    errors = [[name.replace("_", " "), number(error, ".4f")] for name, error in found["errors"].items()]
    rows = tables.pretraining_rows(found, {part: metrics[part] for part in ("val", "test")})
    return html.section(
        "Pretraining",
        html.element("p", found["verdict"]),
        html.table(["hidden patches of validation frames", "mean squared error"], errors),
        html.table(["", *labels(tables.WORTH)], rows, strong={"test: pretrained"}),
        note="The encoder learned to paint hidden patches of frames without labels. Its worth is the difference to the "
        "control: the same network, trained alike from random weights.",
    )


def _selection(found: dict[str, Any]) -> Markup:
    """How recipes and baselines did on training flights that were left out, and what was made of it."""
    flights = found["rows"][found["ours"]]["flights"]
    shown = (*selection.SHOWN, "bias")
    by_flight = [[name, *texts(one, shown)] for name, one in flights.items()]
    return html.section(
        "Training flights left out in turn",
        html.bullets(selection.in_words(found)),
        html.table(selection.HEAD, selection.rows_of(found), strong={found["ours"]}),
        html.element("h3", f"{found['ours']}, flight by flight"),
        html.table(["", *labels(shown)], by_flight),
        note="Each flight was predicted by what was fitted to the others. RMSE is over flights of equal weight; r and "
        "s are medians over flights.",
    )


def summary(metrics: dict[str, Any]) -> list[Markup]:
    """Verdict, diagnosis and the few numbers that matter most."""
    found, training = metrics["test"], metrics.get("training")
    badges = []
    if "tier" in metrics:
        name = metrics["tier"]["name"]
        badges.append(html.badge("no tier" if name == "none" else f"tier: {name}", tables.TIER_TONES[name]))
    if "phase3" in metrics:
        tone = {True: "good", False: "bad", None: "fair"}[metrics["phase3"]["passed"]]
        badges.append(html.badge(f"acceptance: {tables.acceptance(metrics)}", tone))
    if training and training["collapsed"]:
        badges.append(html.badge("collapsed", "bad"))
    diagnosis = metrics.get("diagnosis")
    if diagnosis:
        badges.append(html.badge(diagnosis["verdict"], "good" if diagnosis["verdict"] == "healthy" else "bad"))
    lines = [html.element("p", line) for line in tables.reasons(metrics)]
    lines += [html.element("p", f"flight {n} was left out: {why}") for n, why in metrics.get("left_out", {}).items()]
    if training:
        lines.append(html.element("p", _trained(training), class_="muted"))
    unit = metrics["space"]["loss"]
    r2, s, r, ceiling, rmse = texts(found, ("r2", "variance_ratio", "correlation", "r2_ceiling", "rmse"))
    big = [
        ("R²", r2, tables.interval(found, "r2")),
        ("s", s, tables.interval(found, "variance_ratio")),
        ("r, correlation", r, f"ceiling r² {ceiling}"),
        (f"RMSE, {unit}", rmse, tables.interval(found, "rmse")),
    ]
    top = [html.element("p", *badges), *([html.columns(*_diagnosed(diagnosis))] if diagnosis else [])]
    return [*top, html.numbers(big), html.columns(*lines)]


def _trained(training: Mapping[str, Any]) -> str:
    best = "" if training["best_epoch"] is None else f", best epoch {training['best_epoch']}"
    return f"{training['weights']:,} weights, {training['seconds']:.0f} s{best}; {training['ending']}"


def _diagnosed(diagnosis: Mapping[str, Any] | None) -> list[Markup]:
    """What went wrong, what speaks for it, what to set, and what is worth knowing."""
    if not diagnosis:
        return []
    found = [html.element("p", diagnosis["summary"])]
    for finding in diagnosis["findings"]:
        changes = " ".join(f"--set {change}" for change in finding["set"])
        remedy = [finding["remedy"], " ", html.element("code", changes)] if changes else [finding["remedy"]]
        found += [html.element("h3", finding["name"]), html.bullets(finding["evidence"]), html.element("p", *remedy)]
    return found + ([html.bullets(diagnosis["notes"])] if diagnosis.get("notes") else [])


def score_tables(metrics: dict[str, Any]) -> list[Markup]:
    """Scores of the test part in each space; those of the other parts folded away."""
    spaces = {name: space for space, name in reversed(metrics["space"].items())}  # one, where both have one name
    words = {"loss": ", in which the loss works and the tier is judged" if len(spaces) > 1 else "", "physical": ""}

    def of(part: str) -> list[Markup]:
        found = []
        for name, space in sorted(spaces.items(), key=lambda pair: pair[1]):
            scored = [(n, f if space == "loss" else f["physical"]) for n, f in table_rows(metrics, part)]
            cells = html.table(tables.HEAD, [tables.score_cells(*row) for row in scored], strong={"network"})
            found += [html.element("h3", f"{part}: {name}{words[space]}"), cells]
        return found

    others = [one for part in ("val", "train") if part in metrics for one in of(part)]
    folded = [html.details("Validation and training part", *others)] if others else []
    return [html.section("Scores", *of("test"), *folded, note=tables.IDENTITY)]
