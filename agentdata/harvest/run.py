"""A harvest: sources to landings, landings to changes, traces and samples, in units that are finished or not begun.

RUN/config.json          what was asked for; a run is continued only with the same
RUN/<table>/*.parquet    sources, landings, changes, traces, rejected, and one table for each rendering
RUN/units/*.json         one marker for each finished unit of work
RUN/README.md            makes `datasets.load_dataset(RUN)` find the renderings and their splits
RUN/manifest.json        written last: shards, sums, counts
"""

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.errors import RunError, SourceError, explain_os_error
from agentdata.harvest import git
from agentdata.harvest.changes import ChangeReader
from agentdata.harvest.explore import Explorer
from agentdata.harvest.landings import find_landings
from agentdata.harvest.narrate import Narrator
from agentdata.harvest.pulls import PullTexts, build_index
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.harvest.render import GENERATOR, Renderer
from agentdata.harvest.sources import OpenedSource, key_of, open_source
from agentdata.harvest.trees import Trees
from agentdata.progress import Progress
from agentdata.records import (
    SCHEMA_VERSION,
    Change,
    HarvestedSource,
    Landing,
    Manifest,
    Record,
    Rejected,
    RepoSource,
    Split,
)
from agentdata.runs import alone, locked, settle
from agentdata.shards import UnitOutput, collect, counted, marker_path, read_rows, remove_unfinished, write_whole
from agentdata.stages import Executor, prepare, run_jobs
from agentdata.tokens import token_counter

PULLS_INDEX = "pulls.sqlite"


class HarvestOptions(Record):
    """What is asked of a harvest besides its recipe."""

    stage: str
    """`changes`, or `contextual` for samples too."""
    branch: str = ""
    """Branch to harvest instead of the repository's head."""
    limit: int = 0
    """Newest landings of each repository to take; 0 for all."""
    pulls: str = ""
    """File with the texts of pull requests and issues."""
    cache: str = ""
    """Directory for mirrors of URLs."""


@dataclass(frozen=True)
class PlanJob:
    """Find the landings of one source."""

    run: Path
    source: RepoSource
    recipe: HarvestRecipe
    options: HarvestOptions


@dataclass(frozen=True)
class HarvestJob:
    """Harvest one unit: a row group of one source's landings."""

    run: Path
    unit: str
    key: str
    group: int
    source: HarvestedSource
    recipe: HarvestRecipe
    options: HarvestOptions


@dataclass(frozen=True)
class SourceFailure:
    """A source that could not be harvested."""

    source: RepoSource
    error: SourceError


@dataclass(frozen=True)
class Outcome:
    """How a harvest ended."""

    manifest: Manifest | None
    """None while other shares of the same run are still owed."""
    failures: list[SourceFailure] = field(default_factory=list)


def harvest(
    run: Path,
    sources: Sequence[RepoSource],
    recipe: HarvestRecipe,
    options: HarvestOptions,
    *,
    workers: int = 1,
    executor: Executor = "local",
    share: tuple[int, int] = (1, 1),
) -> Outcome:
    """Harvest `sources` into the directory `run`, continuing what an earlier call with the same configuration began.

    share: (i, n) does every n-th unit beginning with the i-th, so that n machines can work on one directory; whoever
    finishes the last unit writes the manifest. Raises UsageError and RunError.
    """
    git.require()
    if workers > 1 and executor == "local":
        prepare(harvest_unit)
    with locked(run, share):
        with alone(run):
            begun = settle(run, _configuration(sources, recipe, options))
            if share == (1, 1):
                remove_unfinished(run)
            if options.pulls and not (run / PULLS_INDEX).exists():
                _index_pulls(run, Path(options.pulls))
            planned, failures = _plan(run, sources, recipe, options, workers, executor)
            if not planned:
                if begun:
                    # Nothing was opened, most often for a misspelt path: leave the directory to a corrected command.
                    (run / "config.json").unlink()
                    (run / PULLS_INDEX).unlink(missing_ok=True)
                first = failures[0].error
                none = f"None of the {len(sources)} repositories can be opened. " if len(sources) > 1 else ""
                raise RunError(f"{none}{first}")
        jobs = list(_jobs(run, planned, recipe, options))
        owed = [job for job in jobs[share[0] - 1 :: share[1]] if not marker_path(run, job.unit).exists()]
        gone = {job.key: job.source for job in owed if not Path(job.source.git_dir).exists()}
        failures += [_gone(source) for source in gone.values()]
        _harvest([job for job in jobs[share[0] - 1 :: share[1]] if job.key not in gone], workers, executor)
        with alone(run):
            if any(not marker_path(run, job.unit).exists() for job in jobs):
                return Outcome(None, failures)
            return Outcome(_finish(run, planned, failures, recipe, [job.unit for job in jobs]), failures)


