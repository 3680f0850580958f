"""`cloudml diagnose`: one run for each failure, and healthy ones.

Failures of data and training are really trained, on three short flights. Those that show in the predictions alone are
planted in the predictions of the healthy run, and judged anew.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import TINY, merged

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config, parse_config, parse_overrides
from cloudml_tf.config.simulation import DEFAULT_REGIMES
from cloudml_tf.data.independence import block_ids, effective_size
from cloudml_tf.diagnostics.diagnosis.verdict import print_shortly
from cloudml_tf.evaluation.scores import scores, scores_with_intervals, tier
from cloudml_tf.experiments.run import train
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_COLLAPSED, NotFiniteError

SIGNAL = "Product/Signal"
DAYS = "layer_descriptor/Profile_Decimal_Julian_Day"
LAYERS = [
    f"layer_descriptor/{name}" for name in ("Feature_Optical_Depth_532", "Feature_Type", "Number_Layers", "Opacity")
]
QUICK = {"evaluation": {"baselines": True}}
# One regime and a slow aircraft: what is left to go wrong is what a test plants.
FLIGHTS = {
    "seed": 22,
    "flight_count": 4,
    "frames_per_flight": 300,
    "regimes": [DEFAULT_REGIMES[0].model_dump()],
    "gain_drift": 0.0,
    "ground_speed_m_s": 100.0,
    "lidar_interval_s": 1.0,
}
EPOCHS = {"max_epochs": 8, "batch_size": 32}
SPLIT = {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]}
SMALL = merged(merged(TINY, QUICK), {"data": {"simulation": FLIGHTS}, "split": SPLIT, "seed": 1, "training": EPOCHS})
Predict = Callable[[str, np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def start(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function: changes -> the folder of a run that was trained with them, finished or not."""

    def make(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("run") / "run"
        content = merged(merged(SMALL, {"data": {"cache": str(cache)}}), changes)
        try:
            train(parse_config(content), Console(machine=True), str(folder))
        except NotFiniteError:
            assert not (folder / "metrics.json").exists()
        return folder

    return make


@pytest.fixture(scope="module")
def healthy(start: Callable[..., Path]) -> Path:
    """A healthy run; tests read it and leave it as it is."""
    return start()


def planted(healthy: Path, target: Path, predict: Predict, **changes: Any) -> Path:
    """A copy of the run with other predictions, judged anew; `predict` gets the part, labels and predictions."""
    shutil.copytree(healthy, target)
    config = parse_config(merged(read(target / "config.json"), changes))
    (target / "config.json").write_text(config.model_dump_json())
    metrics, arrays = read(target / "metrics.json"), np.load(target / "predictions.npz")
    for part in ("train", "val", "test"):
        time_s, flight, label = (arrays[f"{part}_{name}"] for name in ("time_s", "flight", "label"))
        series = np.unique(flight, return_inverse=True)[1]
        blocks = block_ids(time_s, series, np.zeros_like(series), 60.0)
        prediction = predict(part, label, arrays[f"{part}_prediction"])
        metrics[part] = scored(label, prediction, blocks, series)
        names = {str(name): flight == name for name in np.unique(flight)}
        metrics["per_flight"][part] = {name: scores(label[at], prediction[at]) for name, at in names.items()}
    metrics["tier"] = tier(metrics["test"])
    (target / "metrics.json").write_text(json.dumps(metrics))
    return target


def scored(label: np.ndarray, prediction: np.ndarray, blocks: np.ndarray, series: np.ndarray) -> dict[str, Any]:
    return scores_with_intervals(label, prediction, blocks, effective_size(label, series), 100)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def diagnosed(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """The diagnosis of a run. Whatever it is, its evidence and its overrides have to hold."""
    assert main(["diagnose", str(run), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["diagnosis"]
    assert found["verdict"]
    assert found["summary"]
    for finding in found["findings"]:
        assert finding["evidence"]
        assert finding["remedy"]
        load_config(run / "config.json", parse_overrides(finding["set"]))
    return found


def settings_of(found: dict[str, Any]) -> dict[str, Any]:
    """What the main finding would change."""
    return parse_overrides(found["findings"][0]["set"])


def copied(files: dict[str, str], folder: Path) -> dict[str, str]:
    """The files of a flight, copied."""
    folder.mkdir()
    return {role: shutil.copy(path, folder) for role, path in files.items()}


def noise(like: np.ndarray, std: float) -> np.ndarray:
    return std * like.std() * np.random.default_rng(5).standard_normal(len(like))


def test_a_healthy_run_is_called_healthy_during_training_and_after(healthy: Path, capsys) -> None:
    found = diagnosed(healthy, capsys)
    assert (found["verdict"], found["findings"]) == ("healthy", [])
    assert read(healthy / "metrics.json")["diagnosis"]["verdict"] == "healthy"


@pytest.mark.slow
def test_no_correlation(start: Callable[..., Path], capsys) -> None:
    """A fast aircraft sees more independent clouds: on few, a correlation could not be ruled out."""
    run = start(data={"simulation": {"preset": "no_signal", "ground_speed_m_s": 400.0}}, training={"max_epochs": 3})
    found = diagnosed(run, capsys)
    assert found["verdict"] == "no correlation"
    assert settings_of(found) == {"loss.weight": 0.0}
    assert "Compare the images" in found["findings"][0]["remedy"]
    assert read(run / "metrics.json")["diagnosis"]["verdict"] == "no correlation"


@pytest.mark.slow
def test_collapse_of_a_training_that_was_aborted(cache: Path, tmp_path: Path, capsys) -> None:
    """The training itself says it, with the change to try."""
    collapsing = {
        "loss": {"weight": 0},
        "model": {"output_init": 1e-6},
        "training": {"learning_rate": 1e-9, "collapse_grace_epochs": 1, "max_epochs": 5},
    }
    content = merged(merged(SMALL, {"data": {"cache": str(cache)}}), collapsing)
    (tmp_path / "a.json").write_text(json.dumps(content))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "a.json"), "--run-dir", str(run)]) == EXIT_COLLAPSED
    shown = capsys.readouterr().out
    assert "diagnosis: collapse" in shown
    assert "try: --set loss.weight=1.0 --set model.output_init=default" in shown
    assert read(run / "metrics.json")["diagnosis"]["verdict"] == "collapse"
    found = diagnosed(run, capsys)
    assert found["verdict"] == "collapse"
    assert settings_of(found)["loss.weight"] == 1.0


def test_collapse_far_under_r(healthy: Path, tmp_path: Path, capsys) -> None:
    def shrunk(_: str, __: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        return prediction.mean() + 0.1 * (prediction - prediction.mean())

    found = diagnosed(planted(healthy, tmp_path / "run", shrunk, loss={"weight": 1.0}), capsys)
    assert found["verdict"] == "collapse"
    assert settings_of(found)["loss.weight"] == 2.0


def test_inflation(healthy: Path, tmp_path: Path, capsys) -> None:
    def wide(_: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        both = label + noise(label, 1.6)
        return label.mean() + (both - both.mean()) * label.std() / both.std()

    found = diagnosed(planted(healthy, tmp_path / "run", wide, loss={"weight": 50}), capsys)
    assert found["verdict"] == "inflation"
    assert settings_of(found)["loss.weight"] < 0.5
    assert "which costs" in found["summary"]


def test_a_shift_of_one_flight_is_named_and_ranked(healthy: Path, tmp_path: Path, capsys) -> None:
    """Level and scale alone are wrong: what is advised is not to give up absolute radiance."""

    def shifted(part: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        centred = prediction - prediction.mean()
        wrong = 0.4 * centred + 0.5 * label.std() if part == "test" else centred
        return wrong + label.mean()

    found = diagnosed(planted(healthy, tmp_path / "run", shifted), capsys)
    assert found["verdict"] == "flight shift"
    assert [finding["name"] for finding in found["findings"]] == ["flight shift"]  # no collapse: no λ 1.0
    assert found["summary"].startswith("sim04 (test): R² ")
    assert "bias +0.50 std; r² is" in found["summary"]
    evidence, remedy = found["findings"][0]["evidence"], found["findings"][0]["remedy"]
    assert any(text.startswith("flights by what level and scale cost of R²: sim04 (test) 0.") for text in evidence)
    assert any(text.startswith("labels of sim04: ") for text in evidence)
    assert "cloudml calibrate" in remedy
    assert "unit and scale of its labels" in remedy
    assert "preprocessing.per_frame" not in settings_of(found)


def test_a_small_bias_of_one_flight(healthy: Path, tmp_path: Path, capsys) -> None:
    def shifted(part: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        good = 0.8 * (label + noise(label, 0.5))
        return good - good.mean() + label.mean() + (0.44 * label.std() if part == "test" else 0.0)

    found = diagnosed(planted(healthy, tmp_path / "run", shifted), capsys)
    assert found["verdict"] in ("bias", "flight shift")
    assert "+0.44 std" in found["summary"]
    assert "preprocessing.per_frame" not in settings_of(found)


def test_frozen_frames_are_told_as_check_tells_them(healthy: Path, tmp_path: Path, capsys) -> None:
    def lost(part: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        return np.random.default_rng(4).permutation(prediction) if part == "test" else prediction

    run = planted(healthy, tmp_path / "run", lost)
    data = read(run / "data.json")
    data["files"]["sim04"] = copied(data["files"]["sim04"], tmp_path / "copy")
    with h5py.File(data["files"]["sim04"]["camera"], "r+") as file:
        counts = file[SIGNAL][()]
        counts[60:240] = counts[60]
        file[SIGNAL][...] = counts
    (run / "data.json").write_text(json.dumps(data))
    found = diagnosed(run, capsys)
    assert found["verdict"] == "frozen camera"
    assert "frames repeat the one before; the longest run is 180 frames" in found["summary"]


def test_exchanged_lidar_files_are_named(healthy: Path, tmp_path: Path, capsys) -> None:
    """Two training flights have each other's labels: neither no correlation nor collapse, and no λ."""
    run = tmp_path / "run"
    shutil.copytree(healthy, run)
    data = read(run / "data.json")
    kept = {}
    for name in ("sim01", "sim02"):
        data["files"][name] = copied(data["files"][name], tmp_path / name)
        with h5py.File(data["files"][name]["lidar"]) as file:
            kept[name] = {key: file[key][()] for key in LAYERS}
    for name, other in (("sim01", "sim02"), ("sim02", "sim01")):
        with h5py.File(data["files"][name]["lidar"], "r+") as file:
            for key in LAYERS:
                file[key][...] = kept[other][key]
    (run / "data.json").write_text(json.dumps(data))
    found = diagnosed(run, capsys)
    assert found["verdict"] == "foreign labels"
    assert found["summary"].startswith("labels of sim01 fit the frames of sim02 (r 0.")
    assert settings_of(found) == {}


def test_a_flight_on_which_r_was_lost_is_no_inflation(healthy: Path, tmp_path: Path, capsys) -> None:
    """s exceeds r there by 0.7, because r is gone. Its clock is what a diagnosis of the flight files would look at."""

    def lost(part: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        return np.random.default_rng(4).permutation(prediction) if part == "test" else prediction

    found = diagnosed(planted(healthy, tmp_path / "run", lost), capsys, "--quick")
    assert found["verdict"] == "unclear"
    assert "r is far lower on flight sim04 than on others" in found["summary"]


def test_leak_of_a_flight_under_two_names(healthy: Path, tmp_path: Path, capsys) -> None:
    """Validation is a training flight, a count brighter: a copy byte by byte is refused before any training."""
    run = tmp_path / "run"
    shutil.copytree(healthy, run)
    data = read(run / "data.json")
    data["files"]["sim03"] = copied(data["files"]["sim01"], tmp_path / "copy")
    with h5py.File(data["files"]["sim03"]["camera"], "r+") as file:
        counts = file[SIGNAL][()]
        file[SIGNAL][...] = counts + (counts > 0).astype(counts.dtype)
    (run / "data.json").write_text(json.dumps(data))
    found = diagnosed(run, capsys)
    assert found["verdict"] == "leak"
    assert "100 % of the val labels are training labels too" in found["summary"]


def test_leak_by_a_flight_that_was_held_out(healthy: Path, tmp_path: Path, capsys) -> None:
    """The run is of time blocks, and far better on their validation than on another flight."""
    run, evaluation = tmp_path / "run", tmp_path / "evaluation"
    split = {"kind": "time_blocks", "gap_s": 5.0}
    planted(healthy, run, lambda part, label, prediction: label + noise(label, 0.3), split=split)
    data = read(run / "data.json")
    for part in data["split"].values():
        part["flights"] = ["sim01", "sim02", "sim03", "sim04"]
    (run / "data.json").write_text(json.dumps(data))
    arrays = np.load(run / "predictions.npz")
    label = arrays["test_label"]
    zeros = np.zeros(len(label), int)
    blocks = block_ids(arrays["test_time_s"], zeros, zeros, 60.0)
    evaluation.mkdir()
    other = scored(label, label + noise(label, 1.5), blocks, zeros)
    (evaluation / "evaluation.json").write_text(json.dumps({"test": other}))
    found = diagnosed(run, capsys, "--evaluation", str(evaluation), "--quick")
    assert found["verdict"] == "leak"
    assert settings_of(found)["split"]["kind"] == "flights"
    assert diagnosed(run, capsys, "--quick")["verdict"] == "healthy"


def test_over_regularised(healthy: Path, tmp_path: Path, capsys) -> None:
    def held_back(_: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        return label.mean() + 0.2 * (label - label.mean()) + noise(label, 0.3)

    stiff = {"model": {"dropout": 0.8}, "overweight": {"factor": 2.0}, "training": {"weight_decay": 2.0}}
    found = diagnosed(planted(healthy, tmp_path / "run", held_back, **stiff), capsys)
    assert found["verdict"] == "over-regularised"
    assert settings_of(found) == {
        "model.dropout": 0.1, "training.weight_decay": 0.0, "overweight.factor": 1.0,
    }  # fmt: skip


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high(start: Callable[..., Path], capsys) -> None:
    found = diagnosed(start(training={"learning_rate": 1.0, "max_epochs": 3}), capsys)
    assert found["verdict"] == "learning rate"
    assert settings_of(found)["training.learning_rate"] == 1e-3


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_a_matter_of_the_learning_rate(start: Callable[..., Path], capsys) -> None:
    wild = {"learning_rate": 10, "gradient_clip_norm": None, "warmup_epochs": 0}
    found = diagnosed(start(training=wild, model={"output_init": 1e30}), capsys, "--quick")
    assert found["verdict"] == "learning rate"
    assert "training.gradient_clip_norm" in settings_of(found)


@pytest.mark.slow
def test_too_few_labels(start: Callable[..., Path], capsys) -> None:
    run = start(data={"simulation": {"lidar_interval_s": 25.0}}, training={"max_epochs": 3, "batch_size": 4})
    found = diagnosed(run, capsys)
    assert found["verdict"] == "too few labels"
    changed = settings_of(found)
    assert (changed["data.lidar.match"], changed["temporal_frames"]) == ("average", 1)


@pytest.mark.parametrize("flights", [("sim01", "sim02", "sim03", "sim04"), ("sim04",)])
def test_bad_clock(healthy: Path, tmp_path: Path, capsys, flights: tuple[str, ...]) -> None:
    """The lidar's times are moved after the training; a diagnosis reads the files."""
    run, data = tmp_path / "run", read(healthy / "data.json")
    shutil.copytree(healthy, run)
    for name in flights:
        data["files"][name] = copied(data["files"][name], tmp_path / name)
        with h5py.File(data["files"][name]["lidar"], "r+") as file:
            file[DAYS][...] += 25.0 / 86400.0
    (run / "data.json").write_text(json.dumps(data))
    found = diagnosed(run, capsys)
    assert found["verdict"] == "bad clock"
    if len(flights) == 4:
        assert settings_of(found)["data.lidar.time_offset_s"] == pytest.approx(-25.0, abs=1.5)
    else:
        assert "flight sim04" in found["summary"]


def test_a_run_that_was_cut_off_is_diagnosed_from_its_history(healthy: Path, tmp_path: Path, capsys) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(healthy, cut)
    for name in ("metrics.json", "predictions.npz"):
        (cut / name).unlink()
    found = diagnosed(cut, capsys, "--quick")
    assert found["verdict"] == "healthy"
    assert "cloudml train --resume" in found["summary"]
    assert any("cut off" in text for text in found["notes"])


def test_a_score_of_few_samples_is_not_called_sick(healthy: Path, tmp_path: Path, capsys) -> None:
    """s exceeds r by 0.2 and the bias is 0.4 std: on a dozen independent samples, chance."""
    run = tmp_path / "run"
    shutil.copytree(healthy, run)
    metrics = read(run / "metrics.json")
    for part in ("val", "test"):
        found = metrics[part]
        s, r, b = found["variance_ratio"], found["correlation"], 0.4
        found |= {"variance_ratio": s + 0.15, "bias": b * found["target_std"], "n": 14, "n_eff": 12.0}
        found["r2"] = r * r - (s + 0.15 - r) ** 2 - b * b
        found["ci95"] = {"r2": [-0.1, 0.9], "variance_ratio": [0.7, 1.6], "rmse": [0.1, 0.6]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert diagnosed(run, capsys, "--quick")["verdict"] == "healthy"


def test_flights_that_are_gone_are_said_and_done_without(healthy: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(healthy, run)
    data = read(run / "data.json")
    data["files"]["sim02"]["lidar"] = str(tmp_path / "gone.hdf5")
    (run / "data.json").write_text(json.dumps(data))
    found = diagnosed(run, capsys)
    assert found["verdict"] == "healthy"
    assert any("were not checked" in text and "gone.hdf5" in text for text in found["notes"])


def test_what_is_printed_names_verdict_evidence_and_the_set_to_try(healthy: Path, tmp_path: Path, capsys) -> None:
    def shrunk(_: str, __: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        return prediction.mean() + 0.1 * (prediction - prediction.mean())

    run, out = planted(healthy, tmp_path / "run", shrunk), tmp_path / "out"
    out.mkdir()
    assert main(["diagnose", str(run), "--quick", "--run-dir", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "diagnosis: collapse" in shown
    assert "try: --set loss.weight=1.0" in shown
    assert read(out / "diagnosis.json")["verdict"] == "collapse"


def test_a_better_baseline_is_said_before_the_verdict(healthy: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(healthy, run)
    metrics = read(run / "metrics.json")
    own = metrics["test"]["r2"]
    better = {**metrics["test"], "r2": own + 0.05}
    metrics["baselines"] = {"ridge": dict.fromkeys(("train", "val", "test"), better)}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert main(["diagnose", str(run), "--quick"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"network below the best baseline: ridge {own + 0.05:.3f}, network {own:.3f} (R²; 95 %")
    assert second.startswith("diagnosis: ")


def test_a_training_ends_with_a_line_for_a_run_without_a_finding(healthy: Path, capsys) -> None:
    print_shortly(Console(), read(healthy / "metrics.json")["diagnosis"], healthy)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("diagnosis: healthy (tier ")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda run: shutil.rmtree(run), "run: no such folder"),
        (lambda run: (run / "data.json").unlink(), "has a configuration but no data.json"),
        (lambda run: (run / "metrics.json").write_text("{"), "is not valid JSON"),
        (lambda run: (run / "metrics.json").write_text('{"folds": {}}'), "holds the folds"),
        (lambda run: (run / "metrics.json").write_text("{}"), "metrics.json: has no train, val, test, tier"),
        (lambda run: (run / "data.json").write_text("[]"), "data.json: has no split"),
        (lambda run: (run / "history.csv").write_text("loss,val_loss\n0.5\n"), "is not a table of numbers"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(healthy: Path, tmp_path: Path, capsys, spoil, text: str) -> None:
    shutil.copytree(healthy, tmp_path / "run")
    spoil(tmp_path / "run")
    assert main(["diagnose", str(tmp_path / "run")]) == 2
    assert text in capsys.readouterr().err


def test_options_that_cannot_be_are_refused(healthy: Path, tmp_path: Path, capsys) -> None:
    assert main(["diagnose", str(healthy), "--set", "loss.weight=2"]) == 2
    assert "a diagnosis is of the run as it was" in capsys.readouterr().err
    assert main(["diagnose", str(healthy), "--evaluation", str(tmp_path)]) == 2
    assert "evaluation.json: cannot be read" in capsys.readouterr().err


def test_what_costs_a_healthy_run_is_noted(healthy: Path, tmp_path: Path, capsys) -> None:
    """A bias of a quarter of a std costs 0.06; a sun that training has not shown is repeated from data.json."""

    def shifted(part: str, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        good = label + noise(label, 0.2)
        return good + 0.25 * label.std() if part == "test" else good

    run = planted(healthy, tmp_path / "shifted", shifted)
    description = read(run / "data.json")
    (run / "data.json").write_text(json.dumps({**description, "sun_outside_training": ["test flight x: zenith 9°"]}))
    found = diagnosed(run, capsys, "--quick")
    assert found["verdict"] == "healthy"
    assert any("test: the bias of +0.2" in text and "std costs 0.0" in text for text in found["notes"])
    assert "a sun outside the training range: test flight x: zenith 9°" in found["notes"]
    assert not any("on validation" in text for text in found["notes"])


def test_a_test_score_far_under_that_of_validation_is_noted(healthy: Path, tmp_path: Path, capsys) -> None:
    run = planted(healthy, tmp_path / "worse", lambda part, t, p: t + noise(t, 0.5 if part == "test" else 0.2))
    notes = diagnosed(run, capsys, "--quick")["notes"]
    assert any("on validation, 0.7" in text and "on test: " in text for text in notes)
