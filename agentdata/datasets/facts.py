"""Rows to the numbers that a card tells: sums, and counts by what stands in some columns."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    Column = pa.Array[Any] | pa.ChunkedArray[Any]

COUNTED = (
    "licence",
    "languages",
    "tier",
    "policy",
    "model",
    "scaffold",
    "stop",
    "verdict",
    "token_counter",
    "generator",
    "source",
    "statement_source",
)
"""Columns of which every value is counted."""


@dataclass
class Repository:
    """What the rows say of one repository."""

    rows: int = 0
    tokens: int = 0
    commits: int = 0
    """Rows that tell the time of their commit."""
    first: int = 0
    """Earliest time among these, seconds since the epoch; 0 where none is told."""
    last: int = 0
    licences: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Repository") -> None:
        self.rows += other.rows
        self.tokens += other.tokens
        self.commits += other.commits
        self.first = min(filter(None, (self.first, other.first)), default=0)
        self.last = max(self.last, other.last)
        self.licences.update(other.licences)


@dataclass
class Facts:
    """Sums over some rows of a config; facts of two sets of rows can be added."""

    rows: int = 0
    bytes: int = 0
    """Arrow memory of the rows."""
    tokens: int = 0
    trained_tokens: int = 0
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """Rows by value, for each of the columns in COUNTED that the config has."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    broken_json: Counter[str] = field(default_factory=Counter)
    """Values of `tools` and `arguments` that should be JSON and are not, among those that were looked at."""

    def add(self, other: Self) -> None:
        self.rows += other.rows
        self.bytes += other.bytes
        self.tokens += other.tokens
        self.trained_tokens += other.trained_tokens
        self.broken_json.update(other.broken_json)
        for column, counts in other.values.items():
            self.values.setdefault(column, Counter()).update(counts)
        for name, repository in other.repositories.items():
            self.repositories.setdefault(name, Repository()).add(repository)

    def as_json(self) -> dict[str, Any]:
        """Plain values, in an order that the rows alone decide."""
        return {
            "rows": self.rows,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "broken_json": dict(sorted(self.broken_json.items())),
            "values": {column: dict(sorted(counts.items())) for column, counts in sorted(self.values.items())},
            "repositories": {
                name: vars(repository) | {"licences": dict(sorted(repository.licences.items()))}
                for name, repository in sorted(self.repositories.items())
            },
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        repositories = {
            name: Repository(**{**values, "licences": Counter(values["licences"])})
            for name, values in found["repositories"].items()
        }
        values = {column: Counter(counts) for column, counts in found["values"].items()}
        broken = Counter(found["broken_json"])
        return cls(**{**found, "values": values, "repositories": repositories, "broken_json": broken})


def total(parts: Iterable[Facts]) -> Facts:
    """The sum of facts."""
    result = Facts()
    for part in parts:
        result.add(part)
    return result


def facts_of(rows: pa.Table, *, json_fields: bool = False) -> Facts:
    """What the card tells of these rows. json_fields: whether a model may have written arguments that are no JSON."""
    names = set(rows.column_names)
    facts = Facts(rows.num_rows, rows.nbytes)
    facts.tokens, facts.trained_tokens = (_sum(rows, name) for name in ("tokens", "trained_tokens"))
    for column in COUNTED:
        if column in names:
            facts.values[column] = _counts(rows[column])
    if "repo" in names:
        facts.repositories = _repositories(rows)
    if json_fields and {"messages", "tools"} <= names:
        for name, texts in (("tools", rows["tools"].to_pylist()), ("arguments", _arguments(rows["messages"]))):
            facts.broken_json[name] = sum(not _is_json(text) for text in texts)
    return facts


def _arguments(messages: "Column") -> list[str]:
    calls = pc.list_flatten(pc.struct_field(pc.list_flatten(messages), "tool_calls"))
    found: list[str] = pc.struct_field(calls, ["function", "arguments"]).to_pylist()
    return found


def _is_json(text: str | None) -> bool:
    try:
        json.loads(text or "")
    except ValueError:
        return False
    return True


def _sum(rows: pa.Table, name: str) -> int:
    return int(pc.sum(rows[name]).as_py() or 0) if name in rows.column_names else 0


def _counts(column: "Column") -> Counter[str]:
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    if pa.types.is_struct(column.type):  # a verdict, of which samples hold the reason alone
        values = pc.struct_field(column, "reason")
    return Counter({entry["values"].as_py(): entry["counts"].as_py() for entry in pc.value_counts(values)})


def _repositories(rows: pa.Table) -> dict[str, Repository]:
    light = pa.table(
        {
            "repo": rows["repo"],
            "tokens": rows["tokens"] if "tokens" in rows.column_names else _zeros(rows),
            "at": _times(rows),
            "licence": rows["licence"] if "licence" in rows.column_names else pa.array([""] * rows.num_rows),
        }
    )
    found: dict[str, Repository] = {}
    sums: Any = [("tokens", "sum"), ("tokens", "count"), ("at", "min"), ("at", "max"), ("at", "count")]
    for group in light.group_by(["repo", "licence"], use_threads=False).aggregate(sums).to_pylist():
        part = Repository(
            rows=group["tokens_count"],
            tokens=group["tokens_sum"],
            commits=group["at_count"],
            first=group["at_min"] or 0,
            last=group["at_max"] or 0,
            licences=Counter({group["licence"]: group["tokens_count"]})
            if "licence" in rows.column_names
            else Counter(),
        )
        found.setdefault(group["repo"], Repository()).add(part)
    return found


def _seconds(time: str | None) -> int | None:
    """An ISO 8601 time as seconds since the epoch; None for none."""
    try:
        at = datetime.fromisoformat(time or "")
    except ValueError:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _zeros(rows: pa.Table) -> "Column":
    return pa.array([0] * rows.num_rows, pa.int64())


def _times(rows: pa.Table) -> "Column":
    """When each row's change landed or its task came into being; null where the row does not tell."""
    if "landed_at" in rows.column_names:
        times: Column = rows["landed_at"]
        told: Column = pc.if_else(pc.greater(times, pa.scalar(0)), times, pa.scalar(None, pa.int64()))
        return told
    if {"created_at", "problem_statement"} <= set(rows.column_names):
        return pa.array([_seconds(text) for text in rows["created_at"].to_pylist()], pa.int64())
    return pa.nulls(rows.num_rows, pa.int64())
