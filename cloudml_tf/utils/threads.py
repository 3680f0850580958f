"""Limit the threads of processes that run side by side, and end worker processes with the one that started them."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from cloudml_tf.utils.tf_logging import set_log_level

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(count: int | None) -> None:
    """Limit TensorFlow and BLAS to `count` threads. Call before importing either."""
    if count is not None:
        os.environ.update(dict.fromkeys(THREADS, str(count)))


@contextlib.contextmanager
def threads_of_children(count: int | None) -> Iterator[None]:
    """Limit the threads of the processes that are started in the block, and not of this one."""
    before = dict(os.environ)
    limit_threads(count)
    try:
        yield
    finally:
        for name in THREADS:
            os.environ.pop(name, None)
            os.environ |= {name: before[name]} if name in before else {}


def begin_child(until: Callable[[], object]) -> None:
    """Call first in a worker process: it ends with the process that started it, even if that was killed.

    Otherwise it would work on beside a restart, in the same folders.

    Args:
        until: returns or raises `EOFError` when the other end of a pipe is closed: the parent holds that, says nothing,
            and the system closes it with the parent.
    """
    set_log_level()
    threading.Thread(target=_end_after, args=(until,), daemon=True).start()


def _end_after(until: Callable[[], object]) -> None:
    with contextlib.suppress(EOFError, OSError):
        until()
    os._exit(1)
