"""A file of predictions in the field's form to records: .jsonl, or .json with a list, or with predictions by task."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentdata.environments import row_fields as fields
from agentdata.environments.row_fields import RowError
from agentdata.environments.row_files import FormatError, read_rows
from agentdata.errors import UsageError
from agentdata.records import Prediction, Rejected

PATCH_COLUMNS = ("model_patch", "patch")
"""SWE-bench's name for the submission, and SWE-smith's."""


def read_predictions(path: Path) -> Iterator[Prediction | Rejected]:
    """The predictions of a file in its order. A null patch is an empty one: the model gave nothing.

    A second prediction of the same model for the same task is rejected, and the first one stands. Raises UsageError when
    the file cannot be read as a whole.
    """
    if path.suffix == ".parquet":
        raise UsageError(f"{path} holds no predictions: give a .jsonl or .json file.")
    seen: set[tuple[str, str]] = set()
    for place, row in read_rows(path):
        try:
            prediction = _prediction(row)
            key = (prediction.instance_id, prediction.model_name_or_path)
            if key in seen:
                raise RowError("duplicate", f"{key[1] or 'the model'} has a prediction for {key[0]} already")
            seen.add(key)
            yield prediction
        except RowError as error:
            yield _rejected(row, f"{path.name}:{place}", error)


def read_all_predictions(path: Path) -> tuple[Prediction, ...]:
    """All predictions of a file. Raises UsageError that names the first one which cannot be used."""
    predictions = []
    for found in read_predictions(path):
        if isinstance(found, Rejected):
            raise UsageError(f"{path} holds a prediction that cannot be used: {found.detail}. Repair or remove it.")
        predictions.append(found)
    if not predictions:
        raise UsageError(f"{path} holds no prediction: give one row for each task to grade.")
    return tuple(predictions)


def _prediction(row: dict[str, Any] | FormatError) -> Prediction:
    if isinstance(row, FormatError):
        raise RowError(row.reason, row.detail)
    column = next((name for name in PATCH_COLUMNS if name in row), "")
    if not column:
        raise RowError("no-patch", f"there is no model_patch among {', '.join(sorted(row)) or 'no columns'}")
    return Prediction(
        instance_id=fields.identifier(row),
        model_name_or_path=fields.text(row, "model_name_or_path"),
        model_patch=fields.text(row, column),
    )


def _rejected(row: Mapping[str, Any] | FormatError, place: str, error: RowError) -> Rejected:
    named = row.get("instance_id") if isinstance(row, Mapping) else None
    identity = named if isinstance(named, str) and named else place
    return Rejected(
        id=identity.encode("utf-8", "replace").decode(),
        repo="",
        stage="predictions",
        reason=error.reason,
        detail=f"{place}: {error}".encode("utf-8", "replace").decode(),
    )
