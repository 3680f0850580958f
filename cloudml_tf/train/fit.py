"""Fit the network of a configuration: compile, train, keep the best weights."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import keras
import numpy as np

from cloudml_tf.callbacks import CollapseAbort, R2EarlyStopping
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.models import share_frames
from cloudml_tf.nn.heads import POINT
from cloudml_tf.nn.introspection import copy_trainable, copy_weights
from cloudml_tf.train import checkpoint
from cloudml_tf.train.callbacks import LastWeights, TrainingCallbacks, epoch_rows
from cloudml_tf.train.checkpoint import Checkpoint
from cloudml_tf.train.devices import Devices, check_alike, from_chief, lost_worker_as_error, start
from cloudml_tf.train.distribute import InStep
from cloudml_tf.train.loaders import Loaders
from cloudml_tf.train.network import make_loss, make_model, make_optimizer
from cloudml_tf.train.tf_dataset import fit_batches
from cloudml_tf.train.tracking import Tracker
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import NotFiniteError
from cloudml_tf.utils.files import whole_file


@dataclass
class Fitted:
    """What came out of a training. The model holds the best weights."""

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int | None  # 0-based, whose weights are kept
    seconds: float
    ending: str
    collapsed: bool = False
    snapshots: dict[int, np.ndarray] = field(default_factory=dict)  # epoch -> standardised validation predictions


def network_to_train(model: keras.Model, config: Config, prepared: Prepared, new: bool = False) -> keras.Model:
    """The network itself; or a copy that predicts along the track, that encodes shared frames once, or that is `new`.

    A copy begins with the network's weights. What is trained along the track, or on several devices, has weights of
    its own, which `introspection.copy_weights` brings back.
    """
    trained, offsets = model, prepared.fitted.offsets
    if offsets != (0,) or new:
        trained = make_model(config, prepared.scaling, **prepared.geometry, offsets=offsets)
        copy_weights(model, trained)
        copy_trainable(model, trained)
    return trained if config.training.run_length == 1 else share_frames(trained)


@lost_worker_as_error()
def fit(
    model: keras.Model,
    config: Config,
    prepared: Prepared,
    folder: Path,
    console: Console,
    resume: bool = False,
    tracker: Tracker | None = None,
) -> Fitted:
    """Train; the model ends with its best weights, which are written, as are the last ones. `tracker` sees each epoch.

    Of several workers that train together each calls this; the chief alone writes into the folder.
    Raises `NotFiniteError` where the loss stops being a number.
    """
    training, devices = config.training, start(config.training)
    loaders = Loaders.of(config, prepared)
    batches = loaders.batches
    saved = checkpoint.newest(folder, console.warn) if resume else None
    first_epoch = saved["epoch"] if saved else 0
    check_alike(devices, config, prepared.fingerprint, first_epoch)
    plain = network_to_train(model, config, prepared)
    with devices.scope():
        loss = make_loss(config, batches.variance())
        trained = plain if devices.strategy is None else network_to_train(model, config, prepared, new=True)
        run = _compiled(trained, loss, config, loaders, devices)
    if devices.strategy is not None:
        trained.set_weights(from_chief(devices, plain.get_weights()))
        plain.compile(loss=loss)
    guards = TrainingCallbacks.of(config, loss, loaders, several=devices.strategy is not None)
    last = Checkpoint(folder, guards.stateful(), saved, writes=devices.chief)
    ended = LastWeights()
    shown = console.training(training.max_epochs, len(batches), first_epoch)
    with shown as progress:
        looking = guards.in_order(batches, None if trained is plain else plain)
        tracking = [] if tracker is None else tracker.callbacks(guards.snapshots)
        callbacks = [*looking, *tracking, epoch_rows(progress), ended, last]
        checkpoint.continue_fit(trained, last, callbacks, training.max_epochs, run)
    last_kept = training.keep == "last" and not guards.collapse.collapsed
    _keep_weights(model, trained, ended, guards, folder, devices.chief, last_kept)
    return Fitted(
        model=model,
        history=last.history,
        best_epoch=len(last.history) - 1 if last_kept else guards.stopping.best_epoch,
        seconds=last.seconds,
        ending=_ending(guards.stopping, guards.collapse, last.history),
        collapsed=guards.collapse.collapsed,
        snapshots=guards.snapshots.predictions,
    )


def _compiled(
    trained: keras.Model, loss: VariancePreservingLoss, config: Config, loaders: Loaders, devices: Devices
) -> checkpoint.Fit:
    """Compile; what trains it."""
    batches, validation, weighted = loaders.batches, loaders.validation, loaders.validation.weighted
    replicas = None if devices.strategy is None else devices.replicas
    optimizer = make_optimizer(config.training, len(batches), replicas)
    alone = config.model.head == "point" and not config.target.further
    metrics = regression_metrics(None if alone else POINT)
    judged = {"weighted_metrics" if weighted else "metrics": metrics} if devices.strategy is None else {}
    trained.compile(optimizer=optimizer, loss=loss, **judged)
    optimizer.build(trained.trainable_variables)
    if devices.strategy is not None:
        return partial(InStep(devices.strategy, trained, loss, metrics, weighted).fit, batches, validation)
    return partial(fit_batches, trained, batches, validation)


def _keep_weights(
    model: keras.Model,
    trained: keras.Model,
    ended: LastWeights,
    guards: TrainingCallbacks,
    folder: Path,
    writes: bool,
    last_kept: bool,
) -> None:
    """Write the last weights and those that are kept, with which the model ends. Raises `NotFiniteError`."""
    message = guards.not_finite.message
    if ended.weights is not None:
        trained.set_weights(ended.weights)
    guards.not_finite.restore()
    copy_weights(trained, model)
    if writes:
        _save_weights(model, folder / "last.weights.h5")
    if message or not last_kept:
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
