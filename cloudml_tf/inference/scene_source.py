"""Which scenes a command means, and what a finished model says of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.load import expand
from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.scene_preparation import check_levels, judged_by, scene_file
from cloudml_tf.data.scenes import Scenes, read_scenes
from cloudml_tf.inference.export.formats import open_export
from cloudml_tf.utils.errors import DataError, RunError


def find_scenes(words: Sequence[str], config: Config, description: dict[str, Any], labels: bool = True) -> Scenes:
    """Scenes as a command line names them: one file of scenes, or names of scenes or groups of the model's own file.

    Raises `DataError` where a word is neither, and `RunError` for scenes that do not fit the model.
    """
    paths = [word for word in words if Path(word).exists()]
    if paths and len(words) > 1:
        raise DataError(f"{', '.join(words)}: give one file of scenes, or names of scenes of the model's own file.")
    settings = judged_by(scene_file(config))
    path = Path(paths[0]) if paths else expand(description["scenes"])
    scenes = read_scenes(path, settings, config.target, labels, config.data.limits)
    scenes = scenes if paths else scenes.named(words)
    channels = description["frame_shape"][2]
    if scenes.frames.shape[-1] != channels:
        raise RunError(f"the model takes {channels} channels; data.scenes.channels names {scenes.frames.shape[-1]}.")
    check_levels(scenes, config)
    return scenes


def scenes_of_run(config: Config, description: dict[str, Any], part: str) -> Scenes | None:
    """The scenes of one part of a finished run; None where their file is gone, or is read otherwise by now."""
    try:
        path = expand(description["scenes"])
        scenes = read_scenes(path, scene_file(config), config.target, limits=config.data.limits)
        scenes = scenes.named(description["split"][part]["flights"])
    except DataError:
        return None
    return scenes if list(scenes.frame_shape) == description["frame_shape"] else None


def answers_of(source: Path, config: Config, description: dict[str, Any], exported: bool) -> Callable[[Scenes], Any]:
    """Scenes -> (n,H,W) in the target's own unit: a run with its best weights, or an export, without Keras."""
    if exported:
        return _of_export(source, config)
    from cloudml_tf.train.network import load_regressor
    from cloudml_tf.train.swath_network import predict_scenes

    scaling = Scaling.from_json(description["scaling"]).target

    def of_run(scenes: Scenes) -> np.ndarray:
        fitting = {**description, "frame_shape": list(scenes.frame_shape)}  # weights fit any number of pixels
        return scaling.physical(predict_scenes(load_regressor(source, config, fitting), scenes.frames))

    return of_run


def _of_export(source: Path, config: Config, batch: int = 10) -> Callable[[Scenes], Any]:
    reader = open_export(source, "savedmodel")

    def of_export(scenes: Scenes) -> np.ndarray:
        pieces = [scenes.frames[i : i + batch] for i in range(0, len(scenes), batch)]
        found = [reader.outputs({"frames": piece})[config.target.name] for piece in pieces]
        return np.concatenate(found).astype("float64").reshape(scenes.frames.shape[:3])

    return of_export
