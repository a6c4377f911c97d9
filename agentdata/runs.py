"""A directory that holds a run: who may write it, and what it was begun with."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agentdata.errors import AgentdataError, RunError, UsageError, explain_os_error
from agentdata.shards import write_whole

MOST_SHOWN = 3
"""Entries of a list that a sentence about it shows."""


@contextmanager
def locked(run: Path, share: tuple[int, int]) -> Iterator[None]:
    """Hold the run: the whole alone, shares beside each other."""
    whole = share == (1, 1)
    try:
        _refuse_foreign(run)
        run.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for name, kind in (
                (".lock-1-of-1", fcntl.LOCK_EX if whole else fcntl.LOCK_SH),
                (f".lock-{share[0]}-of-{share[1]}", fcntl.LOCK_EX),
            )[: 1 if whole else 2]:
                lock = locks.enter_context(open(run / name, "w"))
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RunError(
                        f"{run} is being written by another process: wait for it, or choose another -o."
                    ) from error
            yield
    except AgentdataError:
        raise
    except OSError as error:
        raise explain_os_error(error, f"writing the run {run}") from error


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Shares that plan or finish wait for one another."""
    with open(run / ".lock-plan", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refuse_foreign(run: Path) -> None:
    """Raise UsageError for a directory that holds something else than a run."""
    names = [entry.name for entry in run.iterdir()] if run.is_dir() else []
    others = [name for name in names if not name.startswith((".lock", "config.json"))]
    others += [name for name in names if name == "config.json"]
    # A run that another share begins just now has its configuration before it has anything else: look for that last.
    if others and _begun(run) is None:
        raise UsageError(f"{run} is not empty ({others[0]} is there) and holds no run: choose a new directory with -o.")


def _begun(run: Path) -> dict[str, object] | None:
    """The configuration of a run that was begun in a directory."""
    try:
        found = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= {"generator", "options"} else None


def settle(run: Path, configuration: dict[str, object]) -> bool:
    """Write what was asked for and return true, or refuse to continue a run that was asked for something else."""
    wanted = json.loads(json.dumps(configuration))
    path = run / "config.json"
    have = _begun(run)
    if have is None:
        write_whole(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
        return True
    if have != wanted:
        key, old, new = next(_differences(have, wanted, ""))
        raise UsageError(
            f"{run} was begun with another configuration: {key} was {old!r} and is now {new!r}. Use the old value to "
            "continue it, or another -o to begin anew."
        )
    return False


def _differences(old: object, new: object, key: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif isinstance(old, list) and isinstance(new, list) and _alike(old, new):
        for place, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{key}.{place}")
    elif isinstance(old, list) and isinstance(new, list) and old != new:
        gone, come = [one for one in old if one not in new], [one for one in new if one not in old]
        yield key, (gone if gone or come else old)[:MOST_SHOWN], (come if gone or come else new)[:MOST_SHOWN]
    elif old != new:
        yield key, old, new


def _alike(old: list[object], new: list[object]) -> bool:
    """Whether two lists hold as many mappings and nothing else, so that their values are compared one by one."""
    return len(old) == len(new) and all(isinstance(one, dict) for one in (*old, *new))


def is_written(run: Path) -> bool:
    """Whether a process works on a run just now."""
    try:
        with open(run / ".lock-1-of-1") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
