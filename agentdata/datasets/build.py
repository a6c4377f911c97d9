"""Runs to a dataset in the layout of the Hub, one shard at a time: a shard is finished or not begun.

DIR/<config>/<split>-NNNNN-of-MMMMM.parquet   rows
DIR/README.md                                 the card, computed from the rows
DIR/config.json                               what was asked for; a dataset is continued only with the same
DIR/units/*.json                              one marker for each finished shard, with what the card tells of it
DIR/manifest.json                             written last
"""

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import pyarrow as pa

from agentdata import __version__
from agentdata.datasets.card import write_card
from agentdata.datasets.config import Config
from agentdata.datasets.facts import Facts, facts_of
from agentdata.datasets.gather import BucketWindows, DirectWindows, Windows
from agentdata.datasets.inputs import Run, open_runs, repositories_of_tasks, shards_of, view_schema
from agentdata.datasets.plan import Plan, PlannedShard, lies_together, make_plan
from agentdata.datasets.recipe import DatasetRecipe
from agentdata.datasets.views import check_mask, transform
from agentdata.errors import RunError, UsageError
from agentdata.progress import Progress
from agentdata.records import SCHEMA_VERSION, Count, Manifest, Shard, Table
from agentdata.runs import locked, settle
from agentdata.shards import ShardWriter, marker_path, read_manifest, remove_unfinished, write_whole

GENERATOR = f"agentdata {__version__}"
BUCKETS = "buckets"


class _Stopped(Exception):  # noqa: N818 - ends a shard, and is no fault
    """Another shard failed, or Ctrl-C was pressed."""


def build_dataset(
    output: Path, paths: Sequence[Path], recipe: DatasetRecipe, *, command: str, workers: int = 2
) -> Manifest:
    """Assemble runs into the directory `output`, continuing what an earlier call with the same arguments began.

    command: what a reader of the card would type to build it again. Rows whose id came before are dropped and counted.
    Raises UsageError, RunError.
    """
    for view in recipe.views:
        check_mask(view, view_schema(view).names)
    runs = open_runs(paths)
    views = [view for view in recipe.views if any(shards_of(run, view) for run in runs)]
    if not views:
        raise UsageError(f"None of the {len(runs)} runs has a table that the recipe takes: see its views.")
    with locked(output, (1, 1)):
        settle(output, _configuration(runs, recipe, command))
        if (output / "manifest.json").is_file():
            return read_manifest(output)
        remove_unfinished(output)
        try:
            tasks = repositories_of_tasks(runs)
            configs = [_write_config(output, make_plan(view, recipe, runs, tasks), workers) for view in views]
            return _finish(output, [config for config in configs if config.splits], runs, recipe, command)
        except UsageError:
            if not (output / "units").exists():
                # Nothing is written yet: leave the directory to a corrected command.
                (output / "config.json").unlink()
            raise


def _configuration(runs: Sequence[Run], recipe: DatasetRecipe, command: str) -> dict[str, object]:
    return {
        "generator": GENERATOR,
        "options": {
            "command": command,
            "runs": [{"path": str(run.path), "manifest": run.digest} for run in runs],
        },
        "recipe": recipe.model_dump(mode="json"),
    }


# Writing


def _write_config(output: Path, plan: Plan, workers: int) -> Config:
    """Write what is owed of a config and tell what it holds."""
    owed = [shard for shard in plan.shards if not marker_path(output, _unit(shard)).exists()]
    left = sum(_rows(plan, shard) for shard in owed)
    with Progress(f"writing {plan.view.config}", plan.rows, done=plan.rows - left, unit="rows") as progress:
        if owed:
            for rows in _write_shards(output, plan, _windows(output, plan, owed), owed, workers):
                progress.advance(rows)
    shutil.rmtree(output / BUCKETS, ignore_errors=True)
    return _read_back(output, plan)


