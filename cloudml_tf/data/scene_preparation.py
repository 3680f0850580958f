"""From a configuration to parts of scenes that are ready to train on. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightSplit, SceneFile
from cloudml_tf.config.load import expand
from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.scenes import Scenes, fit_scene_scaling, on_lines, read_scenes, scene_fingerprint, split_scenes
from cloudml_tf.utils.errors import ConfigError, DataError


@dataclass(frozen=True)
class PreparedScenes:
    """Everything that training needs, and what is written down about it."""

    parts: dict[str, Scenes]
    scaling: Scaling
    fingerprint: str  # changes with the file, the labels and the split
    source: str  # the file, as the configuration names it

    def remarks(self) -> list[str]:
        """What a person has to know before the training; of scenes there is nothing."""
        return []

    def description(self) -> dict[str, Any]:
        """For the run folder."""
        parts = {}
        for part, scenes in self.parts.items():
            label = scenes.label[scenes.seen]
            parts[part] = {
                "flights": list(dict.fromkeys(scenes.split_names)),
                "sequences": len(scenes),
                "labels": len(label),
                "label_mean": float(label.mean()),
                "label_std": float(label.std()),
            }
        return {
            "fingerprint": self.fingerprint,
            "scenes": self.source,
            "split": parts,
            "scaling": self.scaling.to_json(),
            "frame_shape": list(self.parts["train"].frame_shape),
        }


def scene_file(config: Config) -> SceneFile:
    """The scenes that a configuration names. Raises `ConfigError` where it names none."""
    if config.data.scenes is None:
        raise ConfigError("target.coverage 'swath' needs data.scenes, a file of gridded scenes.")
    return config.data.scenes


def prepare_scenes(config: Config) -> PreparedScenes:
    """Read the scenes, cut the parts, check for leaks and fit the scaling on the training part."""
    settings, split, path = scene_file(config), config.split, expand(scene_file(config).path)
    assert isinstance(split, FlightSplit)  # swath.contract
    scenes = read_scenes(path, settings, config.target, limits=config.data.limits)
    judged = None
    if settings.test_label is not None:
        judged = read_scenes(path, judged_by(settings), config.target, limits=config.data.limits)
    parts = split_scenes(scenes, split, judged)
    check_levels(parts["train"], config)
    check_logarithm(parts["train"], config)
    for number, part in enumerate(("train", "val")):
        if settings.line_spacing > 1:
            parts[part] = on_lines(parts[part], settings.line_spacing, np.random.default_rng([config.seed, number]))
    scaling = fit_scene_scaling(parts["train"], config.target, config.preprocessing)
    return PreparedScenes(parts, scaling, scene_fingerprint(path, parts), settings.path)


def judged_by(settings: SceneFile) -> SceneFile:
    """The same file with the labels that a network is judged by."""
    return settings.model_copy(update={"label": settings.test_label or settings.label})


def check_logarithm(scenes: Scenes, config: Config) -> None:
    """Refuse the logarithm of what is no light. Raises `ConfigError`."""
    if scenes.single and config.preprocessing.log_offset is not None:
        names = ", ".join(scene_file(config).channels[number] for number in scenes.single)
        raise ConfigError(
            f"data.scenes.channels {names} is one number a scene, which may be negative, and preprocessing.log_offset "
            "takes the logarithm of all channels. Set log_offset to null, or leave that channel out."
        )


def levels_step(config: Config) -> int:
    """What rows and columns must be multiples of."""
    return 2 ** (len(config.model.widths) - 1)


def check_levels(scenes: Scenes, config: Config) -> None:
    """Refuse scenes that the network cannot halve often enough. Raises `DataError`."""
    rows, columns, _ = scenes.frame_shape
    step = levels_step(config)
    if rows % step or columns % step:
        raise DataError(
            f"scenes of {rows} x {columns} pixels cannot be halved {len(config.model.widths) - 1} times: with "
            f"{len(config.model.widths)} model.widths, rows and columns must be multiples of {step}. Give fewer widths."
        )
