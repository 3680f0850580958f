"""What differs between the backends of Keras: compiled functions, gradients, and sums over replicas.

Only TensorFlow runs Keras code once per replica; the other backends see the global batch. TensorFlow is imported only
where it is the backend.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.masking import get_keras_mask


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function into one graph on TensorFlow, where forty small updates would be forty calls; else
    return it."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def keras_mask(values: Any) -> Any:
    """The mask that layers such as `Masking` leave on their output, (B, T); None without.

    JAX's arrays have no room for an attribute: Keras keeps their masks elsewhere.
    """
    return get_keras_mask(values)


LossTerm = Callable[[Any, Any], Any]  # (targets, output) -> scalar, in `keras.ops`


class Gradients:
    """Computes d term(targets, model(inputs)) / d variable for several terms at once, without dropout.

    Args:
        model: a Keras model.
        terms: functions of (targets, output) that give a scalar.
        variables: the trainable variables of the model whose gradients are wanted.
    """

    def __init__(self, model: Any, terms: Sequence[LossTerm], variables: Sequence[Any]) -> None:
        self.model, self.terms, self.variables = model, list(terms), list(variables)
        backend = keras.backend.backend()
        self._find = {"jax": self._jax, "torch": self._torch}.get(backend) or self._tensorflow()

    def __call__(self, inputs: Any, targets: Any) -> list[list[np.ndarray]]:
        """A list of gradients for each term, in the order of the variables."""
        targets = keras.tree.map_structure(keras.ops.convert_to_tensor, targets)
        return [[keras.ops.convert_to_numpy(g) for g in found] for found in self._find(inputs, targets)]

    def _tensorflow(self) -> Callable[[Any, Any], Any]:
        """Run one forward pass for all terms. It is not compiled: that takes longer than the passes of a short
        training."""
        import tensorflow as tf

        values = [variable.value for variable in self.variables]

        def find(inputs: Any, targets: Any) -> list[list[Any]]:
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(values)  # and no others: what comes before the first of them needs no record
                output = self.model(inputs, training=False)
                losses = [term(targets, output) for term in self.terms]
            zero = tf.UnconnectedGradients.ZERO
            return [tape.gradient(loss, values, unconnected_gradients=zero) for loss in losses]

        return find

    def _torch(self, inputs: Any, targets: Any) -> list[list[Any]]:
        import torch

        values = [variable.value for variable in self.variables]
        found = []
        for term in self.terms:
            loss = term(targets, self.model(inputs, training=False))
            needed = loss.requires_grad  # a term may not look at the output
            gradients = torch.autograd.grad(loss, values, allow_unused=True) if needed else [None] * len(values)
            found.append([torch.zeros_like(v) if g is None else g for g, v in zip(gradients, values, strict=True)])
        return found

    def _jax(self, inputs: Any, targets: Any) -> list[list[Any]]:
        import jax

        trainable = [variable.value for variable in self.model.trainable_variables]
        fixed = [variable.value for variable in self.model.non_trainable_variables]
        index = {id(variable): number for number, variable in enumerate(self.model.trainable_variables)}

        def value(weights: list[Any], term: LossTerm) -> Any:
            return term(targets, self.model.stateless_call(weights, fixed, inputs, training=False)[0])

        gradients = [jax.grad(value)(trainable, term) for term in self.terms]
        return [[g[index[id(variable)]] for variable in self.variables] for g in gradients]


def replica_count() -> int:
    """How many replicas the current `tf.distribute` strategy keeps in sync; 1 outside of any, and on other backends."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def replica_index() -> object:
    """The index of this replica, an int or an integer tensor; 0 outside of a replica."""
    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def sum_over_replicas(sums: Sequence[Any]) -> list[Any]:
    """Sum each scalar over the replicas, with the same result on all; outside of a replica the sums stay as they are.

    The gradient of a sum over replicas is the sum of their gradients, so the gradients of each replica's share of the
    loss add up to that of the whole batch. Shares that add up to 1 (Keras divides by the number of replicas) then count
    exactly once.
    """
    if keras.backend.backend() != "tensorflow":
        return list(sums)
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(sums)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(sums)))
