"""What TensorFlow and Keras keep of networks that nobody uses any more."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def forgotten_graphs() -> Iterator[None]:
    """Let what is built and traced inside be freed with the models that it belongs to.

    Three registers last as long as the process. What came into them inside is struck out at the end:

    - the gradient of each `tf.custom_gradient` that TensorFlow has traced, and through it the whole graph: of a small
      training 25 MB, which `keras.utils.clear_session` leaves behind (keras issue 20552). By the end Keras has built
      the gradients of its steps; only somebody who differentiates through a finished graph from outside would look
      for them;
    - the functions that `tf.data` pipelines have called, in the default graph;
    - Keras's count of names. TensorFlow compiles a kernel for each name that a variable has had, and keeps it: of
      a small training 1 MB, unless the next one gives the same names.

    So what stands inside needs no `keras.utils.clear_session` after it. That throws all kernels away, which are then
    compiled anew, and each time TensorFlow keeps some bytes of each.

    It stands around what is done again and again in one process, one at a time: a training, a search's trial, a
    prediction. Where TensorFlow or Keras is not loaded, or has moved a register, there is nothing to strike out.
    """
    gradients, called, names = set(_gradients()), len(_called()), dict(_names())
    try:
        yield
    finally:
        register = _gradients()
        for name in [name for name in register if name not in gradients]:
            if name.startswith("CustomGradient-"):
                del register[name]
        del _called()[called:]
        counts = _names()
        counts.clear()
        counts.update(names)


def _gradients() -> dict[str, Any]:
    """Name -> gradient; empty where there is none. Not imported: who has not loaded TensorFlow has no graphs."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    register = getattr(getattr(ops, "_gradient_registry", None), "_registry", None)
    return register if isinstance(register, dict) else {}


def _called() -> list[Any]:
    """Python functions that the default graph keeps."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    register = getattr(ops.get_default_graph(), "_py_funcs_used_in_graph", None) if ops else None
    return register if isinstance(register, list) else []


def _names() -> dict[str, int]:
    """Name -> how often Keras has given it."""
    state = sys.modules.get("keras.src.backend.common.global_state")
    register = state.get_global_attribute("object_name_uids") if state else None
    return register if isinstance(register, dict) else {}
