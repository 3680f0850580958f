"""The room that knows both the data and the model: build, compile, fit."""

import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf import checkpoint
from cloudml_tf.anatomy import copy_weights, frame_encoder_of
from cloudml_tf.batches import Inputs
from cloudml_tf.callbacks import CollapseAbort, R2EarlyStopping
from cloudml_tf.checkpoint import Checkpoint
from cloudml_tf.console import Console
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.dense import physical_map_model
from cloudml_tf.devices import Devices, check_alike, from_chief, start, told_of_lost_workers
from cloudml_tf.distribute import InStep
from cloudml_tf.distributions import POINT, HistogramLoss, QuantileLoss
from cloudml_tf.errors import NotFiniteError, RunError
from cloudml_tf.feed import answers, feed
from cloudml_tf.files import whole_file
from cloudml_tf.guards import EpochRows, Guards, LastWeights
from cloudml_tf.layers import PhysicalUnits, Standardize
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.material import Material
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.models import build_regressor, physical_model, share_frames, shares_frames
from cloudml_tf.monitors import first_column
from cloudml_tf.optimizers import UNDECAYED, adamw
from cloudml_tf.pipeline import Prepared
from cloudml_tf.settings import Config, Training
from cloudml_tf.stored_arrays import check_weights
from cloudml_tf.swath.network import make_network
from cloudml_tf.swath.preparation import PreparedScenes
from cloudml_tf.tracking import Tracker


@dataclass
class Fitted:
    """What came out of a training. The model holds the best weights."""

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int | None  # 0-based
    seconds: float
    ending: str
    collapsed: bool = False
    snapshots: dict[int, np.ndarray] = field(default_factory=dict)  # epoch -> standardised validation predictions


def start_keras(config: Config) -> None:
    """Seeds, determinism and precision; before any model is built."""
    _seed(config.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if config.training.mixed_precision else "float32")
    if config.training.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A CPU does the same sums in the same order anyhow, and TensorFlow would no longer draw batches ahead.
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()


