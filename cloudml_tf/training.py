"""The room that knows both the data and the model: build, compile, fit."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf import checkpoint
from cloudml_tf.batches import Batches, EpochOrder, Inputs
from cloudml_tf.callbacks import CollapseAbort, PenaltySchedule, R2EarlyStopping, WeightAverage
from cloudml_tf.checkpoint import Checkpoint
from cloudml_tf.console import Console, TrainingProgress
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.distributions import POINT, HistogramLoss, QuantileLoss
from cloudml_tf.errors import NotFiniteError, RunError
from cloudml_tf.feed import answers, feed
from cloudml_tf.files import whole_file
from cloudml_tf.finiteness import NotFinite
from cloudml_tf.layers import PhysicalUnits, Standardize
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.models import (
    build_regressor,
    copy_weights,
    frame_encoder_of,
    physical_model,
    share_frames,
    shares_frames,
)
from cloudml_tf.monitors import LayerMonitor, PredictionSnapshots, first_column
from cloudml_tf.pipeline import Prepared
from cloudml_tf.settings import Config, Training
from cloudml_tf.tracking import Tracker

VALIDATION_BATCH = 256


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
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if config.training.mixed_precision else "float32")
    if config.training.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A CPU does the same sums in the same order anyhow, and TensorFlow would no longer draw batches ahead.
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()


def make_model(
    config: Config,
    scaling: Scaling,
    frame_shape: tuple[int, int, int],
    nadir: tuple[int, int],
    offsets: Sequence[int] = (0,),
) -> keras.Model:
    """The regressor that a configuration describes, with the training statistics inside."""
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
        **config.model.model_dump(exclude={"mirror_average"}),
    )


def with_units(model: keras.Model, scaling: Scaling) -> keras.Model:
    """The model that gives physical units."""
    target = scaling.target
    return physical_model(model, PhysicalUnits(target.mean, target.std, target.log, target.smearing, name="physical"))


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


def make_optimizer(training: Training, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """AdamW with a linear warm-up, then a cosine to zero over `max_epochs`, or a constant rate."""
    warmup = training.warmup_steps or max(round(training.warmup_epochs * steps_per_epoch), 1)
    total = max(training.max_epochs * steps_per_epoch - warmup, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=total,
        alpha=0.0 if training.schedule == "cosine" else 1.0,
        warmup_target=training.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=training.weight_decay, global_clipnorm=training.gradient_clip_norm
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "steps"])
    return optimizer


@dataclass
class Guards:
    """The callbacks that decide or remember something during a training."""

    stopping: R2EarlyStopping
    collapse: CollapseAbort
    snapshots: PredictionSnapshots
    not_finite: NotFinite
    penalty: PenaltySchedule
    layers: LayerMonitor
    average: WeightAverage | None

    @classmethod
    def of(cls, config: Config, loss: VariancePreservingLoss, batches: Batches, val: Samples) -> "Guards":
        """As configured, watching the validation part."""
        training, term = config.training, config.loss
        return cls(
            stopping=R2EarlyStopping(training.early_stopping_patience, training.early_stopping_monitor),
            collapse=CollapseAbort(training.collapse_threshold, training.collapse_grace_epochs),
            snapshots=PredictionSnapshots(feed(Inputs(val, shared=batches.run_length > 1))),
            not_finite=NotFinite(batches),
            penalty=PenaltySchedule(loss, term.schedule, term.ramp_epochs, term.gate_correlation),
            layers=LayerMonitor(*batches.probe()),
            average=WeightAverage(training.ema_momentum) if training.ema_momentum is not None else None,
        )

    def stateful(self) -> dict[str, keras.callbacks.Callback]:
        """Those that a resumed run has to put back."""
        found = {
            "stopping": self.stopping,
            "collapse": self.collapse,
            "snapshots": self.snapshots,
            "penalty": self.penalty,
        }
        return found if self.average is None else {**found, "average": self.average}

    def in_order(self, batches: Batches) -> list[keras.callbacks.Callback]:
        """`NotFinite` first, so that the average never sees a bad step; then the average, so that the others see the
        weights that were validated."""
        average = [] if self.average is None else [self.average]
        return [
            self.not_finite,
            *average,
            EpochOrder(batches),
            LearningRate(),
            self.penalty,
            self.layers,
            self.stopping,
            self.collapse,
            self.snapshots,
        ]


def training_batches(config: Config, prepared: Prepared) -> Batches:
    """Shuffled, augmented batches of the training part."""
    train, track = prepared.parts["train"], prepared.track
    training, standardise = config.training, prepared.scaling.target.standardise
    return Batches(
        train if track is None else track.samples,
        standardise(train.label) if track is None else _masked(standardise(track.label), track.weight),
        training.batch_size,
        seed=config.seed,
        augmentation=config.augmentation,
        frame_std=raw_frame_std(train),
        across_track_axis=config.data.camera.across_track_axis,
        neighbours=training.order == "flight",
        run_length=training.run_length,
        weight=None if track is None else track.weight,
        per_epoch=training.sequences_per_epoch or (None if track is None else len(train)),
    )


def validation_batches(config: Config, prepared: Prepared) -> Batches:
    """The validation part in one order. Along the track, nadir alone is validated."""
    val, track = prepared.parts["val"], prepared.track
    target = prepared.scaling.target.standardise(val.label)
    weight = None
    if track is not None:
        weight = np.zeros((len(val), len(track.offsets)), "float32")
        weight[:, POINT] = 1.0
        target = _masked(target[:, None], weight)
    return Batches(val, target, VALIDATION_BATCH, run_length=config.training.run_length, weight=weight)


def _masked(target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Targets with 0 where there is none: what is not a number would stay so under a weight of 0."""
    return np.where(weight > 0, target, 0.0).astype("float32")


