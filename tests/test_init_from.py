"""Few labels, and going on from a finished run with them."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.config.data import Data
from cloudml_tf.config.run_folder import check_same, read_history, read_run
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.data.splits import keep_labels
from cloudml_tf.experiments.run import train
from cloudml_tf.train.warm_start import first_model, inherited_weights, put_weights
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, DataError, RunError


@pytest.fixture
def whole(tiny) -> Prepared:
    return prepare(tiny())


def test_labels_are_spread_evenly_in_time(whole: Prepared) -> None:
    few = keep_labels(whole.parts, Data(labels=10), seed=1)
    every, kept = whole.parts["train"], few["train"]
    assert len(kept) == 10
    place = np.searchsorted(every.time_s, kept.time_s)
    np.testing.assert_array_equal(every.label[place], kept.label)
    runs = np.array_split(np.arange(len(every)), 10)  # one in each tenth
    assert all(run[0] <= p <= run[-1] for run, p in zip(runs, place, strict=True))
    assert few["val"] is whole.parts["val"]
    assert few["test"] is whole.parts["test"]


def test_another_seed_draws_others_and_the_same_seed_the_same(whole: Prepared) -> None:
    drawn = [keep_labels(whole.parts, Data(labels=10), seed)["train"].time_s.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_share_and_validation_labels(whole: Prepared) -> None:
    few = keep_labels(whole.parts, Data(labels=0.25, val_labels=7), seed=1)
    assert len(few["train"]) == round(0.25 * len(whole.parts["train"]))
    assert len(few["val"]) == 7


@pytest.mark.parametrize(("labels", "text"), [(5000, "data.labels 5000 is 5000 labels"), (0.001, "is 0 labels")])
def test_too_many_or_too_few_are_refused(whole: Prepared, labels: float, text: str) -> None:
    with pytest.raises(DataError, match=text):
        keep_labels(whole.parts, Data(labels=labels), seed=1)


@pytest.mark.parametrize("labels", [1, 0, 1.5, -0.1, "many"])
def test_labels_are_a_count_or_a_share(tiny, labels) -> None:
    with pytest.raises(ConfigError, match=r"data\.labels"):
        tiny(data={"labels": labels})


def test_scaling_and_fingerprint_follow_the_kept_labels(tiny, whole: Prepared) -> None:
    few = prepare(tiny(data={"labels": 12}))
    assert few.scaling.target.mean == pytest.approx(float(few.parts["train"].label.mean()))
    assert few.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(few.parts["test"].label, whole.parts["test"].label)


@pytest.mark.slow
def test_a_run_goes_on_from_another_with_its_scaling(finished: Path, tiny_file, tmp_path: Path, capsys) -> None:
    """At a learning rate of next to nothing the answers are the old run's, whatever the labels are."""
    path = tiny_file(data={"labels": 12}, model={"dropout": 0.0})
    options = ["--init-from", str(finished), "--set", "training.max_epochs=1", "--run-dir", str(tmp_path / "on")]
    assert main(["train", str(path), *options, "--set", "training.learning_rate=1e-12"]) == 0
    old, new = (json.loads((run / "data.json").read_text()) for run in (finished, tmp_path / "on"))
    assert new["scaling"] == old["scaling"]
    assert new["split"]["train"]["sequences"] == 12
    before, after = (np.load(run / "predictions.npz")["test_prediction"] for run in (finished, tmp_path / "on"))
    np.testing.assert_allclose(after, before, atol=1e-4)
    record = json.loads((tmp_path / "on" / "config.json").read_text())
    assert record["training"]["init_from"] == str(finished.resolve())
    assert (record["training"]["learning_rate"], record["training"]["init_from_rate_factor"]) == (1e-12, 0.3)
    assert main(["export", str(tmp_path / "on"), "--run-dir", str(tmp_path / "model")]) == 0
    shown = capsys.readouterr().out
    assert "warning: the sun is not that of the training: " in shown
    assert "test flight sim03: " in shown


@pytest.mark.slow
def test_it_learns_from_there_at_a_lower_rate_and_resumes(finished: Path, tiny, tmp_path: Path, capsys) -> None:
    start = {"max_epochs": 2, "init_from": str(finished)}
    config = tiny(training=start, data={"labels": 40})
    _, metrics = train(config, Console(machine=True), str(tmp_path / "on"))
    shown = capsys.readouterr().err
    assert f"starts from {finished}, so the learning rate is 0.0009: training.learning_rate 0.003 times" in shown
    assert max(row["learning_rate"] for row in read_history(tmp_path / "on")) <= 0.0009
    before = json.loads((finished / "metrics.json").read_text())
    assert metrics["test"]["rmse"] != before["test"]["rmse"]
    (tmp_path / "on" / "metrics.json").unlink()
    _, again = train(config, Console(machine=True), str(tmp_path / "on"), resume=True)
    assert again["test"] == metrics["test"]
    # An older version multiplied the learning rate of --init-from, and wrote it down so; in JSON it was used in full.
    older = config.model_dump(mode="json")
    del older["training"]["init_from_rate_factor"]
    older["training"]["learning_rate"] = 0.003 * 0.3
    (tmp_path / "on" / "config.json").write_text(json.dumps(older))
    fingerprint = json.loads((tmp_path / "on" / "data.json").read_text())["fingerprint"]
    assert read_run(tmp_path / "on")[0].training.rate == 0.003 * 0.3
    check_same(tmp_path / "on", config, fingerprint)
    with pytest.raises(RunError, match=r"training\.learning_rate was 0\.0009, is 0\.0015"):
        check_same(tmp_path / "on", tiny(training={**start, "init_from_rate_factor": 0.5}), fingerprint)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": {"widths": [6, 10]}}, r"model.widths was \[6, 8\], is \[6, 10\]"),
        ({"temporal_frames": 5}, "temporal_frames was 3, is 5"),
        ({"target": {"transform": "log"}}, "target.transform was 'none', is 'log'"),
        ({"preprocessing": {"log_offset": 0.1}}, "preprocessing.log_offset was None, is 0.1"),
        ({"data": {"camera": {"downsample": 2}}}, r"frame_shape was \[12, 12, 1\], is \[6, 6, 1\]"),
    ],
)
def test_another_network_is_refused_by_its_settings(finished: Path, tiny, changes: dict, text: str) -> None:
    with pytest.raises(RunError, match=text):
        prepare(tiny(training={"init_from": str(finished)}, **changes))


def test_a_test_flight_that_the_old_run_was_trained_on_is_a_leak(finished: Path, tiny) -> None:
    split = {"kind": "flights", "train": ["sim03"], "val": ["sim02"], "test": ["sim01"]}
    with pytest.raises(RunError, match="was trained on sim01, which the new run would be tested on: a leak"):
        prepare(tiny(training={"init_from": str(finished)}, split=split))


def test_what_is_no_run_is_refused(tiny, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        prepare(tiny(training={"init_from": str(tmp_path / "nothing")}))


def test_weights_that_do_not_fit_are_refused(finished: Path, tiny) -> None:
    config = tiny(training={"init_from": str(finished)})
    model = first_model(config, prepare(config))
    weights = inherited_weights(config)
    for variable, values in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.numpy()), values)
    with pytest.raises(RunError, match=r"do not fit this network's"):
        put_weights(model, [values.T for values in weights], config)
