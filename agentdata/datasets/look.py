"""Rows of a dataset by a condition in SQL, and the differences between two datasets. DuckDB reads the Parquet files.

DuckDB rather than pyarrow: it parses conditions as people write them, and joins more rows than memory holds.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentdata.errors import RunError, UsageError
from agentdata.records import Manifest
from agentdata.shards import read_manifest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "1GB"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
MOST_TEXT = 4000
"""Characters of a text that are shown."""
MOST_TURN = 600
"""Characters of a turn that are shown."""
MOST_IDS = 5
"""Ids that a difference names."""


@contextmanager
def _database() -> Iterator["DuckDBPyConnection"]:
    import duckdb

    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as database:
        database.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = '{spill}'")
        try:
            yield database
        except duckdb.IOException as error:
            raise RunError(f"The dataset cannot be read: {_short(error)}.") from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")


def _files(folder: Path, manifest: Manifest, config: str) -> list[str]:
    table = next((table for table in manifest.tables if table.name == config), None)
    if table is None:
        known = ", ".join(table.name for table in manifest.tables)
        raise UsageError(f"{folder} has no config {config!r}: choose from {known}.")
    return [str(folder / shard.path) for shard in table.shards]


# Samples


def sample(folder: Path, config: str = "", *, where: str = "", count: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a config that fulfil a condition of SQL, chosen by the hash of their ids; the same for the same seed.

    config: empty for the first. Raises UsageError for a condition that is none.
    """
    import duckdb

    manifest = read_manifest(folder)
    files = _files(folder, manifest, config or manifest.tables[0].name)
    condition = f"WHERE {where}" if where.strip() else ""
    with _database() as database:
        try:
            # Ids first: what a condition does not need is read for the chosen rows alone.
            chosen = database.execute(
                f"SELECT id FROM read_parquet($files) {condition} ORDER BY hash(id || $seed), id LIMIT $count",  # noqa: S608
                {"files": files, "seed": f" {seed}", "count": count},
            ).fetchall()
        except (duckdb.ParserException, duckdb.BinderException, duckdb.ConversionException) as error:
            raise UsageError(f"--where {where!r} is no condition on these columns: {_short(error)}.") from error
        if not chosen:
            return []
        ids = [name for (name,) in chosen]
        query = "SELECT * FROM read_parquet($files) WHERE id IN $ids"
        found = database.sql(query, params={"files": files, "ids": ids}).to_arrow_table()
        rows = {row["id"]: row for row in found.to_pylist()}
    return [rows[name] for name in ids]


def shown(row: dict[str, Any]) -> str:
    """A row for a person: its short values on one line each, then its text or its turns."""
    lines = [f"── {row['id']} ──"]
    for name, value in row.items():
        if name not in ("id", "text", "messages") and isinstance(value, str | int | float) and value not in ("", 0, -1):
            lines.append(f"{name}: {_cut(str(value))}")
    lines += [_cut(str(row["text"]), MOST_TEXT)] if "text" in row else []
    for message in row.get("messages", ()):
        lines.append(f"[{message['role']}] {_cut(message['content'], MOST_TURN)}".rstrip())
        for call in message["tool_calls"]:
            lines.append(f"  > {call['function']['name']} {_cut(call['function']['arguments'], MOST_TURN)}")
    # What a repository holds does not steer the terminal.
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", "\n".join(lines)) + "\n"


def _cut(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]} … {len(text) - most:,} more characters"


# Differences


@dataclass(frozen=True)
class ConfigDifference:
    """What differs in one config, from the first dataset to the second."""

    config: str
    rows: tuple[int, int]
    added: int
    removed: int
    changed: int
    """Rows of the same id that differ in a column that both have."""
    examples: tuple[str, ...]
    """Some of their ids, each with a sign: + added, - removed, ~ changed."""
    schema: tuple[str, ...]
    """Columns that are new, gone or of another type."""
    licences: tuple[tuple[str, int, int], ...]
    """Licences whose number of rows differs: name, rows before, rows after."""

    @property
    def any(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.schema)


def differences(before: Path, after: Path) -> list[ConfigDifference]:
    """What differs between two datasets, config by config."""
    manifests = read_manifest(before), read_manifest(after)
    names = dict.fromkeys(table.name for manifest in manifests for table in manifest.tables)
    with _database() as database:
        return [_difference(database, name, (before, after), manifests) for name in names]


def _difference(
    database: "DuckDBPyConnection", config: str, folders: tuple[Path, Path], manifests: tuple[Manifest, Manifest]
) -> ConfigDifference:
    there = [any(table.name == config for table in manifest.tables) for manifest in manifests]
    for side, folder, manifest, found in zip("ab", folders, manifests, there, strict=True):
        if found:
            database.read_parquet(_files(folder, manifest, config)).create_view(side, replace=True)
    for side, other, found in (("a", "b", there[0]), ("b", "a", there[1])):
        if not found:
            database.sql(f"SELECT * FROM {other} WHERE false").create_view(side, replace=True)  # noqa: S608
    types = [dict(zip(view.columns, map(str, view.types), strict=True)) for view in map(database.view, "ab")]
    kinds, examples = _changed(database, [name for name in types[0] if types[1].get(name) == types[0][name]])
    sizes = [sum(table.rows for table in manifest.tables if table.name == config) for manifest in manifests]
    return ConfigDifference(
        config=config,
        rows=(sizes[0], sizes[1]),
        added=kinds["+"],
        removed=kinds["-"],
        changed=kinds["~"],
        examples=examples,
        schema=tuple(_schema_changes(*types)) if all(there) else (),
        licences=tuple(_licence_changes(database)) if "licence" in types[0] and "licence" in types[1] else (),
    )


def _changed(database: "DuckDBPyConnection", shared: Sequence[str]) -> tuple[Counter[str], tuple[str, ...]]:
    """Rows by what became of them, and some of their ids."""
    columns = ", ".join(f'"{name}"' for name in shared)
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE changed AS
        SELECT id, CASE WHEN a.content IS NULL THEN '+' WHEN b.content IS NULL THEN '-' ELSE '~' END AS kind
        FROM (SELECT id, hash({columns}) AS content FROM a) a
        FULL JOIN (SELECT id, hash({columns}) AS content FROM b) b USING (id)
        WHERE a.content IS DISTINCT FROM b.content
        """  # noqa: S608
    )
    counts = database.execute("SELECT kind, count(*) FROM changed GROUP BY kind").fetchall()
    some = database.execute(
        "SELECT kind || id FROM changed ORDER BY kind, id LIMIT $most", {"most": MOST_IDS}
    ).fetchall()
    return Counter(dict(counts)), tuple(name for (name,) in some)


def _schema_changes(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*before, *after)):
        if name not in before:
            yield f"column {name} is new"
        elif name not in after:
            yield f"column {name} is gone"
        elif before[name] != after[name]:
            yield f"column {name} was {before[name]} and is {after[name]}"


def _licence_changes(database: "DuckDBPyConnection") -> Iterator[tuple[str, int, int]]:
    counts = [
        dict(database.execute(f"SELECT licence, count(*) FROM {side} GROUP BY licence").fetchall())  # noqa: S608
        for side in "ab"
    ]
    for name in sorted(counts[0] | counts[1]):
        before, after = counts[0].get(name, 0), counts[1].get(name, 0)
        if before != after:
            yield name, before, after
