"""A training on scenes from fit to export; what `train` does for sequences."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudml_tf.config.run_folder import read_json
from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scene_preparation import PreparedScenes
from cloudml_tf.evaluation import maps as judging
from cloudml_tf.reports.report import write_html
from cloudml_tf.reports.scene_report import SceneEvidence, draw
from cloudml_tf.train.swath_network import predict_scenes
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import whole_file

if TYPE_CHECKING:
    from cloudml_tf.train.tracking import Tracker


def fit_and_evaluate(
    config: Config, prepared: PreparedScenes, folder: Path, console: Console, resume: bool, track: "Tracker"
) -> dict[str, Any]:
    """Fit, score, draw, report and export; writes everything that is known after training."""
    from cloudml_tf.experiments.finish import finish, summary_of
    from cloudml_tf.train import fit, network

    network.start_keras(config)
    shape: Any = prepared.parts["train"].frame_shape
    if config.augmentation.window is not None:
        shape = (None, None, shape[2])  # trained on windows, judged on whole scenes
    model = network.make_model(config, prepared.scaling, shape)
    console.say(f"model: {model.count_params():,} weights")
    fitted = fit.fit(model, config, prepared, folder, console, resume, track)
    scaling, parts = prepared.scaling.target, prepared.parts
    maps = {part: judged_maps(model, scenes.frames, scaling) for part, scenes in parts.items()}
    metrics = judging.collect(parts, maps, scaling, config, fitted.history, fitted.best_epoch)
    metrics["training"] = summary_of(fitted)
    if config.evaluation.baselines:
        metrics["baselines"] = judging.collect_baselines(parts["train"], parts, scaling, config)
    _save_maps(folder, prepared, maps, scaling)
    if config.output.report:
        evidence = SceneEvidence(parts, maps, scaling, fitted.history, fitted.best_epoch, fitted.snapshots)
        _write_report(folder, metrics, evidence, config, prepared.description())

    def export(home: Path) -> dict[str, Any]:
        from cloudml_tf.inference.export.swath_graph import export_networks

        return export_networks([model], home, config, prepared.description(), metrics, parts["test"].frames, folder)

    finish(config, folder, metrics, export, console)
    return metrics


def _write_report(
    folder: Path, metrics: dict[str, Any], evidence: SceneEvidence, config: Config, description: dict[str, Any]
) -> None:
    chapters = draw(folder, metrics, evidence)
    details = {"configuration": config.model_dump(mode="json"), "data": description}
    details["environment"] = read_json(folder / "environment.json")
    write_html(folder / "report.html", f"{config.experiment_name} {folder.name}", metrics, chapters, details)


def judged_maps(model: Any, frames: np.ndarray, scaling: TargetScaling) -> np.ndarray:
    """(n,H,W) standardised, as the exported model would answer: with no optical depth below 0."""
    return scaling.standardise(scaling.physical(predict_scenes(model, frames)))


def _save_maps(folder: Path, prepared: PreparedScenes, maps: judging.Maps, scaling: TargetScaling) -> None:
    """predictions.npz: names (n,), and label and prediction (n,H,W) of each part, in the target's own unit."""
    arrays: dict[str, np.ndarray] = {}
    for part, scenes in prepared.parts.items():
        arrays[f"{part}_scene"] = np.asarray(scenes.names)
        arrays[f"{part}_label"] = np.where(scenes.seen, scenes.label, np.nan)
        arrays[f"{part}_prediction"] = scaling.physical(maps[part])
    with whole_file(folder / "predictions.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
