"""Files of rows to rows, one by one, and back: .jsonl, .json and .parquet."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from agentdata.errors import UsageError, explain_os_error

BATCH = 64


@dataclass(frozen=True, slots=True)
class FormatError:
    """A place in a file that holds no row."""

    reason: str
    detail: str


Place = tuple[str, dict[str, Any] | FormatError]


def read_rows(path: Path) -> Iterator[Place]:
    """Line or number, and the row there. Raises UsageError when the file cannot be read."""
    readers = {".jsonl": _read_lines, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise UsageError(f"{path} is no file of rows: give one that ends in .jsonl, .json or .parquet.")
    try:
        yield from readers[path.suffix](path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}. Give another file.") from error


def _read_lines(path: Path) -> Iterator[Place]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and line.strip() != b"\xef\xbb\xbf":
                yield str(number), _row(line)


def _row(line: bytes) -> dict[str, Any] | FormatError:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return FormatError("not-json", " ".join(str(error).split())[:200])
    return _checked(value)


def _checked(value: object) -> dict[str, Any] | FormatError:
    if isinstance(value, dict):
        return value
    return FormatError("not-a-row", f"{type(value).__name__} where a row was expected")


def _read_json(path: Path) -> Iterator[Place]:
    """A list of rows, or rows by their ids."""
    try:
        whole = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}. Repair it, or give another file.") from error
    if isinstance(whole, dict):
        for key, value in whole.items():
            yield key, _keyed(key, value)
    elif isinstance(whole, list):
        for number, value in enumerate(whole, 1):
            yield str(number), _checked(value)
    else:
        raise UsageError(f"{path} holds {type(whole).__name__}, not a list of rows or rows by id.")


def _keyed(key: str, value: object) -> dict[str, Any] | FormatError:
    row = _checked(value)
    if isinstance(row, FormatError):
        return row
    if row.setdefault("instance_id", key) != key:
        return FormatError("other-id", f"the row under {key!r} says that it is {row['instance_id']!r}")
    return row


def _read_parquet(path: Path) -> Iterator[Place]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=BATCH))
            for number, row in enumerate(chain.from_iterable(batches), 1):
                yield str(number), row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not a readable Parquet file: {words}. Fetch it again.") from error


def write_rows_file(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows beside the file's name and rename when all are there; how many they were. Raises UsageError, RunError."""
    writers = {".jsonl": _write_lines, ".json": _write_json, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise UsageError(f"{path} is no file of rows: give a name that ends in .jsonl, .json or .parquet.")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = writers[path.suffix](unfinished, rows)
        unfinished.replace(path)
    except OSError as error:
        raise explain_os_error(error, f"writing {path}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written


def _write_json(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    whole = list(rows)
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
    return len(whole)


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """All cells are texts, lists of texts or mappings of texts, so that the first row tells the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def schema(row: dict[str, Any]) -> pa.Schema:
        return pa.schema([pa.field(name, cell(value)) for name, value in row.items()])

    def cell(value: object) -> pa.DataType:
        if isinstance(value, dict):
            return pa.struct([pa.field(name, pa.string()) for name in value])
        return pa.list_(pa.string()) if isinstance(value, list) else pa.string()

    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        pq.write_table(pa.table({"instance_id": pa.array([], pa.string())}), path)
        return 0
    written, remaining = 0, chain([first], remaining)
    with pq.ParquetWriter(path, schema(first), compression="zstd") as writer:
        while batch := list(islice(remaining, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema(first)))
            written += len(batch)
    return written
