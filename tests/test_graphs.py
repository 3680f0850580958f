"""Nothing of a network that is gone is kept: no graph, no data, no name."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cloudml_tf.commands.predict import predict
from cloudml_tf.experiments.run import train
from cloudml_tf.experiments.search.results import read_results
from cloudml_tf.experiments.search.settings import load_search
from cloudml_tf.experiments.search.tuner import CloudTuner
from cloudml_tf.train.network import start_keras
from cloudml_tf.train.tf_dataset import as_dataset
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.tf_graphs import forgotten_graphs

pytestmark = pytest.mark.tensorflow("the register is TensorFlow's")
GRID = {"kind": "grid"}


class Numbers(keras.utils.PyDataset):
    """Three batches: 0, 1 and 2."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 1), index, "float32"), np.zeros(2, "float32")


def graphs() -> int:
    """How many there are."""
    from tensorflow.python.framework.func_graph import FuncGraph

    gc.collect()
    return sum(issubclass(type(thing), FuncGraph) for thing in gc.get_objects())  # a dead proxy has no __class__


@pytest.mark.slow
def test_no_graph_of_a_training_or_a_prediction_outlives_it(tiny, tmp_path: Path) -> None:
    config, console = tiny(training={"max_epochs": 1}), Console(quiet=True)
    before = graphs()
    for number in range(2):
        run, _ = train(config, console, str(tmp_path / f"{number}"))
        predict(run, ["sim03"], {}, str(tmp_path / f"{number}.nc"), None, console)
    assert graphs() <= before


@pytest.mark.no_cover
def test_a_training_leaves_no_names_and_no_functions_behind(tiny, tmp_path: Path) -> None:
    from tensorflow.python.framework import ops

    keras.layers.Dropout(0.5)
    called = len(getattr(ops.get_default_graph(), "_py_funcs_used_in_graph", []))
    next_name = keras.layers.Dropout(0.5).name
    train(tiny(training={"max_epochs": 1}), Console(quiet=True), str(tmp_path / "run"))
    assert len(ops.get_default_graph()._py_funcs_used_in_graph) == called
    assert int(keras.layers.Dropout(0.5).name.split("_")[1]) == int(next_name.split("_")[1]) + 1


@pytest.mark.slow
def test_trials_of_a_search_leave_nothing_behind_and_keep_what_is_compiled(tiny_content, tmp_path, monkeypatch) -> None:
    content = {"experiment_name": "tried", "base": tiny_content(training={"max_epochs": 1})}
    (tmp_path / "search.json").write_text(json.dumps({**content, "space": {"loss.weight": [0, 0.5]}, "tuner": GRID}))
    monkeypatch.setattr(keras.utils, "clear_session", lambda: pytest.fail("all compiled kernels are thrown away"))
    keras.layers.Dropout(0.5)  # the first of a process has no number
    next_name, before = keras.layers.Dropout(0.5).name, graphs()
    CloudTuner(load_search(tmp_path / "search.json"), tmp_path / "search").search()
    assert [result["status"] for result in read_results(tmp_path / "search")] == ["completed", "completed"]
    assert graphs() <= before
    assert int(keras.layers.Dropout(0.5).name.split("_")[1]) == int(next_name.split("_")[1]) + 1


def test_data_live_as_long_as_what_is_fed_with_them() -> None:
    fed = as_dataset(Numbers())
    assert [float(x[0, 0]) for x, _ in fed] == [0.0, 1.0, 2.0]
    batches = weakref.ref(fed.batches)
    gc.collect()
    assert batches() is not None
    rows = iter(fed)
    del fed
    gc.collect()
    assert len(list(rows)) == 3  # who still draws keeps them
    del rows
    gc.collect()
    assert batches() is None


def test_the_same_seed_gives_the_same_network_and_keeps_what_is_compiled(tiny, monkeypatch) -> None:
    import tensorflow as tf

    def drawn(seed: int) -> list[float]:
        start_keras(tiny(seed=seed))
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        dropped = keras.layers.Dropout(0.5)(np.ones((2, 8), "float32"), training=True)
        return [*keras.ops.convert_to_numpy(layer.kernel).ravel(), *keras.ops.convert_to_numpy(dropped).ravel()]

    first = drawn(5)
    monkeypatch.setattr(tf.random, "set_seed", lambda seed: pytest.fail("set once more"))
    assert drawn(5) == first
    monkeypatch.undo()
    assert drawn(6) != first
    assert drawn(5) == first


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
