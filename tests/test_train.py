"""The main job, end to end, on real files: what it writes, that it repeats itself, and that it goes on after a stop."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import TINY, WHOLE, merged

from cloudml_tf.commands.main import main
from cloudml_tf.config.run_folder import read_history
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.experiments.run import train
from cloudml_tf.train import callbacks, network
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_COLLAPSED, EXIT_NOT_FINITE, RunError

SCORES = {"r2", "variance_ratio", "correlation", "bias", "pred_spread", "pred_std", "target_std", "mae", "rmse"}
SCORES |= {"r2_ceiling", "spread_cost", "n", "n_eff", "ci95"}


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_the_run_folder_describes_itself(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert names >= {
        "config.json", "environment.json", "data.json", "history.csv", "metrics.json", "report.html",
        "best.weights.h5", "last.weights.h5", "checkpoint.npz", "predictions.npz", "plots",
    }  # fmt: skip
    assert {p.name for p in (finished / "plots").iterdir()} >= {
        "curves_r2.png", "scatter.png", "distribution_best_epoch.png", "flights_r2.png", "taylor.png",
        "time_series_1.png", "worst_1.png",
    }  # fmt: skip
    assert not list(finished.rglob(".writing-*"))
    assert json.loads((finished / "environment.json").read_text())["packages"]["keras"].startswith("3.")
    with open(finished / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert float(rows[-1]["val_r2"]) == read_history(finished)[-1]["val_r2"]
    assert {"loss", "val_loss", "val_variance_ratio", "val_correlation", "val_bias", "learning_rate"} <= set(rows[0])


def test_metrics_have_every_key_in_both_spaces(finished: Path) -> None:
    metrics = metrics_of(finished)
    parts = [metrics[p] for p in ("train", "val", "test")]
    parts += [metrics["baselines"][b][p] for b in ("mean", "ridge", "gradient_boosting") for p in ("val", "test")]
    for part in parts:
        assert set(part) >= SCORES
        assert set(part["physical"]) >= SCORES
        assert set(part["ci95"]) == {"r2", "rmse", "variance_ratio"}
    assert {"name", "failed"} <= set(metrics["tier"])
    assert {"passed", "failed"} <= set(metrics["phase3"])
    assert metrics["oracle"]["test"]["r2"] > 0.9


def test_metrics_predictions_and_log_are_the_same_numbers(finished: Path) -> None:
    metrics = metrics_of(finished)
    arrays = np.load(finished / "predictions.npz")
    again = scores(arrays["test_label"], arrays["test_prediction"])
    assert metrics["test"]["r2"] == pytest.approx(again["r2"], abs=1e-9)
    best = max(read_history(finished), key=lambda row: row["val_r2"])
    assert metrics["val"]["r2"] == pytest.approx(best["val_r2"], abs=1e-5)
    assert metrics["val"]["variance_ratio"] == pytest.approx(best["val_variance_ratio"], abs=1e-5)
    assert metrics["training"]["best_epoch"] == best["epoch"]


def test_the_split_is_recorded_and_the_scaling_is_that_of_training(finished: Path) -> None:
    data = json.loads((finished / "data.json").read_text())
    assert [data["split"][p]["flights"] for p in ("train", "val", "test")] == [["sim01"], ["sim02"], ["sim03"]]
    label = np.load(finished / "predictions.npz")["train_label"]
    assert data["scaling"]["target"]["mean"] == pytest.approx(label.mean())
    assert data["scaling"]["target"]["std"] == pytest.approx(label.std())


def variables(run: Path) -> dict[str, np.ndarray]:
    """All that a checkpoint holds but for the time that it took."""
    with np.load(run / "checkpoint.npz") as file:
        arrays = {name: file[name] for name in file.files}
    content = json.loads(bytes(arrays.pop("_json")))
    assert content.pop("seconds") > 0
    return arrays | {"_json": np.asarray(json.dumps(content))}


def same(first: Path, second: Path) -> None:
    a, b = variables(first), variables(second)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert (first / "history.csv").read_text() == (second / "history.csv").read_text()


class Stop(Exception):
    pass


@pytest.mark.no_cover
def test_equal_seeds_give_equal_runs_and_a_resumed_run_is_the_uninterrupted_one(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"max_epochs": 4, "ema_momentum": 0.9}
    augmentation = {"gain_std": 0.05, "noise_std": 0.1, "mirror_along_track": True}
    config = tiny(training=more, augmentation=augmentation, overweight={"factor": 1.5})
    console = Console()
    train(config, console, str(tmp_path / "a"))
    monkeypatch.setattr(callbacks.LastWeights, "on_epoch_begin", _stop_at(2), raising=False)
    with pytest.raises(Stop):
        train(config, console, str(tmp_path / "b"))
    monkeypatch.undo()
    assert not (tmp_path / "b" / "metrics.json").exists()
    train(config, console, str(tmp_path / "b"), resume=True)
    same(tmp_path / "a", tmp_path / "b")
    assert metrics_of(tmp_path / "a")["test"] == metrics_of(tmp_path / "b")["test"]
    assert (tmp_path / "a" / "best.weights.h5").stat().st_size > 0


def _stop(*_: object) -> None:
    raise Stop


def _stop_at(wanted: int):
    def on_epoch_begin(self: keras.callbacks.Callback, epoch: int, logs: dict | None = None) -> None:
        if epoch == wanted:
            raise Stop

    return on_epoch_begin


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_was_judged_ends_as_it_had_ended(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it had collapsed: the verdict is in the checkpoint."""
    collapsing = {"learning_rate": 1e-9, "collapse_grace_epochs": 1, "max_epochs": 5}
    config = tiny(loss={"weight": 0}, model={"output_init": 1e-6}, training=collapsing)
    with monkeypatch.context() as patch:
        patch.setattr(network, "predict", _stop)
        with pytest.raises(Stop):
            train(config, Console(), str(tmp_path / "run"))
    _, metrics = train(config, Console(), str(tmp_path / "run"), resume=True)
    assert metrics["training"]["collapsed"]
    assert "Variance collapse" in metrics["training"]["ending"]


