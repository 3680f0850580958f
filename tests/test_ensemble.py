"""An ensemble of runs: what it answers, writes and refuses, and that its export answers the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import TINY, merged

from cloudml_tf.commands.ensemble import EnsembleOptions
from cloudml_tf.commands.main import main
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation.comparison import read_finished
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.inference.ensemble import calibration, flights
from cloudml_tf.inference.ensemble.combination import Combination, choose_scale
from cloudml_tf.inference.ensemble.members import load_networks, outputs
from cloudml_tf.inference.export.formats import open_export
from cloudml_tf.inference.heads import MemberHead
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.files import write_json

PARTS = ["metrics.json", "predictions.npz", "report.html", "environment.json", "plots"]


@pytest.fixture(scope="module")
def pair(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of one configuration; sim04 is in no part of it."""
    home = tmp_path_factory.mktemp("pair")
    changes = {
        "data": {"cache": str(cache), "simulation": {"flight_count": 4}},
        "output": {"runs": str(home / "runs"), "savedmodels": str(home / "saved")},
        "training": {"max_epochs": 1},
        "model": {"mirror_average": True},
    }
    write_json(home / "tiny.json", merged(TINY, changes))
    runs = [home / seed for seed in ("1", "2")]
    for run in runs:
        assert main(["train", str(home / "tiny.json"), "--seed", run.name, "--run-dir", str(run)]) == 0
    return runs


