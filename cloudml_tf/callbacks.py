"""Callbacks that watch what the validation loss hides. Each works in any `model.fit` whose log has the named keys.

A callback with a memory has `get_state()` and `set_state(state)`, a dictionary of plain values, arrays and lists of
arrays, so that a resumed run decides as if it had never stopped.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from cloudml_tf.nn.arguments import as_number, number, whole
from cloudml_tf.nn.backend import compiled
from cloudml_tf.nn.best_weights import BestWeights, LogKeys, announce
from cloudml_tf.nn.directions import composite

VALIDATED = "Compile with cloudml_tf.metrics.regression_metrics() and pass validation_data to fit."


def composite_score(val_loss: float, val_r2: float) -> float:
    """The reference recipe's composite `val_loss - 2 R²`, with the sign changed so that more is better."""
    return -composite({"val_loss": val_loss, "val_r2": val_r2})


class R2EarlyStopping(BestWeights):
    """Stop when the validation R² has not risen for `patience` epochs; restore the best weights.

    An epoch without the monitored key, such as one without a validation, is passed over and does not count.

    Args:
        patience: epochs without a rise before stopping.
        monitor: "val_r2"; or "composite", the reference recipe's `val_loss - 2 R²`; or "val_loss", which that recipe
            warns of: a validation loss of 0.51 went with R² of -0.02 and of -0.20 alike; or any other key of the log.
        min_delta: the smallest improvement that counts.
        restore_best_weights: put the best epoch's weights back at the end.
        mode: whether the monitored score is better at "max" or at "min"; "auto" goes by its name, and refuses a name
            that `cloudml_tf.nn.directions` does not know. A bias is best near 0, s near 1.
        verbose: 1 says when the training is stopped, 0 says nothing.
    """

    more_state = ("wait", "stopped_epoch")

    def __init__(
        self,
        patience: int = 10,
        monitor: str = "val_r2",
        min_delta: float = 0.0,
        restore_best_weights: bool = True,
        mode: str = "auto",
        verbose: int = 1,
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = whole("R2EarlyStopping", "patience", patience, 1, "of 1 or more")
        self.min_delta = float(number("R2EarlyStopping", "min_delta", min_delta, lambda n: n >= 0, "of 0 or more"))
        self.restore_best_weights, self.verbose = restore_best_weights, int(verbose)
        self.keys = LogKeys(type(self).__name__, self.needed, VALIDATED)
        self.wait = 0
        self.stopped_epoch: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset; a resumed run restores its state afterwards."""
        self._reset()
        self.keys.reset()
        self.wait, self.stopped_epoch = 0, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare this epoch with the best so far."""
        if not self.keys.present(logs or {}):
            return
        if self._keep_if_best(epoch, self._score(logs or {}), self.min_delta):
            self.wait = 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            if self.stopped_epoch is None and self.verbose:
                best = "none was finite" if self.best_epoch is None else f"best in epoch {self.best_epoch + 1}"
                announce(f"Stopped at epoch {epoch + 1}: no better {self.monitor} for {self.patience} epochs ({best}).")
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the best weights. Warn where nothing was ever there to compare."""
        if self.restore_best_weights:
            self.restore_best()
        self.keys.end()


class CollapseAbort(BestWeights):
    """Stop a run whose predictions have collapsed: std(p)/std(t) under `threshold` after `grace` epochs.

    Sets `collapsed` and `message`, and keeps the weights of the epoch with the best `keep` score. A ratio that is NaN
    is not a collapse: `NotFinite` handles it. An epoch without the ratio, such as one without a validation, is passed
    over.

    Args:
        threshold: the ratio of standard deviations under which a run is stopped (0.05 in the reference recipe).
        grace: epochs at the start that are not checked.
        monitor: the log key of the ratio.
        keep: the log key by which the best epoch is chosen.
        mode: whether `keep` is better at "max" or at "min"; "auto" goes by its name, as in `R2EarlyStopping`.
        verbose: 1 says when the training is stopped, 0 says nothing.
    """

    more_state = ("collapsed", "message")

    def __init__(
        self,
        threshold: float = 0.05,
        grace: int = 3,
        monitor: str = "val_variance_ratio",
        keep: str = "val_r2",
        mode: str = "auto",
        verbose: int = 1,
    ) -> None:
        super().__init__(keep, mode)
        between = "between 0 and 1"
        self.threshold = float(number("CollapseAbort", "threshold", threshold, lambda n: 0 < n < 1, between))
        self.grace = whole("CollapseAbort", "grace", grace, 0, "of 0 or more")
        self.ratio_key, self.verbose = monitor, int(verbose)
        remedy = "Compile with cloudml_tf.metrics.VarianceRatio() and pass validation_data to fit."
        self.keys = LogKeys(type(self).__name__, (monitor,), remedy)
        self.collapsed, self.message = False, ""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset for a new training."""
        self._reset()
        self.keys.reset()
        self.collapsed, self.message = False, ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the spread of this epoch's validation predictions."""
        logs = logs or {}
        if all(key in logs for key in self.needed):
            self._keep_if_best(epoch, self._score(logs))
        if not self.keys.present(logs):
            return
        ratio = float(logs[self.ratio_key])
        if epoch + 1 > self.grace and ratio < self.threshold:
            self._stop(epoch, ratio)

    def _stop(self, epoch: int, ratio: float) -> None:
        said = self.collapsed
        self.collapsed = True
        self.message = (
            f"Variance collapse: at epoch {epoch + 1} the predictions spread {100 * ratio:.1f} % of the truth "
            f"(limit {100 * self.threshold:.0f} % after {self.grace} epochs). Look at the correlation first: "
            "where it is near 0 no loss can raise R². Then try a larger output init or learning rate, less dropout "
            "and weight decay, or fewer frames."
        )
        self.model.stop_training = True
        if self.verbose and not said:
            announce(self.message)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the best weights back if the run collapsed."""
        if self.collapsed:
            self.restore_best()
        self.keys.end()


class WeightAverage(keras.callbacks.Callback):
    """Validate, keep and return an exponential average of the weights (Polyak & Juditsky 1992). Put it first.

    From the first validation of an epoch to the start of the next the model holds the average, so that callbacks
    which run at the epoch's end see what was validated; training continues from the weights themselves.

    Args:
        momentum: share of the old average that a step keeps; smaller at the start, where there is little to average.
    """

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        between = "between 0 and 1"
        self.momentum = float(number("WeightAverage", "momentum", momentum, lambda n: 0 < n < 1, between))
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
        monitor: the log key of the training correlation. In an epoch without it λ stays where it is.
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
        self.loss, self.kind, self.monitor = loss, kind, monitor
        share = "of 0 to below 1"
        self.momentum = float(number("PenaltySchedule", "momentum", momentum, lambda n: 0 <= n < 1, share))
        self.ends = _two("ramp_epochs", ramp_epochs), _two("gate_correlation", gate_correlation)
        self.keys = LogKeys(type(self).__name__, (monitor,), "Compile with cloudml_tf.metrics.regression_metrics().")
        self.full = loss.weight
        self.running: float | None = None

    def weight_at(self, epoch: int) -> float:
        """The λ of an epoch, given the correlation so far."""
        if self.kind == "constant":
            return float(self.full)
        value = float(epoch) if self.kind == "ramp" else (self.running or 0.0)
        first, second = self.ends[0 if self.kind == "ramp" else 1]
        share = (value - first) / (second - first)
        return float(self.full) * min(max(share, 0.0), 1.0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset for a new training."""
        self.running = None
        self.keys.reset()

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
        if self.kind != "gate" or not self.keys.present(logs):
            return
        seen = float(logs[self.monitor])
        if math.isfinite(seen):
            old = seen if self.running is None else self.running
            self.running = self.momentum * old + (1.0 - self.momentum) * seen

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warn where the correlation never was in the log: λ has stayed at 0 then."""
        if self.kind == "gate":
            self.keys.end()

    def get_state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {"running": self.running, "full": self.full, "pool": self.loss.pool_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state`."""
        self.running, self.full = state["running"], state["full"]
        self.loss.set_pool_state(state["pool"])


def _two(name: str, values: Any) -> tuple[float, float]:
    """Two rising numbers. Raises `ValueError`."""
    found = [as_number(value) for value in values] if isinstance(values, list | tuple | np.ndarray) else []
    if len(found) != 2 or None in found or not found[0] < found[1]:  # type: ignore[operator]
        raise ValueError(f"PenaltySchedule needs `{name}` to be two rising numbers. Received: {name}={values!r}")
    return found[0], found[1]  # type: ignore[return-value]
