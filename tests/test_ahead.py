"""Items drawn by a thread of their own arrive whole, in order, with their errors, and the thread ends."""

import threading
import time

import pytest

from cloudml_tf.utils.prefetch import ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


def test_items_keep_their_order_and_are_drawn_before_they_are_asked_for() -> None:
    drawn = []

    def source():
        for number in range(5):
            drawn.append(number)
            yield number

    items = ahead(source(), count=1)
    assert next(items) == 0
    deadline = time.monotonic() + 5.0
    while len(drawn) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert drawn == [0, 1, 2]  # one in the queue, one in hand
    assert list(items) == [1, 2, 3, 4]
    assert not threads()


def test_an_error_comes_in_its_place() -> None:
    def source():
        yield 1
        raise ValueError("the second is broken")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second is broken"):
        next(items)
    assert not threads()


def test_a_caller_that_stops_early_leaves_no_thread_and_the_source_is_closed() -> None:
    closed = []

    def source():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    items = ahead(source())
    next(items)
    items.close()
    assert not threads()
    assert closed == ["ahead"]
