"""The callbacks of a training: its guards, its state, and its terminal output."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cloudml_tf.callbacks import CollapseAbort, PenaltySchedule, R2EarlyStopping, WeightAverage
from cloudml_tf.config.schema import Config
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.nn.monitors import LayerMonitor, PredictionSnapshots
from cloudml_tf.nn.nan_guard import NotFinite
from cloudml_tf.train.batches import Batches, epoch_order
from cloudml_tf.train.distribute import OnOneDevice
from cloudml_tf.train.loaders import Loaders
from cloudml_tf.train.tf_dataset import as_dataset
from cloudml_tf.utils.console import TrainingProgress


@dataclass
class TrainingCallbacks:
    """The callbacks that decide something or keep state during a training."""

    stopping: R2EarlyStopping
    collapse: CollapseAbort
    snapshots: PredictionSnapshots
    not_finite: NotFinite
    penalty: PenaltySchedule
    layers: LayerMonitor
    average: WeightAverage | None

    @classmethod
    def of(
        cls, config: Config, loss: VariancePreservingLoss, loaders: Loaders, several: bool = False
    ) -> "TrainingCallbacks":
        """Make the configured callbacks, which watch the validation split. On `several` devices no step is repeated."""
        training, term = config.training, config.loss
        return cls(
            # The command tells how the training ended, so the callbacks do not.
            stopping=R2EarlyStopping(training.early_stopping_patience, training.early_stopping_monitor, verbose=0),
            collapse=CollapseAbort(training.collapse_threshold, training.collapse_grace_epochs, verbose=0),
            snapshots=PredictionSnapshots(as_dataset(loaders.shown), keep=loaders.keep),
            not_finite=NotFinite(None if several else loaders.batches, verbose=0),
            penalty=PenaltySchedule(loss, term.schedule, term.ramp_epochs, term.gate_correlation),
            layers=LayerMonitor(*loaders.batches.probe()),
            average=WeightAverage(training.ema_momentum) if training.ema_momentum is not None else None,
        )

    def stateful(self) -> dict[str, keras.callbacks.Callback]:
        """The callbacks whose state a resumed run restores."""
        found = {name: getattr(self, name) for name in ("stopping", "collapse", "snapshots", "penalty", "average")}
        return {name: callback for name, callback in found.items() if callback is not None}

    def in_order(self, batches: Batches, copy: keras.Model | None = None) -> list[keras.callbacks.Callback]:
        """The callbacks in order: `NotFinite` first, so that the average never sees a bad step; then the average, so
        that the others see the weights that were validated. A `copy` on one device serves those that look into a
        network on several."""
        average = [] if self.average is None else [self.average]
        looking = [self.layers, self.snapshots]
        looking = looking if copy is None else [OnOneDevice(copy, looking)]
        changing = [self.not_finite, *average, epoch_order(batches), LearningRate(), self.penalty]
        return [*changing, *looking, self.stopping, self.collapse]


class LearningRate(keras.callbacks.Callback):
    """Puts the learning rate of the epoch's last step into the log."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log it, for history.csv and the table."""
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


def epoch_rows(progress: TrainingProgress) -> keras.callbacks.Callback:
    """A callback that feeds the rows and the bar that a person sees."""
    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: progress.begin(epoch),
        on_train_batch_end=lambda batch, logs: progress.step(),
        on_epoch_end=lambda epoch, logs: progress.end(epoch, logs),
    )


class LastWeights(keras.callbacks.Callback):
    """Keeps the weights of the last epoch, as they were validated, for last.weights.h5."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Copy the weights; the checkpoint holds them too, in case the process ends here."""
        self.weights = self.model.get_weights()
