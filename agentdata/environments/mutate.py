"""Working code to tasks: mistakes that break tests which passed, each in an image whose one commit holds it.

Mistakes are made in files, where the tests about a file are run; and landed changes are taken back on today's tree, where
the tests that landed with them are run.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from agentdata.environments.derive import TABLES, accepted, prove, rejected, test_files_of
from agentdata.environments.mutations import Mutation, candidates, is_mutable
from agentdata.environments.owed import owing
from agentdata.environments.recipe import EnvironmentRecipes
from agentdata.environments.related import related_tests
from agentdata.environments.removed import APPLY, bake, require_environment
from agentdata.environments.reversal import reverse
from agentdata.environments.run import build_environments
from agentdata.environments.selection import MutationOutcome, select
from agentdata.environments.snapshot import Snapshot
from agentdata.environments.statements import Failure, describe
from agentdata.environments.testing import TestRun, run_tests
from agentdata.errors import UsageError
from agentdata.harvest.git import Repository
from agentdata.journal import Finished, run_journaled
from agentdata.records import Change, Environment, GoldPatch, Manifest, Rejected, Task, TaskTests, TestCount
from agentdata.shards import read_table
from sandboxes.engine import Engine

BASELINES = 2
"""Runs of the tests on the original code: what did not pass in each breaks no task."""


@dataclass(frozen=True)
class MutateJob:
    """Make bugs in one file, or take one landed change back."""

    environment: Environment
    name: str
    """Path of the file, or id of the change."""
    sources: Mapping[str, bytes]
    """The files that are changed, as they are."""
    test_files: tuple[str, ...]
    """What is run to see what breaks; empty for the whole suite."""
    created_at: str
    change: Change | None = None

    @property
    def key(self) -> str:
        return f"{self.environment.id}/{self.name}"


@dataclass(frozen=True)
class Baseline:
    """What the tests do on the original code."""

    passing: frozenset[str]
    """Tests that pass each time."""
    seconds: float
    """Running time of the slower run."""
    doubt: str
    """Why nothing can be said."""


@dataclass(frozen=True)
class MutateOptions:
    """How many bugs are tried, and where."""

    limit: int
    """Files of each repository, and landed changes that are taken back."""
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
            lambda: [job for place in built for job in plan(place, options)],
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
    # Two clones may have one name.
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    place = run.with_name(f"{run.name}-environments") / f"{Path(source.rstrip('/')).name}-{digest}"
    build_environments(place, [source], recipes, workers=workers)
    return place


def plan(environments: Path, options: MutateOptions) -> Iterator[MutateJob]:
    """Files of the newest environment of each repository, in an order drawn from the seed, then changes before it."""
    newest = {one.repo: one for one in read_table(environments, "environments", Environment)}
    if not newest:
        raise UsageError(
            f"{environments} holds no environment: give a run of `agentdata environments build`; if it is one, its table "
            "`rejected` says why none could be built."
        )
    changes = list(read_table(environments, "changes", Change))
    for environment in newest.values():
        with Repository(Path(environment.git_dir)) as repository:
            snapshot = Snapshot(repository, environment.commit)
            landed = [one for one in changes if one.repo == environment.repo and one.id != environment.change_id]
            yield from _files(environment, snapshot, options)
            yield from _landed(environment, snapshot, landed[::-1][: options.limit])


def _files(environment: Environment, snapshot: Snapshot, options: MutateOptions) -> Iterator[MutateJob]:
    paths = [path for path in snapshot.files if is_mutable(path)]
    random.Random(f"{options.seed} {environment.repo}").shuffle(paths)
    for path in paths[: options.limit]:
        yield MutateJob(environment, path, _contents(snapshot, [path]), related_tests(snapshot, path), _made(snapshot))


def _landed(environment: Environment, snapshot: Snapshot, changes: Sequence[Change]) -> Iterator[MutateJob]:
    for change in changes:
        paths = [edit.path for edit in change.edits if edit.role == "source" and edit.path in snapshot.entries]
        tests = tuple(path for path in test_files_of(change) if path in snapshot.entries)
        if paths and tests:
            yield MutateJob(environment, change.id, _contents(snapshot, paths), tests, _made(snapshot), change)


def _contents(snapshot: Snapshot, paths: Sequence[str]) -> dict[str, bytes]:
    return {path: snapshot.repository.read(snapshot.entries[path][1]) for path in paths}


def _made(snapshot: Snapshot) -> str:
    return datetime.fromtimestamp(snapshot.header.committed_at, UTC).isoformat()


def _run(engine: Engine, job: MutateJob, patch: str, timeout: float) -> TestRun:
    """A job's tests in a fresh sandbox, with a patch applied. Raises OwedError when the sandbox fails."""
    with owing(), engine.open(job.environment.image) as sandbox:
        prepare = APPLY.format(patch=patch, options="") if patch else ""
        return run_tests(sandbox, job.environment.test_command, job.test_files, timeout=timeout, prepare=prepare)


def _passing(run: TestRun) -> frozenset[str]:
    return frozenset(name for name, status in run.results.items() if status == "passed")


def _baseline(engine: Engine, options: MutateOptions, job: MutateJob) -> Baseline:
    runs = [_run(engine, job, "", options.timeout) for _ in range(BASELINES)]
    return Baseline(
        passing=frozenset.intersection(*map(_passing, runs)),
        seconds=max(run.command.seconds for run in runs),
        doubt=next((run.doubt for run in runs if run.doubt), ""),
    )


def _mutate(engine: Engine, options: MutateOptions, job: MutateJob) -> Finished:
    finished = Finished()
    proposed = list(_candidates(options, job))
    for refused in proposed:
        if isinstance(refused, Rejected):
            finished.reject(refused)
    mutations = [one for one in proposed if isinstance(one, Mutation)]
    if not mutations:
        return finished
    require_environment(engine, job.environment)
    baseline = _baseline(engine, options, job)
    if not baseline.passing:
        return rejected(job.key, job.environment.repo, "nothing-passed", baseline.doubt or "no test passes as it is")
    for chosen in select(_outcome(engine, options, job, baseline, one) for one in mutations):
        if isinstance(chosen, Rejected):
            finished.reject(chosen)
            continue
        more = _prove(engine, options, job, chosen)
        finished.rows += more.rows
        finished.counts.update(more.counts)
    return finished


def _candidates(options: MutateOptions, job: MutateJob) -> Iterator[Mutation | Rejected]:
    if job.change is not None:
        yield reverse(job.change, job.sources)
        return
    for path, source in job.sources.items():
        yield from candidates(path, source, seed=options.seed, most=options.most)


def _outcome(
    engine: Engine, options: MutateOptions, job: MutateJob, baseline: Baseline, mutation: Mutation
) -> MutationOutcome:
    """One run of the tests with the mistake; what is chosen by it is proved by repeated runs later."""
    run = _run(engine, job, mutation.patch, min(options.timeout, 60 + 5 * baseline.seconds))
    passing = _passing(run)
    counts = tuple(
        TestCount(name=name, runs=1, passed_before=int(name in passing), passed_after=1)
        for name in sorted(baseline.passing)
    )
    log = run.doubt if run.doubt.startswith(("time-limit", "limit-exceeded", "not-prepared", "no-report")) else ""
    return MutationOutcome(repo=job.environment.repo, mutation=mutation, counts=() if log else counts, log=log)


def _prove(engine: Engine, options: MutateOptions, job: MutateJob, outcome: MutationOutcome) -> Finished:
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
        licence=job.change.licence if job.change else "",
    )
    return accepted(task, found.tests(tests), GoldPatch(id=name, patch=mutation.gold_patch), environment)
