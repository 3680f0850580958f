"""Masked reconstruction: what is hidden, what the loss sees, which frames serve, and the hand-over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from cloudml_tf.commands.main import main
from cloudml_tf.config.run_folder import CHECKPOINT
from cloudml_tf.data.prepare import prepare, prepare_frames
from cloudml_tf.data.sources import available_flights, read_flights
from cloudml_tf.data.unlabelled import chunks
from cloudml_tf.models import build_regressor
from cloudml_tf.nn.introspection import frame_encoder_of, frame_model_of
from cloudml_tf.nn.layers import LocalContrast, Standardize
from cloudml_tf.nn.masked_reconstruction import (
    MaskedReconstruction,
    build_decoder,
    build_painter,
    convergence,
    hand_over,
    nadir_weight,
    patch_mask,
    unexplained,
)
from cloudml_tf.train import reconstruction_references
from cloudml_tf.train.network import make_model
from cloudml_tf.train.pretrain import reconstruction_of
from cloudml_tf.utils.errors import DataError

SHAPE = (12, 12, 2)


def regressor(seed: int = 0, **options) -> keras.Model:
    keras.utils.set_random_seed(seed)
    sizes = {"widths": (4, 6), "footprint": 5, "encoder_features": 8, "heads": 2, "head_units": 8}
    scaler = Standardize([1.0, 2.0], [0.5, 0.5], name="standardize_frames")
    return build_regressor(SHAPE, 3, sun_angles=False, frame_scaler=scaler, **{**sizes, **options})


def reconstruction(model: keras.Model, **options) -> MaskedReconstruction:
    encoder = frame_encoder_of(model)
    named = {layer.name: layer for layer in frame_model_of(model).layers}
    parts = {"scaler": named["standardize_frames"], "contrast": named.get("local_contrast")}
    parts["painter"] = build_painter(encoder)
    return MaskedReconstruction(build_decoder(encoder, 2, 6), **{**parts, **options})


def frames(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.5, 0.5, (count, 3, *SHAPE)).astype("float32")


@pytest.mark.parametrize(("patch", "ratio", "hidden"), [(4, 0.6, 5 / 9), (3, 0.5, 0.5), (6, 0.9, 0.75), (12, 0.5, 1.0)])
def test_the_set_share_of_squares_is_hidden_in_every_frame(patch: int, ratio: float, hidden: float) -> None:
    if patch == 12:  # one square: something must stay hidden, nothing can stay visible
        with pytest.raises(ValueError, match="at least two"):
            patch_mask(4, 12, 12, patch, ratio, 1)
        return
    mask = to_numpy(patch_mask(7, 12, 12, patch, ratio, 1))
    assert mask.shape == (7, 12, 12, 1)
    np.testing.assert_allclose(mask.mean(axis=(1, 2, 3)), hidden, atol=1e-6)
    squares = mask[:, ::patch, ::patch]
    np.testing.assert_array_equal(mask, squares.repeat(patch, axis=1).repeat(patch, axis=2))


def test_squares_are_cut_where_they_do_not_fit() -> None:
    assert to_numpy(patch_mask(2, 10, 7, 4, 0.5, 1)).shape == (2, 10, 7, 1)


def test_masks_differ_in_training_and_stay_outside_of_it() -> None:
    model = reconstruction(regressor())
    x = frames()
    fixed = [to_numpy(model(x, training=False)["mask"]) for _ in range(2)]
    moving = [to_numpy(model(x, training=True)["mask"]) for _ in range(2)]
    np.testing.assert_array_equal(*fixed)
    assert not np.array_equal(*moving)
    assert not np.array_equal(fixed[0][0], fixed[0][1])  # frames of a batch differ


def test_the_loss_is_the_error_of_hidden_pixels_and_what_the_vector_leaves_of_the_window() -> None:
    model = reconstruction(regressor(), focus=2.0)
    found = {key: to_numpy(value) for key, value in model(frames(), training=False).items()}
    hidden = found["mask"][..., 0] > 0.5
    patches = np.mean((found["frame"][hidden] - found["target"][hidden]) ** 2)
    # The window around nadir is smaller than this frame allows, so it is the frame itself.
    np.testing.assert_allclose(found["window"], found["target"])
    bell = nadir_weight(12, 12, 2.0)[..., 0]
    shares = [
        np.average(((found["painted"] - found["window"])[..., channel] ** 2).mean(axis=0), weights=bell)
        / np.average(
            ((found["window"] - found["window"].mean((0, 1, 2)))[..., channel] ** 2).mean(axis=0), weights=bell
        )
        for channel in range(2)
    ]
    expected = patches + np.mean(shares) + 0.01 * np.mean(found["vector"] ** 2)
    assert loss_of(model, found) == pytest.approx(expected, rel=1e-4)
    seen_elsewhere = {**found, "frame": np.where(found["mask"] > 0.5, found["frame"], np.float32(99.0))}
    assert loss_of(model, seen_elsewhere) == pytest.approx(expected, rel=1e-4)


def loss_of(model: MaskedReconstruction, found: dict[str, np.ndarray]) -> float:
    tensors = {key: keras.ops.convert_to_tensor(value) for key, value in found.items()}
    return float(model.compute_loss(y_pred=tensors))


def test_a_faint_channel_counts_as_much_as_a_bright_one() -> None:
    target = np.random.default_rng(0).normal(size=(8, 5, 5, 2)).astype("float32") * np.float32([100.0, 0.01])
    painted = target * np.float32([1.0, 0.5])
    weight = nadir_weight(5, 5, 2.0)

    def share(painted: np.ndarray) -> float:
        return float(unexplained(keras.ops.array(target), keras.ops.array(painted), weight))

    assert share(painted) == pytest.approx(0.125, rel=0.05)
    assert share(np.zeros_like(target)) == pytest.approx(1.0, abs=0.05)
    assert weight.mean() == pytest.approx(1.0)
    assert weight.argmax() == 12


@pytest.mark.parametrize("options", [{}, {"contrast_boxes": (3, 5)}, {"architecture": "simple_cnn"}])
def test_hidden_pixels_do_not_reach_the_network(options: dict) -> None:
    model = reconstruction(regressor(**options))
    if "contrast_boxes" in options:
        assert isinstance(model.contrast, LocalContrast)
    x = frames(1)
    first = {key: to_numpy(value) for key, value in model(x, training=False).items()}
    other = np.where(first["mask"].reshape(1, 3, *SHAPE[:2], 1) > 0.5, x + 5.0, x).astype("float32")
    second = model(other, training=False)
    np.testing.assert_allclose(to_numpy(second["frame"]), first["frame"], atol=1e-5)


@pytest.mark.parametrize(
    ("chosen", "seen"), [("all", [0, 1, 2]), ("middle", [1]), ("first", [0]), ("random", [0, 1, 2])]
)
def test_which_frames_of_a_sequence_are_reconstructed(chosen: str, seen: list[int]) -> None:
    model = reconstruction(regressor(), frames=chosen)
    x = np.broadcast_to(np.arange(3.0).reshape(1, 3, 1, 1, 1), (40, 3, *SHAPE)).astype("float32")
    found = to_numpy(model(x, training=True)["target"])
    steps = sorted(set(np.round(found[:, 0, 0, 0] * 0.5 + 1.0).astype(int)))
    assert steps == seen
    assert len(found) == (120 if chosen == "all" else 40)


@pytest.mark.slow
def test_it_learns_and_every_path_of_the_encoder_gets_a_gradient() -> None:
    model = regressor()
    encoder = frame_encoder_of(model)
    before = [w.copy() for w in encoder.get_weights()]
    learner = reconstruction(model)
    learner.compile(keras.optimizers.AdamW(3e-3))
    rows, columns = np.meshgrid(np.arange(12), np.arange(12), indexing="ij")
    phase = np.random.default_rng(0).uniform(0, 6, (64, 3, 1, 1, 1))
    x = (1.5 + np.sin(phase + 0.4 * (rows + columns))[..., None][:, :, 0]).astype("float32").reshape(64, 3, 12, 12, 1)
    x = np.concatenate([x, x], axis=-1)
    history = learner.fit(x, validation_data=(x,), epochs=8, batch_size=16, verbose=0).history
    assert history["val_loss"][-1] < 0.5 * history["val_loss"][0]
    moved = [not np.array_equal(a, b) for a, b in zip(before, encoder.get_weights(), strict=True)]
    named = [w.path for w, m in zip(encoder.weights, moved, strict=True) if not m]
    assert named == []


@pytest.mark.parametrize("wrong", [{"patch": 0}, {"mask_ratio": 1.0}, {"frames": "last"}, {"focus": 0}])
def test_wrong_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|MaskedReconstruction needs `"):
        reconstruction(regressor(), **wrong)


def test_the_hand_over_copies_every_tensor_and_fails_loudly() -> None:
    source, target = frame_encoder_of(regressor(0)), frame_encoder_of(regressor(1))
    weights = source.get_weights()
    differing = sum(not np.array_equal(a, b) for a, b in zip(weights, target.get_weights(), strict=True))
    assert hand_over(weights, target) == differing > 5
    for a, b in zip(weights, target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="no weight changed"):
        hand_over(weights, target)
    with pytest.raises(ValueError, match=r"differ in shape: .*given"):
        hand_over(weights, frame_encoder_of(regressor(1, widths=(4, 7))))
    with pytest.raises(ValueError, match="tensors for an encoder of"):
        hand_over(weights[:-1], target)
    with pytest.raises(ValueError, match="not finite"):
        hand_over([np.full_like(w, np.nan) for w in weights], target)


@pytest.mark.parametrize(
    ("losses", "error", "converged", "text"),
    [
        ([1.0, 0.8, 0.7], 0.5, True, "0.7000 in epoch 3"),
        ([1.0, 1.2, 1.4], 0.5, False, "did not fall"),
        ([1.0, 0.999], 0.5, False, "did not fall"),
        ([1.0, 0.5], 0.9, False, "no better than the mean"),
        ([float("nan")], 0.5, False, "no epoch has a finite"),
        ([1.0, 0.6, float("nan")], 0.5, True, "epoch 2"),
    ],
)
def test_the_verdict_on_convergence(losses: list[float], error: float, converged: bool, text: str) -> None:
    found = convergence(losses, error, 0.8)
    assert found.converged is converged
    assert text in found.text


def test_interpolation_restores_a_plane_and_the_mean_does_not() -> None:
    rows, columns = np.meshgrid(np.arange(9.0), np.arange(9.0), indexing="ij")
    plane = np.stack([rows + 2 * columns, -rows], axis=-1)
    hidden = np.zeros((9, 9), bool)
    hidden[3:6, 3:6] = True
    np.testing.assert_allclose(reconstruction_references.interpolated(plane, hidden), plane, atol=1e-9)
    found = reconstruction_references.reference_errors(plane[None], plane[None] + 2.0, hidden[None])
    assert found["network"] == pytest.approx(4.0)
    assert found["interpolation"] == pytest.approx(0.0, abs=1e-12)
    centre = plane[hidden] - plane[~hidden].mean(axis=0)
    assert found["mean_of_visible"] == pytest.approx(np.mean(centre**2))
    corner = np.zeros((9, 9), bool)
    corner[:4, :4] = True  # beyond the hull of what is visible
    assert np.isfinite(reconstruction_references.interpolated(plane, corner)).all()


def test_every_frame_of_training_and_validation_flights_serves_and_none_of_the_test_flights(tiny) -> None:
    config = tiny()
    found = prepare_frames(config)
    assert {part: chunk.flights for part, chunk in found.items()} == {"train": ("sim01",), "val": ("sim02",)}
    flights = {f.name: f for f in read_flights(available_flights(config), ["sim01", "sim02"], config)}
    good = sum(int((np.bincount(f.piece) // 3 * 3).sum()) for f in flights.values())
    rows = np.unique(np.concatenate([chunk.index.ravel() for chunk in found.values()]))
    assert len(rows) >= 0.95 * good
    labelled = sum(int(np.isfinite(f.label).sum()) for f in flights.values())
    assert len(rows) > 1.5 * labelled
    with_third = prepare_frames(
        tiny(split={"kind": "leave_one_out", "test": "sim01", "val": "sim02"}, pretraining={"extra_flights": []})
    )
    assert with_third["train"].flights == ("sim03",)


def test_chunks_do_not_overlap_but_for_the_last_of_a_piece(tiny) -> None:
    config = tiny()
    flight = read_flights(available_flights(config), ["sim01"], config)[0]
    for length in (1, 3, 7):
        found = chunks(flight, length)
        assert (np.diff(found, axis=1) == 1).all()
        assert (flight.piece[found] == flight.piece[found[:, :1]]).all()
        pieces = len(np.unique(flight.piece))
        assert found.size - len(np.unique(found)) <= pieces * (length - 1)


def test_a_split_in_time_keeps_the_test_part_out_of_pretraining(tiny) -> None:
    config = tiny(split={"kind": "time_blocks", "val_fraction": 0.25, "test_fraction": 0.25, "gap_s": 4.0})
    test = prepare(config).parts["test"]
    frames_of = prepare_frames(config)
    seen = np.concatenate([chunk.table[np.unique(chunk.index)] for chunk in frames_of.values()])
    held_out = test.table[np.unique(test.index)]
    shared = {f.tobytes() for f in seen} & {f.tobytes() for f in held_out}
    assert shared == set()


def test_extra_flights_must_be_free(tiny, tiny_content) -> None:
    from cloudml_tf.config.load import parse_config
    from cloudml_tf.utils.errors import ConfigError

    with pytest.raises(ConfigError, match="extra_flights must be outside the split"):
        parse_config(tiny_content(pretraining={"extra_flights": ["sim03"]}))
    with pytest.raises(DataError, match="'sim09' is not among"):
        prepare_frames(tiny(pretraining={"extra_flights": ["sim09"]}))
    loo = {"kind": "leave_one_out", "test": "sim01", "val": "sim02"}
    with pytest.raises(ConfigError, match="extra_flights must be outside the split"):
        parse_config(tiny_content(split=loo, pretraining={"extra_flights": ["sim01"]}))
    with pytest.raises(DataError, match="'sim03' is a flight of the split"):
        prepare_frames(tiny(split=loo, pretraining={"extra_flights": ["sim03"]}))
    free = prepare_frames(tiny(split={**loo, "exclude": []}, data={"simulation": {"flight_count": 4}}))
    assert "sim01" not in free["train"].flights


SHORT = {"enabled": True, "max_epochs": 6, "batch_frames": 24, "decoder_width": 8, "learning_rate": 1e-2}


def test_a_training_pretrains_hands_over_and_trains_its_control(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(pretraining=SHORT, output={"report": True}, training={"max_epochs": 1})
    run = tmp_path / "run"
    assert main(["train", str(path), "--run-dir", str(run)]) == 0
    found = json.loads((run / "metrics.json").read_text())["pretraining"]
    assert found["converged"]
    assert found["tensors"] > 10
    assert set(found["probe"]) == {"pretrained", "random"}
    assert {"train", "val", "test"} <= set(found["control"])
    assert found["control"]["test"]["n"] == json.loads((run / "metrics.json").read_text())["test"]["n"]
    alone = json.loads((run / "pretraining" / "pretraining.json").read_text())
    assert {key: alone[key] for key in ("probe", "control")} == {key: found[key] for key in ("probe", "control")}
    shown = capsys.readouterr().out
    for row in ("val: linear probe, random", "test: pretrained", "test: control, random weights"):
        assert row in shown
    assert (run / "pretraining" / "plots" / "reconstructions.png").is_file()
    assert "Pretraining" in (run / "report.html").read_text()
    # The finished pretraining serves other trainings; a network that it does not fit is refused.
    again = {"enabled": True, "from_run": str(run / "pretraining"), "control": False, "transfer": "probe"}
    path = tiny_file(pretraining=again, training={"max_epochs": 1})
    assert main(["train", str(path), "--run-dir", str(tmp_path / "second")]) == 0
    assert not (tmp_path / "second" / "pretraining").exists()
    turned = {"kind": "flights", "train": ["sim02"], "val": ["sim03"], "test": ["sim01"]}
    leak = "trained on the frames of sim01, on which this run is tested: a leak"
    smaller = {"simulation": {"frame_rows": 8, "frame_columns": 8}}
    frames = "frame shape (rows, columns, channels) was [12, 12, 1], is [8, 8, 1]"
    for changes, text in (
        ({"split": turned}, leak),
        ({"model": {"widths": [6, 9]}}, "model.widths was [6, 8], is [6, 9]"),
        ({"data": smaller}, frames),
    ):
        path = tiny_file(pretraining=again, **changes)
        assert main(["train", str(path), "--run-dir", str(tmp_path / "third")]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert "Pretrain with the same model" not in error
        assert not (tmp_path / "third").exists()


@pytest.mark.slow
def test_an_encoder_that_did_not_converge_is_not_handed_over(tiny_file, tmp_path: Path, capsys) -> None:
    bad = {**SHORT, "learning_rate": 10.0, "control": False}
    path = tiny_file(pretraining=bad, training={"max_epochs": 1})
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 5
    error = capsys.readouterr().err
    assert "not transferred" in error or "pretraining diverged" in error
    assert "Traceback" not in error


def test_pretrain_alone_says_whether_it_converged(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(pretraining=SHORT)
    assert main(["pretrain", str(path), "--run-dir", str(tmp_path / "pre"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["pretraining"]
    assert found["errors"]["network"] < found["errors"]["mean_of_visible"]
    assert found == json.loads((tmp_path / "pre" / "pretraining.json").read_text())
    assert (tmp_path / "pre" / "encoder.npz").is_file()
    assert not (tmp_path / "pre" / CHECKPOINT).exists()


@pytest.mark.slow
def test_an_interrupted_pretraining_goes_on_as_if_it_had_not_been(
    tiny_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_train import _interrupt_after

    path = str(tiny_file(pretraining={**SHORT, "max_epochs": 4}))
    main(["pretrain", path, "--run-dir", str(tmp_path / "whole")])
    monkeypatch.setattr("cloudml_tf.train.checkpoint.Checkpoint.on_epoch_end", _interrupt_after(2))
    assert main(["pretrain", path, "--run-dir", str(tmp_path / "cut")]) == 130
    assert not (tmp_path / "cut" / "pretraining.json").exists()
    monkeypatch.undo()
    assert main(["pretrain", path, "--resume"]) == 2  # which one?
    main(["pretrain", path, "--run-dir", str(tmp_path / "cut"), "--resume"])
    found = [json.loads((tmp_path / name / "pretraining.json").read_text()) for name in ("whole", "cut")]
    assert found[0]["history"] == found[1]["history"]
    assert found[0]["errors"] == found[1]["errors"]
    with np.load(tmp_path / "whole/encoder.npz") as whole, np.load(tmp_path / "cut/encoder.npz") as cut:
        for key in whole.files:
            np.testing.assert_array_equal(whole[key], cut[key])


def test_without_a_focus_hidden_patches_are_the_only_task(tiny) -> None:
    learners = []
    for focus in (3.0, None):
        config = tiny(pretraining={"enabled": True, "focus": focus})
        prepared = prepare(config)
        model = make_model(config, prepared.scaling, **prepared.geometry)
        learners.append(reconstruction_of(config, frame_model_of(model), frame_encoder_of(model)))
    assert learners[0].painter is not None
    assert learners[1].painter is None


def test_a_folder_without_a_pretraining_is_named(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(pretraining={"enabled": True, "from_run": str(tmp_path)})
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "has no pretraining.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{}, {"contrast_boxes": (3,)}])
@pytest.mark.slow
def test_a_reconstruction_is_kept_in_a_file_cloned_and_goes_on(options: dict, tmp_path: Path) -> None:
    # Without dropout: Keras keeps no state of random generators in a file.
    model = reconstruction(regressor(dropout=0.0, **options), frames="random", focus=np.float32(2.0))
    x = frames(16)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, epochs=1, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert json.loads(json.dumps(loaded.get_config())) == json.loads(json.dumps(model.get_config()))
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # Decoder and painter share the encoder again: a step of one is seen by the other, or the two would part.
    shared = {id(w) for w in loaded.autoencoder.weights} & {id(w) for w in loaded.painter.weights}
    assert len(shared) == len({id(w) for w in model.autoencoder.weights} & {id(w) for w in model.painter.weights}) > 4
    loaded.random.state.assign(keras.ops.convert_to_numpy(model.random.state))  # JAX gives its arrays away
    logs = [each.fit(x, epochs=2, batch_size=8, shuffle=False, verbose=0).history["loss"] for each in (model, loaded)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    cloned = keras.models.clone_model(model)
    assert [w.shape for w in cloned.weights] == [w.shape for w in model.weights]
    cloned.compile("adam")
    assert np.isfinite(cloned.fit(x, verbose=0).history["loss"]).all()


def test_one_without_a_painter_and_one_of_other_parts_are_kept_too(tmp_path: Path) -> None:
    x = frames(4)
    own = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3, padding="same")])
    for model in (reconstruction(regressor(), painter=None), MaskedReconstruction(own, patch=3)):
        model.compile("adam")
        model.fit(x, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.evaluate(x, verbose=0) == pytest.approx(model.evaluate(x, verbose=0), rel=1e-6)


def test_parts_that_share_weights_in_a_way_of_their_own_are_refused() -> None:
    model = reconstruction(regressor())
    del model.autoencoder.recipe
    with pytest.raises(ValueError, match="build_decoder and build_painter of one encoder, or share no weights"):
        model.get_config()


class Spoilt(keras.utils.PyDataset):
    """Batches of four sequences, with some pixels spoilt."""

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__(workers=1)
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames) // 4

    def __getitem__(self, number: int) -> tuple[np.ndarray]:
        return (self.frames[4 * number : 4 * number + 4],)


@pytest.mark.parametrize("bad", [np.nan, *(pytest.param(one, marks=pytest.mark.slow) for one in (np.inf, -np.inf))])
def test_pixels_that_are_no_numbers_are_named_and_leave_the_weights_alone(bad: float) -> None:
    x, model = frames(12), reconstruction(regressor())
    x[9, 1, 2, 3:6, 0] = bad
    model.compile("adam")
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"3 of 10,368 values \(0.03%\) .* 1 of 12 sequences.* number 9 \(batch 3"):
        model.fit(x, batch_size=4, verbose=0)
    with pytest.raises(ValueError, match="1 of 12 sequences"):
        model.fit(frames(4), validation_data=(x,), verbose=0)
    with pytest.raises(ValueError, match=r"epoch 1, batch 3.*NaN and extreme values in the frames"):
        model.fit(Spoilt(x), verbose=0, epochs=3, shuffle=False)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX hides the weights from callbacks")
@pytest.mark.slow
def test_the_guard_names_the_tensor_of_a_reconstruction() -> None:
    x, model = frames(8), reconstruction(regressor())
    x[5] = np.nan
    model.compile("adam")
    with pytest.raises(ValueError, match="Not finite first: the input: 864 of 3,456 values are NaN"):
        model.fit(Spoilt(x), verbose=0, shuffle=False)


def test_the_command_is_as_silent_as_the_others(tmp_path: Path, tiny_content) -> None:
    """What Keras and TensorFlow write while they are loaded is held back; here the data are missing after that."""
    path = tmp_path / "c.json"
    data = {"path": str(tmp_path / "none")}
    path.write_text(json.dumps({**tiny_content(), "data": data}))
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "cloudml_tf", "pretrain", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("cloudml pretrain: ")
    assert done.stderr.count("\n") == 1
