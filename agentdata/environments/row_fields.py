"""The cells of a foreign row to values, or the reason why the row cannot be used."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

Row = Mapping[str, Any]

INSTANCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""What can be a file name, a part of a container's name and an id at once."""
COMMIT = re.compile(r"[0-9a-fA-F]{6,64}")


class RowError(ValueError):
    """A row cannot be read or written. `reason` is the short word that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def text(row: Row, column: str, *, required: bool = False) -> str:
    """A text cell; an absent or null one is empty. Raises RowError."""
    value = row.get(column)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise RowError("not-text", f"{column} holds {type(value).__name__}, not text")
    if required and not value.strip():
        raise RowError("missing-column", f"{column} is absent or empty")
    return usable(value, column)


def usable(value: str, column: str) -> str:
    """A text that can be stored and sent to a shell. Raises RowError."""
    if "\0" in value:
        raise RowError("not-text", f"{column} holds a null character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError("not-text", f"{column} holds half of a surrogate pair at {error.start}") from error
    return value


def names(row: Row, column: str) -> tuple[str, ...]:
    """Names of tests, each once: a list, or a text that holds one in JSON. Raises RowError."""
    value = row.get(column)
    if isinstance(value, str):
        value = from_json(value, column) if value.strip() else []
    if value is None:
        value = []
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise RowError("not-a-list", f"{column} is not a list of texts: {str(value)[:80]}")
    return tuple(dict.fromkeys(usable(name, column) for name in value))


def mapping(row: Row, column: str) -> dict[str, Any]:
    """A cell with named values, or a text that holds them in JSON. Raises RowError."""
    value = row.get(column)
    if isinstance(value, str):
        value = from_json(value, column) if value.strip() else {}
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RowError("not-a-mapping", f"{column} is not a mapping: {str(value)[:80]}")
    return value


def from_json(value: str, column: str) -> Any:
    """Raises RowError."""
    try:
        return json.loads(value)
    except ValueError as error:
        raise RowError("not-json", f"{column}: {error}") from error


def identifier(row: Row) -> str:
    """The instance id. Raises RowError for one that cannot name a file and a container."""
    value = text(row, "instance_id", required=True)
    if not INSTANCE_ID.fullmatch(value):
        raise RowError("unusable-id", f"instance_id {value[:80]!r} cannot name a file and a container")
    return value


def commit(row: Row, column: str = "base_commit") -> str:
    """An object name. Raises RowError."""
    value = text(row, column, required=True)
    if not COMMIT.fullmatch(value):
        raise RowError("not-a-commit", f"{column} {value[:80]!r} is no object name")
    return value


def moment(row: Row, column: str) -> str:
    """A time in ISO 8601, from a text, a timestamp, or seconds or milliseconds since the epoch. Raises RowError."""
    value = row.get(column)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value / 1000 if value > 1e11 else value
        try:
            return datetime.fromtimestamp(seconds, UTC).isoformat()
        except (OverflowError, ValueError, OSError) as error:
            raise RowError("not-a-time", f"{column} {value!r} is no time") from error
    return text(row, column)
