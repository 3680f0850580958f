"""Train, judge and export: `python -m cloudml_tf.train configs/tier1.json`.

    flights ─ samples ─ split ─ fit ─ scores, baselines, tiers ─ report ─ export

Functions first, the thin door last. Keras is loaded only once there is something to train.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudml_tf.config.run_folder import (
    check_same,
    check_unused,
    forget_previous,
    has_checkpoint,
    new_run,
    read_json,
    run_to_resume,
    write_start,
)
from cloudml_tf.config.schema import Config
from cloudml_tf.inference.export.formats import check_backend, check_packages
from cloudml_tf.train import devices
from cloudml_tf.train.warm_start import first_model, start_in_words
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import whole_file, write_json
from cloudml_tf.utils.locks import alone_in
from cloudml_tf.utils.tf_graphs import forgotten_graphs
from cloudml_tf.utils.tf_logging import quiet_tensorflow

if TYPE_CHECKING:
    from cloudml_tf.train.tracking import Tracker
from cloudml_tf.experiments.finish import finish, summary_of


def train(
    config: Config, console: Console, run_dir: str | None = None, resume: bool = False
) -> tuple[Path, dict[str, Any]]:
    """One run from files to report. Returns its folder and the content of metrics.json."""
    for text in (*config.warnings(), *devices.warnings(config.training)):
        console.warn(text)
    if config.output.export:
        check_packages(config.output.export_formats)
    resumed = run_to_resume(config, run_dir) if resume else None
    with console.progress("reading flights") as progress:
        prepared = _prepared(config, progress)
    if resumed is not None:
        check_same(resumed, config, prepared.fingerprint)
    if config.output.export:
        check_backend()
    # Only now: bad input must not leave an empty run folder behind.
    folder = resumed or new_run(config, run_dir)
    with alone_in(folder, "a training"):
        if resumed is None:
            check_unused(folder)  # another process may have been quicker
        if not has_checkpoint(folder):
            write_start(folder, config, prepared.description())
        _say_data(console, prepared.description())
        for text in prepared.remarks():
            console.warn(text)
        console.say(f"run folder: {folder}")
        metrics = fit_and_evaluate(config, prepared, folder, console, resume)
        forget_previous(folder)
    return folder, metrics


def _prepared(config: Config, progress: Any) -> Any:
    """Sequences of flights, or scenes."""
    if config.target.coverage == "swath":
        from cloudml_tf.data.scene_preparation import prepare_scenes

        return prepare_scenes(config)
    from cloudml_tf.data.prepare import prepare

    return prepare(config, progress, progress)


@forgotten_graphs()
def fit_and_evaluate(config: Config, prepared: Any, folder: Path, console: Console, resume: bool) -> dict[str, Any]:
    """Fit, score, diagnose, draw, report and export; writes everything that is known after training."""
    quiet_tensorflow()
    from cloudml_tf.train.tracking import tracker

    with tracker(config, folder) as track:
        if config.target.coverage == "swath":
            from cloudml_tf.experiments.scene_run import fit_and_evaluate as of_scenes

            metrics = of_scenes(config, prepared, folder, console, resume, track)
        else:
            metrics = _fit_and_evaluate(config, prepared, folder, console, resume, track)
        exported = metrics.get("export")
        track.results(metrics, Path(exported["folder"]) if exported else None)
    return metrics


def _fit_and_evaluate(
    config: Config, prepared: Any, folder: Path, console: Console, resume: bool, track: "Tracker"
) -> dict[str, Any]:
    from cloudml_tf.diagnostics.diagnosis.verdict import diagnose_training
    from cloudml_tf.evaluation import collect
    from cloudml_tf.train import fit, network

    devices.begin(config.training, console)
    model = first_model(config, prepared)
    console.say(f"model: {model.count_params():,} weights")
    if config.training.init_from is not None:
        console.say(start_in_words(config))
    pretrained = None
    if config.pretraining.enabled:
        from cloudml_tf.train import transfer

        pretrained = transfer.start_from_pretraining(model, config, prepared, folder, console)
    fitted = fit.fit(model, config, prepared, folder, console, resume, track)
    _say_ending(console, fitted)

    predictions = {part: network.predict(model, samples) for part, samples in prepared.parts.items()}
    prepared = collect.with_smearing(prepared, predictions["val"]) if config.target.smearing else prepared
    description, scaling = prepared.description(), prepared.scaling.target
    write_json(folder / "data.json", description)
    metrics = collect.collect(prepared.parts, predictions, scaling, config, fitted.history, fitted.best_epoch)
    metrics["training"] = summary_of(fitted)
    if prepared.left_out:
        metrics["left_out"] = prepared.left_out
    if pretrained is not None:
        metrics["pretraining"] = transfer.collect(pretrained, config, prepared, folder, console)
    _add_references(metrics, prepared, config)
    metrics["diagnosis"] = diagnose_training(metrics, fitted.history, config, prepared)
    _save_predictions(folder, prepared, predictions, scaling)
    if config.output.report:
        _write_report(folder, metrics, prepared, predictions, fitted, config)

    def export(home: Path) -> dict[str, Any]:
        from cloudml_tf.inference.export.writer import export_model

        return export_model(model, home, config, description, metrics, prepared.parts["test"], run=folder)

    finish(config, folder, metrics, export, console)
    return metrics


def _write_report(
    folder: Path, metrics: dict[str, Any], prepared: Any, predictions: dict[str, Any], fitted: Any, config: Config
) -> None:
    """Pictures, and report.html with all of them."""
    from cloudml_tf.nn.introspection import attention_weights
    from cloudml_tf.reports import report

    evidence = report.Evidence(
        parts=prepared.parts,
        predictions=predictions,
        scaling=prepared.scaling.target,
        across_track_axis=config.data.camera.across_track_axis,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        snapshots=fitted.snapshots,
        attend=partial(attention_weights, fitted.model),
    )
    chapters = report.draw(folder, metrics, evidence)
    details = {"configuration": config.model_dump(mode="json"), "data": prepared.description()}
    details["environment"] = read_json(folder / "environment.json")
    report.write_html(folder / "report.html", f"{config.experiment_name} {folder.name}", metrics, chapters, details)


def _add_references(metrics: dict[str, Any], prepared: Any, config: Config) -> None:
    """Baselines below the network, and the oracle above it where the flights are simulated."""
    from cloudml_tf.evaluation import collect

    parts, scaling = prepared.parts, prepared.scaling.target
    if config.evaluation.baselines:
        metrics["baselines"] = collect.collect_baselines(parts, scaling, config)
    oracle = collect.collect_oracle(parts, prepared.flights, scaling, config)
    if oracle is not None:
        metrics["oracle"] = oracle


def _save_predictions(folder: Path, prepared: Any, predictions: dict[str, Any], scaling: Any) -> None:
    """predictions.npz: time_s, flight, label and prediction (physical units) of each part."""
    import numpy as np

    arrays = {}
    for part, samples in prepared.parts.items():
        arrays[f"{part}_time_s"], arrays[f"{part}_label"] = samples.time_s, samples.label
        arrays[f"{part}_flight"] = np.asarray(samples.flight_names)[samples.flight]
        arrays[f"{part}_prediction"] = scaling.physical(predictions[part])
    with whole_file(folder / "predictions.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _say_data(console: Console, description: dict[str, Any]) -> None:
    for part, found in description["split"].items():
        what = f"scenes with {found['labels']} labels:" if "labels" in found else "sequences of"
        console.say(
            f"{part:>5}: {found['sequences']} {what} {', '.join(found['flights'])}; "
            f"label {found['label_mean']:.3f} ± {found['label_std']:.3f}"
        )
    if "track" in description:
        found = description["track"]
        console.say(
            f"track: {found['sequences']} training sequences with {found['labels_a_sequence']:.1f} labels each, at "
            f"{len(found['offsets'])} places of the image"
        )


def _say_ending(console: Console, fitted: Any) -> None:
    kept = "" if fitted.best_epoch is None else f"; kept: epoch {fitted.best_epoch + 1}"
    console.say(fitted.ending.rstrip(".") + kept)
