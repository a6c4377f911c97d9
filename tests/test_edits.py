"""Patches to edits: by hand for each corner, and by git for random texts."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentdata import editor
from agentdata.harvest.edits import (
    Lines,
    PatchError,
    Place,
    Run,
    UnfitError,
    apply_runs,
    join_runs,
    make_edits,
    parse_runs,
)

HEADER = "diff --git a/f b/f\n--- a/f\n+++ b/f\n"
LINE = st.sampled_from(
    ["a", "b", "", " ", "-", "+", "--- a", "+++ b", "@@ -1 +1 @@", "\\ No", "x\x0by", "\x0c", "\u2028", "é"]
)
TEXT = st.builds(
    lambda lines, ends, last: "".join(line + end for line, end in zip(lines, ends, strict=False)) + last,
    st.lists(LINE, max_size=14),
    st.lists(st.sampled_from(["\n", "\n", "\r\n"]), min_size=14, max_size=14),
    st.sampled_from(["", "", "a", "b\r", "\r"]),
)


def git_diff(directory: Path, old: str, new: str) -> str:
    """The diff that git makes of two texts; empty for equal ones."""
    (directory / "old").write_bytes(old.encode())
    (directory / "new").write_bytes(new.encode())
    command = ["git", "diff", "--no-index", "--text", "--no-color", "-U3", "old", "new"]
    done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    assert done.returncode in (0, 1)
    return done.stdout.decode()


def edits_of(old: str, new: str, directory: Path, widen: int = 20) -> list[Place]:
    return list(make_edits("f", old, parse_runs(git_diff(directory, old, new)), widen))


def test_a_run_names_its_line_from_zero() -> None:
    assert parse_runs(HEADER + "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n") == (Run(1, "b\n", "x\n"),)


def test_two_runs_of_one_hunk_stay_apart() -> None:
    patch = HEADER + "@@ -1,3 +1,3 @@\n-a\n+x\n b\n-c\n+y\n"
    assert parse_runs(patch) == (
        Run(0, "a\n", "x\n"),
        Run(2, "c\n", "y\n"),
    )


def test_a_hunk_without_old_lines_begins_after_the_line_it_names() -> None:
    assert parse_runs(HEADER + "@@ -0,0 +1 @@\n+a\n") == (Run(0, "", "a\n"),)


def test_removed_lines_that_look_like_headers_are_lines() -> None:
    patch = HEADER + "@@ -1,2 +1,2 @@\n--- a/f\n-@@ -1 +1 @@\n+++ b/f\n+@@ -2 +2 @@\n"
    assert parse_runs(patch) == (Run(0, "-- a/f\n@@ -1 +1 @@\n", "++ b/f\n@@ -2 +2 @@\n"),)


def test_a_missing_final_newline_is_taken_from_the_side_it_follows() -> None:
    patch = HEADER + "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n"
    assert parse_runs(patch) == (Run(0, "a", "b\n"),)


def test_a_missing_final_newline_after_an_unchanged_line_changes_no_run() -> None:
    patch = HEADER + "@@ -1,2 +1,2 @@\n-a\n+b\n c\n\\ No newline at end of file\n"
    assert parse_runs(patch) == (Run(0, "a\n", "b\n"),)


def test_a_patch_without_hunks_has_no_runs() -> None:
    assert parse_runs("diff --git a/f b/f\nold mode 100644\nnew mode 100755\n") == ()


def test_lines_end_at_newlines_only() -> None:
    assert [Lines("a\rb\x0bc\u2028d\ne").offset(line) for line in range(3)] == [0, 8, -1]


def test_a_patch_for_another_text_is_refused() -> None:
    with pytest.raises(PatchError, match="line 1"):
        apply_runs("b\n", [Run(0, "a\n", "x\n")])


def test_a_patch_beyond_the_end_is_refused() -> None:
    with pytest.raises(PatchError, match="line 10"):
        apply_runs("a\n", [Run(9, "a\n", "x\n")])


def test_edits_of_a_patch_for_another_text_are_refused() -> None:
    with pytest.raises(PatchError, match="line 1"):
        list(make_edits("f", "b\n", [Run(0, "a\n", "x\n")], 5))


def test_runs_two_lines_apart_are_joined() -> None:
    runs = [Run(0, "a\n", "x\n"), Run(3, "d\n", "y\n")]
    assert join_runs("a\nb\nc\nd\n", Lines("a\nb\nc\nd\n"), runs) == [Run(0, "a\nb\nc\nd\n", "x\nb\nc\ny\n")]


def test_runs_three_lines_apart_stay_apart() -> None:
    runs = [Run(0, "a\n", "x\n"), Run(4, "e\n", "y\n")]
    assert join_runs("a\nb\nc\nd\ne\n", Lines("a\nb\nc\nd\ne\n"), runs) == runs


def test_a_unique_line_is_replaced_by_itself(tmp_path: Path) -> None:
    (place,) = edits_of("a\nb\nc\n", "a\nx\nc\n", tmp_path)
    assert (place.event.edit, place.event.old, place.event.new) == ("str_replace", "b", "x")


def test_a_repeated_line_is_widened_until_it_is_unique(tmp_path: Path) -> None:
    (place,) = edits_of("a\nb\nc\nb\nd\n", "a\nb\nc\nx\nd\n", tmp_path)
    assert (place.event.old, place.event.new) == ("c\nb\nd", "c\nx\nd")


def test_new_lines_are_inserted(tmp_path: Path) -> None:
    (place,) = edits_of("a\nb\n", "a\nx\nb\n", tmp_path)
    assert (place.event.edit, place.event.line, place.event.new) == ("insert", 1, "x")


def test_a_line_added_to_a_file_without_final_newline_is_exact(tmp_path: Path) -> None:
    (place,) = edits_of("a\nb", "a\nb\nc", tmp_path)
    assert place.after == "a\nb\nc"


def test_a_removed_final_newline_is_exact(tmp_path: Path) -> None:
    (place,) = edits_of("a\nb\n", "a\nb", tmp_path)
    assert place.after == "a\nb"


def test_text_that_is_nowhere_unique_is_unfit(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="within 3 lines"):
        edits_of("a\n" * 40, "a\n" * 20 + "b\n" + "a\n" * 19, tmp_path, widen=3)


def test_a_place_names_the_lines_that_the_old_text_spans(tmp_path: Path) -> None:
    (place,) = edits_of("a\nb\nc\nb\nd\n", "a\nb\nc\nx\nd\n", tmp_path)
    assert (place.first, place.last) == (3, 5)


@example("", "a\n")
@example("", "a")
@example("a", "")
@example("\n\n\n", "\n\n")
@example("a\r\n", "a\n")
@example("a\n" * 9, "a\n" * 10)
@given(TEXT, TEXT)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_runs_of_gits_diff_give_the_new_text(tmp_path: Path, old: str, new: str) -> None:
    assert apply_runs(old, parse_runs(git_diff(tmp_path, old, new))) == new


@example("a\n" * 9, "a\n" * 10, 20)
@example("a\nb\na\nb\n", "a\nb\nb\n", 20)
@example("aa", "aaa", 1)
@given(TEXT, TEXT, st.sampled_from([0, 1, 20]))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_edits_replayed_give_the_new_text_or_none_are_made(tmp_path: Path, old: str, new: str, widen: int) -> None:
    try:
        places = edits_of(old, new, tmp_path, widen)
    except UnfitError:
        return
    text = old
    for place in places:
        event = place.event
        if event.edit == "insert":
            text = editor.insert(text, event.line, event.new)
        else:
            assert sum(text.startswith(event.old, start) for start in range(len(text))) == 1
            text = editor.replace(text, event.old, event.new)
        assert place.after == text
    assert text == new


@given(TEXT, TEXT)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_lines_of_a_place_hold_its_old_text(tmp_path: Path, old: str, new: str) -> None:
    try:
        places = edits_of(old, new, tmp_path)
    except UnfitError:
        return
    text = old
    for place in places:
        lines = text.split("\n")
        assert 1 <= place.first <= place.last <= len(lines)
        assert place.event.old.rstrip("\n") in "\n".join(lines[place.first - 1 : place.last])
        text = place.after