def _gone(source: HarvestedSource) -> SourceFailure:
    """A repository that was there when its history was read is no fault of its changes."""
    error = SourceError("not-found", f"{source.git_dir} is gone since its history was read: bring it back to go on.")
    return SourceFailure(RepoSource(**source.model_dump(include=set(RepoSource.model_fields))), error)


def _configuration(sources: Sequence[RepoSource], recipe: HarvestRecipe, options: HarvestOptions) -> dict[str, object]:
    return {
        "generator": GENERATOR,
        "options": options.model_dump(exclude={"cache"}),
        "recipe": recipe.model_dump(),
        "sources": [source.model_dump() for source in sources],
    }


def _index_pulls(run: Path, pulls: Path) -> None:
    unfinished = run / f"{PULLS_INDEX}.{os.getpid()}.tmp"
    try:
        build_index(pulls, unfinished)
    except sqlite3.OperationalError as error:
        raise RunError(
            f"No space left, or no way to write {unfinished}: {error}. Run the same command again."
        ) from error
    unfinished.replace(run / PULLS_INDEX)


# Planning


def _plan(
    run: Path,
    sources: Sequence[RepoSource],
    recipe: HarvestRecipe,
    options: HarvestOptions,
    workers: int,
    executor: Executor,
) -> tuple[dict[str, HarvestedSource], list[SourceFailure]]:
    owed = [source for source in sources if not marker_path(run, key_of(source)).exists()]
    failures = []
    with Progress("reading histories", len(sources), done=len(sources) - len(owed), unit="repositories") as progress:
        for result in run_jobs(
            [PlanJob(run, source, recipe, options) for source in owed],
            plan_source,
            workers=min(workers, len(owed)),
            executor=executor,
        ):
            if result is not None:
                failures.append(result)
            progress.advance(1)
    keys = [key_of(source) for source in sources if marker_path(run, key_of(source)).exists()]
    planned = {key: next(read_rows(run / f"sources/part-{key}.parquet", HarvestedSource)) for key in keys}
    return planned, sorted(failures, key=lambda failure: failure.source.location)


def plan_source(job: PlanJob) -> SourceFailure | None:
    """Open a source and write its landings, one row group for each unit."""
    recipe = job.recipe
    key = key_of(job.source)
    try:
        cache = Path(job.options.cache)
        opened = open_source(job.source, cache, job.options.branch)
        reason = _excluded(opened, recipe)
        landings = [] if reason else find_landings(opened.git_dir, opened.head)
    except SourceError as error:
        return SourceFailure(job.source, error)
    proposed = sum(landing.kind != "plain" for landing in landings)
    plain = recipe.filters.plain_commits == "always" or (
        recipe.filters.plain_commits == "auto" and proposed < recipe.filters.plain_below * len(landings)
    )
    landings = landings[-job.options.limit :] if job.options.limit else landings
    try:
        with UnitOutput(job.run, key) as output:
            if reason:
                rejected = Rejected(
                    id=key, repo=opened.source.name, stage="sources", reason="excluded-repository", detail=reason
                )
                output.write("rejected", rejected)
                output.counts["rejected/sources/excluded-repository"] += 1
            for start in range(0, len(landings), recipe.unit_changes):
                for landing in landings[start : start + recipe.unit_changes]:
                    output.write("landings", landing)
                output.end_group("landings")
            output.write(
                "sources",
                HarvestedSource(
                    **opened.source.model_dump(),
                    git_dir=str(opened.git_dir),
                    head=opened.head,
                    plain=plain,
                    split=split_of(opened.source.name, recipe.validation_share),
                    landings=len(landings),
                ),
            )
            output.counts["sources"] += 1
            output.counts["landings"] += len(landings)
    except OSError as error:
        raise explain_os_error(error, f"writing {job.run}") from error
    return None


