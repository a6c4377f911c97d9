"""Folders to their tables: how many rows are in which file, and any row by its number."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.errors import UsageError
from agentdata.shards import read_manifest


@dataclass(frozen=True)
class Table:
    """One table of a folder: its rows are numbered from 0, file after file."""

    name: str
    files: tuple[Path, ...]
    schema: pa.Schema
    counts: tuple[int, ...]
    """Rows of each file."""

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """Number of the first row of each file, and of all rows at the end."""
        return tuple(accumulate(self.counts, initial=0))

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self.bases[-1]

    def row(self, number: int) -> dict[str, Any]:
        """A whole row. Raises LookupError where there is none."""
        if not 0 <= number < self.rows:
            raise LookupError(number)
        place = bisect_right(self.bases, number) - 1
        left = number - self.bases[place]
        with pq.ParquetFile(self.files[place]) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if left < count:
                    # One row only becomes Python objects: others may be large.
                    return dict(file.read_row_group(group).slice(left, 1).to_pylist()[0])
                left -= count
        raise LookupError(number)


@dataclass(frozen=True)
class Folder:
    """A dataset or run that is looked at."""

    path: Path
    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """What pages call it."""
        return self.path.resolve().name

    def table(self, name: str) -> Table:
        """A table by name. Raises LookupError."""
        found = next((table for table in self.tables if table.name == name), None)
        if found is None:
            raise LookupError(name)
        return found


def open_folder(path: Path) -> Folder:
    """The tables of a dataset, a run, or the runs in a folder such as an evaluation's. Raises UsageError."""
    tables = tuple(_tables(path, ""))
    if not tables:
        inner = sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
        tables = tuple(table for each in inner for table in _tables(each, f"{each.name}-"))
    if not tables:
        raise UsageError(f"{path} holds no tables: give the directory of a dataset or of a run that has rows.")
    return Folder(path, tables)


def _tables(path: Path, prefix: str) -> Iterator[Table]:
    if (path / "manifest.json").is_file():
        read_manifest(path)
    for folder in sorted(each for each in path.glob("*") if each.is_dir()):
        # Without a manifest a run is not finished: the files that are there are whole.
        files = sorted(each for each in folder.glob("*.parquet") if not each.name.startswith("."))
        if files:
            yield _table(prefix + folder.name, files)


def _table(name: str, files: list[Path]) -> Table:
    try:
        schema = pq.read_schema(files[0])
        counts = tuple(pq.read_metadata(file).num_rows for file in files)
    except (OSError, pa.ArrowInvalid) as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"{files[0].parent} holds a file that is no Parquet: {words}") from error
    return Table(name, tuple(files), schema, counts)
