"""Recipes and averages that are chosen by leaving out each training flight in turn, and the intervals that follow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.run_folder import read_model, read_run
from cloudml_tf.data.named import samples_of_run
from cloudml_tf.data.prepare import prepare
from cloudml_tf.evaluation.flight_intervals import FlightIntervals, fit_flight_intervals
from cloudml_tf.evaluation.selection import in_words, judged, paired
from cloudml_tf.experiments import selection
from cloudml_tf.experiments.run import train
from cloudml_tf.experiments.selection import recipes_of
from cloudml_tf.inference.model import open_record
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, DataError, NotFiniteError

RECIPES = ["as it is", "other"]


def folds(flights: int = 8, size: int = 80, **errors: float) -> dict[str, dict[str, Any]]:
    """Predictions with an own level error on each flight, of the size that is given for each predictor."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(flights):
        random = np.random.default_rng(number)
        target = random.normal(1.0, 0.4, size)
        made = {name: target + random.normal(0, error) + random.normal(0, 0.05, size) for name, error in errors.items()}
        found[f"f{number}"] = {
            "baselines": {
                "target": target,
                "mean": np.asarray(1.0),
                "ridge": made["ridge"],
                "gradient_boosting": made["boosting"],
            },
            "as it is": {"network": made["as_it_is"]},
            "other": {"network": made["other"]},
        }
    return found


def test_the_recipe_with_the_smaller_error_on_flights_left_out_is_taken() -> None:
    found = judged(folds(ridge=0.5, boosting=0.4, as_it_is=0.4, other=0.1), RECIPES, average=False)
    assert (found["recipe"], found["ours"]) == ("other", "other")
    assert "factors" not in found
    assert found["rows"]["other"]["rmse"] < found["rows"]["as it is"]["rmse"]
    assert found["best_baseline"] == "gradient_boosting"
    assert len(found["rows"]["other"]["flights"]) == 8


def test_an_average_of_independent_errors_beats_each_of_them() -> None:
    found = judged(folds(flights=16, ridge=0.3, boosting=0.3, as_it_is=0.3, other=0.9), RECIPES, average=True)
    rows, factors = found["rows"], found["factors"]
    assert found["ours"] == "averaged, as it is"
    assert rows["averaged, as it is"]["rmse"] < 0.9 * min(rows[name]["rmse"] for name in ("as it is", "ridge"))
    assert min(factors.values()) > 0.1
    assert sum(factors.values()) < 1.0  # drawn to the mean of the training
    assert "beats the best baseline" in in_words(found)[0]


def test_a_network_that_is_better_alone_is_not_averaged() -> None:
    found = judged(folds(flights=4, ridge=0.6, boosting=0.6, as_it_is=0.01, other=0.9), RECIPES, average=True)
    alone, averaged = (found["rows"][name]["rmse"] for name in ("as it is", "averaged, as it is"))
    assert (found["ours"] == "as it is") == (alone <= averaged)
    assert ("factors" in found) == (alone > averaged)


def test_where_a_baseline_wins_it_is_said_first_and_in_words() -> None:
    found = judged(folds(ridge=0.02, boosting=0.5, as_it_is=0.8, other=0.9), RECIPES, average=False)
    gap = found["against_best"]
    assert gap["better"] == 0
    assert gap["ci90"][0] > 0
    assert in_words(found)[0].startswith("a baseline wins: on flights left out ridge is better")
    averaged = judged(folds(ridge=0.02, boosting=0.5, as_it_is=0.8, other=0.9), RECIPES, average=True)
    assert averaged["factors"]["ridge"] > 0.9
    assert averaged["factors"]["network"] < 0.05
    assert "in effect a baseline" in in_words(averaged)[-1]


def test_factors_of_a_flight_are_those_of_the_others() -> None:
    """A flight on which the network alone is right cannot lend it a factor there."""
    found = folds(flights=6, ridge=0.01, boosting=0.6, as_it_is=0.9, other=0.9)
    whole = judged(found, RECIPES, average=True)["rows"]["averaged, as it is"]["flights"]["f0"]["rmse"]
    found["f0"]["as it is"]["network"] = found["f0"]["baselines"]["target"].copy()
    again = judged(found, RECIPES, average=True)["rows"]["averaged, as it is"]["flights"]["f0"]["rmse"]
    assert again == pytest.approx(whole, rel=0.2)


def test_a_recipe_without_numbers_is_never_taken() -> None:
    found = folds(ridge=0.3, boosting=0.3, as_it_is=0.1, other=0.4)
    found["f3"]["as it is"]["network"] = np.full(80, np.nan)
    assert judged(found, RECIPES, average=False)["recipe"] == "other"
    assert judged(found, RECIPES, average=True)["recipe"] == "other"
    found["f3"]["other"]["network"] = np.full(80, np.nan)
    with pytest.raises(NotFiniteError, match="the loss of every recipe"):
        judged(found, RECIPES, average=True)


def test_a_flight_of_equal_labels_has_no_r_and_spoils_no_median() -> None:
    found = folds(ridge=0.3, boosting=0.3, as_it_is=0.1, other=0.4)
    found["f0"]["baselines"]["target"] = np.full(80, 1.0)
    row = judged(found, RECIPES, average=False)["rows"]["as it is"]
    assert np.isfinite([row["correlation"], row["worst_r2"]]).all()


