"""Start from a finished run, `training.init_from`: its weights, and the scaling that belongs to them.

A network's weights were fitted to frames and targets in certain units: the means and standard deviations of the flights
that it was trained on. These are kept. New statistics would shift every input and every prediction before the first
step, and a few labels are too few to estimate them. The scores of such a run are therefore in the old run's units
inside, and in the target's own units wherever they are shown.
"""

from typing import Any

from cloudml_tf.config.run_folder import read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.data.inherited import _source, check_network
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.utils.errors import RunError


def start_in_words(config: Config) -> str:
    """The start of a training in words, and the learning rate that follows from it."""
    training = config.training
    return (
        f"starts from {training.init_from}, so the learning rate is {training.rate:g}: training.learning_rate "
        f"{training.learning_rate:g} times training.init_from_rate_factor {training.init_from_rate_factor:g}"
    )


def first_model(config: Config, prepared: Prepared) -> Any:
    """The network before its first step: drawn by the seed, or as the run of `training.init_from` left it."""
    from cloudml_tf.train import network

    weights = None
    if config.training.init_from is not None:
        # Checked again: data that were prepared for one trial of a search serve others too.
        check_network(config, prepared.parts["train"])
        weights = inherited_weights(config)
    model = network.new_model(config, prepared)
    if weights is not None:
        put_weights(model, weights, config)
    return model


def inherited_weights(config: Config) -> list[Any]:
    """The run's best weights, one array per variable. Sets Keras up for that run: call `start_keras` afterwards."""
    from cloudml_tf.train.network import load_regressor

    source = _source(config)
    return load_regressor(source, *read_run(source)).get_weights()


def put_weights(model: Any, weights: list[Any], config: Config) -> None:
    """Start a model from these weights. Raises `RunError` where a shape differs."""
    here = [tuple(variable.shape) for variable in model.weights]
    there = [values.shape for values in weights]
    if here != there:
        wrong = [f"{a} there and {b} here" for a, b in zip(there, here, strict=False) if a != b]
        raise RunError(
            f"{_source(config)}: its {len(there)} arrays of weights do not fit this network's {len(here)} "
            f"({'; '.join(wrong[:3]) or 'shapes agree as far as they go'}). Copy the settings under model from "
            "that run's config.json."
        )
    model.set_weights(weights)
