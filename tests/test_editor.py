"""What the editor does to a text and what it prints."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata import editor

LINES = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n"


def test_replace_changes_the_only_occurrence() -> None:
    assert editor.replace("a b c", "b", "x") == "a x c"


def test_replace_refuses_a_text_that_occurs_nowhere() -> None:
    with pytest.raises(editor.EditError, match="nowhere"):
        editor.replace("a b c", "d", "x")


def test_replace_refuses_an_empty_old_text() -> None:
    with pytest.raises(editor.EditError, match="nowhere"):
        editor.replace("a b c", "", "x")


def test_replace_refuses_a_second_occurrence() -> None:
    with pytest.raises(editor.EditError, match="more than once"):
        editor.replace("a b a", "a", "x")


def test_replace_refuses_occurrences_that_overlap() -> None:
    with pytest.raises(editor.EditError, match="more than once"):
        editor.replace("aaa", "aa", "x")


def test_replace_takes_backslashes_of_the_new_text_literally() -> None:
    assert editor.replace("x = 1", "1", r"\1\n\g<0>") == r"x = \1\n\g<0>"


def test_insert_at_zero_is_the_top() -> None:
    assert editor.insert("a\n", 0, "new") == "new\na\n"


def test_insert_after_the_last_line_end_keeps_no_final_newline() -> None:
    assert editor.insert("a\n", 2, "new") == "a\n\nnew"


def test_insert_of_several_lines_keeps_their_order() -> None:
    assert editor.insert("a\nb\n", 1, "x\ny") == "a\nx\ny\nb\n"


@pytest.mark.parametrize("line", [-1, 3])
def test_insert_refuses_a_line_that_does_not_exist(line: int) -> None:
    with pytest.raises(editor.EditError, match="outside"):
        editor.insert("a\n", line, "new")


def test_view_numbers_lines_like_cat() -> None:
    assert editor.view("src/a.py", ["x", "", "y"], 9) == (
        "Here's the result of running `cat -n` on /testbed/src/a.py:\n     9\tx\n    10\t\n    11\ty\n"
    )


def test_replaced_shows_four_lines_on_each_side() -> None:
    after = LINES.replace("six", "SIX\nsix")
    printed = editor.replaced("a", after, after.index("SIX"), 6, "SIX\nsix")
    assert [line.split("\t")[1] for line in printed.split("\n")[1:-1]] == after.split("\n")[1:11]


def test_replaced_at_the_top_begins_with_line_one() -> None:
    assert "\n     1\tONE\n     2\ttwo\n" in editor.replaced("a", LINES.replace("one", "ONE"), 0, 1, "ONE")


def test_inserted_shows_four_lines_on_each_side() -> None:
    after = editor.insert(LINES, 5, "new")
    printed = editor.inserted("a", after, after.index("new"), 6, "new")
    assert [line.split("\t")[1] for line in printed.split("\n")[1:-1]] == after.split("\n")[1:10]


def test_inserted_at_the_top_begins_with_line_one() -> None:
    assert "\n     1\tnew\n     2\tone\n" in editor.inserted("a", editor.insert(LINES, 0, "new"), 0, 1, "new")


@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=3))
def test_a_replacement_is_made_only_where_the_old_text_occurs_once(text: str, old: str) -> None:
    places = [place for place in range(len(text)) if old and text.startswith(old, place)]
    if len(places) == 1:
        assert editor.replace(text, old, "X") == text[: places[0]] + "X" + text[places[0] + len(old) :]
    else:
        with pytest.raises(editor.EditError):
            editor.replace(text, old, "X")


@given(st.text("a\n\r\x0c", max_size=12), st.integers(0, 13), st.text("b\n", max_size=4))
@settings(max_examples=60)
def test_insert_takes_nothing_away(text: str, line: int, new: str) -> None:
    line = min(line, text.count("\n") + 1)
    lines = editor.insert(text, line, new).split("\n")
    del lines[line : line + new.count("\n") + 1]
    assert "\n".join(lines) == text
