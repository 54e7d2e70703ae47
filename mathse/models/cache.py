"""A least-recently-used cache bounded by the bytes it holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Drops the least recently used values when the sizes that ``put`` was given exceed ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._held: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __reduce__(self) -> tuple[type[BoundedCache[Value]], tuple[int]]:
        """Pickle the limit only: another process gets an empty cache."""
        return type(self), (self.limit,)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def __getitem__(self, key: Hashable) -> Value:
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        if key in self._held:
            self.size -= self._held.pop(key)[1]
        self._held[key] = (value, size)
        self.size += size
        # The least recently used value is dropped first; a value larger than the limit is dropped at once.
        while self.size > self.limit:
            self.size -= self._held.popitem(last=False)[1][1]
