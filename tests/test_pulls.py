"""Texts of pull requests and issues, joined from files in the shape of GitHub's REST objects."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentdata.errors import UsageError
from agentdata.harvest.pulls import PullText, PullTexts, build_index

PULL: dict[str, Any] = {
    "number": 7,
    "title": "Repair the parser [skip ci]",
    "body": "It failed.\r\n\r\nCo-authored-by: Ben <ben@example.com>",
    "merged_at": "2020-01-03T00:00:00Z",
    "base": {"repo": {"full_name": "Owner/Name"}},
    "comments": [{"user": {"login": "ben"}, "body": "Second", "created_at": "2020-01-02T00:00:00Z"}],
    "reviews": [
        {"user": {"login": "cy"}, "body": "First", "submitted_at": "2020-01-01T00:00:00Z"},
        {"user": {"login": "cy"}, "body": "", "submitted_at": "2020-01-01T00:00:00Z"},
    ],
    "review_comments": [
        {"user": {"login": "di"}, "body": "Third", "created_at": "2020-01-03T00:00:00Z", "path": "a.py"}
    ],
    "closing_issues": [
        {"number": 3, "title": "It fails", "body": "Always", "comments": [{"body": "Me too", "author": "ed"}]},
        4,
    ],
}
ISSUE: dict[str, Any] = {
    "number": 4,
    "title": "Another",
    "body": None,
    "comments": 2,
    "pull_request": None,
    "repository_url": "https://api.github.com/repos/owner/name",
}


def opened(tmp_path: Path, *rows: Any, parquet: bool = False) -> PullTexts:
    path = tmp_path / ("rows.parquet" if parquet else "rows.jsonl")
    if parquet:
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    assert build_index(path, tmp_path / "index.sqlite") == len(rows)
    return PullTexts(tmp_path / "index.sqlite")


@pytest.mark.parametrize("parquet", [False, True])
def test_a_pull_request_is_joined_with_its_conversation_in_time(tmp_path: Path, parquet: bool) -> None:
    row = {**PULL, "closing_issues": PULL["closing_issues"][:1]}
    pulls = opened(tmp_path, row, parquet=parquet)
    text = pulls.pull("owner/name", 7)
    pulls.close()
    assert (text.title, text.body, text.closes) == ("Repair the parser", "It failed.", (3,))
    assert [(one.author, one.body, one.path) for one in text.comments] == [
        ("cy", "First", ""),
        ("ben", "Second", ""),
        ("di", "Third", "a.py"),
    ]
    assert text.trailers == 2


def test_issues_stand_in_the_same_file(tmp_path: Path) -> None:
    pulls = opened(tmp_path, PULL, ISSUE)
    issue = pulls.issue("owner/name", 4)
    pulls.close()
    assert issue is not None
    assert (issue.title, issue.body, issue.comments) == ("Another", "", ())


def test_an_issue_inside_of_a_pull_request_is_found(tmp_path: Path) -> None:
    pulls = opened(tmp_path, PULL)
    issue = pulls.issue("owner/name", 3)
    pulls.close()
    assert issue is not None
    assert (issue.title, [(one.author, one.body) for one in issue.comments]) == ("It fails", [("ed", "Me too")])


def test_a_pull_request_closes_issues_by_number_and_by_object(tmp_path: Path) -> None:
    pulls = opened(tmp_path, PULL)
    closes = pulls.pull("owner/name", 7).closes
    pulls.close()
    assert closes == (3, 4)


def test_an_issue_with_a_pull_requests_number_is_no_pull_request(tmp_path: Path) -> None:
    pulls = opened(tmp_path, ISSUE)
    found = pulls.pull("owner/name", 4), pulls.issue("owner/name", 5)
    pulls.close()
    assert found == (PullText(), None)


def test_a_comment_can_be_a_text(tmp_path: Path) -> None:
    pulls = opened(tmp_path, {**PULL, "comments": ["Plain words"], "reviews": [], "review_comments": []})
    text = pulls.pull("owner/name", 7)
    pulls.close()
    assert [one.body for one in text.comments] == ["Plain words"]


@pytest.mark.parametrize(
    "place",
    [
        {"repository": "owner/name"},
        {"repo": {"full_name": "owner/name"}},
        {"repo_name": "owner/name"},
        {"repository_url": "https://api.github.com/repos/owner/name"},
        {"url": "https://api.github.com/repos/owner/name/pulls/1"},
        {"html_url": "https://github.com/owner/name/pull/1"},
        {"html_url": "https://github.com/owner/name/issues/1"},
        {"html_url": "https://gitlab.com/owner/name/-/merge_requests/1"},
    ],
)
def test_the_repository_is_found_where_the_row_names_it(tmp_path: Path, place: dict[str, Any]) -> None:
    pulls = opened(tmp_path, {"number": 1, "title": "Found", "merged_at": "x", **place})
    title = pulls.pull("owner/name", 1).title
    pulls.close()
    assert title == "Found"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 is not a JSON object"),
        ('{"number": 1}', "names no repository"),
        ('{"repo": "a/b"}', "no number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match=said):
        build_index(tmp_path / "rows.jsonl", tmp_path / "index.sqlite")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe not a table")
    with pytest.raises(UsageError, match=name):
        build_index(tmp_path / name, tmp_path / "index.sqlite")


def test_an_index_is_built_anew(tmp_path: Path) -> None:
    opened(tmp_path, PULL).close()
    pulls = opened(tmp_path, ISSUE)
    found = pulls.pull("owner/name", 7)
    pulls.close()
    assert found == PullText()