def network_to_train(model: keras.Model, config: Config, prepared: Prepared) -> keras.Model:
    """The regressor itself, or its twin that answers along the track or encodes shared frames once.

    What is trained along the track has weights of its own, which `models.copy_weights` brings back.
    """
    trained = model
    if prepared.track is not None:
        trained = make_model(config, prepared.scaling, *prepared.geometry, prepared.track.offsets)
        copy_weights(model, trained)
        frame_encoder_of(trained).trainable = frame_encoder_of(model).trainable
    return trained if config.training.run_length == 1 else share_frames(trained)


def fit(
    model: keras.Model,
    config: Config,
    prepared: Prepared,
    folder: Path,
    console: Console,
    resume: bool = False,
    track: Tracker | None = None,
) -> Fitted:
    """Train; the model ends with its best weights, which are written, as are the last ones. `track` sees each epoch.

    Raises `NotFiniteError` where the loss stops being a number.
    """
    training, val = config.training, prepared.parts["val"]
    batches = training_batches(config, prepared)
    validation = validation_batches(config, prepared)
    optimizer = make_optimizer(training, len(batches))
    loss = make_loss(config, batches.variance())
    column = None if config.model.head == "point" else POINT
    trained = network_to_train(model, config, prepared)
    judged = {"metrics" if prepared.track is None else "weighted_metrics": regression_metrics(column)}
    trained.compile(optimizer=optimizer, loss=loss, **judged)
    optimizer.build(trained.trainable_variables)
    saved = checkpoint.newest(folder, console.warn) if resume else None
    first_epoch = saved["epoch"] if saved else 0
    guards = Guards.of(config, loss, batches, val)
    last = Checkpoint(folder, guards.stateful(), saved)
    shown = console.training(training.max_epochs, len(batches), first_epoch)
    with shown as progress:
        ended = LastWeights()
        tracking = [] if track is None else track.callbacks(guards.snapshots)
        callbacks = [*guards.in_order(batches), *tracking, EpochRows(progress), ended, last]
        started = time.perf_counter()
        if saved is not None and (saved["stopped"] or first_epoch >= training.max_epochs):
            _replay_end(trained, last, callbacks)
        else:
            trained.fit(
                feed(batches),
                validation_data=feed(validation),
                epochs=training.max_epochs,
                initial_epoch=first_epoch,
                callbacks=callbacks,
                shuffle=False,  # Keras would shuffle the batches once more, in an order that no checkpoint knows
                verbose=0,
            )
        seconds = time.perf_counter() - started
    if ended.weights is not None:
        trained.set_weights(ended.weights)
    guards.not_finite.restore()
    copy_weights(trained, model)
    _save_weights(model, folder / "last.weights.h5")
    guards.stopping.restore_best()
    copy_weights(trained, model)
    if guards.not_finite.message and guards.stopping.best_epoch is None:
        raise NotFiniteError(f"{guards.not_finite.message} No epoch ended before that.")
    _save_weights(model, folder / "best.weights.h5")
    if guards.not_finite.message:
        raise NotFiniteError(f"{guards.not_finite.message} The best weights so far are in {folder}.")
    return Fitted(
        model=model,
        history=last.history,
        best_epoch=guards.stopping.best_epoch,
        seconds=seconds,
        ending=_ending(guards.stopping, guards.collapse, last.history),
        collapsed=guards.collapse.collapsed,
        snapshots=guards.snapshots.predictions,
    )


def _replay_end(model: keras.Model, last: Checkpoint, callbacks: list[keras.callbacks.Callback]) -> None:
    """Take up a training that had already ended when it was interrupted: a `fit` of no epoch would lose its last."""
    for callback in callbacks:
        callback.set_model(model)
    last.on_train_begin()


def _ending(stopping: R2EarlyStopping, collapse: CollapseAbort, history: list[dict[str, float]]) -> str:
    if collapse.collapsed:
        return collapse.message
    if stopping.stopped_epoch is not None:
        return f"stopped at epoch {len(history)}: no better {stopping.monitor} for {stopping.patience} epochs"
    return f"all {len(history)} epochs"


class LearningRate(keras.callbacks.Callback):
    """Puts the learning rate of the epoch's last step into the log."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """For history.csv and the table."""
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class EpochRows(keras.callbacks.Callback):
    """Feeds the rows and the bar that a person sees."""

    def __init__(self, progress: TrainingProgress) -> None:
        super().__init__()
        self.progress = progress

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """A new bar."""
        self.progress.begin(epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """One step on."""
        self.progress.step()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """A row."""
        self.progress.end(epoch, logs or {})


class LastWeights(keras.callbacks.Callback):
    """Keeps the weights of the last epoch, as they were validated, for last.weights.h5."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """A copy; the checkpoint holds them too, should the process end here."""
        self.weights = self.model.get_weights()


def _save_weights(model: keras.Model, path: Path) -> None:
    with whole_file(path) as temporary:
        model.save_weights(temporary, overwrite=True)


def raw_frame_std(samples: Samples) -> np.ndarray:
    """(C,) std of raw radiance over the training frames (a sample of them): the unit of the noise augmentation."""
    rows = np.unique(samples.index)
    rows = rows[:: max(len(rows) // samples.rows_at_once(), 1)]
    return samples.table[rows].std(axis=(0, 1, 2), dtype="float64")


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
    start_keras(config)
    shape = tuple(description["frame_shape"])
    model = make_model(config, Scaling.from_json(description["scaling"]), shape, tuple(description["nadir"]))
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{weights}: does not fit the run's configuration or is damaged ({reason}).") from None
    return model
