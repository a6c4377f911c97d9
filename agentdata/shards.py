"""Records to sharded Parquet and back: one explicit schema per record, complete files only, sums in a manifest.

A run is a directory; each table is a folder of shards in it. A unit of work writes its shard of every table beside the
final names, renames them, and writes its marker `units/<name>.json` last: a unit with a marker is finished, any other is
done again and gives the same bytes.
"""

import contextlib
import hashlib
import json
import os
import platform
import typing
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from functools import cache
from itertools import accumulate, chain
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from agentdata.errors import RunError, UsageError
from agentdata.records import SCHEMA_VERSION, Count, Manifest, Record, Shard, Table

RecordType = TypeVar("RecordType", bound=Record)

BATCH_ROWS = 32
GROUP_BYTES = 8 << 20
NUMBERS = {pa.int64(): "q", pa.float64(): "d"}
SCALARS: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


@cache
def arrow_schema(record: type[Record]) -> pa.Schema:
    """The Arrow schema of a record type; every field is required."""
    return pa.schema([pa.field(name, _arrow_type(field.annotation)) for name, field in record.model_fields.items()])


def _arrow_type(annotation: Any) -> pa.DataType:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(
            [pa.field(name, _arrow_type(field.annotation)) for name, field in annotation.model_fields.items()]
        )
    return SCALARS[annotation]


def arrow_batch(rows: Sequence[Record], schema: pa.Schema) -> pa.RecordBatch:
    """Records as Arrow columns."""
    return pa.RecordBatch.from_arrays([_member(rows, field) for field in schema], schema=schema)


def _member(rows: Sequence[Any], field: "pa.Field[Any]") -> "pa.Array[Any]":
    return _column(list(map(attrgetter(field.name), rows)), field.type)


def _column(values: Sequence[Any], kind: pa.DataType) -> "pa.Array[Any]":
    """Values that a record has checked, straight into Arrow's buffers.

    `pa.array` would take dictionaries, and load pandas to ask whether they are pandas' own.
    """
    size = len(values)
    if pa.types.is_struct(kind):
        return pa.Array.from_buffers(kind, size, [None], children=[_member(values, field) for field in kind])
    if pa.types.is_list(kind):
        items = _column(list(chain.from_iterable(values)), kind.value_type)
        return pa.Array.from_buffers(kind, size, [None, _offsets(values)], children=[items])
    if pa.types.is_string(kind):
        texts = [value.encode() for value in values]
        return pa.Array.from_buffers(kind, size, [None, _offsets(texts), pa.py_buffer(b"".join(texts))])
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(pa.uint8(), size, [None, pa.py_buffer(bytes(values))]).cast(kind)
    return pa.Array.from_buffers(kind, size, [None, pa.py_buffer(array(NUMBERS[kind], values))])


def _offsets(values: Sequence[Sized]) -> pa.Buffer:
    return pa.py_buffer(array("i", accumulate(map(len, values), initial=0)))


