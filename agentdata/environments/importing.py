"""Another project's rows to tasks, their environments built here where clones of the repositories are given."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentdata.environments.build import build_environment
from agentdata.environments.derive import TABLES
from agentdata.environments.exchange import read_tasks
from agentdata.environments.owed import owing
from agentdata.environments.recipe import EnvironmentRecipes
from agentdata.environments.run import add_build
from agentdata.environments.swebench_rows import Triple
from agentdata.errors import SourceError, UsageError
from agentdata.harvest.sources import default_cache, expand, open_source
from agentdata.journal import Finished, run_journaled
from agentdata.records import BuildAttempt, Environment, Manifest, Rejected
from sandboxes.engine import Engine

DEEP = 3
"""Folders below the given one in which clones are looked for."""


@dataclass(frozen=True)
class ImportJob:
    """Keep one row, and build its environment where its repository is known."""

    key: str
    row: Triple | Rejected
    git_dir: Path | None


def import_tasks(
    run: Path,
    rows: Path,
    repositories: str,
    recipes: EnvironmentRecipes,
    *,
    instances: Sequence[str] = (),
    workers: int = 2,
) -> Manifest:
    """Read a file of rows as tasks. `repositories` is a folder of clones or a list of sources; empty to build nothing.

    Raises UsageError, RunError, SandboxError.
    """
    options = {
        "rows": str(rows),
        "repositories": repositories,
        "instances": list(instances),
        "recipe": recipes.model_dump(mode="json"),
    }

    def do(work_on: Engine | None) -> Manifest:
        return run_journaled(
            run,
            options,
            lambda: plan(rows, repositories, instances),
            partial(_import, work_on, recipes),
            tables={**TABLES, "attempts": BuildAttempt},
            title="importing",
            unit="rows",
            workers=workers,
        )

    if not repositories:
        return do(None)
    with closing(Engine()) as engine:
        return do(engine)


def plan(rows: Path, repositories: str, instances: Sequence[str]) -> list[ImportJob]:
    """One job for each row."""
    places = find_repositories(repositories) if repositories else {}
    jobs = []
    for number, row in enumerate(read_tasks(rows)):
        name, repo = (row.id, row.repo) if isinstance(row, Rejected) else (row[0].id, row[0].repo)
        if not instances or name in instances:
            jobs.append(ImportJob(f"{number}-{name}", row, places.get(repo.lower())))
    if not jobs:
        raise UsageError(f"{rows} holds none of the rows {', '.join(instances) or 'that were looked for'}.")
    return jobs


def find_repositories(given: str) -> dict[str, Path]:
    """Name in lower case to git directory, of a list of sources or of the clones in a folder. Raises UsageError."""
    if not given.startswith("@") and not Path(given).is_dir():
        raise UsageError(f"--repositories {given!r} is neither a folder of clones nor @list.yaml.")
    sources = expand([given] if given.startswith("@") else [str(path) for path in _clones(Path(given), DEEP)])
    found = {}
    for source in sources:
        try:
            opened = open_source(source, default_cache())
        except SourceError:
            continue  # A folder may hold anything; a row whose repository is not found says so.
        found[opened.source.name.lower()] = opened.git_dir
    return found


def _clones(folder: Path, deep: int) -> list[Path]:
    if (folder / ".git").exists() or (folder / "HEAD").is_file():
        return [folder]
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if deep else []
    return [clone for path in below for clone in _clones(path, deep - 1)]


def _import(engine: Engine | None, recipes: EnvironmentRecipes, job: ImportJob) -> Finished:
    finished = Finished()
    if isinstance(job.row, Rejected):
        finished.reject(job.row)
        return finished
    task, tests, gold = job.row
    if engine is not None:
        if job.git_dir is None:
            detail = f"no clone of {task.repo} is among --repositories"
            finished.reject(Rejected(id=task.id, repo=task.repo, stage="import", reason="no-repository", detail=detail))
            return finished
        with owing():
            outcome, attempts = build_environment(
                engine, job.git_dir, task.repo, task.base_commit, recipe=recipes.of(task.repo), run=task.id
            )
        add_build(finished, outcome, attempts)
        if not isinstance(outcome, Environment):
            return finished
        task = task.model_copy(update={"environment": outcome.id, "image": outcome.image})
    finished.add("tasks", task)
    finished.add("tests", tests)
    finished.add("gold", gold)
    finished.counts["tasks"] += 1
    return finished
