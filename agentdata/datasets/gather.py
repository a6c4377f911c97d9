"""The rows of a window, in their order: straight from the runs' shards, or from buckets filled in one pass over them.

Where the rows of a repository lie together in the runs, as a harvest leaves them, each window reads the few row groups
that it needs. Where they lie anywhere, that would read everything many times over: then all rows are first thrown into
one bucket for each window.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.datasets.plan import Index, Numbers, Plan, PlannedShard
from agentdata.errors import RunError

PENDING_BYTES = 128 << 20
"""Arrow memory of the rows that wait for their buckets; twice as much is used while they are put there."""
SLICES = 16
"""A window that is this many stretches of rows or fewer is sliced, not copied."""


class Windows(Protocol):
    """Gives windows their rows."""

    def read(self, shard: PlannedShard) -> Iterator[pa.Table]:
        """The rows of each window of a shard."""


class DirectWindows:
    """Reads the row groups that a window needs, and keeps them for the window after it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def read(self, shard: PlannedShard) -> Iterator[pa.Table]:
        index = self.plan.index
        held: dict[int, pa.Table] = {}
        with Shelf(index, self.plan.schema.names) as shelf:
            for rows in shard.windows:
                needed = np.unique(index.piece[rows]).tolist()
                held = {piece: held[piece] if piece in held else shelf.read(piece) for piece in needed}
                yield _arranged(rows, index, needed, held)


class Shelf:
    """The runs' files, the last one open."""

    def __init__(self, index: Index, columns: Sequence[str]) -> None:
        self.index = index
        self.columns = list(columns)
        self._path = Path()
        self._file: pq.ParquetFile | None = None

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, number: int) -> pa.Table:
        """One row group. Raises RunError for a file that cannot be read any more."""
        piece = self.index.pieces[number]
        try:
            if self._file is None or self._path != piece.path:
                self.__exit__()
                self._file, self._path = pq.ParquetFile(piece.path), piece.path
            return self._file.read_row_group(piece.group, columns=self.columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            words = " ".join(str(error).split())[:200]
            raise RunError(
                f"{piece.path} cannot be read: {words}. `agentdata check` names what to harvest again."
            ) from error


def _arranged(rows: Numbers, index: Index, pieces: list[int], held: dict[int, pa.Table]) -> pa.Table:
    """The chosen rows of some pieces, in the order of `rows`."""
    lengths = [index.pieces[piece].rows for piece in pieces]
    bases = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    at = np.searchsorted(np.asarray(pieces), index.piece[rows])
    places = rows - index.starts[index.piece[rows]] + bases[at]
    table = pa.concat_tables([held[piece] for piece in pieces])
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    if len(breaks) >= SLICES:
        return table.take(places)
    edges = [0, *breaks.tolist(), len(places)]
    return pa.concat_tables([table.slice(int(places[start]), end - start) for start, end in pairwise(edges)])


class BucketWindows:
    """One file for each window, filled in one pass over the runs; read once, in any order."""

    def __init__(self, plan: Plan, shards: Sequence[PlannedShard], folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._first = {}
        windows: list[Numbers] = []
        for shard in shards:
            self._first[shard.path] = len(windows)
            windows += shard.windows
        self._fill(windows)

    def _fill(self, windows: Sequence[Numbers]) -> None:
        index = self.plan.index
        bucket_of = np.full(len(index.kept), -1, np.int32)
        for number, rows in enumerate(windows):
            bucket_of[rows] = number
        pending: list[tuple[pa.Table, npt.NDArray[np.int32]]] = []
        with Shelf(index, self.plan.schema.names) as shelf:
            for number, piece in enumerate(index.pieces):
                start = index.starts[number]
                pending.append((shelf.read(number), bucket_of[start : start + piece.rows]))
                if sum(table.nbytes for table, _ in pending) >= PENDING_BYTES:
                    self._flush(pending)
        self._flush(pending)

    def _flush(self, pending: list[tuple[pa.Table, npt.NDArray[np.int32]]]) -> None:
        """Append waiting rows to their buckets: put in order of the buckets at once, then cut."""
        if not pending:
            return
        buckets = np.concatenate([numbers for _, numbers in pending])
        order = np.argsort(buckets, kind="stable")
        order = order[np.searchsorted(buckets[order], 0) :]  # without rows that are owed no more
        table = pa.concat_tables([table for table, _ in pending]).take(order)
        pending.clear()
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        numbers, starts = np.unique(buckets[order], return_index=True)
        for bucket, (start, end) in zip(numbers.tolist(), pairwise([*starts.tolist(), len(order)]), strict=True):
            with (
                open(self._path(bucket), "ab") as file,
                pa.ipc.new_stream(file, self.plan.schema, options=options) as writer,
            ):
                writer.write_table(table.slice(start, end - start))

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{bucket:06}.arrow"

    def read(self, shard: PlannedShard) -> Iterator[pa.Table]:
        for number, rows in enumerate(shard.windows, self._first[shard.path]):
            tables = list(_streams(self._path(number)))
            # A bucket holds its rows in the order of the runs.
            yield pa.concat_tables(tables).take(np.searchsorted(np.sort(rows), rows))
            self._path(number).unlink()


def _streams(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path), "rb") as file:
        while file.tell() < file.size():
            with pa.ipc.open_stream(file) as reader, contextlib.suppress(StopIteration):
                yield reader.read_all()
