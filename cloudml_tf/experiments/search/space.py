"""Convert between a search's space and KerasTuner's hyperparameters. A list's values are passed as JSON text of any
type."""

import json
from typing import Any

from cloudml_tf.experiments.search.settings import Range, Search, Space, is_integer

EPOCHS = "tuner/epochs"  # hyperband's, beside the space


def declare(hp: Any, space: Space) -> dict[str, Any]:
    """Declare every field in a `keras_tuner.HyperParameters`; return the values that it gives them."""
    values: dict[str, Any] = {}
    for key, options in space.items():
        if isinstance(options, Range):
            values[key] = hp.Float(key, options.min, options.max, sampling=options.sampling)
        else:
            values[key] = hp.Choice(key, [json.dumps(option) for option in options])
    return values


def overrides(hp: Any, search: Search) -> dict[str, Any]:
    """The changes of a trial to the base, by dotted path. Six digits of a drawn number are enough to repeat it."""
    found: dict[str, Any] = {}
    for key, value in declare(hp, search.space).items():
        options = search.space[key]
        if not isinstance(options, Range):
            found[key] = json.loads(value)
        elif is_integer(search, key, options):
            found[key] = round(value)
        else:
            found[key] = float(f"{value:.6g}")
    if EPOCHS in hp.values:
        found["training.max_epochs"] = hp.values[EPOCHS]
    return found
