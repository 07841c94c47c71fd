"""Encoded answers of the newest queries: a hit costs a look-up, whatever the answer's size."""

from collections import OrderedDict
from collections.abc import Hashable


class Cache:
    """Answers by key, the least recently asked for leaving first. A key holds the version of what it was made of."""

    def __init__(self, size: int) -> None:
        self._size = size  # bytes of answers
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        """The answer kept under a key, None where there is none."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: Hashable, answer: bytes) -> None:
        """Keep an answer; one larger than a quarter of the cache is not worth the others."""
        if len(answer) > self._size // 4:
            return
        self._bytes += len(answer) - len(self._held.pop(key, b""))
        self._held[key] = answer
        while self._bytes > self._size:
            _, gone = self._held.popitem(last=False)
            self._bytes -= len(gone)
