"""One run, from files to a report and an export: `python -m cloudml_tf.train configs/tier1.json`.

    flights or scenes ─ examples ─ splits ─ fit ─ scores, baselines, tiers ─ report ─ export

Keras is loaded only once there is something to train.
"""

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudml_tf.config import run_folder
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.data.readers.arrays import write_npz
from cloudml_tf.inference.export.formats import check_backend, check_packages
from cloudml_tf.train import devices
from cloudml_tf.train.warm_start import first_model, start_in_words
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_COLLAPSED, EXIT_OK
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import alone_in
from cloudml_tf.utils.tf_graphs import forgotten_graphs
from cloudml_tf.utils.tf_logging import quiet_tensorflow

if TYPE_CHECKING:  # Keras is loaded late
    from cloudml_tf.experiments.selection import Chosen
    from cloudml_tf.inference.intervals import Interval
    from cloudml_tf.train.fit import Fitted
    from cloudml_tf.train.pretrain import Pretrained
    from cloudml_tf.train.tracking import Tracker

Arrays = dict[str, np.ndarray]


def train(
    config: Config, console: Console, run_dir: str | None = None, resume: bool = False
) -> tuple[Path, dict[str, Any]]:
    """One run from files to report. Returns its folder and the content of metrics.json."""
    console.warn(*config.warnings(), *devices.warnings(config.training))
    if config.output.export:
        check_packages(config.output.export_formats)
    if config.selection is not None:
        from cloudml_tf.experiments.selection import recipes_of

        recipes_of(config)  # a recipe that is wrong is told before anything is read
    resumed = run_folder.run_to_resume(config, run_dir) if resume else None
    prepared = read_data(config, console)
    if config.selection is not None:
        from cloudml_tf.experiments.selection import check_flights

        check_flights(prepared)
    if resumed is not None:
        run_folder.check_same(resumed, config, prepared.fingerprint)
    if config.output.export:
        check_backend()
    if config.pretraining.enabled:
        quiet_tensorflow()
        from cloudml_tf.train.transfer import check_source

        check_source(config, prepared)
    # Only now: bad input must not leave an empty run folder behind.
    folder = resumed or run_folder.new_run(config, run_dir)
    with alone_in(folder, "a training"):
        if resumed is None:
            run_folder.check_unused(folder)  # another process may have been quicker
        if not run_folder.has_checkpoint(folder):
            run_folder.write_start(folder, config, prepared.description())
        _say_data(console, prepared.description())
        console.warn(*prepared.remarks())
        console.say(f"run folder: {folder}")
        if config.output.export:
            from cloudml_tf.inference.export.writer import warn_of_replacement

            warn_of_replacement(console, config, folder)
        chosen = None
        if config.selection is not None:
            from cloudml_tf.experiments.selection import choose, print_selection

            chosen = choose(config, prepared, folder, console)
            print_selection(console, chosen.summary)
            config = chosen.config
        metrics = fit_and_evaluate(config, prepared, folder, console, resume, chosen)
        run_folder.forget_previous(folder)
    return folder, metrics


@forgotten_graphs()
def fit_and_evaluate(
    config: Config, prepared: Prepared, folder: Path, console: Console, resume: bool, chosen: "Chosen | None" = None
) -> dict[str, Any]:
    """Fit, score, diagnose, draw, report and export; writes everything that is known after training.

    `chosen` is what flights left out have decided, where the configuration asked for it.
    """
    quiet_tensorflow()
    from cloudml_tf.train.tracking import Tracker

    with closing(Tracker(config, folder)) as tracked:
        metrics = _fit_and_evaluate(config, prepared, folder, console, resume, tracked, chosen)
        exported = metrics.get("export")
        tracked.results(metrics, Path(exported["folder"]) if exported else None)
    return metrics


