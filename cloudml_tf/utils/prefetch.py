"""Read one item while another is processed."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], count: int = 1) -> Generator[Item]:
    """Yield the same items in the same order, read by a thread that is at most `count` + 1 items in front.

    Whatever the iterator opens, it opens, uses and closes in that thread alone. Its errors are raised here, in order;
    where the caller stops early, the thread ends after the current item.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: Item | None = None, error: BaseException | None = None, more: bool = False) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error, more), timeout=0.1)
                return

    def draw() -> None:
        try:
            for item in items:
                put(item, more=True)
                if stopped.is_set():
                    return
            put()
        except BaseException as error:  # whatever it is, the caller must see it
            put(error=error)
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=draw, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, more = ready.get()
            if error is not None:
                raise error
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
