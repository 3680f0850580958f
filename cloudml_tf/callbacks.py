"""Callbacks that watch what the validation loss hides. Each works in any `model.fit` whose log has the named keys.

A callback with a memory has `get_state()` and `set_state(state)`, a dictionary of plain values, arrays and lists of
arrays, so that a resumed run decides as if it had never stopped.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from cloudml_tf.nn.backend import compiled

COMPOSITE = "composite"


def composite_score(val_loss: float, val_r2: float) -> float:
    """The reference recipe's composite `val_loss - 2 R²`, with the sign changed so that more is better."""
    return 2.0 * val_r2 - val_loss


class _BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest score. A NaN is never the best, and never ends the search."""

    monitor: str
    more_state: tuple[str, ...] = ()  # attributes of a subclass that a resumed run needs

    def __init__(self) -> None:
        super().__init__()
        self._reset()

    def _reset(self) -> None:
        self.best = -math.inf
        self.best_epoch: int | None = None
        self.best_weights: list[Any] | None = None

    def _score(self, logs: dict[str, Any]) -> float:
        needed = ("val_loss", "val_r2") if self.monitor == COMPOSITE else (self.monitor,)
        missing = [key for key in needed if key not in logs]
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs {missing} in the training log. Received: {sorted(logs)}. "
                "Compile with cloudml_tf.metrics.regression_metrics() and pass validation_data to fit."
            )
        if self.monitor == COMPOSITE:
            return composite_score(float(logs["val_loss"]), float(logs["val_r2"]))
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        return sign * float(logs[self.monitor])

    def _keep_if_best(self, epoch: int, score: float, min_delta: float = 0.0) -> bool:
        if not math.isfinite(score) or score <= self.best + min_delta:
            return False
        self.best, self.best_epoch = score, epoch
        self.best_weights = [keras.ops.convert_to_numpy(weight) for weight in self.model.weights]
        return True

    def get_state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        best = self.best if math.isfinite(self.best) else None
        more = {name: getattr(self, name) for name in self.more_state}
        return {"best": best, "best_epoch": self.best_epoch, "best_weights": self.best_weights, **more}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state`."""
        self.best = -math.inf if state["best"] is None else state["best"]
        for name in ("best_epoch", "best_weights", *self.more_state):
            setattr(self, name, state[name])

    def restore_best(self) -> None:
        """Put the best weights back into the model; do nothing where no epoch had a finite score."""
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)


