"""Predictions in the field's forms."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.environments.predictions import read_all_predictions, read_predictions
from agentdata.errors import UsageError
from agentdata.records import Prediction, Rejected

ROW = {"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": "diff"}
PREDICTION = Prediction(instance_id="a__b-1", model_name_or_path="m", model_patch="diff")


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def reasons(path: Path) -> list[str]:
    return [found.reason if isinstance(found, Rejected) else "" for found in read_predictions(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", json.dumps(ROW) + "\n\n"),
        ("p.json", [ROW]),
        ("p.json", {"a__b-1": ROW}),
        ("p.json", {"a__b-1": {"model_name_or_path": "m", "model_patch": "diff"}}),
        ("p.jsonl", json.dumps({"instance_id": "a__b-1", "model_name_or_path": "m", "patch": "diff"})),
        ("p.jsonl", "\ufeff" + json.dumps(ROW)),
    ],
)
def test_all_forms_hold_the_same_prediction(tmp_path: Path, name: str, content: object) -> None:
    assert list(read_predictions(written(tmp_path / name, content))) == [PREDICTION]


def test_a_null_patch_is_an_empty_one(tmp_path: Path) -> None:
    found = read_all_predictions(
        written(tmp_path / "p.json", [{**ROW, "model_patch": None, "model_name_or_path": None}])
    )
    assert found == (Prediction(instance_id="a__b-1", model_patch=""),)


def test_the_first_of_two_predictions_stands(tmp_path: Path) -> None:
    path = written(tmp_path / "p.json", [ROW, {**ROW, "model_patch": "other"}, {**ROW, "model_name_or_path": "n"}])
    assert reasons(path) == ["", "duplicate", ""]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"instance_id": "a__b-1"', "not-json"),
        ("[1]", "not-a-row"),
        ('{"model_patch": "d"}', "missing-column"),
        ('{"instance_id": "a__b-1"}', "no-patch"),
        ('{"instance_id": "a__b-1", "model_patch": 7}', "not-text"),
        ('{"instance_id": "a__b-1", "model_patch": "\\ud800"}', "not-text"),
        ('{"instance_id": "../x", "model_patch": "d"}', "unusable-id"),
        ("[" * 100_000, "not-json"),
    ],
)
def test_a_malformed_line_is_rejected_and_the_rest_goes_on(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path / "p.jsonl", f"{line}\n{json.dumps({**ROW, 'instance_id': 'c__d-2'})}\n")
    assert reasons(path) == [reason, ""]


def test_who_needs_all_of_them_is_told_which_line_is_wrong(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", json.dumps(ROW) + "\n{}\n")
    with pytest.raises(UsageError, match=r"p\.jsonl:2"):
        read_all_predictions(path)


@pytest.mark.parametrize(("name", "content"), [("p.json", "{"), ("p.json", "3"), ("p.csv", ""), ("p.jsonl", "")])
def test_a_file_that_holds_no_predictions_is_a_usage_error(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(UsageError):
        read_all_predictions(written(tmp_path / name, content))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_all_predictions(tmp_path / "none.jsonl")


TEXT = st.text(max_size=5)
JSON = (
    st.none()
    | st.booleans()
    | st.floats()
    | TEXT
    | st.lists(TEXT, max_size=2)
    | st.dictionaries(TEXT, TEXT, max_size=2)
)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from([*ROW, "x"]), JSON, max_size=4), max_size=4))
def test_nothing_in_a_row_stops_the_reading(tmp_path_factory: pytest.TempPathFactory, rows: list[object]) -> None:
    path = tmp_path_factory.mktemp("p") / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(list(read_predictions(path))) == len(rows)
