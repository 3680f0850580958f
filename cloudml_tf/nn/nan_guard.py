"""Stop at the first number that is NaN or infinite, and name the tensor that it came from.

Tensors are checked in the order in which a step uses them: inputs, targets and sample weights, the weights of the
model, the output of each layer, the terms of the loss, the gradients. Works for any Keras model with one loss, its own
included, whose gradients are not looked at.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn.arguments import whole
from cloudml_tf.nn.backend import Gradients
from cloudml_tf.nn.best_weights import announce
from cloudml_tf.nn.monitors import watched

REMEDY = (
    "Lower training.learning_rate, set training.gradient_clip_norm, or look for extreme values in the frames and "
    "labels."
)


class NotFinite(keras.callbacks.Callback):
    """Stop at once when the loss of a batch, or the weights, are NaN or infinite; put the last good weights back.

    Sets `message`. The last good weights are those at the start of the epoch, which has no scores: its validation
    columns in the log become NaN. Put this callback first.

    To name the batch and the tensor that were not finite first, the steps since the last check are repeated, which
    needs the batches and weights as they were. JAX hides the weights from callbacks: there no tensor is named.

    Args:
        batches: the batches of `model.fit`, in its order and not changed by reading: `batches[n]` is
            (inputs, target[, weight]). With None no tensor is named.
        every: batches between two checks of all weights, which are kept then.
        verbose: 1 says when the training is stopped, 0 says nothing.
        remedy: what the message ends with; by default the settings of a training.
    """

    def __init__(
        self, batches: Sequence[Any] | None = None, every: int = 50, verbose: int = 1, remedy: str = REMEDY
    ) -> None:
        super().__init__()
        self.batches, self.every = batches, whole("NotFinite", "every", every, 1)
        self.verbose, self.remedy = int(verbose), remedy
        self.message = ""
        self._good: list[Any] | None = None
        self._kept: tuple[int, dict[str, Any]] | None = None  # the next batch, and all that it starts from

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember the weights before this epoch."""
        self._epoch, self._batch, self._kept = epoch, -1, None
        if not self.message:
            self._good = [ops.convert_to_numpy(weight) for weight in self.model.weights]

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the state that the next steps start from, if it is finite."""
        sees_weights = self.batches is not None and keras.backend.backend() != "jax"
        if batch % self.every == 0 and sees_weights and not self.message:
            state = self._state()
            if all_finite(state["model"]):
                self._kept = batch, state
            else:
                self._stop("The weights became NaN or infinite", batch - 1)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the running mean of the loss, which stays NaN once a batch was."""
        self._batch = batch
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss) and not self.message:
            self._stop(f"The loss became {loss}", batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the weights that the last steps left. An epoch that did not end well has no scores."""
        if not self.message and not all_finite(self.model.weights):
            self._stop("The weights became NaN or infinite", self._batch)
        self.restore()  # a step of the corrupted optimizer may have followed
        if self.message and logs is not None:
            logs.update({key: math.nan for key in logs if key == "loss" or key.startswith("val_")})

    def restore(self) -> None:
        """Put the last good weights back, if something was not finite."""
        if self.message and self._good is not None:
            self.model.set_weights(self._good)

    def _stop(self, what: str, batch: int) -> None:
        found, cause = self._cause(batch)
        first = f" Not finite first: {cause}." if cause else ""
        self.message = f"{what} in epoch {self._epoch + 1}, batch {found + 1}.{first} {self.remedy}"
        if self.verbose:
            announce(self.message)
        self.model.stop_training = True
        self.restore()

    def _cause(self, last: int) -> tuple[int, str]:
        """Repeat the steps since the last check; return the batch (0-based) and the tensor that are not finite
        first."""
        if self.batches is None or self._kept is None:
            return last, ""
        first, state = self._kept
        try:
            for number in range(first, last + 1):
                self._put(state)
                batch = self.batches[number]
                self.model.reset_metrics()
                loss = self.model.train_on_batch(*batch, return_dict=True)["loss"]
                after = self._state()
                if not (math.isfinite(float(loss)) and all_finite(after["model"])):
                    self._put(state)
                    return number, first_not_finite(self.model, *batch)
                state = after
        except Exception as error:  # a failed search must not hide the first error
            return last, f"not found ({type(error).__name__}: {str(error).splitlines()[0]})"
        return last, ""

    def _state(self) -> dict[str, Any]:
        model, loss = self.model, self.model.loss
        found = {"model": model.variables, "optimizer": model.optimizer.variables}
        kept: dict[str, Any] = {name: [ops.convert_to_numpy(v) for v in values] for name, values in found.items()}
        return {**kept, "pool": loss.pool_state() if hasattr(loss, "pool_state") else None}

    def _put(self, state: dict[str, Any]) -> None:
        model = self.model
        for variables, values in ((model.variables, state["model"]), (model.optimizer.variables, state["optimizer"])):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        if state["pool"] is not None:
            model.loss.set_pool_state(state["pool"])


def all_finite(arrays: Any) -> bool:
    """Whether every number in a nested structure of arrays or tensors is finite."""
    return not any(fault(array) for array in keras.tree.flatten(arrays))


def fault(tensor: Any) -> str:
    """Describe what is not finite: "3 of 128 values are NaN"; "" where all are finite or not numbers."""
    values = np.asarray(ops.convert_to_numpy(tensor))
    if values.dtype.kind in "biuSUO" or not values.size:
        return ""
    values = values.astype("float64")  # bfloat16 too, which NumPy does not know
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    found = ((nan, "NaN"), (infinite, "infinite"))
    return " and ".join(f"{count:,} of {values.size:,} values are {name}" for count, name in found if count)


def first_not_finite(model: Any, inputs: Any, target: Any = None, weight: Any = None) -> str:
    """What is not finite first in a training step on this batch, such as "the output of layer 'dense': …"; "" if
    nothing.

    Args:
        model: compiled, with its weights as they were before the step.
        inputs, target, weight: a batch as `model.fit` gets it; without a target for a model with a loss of its own.
    """
    faults = ((name, fault(tensor)) for name, tensor in _tensors(model, inputs, target, weight))
    return next((f"{name}: {found}" for name, found in faults if found), "")


def _tensors(model: Any, inputs: Any, target: Any, weight: Any) -> Iterator[tuple[str, Any]]:
    for path, value in _named(inputs):
        yield f"the input {path}".rstrip(), value
    if target is not None:
        yield "the target", target
    if weight is not None:
        yield "the sample weight", weight
    for variable in model.weights:
        yield f"the weight '{variable.path}'", variable
    outputs: list[tuple[str, Any]] = []

    def see(layer: Any, result: Any) -> None:
        outputs.extend((f"the output of layer '{layer.name}'", part) for part in keras.tree.flatten(result))

    with watched(list(model._flatten_layers()), see):
        output = model(inputs, training=True)
    yield from outputs
    yield from _of_loss(model, inputs, target, weight, output)


def _of_loss(model: Any, inputs: Any, target: Any, weight: Any, output: Any) -> Iterator[tuple[str, Any]]:
    if model.loss is None:  # the model computes its own
        yield "the loss", model.compute_loss(x=inputs, y=target, y_pred=output, sample_weight=weight, training=True)
        return
    loss = keras.losses.get(model.loss)
    target = ops.convert_to_tensor(target)
    if hasattr(loss, "terms"):
        base, added = loss.terms(target if weight is None else (target, ops.convert_to_tensor(weight)), output)
        yield "the base loss", base
        yield "the variance term of the loss", added

    def whole(y: Any, output: Any) -> Any:
        found = loss(y, output) if not hasattr(loss, "reduction") or weight is None else loss(y, output, weight)
        return ops.mean(found)

    yield "the loss", whole(target, output)
    variables = model.trainable_variables
    for variable, gradient in zip(variables, Gradients(model, [whole], variables)(inputs, target)[0], strict=True):
        yield f"the gradient of '{variable.path}'", gradient


def _named(inputs: Any) -> list[tuple[str, Any]]:
    if isinstance(inputs, dict):
        return [(f"'{name}'", value) for name, value in inputs.items()]
    return [("", value) for value in keras.tree.flatten(inputs)]
