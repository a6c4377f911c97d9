"""Files of tasks in the field's forms to records, and records to such files.

swebench   classic SWE-bench rows, 13 columns        rebench   SWE-rebench rows
swebench5  rows that the official harness 5 runs     smith     SWE-smith rows
harbor     a folder of Harbor task directories (written only)

Rows are kept in .jsonl, .json (a list, or rows by id) or .parquet. What cannot be used becomes a Rejected with its
reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agentdata.environments.harbor import write_harbor_task
from agentdata.environments.rebench_rows import from_rebench_row, to_rebench_row
from agentdata.environments.row_fields import Row, RowError
from agentdata.environments.row_files import FormatError, Place, read_rows, write_rows_file
from agentdata.environments.smith_rows import from_smith_row, to_smith_row
from agentdata.environments.swebench_rows import (
    Triple,
    from_classic_row,
    from_version_5_row,
    official_tests,
    to_classic_row,
    to_version_5_row,
)
from agentdata.errors import UsageError
from agentdata.records import Environment, GoldPatch, Rejected, Task, TaskTests

Form = Literal["swebench", "swebench5", "rebench", "smith", "harbor"]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the tasks that were to be written."""

    rows: int = 0
    rejected: tuple[Rejected, ...] = ()
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Task to the tests that its row leaves out, since official parsers cannot tell them from others."""


def read_tasks(path: Path) -> Iterator[Triple | Rejected]:
    """The tasks of a file, in its order; each row's form is told by its columns.

    Raises UsageError when the file as a whole cannot be read.
    """
    return tasks_of(read_rows(path), path.name)


def tasks_of(rows: Iterable[Place], source: str) -> Iterator[Triple | Rejected]:
    """The tasks of rows, each with its place in `source`."""
    seen: set[str] = set()
    for place, row in rows:
        try:
            if isinstance(row, FormatError):
                raise RowError(row.reason, row.detail)
            triple = from_row(row)
            if triple[0].id in seen:
                raise RowError("duplicate-id", "another row of the same file has this id")
            seen.add(triple[0].id)
            yield triple
        except RowError as error:
            yield _rejected(row, f"{source}:{place}", "import", error)


def from_row(row: Row) -> Triple:
    """The records of one row. Raises RowError."""
    if row.get("eval_script"):
        return from_version_5_row(row)
    if row.get("install_config"):
        return from_rebench_row(row)
    if row.get("image_name") and not row.get("test_patch"):
        return from_smith_row(row)
    return from_classic_row(row)


def write_rows(
    path: Path, triples: Iterable[Triple], form: Form = "swebench5", *, environments: Iterable[Environment] = ()
) -> Written:
    """Write tasks to a file, or to a folder for the form `harbor`, which appears under its name when it is whole.

    `environments` give SWE-rebench rows their requirements. Raises UsageError for a form or a kind of file that is not
    known.
    """
    known = {environment.id: environment for environment in environments}
    make: dict[str, Callable[[Task, TaskTests, GoldPatch], dict[str, Any]]] = {
        "swebench": to_classic_row,
        "swebench5": to_version_5_row,
        "rebench": partial(to_rebench_row, environments=known),
        "smith": to_smith_row,
        "harbor": partial(_to_harbor, path),
    }
    if form not in make:
        raise UsageError(f"Tasks cannot be written as {form!r}: choose one of {', '.join(make)}.")
    rejected: list[Rejected] = []
    dropped: dict[str, tuple[str, ...]] = {}
    rows = _made(triples, make[form], rejected, dropped)
    written = sum(1 for _ in rows) if form == "harbor" else write_rows_file(path, rows)
    return Written(written, tuple(rejected), dropped)


def _made(
    triples: Iterable[Triple],
    make: Callable[[Task, TaskTests, GoldPatch], dict[str, Any]],
    rejected: list[Rejected],
    dropped: dict[str, tuple[str, ...]],
) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for task, tests, gold in triples:
        try:
            if task.id.lower() in seen:
                raise RowError("duplicate-id", "another task has this id, but for the case of letters")
            row = make(task, tests, gold)
            seen.add(task.id.lower())
            if row and (left_out := official_tests(tests).dropped):
                dropped[task.id] = left_out
            yield row
        except RowError as error:
            rejected.append(_rejected({"instance_id": task.id, "repo": task.repo}, task.id, "export", error))


def _to_harbor(folder: Path, task: Task, tests: TaskTests, gold: GoldPatch) -> dict[str, Any]:
    write_harbor_task(folder, task, tests, gold)
    return {}


def _rejected(row: Row | FormatError, place: str, stage: str, error: RowError) -> Rejected:
    known = {} if isinstance(row, FormatError) else row
    named, repo = known.get("instance_id"), known.get("repo")
    identity = named if isinstance(named, str) and named.strip() else place
    return Rejected(
        id=_storable(identity),
        repo=_storable(repo) if isinstance(repo, str) else "",
        stage=stage,
        reason=error.reason,
        detail=_storable(f"{place}: {error}"),
    )


def _storable(value: str) -> str:
    return value.encode("utf-8", "replace").decode()
