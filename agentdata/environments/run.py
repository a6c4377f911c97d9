"""Harvested runs or repositories to environments, each built once and journaled.

RUN/environments, RUN/changes   what was built, and the changes that begin there
RUN/attempts                    every way of building that was tried, with its log
RUN/rejected                    what could not be built, and why
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentdata.environments.build import build_environment
from agentdata.environments.owed import owing
from agentdata.environments.recipe import EnvironmentRecipes
from agentdata.errors import UsageError
from agentdata.harvest.sources import default_cache, expand, open_source
from agentdata.journal import Finished, run_journaled
from agentdata.records import BuildAttempt, Change, Environment, HarvestedSource, Manifest, Record, Rejected
from agentdata.shards import read_table
from sandboxes.engine import Engine

TABLES: dict[str, type[Record]] = {
    "environments": Environment,
    "changes": Change,
    "attempts": BuildAttempt,
    "rejected": Rejected,
}


@dataclass(frozen=True)
class BuildJob:
    """Build the environment of one commit."""

    repo: str
    git_dir: Path
    commit: str
    change: Change | None = None

    @property
    def key(self) -> str:
        return self.change.id if self.change else f"{self.repo}@{self.commit}"


def build_environments(
    run: Path,
    sources: Sequence[str],
    recipes: EnvironmentRecipes,
    *,
    limit: int = 0,
    workers: int = 2,
) -> Manifest:
    """Build an environment for each test-touching change of harvested runs, and for the heads of repositories.

    limit: newest changes of each repository; 0 for all. Raises UsageError, RunError, SandboxError.
    """
    options = {"sources": list(sources), "limit": limit, "recipes": recipes.model_dump(mode="json")}
    with closing(Engine()) as engine:
        return run_journaled(
            run,
            options,
            lambda: [job for source in sources for job in plan(source, limit)],
            partial(_build, engine, recipes),
            tables=TABLES,
            title="building",
            unit="environments",
            workers=workers,
        )


def plan(source: str, limit: int = 0) -> Iterator[BuildJob]:
    """What is to be built for a harvested run or a repository."""
    path = Path(source)
    if (path / "manifest.json").is_file() and (path / "config.json").is_file():
        yield from _of_run(path, limit)
        return
    for listed in expand([source]):
        opened = open_source(listed, default_cache())
        yield BuildJob(opened.source.name, opened.git_dir, opened.head)


def _of_run(run: Path, limit: int) -> Iterator[BuildJob]:
    places = {source.name: Path(source.git_dir) for source in read_table(run, "sources", HarvestedSource)}
    if not places:
        raise UsageError(f"{run} holds no harvest: give a run of `agentdata harvest`, or repositories.")
    changes: dict[str, list[Change]] = {name: [] for name in places}
    for change in read_table(run, "changes", Change):
        if testable(change):
            changes[change.repo].append(change)
    if not any(changes.values()):
        raise UsageError(f"{run} holds no change that touches tests and source: harvest other repositories.")
    gone = [str(places[name]) for name, found in changes.items() if found and not places[name].is_dir()]
    if gone:
        raise UsageError(f"{gone[0]}, which {run} was harvested from, is gone: put it back, or harvest another clone.")
    for name, found in changes.items():
        for change in found[-limit:] if limit else found:
            yield BuildJob(name, places[name], change.snapshot, change)


def testable(change: Change) -> bool:
    """Whether a change touches tests and source, and nothing undoes it: what a task can be derived from."""
    roles = {edit.role for edit in change.edits if edit.patch}
    return {"source", "test"} <= roles and bool(change.snapshot) and not change.reverts


def _build(engine: Engine, recipes: EnvironmentRecipes, job: BuildJob) -> Finished:
    finished = Finished()
    change_id = job.change.id if job.change else ""
    with owing():
        outcome, attempts = build_environment(
            engine, job.git_dir, job.repo, job.commit, change_id=change_id, recipe=recipes.of(job.repo), run=job.key
        )
    add_build(finished, outcome, attempts)
    if job.change is not None and isinstance(outcome, Environment):
        finished.add("changes", job.change)
        finished.counts["changes"] += 1
    return finished


def add_build(finished: Finished, outcome: Environment | Rejected, attempts: Sequence[BuildAttempt]) -> None:
    """The rows of one build."""
    for attempt in attempts:
        finished.add("attempts", attempt)
    if isinstance(outcome, Rejected):
        finished.reject(outcome)
        return
    finished.add("environments", outcome)
    finished.counts.update({"environments": 1, f"pythons/{outcome.python}": 1})
