"""A table's short columns, indexed once: which rows fulfil a filter, what may be filtered by, which row is the next one.

DuckDB holds the index in memory or, where it grows large, in a temporary file. Texts are not indexed but scanned.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self

import duckdb
import pyarrow as pa

from agentdata.viewer.tables import Table

MEMORY = "2GB"
UNREADABLE = (OSError, pa.ArrowException, duckdb.Error)
"""What reading a table's files raises."""
PAGE = 50
"""Rows of a page."""
CHOICES = 200
"""Most values of a filter that are offered."""
PATIENCE = 2.0
"""Seconds of scanning texts after which what was found is shown."""
FILTERS = {
    "repository": ("repo", "name"),
    "kind": ("kind", "source", "stage", "statement_source"),
    "outcome": ("verdict.reason", "verdict", "reason", "resolved", "band"),
    "stop": ("stop",),
    "language": ("languages",),
    "licence": ("licence",),
}
"""Columns that a filter looks at: the first one that a table has."""
SHOWN = (
    "title",
    "task",
    "model",
    "policy",
    "tier",
    "attempt",
    "tokens",
    "trained_tokens",
    "seconds",
    "python",
    "origin",
    "detail",
)
"""Columns that the list shows beside id and filters, where a table has them."""
MOST_SHOWN = 120
"""Characters of a value in the list."""


@dataclass(frozen=True)
class Found:
    """Rows of a page of the list."""

    rows: list[dict[str, Any]]
    """`n`, `id`, and the columns of filters and list."""
    following: int | None
    """Where the next page begins; None where this is the last."""
    total: int | None
    """Rows that fulfil the filters; None where texts are searched."""
    searched: int = 0
    """Rows whose texts were searched from the page's begin."""


