"""Callbacks that show what happens inside a training. Each works in any `model.fit`, with any loss.

Their results go into the training log, and so into the history, the CSV file and every tracker.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn import moments as formulas
from cloudml_tf.nn.arguments import whole
from cloudml_tf.nn.backend import Gradients

SCORES = ("r2", "variance_ratio", "correlation", "bias", "r2_ceiling", "spread_cost", "pred_std")


class DiversityMonitor(keras.callbacks.Callback):
    """Adds R², s, r, bias, the ceiling r², the cost (s - r)², std and spread of the predictions to the log.

    For models that are compiled without `regression_metrics()`: it predicts once more after each epoch.

    Args:
        inputs: what `model.predict` takes.
        targets: (n,) or (n, 1), in the order of the inputs.
        prefix: prefix of the log keys.
        batch_size: batch size for `model.predict`.
    """

    def __init__(self, inputs: Any, targets: Any, prefix: str = "val_", batch_size: int = 256) -> None:
        super().__init__()
        self.inputs, self.prefix = inputs, prefix
        self.batch_size = whole("DiversityMonitor", "batch_size", batch_size, 1)
        self.targets = np.ravel(targets).astype("float64")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predict and score."""
        prediction = first_column(self.model.predict(self.inputs, batch_size=self.batch_size, verbose=0))
        if len(prediction) != len(self.targets):
            raise ValueError(
                "DiversityMonitor needs as many targets as inputs. "
                f"Received: {len(self.targets)} targets, {len(prediction)} predictions"
            )
        m = formulas.moments(self.targets, prediction)
        found = {name: float(getattr(formulas, name)(m)) for name in SCORES}
        found["pred_spread"] = float(np.ptp(prediction))
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in found.items()})


class LayerMonitor(keras.callbacks.Callback):
    """Looks into the network after each epoch, at one fixed batch and without dropout. Log keys:

    output_weight_norm    norm of the last layer's kernel: "should increase, not decrease" (reference recipe)
    output_gradient_norm  norm of the loss's gradient there: "should be non-trivial"
    gradient_ratio        norm of the variance term's gradient over the base term's (`VariancePreservingLoss` only)
    dead_units            share of activated units that do not vary over the batch
    saturated_units       share of sigmoid, tanh and softsign units that sit at an end for nearly all of it

    Args:
        inputs, targets: the batch; arrays, or dictionaries of arrays.
        output_layer: name of the last layer, searched for in nested models too.
    """

    def __init__(self, inputs: Any, targets: Any, output_layer: str = "output") -> None:
        super().__init__()
        self.inputs, self.targets, self.output_layer = inputs, targets, output_layer
        self.gradients: Gradients | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the old gradients: the loss may have changed since the last training."""
        self.gradients = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure and log."""
        if logs is None:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # exploded weights are measured like any others
            logs.update(self._output())
            logs.update(self._units())

    def _output(self) -> dict[str, float]:
        weights = self._layer().trainable_variables
        loss = keras.losses.get(self.model.loss)
        if self.gradients is None:
            terms = [lambda y, output: ops.mean(loss(y, output))]
            if hasattr(loss, "terms"):
                terms += [lambda y, output: ops.mean(loss.terms(y, output)[0])]
                terms += [lambda y, output: loss.terms(y, output)[1]]
            self.gradients = Gradients(self.model, terms, weights)
        whole, *parts = [norm(*found) for found in self.gradients(self.inputs, self.targets)]
        found = {"output_weight_norm": norm(ops.convert_to_numpy(weights[0])), "output_gradient_norm": whole}
        if parts:
            base, added = parts
            found["gradient_ratio"] = added / base if base > 0 else float("nan")
        return found

    def _layer(self) -> Any:
        for layer in self.model._flatten_layers():
            if layer.name == self.output_layer and layer.trainable_variables:
                return layer
        raise ValueError(
            f"LayerMonitor needs a layer named '{self.output_layer}' with weights. "
            f"Received: {[layer.name for layer in self.model.layers]}. Name the last layer with `output_layer`."
        )

    def _units(self) -> dict[str, float]:
        bounded = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0)}
        active = [layer for layer in self.model._flatten_layers() if _activation(layer) not in ("", "linear")]
        dead, saturated = [], []
        outputs: dict[int, np.ndarray] = {}

        def see(layer: Any, result: Any) -> None:
            outputs[id(layer)] = ops.convert_to_numpy(result).astype("float64")

        with watched(active, see):
            self.model(self.inputs, training=False)
        for layer in active:
            if id(layer) not in outputs:
                continue
            values = outputs[id(layer)].reshape(-1, outputs[id(layer)].shape[-1])  # (·, units)
            size = float(np.sqrt(np.mean(values**2)))
            dead.append(values.std(axis=0) <= 1e-4 * max(size, 1e-12))
            low, high = bounded.get(_activation(layer), (-np.inf, np.inf))
            at_end = np.minimum(values - low, high - values) < 0.01
            saturated.append(at_end.mean(axis=0) > 0.95)
        found = {"dead_units": dead, "saturated_units": saturated}
        return {name: float(np.concatenate(units).mean()) for name, units in found.items() if units}


def _activation(layer: Any) -> str:
    return getattr(getattr(layer, "activation", None), "__name__", "")


@contextlib.contextmanager
def watched(layers: Sequence[Any], see: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call `see(layer, output)` for each of these layers while the block runs; Keras has no hooks for it."""

    def watch(layer: Any) -> Any:
        call = layer.call

        def seen(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            see(layer, result)
            return result

        return seen

    for layer in layers:
        layer.call = watch(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def norm(*arrays: np.ndarray) -> float:
    """The Euclidean norm of all entries together, in float64: float32 overflows where a training explodes."""
    return float(np.sqrt(sum(float((array.astype("float64") ** 2).sum()) for array in arrays)))


def first_column(prediction: Any) -> np.ndarray:
    """The predictions of a model, (n,): its only column, or the first where the others hold a distribution."""
    values = ops.convert_to_numpy(prediction)
    return values.reshape(len(values), -1)[:, 0]


class PredictionSnapshots(keras.callbacks.Callback):
    """Keep the validation predictions of chosen epochs (1, 5, 10, 20 in the reference recipe), to see them spread out.

    Args:
        inputs: what `model.predict` takes: arrays, or batches in a fixed order.
        epochs: 1-based epochs to keep.
        batch_size: batch size for `model.predict`.
        keep: turns the model's output into the numbers to keep, (n,).
    """

    def __init__(
        self,
        inputs: Any,
        epochs: tuple[int, ...] = (1, 5, 10, 20),
        batch_size: int = 256,
        keep: Callable[[Any], np.ndarray] = first_column,
    ) -> None:
        super().__init__()
        self.inputs, self.keep = inputs, keep
        self.epochs = tuple(whole("PredictionSnapshots", "epochs", epoch, 1) for epoch in np.ravel(epochs))
        self.batch_size = whole("PredictionSnapshots", "batch_size", batch_size, 1)
        self.predictions: dict[int, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Predict after a chosen epoch."""
        if epoch + 1 in self.epochs:
            prediction = self.model.predict(self.inputs, batch_size=self.batch_size, verbose=0)
            self.predictions[epoch + 1] = self.keep(prediction)

    def get_state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {f"epoch_{epoch}": values for epoch, values in self.predictions.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state`."""
        self.predictions = {int(name.removeprefix("epoch_")): values for name, values in state.items()}
