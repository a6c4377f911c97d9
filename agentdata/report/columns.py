"""Tables of a run to batches of a few columns: what is not asked for, as the texts of messages, is never read."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from agentdata import records
from agentdata.errors import RunError
from agentdata.progress import Progress

BATCH_ROWS = 4096
LAST_SECOND = 253_402_300_800
"""End of the year 9999: a history may claim any time."""
Array = Any
"""An Arrow array, or None for a column that the table has not; which type its values have is not known before."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table of a run."""

    run: Path
    table: records.Table

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def count(self) -> int:
        """How many there are."""
        return self.table.rows

    @property
    def bytes(self) -> int:
        """Of the files."""
        return sum(shard.bytes for shard in self.table.shards)

    @cached_property
    def leaves(self) -> dict[str, str]:
        """Columns inside lists and structures, as `steps.tool_calls.function.name`, with Parquet's names for them."""
        with _opened(self.run / self.table.shards[0].path) as file:
            paths = [file.schema.column(place).path for place in range(len(file.schema))]
        return {path.replace(".list.element", ""): path for path in paths}

    @cached_property
    def columns(self) -> frozenset[str]:
        """The outermost columns."""
        return frozenset(leaf.partition(".")[0] for leaf in self.leaves)

    def splits(self) -> dict[str, int]:
        """Rows of each split, in which the names of shards begin."""
        found: Counter[str] = Counter()
        for shard in self.table.shards:
            found[Path(shard.path).name.partition("-")[0]] += shard.rows
        return dict(found)

    def batches(self, *leaves: str) -> Iterator[pa.RecordBatch]:
        """The columns that there are of those asked for, a few thousand rows at a time. Raises RunError."""
        wanted = [self.leaves[leaf] for leaf in leaves if leaf in self.leaves]
        if not wanted:
            return
        with Progress(f"reading {self.name}", self.count, unit="rows") as progress:
            for shard in self.table.shards:
                with _opened(self.run / shard.path) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                        yield batch
                        progress.advance(batch.num_rows)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A shard to read from. Raises RunError for one that cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        words = " ".join(str(error).split())[:200]
        raise RunError(f"{path} cannot be read: {words}. `agentdata check` says what is damaged.") from error


def column(batch: pa.RecordBatch, leaf: str) -> Array:
    """A column inside structures, as `verdict.resolved`; None where the table has none."""
    name, *inner = leaf.split(".")
    if name not in batch.schema.names:
        return None
    found: Array = batch.column(name)
    for field in inner:
        if field not in [one.name for one in found.type]:
            return None
        found = pc.struct_field(found, field)
    return found


def flat(batch: pa.RecordBatch, leaf: str) -> Array:
    """All values of a column inside lists, one after another; None where the table has none."""
    name, *inner = leaf.split(".")
    if name not in batch.schema.names:
        return None
    found = _unlisted(batch.column(name))
    for field in inner:
        if field not in [one.name for one in found.type]:
            return None
        found = _unlisted(pc.struct_field(found, field))
    return found


def _unlisted(array: Array) -> Array:
    while pa.types.is_list(array.type):
        array = pc.list_flatten(array)
    return array


def count(counts: Counter[Any], values: Array) -> None:
    """Add how often each value occurs."""
    if values is not None:
        found = pc.value_counts(values)
        for value, number in zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True):
            counts[value] += int(number or 0)


def equal(values: Array, value: str) -> Array:
    """For each value whether it is this one."""
    wanted: Any = pa.scalar(value)
    return pc.equal(values, wanted)


def add_sums(sums: Counter[Any], keys: Array, values: Array) -> None:
    """Add the values up by their keys."""
    if keys is not None and values is not None:
        grouped = (
            pa.table({"key": keys, "value": values}).group_by("key", use_threads=False).aggregate([("value", "sum")])
        )
        for key, number in zip(grouped["key"].to_pylist(), grouped["value_sum"].to_pylist(), strict=True):
            sums[key] += int(number or 0)


def sums_of_lists(lists: Array, field: str) -> list[int]:
    """For each list of structures the sum of a field."""
    sums: Counter[int] = Counter()
    add_sums(sums, pc.list_parent_indices(lists), pc.struct_field(pc.list_flatten(lists), field))
    return [sums[place] for place in range(len(lists))]


def years(seconds: Array) -> Array:
    """The years of times since the epoch; those that are none are left out."""
    if seconds is None:
        return None
    known: Array = pc.and_(pc.greater(seconds, pa.scalar(0)), pc.less(seconds, pa.scalar(LAST_SECOND)))
    told = pc.filter(seconds, known)
    return pc.year(pc.cast(told, pa.timestamp("s")))
