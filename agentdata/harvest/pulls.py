"""Texts of pull requests and issues from a file, joined to changes by repository and number.

The file is JSONL or Parquet in the shape of GitHub's REST objects: `number`, `title`, `body`, `comments`, `reviews`,
`closing_issues`, and the repository as `repository`, `repo`, `base.repo.full_name`, `repository_url` or `html_url`. Rows
that are issues stand in the same file. The texts are kept in an SQLite file beside the run, so that memory stays flat.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa

from agentdata.errors import UsageError
from agentdata.harvest.texts import clean
from agentdata.records import Comment, Issue

URL_NAME = re.compile(
    r"(?:/repos/|://[^/]+/)([^/]+/[^/]+?)(?:/(?:pull|pulls|issues|merge_requests)\b.*|/-/.*|\.git|/)?$"
)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PullText:
    """What people wrote about one pull request, cleaned."""

    title: str = ""
    body: str = ""
    comments: tuple[Comment, ...] = ()
    """Conversation and reviews in order of time."""
    closes: tuple[int, ...] = ()
    emails: int = 0
    trailers: int = 0


class PullTexts:
    """An index of pull-request and issue texts."""

    def __init__(self, index: Path) -> None:
        self._database = sqlite3.connect(f"file:{index}?mode=ro", uri=True)

    def close(self) -> None:
        self._database.close()

    def __del__(self) -> None:
        self.close()

    def _row(self, kind: str, repo: str, number: int) -> Row | None:
        found = self._database.execute(
            "select row from texts where repo = ? and kind = ? and number = ?", (repo.lower(), kind, number)
        ).fetchone()
        return json.loads(found[0]) if found else None

    def pull(self, repo: str, number: int) -> PullText:
        """The texts of a pull request; empty ones when the file does not hold it."""
        row = self._row("pull", repo, number)
        if row is None:
            return PullText()
        title, body = clean(_text(row, "title")), clean(_text(row, "body"))
        spoken = [*_list(row, "comments"), *_list(row, "reviews"), *_list(row, "review_comments")]
        comments = sorted((_comment(one) for one in spoken if _said(one)), key=lambda one: one.created_at)
        named = [one.get("number") if isinstance(one, Mapping) else one for one in _list(row, "closing_issues")]
        closes = tuple(number for number in named if _is_number(number))
        return PullText(
            title.text, body.text, tuple(comments), closes, title.emails + body.emails, title.trailers + body.trailers
        )

    def issue(self, repo: str, number: int) -> Issue | None:
        """An issue with its comments, or None when the file does not hold it."""
        row = self._row("issue", repo, number)
        if row is None:
            return None
        comments = tuple(_comment(one) for one in _list(row, "comments") if _said(one))
        return Issue(
            number=number, title=clean(_text(row, "title")).text, body=clean(_text(row, "body")).text, comments=comments
        )


def build_index(path: Path, index: Path) -> int:
    """Read a file of pull requests and issues into an SQLite index; returns the number of rows. Raises UsageError."""
    index.unlink(missing_ok=True)
    database = sqlite3.connect(index)
    database.execute("create table texts (repo, kind, number, row, primary key (repo, kind, number)) without rowid")
    count = 0
    for row in _read(path):
        repo, number = _repository(row), row.get("number")
        if not repo or not _is_number(number):
            raise UsageError(
                f"{path}: row {count + 1} names no repository or no number; give `repository` and `number`."
            )
        is_pull = any(
            row.get(key) is not None
            for key in ("pull_request", "base", "merged_at", "head", "reviews", "closing_issues")
        )
        _store(database, repo, "pull" if is_pull else "issue", number, row)
        for issue in _list(row, "closing_issues"):
            if isinstance(issue, Mapping) and "title" in issue:
                if not _is_number(issue.get("number")):
                    raise UsageError(f"{path}: row {count + 1} closes an issue without a number.")
                _store(database, repo, "issue", issue["number"], issue)
        count += 1
    database.commit()
    database.close()
    return count


def _store(database: sqlite3.Connection, repo: str, kind: str, number: int, row: Row) -> None:
    database.execute(
        "insert or replace into texts values (?, ?, ?, ?)", (repo.lower(), kind, number, json.dumps(row, default=str))
    )


def _read(path: Path) -> Iterator[Row]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=256):
                    yield from batch.to_pylist()
        else:
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _object(path, number, line)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UsageError(f"Cannot read the pull requests of {path}: {error}.") from error


def _object(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}, line {number} is not JSON that can be stored: {error}.") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}, line {number} is not a JSON object.")
    return row


def _repository(row: Row) -> str:
    base = row.get("base")
    names = [row.get("repository"), row.get("repo"), row.get("repo_name")]
    if isinstance(base, Mapping):
        names.append(base.get("repo"))
    for name in names:
        if isinstance(name, Mapping):
            name = name.get("full_name")
        if isinstance(name, str) and name:
            return name
    for key in ("repository_url", "html_url", "url"):
        found = URL_NAME.search(_text(row, key))
        if found:
            return found[1]
    return ""


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _list(row: Row, key: str) -> list[Any]:
    value = row.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _said(row: Any) -> bool:
    """Whether an entry of a list of comments says anything."""
    return bool(row) if isinstance(row, str) else isinstance(row, Mapping) and bool(_text(row, "body"))


def _comment(row: Any) -> Comment:
    if not isinstance(row, Mapping):
        return Comment(body=clean(str(row)).text)
    author = row.get("author") or row.get("user") or ""
    if isinstance(author, Mapping):
        author = author.get("login") or ""
    when = _text(row, "created_at") or _text(row, "submitted_at")
    return Comment(author=str(author), body=clean(_text(row, "body")).text, created_at=when, path=_text(row, "path"))
