"""A swath network, or the mean of several, as a SavedModel that takes scenes of any size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.run_folder import run_id
from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.inference.export import parity
from cloudml_tf.inference.export.writer import Source, export
from cloudml_tf.nn.introspection import copy_weights
from cloudml_tf.nn.layers import FRAMES
from cloudml_tf.train.network import make_model, with_units
from cloudml_tf.utils.errors import ConfigError


def export_networks(
    networks: Sequence[keras.Model],
    folder: Path,
    config: Config,
    description: dict[str, Any],
    metrics: dict[str, Any] | None = None,
    frames: np.ndarray | None = None,
    run: Path | None = None,
) -> dict[str, Any]:
    """Write the SavedModel, its record and its card; returns the parity record.

    Args:
        networks: of one configuration and scaling, with standardised answers; their mean is exported.
        folder, config, description, metrics, run: as for `cloudml_tf.inference.export.writer.export_model`.
        frames: (n,H,W,C) to compare on; else those of the run's test scenes, or drawn ones.
    """
    scaling = Scaling.from_json(description["scaling"])
    anywhere = [_of_any_size(network, config, scaling, description) for network in networks]
    inputs = keras.Input((None, None, description["frame_shape"][2]), name=FRAMES)
    answers = [network({FRAMES: inputs}) for network in anywhere]
    mean = answers[0] if len(answers) == 1 else keras.layers.Average()(answers)
    physical = with_units(keras.Model({FRAMES: inputs}, mean), scaling)

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        return {config.target.name: physical(inputs, training=False)}

    more: dict[str, Any] = {} if run is None else {"run": run_id(config, run)}
    if len(networks) > 1:
        more["members"] = [f"network {number + 1}" for number in range(len(networks))]
    compared = _sequences(frames, config, description)
    source = Source([physical], answer, config, description, metrics, more=more, compared=compared)
    return export(source, folder, ("savedmodel",))


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what a swath network is not written as. Raises `ConfigError`."""
    if tuple(formats) != ("savedmodel",):
        raise ConfigError(
            f"a swath network is exported as a SavedModel alone. Received: {', '.join(formats)}. Leave --format out."
        )


def _of_any_size(network: keras.Model, config: Config, scaling: Scaling, description: dict[str, Any]) -> keras.Model:
    """The same network for images of any number of rows and columns."""
    twin = make_model(config, scaling, (None, None, description["frame_shape"][2]))  # type: ignore[arg-type]
    copy_weights(network, twin)
    return twin


def _sequences(frames: np.ndarray | None, config: Config, description: dict[str, Any]) -> parity.Sequences:
    from cloudml_tf.inference.scene_source import scenes_of_run

    if frames is not None:
        of = "the test scenes" if "test" in description["split"] else "its own scenes"
        return parity.Sequences({FRAMES: frames}, f"of {of}")
    scenes = scenes_of_run(config, description, "test")
    if scenes is not None:
        return parity.Sequences({FRAMES: scenes.frames}, "of the test scenes")
    shapes = {FRAMES: (None, *description["frame_shape"])}
    scaling, offset = Scaling.from_json(description["scaling"]), config.preprocessing.log_offset
    return parity.drawn_sequences(shapes, scaling, offset, config.seed, 20)