def _windows(output: Path, plan: Plan, owed: Sequence[PlannedShard]) -> Windows:
    # Asked of the whole plan, so that a continued build reads as it did at first.
    return DirectWindows(plan) if lies_together(plan) else BucketWindows(plan, owed, output / BUCKETS)


def _write_shards(
    output: Path, plan: Plan, windows: Windows, owed: Sequence[PlannedShard], workers: int
) -> Iterator[int]:
    """Write shards beside each other; gives the rows of each that is finished."""
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures: list[Future[int]] = [pool.submit(_write_shard, output, plan, windows, shard, stop) for shard in owed]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


def _write_shard(output: Path, plan: Plan, windows: Windows, shard: PlannedShard, stop: threading.Event) -> int:
    facts = Facts()
    writer = ShardWriter(output / shard.path, plan.schema)
    try:
        for window in windows.read(shard):
            if stop.is_set():
                raise _Stopped
            rows = transform(window, plan.view)
            facts.add(facts_of(rows, json_fields=plan.view.kind == "environmental"))
            writer.write_group(rows)
        digest = writer.finish()
    except pa.ArrowException as error:
        writer.abandon()
        raise RunError(f"Cannot write {output / shard.path}: {error}. Run the same command again.") from error
    except BaseException:
        writer.abandon()
        raise
    writer.publish()
    size = (output / shard.path).stat().st_size
    entry = Shard(path=shard.path, rows=writer.rows, bytes=size, sha256=digest)
    marker = {"shards": [entry.model_dump()], "counts": {}, "facts": facts.as_json()}
    write_whole(marker_path(output, _unit(shard)), json.dumps(marker, indent=1) + "\n")
    return writer.rows


def _unit(shard: PlannedShard) -> str:
    return shard.path.removesuffix(".parquet").replace("/", "--")


def _rows(plan: Plan, shard: PlannedShard) -> int:
    return plan.view.repeats * sum(len(window) for window in shard.windows)


# Finishing


def _read_back(output: Path, plan: Plan) -> Config:
    """A config as its markers tell it."""
    shards: list[Shard] = []
    splits: dict[str, Facts] = {}
    for planned in plan.shards:
        marker = json.loads(marker_path(output, _unit(planned)).read_text(encoding="utf-8"))
        shards += [Shard.model_validate(entry) for entry in marker["shards"]]
        split = Path(planned.path).name.partition("-")[0]
        splits.setdefault(split, Facts()).add(Facts.from_json(marker["facts"]))
    return Config(plan.view, plan.schema, tuple(shards), splits, plan.index.duplicates)


def _finish(
    output: Path, configs: Sequence[Config], runs: Sequence[Run], recipe: DatasetRecipe, command: str
) -> Manifest:
    if not configs:
        raise UsageError("The runs hold no rows.")
    write_whole(output / "README.md", write_card(configs, runs, recipe, command))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator=GENERATOR,
        configuration=(output / "config.json").read_text(encoding="utf-8"),
        tables=tuple(_table(config) for config in configs),
        counts=tuple(_counts(configs)),
        rejections=tuple(
            Count(name=f"{config.view.config}/duplicate", count=config.duplicates)
            for config in configs
            if config.duplicates
        ),
        tokens=tuple(_tokens(configs)),
    )
    write_whole(output / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _table(config: Config) -> Table:
    return Table(name=config.view.config, rows=config.facts.rows, shards=config.shards)


def _counts(configs: Sequence[Config]) -> Iterator[Count]:
    for config in configs:
        yield Count(name=config.view.config, count=config.facts.rows)
        for split, facts in config.splits.items():
            yield Count(name=f"{config.view.config}/{split}", count=facts.rows)


def _tokens(configs: Sequence[Config]) -> Iterator[Count]:
    for config in configs:
        if config.facts.tokens:
            yield Count(name=config.view.config, count=config.facts.tokens)
            yield Count(name=f"{config.view.config}/trained", count=config.facts.trained_tokens)
