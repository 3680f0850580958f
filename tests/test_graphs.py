"""Graphs of networks that are gone are freed."""

import gc
from pathlib import Path

import keras
import pytest

from cloudml_tf.console import Console
from cloudml_tf.graphs import forgotten_graphs
from cloudml_tf.predict import predict
from cloudml_tf.train import train

pytestmark = pytest.mark.tensorflow("the register is TensorFlow's")
QUICK = {"evaluation": {"baselines": False, "bootstrap_samples": 100}, "output": {"export": False, "report": False}}


def graphs() -> int:
    """How many there are."""
    from tensorflow.python.framework.func_graph import FuncGraph

    gc.collect()
    return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())


def test_no_graph_of_a_training_or_a_prediction_outlives_it(tiny, tmp_path: Path) -> None:
    config, console = tiny(training={"max_epochs": 1}, **QUICK), Console(quiet=True)
    before = graphs()
    for number in range(2):
        run, _ = train(config, console, str(tmp_path / f"{number}"))
        predict(run, ["sim03"], {}, str(tmp_path / f"{number}.nc"), None, console)
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
