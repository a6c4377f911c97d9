"""What the user names to the shards that a dataset is made of, each with the view that it belongs to."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.datasets.recipe import Kind, View
from agentdata.errors import UsageError
from agentdata.records import (
    Change,
    ChatSample,
    Environment,
    GoldPatch,
    Manifest,
    Record,
    Shard,
    Task,
    TaskTests,
    TextSample,
    TokenSample,
    Trace,
    Trajectory,
)
from agentdata.shards import arrow_schema, read_manifest

TABLES: dict[tuple[Kind, str], type[Record]] = {
    ("contextual", "markdown"): TextSample,
    ("contextual", "xml"): TextSample,
    ("contextual", "messages"): ChatSample,
    ("contextual", "changes"): Change,
    ("contextual", "traces"): Trace,
    ("environmental", "xml"): TextSample,
    ("environmental", "messages"): ChatSample,
    ("environmental", "tokens"): TokenSample,
    ("environmental", "trajectories"): Trajectory,
    ("tasks", "tasks"): Task,
    ("tasks", "tests"): TaskTests,
    ("tasks", "gold"): GoldPatch,
    ("tasks", "environments"): Environment,
}
SAMPLES = ("markdown", "xml", "messages", "tokens")


@dataclass(frozen=True)
class Run:
    """A finished run that the dataset takes rows from."""

    path: Path
    manifest: Manifest
    digest: str
    """SHA-256 of its manifest, and so of all its shards."""

    @property
    def configuration(self) -> dict[str, Any]:
        """What the run was asked for."""
        found = json.loads(self.manifest.configuration)
        return found if isinstance(found, dict) else {}


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs, in the order given, each once. Raises UsageError for one that is not finished."""
    runs = []
    for path in dict.fromkeys(paths):
        manifest = read_manifest(path)
        digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        runs.append(Run(path, manifest, digest))
    return runs


def view_schema(view: View) -> pa.Schema:
    """The one schema of all shards of a config. Raises UsageError for a table or column that there is not."""
    record = TABLES.get((view.kind, view.table))
    if record is None:
        known = ", ".join(table for kind, table in TABLES if kind == view.kind)
        raise UsageError(f"{view.config}: {view.kind} runs have no table {view.table!r}: choose from {known}.")
    schema = arrow_schema(record)
    unknown = [column for column in view.columns if column not in schema.names]
    if unknown:
        raise UsageError(f"{view.config}: there is no column {unknown[0]!r}: choose from {', '.join(schema.names)}.")
    if view.columns and "id" not in view.columns:
        raise UsageError(f"{view.config}: keep the column 'id', by which rows are told apart.")
    return pa.schema([field for field in schema if not view.columns or field.name in view.columns])


def shards_of(run: Run, view: View) -> Sequence[Shard]:
    """The shards of a run that belong to a view."""
    table = next((table for table in run.manifest.tables if table.name == view.table), None)
    if table is None or not table.shards or _kind(run, view.table) != view.kind:
        return ()
    return table.shards


def _kind(run: Run, table: str) -> Kind:
    if table in SAMPLES:
        return _kind_of_samples(run.path, next(one for one in run.manifest.tables if one.name == table).shards[0])
    return next(kind for kind, name in TABLES if name == table)


@cache
def _kind_of_samples(run: Path, shard: Shard) -> Kind:
    with pq.ParquetFile(run / shard.path) as file:
        batch = next(file.iter_batches(batch_size=1, columns=["kind"]))
    return "environmental" if batch.column(0)[0].as_py() == "environmental" else "contextual"


def repositories_of_tasks(runs: Sequence[Run]) -> dict[str, str]:
    """Id of each task to its repository, for the tables that know tasks by their id alone."""
    return dict(pair for run in runs for pair in _tasks(run))


def _tasks(run: Run) -> Iterator[tuple[str, str]]:
    for table in run.manifest.tables:
        if table.name == "tasks":
            for shard in table.shards:
                rows = pq.read_table(run.path / shard.path, columns=["id", "repo"])
                yield from zip(rows["id"].to_pylist(), rows["repo"].to_pylist(), strict=True)
