"""Private names of other packages that the code uses: all are in CONTRIBUTING.md, and all are still there."""

import argparse
import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from cloudml_tf.experiments.search import oracles, tuner
from cloudml_tf.experiments.search.results import read_results
from cloudml_tf.experiments.search.settings import load_search
from cloudml_tf.nn.optimizers import FusedAdamW
from cloudml_tf.utils.errors import RunError
from cloudml_tf.utils.files import write_json

ROOT = Path(__file__).parent.parent
PUBLIC = {"_exit", "_fields", "_replace"}  # os._exit, and of named tuples: documented, in spite of their names
TABLE = (ROOT / "CONTRIBUTING.md").read_text().split("## Private parts of other packages")[1].split("\n## ")[0]
ROWS = [[re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[2:6]] for line in TABLE.splitlines()[7:] if line]
NAMES = {name for names, *_ in ROWS for name in names}
OURS = (tuner.CloudTuner, oracles.RandomOracle, oracles.BayesianOracle, oracles.HyperbandOracle, oracles.GridOracle)


def modules() -> list[tuple[Path, ast.Module]]:
    """Every module of the package."""
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in (ROOT / "cloudml_tf").rglob("*.py")]


def defined(tree: ast.Module) -> set[str]:
    """Private names that a module itself makes: functions, classes, assigned names and attributes."""
    nodes = list(ast.walk(tree))
    found = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in nodes
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


INSIDE = re.compile(r"(keras|keras_tuner)\.src\.[\w.]+|tensorflow\.python\.[\w.]+")  # modules


def taken(tree: ast.Module) -> set[str]:
    """Private attributes that a module reads, by a dot or by `getattr`, and private modules that it names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-zA-Z]", node.attr):
            found.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            found |= {str(a.value) for a in node.args if isinstance(a, ast.Constant) and str(a.value)[:1] == "_"}
        texts = [node.value] if isinstance(node, ast.Constant) else [getattr(node, "module", None)]
        found |= {text for text in texts if isinstance(text, str) and INSIDE.fullmatch(text)}
    return {name for name in found if not name.startswith("__")}


@pytest.mark.no_cover
def test_the_table_names_every_private_part_that_is_used() -> None:
    used = {name for _, tree in modules() for name in taken(tree) - defined(tree)} - PUBLIC
    own = {name for _, tree in modules() for name in defined(tree)}
    classes = [base for cls in (*OURS, FusedAdamW) for base in cls.__mro__]
    theirs = {name for cls in classes if cls.__module__.startswith("keras") for name in vars(cls)}
    ours = {name for cls in classes if cls.__module__.startswith("cloudml_tf") for name in vars(cls)}
    overridden = {name for name in ours & theirs if re.match(r"_[a-z]", name)}
    assigned = {"_max_collisions", "_retry_queue"}  # of KerasTuner's own objects
    assert (used - (own - NAMES)) | overridden | assigned == NAMES


def test_each_is_where_the_table_says_and_its_test_exists() -> None:
    assert len(ROWS) > 5
    for names, files, _, tests in ROWS:
        text = "".join((ROOT / "cloudml_tf" / file).read_text(encoding="utf-8") for file in files)
        assert all(name in text for name in names), names
        for test in tests:
            file, name = test.split("::")
            assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), test


@pytest.mark.tensorflow("some are TensorFlow's")
def test_each_still_exists(tmp_path: Path, tiny_content: Any) -> None:
    from tensorflow.python.framework import ops

    search = searched(tmp_path, tiny_content, {"loss.weight": [0, 0.5]})
    oracle, optimizer = oracles.make_oracle(search), keras.optimizers.AdamW()
    optimizer.build([])
    state = importlib.import_module("keras.src.backend.common.global_state")
    keras.layers.Dropout(0.5)
    holders = [keras.Model, optimizer, ops, ops._gradient_registry, oracle, keras_tuner.Tuner, argparse]
    holders.append(HistGradientBoostingRegressor(max_iter=1).fit(np.zeros((9, 1)), np.zeros(9)))
    holders += [keras_tuner.oracles.BayesianOptimizationOracle, keras.layers.Masking()(keras.Input((2, 1)))]
    lazily = {"_py_funcs_used_in_graph"}  # comes with the first function
    for name in NAMES - lazily:
        if "." in name:
            importlib.import_module(name)
        else:
            assert any(hasattr(holder, name) for holder in holders), name
    assert isinstance(state.get_global_attribute("object_name_uids"), dict)


def searched(home: Path, tiny_content: Any, space: dict[str, Any], **kind: Any) -> Any:
    """A search of the tiny twin."""
    content = {"experiment_name": "tried", "base": tiny_content(), "space": space, "tuner": kind or {"kind": "grid"}}
    (home / "search.json").write_text(json.dumps(content))
    return load_search(home / "search.json")


def test_a_random_search_finds_every_point_of_a_small_space(tmp_path: Path, tiny_content: Any) -> None:
    """The last of sixty points is met in one of sixty draws: KerasTuner alone gives up after 20 in vain."""
    weights = [round(0.01 * n, 2) for n in range(60)]

    class Formula(tuner.CloudTuner):
        def _train(self, trial: Any, folder: Path, values: dict[str, Any]) -> dict[str, Any]:
            result = {**dict.fromkeys((*tuner.SCORES, "composite"), 0.5), "id": trial.trial_id, "values": values}
            result |= {"status": "completed", "reason": "", "seconds": 0.0}
            write_json(folder / "result.json", result)
            return result

        def pre_create_trial(self) -> None:
            pass

    search = searched(tmp_path, tiny_content, {"loss.weight": weights}, kind="random", trials=60)
    Formula(search, tmp_path / "out").search()
    assert sorted(result["values"]["loss.weight"] for result in read_results(tmp_path / "out")) == weights


def test_a_tuner_builds_no_model_to_learn_the_space_and_prints_no_traceback(
    tmp_path: Path, tiny_content: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Any, hp: Any) -> None:
        raise RunError("no model is built here")

    monkeypatch.setattr(tuner.CloudHyperModel, "build", refuse)
    made = tuner.CloudTuner(searched(tmp_path, tiny_content, {"loss.weight": [0, 0.5]}), tmp_path / "out")
    made.search()
    assert [result["reason"] for result in read_results(tmp_path / "out")] == ["no model is built here"] * 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
