"""Score a finished run, or an exported SavedModel, on other labelled flights: the same table and pictures."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config import Config, _set, load_config, parse_config, parse_overrides
from cloudml_tf.console import Console
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.errors import RunError
from cloudml_tf.files import write_json
from cloudml_tf.quiet import quiet_tensorflow
from cloudml_tf.runs import read_json


def load_regressor(folder: Path, config: Config, description: dict[str, Any]) -> Any:
    """The regressor of a run with its best weights. Weights are plain arrays: loading them runs no code."""
    from cloudml_tf.training import make_model, start_keras

    weights = folder / "best.weights.h5"
    if not weights.is_file():
        raise RunError(f"{folder}: no best.weights.h5; this run did not finish. Continue it with train --resume.")
    start_keras(config)
    shape = tuple(description["frame_shape"])
    model = make_model(config, Scaling.from_json(description["scaling"]), shape, tuple(description["nadir"]))
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{weights}: does not fit the run's configuration or is damaged ({reason}).") from None
    return model


def evaluate(
    source: Path, folders: list[str], overrides: dict[str, Any], console: Console
) -> tuple[Config, Samples, np.ndarray, dict[str, Any]]:
    """Configuration, samples, standardised predictions and metrics of a model on flights.

    `source` is a run folder or an exported SavedModel; the latter is run by TensorFlow alone, without Keras.
    """
    quiet_tensorflow()
    from cloudml_tf.pipeline import samples_of_folders
    from cloudml_tf.results import per_flight, score_part, spaces

    exported = (source / "saved_model.pb").is_file()
    if not exported and not (source / "config.json").is_file():
        raise RunError(f"{source}: neither a run folder (config.json) nor an exported model (saved_model.pb).")
    if exported:
        record = read_json(source / "cloudml.json")
        content, description = record["config"], record["data"]
        for key, value in overrides.items():
            _set(content, key, value)
        config = parse_config(content, str(source / "cloudml.json"))
    else:
        config = load_config(source / "config.json", overrides)
        description = read_json(source / "data.json")
    scaling = Scaling.from_json(description["scaling"]).target
    with console.progress("decoding frames") as decoding:
        samples = samples_of_folders(folders, config, decoding)
    _check_fit(source, samples, description)
    if exported:
        physical = predict_exported(source, samples, config.target.name)
        z = (scaling.transform(physical / scaling.smearing) - scaling.mean) / scaling.std
    else:
        from cloudml_tf.training import predict

        z = predict(load_regressor(source, config, description), samples)
    metrics = {
        "experiment": config.experiment_name,
        "model": str(source),
        "space": spaces(config),
        "test": score_part(samples, z, scaling, config),
        "per_flight": {"test": per_flight(samples, z, scaling)},
    }
    return config, samples, z, metrics


def predict_exported(folder: Path, samples: Samples, output: str, batch_size: int = 256) -> np.ndarray:
    """(n,) predictions of a SavedModel in physical units."""
    from cloudml_tf.export import SavedModel

    model = SavedModel(folder)
    starts = range(0, len(samples), batch_size)
    return np.concatenate([model.predict(samples.inputs(slice(i, i + batch_size)), output) for i in starts])


def _check_fit(source: Path, samples: Samples, description: dict[str, Any]) -> None:
    expected = tuple(description["frame_shape"])
    if samples.frame_shape != expected:
        raise RunError(
            f"{source}: was trained on frames of shape {expected} (rows, columns, channels); these flights have "
            f"{samples.frame_shape}. Set data.camera.rows, columns, downsample or channels with --set."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    from cloudml_tf.cli import add_common

    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run folder, or a folder of savedmodels/")
    parser.add_argument("--flights", metavar="DIR", nargs="+", required=True, help="folders with labelled flights")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Score, draw, write evaluation.json."""
    from cloudml_tf import report
    from cloudml_tf.cli import print_json

    console = Console(machine=args.json)
    overrides = parse_overrides(args.set)
    if args.seed is not None:
        overrides["seed"] = args.seed
    source = Path(args.model)
    config, samples, z, metrics = evaluate(source, args.flights, overrides, console)
    from cloudml_tf.judge import tier

    metrics["tier"] = tier(metrics["test"])
    folder = Path(args.run_dir) if args.run_dir else source / "evaluation"
    exported = (source / "saved_model.pb").is_file()
    description = read_json(source / "cloudml.json")["data"] if exported else read_json(source / "data.json")
    scaling = Scaling.from_json(description["scaling"]).target
    pictures = report.draw(folder, metrics, {"test": samples}, {"test": z}, scaling)
    details = {"configuration": config.model_dump(mode="json"), "flights": list(args.flights)}
    report.write_html(folder / "report.html", f"{config.experiment_name}: evaluation", metrics, pictures, details)
    write_json(folder / "evaluation.json", metrics)
    report.print_scores(console, metrics)
    console.say(f"report: {folder / 'report.html'}")
    if args.json:
        print_json({"evaluation": str(folder), "metrics": metrics})
    return 0


if __name__ == "__main__":
    import sys

    from cloudml_tf.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
