"""The files of an ensemble: its export, its predictions, its report."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras import ops

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.arrays import write_npz
from cloudml_tf.evaluation.comparison import Run
from cloudml_tf.inference.ensemble.calibration import Judged, standardised
from cloudml_tf.inference.ensemble.combination import Combination
from cloudml_tf.inference.ensemble.pictures import draw
from cloudml_tf.inference.ensemble.tables import write_page
from cloudml_tf.inference.export.writer import Source
from cloudml_tf.inference.export.writer import export as write_export
from cloudml_tf.models import share_frames
from cloudml_tf.nn.introspection import reads_sequences
from cloudml_tf.reports import report
from cloudml_tf.train.network import exported_twin


@dataclass(frozen=True)
class Ensemble:
    """An evaluated ensemble."""

    config: Config
    members: list[Run]
    networks: list[keras.Model]
    combination: Combination
    parts: dict[str, Judged]  # "test", and "calibration" where there is one
    metrics: dict[str, Any]


def export(found: Ensemble, folder: Path) -> dict[str, Any]:
    """Export all members as one model; mean, spread and, once calibrated, lower and upper."""
    name, keys = found.config.target.name, ("spread", "lower", "upper")
    networks = [
        exported_twin(network, run.config, run.description)
        for network, run in zip(found.networks, found.members, strict=True)
    ]
    shared = [share_frames(network) for network in networks if reads_sequences(network)]

    def answer(inputs: dict[str, Any], members: list[keras.Model] = networks) -> dict[str, Any]:
        outputs = [ops.cast(member(inputs, training=False), "float32") for member in members]
        maps = len(outputs[0].shape) == 3  # (B,H,W): a column of all pixels
        shape = ops.shape(outputs[0]) if maps else (-1, 1)
        values = found.combination.answer([ops.reshape(one, (-1, 1)) if maps else one for one in outputs], ops)
        named = {name: values["mean"], **{f"{name}_{key}": values[key] for key in keys if key in values}}
        return {key: ops.reshape(value, shape) for key, value in named.items()}

    description = found.members[0].description
    more = {"members": found.metrics["members"], "intervals": found.metrics.get("intervals")}
    target = {**description["scaling"]["target"], "smearing": found.combination.target.smearing}
    description = {**description, "scaling": {**description["scaling"], "target": target}}
    test, shared_answer = found.parts["test"].examples, partial(answer, members=shared) if shared else None
    source = Source(networks[0], answer, found.config, description, found.metrics, test, shared_answer, more)
    return write_export(source, folder, found.config.output.export_formats)


def save_predictions(folder: Path, found: Ensemble) -> None:
    """Write predictions.npz: like a run's, with spread, lower, upper and every member (m, n, *P), in physical units."""
    arrays: dict[str, Any] = {}
    for part, evaluated in found.parts.items():
        answer = found.combination.answer(evaluated.outputs)
        arrays |= {f"{part}_{key}": values for key, values in evaluated.examples.keys().items()}
        arrays[f"{part}_label"] = evaluated.spread_out(evaluated.label)
        arrays[f"{part}_prediction"] = evaluated.spread_out(answer.pop("mean"))
        arrays |= {f"{part}_{key}": evaluated.spread_out(value) for key, value in answer.items()}
        members = found.combination.physical(found.combination.members(evaluated.outputs))
        arrays[f"{part}_members"] = evaluated.spread_out(members)
    write_npz(folder / "predictions.npz", **arrays)


def write_report(folder: Path, found: Ensemble) -> None:
    """Write the figures, and report.html with all of them."""
    target = found.combination.target
    evidence = report.Evidence(
        parts={"test": found.parts["test"].examples},
        predictions={"test": standardised(found.combination, found.parts["test"], target)},
        scaling=target,
        across_track_axis=found.config.data.camera.across_track_axis,
    )
    pictures = draw(found.combination, found.parts["test"], found.metrics)
    for picture in pictures:
        picture.write(folder / "plots")
    write_page(folder / "report.html", found.metrics, report.draw(folder, found.metrics, evidence), pictures)
