"""The rows of a view to the shards that they will stand in, decided before anything is written.

Only ids, repositories and sizes are read. Rows stand by run, then by repository: a run that is added at the end leaves
the shards before it as they are, but for a last one that was less than a quarter full. Memory is about 30 bytes a row.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.datasets.inputs import TABLES, Run, shards_of, view_schema
from agentdata.datasets.recipe import DatasetRecipe, Split, View
from agentdata.errors import RunError, UsageError
from agentdata.progress import Progress
from agentdata.shards import arrow_schema
from agentdata.splits import place_of

WINDOW_BYTES = 24 << 20
"""Rows of this size are read, put in order and written as one row group."""
MOST_NEEDED = 4.0
"""Windows that would have to hold this many times their own size are filled from buckets instead."""
MOST_PASSES = 2.0
"""Reading the runs' shards more often than this costs more than throwing all rows into buckets first."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """A row group of a run's shard: what can be read at once."""

    path: Path
    group: int
    rows: int
    bytes: int
    """Of the columns that are kept, before compression."""


@dataclass(frozen=True)
class Index:
    """All rows of a view, numbered in the order of the runs."""

    pieces: Sequence[Piece]
    repositories: Sequence[str]
    repository: npt.NDArray[np.int32]
    """Number of each row's repository."""
    run: npt.NDArray[np.int32]
    """Number of each row's run."""
    kept: npt.NDArray[np.bool_]
    """False for a row whose id came before."""

    @cached_property
    def starts(self) -> Numbers:
        """First row of each piece."""
        return np.concatenate(([0], np.cumsum([piece.rows for piece in self.pieces]))).astype(np.int64)

    @cached_property
    def piece(self) -> npt.NDArray[np.int32]:
        """Number of each row's piece."""
        counts = [piece.rows for piece in self.pieces]
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    @property
    def duplicates(self) -> int:
        return int(len(self.kept) - np.count_nonzero(self.kept))


@dataclass(frozen=True)
class PlannedShard:
    """A file of the dataset and the rows that will stand in it, in windows of one row group each."""

    path: str
    """Relative to the dataset."""
    windows: Sequence[Numbers]


@dataclass(frozen=True)
class Plan:
    """A config of the dataset before it is written."""

    view: View
    schema: pa.Schema
    index: Index
    shards: Sequence[PlannedShard]

    @property
    def rows(self) -> int:
        return int(np.count_nonzero(self.index.kept)) * self.view.repeats


def split_of(repo: str, recipe: DatasetRecipe) -> Split:
    """The split of a repository: the one that a harvest with the same share gives it."""
    place = place_of(repo)
    if place < recipe.validation_share:
        return "validation"
    return "test" if place < recipe.validation_share + recipe.test_share else "train"


def make_plan(view: View, recipe: DatasetRecipe, runs: Sequence[Run], tasks: Mapping[str, str]) -> Plan:
    """Decide where every row of a view will stand. Raises UsageError for shards of another schema."""
    index = read_index(view, runs, tasks)
    sizes = _sizes(index, view.repeats)
    shards: list[PlannedShard] = []
    for split in SPLITS:
        order = _order(index, recipe, split)
        if not len(order):
            continue
        ends = list(_cut(sizes[order], recipe.shard_bytes, _boundaries(index.run[order])))
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            rows = order[start:end]
            stops = list(_cut(sizes[rows], WINDOW_BYTES, ()))
            windows = [rows[begin:stop] for begin, stop in zip([0, *stops], stops, strict=False)]
            name = f"{view.config}/{split}-{number:05}-of-{len(ends):05}.parquet"
            shards.append(PlannedShard(name, windows))
    return Plan(view, view_schema(view), index, shards)


def read_index(view: View, runs: Sequence[Run], tasks: Mapping[str, str]) -> Index:
    """Number the rows of a view. The first row of an id is kept, later ones are duplicates."""
    pieces: list[Piece] = []
    numbers: dict[str, int] = {}
    repositories, owners, keys = [], [], []
    shards = [
        (number, run.path / shard.path, shard) for number, run in enumerate(runs) for shard in shards_of(run, view)
    ]
    with Progress(f"planning {view.config}", sum(shard.rows for *_, shard in shards), unit="rows") as progress:
        for number, path, shard in shards:
            for piece, ids, repos in _read_shard(path, view, tasks):
                pieces.append(piece)
                keys.append(np.fromiter(map(_key, ids), np.uint64, len(ids)))
                codes = (numbers.setdefault(repo, len(numbers)) for repo in repos)
                repositories.append(np.fromiter(codes, np.int32, len(ids)))
                owners.append(np.full(len(ids), number, np.int32))
            progress.advance(shard.rows)
    kept = np.zeros(sum(piece.rows for piece in pieces), np.bool_)
    if pieces:
        kept[np.unique(np.concatenate(keys), return_index=True)[1]] = True
    empty = np.zeros(0, np.int32)
    return Index(pieces, list(numbers), np.concatenate([empty, *repositories]), np.concatenate([empty, *owners]), kept)


