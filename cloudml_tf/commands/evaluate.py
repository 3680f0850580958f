"""`cloudml evaluate`: score a finished run, or an exported model, on other labelled flights or scenes."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from cloudml_tf.commands.arguments import add_common, finish, overrides_from
from cloudml_tf.config.run_folder import ModelRecord, check_overrides, new_run, read_model
from cloudml_tf.data.left_out import LeftOut, in_words
from cloudml_tf.data.samples import Examples, Samples
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.evaluation.shift import judge_shift
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_logging import quiet_tensorflow


@dataclass(frozen=True)
class Evaluation:
    """A model scored on examples."""

    record: ModelRecord
    examples: Examples
    scaling: TargetScaling
    predictions: np.ndarray  # (n, *P) standardised
    metrics: dict[str, Any]
    attend: Any  # see `inference.model.Attend`; None for an export


def evaluate(source: Path, words: list[str], overrides: dict[str, Any], console: Console) -> Evaluation:
    """Score a run folder, or an exported model, which runs without Keras, on the examples that are named."""
    from cloudml_tf.data.prepare import named_examples
    from cloudml_tf.evaluation.collect import collect_coverage, collect_scores
    from cloudml_tf.inference.model import intervals_of, open_record

    check_overrides(overrides)
    record = read_model(source, overrides)
    config, description = record.config, record.description
    scaling = Scaling.from_json(description["scaling"]).target
    left_out: LeftOut = {}
    with console.progress("decoding frames") as decoding:
        examples = named_examples(words, record, decoding, left_out)
    console.warn(*in_words(left_out))
    if examples.known.sum() < 2:
        raise DataError(f"the {len(examples)} examples have no two labels to score with. Check the label's fields.")
    quiet_tensorflow()
    model = open_record(record)
    values = model.predict(examples)
    physical = values["value"]
    with np.errstate(divide="ignore", invalid="ignore"):  # of pixels that have no label
        z = (scaling.learned(physical, scaling.smearing) - scaling.mean) / scaling.std
    metrics = {"model": str(source), **collect_scores({"test": examples}, {"test": z}, scaling, config)}
    intervals = {"test": intervals_of(values, config)}
    if intervals["test"] and model.level is not None:
        metrics["coverage"] = collect_coverage({"test": examples}, intervals, config, model.level)
    if "distributions" in description:
        metrics["shift"] = judge_shift(cast(Samples, examples), description, config)
    elif "nadir" in description:
        console.warn(
            f"{source}: was trained before the distributions of inputs were kept; whether these flights are of its "
            "kind is not judged. Train it again for that."
        )
    if record.calibration is not None:
        console.warn(
            f"the model is calibrated: {record.calibration.words}. Of that flight these labels are among those scored; "
            "of another one the calibration says nothing"
        )
    _add_baselines(metrics, examples, record, scaling, console)
    return Evaluation(record, examples, scaling, z, metrics, model.attend)


def _add_baselines(
    metrics: dict[str, Any], examples: Examples, record: ModelRecord, scaling: TargetScaling, console: Console
) -> None:
    """The baselines of the model's own training split, on these examples; left out where its files are gone."""
    config, description = record.config, record.description
    if not config.evaluation.baselines:
        return
    from cloudml_tf.data.prepare import examples_of_run
    from cloudml_tf.evaluation.collect import collect_baselines

    trained = sorted(set(examples.group_names) & set(description["split"]["train"]["flights"]))
    if trained:
        console.warn(f"{', '.join(trained)}: this model was trained on {_plural(examples)} of that name")
    try:
        train = examples_of_run(config, description, "train")
    except DataError as error:
        console.warn(f"no baselines, the training {_plural(examples)} cannot be read: {error}")
        return
    found = collect_baselines({"train": train, "test": examples}, scaling, config)
    metrics["baselines"] = {name: {"test": parts["test"]} for name, parts in found.items()}


def _plural(examples: Examples) -> str:
    return "flights" if examples.label.ndim == 1 else "scenes"


def tell_shift(metrics: dict[str, Any], console: Console) -> None:
    """What sets these flights apart from the training, and what it means."""
    found = metrics.get("shift", {"warnings": [], "meaning": ""})
    console.warn(*found["warnings"])
    if found["meaning"]:
        console.say(found["meaning"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="a run folder, or an exported model (a folder of savedmodels/)")
    add(
        "--flights",
        metavar="FLIGHT",
        nargs="+",
        required=True,
        help="folders with labelled flights, camera files, or names of the model's own flights; for a swath model a "
        "file of scenes, or names of the model's own scenes",
    )
    add_common(parser, "evaluation.block_s=60")


def run(args: argparse.Namespace) -> int:
    """Score, draw, write evaluation.json."""
    from cloudml_tf.reports import report, tables

    console = Console(machine=args.json)
    found = evaluate(Path(args.model), args.flights, overrides_from(args), console)
    config, metrics = found.record.config, found.metrics
    folder = new_run(config, args.run_dir, prefix="evaluation-")
    evidence = report.Evidence(
        parts={"test": found.examples},
        predictions={"test": found.predictions},
        scaling=found.scaling,
        across_track_axis=config.data.camera.across_track_axis,
        attend=found.attend,
    )
    chapters = report.draw(folder, metrics, evidence)
    details = {"configuration": config.model_dump(mode="json"), "flights": list(args.flights)}
    report.write_html(folder / "report.html", f"{config.experiment_name}: evaluation", metrics, chapters, details)
    write_json(folder / "evaluation.json", metrics)
    tables.print_scores(console, metrics)
    tell_shift(metrics, console)
    console.say(f"report: {folder / 'report.html'}")
    return finish(args, {"evaluation": str(folder), "metrics": metrics})
