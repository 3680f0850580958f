"""From a configuration to parts of scenes that are ready to train on. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudml_tf.config import expand
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.scenes import (
    Scenes,
    fit_scene_scaling,
    on_lines,
    read_scenes,
    scene_fingerprint,
    split_scenes,
)
from cloudml_tf.data.settings import FlightSplit, SceneFile
from cloudml_tf.errors import ConfigError, DataError
from cloudml_tf.settings import Config


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
                "flights": list(scenes.names),
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
    parts = split_scenes(read_scenes(path, settings, config.target), split)
    check_levels(parts["train"], config)
    for number, part in enumerate(("train", "val")):
        if settings.line_spacing > 1:
            parts[part] = on_lines(parts[part], settings.line_spacing, np.random.default_rng([config.seed, number]))
    scaling = fit_scene_scaling(parts["train"], config.target, config.preprocessing)
    return PreparedScenes(parts, scaling, scene_fingerprint(path, parts), settings.path)


def check_levels(scenes: Scenes, config: Config) -> None:
    """Refuse scenes that the network cannot halve often enough. Raises `DataError`."""
    rows, columns, _ = scenes.frame_shape
    step = 2 ** (len(config.model.widths) - 1)
    if rows % step or columns % step:
        raise DataError(
            f"scenes of {rows} x {columns} pixels cannot be halved {len(config.model.widths) - 1} times: with "
            f"{len(config.model.widths)} model.widths, rows and columns must be multiples of {step}. Give fewer widths."
        )
