"""SIGTERM as batch systems, containers and `kill` send it: a command ends with one line, and can be resumed."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from cloudml_tf.utils.errors import EXIT_TERMINATED

GRACE_S = 8.0  # a batch system or container kills what still runs after ten seconds or more


class Terminated(BaseException):
    """SIGTERM has arrived. No error: nothing that goes on after errors may go on after it."""


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM arrives. What does not end by that within `GRACE_S` ends as if killed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers
        return

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough: tidying up must not be cut off by the next
        last = threading.Timer(GRACE_S, os._exit, (EXIT_TERMINATED,))
        last.daemon = True
        last.start()
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
