"""Tasks to graded trajectories: every attempt is kept when it ends, and graded beside the others.

RUN/trajectories   passing and failing attempts, each with its verdict
RUN/rejected       tasks that could not be attempted, and why
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agentdata.environments.grade import grade
from agentdata.environments.owed import owing
from agentdata.journal import Finished, Then, run_journaled
from agentdata.records import GoldPatch, Manifest, Record, Rejected, Step, Task, TaskTests, Trajectory
from agentdata.rollouts.loop import Setting, run_attempt
from agentdata.rollouts.policy import Policy
from agentdata.rollouts.recipe import RolloutRecipe
from sandboxes.engine import Engine
from sandboxes.protocol import Sandbox

TABLES: dict[str, type[Record]] = {"trajectories": Trajectory, "rejected": Rejected}
STAGE = "rollouts"
Triple = tuple[Task, TaskTests, GoldPatch]


@dataclass(frozen=True)
class Attempt:
    """Let the policy work on a task once."""

    task: Task
    tests: TaskTests
    gold: GoldPatch
    number: int

    @property
    def key(self) -> str:
        return f"{self.task.id}/{self.number}"


@dataclass(frozen=True)
class Refusal:
    """Say why a task is not attempted."""

    row: Rejected

    @property
    def key(self) -> str:
        return f"refused/{self.row.id}"


Job = Attempt | Refusal
MakePolicy = Callable[[Attempt], Policy]
"""Attempt to the policy that makes it; an endpoint serves all of them, an oracle is made for one."""


@dataclass(frozen=True)
class Crew:
    """How much goes on at once, each bounded apart so that neither engine nor server is flooded."""

    attempts: int = 8
    """Attempts, each with a sandbox."""
    graders: int = 2


@dataclass
class Pace:
    """What a run is doing just now, for whoever watches."""

    steps: int = 0
    tokens: int = 0
    sandboxes: int = 0
    _began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, step: Step) -> None:
        with self._lock:
            self.steps += 1
            self.tokens += step.completion_tokens

    def at_work(self, change: int) -> None:
        with self._lock:
            self.sandboxes += change

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{self.steps / seconds:,.1f} steps/s, {self.tokens / seconds:,.0f} tokens/s, {self.sandboxes} at work"


def run_rollouts(
    run: Path,
    triples: Sequence[Triple],
    recipe: RolloutRecipe,
    make_policy: MakePolicy,
    *,
    model: str,
    asked: dict[str, object],
    crew: Crew = Crew(),
    grading: bool = True,
) -> Manifest:
    """Make `recipe.attempts` attempts at each task and grade what they submit.

    `asked` is what else identifies the run. Without `grading` the verdicts stay `not-graded`.
    Raises UsageError, RunError, SandboxError, PolicyRefused.
    """
    options = {**asked, "model": model, "grading": grading, "recipe": recipe.model_dump(mode="json")}
    pace = Pace()
    with closing(Engine()) as engine:
        setting = Setting(model, recipe.scaffold, recipe.budget, recipe.sampling, engine.open, pace.heard)
        judge = partial(_judge, engine.open, recipe.test_seconds)
        return run_journaled(
            run,
            options,
            lambda: plan(triples, recipe.attempts, engine),
            partial(_attempt, setting, recipe.seed, make_policy, pace),
            tables=TABLES,
            title="attempting",
            unit="attempts",
            workers=crew.attempts,
            then=Then(judge, crew.graders) if grading else None,
            status=pace.__str__,
        )


def plan(triples: Sequence[Triple], attempts: int, engine: Engine) -> list[Job]:
    """The first attempt at every task, then the second at every task, so that a run that is stopped early tells much."""
    refused: list[Job] = []
    ready: list[Triple] = []
    for triple in triples:
        task = triple[0]
        if engine.images_have(task.image):
            ready.append(triple)
            continue
        detail = f"the engine has no image {task.image!r}: build or pull it, then begin a new run"
        refused.append(Refusal(Rejected(id=task.id, repo=task.repo, stage=STAGE, reason="no-image", detail=detail)))
    return [*refused, *(Attempt(*triple, number) for number in range(attempts) for triple in ready)]


def _attempt(setting: Setting, seed: int, make_policy: MakePolicy, pace: Pace, job: Job) -> Finished:
    finished = Finished()
    if isinstance(job, Refusal):
        finished.reject(job.row)
        return finished
    pace.at_work(1)
    try:
        with owing():
            trajectory = run_attempt(job.task, job.number, seed + job.number, make_policy(job), setting)
    finally:
        pace.at_work(-1)
    return counted(trajectory)


def counted(trajectory: Trajectory) -> Finished:
    """The row of an attempt, and what is counted of it."""
    finished = Finished()
    finished.add("trajectories", trajectory)
    finished.counts.update(
        {
            "attempts": 1,
            "resolved": int(trajectory.verdict.resolved),
            "leaking": bool(trajectory.leaks),
            "steps": len(trajectory.steps),
            f"stops/{trajectory.stop}": 1,
            f"verdicts/{trajectory.verdict.reason}": 1,
        }
    )
    return finished


def _judge(open_sandbox: Callable[[str], Sandbox], seconds: float, job: Job, finished: Finished) -> Finished:
    if isinstance(job, Refusal):
        return finished
    ((_, trajectory),) = finished.rows
    assert isinstance(trajectory, Trajectory)
    with owing():
        verdict = grade(
            job.task,
            job.tests,
            trajectory.submission,
            gold=job.gold.patch,
            open_sandbox=open_sandbox,
            timeout=seconds,
            model=trajectory.model,
        )
    return counted(trajectory.model_copy(update={"verdict": verdict}))
