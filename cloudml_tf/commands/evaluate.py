"""Score a finished run, or an exported model, on other labelled flights: the same table and pictures."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.commands.arguments import add_common, overrides_from, print_json
from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.run_folder import check_frames, check_overrides, is_swath, new_run, read_model
from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.data.splits import keep_labels
from cloudml_tf.evaluation.scores import tier
from cloudml_tf.evaluation.shift import judge_shift
from cloudml_tf.inference.export.formats import answers, formats_in, open_export
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_logging import quiet_tensorflow


@dataclass(frozen=True)
class Evaluation:
    """A model judged on flights."""

    config: Config
    samples: Samples
    scaling: TargetScaling
    predictions: np.ndarray  # (n,) standardised
    metrics: dict[str, Any]
    attend: Callable[[dict[str, np.ndarray]], Any] | None  # see `introspection.attention_weights`; none for an export


def evaluate(source: Path, flights: list[str], overrides: dict[str, Any], console: Console) -> Evaluation:
    """Judge a run folder, or an exported model, which runs without Keras."""
    from cloudml_tf.data.sources import find_named, samples_of
    from cloudml_tf.evaluation.collect import per_flight, score_part, spaces

    check_overrides(overrides)
    config, description, exported = read_model(source, overrides)
    scaling = Scaling.from_json(description["scaling"]).target
    with console.progress("decoding frames") as decoding:
        samples = samples_of(find_named(flights, config, description["files"]), config, decoding)
    check_frames(source, samples.frame_shape, description)
    quiet_tensorflow()
    attend = None
    if exported:
        physical = predict_exported(source, samples, config.target.name)
        z = (scaling.transform(physical / scaling.smearing) - scaling.mean) / scaling.std
    else:
        from cloudml_tf.nn.introspection import attention_weights
        from cloudml_tf.train.network import load_regressor, predict

        model = load_regressor(source, config, description)
        z, attend = predict(model, samples), partial(attention_weights, model)
    metrics: dict[str, Any] = {
        "experiment": config.experiment_name,
        "model": str(source),
        "space": spaces(config),
        "test": score_part(samples, z, scaling, config),
        "per_flight": {"test": per_flight(samples, z, scaling)},
    }
    metrics["tier"] = tier(metrics["test"])
    if "distributions" in description:
        metrics["shift"] = judge_shift(samples, description, config)
    else:
        console.warn(
            f"{source}: was trained before the distributions of inputs were kept; whether these flights are of its "
            "kind is not judged. Train it again for that."
        )
    _add_baselines(metrics, samples, description, config, console)
    return Evaluation(config, samples, scaling, z, metrics, attend)


def _add_baselines(
    metrics: dict[str, Any], samples: Samples, description: dict[str, Any], config: Config, console: Console
) -> None:
    """The baselines of the model's own training flights, on these flights; left out where those files are gone."""
    if not config.evaluation.baselines:
        return
    from cloudml_tf.data.sources import samples_of
    from cloudml_tf.evaluation.collect import collect_baselines

    trained = description["split"]["train"]["flights"]
    files = {name: FlightFiles.model_validate(description["files"][name]) for name in trained}
    judged = set(samples.flight_names) & set(description["files"])
    if judged & set(trained):
        console.warn(f"{', '.join(sorted(judged & set(trained)))}: this model was trained on flights of that name")
    try:
        kept = config.data.model_copy(update={"val_labels": None})
        train = keep_labels({"train": samples_of(files, config)}, kept, config.seed)["train"]
    except DataError as error:
        console.warn(f"no baselines, the training flights cannot be read: {error}")
        return
    scaling = Scaling.from_json(description["scaling"]).target
    found = collect_baselines({"train": train, "test": samples}, scaling, config)
    metrics["baselines"] = {name: {"test": parts["test"]} for name, parts in found.items()}


def tell_shift(metrics: dict[str, Any], console: Console) -> None:
    """What sets these flights apart from the training, and what it means."""
    found = metrics.get("shift", {"warnings": [], "meaning": ""})
    for text in found["warnings"]:
        console.warn(text)
    if found["meaning"]:
        console.say(found["meaning"])


def predict_exported(folder: Path, samples: Samples, output: str, batch_size: int = 256) -> np.ndarray:
    """(n,) predictions of an export in physical units, by its first format."""
    reader = open_export(folder, formats_in(folder)[0])
    batches = (samples.inputs(slice(i, i + batch_size)) for i in range(0, len(samples), batch_size))
    return answers(reader, batches)[output]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL", help="a run folder, or an exported model (a folder of savedmodels/)"
    )
    parser.add_argument(
        "--flights",
        metavar="FLIGHT",
        nargs="+",
        required=True,
        help="folders with labelled flights, camera files, or names of the model's own flights; for a swath model a "
        "file of scenes, or names of the model's own scenes",
    )
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Score, draw, write evaluation.json."""
    from cloudml_tf.reports import report, tables

    console = Console(machine=args.json)
    source = Path(args.model)
    if is_swath(source, overrides_from(args)):
        return _run_on_scenes(source, args, console)
    found = evaluate(source, args.flights, overrides_from(args), console)
    metrics = found.metrics
    folder = new_run(found.config, args.run_dir, prefix="evaluation-")
    evidence = report.Evidence(
        parts={"test": found.samples},
        predictions={"test": found.predictions},
        scaling=found.scaling,
        across_track_axis=found.config.data.camera.across_track_axis,
        attend=found.attend,
    )
    chapters = report.draw(folder, metrics, evidence)
    details = {"configuration": found.config.model_dump(mode="json"), "flights": list(args.flights)}
    title = f"{found.config.experiment_name}: evaluation"
    report.write_html(folder / "report.html", title, metrics, chapters, details)
    write_json(folder / "evaluation.json", metrics)
    tables.print_scores(console, metrics)
    tell_shift(metrics, console)
    console.say(f"report: {folder / 'report.html'}")
    if args.json:
        print_json({"evaluation": str(folder), "metrics": metrics})
    return 0


def _run_on_scenes(source: Path, args: argparse.Namespace, console: Console) -> int:
    from cloudml_tf.inference.scene_evaluation import evaluate_scenes
    from cloudml_tf.reports import tables

    overrides = overrides_from(args)
    check_overrides(overrides)
    folder, metrics = evaluate_scenes(source, args.flights, overrides, args.run_dir, console)
    tables.print_scores(console, metrics)
    console.say(f"report: {folder / 'report.html'}")
    if args.json:
        print_json({"evaluation": str(folder), "metrics": metrics})
    return 0
