"""What a source names to units of rows: files, and stretches of them that can be read by themselves."""

import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdata.errors import RunError, UsageError
from agentdata.midtrain.recipe import Columns, PackSource

SUFFIXES = (".parquet", ".jsonl")
BATCH_ROWS = 64
USED = (
    "segments",
    "tools",
    "kind",
    "licence",
    "license",
    "id",
    "repo",
    "mask",
    "loss_mask",
    "assistant_masks",
    "labels",
)
"""Columns that are read where they exist, besides those that the recipe names."""

Stretch = tuple[int, int, int]
"""(first, behind the last, bytes)."""


@dataclass(frozen=True)
class Unit:
    """A stretch of one file: row groups of Parquet, or bytes of JSON lines from the first line that begins in them."""

    name: str
    source: int
    """Place of the source in the recipe."""
    path: Path
    first: int
    last: int
    """Row group or byte behind the last."""
    bytes: int
    columns: tuple[str, ...]
    """Columns of the file."""


def find_files(source: PackSource) -> list[Path]:
    """The files of a source, in order of their names. Raises UsageError where there are none."""
    path = Path(source.path).expanduser()
    if path.is_dir():
        found = _in_directory(path, source)
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - also for absolute patterns
    wrong = [file for file in found if file.suffix not in SUFFIXES]
    if wrong and not path.is_dir():
        raise UsageError(f"{wrong[0]} of the source {source.title!r} is neither .parquet nor .jsonl.")
    if not found:
        asked = (("rendering", source.rendering), ("split", source.split if path.is_dir() else ""))
        where = "".join(f" of the {name} {value!r}" for name, value in asked if value)
        raise UsageError(
            f"The source {source.title!r} names no .parquet or .jsonl file{where}: give a run, a dataset's directory, a "
            "file or a glob."
        )
    return found


def _in_directory(path: Path, source: PackSource) -> list[Path]:
    """Files of a run or dataset: below the folders of its rendering, of its split where names tell splits."""
    below = [path / source.rendering, path / "data" / source.rendering] if source.rendering else [path]
    found = sorted(file for folder in below for file in folder.rglob("*") if file.suffix in SUFFIXES)
    if source.rendering == "":
        found = [file for file in found if file.parent == path or file.parent.name == "data"] or found
    chosen = [file for file in found if source.split and file.name.startswith(source.split)]
    return chosen or [file for file in found if not _names_a_split(file, source)]


def _names_a_split(file: Path, source: PackSource) -> bool:
    return bool(source.split) and file.name.startswith(("train", "validation", "test"))


def find_units(source: PackSource, number: int, unit_bytes: int) -> Iterator[Unit]:
    """The units of a source. Raises UsageError for files that cannot be read or hold neither text nor messages."""
    for place, path in enumerate(find_files(source)):
        if path.suffix == ".parquet":
            names, stretches = _group_stretches(path, unit_bytes)
        else:
            names, stretches = _byte_stretches(path, unit_bytes)
        if stretches and not set(names) & set(source.columns.names()):
            raise UsageError(
                f"{path} has none of the columns {', '.join(source.columns.names())} but {', '.join(names[:12])}: name its "
                "columns in the recipe, or leave it out."
            )
        for part, (first, last, size) in enumerate(stretches):
            yield Unit(f"{number:03}-{place:05}-{part:05}", number, path, first, last, size, names)


def _group_stretches(path: Path, unit_bytes: int) -> tuple[tuple[str, ...], list[Stretch]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{path} is not a whole Parquet file: {_words(error)}. Make it again or leave it out."
        ) from error
    stretches = []
    first = size = 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= unit_bytes or group == metadata.num_row_groups - 1:
            stretches.append((first, group + 1, size))
            first, size = group + 1, 0
    return tuple(metadata.schema.to_arrow_schema().names), stretches


def _byte_stretches(path: Path, unit_bytes: int) -> tuple[tuple[str, ...], list[Stretch]]:
    size = path.stat().st_size
    row = next(_json_lines(path, 0, 1), {}) if size else {}
    stretches = [(first, min(first + unit_bytes, size)) for first in range(0, size, unit_bytes)]
    return tuple(row), [(first, last, last - first) for first, last in stretches]


def read_unit(unit: Unit, columns: Columns) -> Iterator[dict[str, Any]]:
    """The rows of a unit as dictionaries of the columns that matter. Raises RunError for a corrupt file."""
    if unit.path.suffix == ".jsonl":
        yield from _json_lines(unit.path, unit.first, unit.last)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {*columns.names(), columns.mask, *USED}
    try:
        with pq.ParquetFile(unit.path) as file:
            names = [name for name in file.schema_arrow.names if name in wanted]
            groups = list(range(unit.first, unit.last))
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=names, use_threads=False):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            f"{unit.path} is corrupt: {_words(error)}. Make it again, or leave it out in a new -o."
        ) from error


def _json_lines(path: Path, first: int, last: int) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        if first:
            file.seek(first - 1)
            file.readline()
        while file.tell() < last:
            place = file.tell()
            line = file.readline()
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunError(
                    f"{path} is corrupt at byte {place}: {_words(error)}. Correct or remove the line."
                ) from error
            if not isinstance(row, dict):
                raise RunError(
                    f"{path} is corrupt at byte {place}: a line that is no object. Correct or remove the line."
                )
            yield row


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
