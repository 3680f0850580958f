"""The examples that a finished model is evaluated on or predicts: named on a command line, or of its own run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudml_tf.config.coverage import scene_settings
from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import ModelRecord
from cloudml_tf.config.schema import Config
from cloudml_tf.data.flight_scenes import reading, scenes_of_flights
from cloudml_tf.data.left_out import LeftOut
from cloudml_tf.data.readers.scenes import read_scenes
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scenes import Scenes, check_levels, judged_by
from cloudml_tf.data.sources import Progress, check_some, find_named, read_flights, samples_of
from cloudml_tf.data.splits import keep_labels
from cloudml_tf.utils.errors import DataError, RunError


def named_samples(
    words: Sequence[str], record: ModelRecord, decoding: Progress | None = None, left_out: LeftOut | None = None
) -> Samples:
    """All labelled sequences of flights as a command line names them, for a finished model.

    Raises `DataError` for a word that names none, and `RunError` for frames that do not fit the model.
    """
    files = find_named(words, record.config, record.description["files"])
    samples = samples_of(files, record.config, decoding, left_out)
    check_frames(record, samples.frame_shape)
    return samples


def named_scenes(
    words: Sequence[str],
    config: Config,
    description: Mapping[str, Any],
    labels: bool = True,
    progress: Progress | None = None,
    trained_labels: bool = False,
    left_out: LeftOut | None = None,
) -> Scenes:
    """Scenes as a command line names them: one file of scenes, names of the model's own scenes, or flights.

    Flights are folders, or names that a model of flights knows; their scenes are made in memory. Without `labels` no
    label and no lidar file is read. Labels are those that test splits are scored with, unless `trained_labels` asks for
    those that training splits have.
    """
    paths = [word for word in words if Path(word).is_file()]
    if config.data.scenes is None or all(Path(word).is_dir() for word in words):
        scenes = _of_flights(words, config, description, labels, progress, {} if left_out is None else left_out)
    elif paths and len(words) > 1:
        raise DataError(f"{', '.join(words)}: give one file of scenes, or names of scenes of the model's own file.")
    else:
        path = Path(paths[0]) if paths else expand(description["scenes"])
        settings = scene_settings(config) if trained_labels else judged_by(scene_settings(config))
        scenes = read_scenes(path, settings, config.target, labels, config.data.limits)
        scenes = scenes if paths else scenes.named(words)
    _check_fit(scenes, description)
    check_levels(scenes, config)
    return scenes


def _of_flights(
    words: Sequence[str],
    config: Config,
    description: Mapping[str, Any],
    labels: bool,
    progress: Progress | None,
    left_out: LeftOut,
) -> Scenes:
    wanted = reading(config)
    files = find_named(words, wanted, description.get("files", {}), labels)
    flights = read_flights(files, sorted(files), wanted, left_out, labels)
    check_some(flights, left_out)
    return scenes_of_flights(flights, config, progress, labels)


def _check_fit(scenes: Scenes, description: Mapping[str, Any]) -> None:
    """Refuse scenes with another number of frames or channels than the model was trained on; any size will do."""
    expected, found = ([*shape[:-3], shape[-1]] for shape in (description["frame_shape"], list(scenes.frame_shape)))
    if expected != found:
        raise RunError(
            f"the model takes images with [frames, ] channels {expected}; these scenes have {found}. Set "
            "data.scenes.channels, data.camera.channels or temporal_frames as the model's run has them."
        )


def check_frames(record: ModelRecord, frame_shape: Sequence[int]) -> None:
    """Refuse frames (H, W, C) of another shape than the model was trained on. Raises `RunError`."""
    expected = tuple(record.description["frame_shape"])
    if tuple(frame_shape) != expected:
        raise RunError(
            f"{record.source}: was trained on frames of shape {expected} (rows, columns, channels); these flights have "
            f"{tuple(frame_shape)}. Set data.camera.rows, columns, downsample or channels with --set."
        )


def samples_of_run(config: Config, description: Mapping[str, Any], part: str) -> Samples:
    """The sequences of one split of a finished run, read again. Raises `DataError` where that is no longer possible."""
    names = description["split"][part]["flights"]
    files = {name: FlightFiles.model_validate(description["files"][name]) for name in names}
    return keep_labels({part: samples_of(files, config)}, config.data, config.seed)[part]
