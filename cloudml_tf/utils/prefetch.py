"""Read one item while another is processed."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], count: int = 1) -> Generator[Item]:
    """Yield the same items in the same order, read by a thread that is at most `count` + 1 items in front.

    Whatever the iterator opens, it opens, uses and closes in that thread alone. Its errors are raised here, in order;
    where the caller stops early, the thread ends after the current item.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, initializer=_name_thread) as thread:
        drawn = deque(thread.submit(next, items, end) for _ in range(count + 1))
        try:
            while (item := drawn.popleft().result()) is not end:
                drawn.append(thread.submit(next, items, end))
                yield item
        finally:
            for future in drawn:
                future.cancel()
            if hasattr(items, "close"):
                thread.submit(items.close)


def _name_thread() -> None:
    threading.current_thread().name = "ahead"  # without the number that a pool adds
