"""Choices drawn from bytes: one generator serves hypothesis, which shrinks bytes, and a fuzzer, which bends them.

When the bytes are used up, choices go on from a random generator that they seed: short inputs are rich too, and every
input always gives the same case.
"""

import random
import zlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Choices:
    """What one string of bytes decides."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0
        self._after = random.Random(zlib.crc32(data))

    def below(self, count: int) -> int:
        """0 to count - 1."""
        size = max((count - 1).bit_length() + 7, 8) // 8
        taken = self._data[self._place : self._place + size]
        self._place += size
        return int.from_bytes(taken, "big") % count if len(taken) == size else self._after.randrange(count)

    def one_in(self, count: int) -> bool:
        """True once in so many times."""
        return self.below(count) == 0

    def pick(self, items: Sequence[Item]) -> Item:
        """One of them."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[Item], most: int) -> list[Item]:
        """One to `most` of them, with repetition."""
        return [self.pick(items) for _ in range(1 + self.below(most))]
