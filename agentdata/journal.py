"""Expensive work, kept row by row as it finishes: a journal beside the tables, turned into shards at the end.

RUN/journal.jsonl holds one line for each finished job. A line that a stop tore is dropped, and its job is owed again.
Jobs run in threads, since what they wait for runs elsewhere: in sandboxes, on a model's server. A job may have a second
part, as the grading of an attempt: with threads and tries of its own, and what the first part gave is kept before it.
"""

import json
import os
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Generic, Protocol, Self, TypeVar

from agentdata import __version__
from agentdata.errors import AgentdataError, OwedError, RunError, explain_os_error
from agentdata.progress import Progress
from agentdata.records import SCHEMA_VERSION, Manifest, Record, Rejected
from agentdata.runs import locked, settle
from agentdata.shards import UnitOutput, collect, counted, read_manifest, remove_unfinished, write_whole

GENERATOR = f"agentdata {__version__}"
UNIT = "all"
BACK_OFF = (1.0, 5.0, 20.0)
"""Seconds before each further try of a job that failed for no fault of its own."""
STATUS = "status.txt"
"""File of a run that says where it stands."""
SECONDS_BETWEEN_LOOKS = 1.0
MOST_OWED = 3
"""Jobs that may be given up one after the other before the run stops."""


class Keyed(Protocol):
    """A job with a name that is the same whenever the same is asked for."""

    @property
    def key(self) -> str: ...


Job = TypeVar("Job", bound=Keyed)


@dataclass
class Finished:
    """What a job gave: rows by table, and counts."""

    rows: list[tuple[str, Record]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, table: str, row: Record) -> None:
        self.rows.append((table, row))

    def reject(self, row: Rejected) -> None:
        """Keep what did not become a row, and count its reason."""
        self.add("rejected", row)
        self.counts[f"rejected/{row.stage}/{row.reason}"] += 1


@dataclass(frozen=True)
class Then(Generic[Job]):
    """The second part of each job. What it gives takes the place of what the first gave."""

    work: Callable[[Job, Finished], Finished]
    """Raises OwedError as the first part does; the first is not done again for it."""
    workers: int


