"""A least-recently-used cache that is bounded by the weight of what it holds."""

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """Keeps the most recently used values up to a total weight; the newest is kept however heavy it is."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key) -> Value | None:
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, weight: int = 1) -> Value:
        """Keep a value, letting go of the least recently used ones; returns it."""
        if key in self._values:
            self._held -= self._values.pop(key)[1]
        self._values[key] = (value, weight)
        self._held += weight
        while self._held > self._most and len(self._values) > 1:
            self._held -= self._values.popitem(last=False)[1][1]
        return value
