"""A tiny swath model through the command line: trained, resumed, judged, exported, asked; as a user would."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from scene_files import scene_config, write_scenes

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import parse_config
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.evaluation.collect import decades, score_split

pytestmark = pytest.mark.tensorflow("exports a SavedModel")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training in `run`; tests leave it as it is."""
    home = tmp_path_factory.mktemp("swath")
    write_scenes(home / "scenes.h5")
    (home / "config.json").write_text(json.dumps(scene_config(home / "scenes.h5", home)))
    assert main(["train", str(home / "config.json"), "--run-dir", str(home / "run")]) == 0
    return home


def metrics(home: Path, name: str = "run/metrics.json") -> dict:
    return json.loads((home / name).read_text())


def test_the_run_is_judged_over_all_pixels_beside_its_baselines(home) -> None:
    found = metrics(home)
    assert found["test"]["n"] == 2 * 256
    assert found["test"]["n_eff"] == 2
    assert found["space"]["loss"] == "ln(optical_depth + 0.01)"
    assert set(found["baselines"]) == {"mean", "pixel_boosting", "retrieval"}
    assert found["test"]["r2"] > 0.5 > found["baselines"]["mean"]["test"]["r2"]
    saved = np.load(home / "run/predictions.npz")
    label, prediction = saved["test_label"], saved["test_prediction"]
    error = np.log(prediction + 0.01) - np.log(label + 0.01)
    assert found["test"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert found["test"]["physical"]["bias"] == pytest.approx(np.mean(prediction - label), rel=1e-4)
    assert sum(row["n"] for row in found["decades"]["test"]) == 2 * 256
    assert set(found["per_flight"]["test"]) == {"7", "8"}


def test_the_retrieval_is_judged_by_hand(home) -> None:
    saved = np.load(home / "run/predictions.npz")["test_label"]
    error = np.log(0.7 * saved + 0.01) - np.log(saved + 0.01)
    assert metrics(home)["baselines"]["retrieval"]["test"]["rmse"] == pytest.approx(
        np.sqrt(np.mean(error**2)), rel=1e-3
    )


def test_the_report_has_maps_and_curves(home) -> None:
    names = {path.stem for path in (home / "run/plots").glob("*.png")}
    assert {"decades", "scatter", "taylor", "scene_7", "scene_8"} <= names
    page = (home / "run/report.html").read_text()
    assert "The scenes with the largest and with the smallest errors" in page


def test_the_export_answers_as_the_run_does_also_for_scenes_of_another_size(home, capsys) -> None:
    exported = home / "savedmodels/tiny-swath"
    write_scenes(home / "wide.h5", side=20, names=(1, 2), seed=4)
    files = {}
    for name, model in (("run", home / "run"), ("export", exported)):
        files[name] = home / f"{name}.nc"
        assert main(["predict", str(model), str(home / "wide.h5"), "-o", str(files[name])]) == 0
    with xr.open_dataset(files["run"]) as ours, xr.open_dataset(files["export"]) as theirs:
        assert ours.cloud_optical_depth.shape == (2, 20, 20)
        np.testing.assert_allclose(ours.cloud_optical_depth, theirs.cloud_optical_depth, rtol=1e-3, atol=1e-5)
        assert ours.scene.values.tolist() == [1, 2]
        assert ours.attrs["run_id"] == theirs.attrs["run_id"] == "tiny-swath/run"
    card = (exported / "model_card.md").read_text()
    assert "at every pixel" in card
    assert "straight below the aircraft" not in card


@pytest.mark.parametrize("model", [pytest.param("run", marks=pytest.mark.slow), "savedmodels/tiny-swath"])
@pytest.mark.no_cover
def test_an_evaluation_gives_the_scores_of_the_run(home, model, tmp_path) -> None:
    command = ["evaluate", str(home / model), "--flights", "7", "8", "--run-dir", str(tmp_path / "judged")]
    assert main(command) == 0
    found = json.loads((tmp_path / "judged/evaluation.json").read_text())
    for key in ("r2", "rmse", "variance_ratio"):
        assert found["test"][key] == pytest.approx(metrics(home)["test"][key], rel=1e-3)
    ours, theirs = (each["baselines"]["retrieval"]["test"]["rmse"] for each in (found, metrics(home)))
    assert ours == pytest.approx(theirs)


@pytest.mark.slow
def test_a_run_is_exported_again(home, tmp_path) -> None:
    assert main(["export", str(home / "run"), "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/saved_model.pb").is_file()


@pytest.mark.slow
def test_a_resumed_training_ends_as_the_uninterrupted_one(home, tmp_path, monkeypatch) -> None:
    from cloudml_tf.train.checkpoint import Checkpoint

    stopped, whole = tmp_path / "stopped", Checkpoint.on_epoch_end

    def interrupt(self, epoch, logs=None) -> None:
        whole(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    command = ["train", str(home / "config.json"), "--run-dir", str(stopped), "--set", "output.export=false"]
    monkeypatch.setattr(Checkpoint, "on_epoch_end", interrupt)
    assert main(command) == 130
    monkeypatch.setattr(Checkpoint, "on_epoch_end", whole)
    assert main([*command, "--resume"]) == 0
    ours, theirs = (weights(folder / "best.weights.h5") for folder in (stopped, home / "run"))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])


def weights(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_words_that_are_no_scenes_are_refused(home, capsys) -> None:
    assert main(["predict", str(home / "run"), "99"]) == 2
    assert "no scene is called 99" in capsys.readouterr().err
    assert main(["predict", str(home / "run"), "1", str(home / "scenes.h5")]) == 2
    assert "give one file of scenes" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train", "--lofo"], ["pretrain"]])
def test_commands_for_flights_refuse_scenes(home, command, capsys, tmp_path) -> None:
    assert main([command[0], str(home / "config.json"), *command[1:], "--run-dir", str(tmp_path / "x")]) == 2
    assert "scenes" in capsys.readouterr().err


def test_check_looks_at_scenes_and_tries_the_network(home, capsys) -> None:
    assert main(["check", str(home / "config.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"]
    assert set(found["scenes"]) == {str(number) for number in range(1, 9)}
    assert found["scenes"]["7"]["labels"] == 256
    assert found["parts"]["train"] == {"labels": 4 * 256, "n_eff": 4}
    assert found["baselines"]["given"]["pixel_boosting"]["r2"] > 0.5
    assert found["probe"]["samples"] == 4
    assert found["probe"]["r2"] is None or found["probe"]["r2"] > 0.5  # on a busy machine time ends before the steps
    assert main(["check", str(home / "config.json"), "--no-probe"]) == 0
    assert "pixel_boosting" in capsys.readouterr().out.replace(" boosting", "_boosting")


def test_check_names_a_leak_of_scenes(home, tmp_path, capsys) -> None:
    content = write_scenes(tmp_path / "scenes.h5")
    with h5py.File(tmp_path / "scenes.h5", "a") as file:
        for name in ("red", "swir"):
            file[name][6] = content[name][0]
    (tmp_path / "config.json").write_text(json.dumps(scene_config(tmp_path / "scenes.h5", tmp_path)))
    assert main(["check", str(tmp_path / "config.json"), "--no-probe", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in found["findings"] if finding["level"] == "problem"] == ["leak"]


def test_scores_leave_out_pixels_without_a_label_and_draw_whole_scenes(tmp_path) -> None:
    config = parse_config(scene_config(tmp_path / "none.h5", tmp_path))
    label = np.array([[[1.0, 2.0]], [[4.0, 8.0]]])
    weight = np.array([[[1.0, 0.0]], [[1.0, 1.0]]])
    scenes = Scenes(np.zeros((2, 1, 2, 1)), label, weight, ("1", "2"))
    unit = TargetScaling(0.0, 1.0, log=False)
    found = score_split(scenes, np.array([[[2.0, 99.0]], [[4.0, 6.0]]]), unit, config)
    assert found["n"] == 3
    assert found["bias"] == pytest.approx((1 + 0 - 2) / 3)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert found["ci95"]["rmse"] == pytest.approx([1.0, np.sqrt(2)])  # one scene twice, or both


def test_the_bias_of_a_decade_is_of_what_was_predicted_there() -> None:
    unit = TargetScaling(0.0, 1.0, log=False)
    scenes = Scenes(np.zeros((1, 1, 4, 1)), np.array([[[0.5, 3.0, 4.0, 50.0]]]), np.ones((1, 1, 4)), ("1",))
    rows = decades(scenes, np.array([[[0.3, 2.0, 6.0, 40.0]]]), unit)
    assert [(row["from"], row["n"]) for row in rows] == [(0.1, 1), (1.0, 2), (10.0, 1)]
    assert [row["bias"] for row in rows] == pytest.approx([-0.2, 0.5, -10.0])


@pytest.fixture(scope="module")
def other(home) -> Path:
    """A second training of the same configuration, from another seed."""
    command = ["train", str(home / "config.json"), "--run-dir", str(home / "other"), "--seed", "4"]
    assert main([*command, "--set", "output.export=false", "--set", "output.report=false"]) == 0
    return home / "other"


def test_a_training_on_scenes_is_diagnosed(home, capsys) -> None:
    assert metrics(home)["diagnosis"]["verdict"]
    assert main(["diagnose", str(home / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["diagnosis"]["verdict"] == metrics(home)["diagnosis"]["verdict"]


@pytest.mark.slow
def test_runs_on_scenes_are_compared_scene_by_scene(home, other, tmp_path, capsys) -> None:
    assert main(["compare", str(home / "run"), str(other), "--run-dir", str(tmp_path / "compared"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row for row in found["rows"]}
    assert rows["r2"]["values"]["run"] == pytest.approx(metrics(home)["test"]["r2"])
    assert rows["r2"]["values"]["other"] == pytest.approx(metrics(home, "other/metrics.json")["test"]["r2"])
    assert rows["r2"]["paired"]
    lead = abs(rows["r2"]["values"]["run"] - rows["r2"]["values"]["other"])
    assert rows["r2"]["lead"] == pytest.approx(lead, rel=1e-6)
    assert not any("differ" in text for text in found["warnings"])
    assert any(tmp_path.joinpath("compared").glob("*.html"))


@pytest.mark.slow
def test_runs_on_scenes_are_one_ensemble(home, other, tmp_path, capsys) -> None:
    folder = tmp_path / "joined"
    command = ["ensemble", str(home / "run"), str(other), "--run-dir", str(folder)]
    assert main([*command, "--set", f"output.savedmodels={tmp_path / 'models'}"]) == 0
    found, saved = json.loads((folder / "metrics.json").read_text()), np.load(folder / "predictions.npz")
    each = [np.log(np.load(run / "predictions.npz")["test_prediction"] + 0.01) for run in (home / "run", other)]
    joined = np.log(saved["test_prediction"] + 0.01)
    cloudy = np.min(each, axis=0) > np.log(
        0.011
    )  # elsewhere a member's own prediction ends at 0, and the mean does not
    np.testing.assert_allclose(joined[cloudy], np.mean(each, axis=0)[cloudy], atol=1e-4)
    label = np.log(saved["test_label"] + 0.01)
    assert found["test"]["rmse"] == pytest.approx(np.sqrt(np.mean((joined - label) ** 2)), rel=1e-4)
    assert set(found["intervals"]["calibration"]) == {"5", "6"}
    assert 0 < found["intervals"]["mean"]["coverage"] <= 1
    assert saved["test_members"].shape == (2, 2, 16, 16)
    exported = next((tmp_path / "models").iterdir())
    assert main(["predict", str(exported), str(home / "scenes.h5"), "-o", str(tmp_path / "maps.nc")]) == 0
    with xr.open_dataset(tmp_path / "maps.nc") as maps:
        np.testing.assert_allclose(maps.cloud_optical_depth[6:], saved["test_prediction"], rtol=1e-3, atol=1e-4)
        assert (maps.cloud_optical_depth_lower <= maps.cloud_optical_depth_upper).all()
    assert main(["ensemble", str(home / "run"), "--mc-dropout", "4"]) == 2
    assert "normalises each batch by itself" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_trains_networks_of_scenes(home, tmp_path, capsys) -> None:
    search = {
        "experiment_name": "scenes",
        "base": str(home / "config.json"),
        "tuner": {"kind": "grid"},
        "space": {"training.learning_rate": [0.01, 0.003]},
        "set": {"training.max_epochs": 1},
    }
    (tmp_path / "search.json").write_text(json.dumps(search))
    assert main(["search", str(tmp_path / "search.json"), "--run-dir", str(tmp_path / "search"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [trial["status"] for trial in found["trials"]] == ["completed", "completed"]


@pytest.mark.slow
def test_scenes_train_in_bfloat16_and_are_exported_as_onnx_too(home, tmp_path, capsys) -> None:
    config, run = str(home / "config.json"), tmp_path / "run"
    options = {"training.max_epochs": 1, "training.mixed_precision": "true", "evaluation.baselines": "false"}
    options |= {"output.report": "false", "output.savedmodels": tmp_path / "models"}
    options["output.export_formats"] = '["savedmodel","onnx"]'
    words = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    assert main(["train", config, "--run-dir", str(run), *words]) == 0
    parity = metrics(tmp_path)["export"]["parity"]["formats"]
    assert set(parity) == {"savedmodel", "onnx"}
    assert all(found["within"] for found in parity.values())
    assert main(["export", str(run), "--format", "litert", "-o", str(tmp_path / "lite")]) == 2
    assert "LiteRT takes images of one size alone" in capsys.readouterr().err
    assert main(["train", config, "--set", 'output.export_formats=["litert"]', "--run-dir", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()
