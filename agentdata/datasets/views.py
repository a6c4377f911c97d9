"""Rows as a view wants them, column by column: other masks, repeated rows."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agentdata.datasets.recipe import Mask, View
from agentdata.errors import UsageError
from agentdata.tokens import CountTokens, token_counter

if TYPE_CHECKING:
    Column = pa.Array[Any] | pa.ChunkedArray[Any]

ACTIONS = ("think", "edit", "done", "command", "assistant")
"""Segments of a text that the agent itself writes."""
ESTIMATE = "estimate: UTF-8 bytes / "


def transform(rows: pa.Table, view: View) -> pa.Table:
    """The rows that a view makes of `rows`, which have all columns of the view."""
    if view.mask != "as-made":
        rows = _masked(rows, view.mask)
    return _repeated(rows, view.repeats) if view.repeats > 1 else rows


def check_mask(view: View, columns: list[str]) -> None:
    """Raise UsageError where a view asks for a mask that its columns cannot have."""
    if view.mask != "as-made" and not {"segments", "messages"} & set(columns):
        raise UsageError(f"{view.config}: the mask {view.mask!r} needs the column segments or messages.")


# Masks


def _masked(rows: pa.Table, mask: Mask) -> pa.Table:
    column = "segments" if "segments" in rows.column_names else "messages"
    lists: Any = rows[column].combine_chunks()
    trained = _trained(lists.values, "kind" if column == "segments" else "role", mask)
    rows = _replace(rows, column, pa.ListArray.from_arrays(lists.offsets, _with_train(lists.values, trained)))
    if "trained_tokens" not in rows.column_names:
        return rows
    if mask == "all":
        return _replace(rows, "trained_tokens", rows["tokens"])
    return _replace(rows, "trained_tokens", _recounted(rows))


def _trained(parts: pa.StructArray, name: str, mask: Mask) -> pa.BooleanArray:
    if mask == "all":
        return pa.array(np.ones(len(parts), np.bool_))
    return pc.is_in(parts.field(name), value_set=pa.array(ACTIONS))


def _with_train(parts: pa.StructArray, trained: pa.BooleanArray) -> pa.StructArray:
    fields = list(parts.type)
    columns = [trained if field.name == "train" else parts.field(field.name) for field in fields]
    return pa.StructArray.from_arrays(columns, fields=fields)


def _recounted(rows: pa.Table) -> "Column":
    """Trained tokens of each row, counted as the row says that it was counted."""
    counters: dict[str, CountTokens] = {}
    counts = []
    for row in rows.select([name for name in rows.column_names if name in _COUNTED]).to_pylist():
        name = row["token_counter"]
        counters.setdefault(name, _counter(name))
        counts.append(sum(counters[name](text) for text in _trained_texts(row)))
    return pa.array(counts, pa.int64())


_COUNTED = ("token_counter", "segments", "text", "messages")


def _trained_texts(row: dict[str, object]) -> list[str]:
    """The texts that were counted one by one when the row was made, those that are trained on."""
    text, segments, messages = row.get("text"), row.get("segments"), row.get("messages")
    if isinstance(text, str) and isinstance(segments, list):
        return [text[part["start"] : part["end"]] for part in segments if part["train"]]
    texts: list[str] = []
    for message in messages if isinstance(messages, list) else []:
        if message["train"]:
            calls = [call["function"]["name"] + call["function"]["arguments"] for call in message["tool_calls"]]
            texts += [message["content"], message["reasoning_content"], *calls]
    return texts


def _counter(name: str) -> CountTokens:
    if name.startswith(ESTIMATE):
        return token_counter("", float(name.removeprefix(ESTIMATE)))[0]
    return token_counter(name, 1.0)[0]


# Repeats


def _repeated(rows: pa.Table, repeats: int) -> pa.Table:
    """Each row `repeats` times, neighbours; the id of a repetition tells its number."""
    taken = rows.take(np.repeat(np.arange(rows.num_rows), repeats))
    numbers = np.tile(np.arange(repeats), rows.num_rows)
    ids = [
        f"{name}-{number}" if number else name for name, number in zip(taken["id"].to_pylist(), numbers, strict=True)
    ]
    taken = _replace(taken, "id", pa.array(ids, pa.string()))
    if "repetition" in taken.column_names:
        repetitions = taken["repetition"].to_numpy() * repeats + numbers
        taken = _replace(taken, "repetition", pa.array(repetitions, pa.int64()))
    return taken


def _replace(rows: pa.Table, name: str, column: "Column") -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), column)