def _fit_and_evaluate(
    config: Config,
    prepared: Prepared,
    folder: Path,
    console: Console,
    resume: bool,
    tracker: "Tracker",
    chosen: "Chosen | None",
) -> dict[str, Any]:
    from cloudml_tf.diagnostics.diagnosis.verdict import diagnose_training
    from cloudml_tf.evaluation import collect
    from cloudml_tf.evaluation.scores import phase3
    from cloudml_tf.inference.intervals import INTERVALS, head_intervals, left_out_intervals
    from cloudml_tf.train import network, transfer
    from cloudml_tf.train.batches import point_values

    fitted, pretrained = fit_first_model(config, prepared, folder, console, resume, tracker)
    kept = "" if fitted.best_epoch is None else f"; kept: epoch {fitted.best_epoch + 1}"
    console.say(fitted.ending.rstrip(".") + kept)
    if chosen is not None and chosen.factors is not None:
        fitted = _averaged(fitted, chosen.factors, config, prepared, folder)
    if chosen is not None and "intervals" in chosen.summary:
        prepared = replace(prepared, details={**prepared.details, INTERVALS: chosen.summary["intervals"]})
    clipped = prepared.scaling.target.clipped
    whole = {part: network.predict_whole(fitted.model, each) for part, each in prepared.parts.items()}
    predictions = {part: clipped(point_values(whole[part], each)) for part, each in prepared.parts.items()}
    prepared = collect.with_smearing(prepared, predictions["val"]) if config.target.smearing else prepared
    write_json(folder / "data.json", prepared.description())
    metrics = collect.collect_scores(prepared.parts, predictions, prepared.scaling.target, config)
    metrics["phase3"] = phase3(metrics["test"], fitted.history, fitted.best_epoch)
    metrics["training"] = summary_of(fitted)
    if chosen is not None:
        metrics["selection"] = chosen.summary
    further = {}
    if config.target.further:
        further = {part: network.further_of(output, prepared.scaling) for part, output in whole.items()}
        metrics["further"] = collect.collect_further(prepared.parts, further, config)
    of, physical = (config, prepared.scaling), prepared.scaling.target.physical
    intervals = {
        part: head_intervals(whole[part], each, *of)
        | left_out_intervals(physical(predictions[part]), prepared.details, *of)
        for part, each in prepared.parts.items()
    }
    if intervals["test"]:
        metrics["coverage"] = collect.collect_coverage(prepared.parts, intervals, config, config.prediction.level)
    if prepared.left_out:
        metrics["left_out"] = prepared.left_out
    if pretrained is not None:
        metrics["pretraining"] = transfer.collect(pretrained, config, prepared, folder, console)
    _add_references(metrics, prepared, config)
    metrics["diagnosis"] = diagnose_training(metrics, fitted.history, config, prepared)
    _save_predictions(folder, prepared, predictions, further, intervals, config)
    if config.output.report:
        _write_report(folder, metrics, prepared, predictions, fitted, config)
    _finish(fitted, config, metrics, prepared, folder, console)
    return metrics


def _averaged(fitted: "Fitted", factors: list[float], config: Config, prepared: Prepared, folder: Path) -> "Fitted":
    """The same with the average of the network and the regressions of the training split, which are written."""
    from cloudml_tf.experiments.selection import fitted_regressions
    from cloudml_tf.train.averaged import with_regressions, write_regressions

    write_regressions(folder, fitted_regressions(config, prepared, factors))
    return replace(fitted, model=with_regressions(fitted.model, folder, config, prepared.geometry["nadir"]))


def fit_first_model(
    config: Config, prepared: Prepared, folder: Path, console: Console, resume: bool, tracker: "Tracker | None" = None
) -> "tuple[Fitted, Pretrained | None]":
    """Build the network, pretrain or warm-start it as configured, and fit it."""
    from cloudml_tf.train import fit, transfer

    devices.begin(config.training, console)
    model = first_model(config, prepared)
    console.say(f"model: {model.count_params():,} weights")
    if config.training.init_from is not None:
        console.say(start_in_words(config))
    pretrained = None
    if config.pretraining.enabled:
        pretrained = transfer.start_from_pretraining(model, config, prepared, folder, console)
    return fit.fit(model, config, prepared, folder, console, resume, tracker), pretrained


def read_data(config: Config, console: Console) -> Prepared:
    """Read the flights or scenes of a configuration, with a progress bar."""
    with console.progress("reading flights") as progress:
        return prepare(config, progress, progress)