@pytest.fixture(scope="module")
def joined(pair: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their ensemble, with report and SavedModel."""
    return combined(pair, tmp_path_factory.mktemp("joined"), ["savedmodel"])


def combined(pair: list[Path], home: Path, formats: list[str]) -> Path:
    """The folder of the runs' ensemble inside of `home`, its export beside it."""
    places = ["output.export=true", "output.report=true", f"output.savedmodels={home}"]
    places.append(f"output.export_formats={json.dumps(formats)}")
    options = [part for place in places for part in ("--set", place)]
    assert main(["ensemble", *map(str, pair), *options, "--run-dir", str(home / "ensemble")]) == 0
    return home / "ensemble"


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def folder_of(run: Path, name: str) -> str:
    """The folder of a flight of the run, or of its neighbour in the same campaign."""
    camera = Path(json.loads((run / "data.json").read_text())["files"]["sim01"]["camera"])
    return str(camera.parent.parent / name)


def test_the_ensemble_is_the_mean_of_its_members(pair: list[Path], joined: Path) -> None:
    arrays, each = np.load(joined / "predictions.npz"), [np.load(run / "predictions.npz") for run in pair]
    members = np.stack([one["test_prediction"] for one in each])
    np.testing.assert_allclose(arrays["test_members"], members, atol=1e-5)
    np.testing.assert_allclose(arrays["test_prediction"], members.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(arrays["test_spread"], members.std(axis=0, ddof=1), atol=1e-5)
    metrics = metrics_of(joined)
    found = scores(each[0]["test_label"], members.mean(axis=0))
    assert metrics["test"]["rmse"] == pytest.approx(found["rmse"], rel=1e-4)
    rmse = [metrics_of(run)["test"]["rmse"] for run in pair]
    assert metrics["mean_member"]["rmse"] == pytest.approx({"mean": np.mean(rmse), "std": np.std(rmse, ddof=1)})
    assert metrics["gain"]["rmse_fall"] == pytest.approx(1 - found["rmse"] / np.mean(rmse), abs=1e-4)


def test_its_folder_and_what_it_says_of_its_intervals(joined: Path) -> None:
    assert {path.name for path in joined.iterdir()} == set(PARTS)
    names = {path.name for path in (joined / "plots").iterdir()}
    assert names >= {"intervals_sim03.png", "coverage.png", "spread_skill.png", "scatter.png"}
    found, arrays = metrics_of(joined)["intervals"], np.load(joined / "predictions.npz")
    inside = (arrays["test_lower"] <= arrays["test_label"]) & (arrays["test_label"] <= arrays["test_upper"])
    assert found["test"]["sim03"]["coverage"] == pytest.approx(inside.mean())
    held = (arrays["calibration_lower"] <= arrays["calibration_label"]) & (
        arrays["calibration_label"] <= arrays["calibration_upper"]
    )
    assert 0.9 <= held.mean() < 0.93  # on the calibration flight itself it is what was asked for
    assert found["calibration"] == {"sim02": len(held)}
    assert found["seen_by_early_stopping"]
    page = (joined / "report.html").read_text()
    assert "early stopping saw them" in page
    assert "one calibration flight cannot show how much flights differ" in page


@pytest.mark.slow
def test_the_export_answers_as_the_report_says(pair: list[Path], tmp_path: Path, capsys) -> None:
    joined = combined(pair, tmp_path, ["savedmodel", "onnx"])
    home = joined.parent / "tiny_ensemble"
    record, arrays = json.loads((home / "cloudml.json").read_text()), np.load(joined / "predictions.npz")
    assert [found["within"] for found in record["parity"]["formats"].values()] == [True] * 2
    card = (home / "model_card.md").read_text()
    assert "It is the mean of 2 networks." in card
    assert "| output `optical_depth_lower` | (n, 1) | none | lower end of the interval |" in card
    assert "90 % intervals" in card
    assert len(record["members"]) == 2
    first = read_finished(pair[0], "first")
    test = flights.read_again(first, first.config, Console(machine=True)).parts["test"]
    for form in record["parity"]["formats"]:
        found = open_export(home, form).outputs(test.inputs())
        for name, key in (("", "prediction"), ("_spread", "spread"), ("_lower", "lower"), ("_upper", "upper")):
            np.testing.assert_allclose(found[f"optical_depth{name}"], arrays[f"test_{key}"], atol=2e-5)
    options = ["--set", "evaluation.baselines=false", "--run-dir", str(tmp_path / "again"), "--json"]
    assert main(["evaluate", str(home), "--flights", folder_of(pair[0], "sim03"), *options]) == 0
    again = json.loads(capsys.readouterr().out)["metrics"]["test"]
    assert again["rmse"] == pytest.approx(metrics_of(joined)["test"]["rmse"], rel=1e-4)


@pytest.mark.slow
def test_calibration_on_further_flights(pair: list[Path], tmp_path: Path, capsys) -> None:
    options = [
        "--calibrate",
        folder_of(pair[0], "sim04"),
        folder_of(pair[0], "sim02"),
        "--run-dir",
        str(tmp_path / "e"),
    ]
    assert main(["ensemble", *map(str, pair), *options, "--level", "0.8", "--scale", "constant", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]["intervals"]
    assert list(found["calibration"]) == ["sim02", "sim04"]
    assert list(found["left_out"]) == ["sim02", "sim04"]
    assert (found["level"], found["scale"], found["seen_by_early_stopping"]) == (0.8, "constant", False)
    assert found["words"][0] == "80 % intervals, calibrated on sim02, sim04"
    assert found["test"]["sim03"]["width"] == pytest.approx(2 * found["q"])


@pytest.mark.parametrize("name", ["sim01", "sim03"])
def test_flights_that_members_know_are_refused(pair: list[Path], name: str, capsys) -> None:
    assert main(["ensemble", *map(str, pair), "--calibrate", folder_of(pair[0], name)]) == 2
    assert f"flight {name} is {name}, on which a member was trained or is scored" in capsys.readouterr().err


def test_a_guarantee_from_one_flight_is_refused(pair: list[Path], capsys) -> None:
    assert main(["ensemble", *map(str, pair), "--pooling", "guaranteed"]) == 2
    assert "cannot guarantee 90 % with a finite width" in capsys.readouterr().err


def test_validation_flights_of_the_training_part_calibrate_nothing(pair: list[Path], capsys) -> None:
    first, console = read_finished(pair[0], "first"), Console()
    prepared = flights.read_again(first, first.config, console)
    assert flights.validation_is_unknown([first], prepared, console)
    blocks = replace(prepared, parts={**prepared.parts, "val": prepared.parts["train"]})
    assert not flights.validation_is_unknown([first], blocks, console)
    assert "members were trained on validation examples (sim01)" in capsys.readouterr().out


@pytest.mark.slow
def test_members_may_be_trained_on_different_flights(pair: list[Path], tmp_path: Path, capsys) -> None:
    """The first one's validation flight is the other's training: nothing is left to calibrate on."""
    turned = {"split.train": ["sim02"], "split.val": ["sim01"]}
    options = [part for key, value in turned.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    other, folder = tmp_path / "other", tmp_path / "ensemble"
    assert main(["train", str(pair[0].parent / "tiny.json"), "--seed", "3", *options, "--run-dir", str(other)]) == 0
    assert main(["ensemble", str(pair[0]), str(other), "--run-dir", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "trained on validation examples (sim02)" in shown
    assert "no intervals unless --calibrate" in shown
    assert "intervals" not in metrics_of(folder)
    arrays, each = np.load(folder / "predictions.npz"), [np.load(run / "predictions.npz") for run in (pair[0], other)]
    mean = np.mean([one["test_prediction"] for one in each], axis=0)
    np.testing.assert_allclose(arrays["test_prediction"], mean, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "place", "value", "text"),
    [
        ("config.json", ("temporal_frames",), 5, "temporal_frames is 3 and 5"),
        ("config.json", ("target", "maximum"), 1.5, "target.maximum is 2.0 and 1.5"),
        ("data.json", ("split", "test", "flights"), ["sim04"], "test_flights is ['sim03'] and ['sim04']"),
        ("data.json", ("frame_shape",), [12, 12, 2], "frame_shape is [12, 12, 1] and [12, 12, 2]"),
    ],
)
def test_members_that_were_asked_otherwise_are_refused(
    pair: list[Path], tmp_path: Path, capsys, file: str, place: tuple, value, text: str
) -> None:
    other = Path(shutil.copytree(pair[1], tmp_path / "other"))
    content = json.loads((other / file).read_text())
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    write_json(other / file, content)
    assert main(["ensemble", str(pair[0]), str(other)]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_passes_with_dropout(pair: list[Path]) -> None:
    """They differ, and return for the same seed; mirror images are seen by turns."""
    first = read_finished(pair[0], "first")
    test = flights.read_again(first, first.config, Console(machine=True)).parts["test"].take(np.arange(8))
    found = [np.stack(outputs(load_networks([first], seed), test, 4))[..., 0] for seed in (1, 1, 2)]
    assert found[0].shape == (4, 8)
    assert (found[0].std(axis=0) > 0).all()
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    still = np.stack(outputs(load_networks([first], 1), test))[0, :, 0]
    np.testing.assert_allclose(found[0].mean(axis=0), still, atol=4 * found[0].std(axis=0).max())


def test_one_run_with_dropout_is_an_ensemble_without_export(pair: list[Path], tmp_path: Path, capsys) -> None:
    options = ["--mc-dropout", "3", "--set", "output.export=true", "--run-dir", str(tmp_path / "e")]
    assert main(["ensemble", str(pair[0]), *options]) == 0
    metrics = metrics_of(tmp_path / "e")
    assert metrics["passes"] == 3
    assert "export" not in metrics
    assert "no export: passes with dropout" in capsys.readouterr().out
    assert np.load(tmp_path / "e" / "predictions.npz")["test_members"].shape[0] == 3


@pytest.mark.slow
def test_an_ensemble_without_export_says_how_it_is_exported(pair: list[Path], tmp_path: Path, capsys) -> None:
    assert main(["ensemble", *map(str, pair), "--run-dir", str(tmp_path / "e")]) == 0
    assert "export" not in metrics_of(tmp_path / "e")
    again = f"cloudml ensemble {pair[0]} {pair[1]} --set output.export=true"
    assert f"no export: output.export is false, as in the first member's configuration. To export: {again}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"folders": (Path("a"),)}, "two runs or more"),
        ({"folders": (Path("a"),), "passes": 1}, "2 passes or more"),
        ({"folders": (Path("a"), Path("b")), "level": 90}, "a share between 0 and 1"),
    ],
)
def test_wishes_that_make_no_sense(arguments: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        EnsembleOptions(**arguments)


def test_what_widths_follow() -> None:
    point, head = MemberHead(0.0, 1.0), MemberHead(0.0, 1.0, "quantile")
    assert choose_scale("auto", [point, point], 2) == "spread"
    assert choose_scale("auto", [head, head], 2) == "head"
    assert choose_scale("spread", [head, head], 2) == "spread"
    with pytest.raises(ConfigError, match="quantile or histogram head"):
        choose_scale("head", [point, head], 2)


LOG = TargetScaling(mean=-0.5, std=0.8, log=True, smearing=1.1)
PLAIN = TargetScaling(mean=1.0, std=0.5, log=False)


@pytest.mark.parametrize("target", [PLAIN, LOG])
@pytest.mark.parametrize(
    ("head", "scale"), [("point", "spread"), ("point", "constant"), ("quantile", "head"), ("histogram", "head")]
)
def test_keras_and_numpy_combine_alike_in_physical_units(target: TargetScaling, head: str, scale) -> None:
    rng = np.random.default_rng(5)
    columns = np.sort(rng.normal(size=(3, 20, 9)), axis=-1)
    shares = np.exp(columns) / np.exp(columns).sum(axis=-1, keepdims=True)
    more = {"point": columns[..., :0], "quantile": columns, "histogram": shares}[head]
    given = [
        np.concatenate([c.mean(-1, keepdims=True), m], -1).astype("float32") for c, m in zip(columns, more, strict=True)
    ]
    voices = tuple(MemberHead(target.mean + 0.1 * i, target.std, head, (-4.0, 4.0)) for i in range(3))
    combination = Combination(voices, target, 0.9, scale, floor=0.05, q=0.4)
    ours = combination.answer(given)
    theirs = combination.answer([keras.ops.convert_to_tensor(one) for one in given], keras.ops)
    for key in ("mean", "spread", "lower", "upper"):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(theirs[key]), ours[key], rtol=2e-4, err_msg=key)
    assert (ours["lower"] < ours["upper"]).all()
    members = np.stack([one[:, 0] * v.std + v.mean for one, v in zip(given, voices, strict=True)])
    np.testing.assert_allclose(ours["mean"], target.physical((members.mean(0) - target.mean) / target.std), rtol=1e-5)


def test_smearing_moves_the_answer_and_not_the_ends_of_its_interval() -> None:
    outputs = [np.array([[0.1], [0.4]]), np.array([[0.2], [0.3]])]
    plain, smeared = (
        Combination((MemberHead(0.5, 2.0),) * 2, TargetScaling(0.5, 2.0, True, factor), 0.9, "constant", q=0.3).answer(
            outputs
        )
        for factor in (1.0, 1.2)
    )
    np.testing.assert_allclose(smeared["mean"], 1.2 * plain["mean"])
    np.testing.assert_array_equal(smeared["lower"], plain["lower"])
    np.testing.assert_array_equal(smeared["upper"], plain["upper"])


def test_words_say_plainly_where_intervals_fail() -> None:
    each = {"a": {"coverage": 0.71}, "b": {"coverage": 0.91}, "c": {"coverage": 0.99}}
    found = {"level": 0.9, "calibration": {"v": 5, "w": 6}, "left_out": {"v": 0.8}, "seen_by_early_stopping": False}
    words = calibration.in_words({**found, "test": each, "mean": {"coverage": 0.87}})["words"]
    assert words == [
        "90 % intervals, calibrated on v, w",
        "calibrated without v, they would cover 80 % of it",
        "90 % intervals cover 71 % of flight a: they fail there",
        "90 % intervals cover 91 % of flight b",
        "90 % intervals cover 99 % of flight c: they are wider than necessary",
        "on average over 3 flights they cover 87 %",
    ]