class Journal:
    """The lines of finished jobs. Opening it drops a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, int] = {}
        """Key to the offset of its line."""
        self._lock = threading.Lock()
        self._file: IO[bytes] = open(path, "a+b")  # noqa: SIM115 - closed on exit
        self._file.seek(0)
        place = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            self.places[json.loads(line)["key"]] = place
            place += len(line)
        self._file.truncate(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, key: str, finished: Finished) -> None:
        """Keep what a job gave, durably."""
        rows = [[table, row.model_dump()] for table, row in finished.rows]
        line = json.dumps({"key": key, "counts": dict(finished.counts), "rows": rows}, ensure_ascii=False) + "\n"
        with self._lock:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            self.places[key] = place

    def read(self, key: str, tables: Mapping[str, type[Record]]) -> Finished:
        """What a finished job gave."""
        with self._lock:
            self._file.seek(self.places[key])
            text = self._file.readline()
        line = json.loads(text)
        rows = [(table, tables[table].model_validate_json(json.dumps(row))) for table, row in line["rows"]]
        return Finished(rows, Counter(line["counts"]))


def run_journaled(
    run: Path,
    options: Mapping[str, object],
    plan: Callable[[], Sequence[Job]],
    work: Callable[[Job], Finished],
    *,
    tables: Mapping[str, type[Record]],
    title: str,
    unit: str,
    workers: int,
    then: Then[Job] | None = None,
    status: Callable[[], str] | None = None,
) -> Manifest:
    """Do every job of `plan()` that an earlier call with the same options did not finish; then write shards and manifest.

    `work` raises OwedError for a fault that is not the job's own: the job is tried again, and at last left owed.
    `status` says what else is worth showing beside the progress.
    Raises UsageError for other options than before, RunError when jobs are owed.
    """
    with locked(run, (1, 1)):
        settle(run, {"generator": GENERATOR, "options": dict(options)})
        if (run / "manifest.json").is_file():
            return read_manifest(run)
        remove_unfinished(run)
        jobs = plan()
        last = _second if then is not None else str
        with Journal(run / "journal.jsonl") as journal:
            parts = [_Part(work, workers, str)]
            if then is not None:
                parts.append(_Part(partial(_continue, then, journal, tables), then.workers, _second))
            done = sum(last(job.key) in journal.places for job in jobs)
            with Progress(title, len(jobs), done=done, unit=unit, status=status, file=run / STATUS) as progress:
                faults = _Work(parts, jobs, journal, progress).do()
            if faults:
                left = sum(last(job.key) not in journal.places for job in jobs)
                raise RunError(f"{left} of {len(jobs)} {unit} are owed; run the same command again. {faults[-1]}")
            manifest = _finish(run, [last(job.key) for job in jobs], journal, tables)
        for name in ("journal.jsonl", STATUS):
            (run / name).unlink(missing_ok=True)
        return manifest


def _second(key: str) -> str:
    return f"{key}#2"


def _continue(then: Then[Job], journal: Journal, tables: Mapping[str, type[Record]], job: Job) -> Finished:
    return then.work(job, journal.read(job.key, tables))


@dataclass
class _Part(Generic[Job]):
    """One part of every job: what is done, by how many threads, and the key of its line."""

    work: Callable[[Job], Finished]
    workers: int
    key: Callable[[str], str]
    waiting: deque[Job] = field(default_factory=deque)
    given_up: int = 0
    """Jobs given up one after the other."""


class _Work(Generic[Job]):
    """The parts of all jobs, in threads. A part is journaled when it is done, and only then the next one waits."""

    def __init__(self, parts: Sequence[_Part[Job]], jobs: Sequence[Job], journal: Journal, progress: Progress) -> None:
        self.parts = parts
        self.journal = journal
        self.progress = progress
        self.faults: list[OwedError] = []
        self.running: dict[Future[Finished | OwedError], tuple[int, Job]] = {}
        for job in jobs:
            owed = [place for place, part in enumerate(parts) if part.key(job.key) not in journal.places]
            if parts[-1].key(job.key) not in journal.places:
                parts[owed[0]].waiting.append(job)

    def do(self) -> list[OwedError]:
        """Everything that is owed; the faults for which some of it still is."""
        with ExitStack() as stack:
            pools = [stack.enter_context(_Threads(max(1, part.workers))) for part in self.parts]
            self._feed(pools)
            while self.running:
                done, _ = wait(self.running, SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
                self.progress.show()
                for future in done:
                    self._take(*self.running.pop(future), future.result())
                self._feed(pools)
        return self.faults

    def _feed(self, pools: "Sequence[_Threads]") -> None:
        for place, (part, pool) in enumerate(zip(self.parts, pools, strict=True)):
            busy = sum(at == place for at, _ in self.running.values())
            while part.waiting and busy < part.workers and part.given_up < MOST_OWED:
                job = part.waiting.popleft()
                self.running[pool.submit(_tried, part.work, pool.stopped, job)] = place, job
                busy += 1

    def _take(self, place: int, job: Job, outcome: Finished | OwedError) -> None:
        part = self.parts[place]
        if isinstance(outcome, OwedError):
            self.faults.append(outcome)
            part.given_up += 1
            return
        part.given_up = 0
        _append(self.journal, part.key(job.key), outcome)
        if part is not self.parts[-1]:
            self.parts[place + 1].waiting.append(job)
            return
        self.progress.advance(1, **{name: count for name, count in outcome.counts.items() if "/" not in name})


def _append(journal: Journal, key: str, finished: Finished) -> None:
    try:
        journal.append(key, finished)
    except OSError as error:
        raise explain_os_error(error, f"writing {journal.path}") from error


def _tried(work: Callable[[Job], Finished], stopped: threading.Event, job: Job) -> Finished | OwedError:
    """A job's outcome, or the fault that remains after every try."""
    for seconds in (*BACK_OFF, None):
        try:
            return work(job)
        except OwedError as error:
            if seconds is None or error.final or stopped.wait(seconds):
                return error
        except AgentdataError:
            raise
        except Exception as error:
            # What nobody foresaw about one job must not keep the others from being done.
            *_, place = traceback.extract_tb(error.__traceback__)
            where = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {error}"
            return OwedError(f"{job.key} fails by a fault of this program ({where}): please report it.", final=True)
    raise AssertionError


class _Threads(ThreadPoolExecutor):
    """Threads that take no further job, and try none again, once the block ends with an error."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.stopped = threading.Event()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stopped.set()
        self.shutdown(wait=error is None, cancel_futures=error is not None)


def _finish(run: Path, keys: Sequence[str], journal: Journal, tables: Mapping[str, type[Record]]) -> Manifest:
    """Shards in the order of the jobs, whatever the order in which they finished."""
    with UnitOutput(run, UNIT) as output:
        for key in keys:
            finished = journal.read(key, tables)
            output.counts.update(finished.counts)
            for table, row in finished.rows:
                output.write(table, row)
    found, counts = collect(run, [UNIT])
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator=GENERATOR,
        configuration=(run / "config.json").read_text(encoding="utf-8"),
        tables=found,
        counts=tuple(count for count in counted(counts, "") if not count.name.startswith("rejected/")),
        rejections=counted(counts, "rejected/"),
        tokens=(),
    )
    write_whole(run / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest
