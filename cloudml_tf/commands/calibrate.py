"""`cloudml calibrate`: fit level and scale of a model's predictions to a few labels of a new flight."""

import argparse
import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.commands.arguments import add_common, check_one_place, finish, overrides_from
from cloudml_tf.config.calibration import CALIBRATED, CALIBRATION, Calibration
from cloudml_tf.config.coverage import check_calibration
from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.run_folder import ModelRecord, check_overrides, new_run, read_model
from cloudml_tf.data.inherited import cameras_of
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.sources import find_named
from cloudml_tf.evaluation.collect import spaces
from cloudml_tf.evaluation.level_scale import (
    FEWEST,
    LEAST_SCALE,
    MOST,
    LevelScale,
    chosen_labels,
    fit_level_scale,
    share_recovered,
    straight_line,
)  # fmt: skip
from cloudml_tf.evaluation.scores import COLUMNS, S_IS, labels, scores, texts
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, DataError, RunError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_logging import quiet_tensorflow

CONSTANT = 1e-3  # predictions whose standard deviation is below this share of the training labels'
SHOWN = ("r2", "variance_ratio", "correlation", "bias", "rmse")
ROWS = {"before": "as it was", "after": "calibrated", "best_line": "best straight line (ceiling)"}


def calibrate(
    record: ModelRecord, word: str, wanted: int | None, consecutive: bool, console: Console
) -> tuple[Calibration, list[str]]:
    """Fit level and scale to labels of the flight that is named, and score its others; the second are warnings.

    Raises `ConfigError`, `DataError` or `RunError` for a model, a flight or labels that cannot be calibrated.
    """
    _check_model(record, wanted)
    name, files = _one_flight(record, word)
    samples = _samples(record, word, console)
    chosen = _choose(len(samples), name, wanted, consecutive)
    target, prediction, training_std = _in_the_learned_space(record, samples)
    if not np.std(prediction[chosen]) > CONSTANT * training_std:
        raise DataError(
            f"{name}: the model predicts next to the same for all {len(chosen)} labels ({np.mean(prediction):.3g}, std "
            f"{np.std(prediction[chosen]):.2g}): a constant has no scale to fit. Choose labels of other clouds with "
            "--spread or more --labels, or see `cloudml diagnose` for a collapsed model."
        )
    n_eff = samples.take(chosen).effective_size(target[chosen])
    line = fit_level_scale(target[chosen], prediction[chosen], n_eff, training_std)
    rest = np.setdiff1d(np.arange(len(samples)), chosen)
    found = Calibration(
        flight=name,
        camera=camera_fingerprint(Path(files.camera)),
        run=record.run,
        space=spaces(record.config)["loss"],
        level=line.level,
        scale=line.scale,
        labels=len(chosen),
        effective_labels=n_eff,
        scores=_judged(target[rest], prediction[rest], line),
    )
    return found, _doubts(found)


def _check_model(record: ModelRecord, wanted: int | None) -> None:
    if record.calibration is not None:
        raise RunError(
            f"{record.source.parent}: is calibrated to flight {record.calibration.flight} already. Calibrate the model "
            f"as it was, {record.source}."
        )
    check_calibration(record.config)
    if wanted is not None and not FEWEST <= wanted <= MOST:
        raise ConfigError(f"--labels must be {FEWEST} to {MOST}; from more, go on with `train --init-from`. "
                          f"Received: {wanted}")  # fmt: skip


def _one_flight(record: ModelRecord, word: str) -> tuple[str, FlightFiles]:
    """The flight's name and files. Raises `ConfigError` for several, `RunError` for one that the model knows."""
    files = find_named([word], record.config, record.description["files"])
    if len(files) > 1:
        raise ConfigError(f"{word}: has {len(files)} flights, {', '.join(files)}; a calibration is of one. Name one.")
    name, found = next(iter(files.items()))
    if trained := _trained_on(record, name, Path(found.camera)):
        raise RunError(
            f"{name}: the model was trained on this flight ({trained}): a leak. Its predictions there are fitted to "
            "the labels already, and say nothing of a new flight's level and scale. Calibrate on another flight."
        )
    return name, found


def _trained_on(record: ModelRecord, name: str, camera: Path) -> str:
    """How it is known that the model was trained on a flight; "" where it was not.

    By the content of the camera file; where the training's own is gone, by name.
    """
    config, description = record.config, record.description
    alone = config.model_copy(update={"training": config.training.model_copy(update={"init_from": None})})
    known = cameras_of(alone, description, ("train",))
    with contextlib.suppress(RunError):  # a run that this one started from may be gone
        known = cameras_of(config, description, ("train",))
    if (same := known.get(camera_fingerprint(camera))) is not None:
        return f"its camera file is that of {same}"
    gone = {one for one in description["split"]["train"]["flights"] if one not in known.values()}
    return "by its name; the training's own file is gone" if name in gone else ""


