"""Weights & Biases, without an account: offline it writes, disabled it does not, and it never stops a training."""

import json
import struct
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, merged
from PIL import Image
from tensorboard.util import tensor_util

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.run_folder import read_history
from cloudml_tf.experiments.run import train
from cloudml_tf.train.tracking import Tracker, tracked_keys
from cloudml_tf.utils.console import Console


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
    with closing(Tracker(tiny(tracking={"wandb": "disabled"}), tmp_path)) as track:
        assert track.callbacks() == []
    assert not list(tmp_path.iterdir())


BLOCK = 32_768  # a .wandb file is a LevelDB log behind a header of 7 bytes


def records(folder: Path) -> list[Any]:
    """What wandb wrote to disk, record by record. Its own process may still be writing when a run has ended."""
    deadline = time.monotonic() + 30
    while not (found := written_so_far(folder)) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, "wandb did not end the file"
        time.sleep(0.1)
    return found


def written_so_far(folder: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    content, place, found, pieces = path.read_bytes(), 7, [], b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # too little for a header: the rest of the block is empty
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(wandb_internal_pb2.Record.FromString(pieces))
            pieces = b""
    return found


@pytest.fixture(scope="module", params=["offline", pytest.param("online", marks=pytest.mark.slow)])
def tracked(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that wandb, without an account, and TensorBoard with a profile have followed; tests leave it as it is."""
    home = tmp_path_factory.mktemp("tracked")
    changes = {
        "data": {"cache": str(cache)},
        "tracking": {"wandb": request.param, "tensorboard": True, "profile_steps": 2},
        "training": {"max_epochs": 2},
        "output": {"runs": str(home), "savedmodels": str(home / "savedmodels"), "report": True, "export": True},
    }
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wandb warns about its own parts; what it wrote is what is checked
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("HOME", str(home))
        return train(parse_config(merged(TINY, changes)), Console(), str(home / "run"))[0]


def test_without_an_account_a_run_is_written_to_disk(tracked: Path) -> None:
    folder, metrics = tracked, json.loads((tracked / "metrics.json").read_text())
    written = records(folder)

    (started,) = (r.run for r in written if r.WhichOneof("record_type") == "run")
    assert json.loads((folder / "tracking.json").read_text())["wandb_id"] == started.run_id
    assert {"experiment_name", "loss", "training"} <= {u.key for u in started.config.update}
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in r.history.item}
        for r in written
        if r.WhichOneof("record_type") == "history"
    ]
    history = read_history(folder)
    assert [row["val/r2"] for row in rows if "val/r2" in row] == pytest.approx([row["val_r2"] for row in history])
    assert {"val/pred_std", "val/pred_range", "val/variance_ratio", "train/loss"} <= set(rows[0])
    shown = {key for row in rows for key in row if key.startswith("pictures/")}
    assert shown == {f"pictures/{path.stem}" for path in (folder / "plots").glob("*.png")}
    assert len(shown) > 3
    summary = {u.key: u.value_json for r in written for u in r.summary.update}
    assert json.loads(summary["best/test/r2"]) == pytest.approx(metrics["test"]["r2"])
    assert json.loads(summary["tier"]) == metrics["tier"]["name"]
    (artefact,) = (r.artifact for r in written if r.WhichOneof("record_type") == "artifact")
    assert artefact.type == "model"
    held = {entry.path for entry in artefact.manifest.contents}
    assert "saved_model.pb" in held


def test_a_tracker_that_cannot_start_is_a_warning(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def broken(**_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(wandb, "init", broken)
    with (
        pytest.warns(UserWarning, match="wandb could not start, this run is not tracked: no room"),
        closing(Tracker(tiny(tracking={"wandb": "offline"}), tmp_path)) as track,
    ):
        assert track.callbacks() == []


def test_a_picture_that_tensorboard_cannot_take_is_a_warning(tiny, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "cut_off.png").write_bytes(b"no picture")
    with closing(Tracker(tiny(tracking={"tensorboard": True}), tmp_path)) as track:
        track.callbacks()
        with pytest.warns(UserWarning, match="TensorBoard failed, this run is not fully tracked"):
            track.results({"training": {"epochs": 1}}, None)


def test_tensorboard_has_the_numbers_of_the_history(tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(tracking={"tensorboard": True}, training={"max_epochs": 2})
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


def test_tensorboard_has_the_pictures_and_a_profile(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tracked
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    drawn = sorted((folder / "plots").glob("*.png"))
    assert drawn
    for path in drawn:
        (event,) = events.Tensors(f"pictures/{path.stem}")
        width, height, png = tensor_util.make_ndarray(event.tensor_proto)
        assert png.startswith(b"\x89PNG")
        with Image.open(path) as picture:
            assert (int(width), int(height)) == picture.size
    assert list((folder / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))
