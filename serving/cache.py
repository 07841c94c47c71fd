"""Encoded answers of the newest queries, and rows that do not change any more: a hit costs a look-up."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class Cache:
    """Values by key, the least recently asked for leaving first. A key holds the version of what it was made of."""

    def __init__(self, size: int) -> None:
        self._size = size  # bytes of all values
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Any | None:
        """The value kept under a key, None where there is none."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of so many bytes; one larger than a quarter of the cache is not worth the others."""
        if size > self._size // 4:
            return
        self._bytes += size - self._held.pop(key, (None, 0))[1]
        self._held[key] = value, size
        while self._bytes > self._size:
            _, (_, gone) = self._held.popitem(last=False)
            self._bytes -= gone
