"""The members of an ensemble: finished runs with the same task, their networks and their predictions."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.run_folder import flat
from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Examples
from cloudml_tf.evaluation.comparison import Run, read_finished, short_names
from cloudml_tf.nn.introspection import mirror_average
from cloudml_tf.train.batches import Inputs
from cloudml_tf.train.network import load_regressor
from cloudml_tf.train.tf_dataset import predict_batches
from cloudml_tf.utils.errors import NotFiniteError, RunError

# Members may differ in seed, training flights, network, loss and preprocessing; not in inputs and target.
OWN_OF_DATA = {"cache", "memory_gb", "labels", "val_labels", "path", "flights"}


def read_members(folders: list[Path]) -> list[Run]:
    """Read finished runs. Raises `RunError` where they cannot be joined."""
    names = short_names(folders)
    members = [read_finished(folder, name) for folder, name in zip(folders, names, strict=True)]
    for other in members[1:]:
        _check_alike(members[0], other)
    return members


def _check_alike(first: Run, other: Run) -> None:
    asked = [question(run.config, run.description) for run in (first, other)]
    changed = [key for key in sorted(asked[0].keys() | asked[1].keys()) if asked[0].get(key) != asked[1].get(key)]
    if changed:
        shown = "; ".join(f"{key} is {asked[0].get(key)!r} and {asked[1].get(key)!r}" for key in changed[:5])
        raise RunError(
            f"{first.name} and {other.name} cannot be one ensemble: {shown}. Members share test flights, target "
            "and inputs; train them from one configuration with --seed 1, --seed 2, …"
        )
    if first.samples() != other.samples():
        raise RunError(
            f"{first.name} and {other.name} were evaluated on different test samples of the same flights: their "
            "files have changed. Train both again."
        )


def question(config: Config, description: dict[str, Any]) -> dict[str, Any]:
    """The settings that members must have in common, by dotted path."""
    content = config.model_dump(mode="json")
    data = {key: value for key, value in content["data"].items() if key not in OWN_OF_DATA}
    shared = {
        "target": content["target"],
        "temporal_frames": content["temporal_frames"],
        "frame_spacing_s": content["frame_spacing_s"],
        "data": data,
        "split": content["split"] if content["split"]["kind"] == "time_blocks" else {"kind": "flights"},
        "test_flights": description["split"]["test"]["flights"],
        "frame_shape": description["frame_shape"],
        "nadir": description.get("nadir"),
    }
    return flat(json.loads(json.dumps(shared)))


def load_networks(members: list[Run], seed: int) -> list[keras.Model]:
    """Load the regressors. Each draws its own dropout masks, starting at `seed`."""
    return [
        load_regressor(run.folder, run.config.model_copy(update={"seed": seed + number}), run.description)
        for number, run in enumerate(members)
    ]


def outputs(networks: list[keras.Model], examples: Examples, passes: int = 0) -> list[np.ndarray]:
    """The standardised predictions of each network for the k known labels, (k,1) or (k,1+K).

    With `passes`, of that many calls of each network with dropout.
    """
    batches, found = Inputs(examples), []
    for network in networks:
        answers = [_pass(network, batches, number) for number in range(passes)] or [predict_batches(network, batches)]
        found += [columns(answer.astype("float64"), examples) for answer in answers]
    if not all(np.isfinite(values).all() for values in found):
        raise NotFiniteError("a member predicts values that are not finite; its weights or inputs are not finite.")
    return found


def columns(output: np.ndarray, examples: Examples) -> np.ndarray:
    """Select the rows (k,·) of the known labels from a network's output of n examples; those of a map have one
    column."""
    return output[examples.known] if examples.label.ndim == 1 else output[examples.known][:, None]


def _pass(network: keras.Model, batches: Inputs, number: int) -> np.ndarray:
    """A pass of all batches with dropout (Gal and Ghahramani 2016), each of another network.

    Passes see the image and its mirror image by turns, where the network averages over the two.
    """
    average, found = mirror_average(network), []
    for i in range(len(batches)):
        inputs = batches[i][0]
        if average is None:
            answer = network(inputs, training=True)
        else:
            answer = average.layer(average.mirrored(inputs) if number % 2 else inputs, training=True)
        found.append(keras.ops.convert_to_numpy(answer))  # at once: on PyTorch it keeps what its gradient would need
    return np.concatenate(found)
