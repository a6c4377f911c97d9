"""Working code to tasks: mistakes that break tests which passed, each in an image whose one commit holds it."""

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from agentdata.environments.derive import TABLES, accepted, prove, rejected
from agentdata.environments.mutations import Mutation, candidates, is_mutable
from agentdata.environments.owed import owing
from agentdata.environments.recipe import EnvironmentRecipes
from agentdata.environments.removed import APPLY, bake, require_environment
from agentdata.environments.run import build_environments
from agentdata.environments.selection import MutationOutcome, select
from agentdata.environments.snapshot import Snapshot
from agentdata.environments.statements import Failure, describe
from agentdata.environments.testing import TestRun, run_tests
from agentdata.errors import UsageError
from agentdata.harvest.git import Repository
from agentdata.journal import Finished, run_journaled
from agentdata.records import Environment, GoldPatch, Manifest, Rejected, Task, TaskTests, TestCount
from agentdata.shards import read_table
from sandboxes.engine import Engine

BASELINES = 2
"""Runs of the whole suite on the original code: what did not pass in each breaks no task."""


@dataclass(frozen=True)
class FileJob:
    """Make bugs in one file."""

    environment: Environment
    path: str
    source: bytes
    passing: frozenset[str]
    """Tests that pass on the original code, each time."""
    seconds: float
    """Running time of the whole suite."""
    created_at: str
    licence: str = ""

    @property
    def key(self) -> str:
        return f"{self.environment.id}/{self.path}"


@dataclass(frozen=True)
class MutateOptions:
    """How many bugs are tried, and where."""

    limit: int
    """Files of each repository."""
    most: int
    """Candidates in each file."""
    seed: int
    sweeps: int
    timeout: float
    """Seconds of one run of the tests."""


def mutate_tasks(
    run: Path,
    sources: Sequence[str],
    options: MutateOptions,
    recipes: EnvironmentRecipes,
    *,
    workers: int = 2,
) -> Manifest:
    """Turn environments of repositories' heads into tasks; environments of repositories are built first, beside the run.

    Raises UsageError, RunError, SandboxError.
    """
    built = [_environments(run, source, recipes, workers) for source in sources]
    with closing(Engine()) as engine:
        return run_journaled(
            run,
            {"sources": list(sources), **vars(options)},
            lambda: [job for place in built for job in plan(engine, place, options)],
            partial(_mutate, engine, options),
            tables=TABLES,
            title="mutating",
            unit="files",
            workers=workers,
        )


def _environments(run: Path, source: str, recipes: EnvironmentRecipes, workers: int) -> Path:
    """A run of environments, built where a repository is named."""
    if (Path(source) / "manifest.json").is_file():
        return Path(source)
    place = run.with_name(f"{run.name}-environments") / Path(source.rstrip("/")).name
    build_environments(place, [source], recipes, workers=workers)
    return place


def plan(engine: Engine, environments: Path, options: MutateOptions) -> Iterator[FileJob]:
    """The files of the newest environment of each repository, in an order drawn from the seed."""
    newest = {one.repo: one for one in read_table(environments, "environments", Environment)}
    if not newest:
        raise UsageError(
            f"{environments} holds no environment: give a run of `agentdata environments build`; if it is one, its table "
            "`rejected` says why none could be built."
        )
    for environment in newest.values():
        require_environment(engine, environment)
        runs = [_run_suite(engine, environment, "", options.timeout) for _ in range(BASELINES)]
        passing = frozenset.intersection(*(_passing(run) for run in runs))
        with Repository(Path(environment.git_dir)) as repository:
            snapshot = Snapshot(repository, environment.commit)
            created = datetime.fromtimestamp(snapshot.header.committed_at, UTC).isoformat()
            paths = [path for path in snapshot.files if is_mutable(path)]
            random.Random(f"{options.seed} {environment.repo}").shuffle(paths)
            for path in paths[: options.limit]:
                source = repository.read(snapshot.entries[path][1])
                yield FileJob(environment, path, source, passing, max(run.command.seconds for run in runs), created)


def _run_suite(engine: Engine, environment: Environment, patch: str, timeout: float) -> TestRun:
    """The whole test suite in a fresh sandbox, with a patch applied. Raises OwedError when the sandbox fails."""
    with owing(), engine.open(environment.image) as sandbox:
        prepare = APPLY.format(patch=patch, options="") if patch else ""
        return run_tests(sandbox, environment.test_command, (), timeout=timeout, prepare=prepare)


def _passing(run: TestRun) -> frozenset[str]:
    return frozenset(name for name, status in run.results.items() if status == "passed")


def _mutate(engine: Engine, options: MutateOptions, job: FileJob) -> Finished:
    finished = Finished()
    outcomes = (_outcome(engine, options, job, one) for one in _candidates(options, job))
    for chosen in select(outcomes):
        if isinstance(chosen, Rejected):
            finished.reject(chosen)
            continue
        more = _prove(engine, options, job, chosen)
        finished.rows += more.rows
        finished.counts.update(more.counts)
    return finished


def _candidates(options: MutateOptions, job: FileJob) -> Iterator[Mutation]:
    return candidates(job.path, job.source, seed=options.seed, most=options.most)


def _outcome(engine: Engine, options: MutateOptions, job: FileJob, mutation: Mutation) -> MutationOutcome:
    """One run of the whole suite with the mistake; what is chosen by it is proved by repeated runs later."""
    limit = min(options.timeout, 60 + 5 * job.seconds)
    run = _run_suite(engine, job.environment, mutation.patch, limit)
    passing = _passing(run)
    counts = tuple(
        TestCount(name=name, runs=1, passed_before=int(name in passing), passed_after=1) for name in sorted(job.passing)
    )
    log = run.doubt if run.doubt.startswith(("time-limit", "limit-exceeded", "not-prepared", "no-report")) else ""
    return MutationOutcome(repo=job.environment.repo, mutation=mutation, counts=() if log else counts, log=log)


def _prove(engine: Engine, options: MutateOptions, job: FileJob, outcome: MutationOutcome) -> Finished:
    mutation, environment = outcome.mutation, job.environment
    name = f"{environment.repo.replace('/', '__')}-{mutation.id[:12]}"
    tests = TaskTests(
        id=name,
        test_patch="",
        test_files=tuple(sorted({test.split("::")[0] for test in outcome.fail_to_pass})),
        test_command=environment.test_command,
        fail_to_pass=(),
        pass_to_pass=(),
    )
    image = f"agentdata/task:{environment.id}-{mutation.id}"
    bake(engine, environment, image, mutation.patch)
    found = prove(image, tests, mutation.gold_patch, engine, options.sweeps, options.timeout)
    if found.reason:
        return rejected(name, environment.repo, found.reason, found.detail)
    failures = [Failure(name=test, message=found.messages.get(test, "")) for test in found.fail_to_pass]
    task = Task(
        id=name,
        repo=environment.repo,
        environment=environment.id,
        image=image,
        base_commit=environment.commit,
        problem_statement=describe(name, failures, mutation.gold_patch),
        statement_source="tests",
        source="reversal" if mutation.kinds == ("reversal",) else "mutation",
        mutations=mutation.kinds,
        created_at=job.created_at,
        licence=job.licence,
    )
    return accepted(task, found.tests(tests), GoldPatch(id=name, patch=mutation.gold_patch), environment)
