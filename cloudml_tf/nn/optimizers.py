"""AdamW with all weights in one vector: the steps of Keras's, in a few large operations instead of a thousand small
ones.

For TensorFlow; on other backends `adamw` returns Keras's own.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cloudml_tf.nn.saved import register

UNDECAYED = ("bias", "gamma", "beta", "steps")  # names of weights without weight decay


@register
class FusedAdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` (Loshchilov and Hutter 2019, arXiv 1711.05101) on one vector of all weights.

    Keras updates weight by weight: on TensorFlow's CPU fifty operations each, most of it overhead. Here the moments are
    two vectors, and the trained weights differ by rounding alone. For one device, and dense gradients; a weight without
    a gradient only decays.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: share of a weight that a step takes away, times the learning rate.
        beta_1, beta_2: shares of the old moments that a step keeps.
        epsilon: added to the root of the second moment.
        global_clipnorm: the highest norm of all gradients together.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        global_clipnorm: float | None = None,
        name: str = "adam_w",
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, beta_1, beta_2, epsilon, global_clipnorm=global_clipnorm, name=name
        )

    def build(self, variables: Sequence[Any]) -> None:
        """Create the two moments of all weights."""
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)  # not Adam's, which makes two moments a weight
        self._sizes = [int(np.prod(variable.shape)) for variable in variables]
        self._momentum = self.add_variable((sum(self._sizes),), name="momentum")
        self._velocity = self.add_variable((sum(self._sizes),), name="velocity")

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take one step: clip, decay, move."""
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        self.build(variables)
        self._check(variables)
        weights = _row(variables)
        gradient = _row([ops.zeros_like(v) if g is None else g for g, v in zip(grads, variables, strict=True)])
        if self.global_clipnorm is not None:
            norm = ops.sqrt(ops.sum(ops.square(gradient)))
            gradient *= self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        momentum = self._momentum + (gradient - self._momentum) * (1.0 - self.beta_1)
        velocity = self._velocity + (ops.square(gradient) - self._velocity) * (1.0 - self.beta_2)
        rate = ops.cast(self._get_current_learning_rate(), "float32")
        step = ops.cast(self.iterations + 1, "float32")
        unbiased = ops.sqrt(1.0 - ops.power(self.beta_2, step)) / (1.0 - ops.power(self.beta_1, step))
        decays = np.repeat([self.weight_decay * self._use_weight_decay(v) for v in variables], self._sizes)
        moved = momentum * (rate * unbiased) / (ops.sqrt(velocity) + self.epsilon)
        weights = weights - weights * decays.astype("float32") * rate - moved
        for variable, size, end in zip(variables, self._sizes, np.cumsum(self._sizes).tolist(), strict=True):
            value = ops.reshape(weights[end - size : end], variable.shape)
            variable.assign(value if variable.constraint is None else variable.constraint(value))
        self._momentum.assign(momentum)
        self._velocity.assign(velocity)
        self.iterations.assign_add(1)

    def _check(self, variables: Sequence[Any]) -> None:
        known = self._trainable_variables
        if len(variables) != len(known) or any(v is not k for v, k in zip(variables, known, strict=True)):
            built, received = ([v.path for v in each] for each in (known, variables))
            raise ValueError(
                "FusedAdamW needs the variables that it was built with, all of them and in that order. Built with: "
                f"{built}. Received: {received}. Use keras.optimizers.AdamW for a subset."
            )

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this optimizer."""
        own = ("learning_rate", "weight_decay", "beta_1", "beta_2", "epsilon", "global_clipnorm", "name")
        found = super().get_config()
        return {name: found[name] for name in own}


def _row(arrays: Sequence[Any]) -> Any:
    return ops.concatenate([ops.reshape(array, (-1,)) for array in arrays])


def adamw(
    learning_rate: Any, weight_decay: float, clip_norm: float | None, one_device: bool = True
) -> keras.optimizers.Optimizer:
    """AdamW in its fastest form on this backend: JAX compiles Keras's own to the same, PyTorch has one of its own."""
    fused = one_device and keras.backend.backend() == "tensorflow"
    kind = FusedAdamW if fused else keras.optimizers.AdamW
    return kind(learning_rate, weight_decay=weight_decay, global_clipnorm=clip_norm)
