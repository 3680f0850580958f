"""Pretrain the frame encoder on all frames: `cloudml pretrain configs/pretrain.json`; also a step of `train`.

    frames of training and validation flights ─ masked reconstruction ─ verdict ─ encoder.npz ─ transfer

A pretraining folder holds pretraining.json (verdict, losses, errors beside their references), encoder.npz, and figures.
The value of an encoder for a regressor is measured in `cloudml_tf.train.transfer`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.run_folder import forget_checkpoints, has_checkpoint, read_json
from cloudml_tf.config.schema import Config
from cloudml_tf.data.left_out import LeftOut, in_words
from cloudml_tf.data.prepare import Prepared, prepare_frames
from cloudml_tf.data.readers.arrays import read_npz, write_npz
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.sources import available_flights
from cloudml_tf.data.unlabelled import FrameChunks
from cloudml_tf.nn.optimizers import adamw
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import PretrainingError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_logging import quiet_tensorflow

NAME, WEIGHTS = "pretraining.json", "encoder.npz"
EVALUATED = 600  # validation frames whose hidden patches are compared with the references
SHOWN = 4  # of them, in the figure
REMEDY = "Lower pretraining.learning_rate, or look for extreme values in the frames."


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining: the content of pretraining.json, and the folder of the weights."""

    folder: Path
    found: dict[str, Any]

    @property
    def converged(self) -> bool:
        """Whether it converged."""
        return bool(self.found["converged"])

    def weights(self) -> list[np.ndarray]:
        """The encoder's weights, in its own order."""
        arrays = read_npz(self.folder / WEIGHTS)
        return [arrays[f"arr_{n}"] for n in range(len(arrays))]


