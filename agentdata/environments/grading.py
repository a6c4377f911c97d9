"""Predictions to verdicts, each graded in a fresh container and journaled."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentdata.environments.exchange import Form, Written, write_rows
from agentdata.environments.grade import grade
from agentdata.environments.owed import owing
from agentdata.environments.predictions import read_predictions
from agentdata.environments.removed import require_task
from agentdata.errors import UsageError
from agentdata.journal import Finished, run_journaled
from agentdata.records import Environment, GoldPatch, Manifest, Prediction, Record, Rejected, Task, TaskTests, Verdict
from agentdata.shards import read_table
from sandboxes.engine import Engine

TABLES: dict[str, type[Record]] = {"verdicts": Verdict, "rejected": Rejected}


@dataclass(frozen=True)
class GradeJob:
    """Grade one submission."""

    task: Task
    tests: TaskTests
    gold: str
    prediction: Prediction
    environment: Environment | None = None
    """What the task's image is made of, where the run of tasks says it."""

    @property
    def key(self) -> str:
        return f"{self.prediction.model_name_or_path}/{self.task.id}"


@dataclass(frozen=True)
class RefuseJob:
    """Say why a row of predictions is not graded."""

    row: Rejected

    @property
    def key(self) -> str:
        return f"refused/{self.row.detail}"


def read_triples(run: Path, instances: Sequence[str] = ()) -> list[tuple[Task, TaskTests, GoldPatch]]:
    """The tasks of a run with what grades them, in the order of the run. Raises UsageError for unknown instances."""
    tests = {row.id: row for row in read_table(run, "tests", TaskTests)}
    gold = {row.id: row for row in read_table(run, "gold", GoldPatch)}
    found = [(task, tests[task.id], gold[task.id]) for task in read_table(run, "tasks", Task)]
    unknown = sorted(set(instances) - {task.id for task, _, _ in found})
    if unknown:
        raise UsageError(f"{run} has no task {unknown[0]!r}; it has {len(found)}, such as {_first(found)}.")
    if not found:
        raise UsageError(
            f"{run} holds no tasks: give a run of `agentdata tasks`; if it is one, its table `rejected` says why."
        )
    return [triple for triple in found if not instances or triple[0].id in instances]


def _first(found: Sequence[tuple[Task, TaskTests, GoldPatch]]) -> str:
    return found[0][0].id if found else "none"


def grade_predictions(
    run: Path,
    tasks: Path,
    predictions: str,
    *,
    instances: Sequence[str] = (),
    timeout: float = 900,
    workers: int = 2,
) -> Manifest:
    """Grade a file of predictions, or `gold` or `empty` for what must and must not resolve.

    timeout: seconds of one run of the tests. Raises UsageError, RunError, SandboxError.
    """
    options = {"tasks": str(tasks), "predictions": predictions, "instances": list(instances), "timeout": timeout}
    with closing(Engine()) as engine:
        return run_journaled(
            run,
            options,
            lambda: plan(tasks, predictions, instances),
            partial(_grade, engine, timeout),
            tables=TABLES,
            title="grading",
            unit="verdicts",
            workers=workers,
        )


def plan(tasks: Path, predictions: str, instances: Sequence[str]) -> list[GradeJob | RefuseJob]:
    """One job for each prediction of a known task; what cannot be used of a file is rejected."""
    triples = {task.id: (task, tests, gold) for task, tests, gold in read_triples(tasks)}
    chosen = {task.id for task, _, _ in read_triples(tasks, instances)}
    environments = {one.id: one for one in read_table(tasks, "environments", Environment)}
    if predictions in ("gold", "empty"):
        given: list[Prediction | Rejected] = [
            Prediction(
                instance_id=name,
                model_name_or_path=predictions,
                model_patch=gold.patch if predictions == "gold" else "",
            )
            for name, (_, _, gold) in triples.items()
            if name in chosen
        ]
    else:
        given = list(read_predictions(Path(predictions)))
    jobs: list[GradeJob | RefuseJob] = []
    for one in given:
        if isinstance(one, Rejected):
            jobs.append(RefuseJob(one))
        elif one.instance_id not in triples:
            jobs.append(RefuseJob(_no_task(one, tasks)))
        elif one.instance_id in chosen:
            task, tests, gold = triples[one.instance_id]
            jobs.append(GradeJob(task, tests, gold.patch, one, environments.get(task.environment)))
    if not any(isinstance(job, GradeJob) for job in jobs):
        why = next((f" ({job.row.reason}, {job.row.detail})" for job in jobs if isinstance(job, RefuseJob)), "")
        raise UsageError(f"None of the {len(given)} predictions of {predictions} can be graded with {tasks}{why}.")
    return jobs


def _no_task(prediction: Prediction, tasks: Path) -> Rejected:
    name = prediction.instance_id
    detail = f"{prediction.model_name_or_path or 'a model'}: {tasks} has no task {name}"
    return Rejected(id=name, repo="", stage="predictions", reason="no-such-task", detail=detail)


def _grade(engine: Engine, timeout: float, job: GradeJob | RefuseJob) -> Finished:
    finished = Finished()
    if isinstance(job, RefuseJob):
        finished.reject(job.row)
        return finished
    with owing():
        require_task(engine, job.task, job.gold, job.environment)
        verdict = grade(
            job.task,
            job.tests,
            job.prediction.model_patch,
            gold=job.gold,
            open_sandbox=engine.open,
            timeout=timeout,
            model=job.prediction.model_name_or_path,
        )
    finished.add("verdicts", verdict)
    finished.counts.update({"verdicts": 1, "resolved": int(verdict.resolved), f"reasons/{verdict.reason}": 1})
    finished.counts["tampered"] += bool(verdict.tampering)
    return finished


def export_tasks(tasks: Path, output: Path, form: Form, instances: Sequence[str] = ()) -> Written:
    """Write the tasks of a run in the form of another project. Raises UsageError."""
    triples = read_triples(tasks, instances)
    return write_rows(output, triples, form, environments=read_table(tasks, "environments", Environment))
