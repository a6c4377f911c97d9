"""Traces: the order of events, and every kind of change acted out in a real checkout."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agentdata.harvest.pulls import PullTexts, build_index
from agentdata.records import Trace
from tests.histories import History, numbered
from tests.tellings import State, acted, kinds, replay, tell

Contents = dict[str, str | bytes | None]
LONG = "".join(f"line_{number} = {number}\n" for number in range(1200))


def told(history: History, directory: Path, *overrides: str) -> Trace:
    """The trace of the newest change, acted in a real checkout."""
    found = tell(history.path, *overrides, last=1)
    assert found.rejected == []
    (trace,) = found.traces
    assert acted(trace, history.path, directory / "checkout") == history.git("rev-parse", "HEAD^{tree}")
    return trace


def changed(history: History, directory: Path, before: Contents, after: Contents, *overrides: str) -> Trace:
    history.commit("Before", {"keep.py": "kept\n", **before})
    history.commit("Change", {"keep.py": "kept too\n", **after})
    return told(history, directory, *overrides)


# Contents

CONTENTS: dict[str, tuple[str | bytes, str | bytes]] = {
    "final newline lost": ("a\nb\n", "a\nb"),
    "final newline won": ("a\nb", "a\nb\n"),
    "no final newline in the middle of a change": ("a\nb", "x\nb"),
    "appended without final newline": ("a\nb", "a\nb\nc"),
    "line ends to CRLF": ("a\nb\nc\n", "a\r\nb\r\nc\r\n"),
    "CRLF kept": ("a\r\nb\r\nc\r\n", "a\r\nx\r\nc\r\n"),
    "mixed line ends": ("a\r\nb\nc\rd\n", "a\nb\r\nc\rx\n"),
    "latin-1": (b"caf\xe9\nx\n", b"caf\xe9\ny\n"),
    "latin-1 to UTF-8": (b"caf\xe9\nx\n", "caf\u00e9\nx\n"),
    "UTF-8 to latin-1": ("caf\u00e9\nx\n", b"caf\xe9\nx\n"),
    "invalid UTF-8 beside valid": (b"\xc3\xa9 \xff\nx\n", b"\xc3\xa9 \xff\ny\n"),
    "byte order mark": (b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"),
    "UTF-8 in the hunk heading": ("\u0434" * 60 + "\n" + "a\n" * 9 + "b\n", "\u0434" * 60 + "\n" + "a\n" * 9 + "c\n"),
    "other separators of lines": ("a\x0bb\x0cc\u2028d\x85e\n", "a\x0bb\x0cc\u2029d\x85e\n"),
    "emptied": ("a\nb\n", ""),
    "filled": ("", "a\nb\n"),
    "filled without final newline": ("", "a"),
    "only newlines": ("\n\n\n", "\n\n\n\n\n"),
    "fewer newlines": ("\n\n\n", "\n"),
    "duplicated blocks": (numbered("same", 1) * 6, numbered("same", 1) * 3 + "x = 1\n" + numbered("same", 1) * 3),
    "a line among equal ones": ("a\n" * 60, "a\n" * 30 + "b\n" + "a\n" * 29),
    "a block taken from equal ones": ("a\nb\n" * 9, "a\nb\n" * 8),
    "lines that look like a diff": ("--- a\n+++ b\n@@ -1 +1 @@\n", "--- x\n+++ b\n@@ -2 +2 @@\ndiff --git a/x b/x\n"),
    "lines that look like git's words": ("\\ No newline at end of file\na\n", "\\ No newline at end of file\nb"),
    "many places": (LONG, LONG.replace("_7", "_x")),
    "top and bottom of a long file": (LONG, "top\n" + LONG + "bottom"),
    "backslashes": ("a = '\\1'\n", "a = '\\\\g<0>'\n"),
    "trailing blanks": ("a \n\n", "a\n \n"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_come_out_exactly(history: History, tmp_path: Path, name: str) -> None:
    before, after = CONTENTS[name]
    changed(history, tmp_path, {"a.py": before}, {"a.py": after})


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_come_out_exactly_when_little_is_read_and_widened(history: History, tmp_path: Path, name: str) -> None:
    before, after = CONTENTS[name]
    numbers = ("exploration.whole_file_lines=1", "exploration.margin_lines=0", "exploration.widen_lines=1")
    changed(history, tmp_path, {"a.py": before}, {"a.py": after}, *numbers)


# Files

TREES: dict[str, tuple[Contents, Contents]] = {
    "created in a new directory": ({}, {"new/deep/a.py": "a\n"}),
    "created empty": ({}, {"a.py": ""}),
    "created without final newline": ({}, {"a.py": "a"}),
    "created in latin-1": ({}, {"a.py": b"caf\xe9\n"}),
    "deleted": ({"a.py": "a\n"}, {"a.py": None}),
    "deleted empty": ({"a.py": ""}, {"a.py": None}),
    "moved": ({"a.py": numbered("a", 9)}, {"a.py": None, "b.py": numbered("a", 9)}),
    "moved into a new directory": ({"a.py": numbered("a", 9)}, {"a.py": None, "new/b.py": numbered("a", 9)}),
    "moved out of its directory": ({"d/a.py": numbered("a", 9)}, {"d/a.py": None, "a.py": numbered("a", 9)}),
    "moved and edited": ({"a.py": numbered("a", 9)}, {"a.py": None, "b.py": numbered("a", 9, 1)}),
    "moved and rewritten": ({"a.py": "a\n" * 60}, {"a.py": None, "b.py": "a\n" * 30 + "b\n" + "a\n" * 29}),
    "moved latin-1": ({"a.py": b"caf\xe9\n" * 9}, {"a.py": None, "b.py": b"caf\xe9\n" * 9 + b"x\n"}),
    "swapped": (
        {"a.py": numbered("a", 9), "b.py": numbered("b", 9)},
        {"a.py": numbered("b", 9), "b.py": numbered("a", 9)},
    ),
    "moved along a chain": (
        {"a.py": numbered("a", 9), "b.py": numbered("b", 9)},
        {"a.py": None, "b.py": numbered("a", 9), "c.py": numbered("b", 9)},
    ),
    "file to directory": ({"a.py": numbered("a", 9)}, {"a.py": None, "a.py/b.py": "b\n"}),
    "file moved into a directory of its name": (
        {"a.py": numbered("a", 9)},
        {"a.py": None, "a.py/a.py": numbered("a", 9)},
    ),
    "directory to file": ({"a.py/b.py": numbered("b", 9)}, {"a.py/b.py": None, "a.py": "a\n"}),
    "file moved to the name of its directory": (
        {"a.py/b.py": numbered("b", 9)},
        {"a.py/b.py": None, "a.py": numbered("b", 9)},
    ),
    "two equal files, one moved": (
        {"a.py": numbered("a", 9), "b.py": numbered("a", 9)},
        {"a.py": None, "c.py": numbered("a", 9)},
    ),
    "names that a shell would read": (
        {"it's $HOME.py": numbered("a", 9), "-rf.py": "a\n", "a b.py": "a\n"},
        {"it's $HOME.py": None, "`x`; y.py": numbered("a", 9), "-rf.py": None, "a b.py": "b\n"},
    ),
    "moved to a name that looks like an option": (
        {"a.py": numbered("a", 9)},
        {"a.py": None, "-n.py": numbered("a", 9)},
    ),
    "unicode names": ({"\u00e9.py": numbered("a", 9)}, {"\u00e9.py": None, "\u4e2d/\u6587.py": numbered("a", 9)}),
    "other files too": (
        {"notes.md": "a\n", "Makefile": "all:\n"},
        {"notes.md": "b\n", "Makefile": "all: x\n", "data.json": "{}"},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_come_out_exactly(history: History, tmp_path: Path, name: str) -> None:
    before, after = TREES[name]
    history.commit("Before", {"keep.py": "kept\n", **before})
    history.write({path: None for path, content in after.items() if content is None})
    for path, content in after.items():
        parent = (history.path / path).parent
        if content is None and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
    history.commit(
        "Change", {"keep.py": "kept too\n", **{path: text for path, text in after.items() if text is not None}}
    )
    told(history, tmp_path)


@pytest.mark.parametrize("edit", [False, True])
@pytest.mark.parametrize(("before", "after"), [(0o644, 0o755), (0o755, 0o644)])
def test_modes_come_out_exactly(history: History, tmp_path: Path, before: int, after: int, edit: bool) -> None:
    history.write({"a.py": "a\n"})
    (history.path / "a.py").chmod(before)
    history.commit("Before")
    (history.path / "a.py").chmod(after)
    history.commit("Change", {"a.py": "b\n"} if edit else {})
    trace = told(history, tmp_path)
    assert kinds(trace.events) == (["chmod", "str_replace"] if edit else ["chmod"])


def test_an_executable_file_is_created_and_then_made_executable(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"keep.py": "1\n"})
    history.write({"run.py": "a\n"})
    (history.path / "run.py").chmod(0o755)
    history.commit("Change")
    assert kinds(told(history, tmp_path).events) == ["create", "chmod"]


def test_an_executable_file_that_is_written_anew_stays_executable(history: History, tmp_path: Path) -> None:
    history.write({"run.py": "a\n" * 60})
    (history.path / "run.py").chmod(0o755)
    history.commit("Before")
    history.commit("Change", {"run.py": "a\n" * 30 + "b\n" + "a\n" * 29})
    assert kinds(told(history, tmp_path).events) == ["delete", "create", "chmod"]


def branch(history: History, *steps: Contents) -> None:
    """A branch with one commit for each step, merged."""
    history.branch("topic")
    for number, step in enumerate(steps):
        history.commit(f"Step {number}", step)
    history.switch("main")
    history.merge("topic", "Merge pull request #1 from a/topic\n\nThe title")


def test_a_file_deleted_and_created_again_by_a_later_commit(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": numbered("a", 3)})
    branch(history, {"a.py": None}, {"a.py": "new\n"}, {"a.py": "newer\n"})
    assert kinds(told(history, tmp_path).events) == ["delete", "create", "str_replace"]


def test_a_file_moved_by_one_commit_and_moved_back_by_another(history: History, tmp_path: Path) -> None:
    text = numbered("a", 9)
    history.commit("Before", {"a.py": text, "b.py": "1\n"})
    branch(history, {"a.py": None, "c.py": text}, {"c.py": None, "a.py": text, "b.py": "2\n"})
    assert kinds(told(history, tmp_path).events) == ["rename", "rename", "str_replace"]


def test_a_file_moved_twice_and_edited_between(history: History, tmp_path: Path) -> None:
    text = numbered("a", 9)
    history.commit("Before", {"a.py": text})
    branch(history, {"a.py": None, "b.py": text}, {"b.py": text + "x = 1\n"}, {"b.py": None, "c.py": text + "x = 1\n"})
    assert kinds(told(history, tmp_path).events)[::2] == ["rename", "rename"]


def test_a_file_that_becomes_latin_1_along_the_way(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": "x = 1\ny = 2\n"})
    branch(history, {"a.py": b"x = '\xe9'\ny = 2\n"}, {"a.py": b"x = '\xe9'\ny = 3\n"}, {"a.py": b"x = 1\ny = 4\n"})
    told(history, tmp_path)


def test_a_latin_1_file_that_moves_and_is_edited_elsewhere(history: History, tmp_path: Path) -> None:
    text = numbered("a", 9).encode()
    history.commit("Before", {"a.py": b"# \xe9\n" + text, "keep.py": "1\n"})
    branch(history, {"a.py": None, "b.py": b"# \xe9\n" + text}, {"b.py": b"# \xe9\n" + text + b"x = 1\n"})
    told(history, tmp_path)


def test_a_file_changed_and_changed_back(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": "1\n", "b.py": "1\n"})
    branch(history, {"a.py": "2\n", "b.py": "2\n"}, {"a.py": "1\n"})
    told(history, tmp_path)


def test_a_file_added_and_removed_again(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": "1\n"})
    branch(history, {"a.py": "2\n", "b.py": "1\n"}, {"b.py": None})
    told(history, tmp_path)


def test_a_sha_256_repository_is_proved(tmp_path: Path) -> None:
    history = History(tmp_path / "repository", object_format="sha256")
    changed(history, tmp_path, {"a.py": "1\n", "b.py": "1\n"}, {"a.py": "2\n", "b.py": None, "c.py": "3\n"})


# Order


def shape(trace: Trace) -> list[str]:
    return [f"{event.kind} {event.path}".strip() for event in trace.events]


def test_events_come_in_the_order_of_work(history: History, tmp_path: Path) -> None:
    before: Contents = {"a.py": "1\n", "tests/test_a.py": "1\n", "notes.md": "1\n"}
    after: Contents = {"a.py": "2\n", "tests/test_a.py": "2\n", "notes.md": "2\n"}
    history.commit("Before", before)
    history.commit("Change", after)
    assert shape(told(history, tmp_path)) == [
        "issue",
        "list",
        "read a.py",
        "read tests/test_a.py",
        "edit a.py",
        "edit tests/test_a.py",
        "read notes.md",
        "edit notes.md",
        "done",
    ]


def test_what_changes_most_is_read_first(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": numbered("a", 5), "b.py": numbered("b", 5)})
    history.commit("Change", {"a.py": numbered("a", 5) + "x\n", "b.py": numbered("b", 5, 3)})
    reads = [event.path for event in told(history, tmp_path).events if event.kind == "read"]
    assert reads == ["b.py", "a.py"]


def test_every_commit_is_introduced_by_its_message(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": "1\n"})
    branch(history, {"a.py": "2\n"}, {"a.py": "3\n"})
    trace = told(history, tmp_path)
    assert [(event.kind, event.commit) for event in trace.events if event.commit >= 0] == [
        ("think", 0),
        ("edit", 0),
        ("think", 1),
        ("edit", 1),
    ]


def test_words_are_not_told_twice(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": "1\n"})
    history.commit("Change a\n\nFor a reason.", {"a.py": "2\n"})
    events = told(history, tmp_path).events
    assert [event.text for event in events if event.kind in ("issue", "think")] == ["Change a\n\nFor a reason."]


def test_an_issue_is_asked_and_the_pull_request_is_thought(history: History, tmp_path: Path) -> None:
    (tmp_path / "pulls.jsonl").write_text(
        '{"repo": "owner/name", "number": 3, "title": "It breaks", "body": "When run."}\n'
    )
    build_index(tmp_path / "pulls.jsonl", tmp_path / "pulls.sqlite")
    history.commit("Before", {"a.py": "1\n"})
    history.commit("Repair it\n\nFixes #3", {"a.py": "2\n"})
    pulls = PullTexts(tmp_path / "pulls.sqlite")
    (trace,) = tell(history.path, last=1, pulls=pulls).traces
    pulls.close()
    words = [(event.kind, event.text) for event in trace.events if event.kind in ("issue", "think")]
    assert words == [("issue", "It breaks\n\nWhen run."), ("think", "Repair it\n\nFixes #3")]


def test_nothing_is_edited_that_was_not_seen(history: History, tmp_path: Path) -> None:
    text = LONG.replace("line_600 ", "edited ").replace("line_3 ", "edited ")
    trace = changed(history, tmp_path, {"a.py": LONG, "notes.md": LONG}, {"a.py": text, "notes.md": text})
    seen = {""}
    for event in trace.events:
        if event.kind == "read":
            seen |= set(event.text.split("\n"))
        elif event.edit == "str_replace":
            assert set(event.old.split("\n")) <= seen
            seen |= set(event.new.split("\n"))


def test_a_long_file_is_read_in_parts(history: History, tmp_path: Path) -> None:
    trace = changed(history, tmp_path, {"a.py": LONG}, {"a.py": LONG.replace("line_600 ", "edited ")})
    (read,) = [event for event in trace.events if event.kind == "read" and event.path == "a.py"]
    assert (read.start, read.end) == (576, 626)


def test_a_long_file_is_read_by_its_definitions(history: History, tmp_path: Path) -> None:
    body = (
        "def target(value):\n" + "".join(f"    step_{number} = value\n" for number in range(80)) + "    return value\n"
    )
    before = LONG + body + LONG
    trace = changed(history, tmp_path, {"a.py": before}, {"a.py": before.replace("step_40 = value", "step_40 = None")})
    (read,) = [event for event in trace.events if event.kind == "read" and event.path == "a.py"]
    assert read.text.startswith("def target")
    assert read.text.endswith("    return value")


def test_a_file_that_does_not_parse_is_named(history: History, tmp_path: Path) -> None:
    trace = changed(history, tmp_path, {"a.py": "def (:\n"}, {"a.py": "def f(): pass\n"})
    assert trace.unparsed == ("a.py",)


# Exploring

EXPLORE = "exploration.policy=explore"


def test_exploring_searches_and_opens_a_wrong_file(history: History, tmp_path: Path) -> None:
    before: Contents = {"a.py": "def target_name():\n    return 1\n", "b.py": "import a\na.target_name()\n"}
    history.commit("Before", before)
    history.commit("Repair `target_name`", {"a.py": "def target_name():\n    return 2\n"})
    trace = told(history, tmp_path, EXPLORE)
    assert shape(trace) == ["issue", "list", "search", "read b.py", "think", "read a.py", "edit a.py", "done"]


def test_a_search_that_finds_nothing_of_the_change_is_not_made(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": "x = 1\n", "b.py": "other_name\n"})
    history.commit("Repair `other_name`", {"a.py": "x = 2\n"})
    assert "search" not in [event.kind for event in told(history, tmp_path, EXPLORE).events]


def test_search_hits_with_bytes_that_are_no_text_are_shown_as_a_tool_would(history: History, tmp_path: Path) -> None:
    history.commit("Before", {"a.py": b"target_name = '\xe9'\n", "\u00e9 b.py": "target_name\r\n"})
    history.commit("Repair `target_name`", {"a.py": b"target_name = '\xe8'\n"})
    (search,) = [event for event in told(history, tmp_path, EXPLORE).events if event.kind == "search"]
    assert "\ufffd" in search.text


def test_the_seed_chooses_the_wrong_file(history: History, tmp_path: Path) -> None:
    others: Contents = {f"other_{number}.py": "target_name\n" for number in range(9)}
    others |= {f"far_{number}.py": "x = 1\n" for number in range(12)}
    history.commit("Before", {"a.py": "target_name = 1\n", **others})
    history.commit("Repair `target_name`", {"a.py": "target_name = 2\n"})
    opened = {
        event.path
        for seed in range(8)
        for event in tell(history.path, EXPLORE, f"exploration.seed={seed}", last=1).traces[0].events
        if event.kind == "think" or event.kind == "read"
    }
    assert len(opened) > 3


# Random histories

LINE = st.sampled_from(
    ["a", "b", "a", "", "    a", "def f():", "x\x0by", "\u2028", "\u00e9", "--- a/a.py", "\\ No newline", "\x85"]
)
TEXT = st.builds(
    lambda lines, end, last: end.join([*lines, last]),
    st.lists(LINE, max_size=12),
    st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"]),
    st.sampled_from(["", "", "", "a"]),
)
CONTENT = st.one_of(TEXT.map(str.encode), TEXT.map(lambda text: text.encode("latin-1", "replace")))
PATH = st.sampled_from(["a.py", "b.py", "d.py", "d.py/a.py", "e/a.py", "notes.md", "it's.py"])
STEP = st.tuples(
    st.sampled_from(["write", "edit", "edit", "delete", "move", "swap", "chmod"]),
    PATH,
    PATH,
    CONTENT,
    st.integers(0, 12),
)
FIRST = {"a.py": ("100644", b"a\nb\na\nb\n"), "keep.py": ("100644", numbered("keep", 3).encode())}


def put(state: dict[str, tuple[str, bytes]], path: str, file: tuple[str, bytes]) -> None:
    """Put a file in its place, as a checkout would: no file stands where a directory is."""
    for other in list(state):
        if other.startswith(path + "/") or path.startswith(other + "/"):
            del state[other]
    state[path] = file


def after(state: State, steps: list[tuple[str, str, str, bytes, int]]) -> dict[str, tuple[str, bytes]]:
    """A tree after some random operations."""
    new = dict(state)
    for kind, path, other, content, place in steps:
        if kind == "write":
            put(new, path, ("100644", content))
        elif path not in new:
            continue
        elif kind == "edit":
            mode, old = new[path]
            lines = old.split(b"\n")
            lines[place : place + 2] = content.split(b"\n")[:3]
            new[path] = (mode, b"\n".join(lines))
        elif kind == "delete":
            del new[path]
        elif kind == "move":
            put(new, other, new.pop(path))
        elif kind == "swap" and other in new:
            new[path], new[other] = new[other], new[path]
        elif kind == "chmod":
            new[path] = ("100755" if new[path][0] == "100644" else "100644", new[path][1])
    return new


def states_of(commits: list[list[tuple[str, str, str, bytes, int]]]) -> list[State]:
    states: list[State] = [after(FIRST, commits[0])]
    for steps in commits[1:]:
        states.append(after(states[-1], steps))
    return states


STATES = st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=2, max_size=5).map(states_of)
NUMBERS = st.sampled_from(
    [
        (),
        (EXPLORE,),
        ("exploration.whole_file_lines=1", "exploration.margin_lines=0", "exploration.widen_lines=1"),
        ("exploration.whole_file_lines=2", "exploration.margin_lines=1", "exploration.most_symbol_lines=0"),
    ]
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Fresh directories, one after the other."""
    base = tmp_path_factory.mktemp("random")
    return (base / str(number) for number in count())


