"""Labels along the nadir line: where they are placed, what the loss makes of them, and a whole training."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import parse_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.track import offsets_of, pixels_per_s
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.utils.errors import ConfigError, DataError

TRACK = {"coverage": "track", "track_reach": 4}


def sliding(speed: float, axis: str, step_s: float = 1.0) -> Samples:
    """Forty frames of one smooth scene that moves `speed` pixels a second to lower indices along the track."""
    rng = np.random.default_rng(0)
    scene = np.cumsum(rng.normal(size=(16, 4000)), axis=1)
    scene -= np.linspace(0, 1, 4000) * scene[:, -1:]
    start = 2000 + speed * step_s * np.arange(40)
    places = start[:, None] + np.arange(40)
    frames = np.stack([[np.interp(place, np.arange(4000), row) for row in scene] for place in places])  # (40,16,40)
    frames = frames if axis == "rows" else frames.swapaxes(1, 2)
    return Samples(
        table=frames[..., None].astype("float32"),
        sun_angles_deg=None,
        features=np.zeros((40, 0)),
        index=np.arange(40)[:, None],
        label=np.zeros(40),
        weight=np.ones(40, "float32"),
        time_s=step_s * np.arange(40),
        flight=np.zeros(40, int),
        piece=np.zeros(40, int),
        flight_names=("a",),
        nadir=(8, 20),
    )


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(("speed", "step_s"), [(2.27, 1.0), (-1.6, 1.0), (5.5, 0.5)])
def test_the_motion_of_the_scene_is_measured(tiny, axis: str, speed: float, step_s: float) -> None:
    config = tiny(data={"camera": {"across_track_axis": axis}})
    assert pixels_per_s(sliding(speed, axis, step_s), config) == pytest.approx(speed, rel=0.05)


def test_where_no_motion_can_be_seen_the_flight_is_named(tiny) -> None:
    samples = sliding(2.0, "rows")
    noise = np.random.default_rng(1).normal(size=samples.table.shape).astype("float32")
    with pytest.raises(DataError, match="flight a: its images do not show"):
        pixels_per_s(replace(samples, table=noise), tiny())


def test_places_are_even_begin_at_nadir_and_lie_in_the_frame(tiny) -> None:
    assert offsets_of((32, 32, 1), tiny(model={"footprint": 11})) == (0, 2, -2, 4, -4, 6, -6, 8, -8, 10, -10)
    assert offsets_of((32, 32, 1), tiny(target={"track_reach": 5})) == (0, 2, -2, 4, -4)
    with pytest.raises(DataError, match="track_reach 6 does not fit a frame of 12 pixels"):
        offsets_of((12, 12, 1), tiny(target={"track_reach": 6}))


def test_every_label_stands_where_its_cloud_is_seen(tiny) -> None:
    """A place ahead of nadir is met later, by its distance over the speed of the scene."""
    prepared = prepare(tiny(target=TRACK))
    track, train = prepared.fitted, prepared.parts["train"]
    assert track.offsets == (0, 2, -2, 4, -4)
    speed = track.pixels_per_s["sim01"]
    assert 2.0 < speed < 2.7  # 200 m/s over pixels of 100 m, and faster by the height of the clouds
    sequence, place = np.nonzero(track.weight)
    met_s = track.time_s[sequence] + np.asarray(track.offsets)[place] / speed
    nearest = np.abs(train.time_s[None, :] - met_s[:, None]).argmin(axis=1)
    assert np.abs(train.time_s[nearest] - met_s).max() * speed <= 1.0
    np.testing.assert_array_equal(track.label[sequence, place], train.label[nearest])
    assert np.isnan(track.label[track.weight == 0]).all()
    # a label every two seconds, five places that a cloud passes in under four
    assert 1.5 < (track.weight > 0).sum() / len(track) < 2.5
    assert prepared.description()["track"]["sequences"] == len(track) > 1.5 * len(train)


def test_sequences_and_labels_are_of_the_training_part_alone(tiny) -> None:
    split = {"kind": "time_blocks", "val_fraction": 0.25, "test_fraction": 0.25, "gap_s": 10.0}
    prepared = prepare(tiny(split=split, target=TRACK))
    for name in prepared.fitted.pixels_per_s:
        number = prepared.fitted.flight_names.index(name)
        seen = prepared.fitted.time_s[prepared.fitted.flight == number]
        train = prepared.parts["train"]
        own = train.time_s[train.flight == train.flight_names.index(name)]
        assert own.min() <= seen.min()
        assert seen.max() <= own.max()


def test_what_has_no_label_does_not_count_in_the_loss() -> None:
    rng = np.random.default_rng(0)
    target, output = rng.normal(size=(2, 12, 5)).astype("float32")
    weight = (rng.random((12, 5)) < 0.4).astype("float32")
    for form in ("variance", "ccc", "log"):
        loss = VariancePreservingLoss(form=form)
        found = float(keras.ops.convert_to_numpy(loss(target * weight, output, weight)))
        there = weight > 0
        alone = float(keras.ops.convert_to_numpy(loss(target[there], output[there])))
        assert found == pytest.approx(alone, rel=1e-5)


SHARED = {"run_length": 4, "ema_momentum": 0.9}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, SHARED], ids=["apart", "shared"])
def test_a_training_along_the_track_resumes(tiny_file, tmp_path: Path, more: dict) -> None:
    from test_train import _interrupt_after

    path = tiny_file(target=TRACK, training=more, model={"mirror_average": True})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train", str(path), "--run-dir", str(whole)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudml_tf.train.checkpoint.Checkpoint.on_epoch_end", _interrupt_after(2))
        assert main(["train", str(path), "--run-dir", str(cut)]) == 130
    assert main(["train", str(path), "--run-dir", str(cut), "--resume"]) == 0
    assert (cut / "history.csv").read_text() == (whole / "history.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, SHARED], ids=["apart", "shared"])
def test_a_training_along_the_track_validates_nadir_and_exports(tiny_file, tmp_path: Path, more: dict) -> None:
    path, whole = tiny_file(target=TRACK, training=more, model={"mirror_average": True}), tmp_path / "whole"
    assert main(["train", str(path), "--run-dir", str(whole), "--set", "output.export=true"]) == 0
    metrics = json.loads((whole / "metrics.json").read_text())
    # the network that is kept answers at nadir: its score is the one that the training saw
    rows = (whole / "history.csv").read_text().splitlines()
    best = dict(zip(rows[0].split(","), rows[metrics["training"]["best_epoch"]].split(","), strict=True))
    assert metrics["val"]["r2"] == pytest.approx(float(best["val_r2"]), abs=1e-4)
    assert metrics["test"]["r2"] > 0
    assert metrics["export"]["parity"]["formats"]["savedmodel"]["within"]


def test_a_word_alone_is_the_coverage(tiny_content) -> None:
    assert parse_config({**tiny_content(), "target": "track"}).target.coverage == "track"


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"head": "quantile"}, "loss": {"base": "pinball"}},
        {"model": {"architecture": "simple_cnn"}},
        {"augmentation": {"mirror_along_track": True}},
    ],
)
def test_what_has_no_place_along_the_track_is_refused(tiny_content, changes: dict) -> None:
    with pytest.raises(ConfigError, match=r"target\.coverage 'track' needs"):
        parse_config(tiny_content(**changes, target={"coverage": "track"}))
