"""The viewer: a real server, asked as a browser asks, and a real browser in which hostile rows stay words."""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentdata.errors import UsageError
from agentdata.viewer.index import PAGE, Index
from agentdata.viewer.tables import open_folder
from agentdata.viewer.telling import MOST, tell, visible
from tests.chromium import opened, overflow
from tests.reported import HOSTILE, KINDS
from tests.runs import COMMAND, agentdata

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n"
MANY = 130


def conversation(number: int) -> dict[str, Any]:
    edit = {"command": "str_replace", "path": "a.py", "old_str": "old line", "new_str": "new line"}
    call = {"id": "c", "type": "function", "function": {"name": "editor", "arguments": json.dumps(edit)}}
    return {
        "id": f"row/{number}",
        "repo": f"a/{'one' if number % 3 else 'two'}",
        "kind": "contextual",
        "languages": ["python", "c"] if number % 2 else ["python"],
        "tokens": number,
        "messages": [
            {
                "role": "user",
                "content": f'Do {number}. {HOSTILE} don\'t "say"\n\tback\\slash Übung',
                "tool_calls": [],
                "train": False,
            },
            {"role": "assistant", "content": "", "tool_calls": [call], "train": True},
            {"role": "tool", "content": f"{PATCH}\x1b[31mred\x00 \u202eback", "tool_calls": [], "train": False},
            {"role": "assistant", "content": "long " * 2000, "tool_calls": [], "train": True},
        ],
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder of conversations in three files, and what the project's own commands make."""
    folder = tmp_path_factory.mktemp("viewed")
    (folder / "chats/messages").mkdir(parents=True)
    rows = [conversation(number) for number in range(MANY)]
    for place, first in enumerate(range(0, MANY, 50)):
        table = pa.Table.from_pylist(rows[first : first + 50])
        pq.write_table(table, folder / f"chats/messages/train-{place}.parquet", row_group_size=7)
    kinds = ("contextual run", "dataset", "environmental run", "task run", "grading run")
    return {"chats": folder / "chats", **{kind: KINDS[kind](tmp_path_factory.mktemp("kind")) for kind in kinds}}


@pytest.fixture(scope="module")
def server(made: Mapping[str, Path]) -> Iterator[str]:
    """The address of a real server over all of them."""
    with serving(*made.values()) as address:
        yield address


@contextmanager
def serving(*folders: Path) -> Iterator[str]:
    command = [*COMMAND, "view", *map(str, folders), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = process.stdout.readline().split()[0].rstrip("/")
        yield address
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert "Traceback" not in err
        assert process.returncode in (0, 130)


@pytest.fixture
def index(made: Mapping[str, Path]) -> Iterator[Index]:
    with Index(open_folder(made["chats"]).table("messages")) as found:
        yield found


def get(address: str, **more: Any) -> tuple[int, str, Mapping[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, **more), timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def place_of(made: Mapping[str, Path], kind: str) -> int:
    return list(made).index(kind)


# What is told


def test_rows_are_numbered_through_all_files(made: Mapping[str, Path]) -> None:
    table = open_folder(made["chats"]).table("messages")
    assert table.counts == (50, 50, 30)
    for number in (0, 49, 50, 57, 129):
        assert table.row(number)["id"] == f"row/{number}"
    for number in (-1, MANY):
        with pytest.raises(LookupError):
            table.row(number)


def test_filters_pages_and_neighbours_are_those_of_the_rows(index: Index) -> None:
    rows = [conversation(number) for number in range(MANY)]
    assert dict(index.choices("repository")) == {"a/one": 86, "a/two": 44}
    assert dict(index.choices("language")) == {"python": MANY, "c": MANY // 2}
    wanted = {"repository": "a/one", "language": "c"}
    right = [number for number, row in enumerate(rows) if row["repo"] == "a/one" and "c" in row["languages"]]
    seen: list[int] = []
    begin: int | None = 0
    while begin is not None:
        found = index.page(wanted, begin)
        assert found.total == len(right)
        seen += [row["n"] for row in found.rows]
        begin = found.following
    assert seen == right
    assert index.beside(right[3], wanted) == (right[2], right[4])
    assert index.beside(right[0], wanted) == (None, right[1])
    assert index.numbers_of("row/77") == [77]
    assert index.page({"repository": "' OR true --"}, 0).total == 0


def test_texts_are_searched_to_the_end_whatever_the_case(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row["n"] for row in index.page({"q": "dO 12"}, 0).rows] == [12, *range(120, 130)]
    assert index.page({"q": "do 12", "repository": "a/two"}, 0).rows[0]["n"] == 12
    everything = index.page({"q": "new line"}, 0)
    assert [row["n"] for row in everything.rows] == list(range(PAGE))
    assert everything.following == PAGE
    for words in ('don\'t "say"\n\tback\\slash', '"path": "a.py"', "übung"):
        assert index.page({"q": words}, 0).rows, words
    # Where patience ends, the search says where it goes on.
    monkeypatch.setattr("agentdata.viewer.index.PATIENCE", 0.0)
    first = index.page({"q": "do 77"}, 0)
    assert (first.rows, first.following, first.searched) == ([], 50, 50)
    second = index.page({"q": "do 77"}, 50)
    assert [row["n"] for row in second.rows] == [77]
    assert index.page({"q": "nothing like it"}, 100).following is None


def test_steps_tell_calls_diffs_and_what_is_trained() -> None:
    told = tell(conversation(5))
    assert [step.title for step in told.steps] == ["user", "assistant", "tool", "assistant"]
    assert [step.trained for step in told.steps] == [False, True, False, True]
    call, replaced = told.steps[1].parts
    assert call.title == "editor()"
    assert [(line.text, line.look) for line in replaced.lines] == [("-old line", "del"), ("+new line", "add")]
    (seen,) = told.steps[2].parts
    assert [line.look for line in seen.lines[:7]] == ["head", "head", "head", "hunk", "", "del", "add"]
    assert seen.lines[7].text == "⟨001B⟩[31mred⟨0000⟩ ⟨202E⟩back"
    assert told.steps[3].parts[0].folded
    assert ("tokens", "5") in told.facts


def test_long_texts_are_cut_unless_all_is_wanted() -> None:
    row = {"id": "x", "log": "y" * (MOST + 10)}
    assert tell(row).steps[0].parts[0].left == 10
    whole = tell(row, whole=True).steps[0].parts[0]
    assert (whole.left, len(whole.lines[0].text)) == (0, MOST + 10)


def test_verdicts_name_what_failed_first(made: Mapping[str, Path]) -> None:
    tests = [{"name": "a", "status": "passed"}, {"name": "b", "status": "failed"}, {"name": "c", "status": "skipped"}]
    told = tell(
        {"verdict": {"reason": "tests-failed", "fail_to_pass": tests, "pass_to_pass": [], "log": "", "tampering": []}}
    )
    assert told.verdict == 1
    assert [(part.title, part.form) for part in told.steps[0].parts] == [
        ("fail to pass: 2 of 3 failed", "failed"),
        ("fail to pass: 1 of 3 passed", "passed"),
    ]


def test_what_is_not_seen_is_written_out() -> None:
    assert visible("a\u200bb\ud800\u2066\ufeff\n\t") == "a⟨200B⟩b⟨D800⟩⟨2066⟩⟨FEFF⟩\n\t"


# The server


def test_every_row_of_every_kind_has_a_page(server: str, made: Mapping[str, Path]) -> None:
    status, page, _ = get(f"{server}/")
    assert status == 200
    for place, folder in enumerate(made.values()):
        for table in open_folder(folder).tables:
            assert f"/{place}/{table.name}" in page
            status, rows, _ = get(f"{server}/{place}/{table.name}")
            assert status == 200
            assert f"{table.rows:,} of {table.rows:,} rows" in rows
            for number in range(0, table.rows, 1 + table.rows // 5):
                status, row, _ = get(f"{server}/{place}/{table.name}/row/{number}")
                assert status == 200, f"{folder} {table.name} {number}"
                assert str(table.row(number).get("id", "")) in row


def test_a_row_is_found_by_its_id_and_leads_to_its_relatives(server: str, made: Mapping[str, Path]) -> None:
    status, page, _ = get(f"{server}/{place_of(made, 'chats')}/messages/row?id={quote('row/57')}")
    assert status == 200
    assert "Do 57." in page
    place = place_of(made, "contextual run")
    folder = open_folder(made["contextual run"])
    change = folder.table("markdown").row(0)["change_id"]
    number = next(n for n in range(folder.table("changes").rows) if folder.table("changes").row(n)["id"] == change)
    assert f'href="/{place}/changes/row/{number}"' in get(f"{server}/{place}/markdown/row/0")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/99/messages",
        "/0/nothing",
        "/0/messages/row/9999",
        "/0/messages/row?id=no",
        f"/0/messages/row/{'9' * 5000}",
        "/static/../app.py",
        "/static/x",
    ],
)
def test_what_is_not_there_is_said(server: str, path: str) -> None:
    assert get(server + path)[0] == 404


def test_tables_of_others_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    rows = {
        "numbers": [{"id": 1, "steps": 5, "text": 7, "repo": ["a"], "languages": "python", "verdict": ["bad"]}],
        "unlike": [{"id": "a", "repo": "x", "stop": 1}],
    }
    for name, held in rows.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(held), tmp_path / name / "0.parquet")
    pq.write_table(pa.Table.from_pylist([{"other": 1}]), tmp_path / "unlike/1.parquet")
    with serving(tmp_path) as address:
        assert "1 of 1 rows" in get(f"{address}/0/numbers?language=python")[1]
        status, row, _ = get(f"{address}/0/numbers/row/0")
        assert status == 200
        assert "steps" in row
        status, broken, headers = get(f"{address}/0/unlike")
        assert status == 500
        assert "The files of this table cannot be read" in broken
        assert "default-src 'none'" in headers["content-security-policy"]


def test_nothing_but_reading_from_this_machine_is_answered(server: str) -> None:
    assert get(server, headers={"Host": "rebound.example"})[0] == 400
    assert get(server, method="POST", data=b"")[0] == 405
    assert get(f"{server}/0/messages", method="DELETE")[0] == 405
    for path in ("", "/0/messages", "/0/messages/row/0", "/static/keys.js", "/0/nothing"):
        _, _, headers = get(server + path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_what_cannot_be_shown_is_refused_in_a_sentence(server: str, made: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no tables"):
        open_folder(tmp_path)
    agentdata("view", tmp_path).explains("holds no tables", status=2)
    port = server.rpartition(":")[2]
    agentdata("view", made["chats"], "--port", port).explains(f"127.0.0.1:{port}", "another --port", status=2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.parquet").write_bytes(b"no")
    agentdata("view", tmp_path).explains("no Parquet", status=2)


# In a browser


@pytest.mark.chromium
def test_hostile_rows_stay_words(chromium: "Browser", server: str) -> None:
    with opened(chromium, f"{server}/0/messages/row/3") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        assert page.evaluate("document.body.id") == ""
        assert page.locator("img").count() == 0
        assert HOSTILE in page.inner_text("#step-1")
        assert all(url.startswith(server) for url in asked)
        assert len(asked) == 3


@pytest.mark.chromium
def test_filters_are_in_the_address(chromium: "Browser", server: str) -> None:
    with opened(chromium, f"{server}/0/messages") as page:
        page.select_option("select[name=repository]", "a/two")
        page.wait_for_url("**?repository=a%2Ftwo")
        assert page.inner_text("#count") == "44 of 130 rows"
        page.fill("#search", "do 12")
        page.press("#search", "Enter")
        page.wait_for_url("**&q=do+12")
        assert page.locator("tbody tr").count() == 5
        address = page.url
    with opened(chromium, address) as page:
        assert page.input_value("#search") == "do 12"
        assert page.input_value("select[name=repository]") == "a/two"


@pytest.mark.chromium
def test_keys_move_between_steps_and_rows(chromium: "Browser", server: str) -> None:
    with opened(chromium, f"{server}/0/messages?repository=a%2Ftwo") as page:
        for key in ("j", "j", "k", "j", "Enter"):
            page.keyboard.press(key)
        page.wait_for_url("**/row/3?repository=a%2Ftwo")
        page.keyboard.press("j")
        page.keyboard.press("j")
        assert page.url.endswith("#step-2")
        assert page.locator(".here").get_attribute("id") == "step-2"
        page.keyboard.press("n")
        page.wait_for_url("**/row/6?repository=a%2Ftwo")
        page.keyboard.press("p")
        page.wait_for_url("**/row/3?repository=a%2Ftwo")
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("Escape")
        page.locator("#help").wait_for(state="hidden")
        page.keyboard.press("u")
        page.wait_for_url("**/0/messages?repository=a%2Ftwo")
        page.keyboard.press("/")
        page.keyboard.type("j")
        assert page.input_value("#search") == "j"


@pytest.mark.chromium
def test_a_link_to_a_step_opens_it(chromium: "Browser", server: str) -> None:
    with opened(chromium, f"{server}/0/messages/row/3#step-4") as page:
        step = page.locator("#step-4")
        assert "here" in (step.get_attribute("class") or "")
        assert step.locator("pre").is_visible()
        page.keyboard.press("o")
        assert not step.locator("pre").is_visible()
        box = step.bounding_box()
        assert box
        assert 0 <= box["y"] < 900


@pytest.mark.chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_pages_fit_and_are_readable(
    chromium: "Browser", server: str, made: Mapping[str, Path], width: int, dark: bool
) -> None:
    trajectory = f"/{place_of(made, 'environmental run')}/trajectories/row/0"
    for path in ("/", "/0/messages", "/0/messages/row/3", trajectory):
        with opened(chromium, server + path, width=width, dark=dark) as page:
            assert overflow(page) <= 0
            ink, paper = (
                page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
            )
            assert (sum(_numbers(ink)) > sum(_numbers(paper))) == dark


def _numbers(colour: str) -> list[int]:
    return [int(part) for part in colour.strip("rgb()").split(",")]


def test_pages_of_thousands_of_rows_come_at_once(tmp_path: Path) -> None:
    """As many rows as may be indexed in a test; what a large table takes is measured elsewhere."""
    (tmp_path / "messages").mkdir()
    count = 20_000
    rows = {
        "id": [f"r{n}" for n in range(count)],
        "repo": [f"a/{n % 7}" for n in range(count)],
        "text": ["x" * 50] * count,
    }
    pq.write_table(pa.table(rows), tmp_path / "messages/train-0.parquet", row_group_size=1000)
    with Index(open_folder(tmp_path).table("messages")) as index:
        begun = time.process_time()
        assert index.page({"repository": "a/3"}, 15_000).total == count // 7
        assert index.numbers_of("r19999") == [19_999]
        assert time.process_time() - begun < 2
