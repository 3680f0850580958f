"""Graphs of networks that are gone are freed."""

import gc
from pathlib import Path

import keras
import pytest

from cloudml_tf import training
from cloudml_tf.console import Console
from cloudml_tf.graphs import forgotten_graphs
from cloudml_tf.pipeline import prepare

pytestmark = pytest.mark.tensorflow("the register is TensorFlow's")


def graphs() -> int:
    """How many there are."""
    from tensorflow.python.framework.func_graph import FuncGraph

    gc.collect()
    return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())


def test_no_graph_of_a_training_outlives_its_network(tiny, tmp_path: Path) -> None:
    config = tiny(training={"max_epochs": 1})
    prepared, before = prepare(config), graphs()
    for number in range(2):
        training.start_keras(config)
        model = training.make_model(config, prepared.scaling, *prepared.geometry)
        (tmp_path / f"{number}").mkdir()
        with forgotten_graphs():
            training.fit(model, config, prepared, tmp_path / f"{number}", Console(quiet=True))
            training.predict(model, prepared.parts["test"])
        del model
        keras.backend.clear_session()
    assert graphs() <= before


def test_what_was_registered_before_stays() -> None:
    from tensorflow.python.framework import ops

    register = ops._gradient_registry._registry
    register["CustomGradient-mine"] = {}
    try:
        with forgotten_graphs():
            register["CustomGradient-other"] = {}
            register["Neighbour"] = {}
        assert {"CustomGradient-mine", "Neighbour"} <= set(register)
        assert "CustomGradient-other" not in register
    finally:
        for name in ("CustomGradient-mine", "Neighbour"):
            register.pop(name, None)