def test_pairs_of_flights_give_the_interval_of_student() -> None:
    ours = {"flights": {name: {"rmse": value} for name, value in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True)}}
    theirs = {"flights": {name: {"rmse": value} for name, value in zip("abcd", (2.0, 2.5, 3.0, 5.5), strict=True)}}
    gap = paired(ours, theirs)
    assert gap["mean"] == -0.75
    assert (gap["better"], gap["of"]) == (3, 4)
    np.testing.assert_allclose(gap["ci90"], [-1.5096, 0.0096], atol=1e-3)  # t(0.95, 3) = 2.353; std 0.6455


def test_intervals_cover_flights_that_they_were_not_fitted_to() -> None:
    """Errors grow with the prediction, and each flight has a level of its own."""

    def flight(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        prediction = random.gamma(2.0, 0.5, 150)
        level = random.normal(0, 0.1)
        return prediction + (0.1 + 0.2 * prediction) * (random.normal(size=150) + level), prediction

    fitted = [{f"f{n}": flight(n)[side] for n in range(20)} for side in (0, 1)]
    found = fit_flight_intervals(*fitted)
    assert found is not None
    assert found == FlightIntervals.from_json(found.to_json())
    assert found.slope > 0.05
    covered, width = [], []
    for seed in range(100, 140):
        target, prediction = flight(seed)
        half = found.half_width(prediction, 0.9)
        covered.append(np.mean(np.abs(target - prediction) <= half))
        width.append(half)
    assert 0.86 < np.mean(covered) < 0.96
    assert np.corrcoef(np.concatenate(width), np.concatenate([flight(n)[1] for n in range(100, 140)]))[0, 1] > 0.99
    assert (found.half_width(np.array([1.0]), 0.5) < found.half_width(np.array([1.0]), 0.9)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {}, "split": {"kind": "time_blocks"}}, "split.kind of flights or leave_one_out"),
        ({"selection": {}, "model": {"head": "quantile"}, "loss": {"base": "pinball"}}, "model.head of point"),
        ({"selection": {}, "pretraining": {"enabled": True}}, "pretraining.enabled of false"),
        ({"selection": {"recipes": {"x": {"data.path": "y"}}}}, "'data.path' is none"),
        ({"selection": {"recipes": {n: {} for n in "abc"}}}, "at most 2"),
        ({"selection": {"recipes": {"ridge": {}}}}, "Received: 'ridge'"),
        ({"selection": {"recipes": {"../x": {}}}}, "Received: '../x'"),
    ],
)
def test_what_cannot_be_selected_is_refused(tiny_content: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(tiny_content(**changes))


def test_a_wrong_recipe_is_told_before_anything_is_read(tiny_content: Any) -> None:
    config = parse_config(tiny_content(selection={"recipes": {"wide": {"model.width": [4]}}}))
    with pytest.raises(ConfigError, match=r"selection\.recipes, 'wide': model\.width: unknown key"):
        recipes_of(config)


def test_two_flights_are_too_few(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs 3 or more"):
        train(tiny(selection={}), Console(quiet=True), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()  # bad input leaves nothing


SPLIT = {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]}
SMALL = {"architecture": "single_frame", "widths": [4], "encoder_features": 4, "head_units": 4}


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_training_with_a_selection_from_folds_to_export(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    config = tiny(
        split=SPLIT,
        data={"simulation": {"flight_count": 4}},
        model=SMALL,
        training={"max_epochs": 2},
        selection={},
        output={"export": whole, "report": whole},
    )
    folder, metrics = train(config, Console(), str(tmp_path / "run"))
    found = metrics["selection"]
    assert sorted(found["rows"]["as it is"]["flights"]) == ["sim01", "sim02", "sim03"]
    assert metrics["training"]["best_epoch"] == 2  # the last, whatever the validation flight says
    shown = capsys.readouterr().out
    assert "training flights left out in turn" in shown
    assert in_words(found)[0] in shown
    assert not whole or "flights left out in turn" in (folder / "report.html").read_text()
    # The run and its export answer alike, with intervals, as the average of network and regressions.
    used, description = read_run(folder)
    assert used.selection is None
    assert used.training.keep == "last"
    predictions = np.load(folder / "predictions.npz")["test_prediction"]
    samples = samples_of_run(used, description, "test")
    for source in (folder, *([Path(metrics["export"]["folder"])] if whole else [])):
        model = open_record(read_model(source))
        values = model.predict(samples)
        np.testing.assert_allclose(values["value"], predictions, atol=1e-4)
        assert (values["lower"] < values["value"]).all()
        assert model.interval == "of the errors on 3 training flights, each left out"
    assert metrics["coverage"]["test"]["optical_depth"]["n"] == len(samples)
    # What is finished is not fitted again.
    monkeypatch.setattr(selection, "left_out_by_network", lambda *_: pytest.fail("fitted again"))
    chosen = selection.choose(config, prepare(config), folder, Console(quiet=True))
    np.testing.assert_equal(chosen.summary, found)  # the mean has no correlation
    assert chosen.config == used