class R2EarlyStopping(_BestWeights):
    """Stop when the validation R² has not risen for `patience` epochs; restore the best weights.

    Args:
        patience: epochs without a rise before stopping.
        monitor: "val_r2"; or "composite", the reference recipe's `val_loss - 2 R²`; or "val_loss", which that recipe
            warns of: a validation loss of 0.51 went with R² of -0.02 and of -0.20 alike.
        min_delta: the smallest rise that counts.
        restore_best_weights: put the best epoch's weights back at the end.
    """

    more_state = ("wait", "stopped_epoch")

    def __init__(
        self, patience: int = 10, monitor: str = "val_r2", min_delta: float = 0.0, restore_best_weights: bool = True
    ) -> None:
        super().__init__()
        if patience < 1:
            raise ValueError(f"R2EarlyStopping needs `patience` of 1 or more. Received: patience={patience}")
        self.patience, self.monitor, self.min_delta = patience, monitor, min_delta
        self.restore_best_weights = restore_best_weights
        self.wait = 0
        self.stopped_epoch: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset; a resumed run restores its state afterwards."""
        self._reset()
        self.wait, self.stopped_epoch = 0, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare this epoch with the best so far."""
        if self._keep_if_best(epoch, self._score(logs or {}), self.min_delta):
            self.wait = 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the best weights."""
        if self.restore_best_weights:
            self.restore_best()


class CollapseAbort(_BestWeights):
    """Stop a run whose predictions have collapsed: std(p)/std(t) under `threshold` after `grace` epochs.

    Sets `collapsed` and `message`, and keeps the weights of the epoch with the best `keep` score. A ratio that is NaN
    is not a collapse: `NotFinite` handles it.

    Args:
        threshold: the ratio of standard deviations under which a run is stopped (0.05 in the reference recipe).
        grace: epochs at the start that are not checked.
        monitor: the log key of the ratio.
        keep: the log key by which the best epoch is chosen.
    """

    more_state = ("collapsed", "message")

    def __init__(
        self, threshold: float = 0.05, grace: int = 3, monitor: str = "val_variance_ratio", keep: str = "val_r2"
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"CollapseAbort needs `threshold` between 0 and 1. Received: threshold={threshold}")
        if grace < 0:
            raise ValueError(f"CollapseAbort needs `grace` of 0 or more. Received: grace={grace}")
        self.threshold, self.grace, self.ratio_key, self.monitor = threshold, grace, monitor, keep
        self.collapsed, self.message = False, ""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset for a new training."""
        self._reset()
        self.collapsed, self.message = False, ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the spread of this epoch's validation predictions."""
        logs = logs or {}
        if self.ratio_key not in logs:
            raise ValueError(
                f"CollapseAbort needs '{self.ratio_key}' in the training log. Received: {sorted(logs)}. "
                "Compile with cloudml_tf.metrics.VarianceRatio() and pass validation_data to fit."
            )
        if self.monitor in logs:
            self._keep_if_best(epoch, self._score(logs))
        ratio = float(logs[self.ratio_key])
        if epoch + 1 > self.grace and ratio < self.threshold:
            self.collapsed = True
            self.message = (
                f"Variance collapse: at epoch {epoch + 1} the predictions spread {100 * ratio:.1f} % of the truth "
                f"(limit {100 * self.threshold:.0f} % after {self.grace} epochs). Look at the correlation first: "
                "where it is near 0 no loss can raise R². Then try a larger output init or learning rate, less dropout "
                "and weight decay, or fewer frames."
            )
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights back if the run collapsed."""
        if self.collapsed:
            self.restore_best()


class WeightAverage(keras.callbacks.Callback):
    """Validate, keep and return an exponential average of the weights (Polyak & Juditsky 1992). Put it first.

    From the first validation of an epoch to the start of the next the model holds the average, so that callbacks
    which run at the epoch's end see what was validated; training continues from the weights themselves.

    Args:
        momentum: share of the old average that a step keeps; smaller at the start, where there is little to average.
    """

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        if not 0 < momentum < 1:
            raise ValueError(f"WeightAverage needs `momentum` between 0 and 1. Received: momentum={momentum}")
        self.momentum = momentum
        self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self.average: list[keras.Variable] | None = None
        self.own: list[Any] | None = None  # the training weights, while the model holds the average
        self._follow: Callable[..., None] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset for a new training."""
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Continue training from the weights themselves."""
        if self.own is not None:
            self._assign(self.own)
            self.own = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the new weights to the average."""
        weights = self.model.trainable_variables
        momentum = min(self.momentum, (1.0 + self.steps) / (10.0 + self.steps))
        self.steps += 1
        if self.average is None:
            self.average = _variables([keras.ops.convert_to_numpy(weight) for weight in weights])
            return
        if self._follow is None:
            self._follow = compiled(partial(_move, self.average, weights))
        self._follow(keras.ops.convert_to_tensor(1.0 - momentum, "float32"))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the average into the model, to validate it."""
        self._show_average()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the average into the model, for the callbacks that follow."""
        self._show_average()

    def get_state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        average = self.average and [keras.ops.convert_to_numpy(mean) for mean in self.average]
        return {"steps": self.steps, "average": average, "own": self.own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state` into a model that holds the average."""
        self._begin()
        self.steps, self.own = state["steps"], state["own"]
        self.average = None if state["average"] is None else _variables(state["average"])

    def _show_average(self) -> None:
        if self.own is None and self.average is not None:
            self.own = [keras.ops.convert_to_numpy(weight) for weight in self.model.trainable_variables]
            self._assign(self.average)

    def _assign(self, values: list[Any]) -> None:
        for variable, value in zip(self.model.trainable_variables, values, strict=True):
            variable.assign(keras.ops.copy(value))  # JAX donates the model's arrays to its next step


def _variables(values: list[Any]) -> list[Any]:
    return [keras.Variable(value, dtype="float32", trainable=False) for value in values]


def _move(averages: list[Any], weights: list[Any], share: Any) -> None:
    for average, weight in zip(averages, weights, strict=True):
        average.assign(average + share * (weight - average))


class PenaltySchedule(keras.callbacks.Callback):
    """Sets the λ of a `VariancePreservingLoss` epoch by epoch, and keeps validation out of its pooled moments.

    `constant` leaves λ unchanged. `ramp` raises it linearly from 0 between two epochs. `gate` makes it follow the
    running correlation of the training split: forcing s to 1 costs R² unless r is high, so λ is 0 below the first
    correlation and at its full value above the second. The λ of an epoch is logged as `penalty_weight`.

    Args:
        loss: the compiled loss.
        kind: "constant", "ramp" or "gate".
        ramp_epochs: (first, second) 0-based epochs of "ramp".
        gate_correlation: (first, second) correlations of "gate".
        momentum: share of the old value in the running correlation.
        monitor: the log key of the training correlation.
    """

    def __init__(
        self,
        loss: Any,
        kind: str = "constant",
        ramp_epochs: tuple[int, int] = (0, 10),
        gate_correlation: tuple[float, float] = (0.3, 0.7),
        momentum: float = 0.5,
        monitor: str = "correlation",
    ) -> None:
        super().__init__()
        if kind not in ("constant", "ramp", "gate"):
            raise ValueError(f"PenaltySchedule needs `kind` constant, ramp or gate. Received: kind={kind!r}")
        self.loss, self.kind, self.momentum, self.monitor = loss, kind, momentum, monitor
        self.ends = ramp_epochs if kind == "ramp" else gate_correlation
        self.full = loss.weight
        self.running: float | None = None

    def weight_at(self, epoch: int) -> float:
        """The λ of an epoch, given the correlation so far."""
        if self.kind == "constant":
            return float(self.full)
        value = float(epoch) if self.kind == "ramp" else (self.running or 0.0)
        share = (value - self.ends[0]) / (self.ends[1] - self.ends[0])
        return float(self.full) * min(max(share, 0.0), 1.0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset for a new training."""
        self.running = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set λ. JAX has the old value compiled into its training and validation steps, and compiles again."""
        self.loss.training_phase(True)
        weight = self.weight_at(epoch)
        if weight != self.loss.weight:
            self.loss.weight = weight
            if keras.backend.backend() == "jax":
                self.model.make_train_function(force=True)
                self.model.make_test_function(force=True)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Close the pool to validation, and to other uses of the loss after it."""
        self.loss.training_phase(False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log λ, and update the running correlation."""
        if logs is None:
            return
        logs["penalty_weight"] = self.loss.weight
        if self.kind != "gate":
            return
        if self.monitor not in logs:
            raise ValueError(
                f"PenaltySchedule needs '{self.monitor}' in the training log. Received: {sorted(logs)}. "
                "Compile with cloudml_tf.metrics.regression_metrics()."
            )
        seen = float(logs[self.monitor])
        if math.isfinite(seen):
            old = seen if self.running is None else self.running
            self.running = self.momentum * old + (1.0 - self.momentum) * seen

    def get_state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {"running": self.running, "full": self.full, "pool": self.loss.pool_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state`."""
        self.running, self.full = state["running"], state["full"]
        self.loss.set_pool_state(state["pool"])
