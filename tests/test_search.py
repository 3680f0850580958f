"""`cloudml search`: what it refuses, what it keeps when it is killed, and what it says at the end."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloudml_tf.cli import main
from cloudml_tf.config import load_config
from cloudml_tf.console import Console
from cloudml_tf.errors import ConfigError, RunError
from cloudml_tf.files import write_json
from cloudml_tf.runs import read_history
from cloudml_tf.searching.page import height, ticks
from cloudml_tf.searching.results import read_results, write_results
from cloudml_tf.searching.settings import Range, load_search
from cloudml_tf.searching.workers import held_alone, limit_threads, role, wait_for_chief

ROOT = Path(__file__).parent.parent
SPACE = {"loss.weight": [0, 0.5], "model.dropout": {"min": 0.0, "max": 0.3}}


@pytest.fixture
def search_file(tiny_content, tmp_path: Path):
    """A function: space, tuner, changes of the base -> the path of a search."""

    def make(space: dict[str, Any] = SPACE, tuner: dict[str, Any] | None = None, **changes: Any) -> Path:
        content = {"experiment_name": "tried", "base": tiny_content(**changes), "space": space}
        path = tmp_path / "search.json"
        path.write_text(json.dumps({**content, "tuner": tuner or {"kind": "random", "trials": 3}}))
        return path

    return make


def test_the_named_search_covers_the_ablations() -> None:
    search = load_search(ROOT / "configs/search.json")
    assert search.tuner.kind == "random"
    assert search.warnings() == []
    for key in ("temporal_frames", "loss.weight", "loss.form", "overweight_factor", "model.heads", "model.widths"):
        assert key in search.space
    assert search.content({"model.heads": 2})["model"]["heads"] == 2
    assert search.base["training"]["max_epochs"] == 30  # set by the search, over tier1.json


@pytest.mark.parametrize(
    ("space", "tuner", "message"),
    [
        ({"model.droput": [0.1]}, None, "unknown key 'model.droput'; did you mean 'dropout'"),
        ({"modl.dropout": [0.1]}, None, "unknown key 'modl'; did you mean 'model'"),
        ({"model.dropout": [0.1, 1.5]}, None, r"space 'model.dropout': Input should be less than 1. Received: 1.5"),
        ({"model.dropout": {"min": 0.1, "max": 1.5}}, None, "space 'model.dropout'"),
        ({"model.dropout": {"min": 0.3, "max": 0.1}}, None, "min 0.3 must be below max 0.1"),
        ({"model.dropout": {"min": 0, "max": 0.1, "sampling": "log"}}, None, "log sampling needs min above 0"),
        ({"temporal_frames": {"min": 1, "max": 7}}, None, "Give a list of values instead of a range"),
        ({"model.heads": []}, None, "needs one value or more, none twice"),
        ({"model.heads": [2, 2]}, None, "needs one value or more, none twice"),
        ({"experiment_name": ["a", "b"]}, None, "does not change the training"),
        ({"model.heads": [2, 4]}, None, "tuner.trials is 3, but the space has 2 combinations"),
        ({"seed.more": [1]}, None, "'seed' is a value, not a section"),
        (SPACE, {"kind": "grid"}, "a grid needs a list of values for each field; 'model.dropout' has a range"),
        (SPACE, {"kind": "randm"}, "tuner"),
        (SPACE, {"kind": "random", "trails": 3}, "unknown key 'tuner.trails'; did you mean 'trials'"),
        ({"training.max_epochs": [2, 3]}, {"kind": "hyperband"}, "hyperband chooses training.max_epochs itself"),
        ({}, None, "'space'"),
    ],
)
def test_what_no_trial_could_run_is_refused_before_any_does(search_file, space, tuner, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_search(search_file(space, tuner))


def test_a_bad_base_is_refused_by_name(search_file, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"base: 'training.batch_size'"):
        load_search(search_file(training={"batch_size": 0}))
    (tmp_path / "other.json").write_text(json.dumps({"experiment_name": "x", "base": "none.json", "space": SPACE}))
    with pytest.raises(ConfigError, match=r"none\.json: no such configuration"):
        load_search(tmp_path / "other.json")


def test_overrides_reach_the_base_the_tuner_and_the_space(search_file) -> None:
    changed = {"training.max_epochs": 7, "tuner.trials": 2, "space.loss.weight": [0.1, 0.2]}
    search = load_search(search_file(), changed)
    assert (search.base["training"]["max_epochs"], search.tuner.trials) == (7, 2)
    assert search.space["loss.weight"] == (0.1, 0.2)


def test_scores_that_do_not_compare_are_warned_of(search_file) -> None:
    tuner = {"kind": "random", "trials": 3, "objective": "composite"}
    space = {**SPACE, "target.maximum": [1.5, 2.0]}
    first, second = load_search(search_file(space, tuner)).warnings()
    assert "target.maximum changes what is judged" in first
    assert "composite compares losses, and loss.weight changes the loss" in second


def formula_tuner(search: Any, folder: Path) -> Any:
    """The real tuner, with a formula in the place of a training."""
    from cloudml_tf.hypermodel import SCORES, CloudTuner

    class Formula(CloudTuner):
        trained: list[str] = []  # noqa: RUF012

        def _train(self, trial: Any, folder: Path, values: dict[str, Any]) -> dict[str, Any]:
            score = 0.9 - abs(values["loss.weight"] - 0.3)
            result = {name: score for name in (*SCORES, "composite")}
            result |= {"id": trial.trial_id, "status": "completed", "reason": "", "values": values, "seconds": 0.0}
            if values["loss.weight"] == 0:
                result.update(status="collapsed", reason="planted")
            write_json(folder / "result.json", result)
            self.trained.append(trial.trial_id)
            return result

        def pre_create_trial(self) -> None:
            pass

    return Formula(search, folder, Console(quiet=True))


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


KINDS = [
    {"kind": "random", "trials": 6},
    {"kind": "bayesian", "trials": 6, "initial_points": 3},
    {"kind": "hyperband", "max_epochs": 4, "factor": 2},
    {"kind": "grid"},
]
LISTS = {"loss.weight": [0, 0.1, 0.5], "model.heads": [1, 2]}


@pytest.mark.parametrize("tuner", KINDS, ids=lambda tuner: tuner["kind"])
def test_a_search_killed_before_any_of_its_writes_ends_as_if_it_had_not_been(
    search_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuner: dict[str, Any]
) -> None:
    search = load_search(search_file(LISTS, tuner))
    replace = os.replace
    left = math.inf  # writes until the kill

    def dying(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        replace(source, target)

    monkeypatch.setattr("cloudml_tf.files.os.replace", dying)
    monkeypatch.setattr("cloudml_tf.files.os.unlink", lambda path: None)  # a killed process tidies nothing up

    def searched(folder: Path, writes: float) -> tuple[list[dict[str, Any]], list[str]]:
        nonlocal left
        trained: list[str] = []
        for writes_left in (writes, writes, math.inf):
            left = writes_left
            one = formula_tuner(search, folder)
            one.trained = trained
            try:
                one.search()
            except Killed:
                continue
            break
        return read_results(folder), trained

    def values(results: list[dict[str, Any]]) -> list[str]:
        return [json.dumps(result["values"]) for result in results]

    whole, _ = searched(tmp_path / "whole", 10_000)
    number = 10_000 - int(left)
    assert number > 6 * len(whole)
    step = {"random": 1, "grid": 2}.get(tuner["kind"], 5)
    for writes in range(0, number, step):
        results, trained = searched(tmp_path / f"killed{writes}", writes)
        assert len(results) == len(whole), writes
        assert len(trained) == len(set(trained)), f"a finished trial was trained again, write {writes}"
        if tuner["kind"] != "bayesian":  # where it looks next depends on a random state that KerasTuner does not keep
            assert values(results) == values(whole), writes
        if tuner["kind"] != "hyperband":
            assert len(set(values(results))) == 6, writes


def test_hyperband_promotes_past_failed_trials(search_file, tmp_path: Path) -> None:
    """Half of the trials collapse; KerasTuner alone would promote fewer for each of them."""
    space = {"loss.weight": [0, 0.1, 0.5], "model.dropout": {"min": 0.0, "max": 0.3}}
    search = load_search(search_file(space, {"kind": "hyperband", "max_epochs": 9, "factor": 3}))
    formula_tuner(search, tmp_path / "h").search()
    results = read_results(tmp_path / "h")
    longest = [r for r in results if r["values"]["training.max_epochs"] == 9]
    assert {r["values"]["training.max_epochs"] for r in results} == {1, 3, 9}
    assert len(results) == (9 + 3 + 1) + (5 + 2) + 3  # the three brackets, whole
    assert any(r["status"] == "completed" for r in longest)


def test_a_search_runs_collapsed_and_nan_trials_and_keeps_them_apart(search_file, tmp_path: Path, capsys) -> None:
    """One good trial, one that collapses by a threshold no model reaches, one whose loss overflows, one impossible."""
    space = {
        "training.collapse_threshold": [0.05, 0.99999],
        "training.learning_rate": [3e-3, 10.0],
        "model.head": ["point", "quantile"],
    }
    training = {"collapse_grace_epochs": 0, "gradient_clip_norm": None, "max_epochs": 2, "warmup_epochs": 0.0}
    path = search_file(space, {"kind": "grid"}, training=training, loss={"weight": 100.0})
    folder = tmp_path / "out"
    assert main(["search", str(path), "--run-dir", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_values = {
        (
            r["values"]["training.collapse_threshold"],
            r["values"]["training.learning_rate"],
            r["values"]["model.head"],
        ): r
        for r in found["trials"]
    }
    assert len(by_values) == 8
    print({key: (r["status"], r["reason"][:60]) for key, r in by_values.items()})
    assert by_values[0.05, 3e-3, "point"]["status"] == "completed"
    assert by_values[0.99999, 3e-3, "point"]["status"] == "collapsed"
    assert by_values[0.99999, 3e-3, "point"]["epochs"] == 1
    assert {r["status"] for key, r in by_values.items() if key[2] == "quantile"} == {"failed"}
    assert "the quantile head is trained by 'pinball'" in by_values[0.05, 3e-3, "quantile"]["reason"]
    best = by_values[0.05, 3e-3, "point"]
    assert found["best"] == best["id"] == found["trials"][0]["id"]
    row = max(read_history(folder / "trials" / best["id"]), key=lambda row: row["val_r2"])
    assert best["val_r2"] == row["val_r2"]
    assert best["composite"] == pytest.approx(row["val_loss"] - 2 * row["val_r2"])
    config = load_config(folder / "best.json")
    assert (config.experiment_name, config.training.learning_rate) == ("tried_best", 3e-3)
    page = (folder / "report.html").read_text()
    assert "<svg" in page
    assert "What collapsed or failed" in page
    assert (folder / "plots" / "parallel.png").is_file()