class ShardWriter:
    """An open shard: rows are buffered to row groups of about 8 MB of Arrow memory and compressed with zstd-3."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._pending: list[Record] = []
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(_unfinished(path), "wb")  # noqa: SIM115 - closed by finish or abandon
        self._writer = pq.ParquetWriter(
            self._file,
            self.schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
            write_page_index=True,
            use_content_defined_chunking=True,
        )

    def write(self, row: Record) -> None:
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) >= BATCH_ROWS:
            self._convert()

    def _convert(self) -> None:
        if not self._pending:
            return
        batch = arrow_batch(self._pending, self.schema)
        self._pending = []
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def write_group(self, rows: pa.Table) -> None:
        """Append rows as a row group of their own."""
        self.end_group()
        self._writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
        self.rows += rows.num_rows

    def end_group(self) -> None:
        """Close the current row group."""
        self._convert()
        self._flush()

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches, self.schema))
        self._batches, self._bytes = [], 0

    def finish(self) -> str:
        """Close the file, make it durable and return its SHA-256. It still has its unfinished name."""
        self.end_group()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with open(_unfinished(self.path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def publish(self) -> None:
        _unfinished(self.path).replace(self.path)

    def abandon(self) -> None:
        # What failed is already being reported; closing a writer on a full disk fails once more.
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        _unfinished(self.path).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    # Two machines that share a directory may write the same shard: each has a name of its own until it is whole.
    return path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.tmp")


class UnitOutput:
    """The shards that one unit of work writes, published together when the block ends without an error."""

    def __init__(self, run: Path, unit: str) -> None:
        self.run = run
        self.unit = unit
        self.counts: Counter[str] = Counter()
        self._writers: dict[str, ShardWriter] = {}

    def __enter__(self) -> Self:
        return self

    def write(self, table: str, row: Record, *, split: str = "part") -> None:
        """Append a row to this unit's shard `<table>/<split>-<unit>.parquet`."""
        path = f"{table}/{split}-{self.unit}.parquet"
        writer = self._writers.get(path)
        if writer is None:
            writer = self._writers[path] = ShardWriter(self.run / path, arrow_schema(type(row)))
        writer.write(row)

    def end_group(self, table: str, *, split: str = "part") -> None:
        """Close the current row group of a table, so that it can be read by itself."""
        self._writers[f"{table}/{split}-{self.unit}.parquet"].end_group()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._publish()
                return
            except BaseException:
                self._abandon()
                raise
        self._abandon()

    def _publish(self) -> None:
        digests = {path: writer.finish() for path, writer in sorted(self._writers.items())}
        shards = []
        for path, writer in sorted(self._writers.items()):
            writer.publish()
            size = (self.run / path).stat().st_size
            shards.append(Shard(path=path, rows=writer.rows, bytes=size, sha256=digests[path]).model_dump())
        marker = {"shards": shards, "counts": dict(sorted(self.counts.items()))}
        write_whole(marker_path(self.run, self.unit), json.dumps(marker, indent=1) + "\n")

    def _abandon(self) -> None:
        for writer in self._writers.values():
            writer.abandon()


def marker_path(run: Path, unit: str) -> Path:
    return run / "units" / f"{unit}.json"


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is never seen half written, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_unfinished(path), "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _unfinished(path).replace(path)


def remove_unfinished(run: Path) -> None:
    """Delete what a stopped process left half written."""
    for pattern in ("*.tmp", "*.tmp-journal", "*/*.tmp"):
        for path in run.glob(pattern):
            path.unlink(missing_ok=True)


def collect(run: Path, units: list[str]) -> tuple[tuple[Table, ...], Counter[str]]:
    """The tables and summed counts of finished units, in the order of the units."""
    tables: dict[str, list[Shard]] = {}
    counts: Counter[str] = Counter()
    for unit in units:
        marker = json.loads(marker_path(run, unit).read_text())
        counts.update(marker["counts"])
        for entry in marker["shards"]:
            shard = Shard.model_validate(entry)
            tables.setdefault(shard.path.partition("/")[0], []).append(shard)
    return (
        tuple(
            Table(name=name, rows=sum(shard.rows for shard in shards), shards=tuple(shards))
            for name, shards in sorted(tables.items())
        ),
        counts,
    )


def counted(counts: Counter[str], prefix: str) -> tuple[Count, ...]:
    """The counts whose names start with `prefix`, without it, the most frequent first."""
    chosen = [(name.removeprefix(prefix), count) for name, count in counts.items() if name.startswith(prefix)]
    return tuple(Count(name=name, count=count) for name, count in sorted(chosen, key=lambda pair: (-pair[1], pair[0])))


def read_manifest(run: Path) -> Manifest:
    """The manifest of a finished run."""
    path = run / "manifest.json"
    if not path.is_file():
        if (run / "config.json").is_file():
            raise UsageError(f"{run} is an unfinished run: run the command that started it again to finish it.")
        raise UsageError(f"{run} holds no manifest.json: give the directory that a run wrote with -o.")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not a manifest of this version of agentdata: {words}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise UsageError(
            f"{run} holds records of version {manifest.schema_version}, and this agentdata reads version {SCHEMA_VERSION}: "
            f"make the run again, or read it with what wrote it ({manifest.generator})."
        )
    return manifest


def read_rows(path: Path, record: type[RecordType]) -> Iterator[RecordType]:
    """The rows of one shard as records."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield record.model_validate(row)
    except (OSError, pa.ArrowException, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise RunError(f"{path} cannot be read: {words}. `agentdata check` names what to harvest again.") from error


def read_table(run: Path, table: str, record: type[RecordType]) -> Iterator[RecordType]:
    """All rows of a table of a finished run, in the order of the manifest."""
    for entry in read_manifest(run).tables:
        if entry.name == table:
            for shard in entry.shards:
                yield from read_rows(run / shard.path, record)