class Index:
    """The index of one table; safe for several threads."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.filters = {name: column for name, options in FILTERS.items() if (column := _first(table.schema, options))}
        self.shown = tuple(name for name in SHOWN if name in table.schema.names and name not in self.filters.values())
        self._lock = Lock()
        self._spill = tempfile.TemporaryDirectory(prefix="agentdata-view-")
        self._database = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": self._spill.name})
        self._choices: dict[str, list[tuple[str, int]]] = {}
        self._build()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._spill.cleanup()

    def _build(self) -> None:
        columns = [f"CAST({_path('id')} AS VARCHAR) AS id" if "id" in self.table.schema.names else "'' AS id"]
        columns += [
            f"{_as_text(self.table.schema, name, column)} AS {_name(name)}" for name, column in self.filters.items()
        ]
        columns += [f"left(CAST({_path(name)} AS VARCHAR), {MOST_SHOWN}) AS {_name(name)}" for name in self.shown]
        self._database.execute(
            f"CREATE TABLE rows AS SELECT row_number() OVER () - 1 AS n, {', '.join(columns)} "  # noqa: S608
            "FROM read_parquet($files)",
            {"files": [str(file) for file in self.table.files]},
        )

    def choices(self, name: str) -> list[tuple[str, int]]:
        """The values of a filter with the rows that have them, most first."""
        if name not in self._choices:
            values = f"unnest({_name(name)})" if name == "language" else _name(name)
            self._choices[name] = self._ask(
                f"SELECT v, count(*) FROM (SELECT {values} AS v FROM rows) WHERE v IS NOT NULL AND v <> '' "  # noqa: S608
                f"GROUP BY v ORDER BY 2 DESC, 1 LIMIT {CHOICES}",
                [],
            )
        return self._choices[name]

    def page(self, wanted: Mapping[str, str], begin: int) -> Found:
        """Rows from a number on that fulfil filters and hold a text. wanted: filters by name, and `q`."""
        if wanted.get("q"):
            return self._search(wanted, begin)
        condition, values = self._condition(wanted)
        rows = self._rows(f"{condition} AND n >= ? ORDER BY n LIMIT {PAGE + 1}", [*values, begin])
        total = self._ask(f"SELECT count(*) FROM rows WHERE {condition}", values)[0][0]  # noqa: S608
        return Found(rows[:PAGE], int(rows[PAGE]["n"]) if len(rows) > PAGE else None, int(total))

    def beside(self, number: int, wanted: Mapping[str, str]) -> tuple[int | None, int | None]:
        """The rows before and after one among those that fulfil the filters; a text that is searched for is left aside."""
        condition, values = self._condition(wanted)
        before = self._ask(f"SELECT max(n) FROM rows WHERE {condition} AND n < ?", [*values, number])[0][0]  # noqa: S608
        after = self._ask(f"SELECT min(n) FROM rows WHERE {condition} AND n > ?", [*values, number])[0][0]  # noqa: S608
        return before, after

    def numbers_of(self, name: str) -> list[int]:
        """The numbers of the rows with an id."""
        return [int(number) for (number,) in self._ask("SELECT n FROM rows WHERE id = ? ORDER BY n LIMIT 20", [name])]

    def _search(self, wanted: Mapping[str, str], begin: int) -> Found:
        """Scan texts file by file, until a page is full or patience ends."""
        condition, values = self._condition(wanted)
        texts, needles = _matches(self.table.schema, wanted["q"])
        found: list[dict[str, Any]] = []
        deadline, at = time.monotonic() + PATIENCE, begin
        for base, count, file in zip(self.table.bases, self.table.counts, self.table.files, strict=False):
            if base + count <= begin:
                continue
            numbers = self._ask(
                f"SELECT {base} + file_row_number AS n FROM read_parquet(?, file_row_number = true) "  # noqa: S608
                f"WHERE {base} + file_row_number >= ? AND ({' OR '.join(texts) or 'false'}) "
                f"AND {base} + file_row_number IN (SELECT n FROM rows WHERE {condition}) "
                f"ORDER BY 1 LIMIT {PAGE + 1 - len(found)}",
                [str(file), begin, *needles, *values],
            )
            places = ", ".join(str(number) for (number,) in numbers)
            found += self._rows(f"n IN ({places}) ORDER BY n", []) if places else []
            at = base + count
            if len(found) > PAGE:
                return Found(found[:PAGE], int(found[PAGE]["n"]), None, int(found[PAGE]["n"]) - begin)
            if time.monotonic() > deadline:
                break
        return Found(found, at if at < self.table.rows else None, None, at - begin)

    def _condition(self, wanted: Mapping[str, str]) -> tuple[str, list[str]]:
        names = [name for name in self.filters if wanted.get(name)]
        parts = [f"list_contains({_name(name)}, ?)" if name == "language" else f"{_name(name)} = ?" for name in names]
        return " AND ".join(["true", *parts]), [wanted[name] for name in names]

    def _rows(self, condition: str, values: list[Any]) -> list[dict[str, Any]]:
        names = ["n", "id", *self.filters, *self.shown]
        chosen = ", ".join(_name(name) for name in names)
        rows = self._ask(f"SELECT {chosen} FROM rows WHERE {condition}", values)  # noqa: S608
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _ask(self, question: str, values: list[Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(question, values).fetchall()


def _first(schema: pa.Schema, options: tuple[str, ...]) -> str:
    """The first of some columns, with a dot for one inside a struct, that a table has in a form that can be compared."""
    for option in options:
        outer, _, inner = option.partition(".")
        if outer not in schema.names:
            continue
        kind = schema.field(outer).type
        if inner and pa.types.is_struct(kind) and kind.get_field_index(inner) >= 0:
            return option
        if not inner and not pa.types.is_struct(kind):
            return option
    return ""


def _as_text(schema: pa.Schema, name: str, column: str) -> str:
    """A filter's column as it is compared: languages as a list, all others as a text."""
    if name != "language":
        return f"CAST({_path(column)} AS VARCHAR)"
    lists = pa.types.is_list(schema.field(column).type)
    return f"CAST({_path(column)} AS VARCHAR[])" if lists else f"[CAST({_path(column)} AS VARCHAR)]"


def _texts(schema: pa.Schema) -> list[str]:
    """Columns that hold words."""

    def wordy(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(wordy(field.type) for field in kind)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return wordy(kind.value_type)
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    return [field.name for field in schema if wordy(field.type)]


def _matches(schema: pa.Schema, text: str) -> tuple[list[str], list[str]]:
    """Conditions of which a row that holds a text fulfils one, and their values. Nested columns are compared as JSON."""
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    # Arguments of calls are JSON in a text.
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    conditions, needles = [], []
    for name in _texts(schema):
        plain = pa.types.is_string(schema.field(name).type) or pa.types.is_large_string(schema.field(name).type)
        words = _path(name) if plain else f"CAST(to_json({_path(name)}) AS VARCHAR)"
        for needle in [text] if plain else sorted({once, twice}):
            conditions.append(f"contains(lower({words}), lower(?))")
            needles.append(needle)
    return conditions, needles


def _path(column: str) -> str:
    return ".".join(_name(part) for part in column.split("."))


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