def _samples(record: ModelRecord, word: str, console: Console) -> Samples:
    from cloudml_tf.data.named import named_samples

    with console.progress("decoding frames") as decoding:
        samples = named_samples([word], record, decoding)
    return samples.take(samples.known)


def _choose(count: int, name: str, wanted: int | None, consecutive: bool) -> np.ndarray:
    """Indices of the labels to fit to. Raises `DataError` where the flight has too few."""
    if count < max(FEWEST, wanted or 0):
        raise DataError(
            f"{name}: has {count} labels with a whole sequence around them; a level and a scale need {FEWEST} or more"
            + (f", and --labels asks for {wanted}." if wanted else ". Label more of it, or use the model as it is.")
        )
    return chosen_labels(count, wanted or min(count, MOST), consecutive)


def _in_the_learned_space(record: ModelRecord, samples: Samples) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels and predictions (n,) in the space in which the model learns, and the training labels' spread there."""
    quiet_tensorflow()
    from cloudml_tf.inference.model import open_record

    scaling = Scaling.from_json(record.description["scaling"]).target
    value = open_record(record).predict(samples)["value"]
    return scaling.transform(samples.label), scaling.learned(value, scaling.smearing), scaling.std


def _judged(target: np.ndarray, prediction: np.ndarray, line: LevelScale) -> dict[str, dict[str, Any]]:
    """Scores on the labels that were not fitted to; none where there are under three, or all alike."""
    if len(target) < 3 or not (np.ptp(target) > 0 and np.ptp(prediction) > 0):
        return {}
    ways = {"before": LevelScale(), "after": line, "best_line": straight_line(target, prediction)}
    return {name: scores(target, way.of(prediction)) for name, way in ways.items()}


def _doubts(found: Calibration) -> list[str]:
    """What speaks against a calibration, a sentence each."""
    doubts, judged = [], found.scores
    if found.effective_labels < FEWEST:
        doubts.append(
            f"the labels are worth {found.effective_labels:.1f} independent ones: they lie too close together to tell "
            "level from scale. Spread them over the flight."
        )
    if found.scale <= LEAST_SCALE:
        doubts.append("the labels contradict the predictions, which are nearly flattened: do not use this model here.")
    if judged and judged["after"]["rmse"] > judged["before"]["rmse"]:
        doubts.append("on the flight's other labels the calibrated model is worse than it was: use it as it was.")
    return doubts


def write(place: Path, record: ModelRecord, found: Calibration) -> None:
    """Write a copy of the model and, last, the calibration, whose presence means that all is there."""
    home = place / CALIBRATED
    if record.export:
        shutil.copytree(record.source, home)
    else:
        home.mkdir()
        for name in ("config.json", "data.json", "best.weights.h5", "metrics.json"):
            if (record.source / name).is_file():
                shutil.copyfile(record.source / name, home / name)
    write_json(place / CALIBRATION, found.model_dump())


def tell(console: Console, found: Calibration, place: Path) -> None:
    """The table, what was fitted, and for what it holds."""
    judged = found.scores
    if judged:
        title = f"{judged['before']['n']} other labels of {found.flight}, {found.space}; {S_IS}"
        console.table(title, ["", *labels(SHOWN)], [[ROWS[name], *texts(one, SHOWN)] for name, one in judged.items()])
        back = share_recovered(*(judged[name]["rmse"] ** 2 for name in ROWS))
        if np.isfinite(back):
            console.say(f"of the squared error that a straight line could take away, {back:.0%} is gone")
    else:
        console.say(f"{found.flight} has no other labels to score with: {COLUMNS['r2'].label} is not known")
    console.say(
        f"fitted: {found.words}",
        f"It holds for flight {found.flight} only: another flight has a level and a scale of its own.",
        f"calibrated model: {place}; for the flight: cloudml predict {place} FLIGHT -o out.nc",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, or a folder of savedmodels/")
    add("flight", metavar="FLIGHT", help="the folder, or the camera file, of one flight that has labels")
    add(
        "--labels",
        type=int,
        metavar="N",
        help=f"fit to so many of its labels, {FEWEST} to {MOST} (default: all, {MOST} at most); the others are scored",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--spread", action="store_true", help="labels evenly over the flight, in time (the default)")
    which.add_argument("--consecutive", action="store_true", help="the first labels of the flight")
    add("-o", "--output", metavar="DIR", help="the folder of the calibrated model, as --run-dir")
    add_common(parser, "data.lidar.tolerance_s=1", seed=False)


def run(args: argparse.Namespace) -> int:
    """Fit, write, tell."""
    console, overrides = Console(machine=args.json), overrides_from(args)
    check_overrides(overrides)
    check_one_place(args.output, args.run_dir)
    record = read_model(Path(args.model), overrides)
    found, doubts = calibrate(record, args.flight, args.labels, args.consecutive, console)
    place = new_run(record.config, args.output or args.run_dir, prefix="calibration-")
    write(place, record, found)
    tell(console, found, place)
    console.warn(*doubts)
    return finish(args, {"calibrated": str(place), **found.model_dump(), "warnings": doubts})
