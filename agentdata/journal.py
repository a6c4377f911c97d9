"""Expensive work, kept row by row as it finishes: a journal beside the tables, turned into shards at the end.

RUN/journal.jsonl holds one line for each finished job. A line that a stop tore is dropped, and its job is owed again.
Jobs run in threads, since what they wait for runs elsewhere: in sandboxes, on a model's server.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self, TypeVar

from agentdata import __version__
from agentdata.errors import OwedError, RunError, explain_os_error
from agentdata.progress import Progress
from agentdata.records import SCHEMA_VERSION, Manifest, Record, Rejected
from agentdata.runs import locked, settle
from agentdata.shards import UnitOutput, collect, counted, read_manifest, remove_unfinished, write_whole

GENERATOR = f"agentdata {__version__}"
UNIT = "all"
BACK_OFF = (1.0, 5.0, 20.0)
"""Seconds before each further try of a job that failed for no fault of its own."""
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


class Journal:
    """The lines of finished jobs. Opening it drops a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, int] = {}
        """Key to the offset of its line."""
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
        self.places[key] = self._file.seek(0, os.SEEK_END)
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, key: str, tables: Mapping[str, type[Record]]) -> Finished:
        """What a finished job gave."""
        self._file.seek(self.places[key])
        line = json.loads(self._file.readline())
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
) -> Manifest:
    """Do every job of `plan()` that an earlier call with the same options did not finish; then write shards and manifest.

    `work` raises OwedError for a fault that is not the job's own: the job is tried again, and at last left owed.
    Raises UsageError for other options than before, RunError when jobs are owed.
    """
    with locked(run, (1, 1)):
        settle(run, {"generator": GENERATOR, "options": dict(options)})
        if (run / "manifest.json").is_file():
            return read_manifest(run)
        remove_unfinished(run)
        jobs = plan()
        with Journal(run / "journal.jsonl") as journal:
            owed = [job for job in jobs if job.key not in journal.places]
            with Progress(title, len(jobs), done=len(jobs) - len(owed), unit=unit) as progress:
                faults = _work_through(owed, work, journal, progress, workers)
            if faults:
                left = sum(job.key not in journal.places for job in jobs)
                raise RunError(f"{left} of {len(jobs)} {unit} are owed; run the same command again. {faults[-1]}")
            manifest = _finish(run, jobs, journal, tables)
        (run / "journal.jsonl").unlink()
        return manifest


def _work_through(
    jobs: Sequence[Job], work: Callable[[Job], Finished], journal: Journal, progress: Progress, workers: int
) -> list[OwedError]:
    """Run jobs in threads, journaling each; returns the faults for which some are owed."""
    faults: list[OwedError] = []
    given_up = 0
    remaining = iter(jobs)
    with _Threads(max(1, workers)) as pool:
        tried = partial(_tried, work, pool.stopped)
        running = {pool.submit(tried, job): job for job in islice(remaining, workers)}
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                outcome = future.result()
                if isinstance(outcome, OwedError):
                    faults.append(outcome)
                    given_up += 1
                else:
                    given_up = 0
                    _append(journal, job.key, outcome)
                    progress.advance(1, **{name: count for name, count in outcome.counts.items() if "/" not in name})
            if given_up < MOST_OWED:
                running |= {pool.submit(tried, job): job for job in islice(remaining, len(done))}
    return faults


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


def _finish(run: Path, jobs: Sequence[Keyed], journal: Journal, tables: Mapping[str, type[Record]]) -> Manifest:
    """Shards in the order of the jobs, whatever the order in which they finished."""
    with UnitOutput(run, UNIT) as output:
        for job in jobs:
            finished = journal.read(job.key, tables)
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
