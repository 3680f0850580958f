"""The report of a training or an evaluation on scenes: the same page as for flights, with maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.evaluation.collect import table_rows
from cloudml_tf.reports import plots
from cloudml_tf.reports.figure import worded
from cloudml_tf.reports.maps import decade_bias, scene_maps, worst_and_best
from cloudml_tf.reports.report import Chapter


@dataclass(frozen=True)
class SceneEvidence:
    """What the pictures are drawn from; "test" is needed, the rest is drawn where it is there."""

    parts: dict[str, Scenes]
    maps: dict[str, np.ndarray]  # (n,H,W) standardised, of each part
    scaling: TargetScaling
    history: Sequence[Mapping[str, float]] = ()
    best_epoch: int | None = None  # 0-based
    snapshots: Mapping[int, np.ndarray] = field(default_factory=dict)  # epoch -> (pixels,) standardised, of "val"


def draw(folder: Path, metrics: dict[str, Any], evidence: SceneEvidence) -> list[Chapter]:
    """All pictures that the results allow; each is also written as a file below plots/."""
    unit, test, scaling = worded(metrics["space"]["loss"]), evidence.parts["test"], evidence.scaling
    z, seen = evidence.maps["test"], test.seen
    target, prediction = scaling.transform(test.label[seen]), scaling.unscale(z[seen])
    of_scores = [
        plots.scatter(target, prediction, metrics["test"], unit, truth="truth"),
        *plots.residuals(target, prediction, metrics["test"], unit, truth="truth"),
        decade_bias(metrics["decades"]["test"], unit),
        plots.taylor(table_rows(metrics)),
    ]
    chosen = worst_and_best(test, z, scaling)
    maps = [scene_maps(test, z, scaling, number, unit) for number in chosen]
    chapters = [
        *_of_training(evidence, unit),
        Chapter("Predictions and truth", "All labelled pixels of the test part.", of_scores),
        Chapter("Scenes", "", plots.flight_bars({"test": metrics["per_flight"]["test"]})),
        Chapter("Maps", "The scenes with the largest and with the smallest errors.", maps),
    ]
    for chapter in chapters:
        for picture in chapter.pictures:
            picture.write(folder / "plots")
    return chapters


def _of_training(evidence: SceneEvidence, unit: str) -> list[Chapter]:
    chapters = []
    if evidence.history:
        note = "The dotted line is the best epoch, whose weights are judged below."
        chapters.append(Chapter("Training", note, plots.curves(evidence.history, evidence.best_epoch)))
    if evidence.snapshots and "val" in evidence.parts:
        scaling, val = evidence.scaling, evidence.parts["val"]
        steps = {epoch: scaling.unscale(z) for epoch, z in evidence.snapshots.items()}
        final = scaling.unscale(evidence.maps["val"][val.seen])
        drawn = plots.distributions(scaling.transform(val.label[val.seen]), steps, final, unit, truth="truth")
        note = "Predictions and labels of the validation part: a collapse is a spike where the labels are spread out."
        chapters.append(Chapter("Distributions", note, drawn))
    return chapters
