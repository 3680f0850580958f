"""Handle SIGTERM from batch systems, containers and `kill`: a command ends with one line, and can be resumed."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from cloudml_tf.utils.errors import EXIT_TERMINATED

GRACE_S = 8.0  # a batch system or container kills what still runs after ten seconds or more


class Terminated(BaseException):
    """SIGTERM has arrived. It is not an `Exception`: code that continues after errors must not continue after this."""


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` when SIGTERM arrives. If cleaning up takes longer than `GRACE_S`, the process exits at
    once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers
        return

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough: the next must not cut off the clean-up
        last = threading.Timer(GRACE_S, os._exit, (EXIT_TERMINATED,))
        last.daemon = True
        last.start()
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