def _key(identifier: str) -> int:
    # 64 bits: among ten million ids, the odds that two different ones meet are one in four hundred thousand.
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "little")


def _read_shard(path: Path, view: View, tasks: Mapping[str, str]) -> Iterator[tuple[Piece, list[str], list[str]]]:
    try:
        with pq.ParquetFile(path) as file:
            schema = arrow_schema(TABLES[view.kind, view.table])
            if file.schema_arrow != schema:
                raise UsageError(
                    f"{path} has another schema than {view.table} of this version: run the command that wrote it again."
                )
            known = "repo" in schema.names
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=["id", "repo"] if known else ["id"], use_threads=False)
                ids: list[Any] = rows["id"].to_pylist()
                repos: list[Any] = (
                    rows["repo"].to_pylist() if known else [_repository(path, task, tasks) for task in ids]
                )
                yield Piece(path, group, len(ids), _bytes(file.metadata.row_group(group), view)), ids, repos
    except (OSError, pa.ArrowException) as error:
        words = " ".join(str(error).split())[:200]
        raise RunError(f"{path} cannot be read: {words}. `agentdata check` names what to harvest again.") from error


def _repository(path: Path, task: str, tasks: Mapping[str, str]) -> str:
    if task not in tasks:
        raise UsageError(f"{path} speaks of the task {task}, which no run has: name the run with its tasks too.")
    return tasks[task]


def _bytes(group: pq.RowGroupMetaData, view: View) -> int:
    if not view.columns:
        return group.total_byte_size
    columns = [group.column(number) for number in range(group.num_columns)]
    return sum(
        column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] in view.columns
    )


def _sizes(index: Index, repeats: int) -> npt.NDArray[np.float64]:
    """Bytes of each row, taken to be equal within a piece."""
    each = [repeats * piece.bytes / max(piece.rows, 1) for piece in index.pieces]
    return np.asarray(each, np.float64)[index.piece] if each else np.zeros(0)


def _order(index: Index, recipe: DatasetRecipe, split: Split) -> Numbers:
    """The rows of a split by run, repository and number."""
    chosen = np.array([split_of(repo, recipe) == split for repo in index.repositories], np.bool_)
    if not chosen.any():
        return np.zeros(0, np.int64)
    names = sorted(range(len(chosen)), key=lambda number: (index.repositories[number].lower(), number))
    ranks = np.empty(len(chosen), np.int32)
    ranks[names] = np.arange(len(chosen), dtype=np.int32)
    rows = np.flatnonzero(chosen[index.repository] & index.kept)
    return rows[np.lexsort((ranks[index.repository[rows]], index.run[rows]))]


def _boundaries(runs: npt.NDArray[np.int32]) -> Sequence[int]:
    """Places where another run begins."""
    return [int(place) + 1 for place in np.flatnonzero(np.diff(runs))]


def _cut(sizes: npt.NDArray[np.float64], target: int, boundaries: Sequence[int]) -> Iterator[int]:
    """Ends of stretches of about `target` bytes; at a boundary a stretch ends once it is a quarter full."""
    totals = np.cumsum(sizes)
    start = 0
    while start < len(totals):
        before = totals[start - 1] if start else 0.0
        end = int(np.searchsorted(totals, before + target)) + 1
        quarter = int(np.searchsorted(totals, before + target / 4)) + 1
        end = min([end, len(totals), *(place for place in boundaries if place >= quarter and place > start)])
        yield end
        start = end


def lies_together(plan: Plan) -> bool:
    """Whether each window finds its rows in a few pieces, and no piece is needed by many windows."""
    sizes = np.array([piece.bytes for piece in plan.index.pieces], np.float64)
    last = np.zeros(0, np.int32)
    read = 0.0
    for shard in plan.shards:
        for rows in shard.windows:
            needed = np.unique(plan.index.piece[rows])
            if sizes[needed].sum() > MOST_NEEDED * max(WINDOW_BYTES, sizes[needed].max()):
                return False
            read += sizes[np.setdiff1d(needed, last, assume_unique=True)].sum()
            last = needed
    return bool(read <= MOST_PASSES * sizes.sum())