def _excluded(opened: OpenedSource, recipe: HarvestRecipe) -> str:
    """Why a repository is excluded; empty when it is not."""
    name = opened.source.name
    if name.lower() in (excluded.lower() for excluded in recipe.filters.excluded_repositories):
        return f"{name} is on the list of excluded repositories"
    if recipe.filters.excluded_roots:
        roots = git.run(opened.git_dir, "rev-list", "--max-parents=0", opened.head).decode().split()
        for root in roots:
            if root in recipe.filters.excluded_roots:
                return f"{name} shares the root commit {root} of an excluded repository"
    return ""


def split_of(name: str, validation_share: float) -> Split:
    """The split of a repository, by the hash of its name."""
    drawn = int.from_bytes(hashlib.sha256(name.lower().encode()).digest()[:8], "big") / 2**64
    return "validation" if drawn < validation_share else "train"


# Harvesting


def _jobs(
    run: Path, planned: dict[str, HarvestedSource], recipe: HarvestRecipe, options: HarvestOptions
) -> Iterator[HarvestJob]:
    for key, source in planned.items():
        for group in range(-(-source.landings // recipe.unit_changes)):
            yield HarvestJob(run, f"{key}-{group:05}", key, group, source, recipe, options)


def _harvest(jobs: Sequence[HarvestJob], workers: int, executor: Executor) -> None:
    def size(job: HarvestJob) -> int:
        step = job.recipe.unit_changes
        return min(step, job.source.landings - job.group * step)

    owed = [job for job in jobs if not marker_path(job.run, job.unit).exists()]
    total, left = sum(map(size, jobs)), sum(map(size, owed))
    with Progress("harvesting", total, done=total - left, unit="changes") as progress:
        # Newer changes are more work: the shortest units come last, so that all workers end together.
        for finished in run_jobs(reversed(owed), harvest_unit, workers=workers, executor=executor):
            progress.advance(finished["landings"], samples=finished["samples"])
    _desk.cache_clear()


def harvest_unit(job: HarvestJob) -> Counter[str]:
    """Harvest one unit of landings and write its shards; returns counts for the progress display."""
    try:
        with UnitOutput(job.run, job.unit) as output:
            return _Unit(job, output).run()
    except OSError as error:
        raise explain_os_error(error, f"writing {job.run}") from error
    except pa.ArrowException as error:
        raise RunError(f"Cannot write a shard of {job.run}: {error}. Run the same command again.") from error


@dataclass(frozen=True)
class _Desk:
    """What a worker keeps between units of the same source: processes, caches, parsed files."""

    reader: ChangeReader
    narrator: Narrator
    renderer: Renderer


@lru_cache(maxsize=1)
def _desk(run: Path, source: HarvestedSource, recipe: HarvestRecipe) -> _Desk:
    repository = git.Repository(Path(source.git_dir))
    trees = Trees(repository)
    index = run / PULLS_INDEX
    listed = RepoSource(**source.model_dump(include=set(RepoSource.model_fields)))
    pulls = PullTexts(index) if index.exists() else None
    reader = ChangeReader(repository, trees, listed, recipe, pulls=pulls)
    renderer = Renderer(recipe, *token_counter(recipe.tokenizer, recipe.bytes_per_token), source.description)
    return _Desk(reader, Narrator(Explorer(trees, recipe), recipe), renderer)


class _Unit:
    """One unit on its way to its shards."""

    def __init__(self, job: HarvestJob, output: UnitOutput) -> None:
        self.job = job
        self.output = output
        self.desk = _desk(job.run, job.source, job.recipe)

    def run(self) -> Counter[str]:
        with pq.ParquetFile(self.job.run / f"landings/part-{self.job.key}.parquet") as file:
            landings = [Landing.model_validate(row) for row in file.read_row_group(self.job.group).to_pylist()]
        for outcome in self.desk.reader.read(landings, plain=self.job.source.plain):
            if isinstance(outcome, Rejected):
                self._reject(outcome)
            else:
                self._keep(outcome)
        counts = self.output.counts
        samples = sum(counts[f"samples/{rendering}"] for rendering in self.job.recipe.renderings)
        return Counter(landings=len(landings), samples=samples)

    def _reject(self, rejected: Rejected) -> None:
        self.output.write("rejected", rejected)
        self.output.counts[f"rejected/{rejected.stage}/{rejected.reason}"] += 1

    def _keep(self, change: Change) -> None:
        self.output.write("changes", change)
        self.output.counts["changes"] += 1
        self.output.counts[f"changes/{change.kind}"] += 1
        self.output.counts["redacted/e-mail addresses"] += change.redacted_emails
        self.output.counts["redacted/trailers and CI marks"] += change.redacted_trailers
        if self.job.options.stage == "changes":
            return
        trace = self.desk.narrator.tell(change)
        if isinstance(trace, Rejected):
            self._reject(trace)
            return
        self.output.write("traces", trace)
        self.output.counts["traces"] += 1
        for rendering in self.job.recipe.renderings:
            sample = self.desk.renderer.render(rendering, change, trace)
            if isinstance(sample, Rejected):
                self._reject(sample)
                continue
            self.output.write(rendering, sample, split=self.job.source.split)
            self.output.counts[f"samples/{rendering}"] += 1
            self.output.counts[f"tokens/{rendering}"] += sample.tokens
            self.output.counts[f"tokens/{rendering}/trained"] += sample.trained_tokens


# Finishing


def _finish(
    run: Path,
    planned: dict[str, HarvestedSource],
    failures: list[SourceFailure],
    recipe: HarvestRecipe,
    units: list[str],
) -> Manifest:
    failed = "failed-sources"
    marker_path(run, failed).unlink(missing_ok=True)
    (run / f"rejected/part-{failed}.parquet").unlink(missing_ok=True)
    if failures:
        with UnitOutput(run, failed) as output:
            for failure in failures:
                name = failure.source.name or failure.source.location
                reason, detail = failure.error.reason, str(failure.error)
                output.write(
                    "rejected",
                    Rejected(id=key_of(failure.source), repo=name, stage="sources", reason=reason, detail=detail),
                )
                output.counts[f"rejected/sources/{reason}"] += 1
    tables, counts = collect(run, [*planned, *units, *([failed] if failures else [])])
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator=GENERATOR,
        configuration=(run / "config.json").read_text(encoding="utf-8"),
        tables=tables,
        counts=tuple(count for count in counted(counts, "") if not count.name.startswith(("rejected/", "tokens/"))),
        rejections=counted(counts, "rejected/"),
        tokens=counted(counts, "tokens/"),
    )
    write_whole(run / "README.md", dataset_card(manifest, recipe))
    write_whole(run / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest


def dataset_card(manifest: Manifest, recipe: HarvestRecipe) -> str:
    """The README that tells `datasets` where the configs and splits are."""
    import yaml

    configs: list[dict[str, Any]] = []
    for table in manifest.tables:
        if table.name in recipe.renderings:
            found = sorted({Path(shard.path).name.partition("-")[0] for shard in table.shards})
            files = [{"split": split, "path": f"{table.name}/{split}-*.parquet"} for split in found]
            configs.append({"config_name": table.name, "data_files": files})
        elif table.name in ("changes", "traces"):
            configs.append(
                {"config_name": table.name, "data_files": [{"split": "train", "path": f"{table.name}/part-*.parquet"}]}
            )
    order = {name: place for place, name in enumerate((*recipe.renderings, "traces", "changes"))}
    configs.sort(key=lambda config: order[str(config["config_name"])])
    if configs:
        configs[0]["default"] = True
    header = yaml.safe_dump({"configs": configs}, sort_keys=False) if configs else ""
    rows = "".join(f"| {table.name} | {table.rows} |\n" for table in manifest.tables)
    dropped = "".join(f"| {count.name} | {count.count} |\n" for count in manifest.rejections)
    return (
        f"---\n{header}---\n\n# Contextual trajectories\n\nWritten by {manifest.generator}. "
        "`manifest.json` holds the configuration, every shard's digest and all counts.\n\n"
        f"| table | rows |\n|---|---|\n{rows}\n| dropped | rows |\n|---|---|\n{dropped}"
    )