def work(config: Config, console: Console, run_dir: str | None = None, resume: bool = False) -> int:
    """Take part in a training as a worker that is not the chief; the exit code.

    It reads the same configuration and data as the chief, trains in step with it, and writes nothing: scores, report
    and export are the chief's. With `resume` it reads the chief's checkpoint.
    """
    folder = run_folder.run_to_resume(config, run_dir) if resume else Path()
    prepared = read_data(config, console)
    if resume:
        run_folder.check_same(folder, config, prepared.fingerprint)
    quiet_tensorflow()
    fitted, _ = fit_first_model(config, prepared, folder, console, resume)
    console.say(f"{fitted.ending.rstrip('.')}; the chief writes the results")
    return EXIT_COLLAPSED if fitted.collapsed else EXIT_OK


def _finish(
    fitted: "Fitted", config: Config, metrics: dict[str, Any], prepared: Prepared, folder: Path, console: Console
) -> None:
    """Export, if the configuration says so, then write metrics.json, whose presence says that the run is whole."""
    from cloudml_tf.inference.export.writer import export_model, replacing, show_export, target_folder

    try:
        if config.output.export:
            what = (config, prepared.description(), metrics, prepared.parts["test"])
            metrics["export"] = replacing(
                target_folder(config), lambda home: export_model(fitted.model, home, *what, run=folder)
            )
            show_export(console, metrics["export"])
    finally:
        # Also where the export fails: what was trained and scored stays so.
        write_json(folder / run_folder.WHOLE, metrics)


def _write_report(
    folder: Path, metrics: dict[str, Any], prepared: Prepared, predictions: Arrays, fitted: "Fitted", config: Config
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
    details["environment"] = run_folder.read_json(folder / "environment.json")
    report.write_html(folder / "report.html", f"{config.experiment_name} {folder.name}", metrics, chapters, details)


def summary_of(fitted: "Fitted") -> dict[str, Any]:
    """What metrics.json says of a training."""
    import keras

    return {
        "backend": keras.backend.backend(),
        "seconds": fitted.seconds,
        "epochs": len(fitted.history),
        "best_epoch": None if fitted.best_epoch is None else fitted.best_epoch + 1,
        "ending": fitted.ending,
        "collapsed": fitted.collapsed,
        "weights": fitted.model.count_params(),
    }


def _add_references(metrics: dict[str, Any], prepared: Prepared, config: Config) -> None:
    """Baselines below the network, and the oracle above it where the flights are simulated."""
    from cloudml_tf.evaluation import collect

    if config.evaluation.baselines:
        metrics["baselines"] = collect.collect_baselines(prepared.parts, prepared.scaling.target, config)
    oracle = collect.collect_oracle(prepared, config)
    if oracle is not None:
        metrics["oracle"] = oracle


def _save_predictions(
    folder: Path,
    prepared: Prepared,
    predictions: Arrays,
    further: Arrays,
    intervals: "dict[str, dict[str, Interval]]",
    config: Config,
) -> None:
    """predictions.npz: label and prediction (n, *P) in physical units of each split, and what identifies an example;
    for further quantities (n,) each, by name; and the ends of intervals."""
    arrays: Arrays = {}
    for part, examples in prepared.parts.items():
        arrays |= {f"{part}_{key}": values for key, values in examples.keys().items()}
        arrays[f"{part}_label"] = np.where(examples.known, examples.label, np.nan)
        arrays[f"{part}_prediction"] = prepared.scaling.target.physical(predictions[part])
        for column, name in enumerate(config.target.further):
            arrays[f"{part}_{name}_label"] = examples.further_labels()[:, column]
            arrays[f"{part}_{name}_prediction"] = further[part][:, column]
        for quantity, ends in intervals[part].items():
            before = part if quantity == config.target.name else f"{part}_{quantity}"
            arrays |= {f"{before}_lower": ends[0], f"{before}_upper": ends[1]}
    write_npz(folder / "predictions.npz", **arrays)


def _say_data(console: Console, description: dict[str, Any]) -> None:
    """The flights, examples and labels of each split."""
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
