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

import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.run_folder import read_history, read_run
from cloudml_tf.experiments.run import read_data
from cloudml_tf.experiments.search.page import height, ticks
from cloudml_tf.experiments.search.results import read_results
from cloudml_tf.experiments.search.settings import Range, load_search
from cloudml_tf.experiments.search.space import declare
from cloudml_tf.experiments.search.workers import role, wait_for_chief
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, RunError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.threads import limit_threads

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
    for key in ("temporal_frames", "loss.weight", "loss.form", "overweight.factor", "model.heads", "model.widths"):
        assert key in search.space
    assert search.content({"model.heads": 2})["model"]["heads"] == 2
    assert search.base["training"]["max_epochs"] == 30  # set by the search, over tier1.json


def test_the_search_of_heights_chooses_frames_and_their_spacing() -> None:
    search = load_search(ROOT / "configs/search_heights.json")
    assert search.warnings() == []
    chosen = {"temporal_frames": 7, "frame_spacing_s": 1.0, "model.architecture": "cost_volume_no_attention"}
    config = parse_config(search.content(chosen))
    assert (config.temporal_frames, config.frame_spacing_s, config.model.sees_heights) == (7, 1.0, True)


@pytest.mark.parametrize(
    ("space", "tuner", "message"),
    [
        ({"model.droput": [0.1]}, None, "unknown key 'model.droput'; did you mean 'model.dropout'"),
        ({"modl.dropout": [0.1]}, None, "unknown key 'modl'; did you mean 'model'"),
        ({"model.dropout": [0.1, 1.5]}, None, r"space 'model.dropout': must be less than 1. Received: 1.5"),
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
        (SPACE, {"kind": "random", "trails": 3}, "unknown key 'tuner.trails'; did you mean 'tuner.trials'"),
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
    with pytest.raises(ConfigError, match="selection chooses by flights left out, and a search by one validation part"):
        load_search(search_file(selection={}))
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
    assert "target.maximum changes what is evaluated" in first
    assert "composite compares losses, and loss.weight changes the loss" in second


def formula_tuner(search: Any, folder: Path) -> Any:
    """The real tuner, with a formula in the place of a training."""
    from cloudml_tf.experiments.search.tuner import SCORES, CloudTuner

    class Formula(CloudTuner):
        trained: list[str] = []  # noqa: RUF012

        def _train(self, trial: Any, folder: Path, values: dict[str, Any]) -> dict[str, Any]:
            score = 0.9 - abs(values["loss.weight"] - 0.3)
            result = dict.fromkeys((*SCORES, "composite"), score)
            result |= {"id": trial.trial_id, "status": "completed", "reason": "", "values": values, "seconds": 0.0}
            if values["loss.weight"] == 0:
                result.update(status="collapsed", reason="planted")
            write_json(folder / "result.json", result)
            self.trained.append(trial.trial_id)
            return result

        def pre_create_trial(self) -> None:
            pass

    return Formula(search, folder)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


KINDS = [
    {"kind": "random", "trials": 5},
    {"kind": "bayesian", "trials": 6, "initial_points": 3},
    {"kind": "hyperband", "max_epochs": 4, "factor": 2},
    {"kind": "grid"},
]
LISTS = {"loss.weight": [0, 0.1, 0.5], "model.heads": [1, 2]}


@pytest.mark.slow
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

    monkeypatch.setattr("cloudml_tf.utils.files.os.replace", dying)
    monkeypatch.setattr("cloudml_tf.utils.files.os.unlink", lambda path: None)  # a killed process tidies nothing up

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
            assert sorted(one.oracle.end_order) == sorted(one.oracle.trials), "a trial ended twice"
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
            assert len(set(values(results))) == len(whole), writes


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
    """One good; one that collapses, by a threshold that no model reaches; one whose loss overflows; impossible ones."""
    good = {"batch_size": 16, "learning_rate": 3e-3, "max_epochs": 2, "gradient_clip_norm": None, "warmup_epochs": 0.0}
    collapsing = {**good, "learning_rate": 1e-6, "collapse_threshold": 0.99999, "collapse_grace_epochs": 0}
    space = {"model.head": ["point", "quantile"], "training": [collapsing, good, {**good, "learning_rate": 10.0}]}
    path = search_file(space, {"kind": "grid"}, loss={"weight": 100.0})
    folder = tmp_path / "out"
    assert main(["search", str(path), "--run-dir", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    trials = sorted(found["trials"], key=lambda result: result["id"])
    assert [trial["status"] for trial in trials] == ["collapsed", "completed", "not finite", *["failed"] * 3]
    collapsed, best, not_finite, impossible = trials[:4]
    assert collapsed["epochs"] == 1
    assert "The loss became" in not_finite["reason"]
    assert "the quantile head needs 'pinball'" in impossible["reason"]
    assert found["best"] == best["id"] == found["trials"][0]["id"]
    rows = read_history(folder / "trials" / best["id"])
    assert best["val_r2"] == max(row["val_r2"] for row in rows)
    assert best["composite"] == pytest.approx(rows[best["best_epoch"] - 1]["val_loss"] - 2 * best["val_r2"])
    page = (folder / "report.html").read_text()
    assert "<svg" in page
    assert "Collapsed or failed trials" in page
    assert (folder / "plots" / "parallel.png").is_file()
    # The best trial's configuration gives the best trial again.
    assert load_config(folder / "best.json").experiment_name == "tried_best"
    quick = ["--set", "evaluation.baselines=false", "--set", "output.export=false", "--set", "output.report=false"]
    assert main(["train", str(folder / "best.json"), "--json", *quick]) == 0
    again = json.loads(capsys.readouterr().out)["metrics"]
    assert again["val"]["r2"] == pytest.approx(best["val_r2"], abs=1e-5)
    # What is finished stays finished, and another search is not mixed into it.
    assert main(["search", str(path), "--run-dir", str(folder), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == found["trials"]
    assert main(["search", str(path), "--run-dir", str(folder)]) == 2
    assert main(["search", str(path), "--run-dir", str(folder), "--resume", "--set", "model.dropout=0.3"]) == 2
    assert "base.model.dropout was 0.1, is 0.3" in capsys.readouterr().err


def test_a_search_where_nothing_completes_says_so(search_file, tmp_path: Path, capsys) -> None:
    path = search_file({"model.head": ["quantile"]}, {"kind": "grid"})
    assert main(["search", str(path)]) == 2
    assert "no trial was completed" in capsys.readouterr().err
    (folder,) = (tmp_path / "runs" / "tried").iterdir()
    assert "No trial was completed" in (folder / "report.html").read_text()
    assert not (folder / "best.json").exists()
    assert main(["search", str(path), "--resume"]) == 2
    assert "no interrupted search to resume" in capsys.readouterr().err


def alive(folder: Path) -> list[str]:
    """Processes that work on a search."""
    done = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.slow
def test_workers_end_with_a_killed_search_and_it_resumes(search_file, tmp_path: Path, capsys) -> None:
    path = search_file({"loss.weight": [0, 0.1]}, {"kind": "random", "trials": 2}, training={"max_epochs": 1})
    folder = tmp_path / "shared"
    command = [sys.executable, "-m", "cloudml_tf", "search", str(path), "--run-dir", str(folder), "--workers", "1"]
    search = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not read_results(folder) and time.monotonic() < end:
        assert search.poll() is None
        time.sleep(0.2)
    assert main(["search", str(path), "--run-dir", str(folder), "--resume"]) == 2
    assert "a search is running in this folder" in capsys.readouterr().err
    search.send_signal(signal.SIGKILL)
    search.wait()
    while alive(folder) and time.monotonic() < end:
        time.sleep(0.2)
    assert not alive(folder)
    before = read_results(folder)
    assert before[0]["worker"] == "worker0"
    assert main(["search", str(path), "--run-dir", str(folder), "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(trial["values"]["loss.weight"] for trial in found["trials"]) == [0, 0.1]
    assert all(trial in found["trials"] for trial in before)
    assert not list(folder.rglob(".writing-*"))


def test_the_environment_says_who_is_who(monkeypatch: pytest.MonkeyPatch, search_file, capsys) -> None:
    assert role() == "alone"
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker7")
    with pytest.raises(ConfigError, match="lacks KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT"):
        role()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    assert role() == "worker"
    assert main(["search", str(search_file())]) == 2
    assert "A worker needs --run-dir" in capsys.readouterr().err
    assert main(["search", str(search_file()), "--workers", "2"]) == 2
    assert "unset the KERASTUNER_ variables" in capsys.readouterr().err
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert role() == "chief"


def test_a_worker_waits_for_its_chief_and_leaves_an_ended_search(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Is the chief running"):
        wait_for_chief(tmp_path, Console(quiet=True), patience_s=0)
    (tmp_path / "search_config.json").write_text("{}")
    assert wait_for_chief(tmp_path, Console(quiet=True))
    (tmp_path / "search.json").write_text("{}")
    assert not wait_for_chief(tmp_path, Console(quiet=True))


def test_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", dict(os.environ))
    limit_threads(3)
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == os.environ["OMP_NUM_THREADS"] == "3"


def test_a_trial_goes_on_from_its_own_checkpoint_only(search_file, tmp_path: Path) -> None:
    from cloudml_tf.experiments.search.tuner import begin

    search = load_search(search_file())
    prepared, folder = read_data(search.config(), Console(quiet=True)), tmp_path / "trial"
    assert not begin(folder, search.config(), prepared)
    assert (folder / "config.json").is_file()
    (folder / "checkpoint.npz").touch()
    assert begin(folder, search.config(), prepared)
    assert not begin(folder, search.config({"model.dropout": 0.2}), prepared)
    assert not (folder / "checkpoint.npz").exists()


@pytest.fixture
def warm_started(search_file, finished: Path):
    """A function: space -> (search, hyperparameters) over a base that starts from the finished run, and stays there."""
    import keras_tuner

    def make(space: dict[str, Any]) -> tuple[Any, Any]:
        still = {"init_from": str(finished), "max_epochs": 1, "learning_rate": 1e-7, "warmup_epochs": 0.0}
        search = load_search(search_file(space, {"kind": "grid"}, training=still))
        hp = keras_tuner.HyperParameters()
        declare(hp, search.space)
        return search, hp

    return make


@pytest.mark.slow
def test_a_trial_starts_from_the_weights_of_init_from_as_train_does(warm_started, finished: Path, tmp_path) -> None:
    from cloudml_tf import CloudHyperModel
    from cloudml_tf.experiments.run import train
    from cloudml_tf.train.network import load_regressor

    search, hp = warm_started({"training.weight_decay": [0.0]})
    hypermodel = CloudHyperModel(search)
    built = hypermodel.build(hp).get_weights()
    for mine, theirs in zip(built, load_regressor(finished, *read_run(finished)).get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    found = hypermodel.build_and_fit(hp, tmp_path / "trial", Console(quiet=True))
    changes = {"training.weight_decay": 0.0, "output.export": False, "output.report": False}
    train(search.config(changes), Console(quiet=True), str(tmp_path / "run"))
    assert found["val_r2"] == pytest.approx(read_history(tmp_path / "run")[0]["val_r2"], abs=1e-6)


def test_a_trial_with_another_network_than_init_from_fails_though_its_data_are_there(warm_started, tmp_path) -> None:
    from cloudml_tf import CloudHyperModel

    search, hp = warm_started({"model.dropout": [0.1], "model.contrast_boxes": [[3]]})
    prepared = read_data(search.config(), Console(quiet=True))
    with pytest.raises(RunError, match=r"model.contrast_boxes was \[\], is \[3\]"):
        CloudHyperModel(search, prepared).build(hp)


def test_flights_that_are_not_there_end_a_search_before_it_begins(search_file, tmp_path: Path, capsys) -> None:
    path = search_file(data={"path": str(tmp_path / "none")})
    assert main(["search", str(path), "--run-dir", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--workers", "--threads"])
def test_numbers_of_processes_are_positive(option: str, search_file, capsys) -> None:
    assert main(["search", str(search_file()), option, "0"]) == 2
    assert f"{option} must be 1 or more. Received: 0" in capsys.readouterr().err


def test_values_have_places_on_their_axes() -> None:
    log = Range(min=0.001, max=0.1, sampling="log")
    assert height(log, 0.01) == pytest.approx(0.5)
    assert height((1, "default", None), None, 3) == 1.0
    assert [text for _, text in ticks(log)] == ["0.001", "0.01", "0.1"]
    assert [text for _, text in ticks(((1, 2), "a long name of a value"))] == ["[1, 2]", "a lo…a value"]