def random_history(room: Iterator[Path], states: list[State]) -> History:
    history = History(next(room))
    history.import_branch(states, [f"Step {number} of `keep_1`" for number in range(len(states))])
    return history


@given(STATES, NUMBERS)
@settings(deadline=None, max_examples=110, suppress_health_check=[HealthCheck.too_slow])
def test_random_histories_are_proved(room: Iterator[Path], states: list[State], numbers: tuple[str, ...]) -> None:
    history = random_history(room, states)
    found = tell(history.path, "filters.skip_generated=false", *numbers, last=1)
    assert [rejected for rejected in found.rejected if rejected.stage != "changes"] == []
    for trace in found.traces:
        assert replay(trace, states[0]) == states[-1]
        assert trace.proof.head == history.git("rev-parse", "branch")


@given(STATES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_each_random_commit_by_itself_is_proved(room: Iterator[Path], states: list[State]) -> None:
    history = random_history(room, states)
    found = tell(history.path, head="branch")
    by_head = {history.git("rev-parse", f"branch~{back}"): len(states) - 1 - back for back in range(len(states) - 1)}
    assert [rejected for rejected in found.rejected if rejected.stage != "changes"] == []
    for trace in found.traces:
        place = by_head[trace.proof.head]
        assert replay(trace, states[place - 1]) == states[place]


@given(STATES)
@settings(deadline=None, max_examples=30, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
def test_a_random_change_can_be_acted_in_a_checkout(room: Iterator[Path], states: list[State]) -> None:
    history = random_history(room, states)
    for trace in tell(history.path, EXPLORE, last=1).traces:
        assert acted(trace, history.path, next(room)) == history.git("rev-parse", "main^{tree}")


@given(STATES)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_a_history_harvested_twice_gives_the_same(room: Iterator[Path], states: list[State]) -> None:
    history = random_history(room, states)
    assert tell(history.path, EXPLORE) == tell(history.path, EXPLORE)
