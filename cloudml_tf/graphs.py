"""What TensorFlow keeps of graphs that nobody uses any more."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def forgotten_graphs() -> Iterator[None]:
    """Let the graphs that are traced inside be freed with the models that they belong to.

    TensorFlow enters the gradient of each `tf.custom_gradient` that it traces into a register that lasts as long as the
    process, and through it the whole graph: of a small training 25 MB, which `keras.backend.clear_session` leaves
    behind (keras issue 20552). What is traced inside is struck out at the end. By then Keras has built the gradients of
    its steps; only somebody who differentiates through a finished graph from outside would look for them.

    It stands around what is done again and again in one process: a training, a search's trial, a prediction. It does
    nothing on other backends, or where TensorFlow has moved its register.
    """
    before = set(_register())
    try:
        yield
    finally:
        register = _register()
        for name in [name for name in register if name not in before]:
            if name.startswith("CustomGradient-"):
                del register[name]


def _register() -> dict[str, Any]:
    """Name -> gradient; empty where there is none. Not imported: who has not loaded TensorFlow has no graphs."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    register = getattr(getattr(ops, "_gradient_registry", None), "_registry", None)
    return register if isinstance(register, dict) else {}
