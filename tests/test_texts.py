"""Messages made fit to train on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdata.harvest.texts import clean, closed_issues, split_message, title_of

WORDS = st.text(st.sampled_from("abc \n#`\r\t<>:.@é"), max_size=60)


@pytest.mark.parametrize(
    "line",
    [
        "Signed-off-by: Ada Author <ada@example.com>",
        "Co-authored-by: Ben Builder <ben@example.com>",
        "co-developed-by: Ben Builder",
        "Reviewed-by: someone",
        "Acked-by: someone",
        "Tested-by: someone",
        "Reported-by: someone",
        "Suggested-by: someone",
        "Change-Id: I0123456789abcdef",
        "Reviewed-on: https://review.example.com/c/1",
        "git-svn-id: https://svn.example.com/trunk@12 abc",
        "Cc: list@example.com",
        "See merge request group/project!12",
        "(cherry picked from commit 0123456789abcdef0123456789abcdef01234567)",
    ],
)
def test_a_trailer_is_removed_and_counted(line: str) -> None:
    cleaned = clean(f"Subject\n\nBody stays.\n\n{line}\n")
    assert (cleaned.text, cleaned.trailers) == ("Subject\n\nBody stays.", 1)


@pytest.mark.parametrize(
    "line", ["Fixes: #12", "Note: this stays", "Reviewed the code by hand", "Tested on two machines"]
)
def test_a_line_that_says_something_stays(line: str) -> None:
    assert clean(f"Subject\n\n{line}").text == f"Subject\n\n{line}"


@pytest.mark.parametrize("mark", ["[skip ci]", "[ci skip]", "[no ci]", "[skip travis]", "***NO_CI***", "[SKIP CI]"])
def test_a_mark_for_the_build_server_is_removed(mark: str) -> None:
    assert clean(f"Subject {mark}").text == "Subject"


@pytest.mark.parametrize("address", ["ada@example.com", "<ada.author+tag@mail.example.co.uk>", "a_b%c@x-y.org"])
def test_an_address_is_replaced_and_counted(address: str) -> None:
    cleaned = clean(f"Ask {address} about it")
    assert (cleaned.text, cleaned.emails) == ("Ask <email> about it", 1)


@pytest.mark.parametrize("text", ["@decorator", "user@host", "x = a @ b", "foo@1.2"])
def test_what_only_looks_like_an_address_stays(text: str) -> None:
    assert clean(text).text == text


def test_line_ends_are_normalised() -> None:
    assert clean("a\r\nb\rc").text == "a\nb\nc"


@given(WORDS)
def test_cleaning_a_clean_text_changes_nothing(text: str) -> None:
    once = clean(text).text
    assert clean(once).text == once


def test_a_message_is_split_at_its_first_line() -> None:
    assert split_message("Subject\n\nBody\n\nMore\n") == ("Subject", "Body\n\nMore")


@pytest.mark.parametrize(
    ("message", "title", "body"),
    [
        ("Merge pull request #1 from a/b\n\nThe title\n\nThe body", "The title", "The body"),
        ("Merge pull request 'The title' (#3) from a/b into main\n\nThe body", "The title", "The body"),
        ("Merge branch 'b' into 'main'\n\nThe title\n\nThe body", "The title", "The body"),
        ("Merged in b (pull request #7)\n\nThe title\n\nThe body", "The title", "The body"),
        ('Merge "The title" into main', "The title", ""),
        ("Merge pull request #12 in P/r from b to main\n\n* commit 'abc':\n  The first", "First subject", "First body"),
        ("Pull request #20: The title\n\nMerge in P/r from b to main\n\n* commit 'abc':\n  The first", "The title", ""),
        ("Merged PR 21: The title\n\nThe body", "The title", "The body"),
        ("Merge branch 'b'", "First subject", "First body"),
        ("Land the branch\n\nWith words", "Land the branch", "With words"),
    ],
)
def test_a_merge_takes_its_title_from_the_forges_message(message: str, title: str, body: str) -> None:
    assert title_of("merge", message, "First subject\n\nFirst body") == (title, body)


@pytest.mark.parametrize("mark", ["(#12)", "(!12)", "(PR #12)"])
def test_a_squash_loses_its_number(mark: str) -> None:
    assert title_of("squash", f"The title {mark}\n\nThe body", "First") == ("The title", "The body")


def test_a_squash_whose_title_begins_with_merge_keeps_it() -> None:
    assert title_of("squash", "Merge two helpers (#12)\n\nThey did the same", "First") == (
        "Merge two helpers",
        "They did the same",
    )


def test_a_squash_of_bitbucket_takes_its_title_from_the_body() -> None:
    assert title_of("squash", "Merged in b (pull request #7)\n\nThe title\n\nThe body", "First") == (
        "The title",
        "The body",
    )


def test_a_rebase_takes_the_words_of_its_first_commit() -> None:
    assert title_of("rebase", "Last", "First\n\nWhy") == ("First", "Why")


def test_a_plain_commit_keeps_its_words() -> None:
    assert title_of("plain", "Subject\n\nBody", "Subject\n\nBody") == ("Subject", "Body")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Fixes #3", [3]),
        ("closes: #3, resolves #4", [3, 4]),
        ("Fixed issue #5 and fix #5", [5]),
        ("Resolve #1\n\nClose #2", [1, 2]),
        ("Fixes other/project#6", []),
        ("prefixes #7", []),
        ("See #8", []),
    ],
)
def test_closed_issues_are_those_of_closing_words(text: str, numbers: list[int]) -> None:
    assert closed_issues(text) == numbers
