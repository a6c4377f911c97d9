"""Stops containers that write more than they may, where the engine's storage has no quota of its own.

Also remembers when the engine's disk was full: what failed then says nothing about the command.
"""

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from sandboxes.errors import LimitExceeded, SandboxError

if TYPE_CHECKING:
    from sandboxes.engine import Engine

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_COUNTS = 5.0
"""How often containers are counted where the engine's disk cannot be seen from here."""
FULL_BYTES = 16 << 20
"""With less room than this the engine's disk counts as full."""


class DiskWatch:
    """A thread that looks at the disk's free space, and counts what containers wrote when it shrank enough to matter.

    Counting makes the engine walk the container's files, looking costs nothing: as long as the disk lost less than the
    room that any container has left, none can have passed its limit.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._written: dict[str, int] = {}
        self._free = -1
        self._counted = 0.0
        self._full = -1.0

    def begin(self) -> None:
        """Start the thread if it does not run."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Let the thread end."""
        self._stop.set()

    def was_full(self, since: float) -> bool:
        """Whether the engine's disk had no room at some moment since a time of the monotonic clock."""
        self._look()
        return self._full >= since

    def _look(self) -> int:
        """Free bytes of the engine's disk; -1 where it is not to be seen from here."""
        free = _free_bytes(self._engine.root)
        if 0 <= free < FULL_BYTES:
            self._full = time.monotonic()
        return free

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            if self._matters():
                with contextlib.suppress(SandboxError):
                    self._count()

    def _matters(self) -> bool:
        live = self._engine.live()
        if not live:
            return False
        free = self._look()
        if free < 0:
            return time.monotonic() - self._counted > SECONDS_BETWEEN_COUNTS
        if self._free < 0 or free > self._free:
            # Others freed space meanwhile, which hides what was written: begin again from here.
            self._free = free
        room = min(box.limits.disk_bytes - self._written.get(box.id, 0) for box in live)
        return self._free - free >= room or time.monotonic() - self._counted > 6 * SECONDS_BETWEEN_COUNTS

    def _count(self) -> None:
        self._free = _free_bytes(self._engine.root)
        self._counted = time.monotonic()
        live = self._engine.live()
        counted: dict[str, int] = {}
        for box in live:
            with self._engine.call("counting what a container wrote") as api:
                path = api._url("/containers/{0}/json", box.id)
                size = api._result(api._get(path, params={"size": 1}), True).get("SizeRw") or 0
            counted[box.id] = size
            if size > box.limits.disk_bytes:
                limit = box.limits.disk_bytes
                box.stop(
                    LimitExceeded(
                        f"it wrote {size / 1e9:.1f} GB to its disk, more than its limit of {limit / 1e9:.1f} GB"
                    )
                )
        self._written = counted


def _free_bytes(directory: str) -> int:
    """What users other than root can still write to the engine's disk; -1 where it is not to be seen from here."""
    try:
        found = os.statvfs(directory)
    except (OSError, ValueError):
        return -1
    return found.f_bavail * found.f_frsize
