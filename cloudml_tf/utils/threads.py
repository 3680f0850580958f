"""Limit the threads of processes that run side by side."""

import contextlib
import os
from collections.abc import Iterator

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
