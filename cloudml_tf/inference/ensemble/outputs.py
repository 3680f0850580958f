"""What an ensemble leaves behind: its export, its predictions, its report."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.config.schema import Config
from cloudml_tf.evaluation.comparison import Run
from cloudml_tf.inference.ensemble.calibration import Judged, standardised
from cloudml_tf.inference.ensemble.combination import Combination
from cloudml_tf.inference.ensemble.pictures import draw
from cloudml_tf.inference.ensemble.tables import write_page
from cloudml_tf.inference.export.writer import Source, in_float32
from cloudml_tf.inference.export.writer import export as write_export
from cloudml_tf.models import share_frames
from cloudml_tf.reports import report
from cloudml_tf.utils.files import whole_file


@dataclass(frozen=True)
class Ensemble:
    """An ensemble that was judged."""

    config: Config
    members: list[Run]
    networks: list[keras.Model]
    combination: Combination
    parts: dict[str, Judged]  # "test", and "calibration" where there is one
    metrics: dict[str, Any]


def export(found: Ensemble, folder: Path) -> dict[str, Any]:
    """One export with all members inside; mean, spread and, once calibrated, lower and upper."""
    name, keys = found.config.target.name, ("spread", "lower", "upper")
    networks = [
        in_float32(network, run.config, run.description)
        for network, run in zip(found.networks, found.members, strict=True)
    ]

    shared = [share_frames(network) for network in networks]

    def answer(inputs: dict[str, Any], voices: list[keras.Model] = networks) -> dict[str, Any]:
        outputs = [ops.cast(voice(inputs, training=False), "float32") for voice in voices]
        values = found.combination.answer(outputs, ops)
        named = {name: values["mean"], **{f"{name}_{key}": values[key] for key in keys if key in values}}
        return {key: ops.expand_dims(value, 1) for key, value in named.items()}

    description = found.members[0].description
    more = {"members": found.metrics["members"], "intervals": found.metrics.get("intervals")}
    target = {**description["scaling"]["target"], "smearing": found.combination.target.smearing}
    description = {**description, "scaling": {**description["scaling"], "target": target}}
    source = Source(
        [*networks, *shared],
        answer,
        found.config,
        description,
        found.metrics,
        found.parts["test"].samples,
        partial(answer, voices=shared),
        more,
    )
    return write_export(source, folder, found.config.output.export_formats)


def save_predictions(folder: Path, found: Ensemble) -> None:
    """predictions.npz: as a run's, with spread, lower, upper and every member (m,n), in physical units."""
    arrays: dict[str, Any] = {}
    for part, judged in found.parts.items():
        answer = found.combination.answer(judged.outputs)
        arrays[f"{part}_time_s"], arrays[f"{part}_label"] = judged.samples.time_s, judged.samples.label
        arrays[f"{part}_flight"] = judged.flights()
        arrays[f"{part}_prediction"] = answer.pop("mean")
        arrays |= {f"{part}_{key}": value for key, value in answer.items()}
        arrays[f"{part}_members"] = found.combination.physical(found.combination.members(judged.outputs))
    with whole_file(folder / "predictions.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def write_report(folder: Path, found: Ensemble) -> None:
    """Pictures, and report.html with all of them."""
    target = found.combination.target
    evidence = report.Evidence(
        parts={"test": found.parts["test"].samples},
        predictions={"test": standardised(found.combination, found.parts["test"], target)},
        scaling=target,
        across_track_axis=found.config.data.camera.across_track_axis,
    )
    pictures = draw(found.combination, found.parts["test"], found.metrics)
    for picture in pictures:
        picture.write(folder / "plots")
    write_page(folder / "report.html", found.metrics, report.draw(folder, found.metrics, evidence), pictures)