def _seed(seed: int) -> None:
    """As `keras.utils.set_random_seed`, but a seed that TensorFlow has already is not set once more.

    To set it throws away each kernel that TensorFlow has compiled, and of each that it compiles again it keeps some
    bytes for ever. Nothing here draws by it, nor by the generator that Keras has for all who bring none: first weights
    and dropout start from Python's.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.compat.v1.get_seed(0)[0] == seed:
            random.seed(seed)
            np.random.seed(seed)
            return
    keras.utils.set_random_seed(seed)


def make_model(
    config: Config,
    scaling: Scaling,
    frame_shape: tuple[int, int, int],
    nadir: tuple[int, int] | None = None,
    offsets: Sequence[int] = (0,),
) -> keras.Model:
    """The regressor that a configuration describes, or its swath network, with the training statistics inside."""
    if config.target.coverage == "swath":
        return make_network(config, scaling, frame_shape)
    frame_scaler = Standardize(
        scaling.frame_mean,
        scaling.frame_std,
        log_offset=config.preprocessing.log_offset,
        flat_field=scaling.flat_field,
        per_frame=config.preprocessing.per_frame,
        name="standardize_frames",
    )
    feature_scaler = Standardize(scaling.feature_mean, scaling.feature_std, name="standardize_features")
    return build_regressor(
        frame_shape,
        temporal_frames=config.temporal_frames,
        nadir=nadir,
        sun_angles=config.data.sun_angles,
        features=len(config.data.features),
        frame_scaler=frame_scaler,
        feature_scaler=feature_scaler if config.data.features else None,
        mirror_average=config.data.camera.across_track_axis if config.model.mirror_average else None,
        offsets=offsets,
        along="columns" if config.data.camera.across_track_axis == "rows" else "rows",
        **config.model.model_dump(exclude={"mirror_average", "shift_average"}),
    )


def with_units(model: keras.Model, scaling: Scaling) -> keras.Model:
    """The model that gives physical units."""
    target = scaling.target
    units = PhysicalUnits(target.mean, target.std, target.log, target.smearing, target.log_offset, name="physical")
    return (physical_map_model if len(model.outputs[0].shape) == 3 else physical_model)(model, units)


def make_loss(config: Config, training_variance: float = 1.0) -> VariancePreservingLoss:
    """The loss on the standardised target, whose training variance is 1 unless samples are weighted."""
    schedule = {"schedule", "ramp_epochs", "gate_correlation"}
    options = config.loss.model_dump(exclude=schedule)
    options["target_variance"] = "batch" if config.loss.target_variance == "batch" else training_variance
    if config.model.head == "quantile":
        return QuantileLoss(**options)
    if config.model.head == "histogram":
        low, high = config.model.bin_range
        return HistogramLoss(**options, low=low, high=high)
    return VariancePreservingLoss(**options)


def make_optimizer(training: Training, steps_per_epoch: int, replicas: int | None = None) -> keras.optimizers.Optimizer:
    """AdamW with a linear warm-up, then a cosine to zero over `max_epochs`, or a constant rate.

    Under a strategy of so many `replicas` it expects the mean of their gradients from each, and clips that as it would
    clip the sum.
    """
    warmup = training.warmup_steps or max(round(training.warmup_epochs * steps_per_epoch), 1)
    total = max(training.max_epochs * steps_per_epoch - warmup, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=total,
        alpha=0.0 if training.schedule == "cosine" else 1.0,
        warmup_target=training.learning_rate,
        warmup_steps=warmup,
    )
    clip = training.gradient_clip_norm and training.gradient_clip_norm / (replicas or 1)
    optimizer = adamw(schedule, training.weight_decay, clip, one_device=replicas is None)
    optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def network_to_train(
    model: keras.Model, config: Config, prepared: Prepared | PreparedScenes, anew: bool = False
) -> keras.Model:
    """The regressor itself, or its twin that answers along the track, encodes shared frames once, or is `anew`.

    A twin begins with the regressor's weights. What is trained along the track, or on several devices, has weights of
    its own, which `anatomy.copy_weights` brings back.
    """
    if isinstance(prepared, PreparedScenes):
        return model
    trained, track = model, prepared.track
    if track is not None or anew:
        offsets = (0,) if track is None else track.offsets
        trained = make_model(config, prepared.scaling, *prepared.geometry, offsets)
        copy_weights(model, trained)
        frame_encoder_of(trained).trainable = frame_encoder_of(model).trainable
    return trained if config.training.run_length == 1 else share_frames(trained)


@told_of_lost_workers()
def fit(
    model: keras.Model,
    config: Config,
    prepared: Prepared | PreparedScenes,
    folder: Path,
    console: Console,
    resume: bool = False,
    track: Tracker | None = None,
) -> Fitted:
    """Train; the model ends with its best weights, which are written, as are the last ones. `track` sees each epoch.

    Of several workers that train together each calls this; the chief alone writes into the folder.
    Raises `NotFiniteError` where the loss stops being a number.
    """
    training, devices = config.training, start(config.training)
    material = Material.of(config, prepared)
    batches = material.batches
    saved = checkpoint.newest(folder, console.warn) if resume else None
    first_epoch = saved["epoch"] if saved else 0
    check_alike(devices, config, prepared.fingerprint, first_epoch)
    plain = network_to_train(model, config, prepared)
    with devices.scope():
        loss = make_loss(config, batches.variance())
        trained = plain if devices.strategy is None else network_to_train(model, config, prepared, anew=True)
        run = _compiled(trained, loss, config, material, devices)
    if devices.strategy is not None:
        trained.set_weights(from_chief(devices, plain.get_weights()))
        plain.compile(loss=loss)
    guards = Guards.of(config, loss, material, several=devices.strategy is not None)
    last = Checkpoint(folder, guards.stateful(), saved, writes=devices.chief)
    ended = LastWeights()
    shown = console.training(training.max_epochs, len(batches), first_epoch)
    with shown as progress:
        looking = guards.in_order(batches, None if trained is plain else plain)
        tracking = [] if track is None else track.callbacks(guards.snapshots)
        callbacks = [*looking, *tracking, EpochRows(progress), ended, last]
        started = time.perf_counter()
        if saved is not None and (saved["stopped"] or first_epoch >= training.max_epochs):
            checkpoint.replay_end(trained, last, callbacks)
        else:
            run(first_epoch, callbacks)
        seconds = time.perf_counter() - started
    _keep_weights(model, trained, ended, guards, folder, devices.chief)
    return Fitted(
        model=model,
        history=last.history,
        best_epoch=guards.stopping.best_epoch,
        seconds=seconds,
        ending=_ending(guards.stopping, guards.collapse, last.history),
        collapsed=guards.collapse.collapsed,
        snapshots=guards.snapshots.predictions,
    )


def _compiled(
    trained: keras.Model,
    loss: VariancePreservingLoss,
    config: Config,
    material: Material,
    devices: Devices,
) -> Callable[[int, list[keras.callbacks.Callback]], None]:
    """Compile; what trains it, given the first epoch and the callbacks."""
    epochs, batches, validation = config.training.max_epochs, material.batches, material.validation
    replicas = None if devices.strategy is None else devices.replicas
    optimizer = make_optimizer(config.training, len(batches), replicas)
    metrics = regression_metrics(None if config.model.head == "point" else POINT)
    judged = {"weighted_metrics" if material.weighted else "metrics": metrics} if devices.strategy is None else {}
    trained.compile(optimizer=optimizer, loss=loss, **judged)
    optimizer.build(trained.trainable_variables)
    if devices.strategy is not None:
        in_step = InStep(devices.strategy, trained, loss, metrics, material.weighted)
        return lambda first_epoch, callbacks: in_step.fit(batches, validation, epochs, first_epoch, callbacks)
    return lambda first_epoch, callbacks: trained.fit(
        feed(batches),
        validation_data=feed(validation),
        epochs=epochs,
        initial_epoch=first_epoch,
        callbacks=callbacks,
        shuffle=False,  # Keras would shuffle the batches once more, in an order that no checkpoint knows
        verbose=0,
    )


def _keep_weights(
    model: keras.Model, trained: keras.Model, ended: LastWeights, guards: Guards, folder: Path, writes: bool
) -> None:
    """Write the last weights and the best ones, with which the model ends. Raises `NotFiniteError`."""
    message = guards.not_finite.message
    if ended.weights is not None:
        trained.set_weights(ended.weights)
    guards.not_finite.restore()
    copy_weights(trained, model)
    if writes:
        _save_weights(model, folder / "last.weights.h5")
    guards.stopping.restore_best()
    copy_weights(trained, model)
    if message and guards.stopping.best_epoch is None:
        raise NotFiniteError(f"{message} No epoch ended before that.")
    if writes:
        _save_weights(model, folder / "best.weights.h5")
    if message:
        raise NotFiniteError(f"{message} The best weights so far are in {folder}.")


def _ending(stopping: R2EarlyStopping, collapse: CollapseAbort, history: list[dict[str, float]]) -> str:
    if collapse.collapsed:
        return collapse.message
    if stopping.stopped_epoch is not None:
        return f"stopped at epoch {len(history)}: no better {stopping.monitor} for {stopping.patience} epochs"
    return f"all {len(history)} epochs"


def _save_weights(model: keras.Model, path: Path) -> None:
    with whole_file(path) as temporary:
        model.save_weights(temporary, overwrite=True)


def predict(model: keras.Model, samples: Samples) -> np.ndarray:
    """(n,) standardised predictions, in bounded memory."""
    values = first_column(answers(model, Inputs(samples, shared=shares_frames(model))))
    if not np.isfinite(values).all():
        raise NotFiniteError("the model predicts values that are not finite; its weights or inputs are not finite.")
    return values


def load_regressor(folder: Path, config: Config, description: dict[str, Any]) -> keras.Model:
    """The regressor of a run with its best weights. Weights are plain arrays: loading them runs no code."""
    weights = folder / "best.weights.h5"
    if not weights.is_file():
        raise RunError(f"{folder}: no best.weights.h5; this run did not finish. Continue it with train --resume.")
    check_weights(weights)
    start_keras(config)
    shape, nadir = tuple(description["frame_shape"]), description.get("nadir")  # scenes have none
    model = make_model(config, Scaling.from_json(description["scaling"]), shape, nadir and tuple(nadir))
    try:
        _load_all(model, weights)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{weights}: does not fit the run's configuration or is damaged ({reason}).") from None
    return model


def _load_all(model: keras.Model, path: Path) -> None:
    """Load weights, every one: what a file lacks, Keras leaves as it was drawn, with a warning. Raises `ValueError`."""
    model.set_weights([np.full_like(values, np.nan) for values in model.get_weights()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping nested container")
        model.load_weights(path)
    if not all(np.isfinite(values).all() for values in model.get_weights()):
        raise ValueError("some weights are missing, or are not finite")
