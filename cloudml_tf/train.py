"""Train, judge and export: `python -m cloudml_tf.train configs/tier1.json`.

    flights ─ samples ─ split ─ fit ─ scores, baselines, tiers ─ report ─ export

Functions first, the thin door last. Keras is loaded only once there is something to train.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudml_tf import devices
from cloudml_tf.config import Config, resolved_json
from cloudml_tf.console import Console
from cloudml_tf.errors import EXIT_COLLAPSED, EXIT_OK, ConfigError
from cloudml_tf.exporting.formats import check_backend, check_packages
from cloudml_tf.files import whole_file, write_json
from cloudml_tf.graphs import forgotten_graphs
from cloudml_tf.locks import alone_in
from cloudml_tf.quiet import quiet_tensorflow
from cloudml_tf.runs import (
    WHOLE,
    check_same,
    check_unused,
    forget_previous,
    has_checkpoint,
    new_run,
    read_json,
    run_to_resume,
    write_start,
)
from cloudml_tf.warm_start import GENTLER, first_model, gentle

if TYPE_CHECKING:
    from cloudml_tf.tracking import Tracker


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
        metrics = fit_and_judge(config, prepared, folder, console, resume)
        forget_previous(folder)
    return folder, metrics


def _prepared(config: Config, progress: Any) -> Any:
    """Sequences of flights, or scenes."""
    if config.target.coverage == "swath":
        from cloudml_tf.swath.preparation import prepare_scenes

        return prepare_scenes(config)
    from cloudml_tf.pipeline import prepare

    return prepare(config, progress, progress)


@forgotten_graphs()
def fit_and_judge(config: Config, prepared: Any, folder: Path, console: Console, resume: bool) -> dict[str, Any]:
    """Fit, score, diagnose, draw, report and export; writes everything that is known after training."""
    quiet_tensorflow()
    from cloudml_tf.tracking import tracker

    with tracker(config, folder) as track:
        if config.target.coverage == "swath":
            from cloudml_tf.swath.run import fit_and_judge as of_scenes

            metrics = of_scenes(config, prepared, folder, console, resume, track)
        else:
            metrics = _fit_and_judge(config, prepared, folder, console, resume, track)
        exported = metrics.get("export")
        track.results(metrics, Path(exported["folder"]) if exported else None)
    return metrics


def _fit_and_judge(
    config: Config, prepared: Any, folder: Path, console: Console, resume: bool, track: "Tracker"
) -> dict[str, Any]:
    from cloudml_tf import results, training
    from cloudml_tf.diagnose import diagnose_training

    devices.begin(config.training, console)
    model = first_model(config, prepared)
    console.say(f"model: {model.count_params():,} weights")
    pretrained = None
    if config.pretraining.enabled:
        from cloudml_tf import transfer

        pretrained = transfer.start_from_pretraining(model, config, prepared, folder, console)
    fitted = training.fit(model, config, prepared, folder, console, resume, track)
    _say_ending(console, fitted)

    predictions = {part: training.predict(model, samples) for part, samples in prepared.parts.items()}
    prepared = results.with_smearing(prepared, predictions["val"]) if config.target.smearing else prepared
    description, scaling = prepared.description(), prepared.scaling.target
    write_json(folder / "data.json", description)
    metrics = results.collect(prepared.parts, predictions, scaling, config, fitted.history, fitted.best_epoch)
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
        from cloudml_tf.export import export_model

        return export_model(model, home, config, description, metrics, prepared.parts["test"], run=folder)

    finish(config, folder, metrics, export, console)
    return metrics


def finish(
    config: Config,
    folder: Path,
    metrics: dict[str, Any],
    export: Callable[[Path], dict[str, Any]],
    console: Console,
) -> None:
    """Export, if the configuration says so, then write metrics.json, whose presence says that the run is whole.

    `export` writes the model's files into a folder and returns how far they are from Keras.
    """
    try:
        if config.output.export:
            from cloudml_tf.export import run_of_export, show_export, target_folder

            home = target_folder(config)
            replaced = run_of_export(home)
            metrics["export"] = {"folder": str(home), "parity": export(home), "replaced": replaced}
            show_export(console, metrics["export"])
    except Exception:
        write_json(folder / WHOLE, metrics)  # what was trained and judged stays so
        raise
    write_json(folder / WHOLE, metrics)


def _write_report(
    folder: Path, metrics: dict[str, Any], prepared: Any, predictions: dict[str, Any], fitted: Any, config: Config
) -> None:
    """Pictures, and report.html with all of them."""
    from cloudml_tf import report
    from cloudml_tf.anatomy import attention_weights

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


def summary_of(fitted: Any) -> dict[str, Any]:
    """Of a training, for metrics.json."""
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


def _add_references(metrics: dict[str, Any], prepared: Any, config: Config) -> None:
    """Baselines below the network, and the oracle above it where the flights are simulated."""
    from cloudml_tf import results

    parts, scaling = prepared.parts, prepared.scaling.target
    if config.evaluation.baselines:
        metrics["baselines"] = results.collect_baselines(parts, scaling, config)
    oracle = results.collect_oracle(parts, prepared.flights, scaling, config)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    from cloudml_tf.cli import add_common

    parser.add_argument("config", metavar="CONFIG", help="a JSON configuration, e.g. configs/tier1.json")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument(
        "--resume", action="store_true", help="continue the newest interrupted run, or the one of --run-dir"
    )
    parser.add_argument(
        "--lofo",
        nargs="?",
        const="",
        metavar="A,B,…",
        help="leave-one-flight-out over these flights (all without names), and the joined table",
    )
    parser.add_argument(
        "--init-from",
        metavar="RUN",
        help=f"go on from a finished run, at {GENTLER:g} of the learning rate unless --set gives one",
    )
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """The main job."""
    from cloudml_tf.cli import config_from, overrides_from, print_json

    config = config_from(args)
    if args.init_from is not None:
        config = gentle(config, args.init_from, "training.learning_rate" in overrides_from(args))
    if args.print_config:
        print(resolved_json(config), end="")
        return EXIT_OK
    if args.lofo is not None and args.resume and args.run_dir is None:
        raise ConfigError("--lofo --resume needs --run-dir, the folder that holds the folds.")
    console = Console(machine=args.json)
    if args.lofo is None and not devices.is_chief(config.training):
        from cloudml_tf.worker import work

        return work(config, console, args.run_dir, args.resume)
    if args.lofo is not None:
        devices.refuse_workers(config.training, "--lofo")
        from cloudml_tf.folds import leave_one_out, print_folds

        names = [name for name in args.lofo.split(",") if name]
        folder, metrics = leave_one_out(config, console, names, args.run_dir, args.resume)
        print_folds(console, metrics)
    else:
        from cloudml_tf.diagnose import print_shortly
        from cloudml_tf.report import print_scores

        folder, metrics = train(config, console, args.run_dir, args.resume)
        print_scores(console, metrics)
        if "diagnosis" in metrics:
            print_shortly(console, metrics["diagnosis"], folder)
        if config.output.report:
            console.say(f"report: {folder / 'report.html'}")
    if args.json:
        print_json({"run": str(folder), "metrics": metrics})
    trained = [fold["training"] for fold in metrics.get("folds", {"": metrics}).values()]
    return EXIT_COLLAPSED if any(found["collapsed"] for found in trained) else EXIT_OK


if __name__ == "__main__":
    import sys

    from cloudml_tf.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
