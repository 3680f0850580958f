"""Free what TensorFlow and Keras keep of networks that are no longer used."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def forgotten_graphs() -> Iterator[None]:
    """Let what is built and traced inside the block be freed with its models.

    Three global registries last as long as the process. Entries made inside the block are removed at its end:

    - the gradient of each `tf.custom_gradient` that TensorFlow has traced, and through it the whole graph: 25 MB for a
      small training, which `keras.utils.clear_session` leaves behind (keras issue 20552). By then Keras has built the
      gradients of its steps; only code that differentiates through a finished graph from outside would look for them;
    - the functions that `tf.data` pipelines have called, in the default graph;
    - Keras's count of names. TensorFlow compiles a kernel for each name that a variable has had, and keeps it: 1 MB for
      a small training, unless the next one uses the same names.

    So no `keras.utils.clear_session` is needed after the block. That call discards all kernels, which are then compiled
    again, and each time TensorFlow keeps some bytes of each.

    Use it around what is repeated in one process, one at a time: a training, a search's trial, a prediction. Where
    TensorFlow or Keras is not loaded, or has moved a registry, there is nothing to remove.
    """
    gradients, called, names = set(_gradients()), len(_called()), dict(_names())
    try:
        yield
    finally:
        register = _gradients()
        for name in [name for name in register if name not in gradients and name.startswith("CustomGradient-")]:
            del register[name]
        del _called()[called:]
        counts = _names()
        counts.clear()
        counts.update(names)


def _gradients() -> dict[str, Any]:
    """Name -> gradient; empty where there is none. Without an import: a process without TensorFlow has no graphs."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    register = getattr(getattr(ops, "_gradient_registry", None), "_registry", None)
    return register if isinstance(register, dict) else {}


def _called() -> list[Any]:
    """Python functions that the default graph keeps."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    register = getattr(ops.get_default_graph(), "_py_funcs_used_in_graph", None) if ops else None
    return register if isinstance(register, list) else []


def _names() -> dict[str, int]:
    """Name -> how often Keras has used it."""
    state = sys.modules.get("keras.src.backend.common.global_state")
    register = state.get_global_attribute("object_name_uids") if state else None
    return register if isinstance(register, dict) else {}
