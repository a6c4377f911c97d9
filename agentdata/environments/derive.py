"""Changes in their environments to tasks, proved by repeated runs before and after the change."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

from agentdata.environments.owed import owing
from agentdata.environments.removed import require_environment
from agentdata.environments.statements import Failure, describe, statement_of
from agentdata.environments.sweeps import Sweep, sweep
from agentdata.errors import UsageError
from agentdata.journal import Finished, run_journaled
from agentdata.records import Change, Environment, GoldPatch, Manifest, Record, Rejected, Task, TaskTests
from agentdata.shards import read_table
from sandboxes.engine import Engine

TABLES: dict[str, type[Record]] = {
    "tasks": Task,
    "tests": TaskTests,
    "gold": GoldPatch,
    "environments": Environment,
    "rejected": Rejected,
}
TEST_FILE = re.compile(r"^(test_.*|.*_test|tests?)\.py$")
STAGE = "tasks"


@dataclass(frozen=True)
class DeriveJob:
    """Prove the task of one change."""

    id: str
    change: Change
    environment: Environment

    @property
    def key(self) -> str:
        return self.environment.id


def derive_tasks(run: Path, environments: Path, *, sweeps: int = 3, timeout: float = 900, workers: int = 2) -> Manifest:
    """Turn the changes of a run of environments into tasks.

    sweeps: runs before and after the gold patch, each in a fresh container. timeout: seconds of one run of the tests.
    Raises UsageError, RunError, SandboxError.
    """
    options = {"environments": str(environments), "sweeps": sweeps, "timeout": timeout}
    with closing(Engine()) as engine:
        return run_journaled(
            run,
            options,
            lambda: plan(environments),
            partial(_derive, engine, sweeps, timeout),
            tables=TABLES,
            title="proving",
            unit="tasks",
            workers=workers,
        )


def plan(environments: Path) -> Sequence[DeriveJob]:
    """One job for each change of a run of environments."""
    changes = {change.id: change for change in read_table(environments, "changes", Change)}
    built = [one for one in read_table(environments, "environments", Environment) if one.change_id in changes]
    if not built:
        raise UsageError(
            f"{environments} holds no environment of a change: build them from a harvested run first, with "
            "`agentdata environments build RUN -o ENVIRONMENTS`."
        )
    ids = task_ids([changes[one.change_id] for one in built])
    return [DeriveJob(ids[one.change_id], changes[one.change_id], one) for one in built]


def task_ids(changes: Sequence[Change]) -> dict[str, str]:
    """Change id to a task's id as SWE-bench writes them; where there is no number, or two with one, by content."""
    numbers = Counter((change.repo, change.number) for change in changes)
    return {
        change.id: f"{change.repo.replace('/', '__')}-"
        + (str(change.number) if change.number and numbers[change.repo, change.number] == 1 else change.id[:12])
        for change in changes
    }


def test_files_of(change: Change) -> tuple[str, ...]:
    """The test modules that a change leaves changed."""
    return tuple(
        edit.path
        for edit in change.edits
        if edit.role == "test" and edit.status != "deleted" and TEST_FILE.match(PurePosixPath(edit.path).name)
    )


def _derive(engine: Engine, sweeps: int, timeout: float, job: DeriveJob) -> Finished:
    change, environment = job.change, job.environment
    tests = TaskTests(
        id=job.id,
        test_patch=change.test_patch,
        test_files=test_files_of(change),
        test_command=environment.test_command,
        fail_to_pass=(),
        pass_to_pass=(),
    )
    if not tests.test_files:
        return rejected(job.id, change.repo, "no-test-module", "the patch touches test data alone")
    require_environment(engine, environment)
    found = prove(environment.image, tests, change.source_patch, engine, sweeps, timeout)
    if found.reason:
        return rejected(job.id, change.repo, found.reason, found.detail)
    statement, source = statement_of(change)
    if not statement:
        failures = [Failure(name=name, message=found.messages.get(name, "")) for name in found.fail_to_pass]
        statement, source = describe(job.id, failures, change.source_patch), "tests"
    task = Task(
        id=job.id,
        repo=change.repo,
        environment=environment.id,
        image=environment.image,
        base_commit=change.snapshot,
        problem_statement=statement,
        statement_source=source,
        source="change",
        created_at=datetime.fromtimestamp(change.landed_at, UTC).isoformat(),
        licence=change.licence,
    )
    return accepted(task, found.tests(tests), GoldPatch(id=job.id, patch=change.source_patch), environment)


def prove(image: str, tests: TaskTests, gold: str, engine: Engine, sweeps: int, timeout: float) -> Sweep:
    """Repeated runs without and with the gold patch. Raises OwedError when a sandbox fails."""
    with owing():
        return sweep(image, tests, gold, open_sandbox=engine.open, k=sweeps, timeout=timeout)


def accepted(task: Task, tests: TaskTests, gold: GoldPatch, environment: Environment) -> Finished:
    """The rows of a task."""
    finished = Finished()
    finished.add("tasks", task)
    finished.add("tests", tests)
    finished.add("gold", gold)
    finished.add("environments", environment)
    finished.counts.update({"tasks": 1, f"statements/{task.statement_source}": 1})
    return finished


def rejected(name: str, repo: str, reason: str, detail: str) -> Finished:
    """The row of something that is no task."""
    finished = Finished()
    finished.reject(Rejected(id=name, repo=repo, stage=STAGE, reason=reason, detail=detail))
    return finished
