"""Changes taken back: on the tree where they landed, on one that moved on, and where that is refused."""

from pathlib import Path

import pytest

from agentdata.environments.mutations import Mutation
from agentdata.environments.reversal import read_hunks, reverse
from agentdata.records import Change, Rejected
from tests.histories import History, numbered
from tests.tellings import tell
from tests.test_mutations import check_there_and_back, mutated, write_tree

BEFORE = numbered("f", 12)
AFTER = BEFORE.replace("value + 3", "value + 33").replace("value + 9", "value * 9").replace("def f_11", "def g_11")
TEST = "from m import f_3\n\n\ndef test_f():\n    assert f_3(1) == 34\n"


def change_of(history: History) -> Change:
    """The last change of a history."""
    return tell(history.path, last=1).changes[0]


@pytest.fixture
def change(history: History) -> Change:
    history.commit("Root", {"m.py": BEFORE, "n.py": numbered("n", 3)})
    history.commit(
        "Change m", {"m.py": AFTER, "n.py": numbered("n", 4), "test_m.py": TEST, "README.md": "Words about m\n"}
    )
    return change_of(history)


def taken_back(change: Change, sources: dict[str, bytes]) -> Mutation:
    found = reverse(change, sources)
    assert isinstance(found, Mutation), found
    return found


def test_a_change_is_taken_back_to_the_byte(change: Change, tmp_path: Path) -> None:
    sources = {"m.py": AFTER.encode(), "n.py": numbered("n", 4).encode(), "test_m.py": TEST.encode()}
    mutation = taken_back(change, sources)
    assert mutated(mutation, sources) == {"m.py": BEFORE.encode(), "n.py": numbered("n", 3).encode()}
    assert mutation.kinds == ("reversal",)
    assert mutation.symbol == "f_3"
    write_tree(tmp_path, sources)
    check_there_and_back(mutation, tmp_path, sources)


def test_lines_that_moved_are_found(change: Change, tmp_path: Path) -> None:
    moved = numbered("new", 9) + AFTER.replace("def f_6", "def six")
    sources = {"m.py": moved.encode(), "n.py": numbered("n", 4).encode()}
    expected = numbered("new", 9) + BEFORE.replace("def f_6", "def six")
    assert mutated(taken_back(change, sources), sources)["m.py"] == expected.encode()


@pytest.mark.parametrize(
    ("today", "reason"),
    [
        ({"n.py": b""}, "file-gone"),
        ({"m.py": AFTER.replace("value + 2", "value - 2").encode(), "n.py": b""}, "context-differs"),
        ({"m.py": b"\xff" + AFTER.encode(), "n.py": b""}, "not-utf-8"),
        ({"m.py": b"x = (\n" + AFTER.encode(), "n.py": numbered("n", 4).encode()}, "does-not-compile"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(change: Change, today: dict[str, bytes], reason: str) -> None:
    found = reverse(change, today)
    assert isinstance(found, Rejected)
    assert (found.reason, found.stage, found.id) == (reason, "reversal", change.id)


def test_a_place_that_could_be_either_is_refused(history: History) -> None:
    block = "def f():\n    a()\n    b()\n    c()\n    d()\n    e()\n    g()\n\n\n"
    history.commit("Root", {"m.py": "#\n" * 20 + block + "#\n" * 20})
    after = block.replace("c()", "h()")
    history.commit("Change", {"m.py": "#\n" * 20 + after + "#\n" * 20})
    twice = "#\n" * 10 + after + "#\n" * 11 + after + "#\n" * 9
    found = reverse(change_of(history), {"m.py": twice.encode()})
    assert isinstance(found, Rejected)
    assert found.reason == "ambiguous"


@pytest.mark.parametrize("files", [{"added.py": "x = 1\n"}, {"m.py": None, "n.py": "x = 2\n"}])
def test_added_and_deleted_files_are_refused(history: History, files: dict[str, str | bytes | None]) -> None:
    history.commit("Root", {"m.py": BEFORE, "n.py": "x = 1\n"})
    history.commit("Change", files)
    found = reverse(change_of(history), {"m.py": AFTER.encode()})
    assert isinstance(found, Rejected)
    assert found.reason == "not-only-modified"


def test_a_missing_line_end_is_kept(history: History, tmp_path: Path) -> None:
    history.commit("Root", {"m.py": BEFORE + "x = 1"})
    history.commit("Change", {"m.py": BEFORE + "x = 2\n"})
    sources = {"m.py": (BEFORE + "x = 2\n").encode()}
    mutation = taken_back(change_of(history), sources)
    assert mutated(mutation, sources) == {"m.py": (BEFORE + "x = 1").encode()}
    write_tree(tmp_path, sources)
    check_there_and_back(mutation, tmp_path, sources)


def test_hunks_hold_both_sides() -> None:
    patch = (
        b"diff --git a/m b/m\n--- a/m\n+++ b/m\n@@ -1,2 +1,3 @@ def f\n a\n-b\n+c\n+--d\n\\ No newline at end of file\n"
    )
    (hunk,) = read_hunks(patch)
    assert (hunk.start, hunk.old, hunk.new) == (0, [b"a\n", b"b\n"], [b"a\n", b"c\n", b"--d"])
