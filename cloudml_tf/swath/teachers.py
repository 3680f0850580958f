"""Labels for pixels that have none: what finished networks say of the scenes that they were trained on. NumPy only.

Lee (2013), "Pseudo-label", and Xie et al. (2020), "Noisy student": the mean of several networks, each averaged over
its mirror images and shifts, knows more of a pixel between two labelled lines than the one network that learns from it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloudml_tf.config import expand
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.errors import ConfigError

ANSWERS = "predictions.npz"


def taught(train: Scenes, teachers: Sequence[str], weight: float, judged: Sequence[str], unit: TargetScaling) -> Scenes:
    """The same scenes with the teachers' mean answer, of that weight, wherever there is no label.

    Args:
        train: the training part.
        teachers: run folders of finished trainings on these scenes.
        weight: of such a pixel; a labelled one has 1.
        judged: names of the validation and the test scenes, which no teacher may have learned from.
        unit: of the loss, whose space the mean is taken in.

    Raises `ConfigError` for a run that is not finished, has not seen a scene, or has seen one that is judged.
    """
    maps = np.mean([unit.standardise(_answers(teacher, train, judged)) for teacher in teachers], axis=0)
    label = np.where(train.seen, train.label, unit.physical(maps))
    return replace(train, label=label, weight=np.where(train.seen, train.weight, weight).astype("float32"))


def _answers(teacher: str, train: Scenes, judged: Sequence[str]) -> np.ndarray:
    """(n,H,W) of one run, in the target's own unit, in the order of `train`."""
    path = Path(expand(teacher)) / ANSWERS
    if not path.is_file():
        raise ConfigError(f"data.scenes.teachers: {path} is missing. Name folders of finished swath runs.")
    with np.load(path) as found:
        if "train_scene" not in found:
            raise ConfigError(f"data.scenes.teachers: {teacher} is no run on scenes. Name folders of swath runs.")
        names, maps = [str(name) for name in found["train_scene"]], found["train_prediction"]
    known = sorted(set(names) & set(judged))
    if known:
        raise ConfigError(
            f"data.scenes.teachers: {teacher} was trained on {_shown(known)}, which this run is judged by. "
            "A teacher needs the same split."
        )
    missing = sorted(set(train.names) - set(names))
    if missing or maps.shape[1:] != train.label.shape[1:]:
        what = f"was not trained on {_shown(missing)}" if missing else f"has maps of {maps.shape[1:]}"
        raise ConfigError(f"data.scenes.teachers: {teacher} {what}. A teacher needs the same scenes and split.")
    return np.asarray(maps[[names.index(name) for name in train.names]], "float64")


def _shown(names: Sequence[str]) -> str:
    """Some names, for a message."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
