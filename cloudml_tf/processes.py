"""Processes beside each other: whose folder it is, and how many threads each takes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cloudml_tf.errors import RunError

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(count: int | None) -> None:
    """Of TensorFlow and the linear algebra; before they are imported."""
    if count is not None:
        os.environ.update(dict.fromkeys(THREADS, str(count)))


@contextlib.contextmanager
def threads_of_children(count: int | None) -> Iterator[None]:
    """The same for the processes that are started in the block, and not for this one."""
    before = dict(os.environ)
    limit_threads(count)
    try:
        yield
    finally:
        for name in THREADS:
            os.environ.pop(name, None)
            os.environ |= {name: before[name]} if name in before else {}


@contextlib.contextmanager
def held_alone(folder: Path, what: str) -> Iterator[None]:
    """Refuse a second one in the same folder while the first runs. A killed one lets go by itself.

    `what` is it, in words: "a search". Raises `RunError`.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: {what} is running in this folder. Wait for it, or stop it first.") from None
        yield
