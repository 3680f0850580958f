"""Weights & Biases, without an account: offline it writes, disabled it does not, and it never stops a training."""

from pathlib import Path

import pytest
from tensorboard.util import tensor_util

from cloudml_tf.console import Console
from cloudml_tf.runs import read_history
from cloudml_tf.tracking import tracked_keys, tracker
from cloudml_tf.train import train

QUICK = {"evaluation": {"baselines": False, "bootstrap_samples": 100}, "output": {"export": False}}


def test_keys_are_the_originals() -> None:
    logs = {"loss": 1.0, "val_loss": 2.0, "val_r2": 0.5, "val_pred_std": 0.4, "val_pred_spread": 1.5}
    assert tracked_keys({**logs, "val_variance_ratio": 0.9}) == {
        "train/loss": 1.0,
        "val/loss": 2.0,
        "val/r2": 0.5,
        "val/pred_std": 0.4,
        "val/pred_range": 1.5,
        "val/variance_ratio": 0.9,
    }


def test_disabled_makes_nothing(tiny, tmp_path: Path) -> None:
    with tracker(tiny(tracking={"wandb": "disabled"}), tmp_path) as callbacks:
        assert callbacks == []
    assert not list(tmp_path.glob("wandb*"))


@pytest.mark.filterwarnings("ignore")  # wandb warns of its own parts; what it wrote is what is judged
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_without_an_account_a_run_is_written_to_disk(
    tiny, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tiny(tracking={"wandb": mode}, training={"max_epochs": 1}, **QUICK)
    folder, _ = train(config, Console(), str(tmp_path / "run"))
    written = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(written) == 1
    content = written[0].read_bytes()
    for key in (b"val/r2", b"val/pred_std", b"val/pred_range", b"val/variance_ratio", b"train/loss"):
        assert key in content


def test_a_tracker_that_cannot_start_is_a_warning(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def broken(**_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(wandb, "init", broken)
    with (
        pytest.warns(UserWarning, match="wandb could not start, this run is not tracked: no room"),
        tracker(tiny(tracking={"wandb": "offline"}), tmp_path) as callbacks,
    ):
        assert callbacks == []


def test_tensorboard_has_the_numbers_of_the_history(tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(tracking={"tensorboard": True}, training={"max_epochs": 2}, output={"export": False, "report": False})
    folder, _ = train(config, Console(), str(tmp_path / "run"))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    history = read_history(folder)
    for key, column in (
        ("val/r2", "val_r2"),
        ("train/gradient_ratio", "gradient_ratio"),
        ("val/pred_range", "val_pred_spread"),
    ):
        seen = [float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(key)]
        assert seen == pytest.approx([row[column] for row in history], rel=1e-6)
    assert [event.step for event in events.Tensors("val/prediction")] == [1]
    assert not (folder / "report.html").exists()
