"""The gradient of a loss with respect to chosen weights, on whichever backend Keras runs."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def variable_gradients(
    model: Any, inputs: Any, loss: Callable[[Any], Any], variables: Sequence[Any]
) -> list[np.ndarray]:
    """d loss(model(inputs)) / d variable for each of `variables` (trainable ones of the model), without dropout.

    Args:
        model: a Keras model.
        inputs: what it takes.
        loss: its output -> a scalar, in `keras.ops`.
        variables: whose gradients are wanted.
    """
    if keras.backend.backend() == "jax":
        return _jax(model, inputs, loss, variables)
    if keras.backend.backend() == "torch":
        return _torch(model, inputs, loss, variables)
    import tensorflow as tf

    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        value = loss(model(inputs, training=False))
    found = tape.gradient(value, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [gradient.numpy() for gradient in found]


def _torch(model: Any, inputs: Any, loss: Callable[[Any], Any], variables: Sequence[Any]) -> list[np.ndarray]:
    import torch

    values = [variable.value for variable in variables]
    found = torch.autograd.grad(loss(model(inputs, training=False)), values, allow_unused=True)
    zeros = (torch.zeros_like(value) if g is None else g for g, value in zip(found, values, strict=True))
    return [gradient.detach().cpu().numpy() for gradient in zeros]


def _jax(model: Any, inputs: Any, loss: Callable[[Any], Any], variables: Sequence[Any]) -> list[np.ndarray]:
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]

    def value(weights: list[Any]) -> Any:
        output, _ = model.stateless_call(weights, fixed, inputs, training=False)
        return loss(output)

    found = jax.grad(value)(trainable)
    places = {id(variable): place for place, variable in enumerate(model.trainable_variables)}
    return [np.asarray(found[places[id(variable)]]) for variable in variables]
