"""`cloudml compare`: runs whose predictions are changed on purpose, side by side."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.evaluation.comparison import NO_WINNER, compare
from cloudml_tf.evaluation.scores import scores, tier
from cloudml_tf.reports.comparison import table
from cloudml_tf.utils.errors import RunError

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture
def variant(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function: name, predictions of the test part from labels and rng, changes of config.json -> a run folder."""

    def make(name: str, predict: Predict | None = None, **changes: Any) -> Path:
        run = tmp_path / name
        shutil.copytree(finished, run, ignore=shutil.ignore_patterns("plots", "*.h5", "checkpoint.npz"))
        arrays, metrics = dict(np.load(run / "predictions.npz")), read(run / "metrics.json")
        if predict is not None:
            label = arrays["test_label"]
            arrays["test_prediction"] = predict(label, noise(len(label)))
            metrics["test"] |= scores(label, arrays["test_prediction"])
            metrics["test"]["physical"] |= scores(label, arrays["test_prediction"])
            metrics["tier"] = tier(metrics["test"])
            np.savez_compressed(run / "predictions.npz", **arrays)
            (run / "metrics.json").write_text(json.dumps(metrics))
        config = read(run / "config.json")
        for section, values in changes.items():
            config[section] = {**config[section], **values} if isinstance(values, dict) else values
        (run / "config.json").write_text(json.dumps(config))
        return run

    return make


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(count)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def good(label: np.ndarray, random: np.ndarray) -> np.ndarray:
    return label + 0.2 * label.std() * random


def poor(label: np.ndarray, random: np.ndarray) -> np.ndarray:
    return 0.5 * label.mean() + 0.3 * (label - label.mean()) + 0.2 * label.std() * random[::-1]


def row(found: dict[str, Any], metric: str) -> dict[str, Any]:
    (one,) = [one for one in found["rows"] if one["metric"] == metric]
    return one


def test_every_row_has_its_winner_and_a_clear_lead_is_called_so(variant) -> None:
    found = compare([variant("poor", poor), variant("good", good)])
    assert [one["label"] for one in found["rows"]] == ["R²", "RMSE", "MAE", "bias", "s", "spread", "r"]
    for one in found["rows"]:
        assert (one["winner"], one["leader"], one["runner_up"]) == ("good", "good", "poor")
        assert one["paired"]
        assert one["exceeds_interval"]
        assert one["interval"][0] > 0
    values = row(found, "mae")["values"]
    assert row(found, "mae")["lead"] == pytest.approx(values["poor"] - values["good"])
    values = row(found, "r2")["values"]
    assert row(found, "r2")["lead"] == pytest.approx(values["good"] - values["poor"])
    assert found["tier"] == {"poor": "none", "good": "excellent"}


def test_a_lead_within_its_interval_is_chance_and_names_no_winner(variant) -> None:
    def again(label: np.ndarray, random: np.ndarray) -> np.ndarray:
        return label + 0.2 * label.std() * np.random.default_rng(8).standard_normal(len(label))

    runs = [variant("one", good), variant("other", again)]
    assert any("intervals from so few are too narrow" in text for text in compare(runs)["warnings"])
    found = compare(runs, {"evaluation.block_s": 10.0})
    assert not any("too narrow" in text for text in found["warnings"])
    low, high = row(found, "r2")["interval"]
    assert low < row(found, "r2")["lead"] < high
    assert low < 0
    assert not row(found, "r2")["exceeds_interval"]
    assert row(found, "r2")["winner"] is None
    cells = {line[0]: line for line in table(found)[1]}
    assert cells["R²"][3] == "none"
    assert cells["R²"][4].startswith(f"{row(found, 'r2')['leader']}: 0.")
    assert cells["R²"][4].endswith("] within chance")


def test_a_run_beside_itself_has_no_lead(variant) -> None:
    found = compare([variant("a"), variant("b")])
    for one in found["rows"]:
        assert one["lead"] == 0.0
        assert one["winner"] is None
        assert not one["exceeds_interval"]
    assert found["config_difference"] == {}
    assert not any("differ" in text for text in found["warnings"])


def test_one_block_of_track_is_no_evidence(variant) -> None:
    found = compare([variant("poor", poor), variant("good", good)], {"evaluation.block_s": 100000.0})
    assert {(one["leader"], one["winner"], one["exceeds_interval"]) for one in found["rows"]} == {("good", None, False)}
    assert np.isnan(row(found, "r2")["interval"]).all()