@pytest.mark.slow
def test_another_seed_gives_another_run(tiny, finished: Path, tmp_path: Path) -> None:
    _, metrics = train(tiny(seed=4), Console(), str(tmp_path / "4"))
    assert metrics["test"]["r2"] != metrics_of(finished)["test"]["r2"]


def test_resuming_with_another_configuration_is_refused(tiny, finished: Path, tiny_content) -> None:
    config = tiny(**WHOLE, training={"learning_rate": 0.1})
    with pytest.raises(RunError, match=r"training\.learning_rate was 0\.003, is 0\.1"):
        train(config, Console(), str(finished), resume=True)


def test_resuming_where_there_is_nothing_says_so(tiny_file, capsys) -> None:
    assert main(["train", str(tiny_file()), "--resume"]) == 2
    assert "no interrupted run to resume" in capsys.readouterr().err


def test_a_finished_run_folder_is_not_overwritten(tiny_file, finished: Path, capsys) -> None:
    assert main(["train", str(tiny_file()), "--run-dir", str(finished)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.no_cover
def test_a_collapse_has_its_own_exit_code_and_leaves_a_report(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(
        loss={"weight": 0},
        model={"output_init": 1e-6},
        training={"learning_rate": 1e-9, "collapse_grace_epochs": 1, "max_epochs": 5},
        output={"report": True},
    )
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == EXIT_COLLAPSED
    out = capsys.readouterr().out
    assert "Variance collapse: at epoch 2" in out
    assert "warning: loss.weight 0" in out
    assert metrics_of(tmp_path / "run")["training"]["collapsed"]
    assert "diagnosis: collapse" in out
    assert metrics_of(tmp_path / "run")["diagnosis"]["verdict"] == "collapse"
    assert "--set model.output_init=default" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.no_cover
def test_a_loss_that_is_no_number_has_its_own_exit_code(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(
        training={"learning_rate": 10, "gradient_clip_norm": None, "warmup_epochs": 0},
        augmentation={"gain_std": 0.5},
        model={"output_init": 1e30},
    )
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == EXIT_NOT_FINITE
    assert "The loss became" in capsys.readouterr().err


@pytest.fixture(scope="module")
def program(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run that `python -m cloudml_tf.train` has trained for two epochs, and what the program said."""
    home = tmp_path_factory.mktemp("program")
    content = merged(TINY, {"data": {"cache": str(cache)}, "training": {"max_epochs": 2}})
    (home / "tiny.json").write_text(json.dumps(content))
    command = [sys.executable, "-m", "cloudml_tf.train", str(home / "tiny.json"), "--run-dir", str(home / "run")]
    return home / "run", subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_the_table_of_epochs_ends_with_the_epoch_that_was_kept(program) -> None:
    run, done = program
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.endswith("left"))
    head, *rows = lines[start : start + 4]
    assert head.split() == ["epoch", "loss", "val", "loss", "val", "R²", "s", "r", "bias/std", "rate", "time", "left"]
    assert [row.split()[-2][-1] for row in rows[:2]] == ["s", "s"]
    assert rows[2] == f"all 2 epochs; kept: epoch {metrics_of(run)['training']['best_epoch']}"


@pytest.mark.slow
def test_json_output_is_one_document(tiny_file, tmp_path: Path, capsys) -> None:
    arguments = ["train", str(tiny_file()), "--json", "--seed", "9", "--set", "training.max_epochs=1"]
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == str(tmp_path / "run")
    assert found["metrics"]["seed"] == 9
    assert found["metrics"]["training"]["epochs"] == 1


def test_print_config_resolves_and_runs_nothing(tiny_file, tmp_path: Path, capsys) -> None:
    assert main(["train", str(tiny_file()), "--print-config", "--set", "loss.weight=0.25"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["loss"]["weight"] == 0.25
    assert shown["data"]["simulation"]["preset"] == "default"
    assert not (tmp_path / "runs").exists()


@pytest.mark.no_cover
def test_leave_one_flight_out_joins_the_folds(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(training={"max_epochs": 1}, evaluation={"baselines": True})
    assert main(["train", str(path), "--lofo", "sim01,sim03", "--run-dir", str(tmp_path / "run")]) == 0
    joined = metrics_of(tmp_path / "run")
    assert sorted(joined["folds"]) == ["sim01", "sim03"]
    each = [joined["folds"][f]["test"]["rmse"] for f in joined["folds"]]
    assert joined["network"]["rmse"]["mean"] == pytest.approx(np.mean(each))
    assert joined["network"]["rmse"]["std"] == pytest.approx(np.std(each, ddof=1))
    split = json.loads((tmp_path / "run" / "sim03" / "data.json").read_text())["split"]
    assert (split["test"]["flights"], split["val"]["flights"]) == (["sim03"], ["sim01"])  # the next one, cyclic
    assert "gradient_boosting RMSE" in capsys.readouterr().out
    (tmp_path / "run" / "metrics.json").unlink()
    again = ["train", str(path), "--lofo", "sim01,sim03", "--run-dir", str(tmp_path / "run"), "--resume"]
    assert main(again) == 0  # both folds are finished: read, joined, not trained again
    assert metrics_of(tmp_path / "run") == joined
    assert "epoch" not in capsys.readouterr().out
    assert main(["train", str(path), "--lofo", "sim07"]) == 2
    assert "--lofo names sim07" in capsys.readouterr().err


def test_the_module_runs_as_a_program_without_chatter(program) -> None:
    _, done = program
    assert done.returncode == 0, done.stderr
    assert "tier:" in done.stdout
    assert "oneDNN" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_target_with_smearing_is_a_mean_in_physical_units(tiny, tmp_path: Path) -> None:
    config = tiny(target={"transform": "log", "smearing": True}, training={"max_epochs": 2})
    folder, metrics = train(config, Console(), str(tmp_path / "run"))
    assert metrics["space"] == {"loss": "ln(optical_depth)", "physical": "optical_depth"}
    factor = json.loads((folder / "data.json").read_text())["scaling"]["target"]["smearing"]
    arrays = np.load(folder / "predictions.npz")
    residual = np.log(arrays["val_label"]) - np.log(arrays["val_prediction"] / factor)
    assert factor == pytest.approx(np.mean(np.exp(residual)), rel=1e-6)
    assert metrics["test"]["rmse"] != metrics["test"]["physical"]["rmse"]


@pytest.mark.parametrize(
    "changes",
    [
        {
            "target": {"name": "cloud_base_km"},
            "data": {"sun_angles": False, "features": [{"name": "roll", "file": "navigation", "dataset": "nav/roll"}]},
        },
        pytest.param(
            {
                "preprocessing": {"log_offset": 0.01, "flat_field": True},
                "temporal_frames": 1,
                "model": {"nadir_linear": True, "contrast_boxes": [3], "mirror_average": True},
                "split": {"kind": "time_blocks", "gap_s": 10},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "preprocessing": {"per_frame": True},
                "model": {"architecture": "simple_cnn"},
                "loss": {"target_variance": "batch", "base": "huber", "delta": 0.5},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"training": {"schedule": "constant", "early_stopping_monitor": "composite", "mixed_precision": True}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_variant_trains(tiny, tmp_path: Path, changes: dict) -> None:
    changes = {**changes, "training": {"max_epochs": 1, **changes.get("training", {})}}
    _, metrics = train(tiny(**changes), Console(), str(tmp_path / "run"))
    assert np.isfinite(metrics["test"]["rmse"])
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"model": {"head": "quantile", "quantiles": 5}, "loss": {"base": "pinball"}}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"model": {"head": "histogram", "bins": 12, "mirror_average": True}, "loss": {"base": "cross_entropy"}},
            marks=pytest.mark.slow,
        ),
        {"loss": {"form": "ccc", "schedule": "ramp", "ramp_epochs": [0, 2], "pooled_batches": 3, "clip": 4.0}},
        pytest.param(
            {
                "loss": {"form": "log", "schedule": "gate"},
                "label_density": {"enabled": True},
                "training": {"order": "flight"},
                "model": {"head_dropout": 0.3},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"training": {"run_length": 4, "ema_momentum": 0.9}, "model": {"mirror_average": True}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_way_to_keep_variance_trains_exports_and_resumes(tiny_file, tmp_path: Path, changes: dict) -> None:
    path = tiny_file(**changes)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train", str(path), "--run-dir", str(whole), "--set", "output.export=true"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudml_tf.train.checkpoint.Checkpoint.on_epoch_end", _interrupt_after(2))
        assert main(["train", str(path), "--run-dir", str(cut)]) == 130
    assert main(["train", str(path), "--run-dir", str(cut), "--resume"]) == 0
    assert (cut / "history.csv").read_text() == (whole / "history.csv").read_text()
    header = (whole / "history.csv").read_text().splitlines()[0].split(",")
    assert {"penalty_weight", "output_weight_norm", "output_gradient_norm", "gradient_ratio", "dead_units"} <= {*header}
    assert {"val_r2_ceiling", "val_spread_cost"} <= {*header}
    assert metrics_of(whole)["export"]["parity"] is not None


def _interrupt_after(epochs: int):
    from cloudml_tf.train.checkpoint import Checkpoint

    original = Checkpoint.on_epoch_end

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        original(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    return on_epoch_end


def test_the_warm_up_counts_epochs_or_steps() -> None:
    from cloudml_tf.config.training import Training
    from cloudml_tf.train.network import make_optimizer

    def rates(**settings) -> list[float]:
        optimizer = make_optimizer(Training(learning_rate=1e-2, max_epochs=10, **settings), steps_per_epoch=10)
        return [float(optimizer._learning_rate(step)) for step in (0, 10, 20, 30, 99)]

    assert rates(warmup_epochs=2.0)[:3] == pytest.approx([0.0, 5e-3, 1e-2])
    assert rates(warmup_steps=20) == pytest.approx(rates(warmup_epochs=2.0))
    assert rates(warmup_steps=40, schedule="constant")[-1] == pytest.approx(1e-2)
