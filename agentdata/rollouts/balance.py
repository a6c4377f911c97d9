"""Several endpoints to the one that takes the next request."""

import random
import threading
import time
import zlib
from collections.abc import Sequence

from agentdata.rollouts.connections import Connections

SLACK = 4
"""A conversation stays with its endpoint, whose cache holds its beginning, until that one has so many more requests in
flight than the least busy."""
FAULTS_IN_A_ROW = 5
"""So many answers after one another that were none make an endpoint rest: fewer are the requests' own bad luck."""
LEAST_REST_SECONDS = 0.5
MOST_REST_SECONDS = 30.0


class Endpoint:
    """One server, what it does just now, and how long it is left alone."""

    def __init__(self, url: str, *, seconds: float) -> None:
        self.url = url.rstrip("/")
        self.connections = Connections(self.url, seconds=seconds)
        self.in_flight = 0
        self.faults = 0
        """After one another, up to now."""
        self.rests = 0
        self.wakes = 0.0
        """Monotonic time before which nothing is asked of it."""


class Balance:
    """Chooses endpoints for any number of threads."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._lock = threading.Lock()

    def seconds_of_rest(self) -> float:
        """How long every endpoint rests; 0 when one can be asked."""
        now = time.monotonic()
        with self._lock:
            return max(0.0, min(each.wakes for each in self.endpoints) - now)

    def take(self, conversation: bytes, avoid: Endpoint | None = None) -> Endpoint:
        """An endpoint, counted as asked. `avoid` has just failed, and is taken only where no other is awake."""
        now = time.monotonic()
        with self._lock:
            awake = [each for each in self.endpoints if each.wakes <= now]
            chosen = _choose([each for each in awake if each is not avoid] or awake or self.endpoints, conversation)
            chosen.in_flight += 1
            return chosen

    def answered(self, endpoint: Endpoint) -> None:
        """The endpoint did as it should, be it by a refusal."""
        with self._lock:
            endpoint.in_flight -= 1
            endpoint.faults = endpoint.rests = 0

    def failed(self, endpoint: Endpoint, *, down: bool, seconds: float = 0.0) -> None:
        """The endpoint gave nothing that can be used. One that is `down`, or that fails on and on, rests longer each
        time, and never less than the `seconds` that it asked for."""
        with self._lock:
            endpoint.in_flight -= 1
            endpoint.faults += 1
            now = time.monotonic()
            # Requests that were under way when it began to rest tell nothing new.
            if (down or endpoint.faults >= FAULTS_IN_A_ROW) and endpoint.wakes <= now:
                endpoint.wakes = now + back_off(endpoint.rests, LEAST_REST_SECONDS, MOST_REST_SECONDS)
                endpoint.rests += 1
            endpoint.wakes = max(endpoint.wakes, now + seconds)


def back_off(times: int, least: float, most: float) -> float:
    """Seconds that double with each time, half of them by chance, so that those who failed together do not return
    together."""
    return random.uniform(0.5, 1.0) * min(most, least * 2.0 ** min(times, 30))


def _choose(endpoints: Sequence[Endpoint], conversation: bytes) -> Endpoint:
    least = min(each.in_flight for each in endpoints)
    near = [each for each in endpoints if each.in_flight <= least + SLACK]
    return max(near, key=lambda each: zlib.crc32(each.url.encode(), zlib.crc32(conversation)))