def test_three_runs_are_ranked_and_an_inflated_one_is_named(variant) -> None:
    def inflated(label: np.ndarray, random: np.ndarray) -> np.ndarray:
        return label + 1.5 * label.std() * random

    found = compare([variant("poor", poor), variant("good", good), variant("wide", inflated)])
    assert {one["winner"] for one in found["rows"]} == {"good"}  # its spread is nearest to that of the labels
    assert list(found["inflated"]) == ["wide"]
    assert found["inflated"]["wide"] > 0.1


def test_the_configuration_is_compared_and_where_results_go_is_not(variant) -> None:
    found = compare([variant("a"), variant("b", loss={"weight": 2.0}, output={"runs": "elsewhere"})])
    assert found["config_difference"] == {"loss.weight": {"a": 0.5, "b": 2.0}}


def test_other_splits_and_other_data_are_warned_about(variant) -> None:
    other = variant("other")
    data = read(other / "data.json")
    data["split"]["train"]["flights"], data["split"]["val"]["flights"] = ["sim02"], ["sim01"]
    (other / "data.json").write_text(json.dumps(data))
    found = compare([variant("first"), other])
    assert any("splits differ: first and other (train: sim01 against sim02" in text for text in found["warnings"])

    moved = variant("moved")
    (moved / "data.json").write_text(json.dumps({**read(moved / "data.json"), "fingerprint": "0"}))
    found = compare([variant("last"), moved])
    assert any("data differ: last and moved" in text for text in found["warnings"])


def test_other_test_samples_are_drawn_independently(variant) -> None:
    other = variant("other", poor)
    arrays = dict(np.load(other / "predictions.npz"))
    arrays["test_time_s"] = arrays["test_time_s"] + 0.5
    np.savez_compressed(other / "predictions.npz", **arrays)
    found = compare([variant("first", good), other])
    assert not row(found, "r2")["paired"]
    assert row(found, "r2")["winner"] == "first"


def test_runs_of_other_test_flights_have_no_winner(variant) -> None:
    other = variant("other", poor)
    data = read(other / "data.json")
    data["split"]["test"]["flights"] = ["sim09"]
    (other / "data.json").write_text(json.dumps(data))
    found = compare([variant("first", good), variant("second", good), other])
    assert all(one["winner"] is None and "lead" not in one for one in found["rows"])
    assert [text for text in found["warnings"] if "no winner" in text] == [NO_WINNER]
    assert all(cells[-2:] == ["", ""] for cells in table(found)[1])
    assert any("splits differ" in text for text in found["warnings"])


def test_one_document_on_stdout_and_a_page_that_needs_nothing_else(variant, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    runs = [str(variant("poor", poor)), str(variant("good", good, loss={"weight": 1.0}))]
    assert main(["compare", *runs, "--run-dir", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("comparison") == str(out)
    assert found == read(out / "comparison.json")
    page = (out / "compare.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "beyond chance" in page
    assert "loss.weight" in page
    assert 'href="../good/report.html"' in page
    assert page.count("<svg") == len(list((out / "plots").glob("*.png"))) >= 6  # curves, Taylor diagram, scatters
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_table_on_the_terminal_says_who_leads_and_by_what(variant, tmp_path: Path, capsys) -> None:
    runs = [str(variant("poor", poor)), str(variant("good", good, loss={"weight": 1.0}))]
    draws = ["--set", "evaluation.bootstrap_samples=200"]
    assert main(["compare", *runs, "--run-dir", str(tmp_path / "out"), *draws]) == 0
    shown = capsys.readouterr().out
    for text in ("s = std(prediction)/std(label)", "beyond chance", "Tier", "Diagnosis", "Best epoch", "loss.weight"):
        assert text in shown


def test_what_cannot_be_compared_is_refused(variant, tmp_path: Path, capsys) -> None:
    one = variant("one")
    with pytest.raises(RunError, match="two runs or more"):
        compare([one])
    with pytest.raises(RunError, match="is named twice"):
        compare([one, one])
    with pytest.raises(RunError, match=r"config\.json"):
        compare([one, tmp_path])
    with pytest.raises(RunError, match="different quantities"):
        compare([one, variant("base", target={"name": "cloud_base_km"})])
    unfinished = variant("unfinished")
    (unfinished / "metrics.json").unlink()
    with pytest.raises(RunError, match="is not finished"):
        compare([one, unfinished])
    assert main(["compare", str(one), str(variant("two")), "--set", "loss.weight=1"]) == 2
    assert "a comparison is of runs as they were" in capsys.readouterr().err
