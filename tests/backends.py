"""Gradients on whichever backend Keras runs, and the backends that are installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}  # backend -> the module it needs


def installed(backend: str) -> bool:
    """Whether this backend can be run here."""
    return find_spec(PACKAGES[backend]) is not None


def gradient(function: Callable[[Any], Any], values: np.ndarray) -> np.ndarray:
    """d function(values) / d values of a scalar function in `keras.ops`, of the shape of `values`."""
    backend = keras.backend.backend()
    found = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend](function, values.astype("float32"))
    return keras.ops.convert_to_numpy(found)


def _tensorflow(function: Callable[[Any], Any], values: np.ndarray) -> Any:
    import tensorflow as tf

    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def _jax(function: Callable[[Any], Any], values: np.ndarray) -> Any:
    import jax

    return jax.grad(function)(jax.numpy.asarray(values))


def _torch(function: Callable[[Any], Any], values: np.ndarray) -> Any:
    import torch

    x = torch.tensor(values, requires_grad=True)
    return torch.autograd.grad(function(x), x)[0]
