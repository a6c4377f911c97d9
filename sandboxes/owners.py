"""Who owns a container: a process that can be recognised as dead, also when its number is used again."""

import functools
import os
import socket
from pathlib import Path

RUN_LABEL = "agentdata.run"
OWNER_LABEL = "agentdata.owner"


@functools.lru_cache(maxsize=8)
def owner_of(pid: int) -> str:
    """`host|boot|namespace|pid|start` of a process of this machine."""
    return "|".join((*_machine(), str(pid), _started(pid)))


def this_owner() -> str:
    """The owner that labels what this process makes."""
    return owner_of(os.getpid())


def is_dead(owner: str) -> bool:
    """Whether an owner is known to have ended. Owners on other machines are never known to have."""
    parts = owner.split("|")
    if len(parts) != 5 or not parts[3].isdigit():
        return False
    host, boot, space, pid, started = parts
    our_host, our_boot, our_space = _machine()
    if host != our_host:
        return False
    if boot != our_boot:
        return True
    return space == our_space and _started(int(pid)) != started


@functools.cache
def _machine() -> tuple[str, str, str]:
    return socket.gethostname(), _text("/proc/sys/kernel/random/boot_id"), _namespace()


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty when there is none."""
    if not Path("/proc/self/stat").exists():
        return _alive(pid)
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # The state is field 3 of proc(5), the start time is field 22. A zombie owns nothing any more.
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _alive(pid: int) -> str:
    """Where there is no /proc, a process with that number counts as the same."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