def pretrain(config: Config, prepared: Prepared, folder: Path, console: Console) -> Pretrained:
    """Train the encoder on hidden patches; write the folder. A finished folder is read instead.

    An interrupted pretraining is continued. Raises `PretrainingError` where no epoch gave a finite loss.
    """
    if (folder / NAME).is_file():
        return Pretrained(folder, read_json(folder / NAME))
    left_out: LeftOut = {}
    with console.progress("reading all frames") as progress:
        chunks = prepare_frames(config, progress, left_out)
    console.warn(*in_words(left_out))
    quiet_tensorflow()
    from cloudml_tf.nn.introspection import frame_encoder_of, frame_model_of
    from cloudml_tf.train import network

    network.start_keras(config)
    # Frames are many, and dropout would only blur what the vector has to encode.
    plain = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})
    regressor = network.make_model(plain, prepared.scaling, **prepared.geometry)
    encoder = frame_encoder_of(regressor)
    model = reconstruction_of(config, frame_model_of(regressor), encoder)
    console.say(
        f"pretraining on {chunks['train'].index.size:,} frames of {', '.join(chunks['train'].flights)}; "
        f"validation {chunks['val'].index.size:,} of {', '.join(chunks['val'].flights)}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    history, seconds = _fit(model, config, chunks, folder, console)
    evaluated = _evaluate(model, chunks["val"])
    found = _summary(history, evaluated, chunks, config, prepared, seconds)
    write_npz(folder / WEIGHTS, *encoder.get_weights())
    for picture in pictures(evaluated["target"], evaluated["painted"], evaluated["hidden"], history):
        picture.write(folder / "plots")
    write_json(folder / NAME, found)  # its presence means that the folder is complete
    forget_checkpoints(folder)
    return Pretrained(folder, found)


def reconstruction_of(config: Config, frame_model: Any, encoder: Any) -> Any:
    """The masked reconstruction around a regressor's encoder, with that regressor's own first layers."""
    from cloudml_tf.nn.masked_reconstruction import MaskedReconstruction, build_decoder, build_painter

    chosen = config.pretraining
    named = {layer.name: layer for layer in frame_model.layers}
    frames = frame_model.input["frames"].shape[2:]
    scaler = named.get("standardize_frames")
    if "level_strip" in named:
        scaler = _strip_of(frames, scaler, named["level_strip"])
    autoencoder = build_decoder(encoder, frames[-1], chosen.decoder_width)
    return MaskedReconstruction(
        autoencoder,
        painter=None if chosen.focus is None else build_painter(encoder),
        scaler=scaler,
        contrast=named.get("local_contrast"),
        patch=chosen.patch,
        mask_ratio=chosen.mask_ratio,
        frames=chosen.frames,
        focus=chosen.focus or 1.0,  # unused without a painter
        patch_weight=chosen.patch_weight,
        seed=config.seed,
    )


def _strip_of(shape: tuple[int, ...], scaler: Any, level: Any) -> Any:
    """A frame (H,W,C) to the standardised strip around nadir, which the encoder of a network of heights reads.

    Frames without labels are taken as those of a level camera.
    """
    import keras
    from keras import layers

    frame = keras.Input(shape, name="frame")
    strip = level(layers.Reshape((1, *shape))(frame if scaler is None else scaler(frame)))
    return keras.Model(frame, layers.Reshape(strip.shape[2:])(strip), name="strip_of_frame")


def _fit(
    model: Any, config: Config, chunks: dict[str, FrameChunks], folder: Path, console: Console
) -> tuple[dict[str, list[float]], float]:
    import keras

    from cloudml_tf.callbacks import R2EarlyStopping
    from cloudml_tf.nn.nan_guard import NotFinite
    from cloudml_tf.train.batches import FrameBatches, epoch_order
    from cloudml_tf.train.checkpoint import Checkpoint, continue_fit, newest
    from cloudml_tf.train.tf_dataset import fit_batches

    chosen = config.pretraining
    a_batch = max(chosen.batch_frames // config.temporal_frames, 1)
    an_epoch = chosen.frames_per_epoch and max(chosen.frames_per_epoch // config.temporal_frames, 1)
    augmentation, axis = config.augmentation, config.data.camera.across_track_axis
    batches = FrameBatches(chunks["train"], a_batch, config.seed, an_epoch, augmentation, axis)
    validation = FrameBatches(chunks["val"], a_batch, None, an_epoch)
    _compile(model, config, chosen.max_epochs * len(batches))
    rows = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: console.say(
            f"{epoch + 1:>5}/{chosen.max_epochs}  hidden patches: loss {logs['loss']:.4f}  val {logs['val_loss']:.4f}"
        )
    )
    stopping = R2EarlyStopping(chosen.patience, "val_loss", verbose=0)
    saved = newest(folder, console.warn) if has_checkpoint(folder) else None
    last = Checkpoint(folder, {"stopping": stopping}, saved)
    guard = NotFinite(batches, verbose=0, remedy=REMEDY)
    callbacks = [guard, epoch_order(batches), rows, stopping, last]
    continue_fit(model, last, callbacks, chosen.max_epochs, partial(fit_batches, model, batches, validation))
    if guard.message and stopping.best_epoch is None:
        raise PretrainingError(f"pretraining diverged: {guard.message} No epoch ended before that.")
    if guard.message:
        console.warn(f"pretraining stopped: {guard.message} It goes on from its best epoch.")
    stopping.restore_best()
    history = {key: [row[key] for row in last.history] for key in ("loss", "val_loss")}
    return history, last.seconds


def _compile(model: Any, config: Config, steps: int) -> None:
    """Compile, and create the optimizer's variables, which a checkpoint must find."""
    import keras

    chosen = config.pretraining
    schedule = keras.optimizers.schedules.CosineDecay(chosen.learning_rate, steps)
    model.compile(adamw(schedule, chosen.weight_decay, clip_norm=1.0))
    model.optimizer.build(model.trainable_variables)


def _evaluate(model: Any, val: FrameChunks) -> dict[str, Any]:
    """Compare hidden patches of validation frames, painted by the network and by the references."""
    import keras

    from cloudml_tf.train.reconstruction_references import reference_errors

    chosen = np.unique(np.linspace(0, len(val) - 1, max(EVALUATED // val.index.shape[1], 1)).astype(int))
    frames = val.frames(chosen)
    whole = frames.reshape(-1, 1, *frames.shape[2:])  # every frame is evaluated, whichever were trained on
    pieces = [model(whole[i : i + 64], training=False) for i in range(0, len(whole), 64)]
    target, painted, mask = (
        np.concatenate([keras.ops.convert_to_numpy(piece[key]) for piece in pieces])
        for key in ("target", "frame", "mask")
    )
    hidden = mask[..., 0] > 0.5
    errors = reference_errors(target, painted, hidden)
    return {"errors": errors, "target": target, "painted": painted, "hidden": hidden}


def _summary(
    history: dict[str, list[float]],
    evaluated: dict[str, Any],
    chunks: dict[str, FrameChunks],
    config: Config,
    prepared: Prepared,
    seconds: float,
) -> dict[str, Any]:
    from cloudml_tf.nn.masked_reconstruction import convergence

    errors = evaluated["errors"]
    verdict = convergence(history["val_loss"], errors["network"], errors["mean_of_visible"])
    if verdict.best_epoch == 0:
        raise PretrainingError(f"pretraining {verdict.text}. Lower pretraining.learning_rate.")
    best = min(errors["mean_of_visible"], errors["interpolation"])
    files = available_flights(config, left_out={})
    return {
        "converged": verdict.converged,
        "verdict": verdict.text,
        "best_epoch": verdict.best_epoch,
        "epochs": len(history["val_loss"]),
        "seconds": seconds,
        "errors": errors,
        "relative_error": errors["network"] / best,
        "frames": {part: int(chunk.index.size) for part, chunk in chunks.items()},
        "flights": {part: list(chunk.flights) for part, chunk in chunks.items()},
        "cameras": {camera_fingerprint(Path(files[name].camera)): name for name in chunks["train"].flights},
        "split": config.split.model_dump(mode="json"),
        "settings": config.pretraining.model_dump(mode="json"),
        "scaling": {"mean": prepared.scaling.to_json()["frame_mean"], "std": prepared.scaling.to_json()["frame_std"]},
        "history": {key: [float(v) for v in values] for key, values in history.items()},
    }


def pictures(target: np.ndarray, painted: np.ndarray, hidden: np.ndarray, history: dict[str, list[float]]) -> list[Any]:
    """Draw the reconstructions and the losses."""
    from cloudml_tf.reports import images, plots
    from cloudml_tf.reports.figure import BLUE, GREY

    busiest = np.argsort(target[..., 0].std(axis=(1, 2)))[::-1]
    chosen = busiest[: len(busiest) // 2][:: max(len(busiest) // 2 // SHOWN, 1)][:SHOWN]
    rows = [{"epoch": float(n + 1)} for n in range(len(history["loss"]))]
    series = [
        (label, rows, np.asarray(history[key]), colour)
        for key, label, colour in (("loss", "training", GREY), ("val_loss", "validation", BLUE))
    ]
    losses = plots.lines("pretraining_loss", "Error of hidden patches", series)
    return [images.reconstructions(target[chosen], painted[chosen], hidden[chosen]), losses]
