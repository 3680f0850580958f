"""Processes beside each other: how many threads each takes."""

import contextlib
import os
from collections.abc import Iterator

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
