"""What a task says: the words of people first, and from tests nothing that gives the mistake away."""

from collections.abc import Sequence

import pytest

from agentdata.environments.mutations import candidates
from agentdata.environments.statements import Failure, describe, leaks, statement_of
from agentdata.records import Change, Commit, Issue

SOURCE = b"""\
def take_part(values, limit_value):
    if limit_value < 0:
        raise ValueError(limit_value)
    return values
"""
GOLD = next(iter(candidates("src/package/parts.py", SOURCE, seed=0, kinds=("guard",)))).gold_patch
TRACEBACK = """\
def test_negative():
    secret = Secret(4)
>   assert take(secret) == 3
E   AssertionError: assert 4 == 3
E    +  where 4 = <Part object at 0x7f1234567890>.value

src/package/parts.py:12: AssertionError
"""
PLAIN = """\
Traceback (most recent call last):
  File "/testbed/src/package/parts.py", line 12, in take_part
    if limit_value < 0:
TypeError: unsupported operand at /testbed/other.py:14 on line 14
"""


def failures(*messages: str) -> list[Failure]:
    return [
        Failure(name=f"tests/test_parts.py::test_{place}", message=message) for place, message in enumerate(messages)
    ]


def change_with(**fields: object) -> Change:
    settled: dict[str, object] = dict.fromkeys(("id", "repo", "title", "body", "snapshot", "head", "landed"), "")
    settled |= {"number": 0, "kind": "merge", "landed_at": 0, "licence": "", "licence_found": ""}
    settled |= dict.fromkeys(("issues", "comments", "commits", "files", "edits"), ())
    return Change.model_validate(settled | fields)


def test_names_and_messages_are_told() -> None:
    text = describe("a__b-1", failures("AssertionError: assert 4 == 3"), GOLD)
    assert "- `tests/test_parts.py::test_0`" in text
    assert "AssertionError: assert 4 == 3" in text


def test_a_report_is_told_without_code_places_and_addresses() -> None:
    text = describe("a__b-1", failures(TRACEBACK), GOLD)
    assert "assert 4 == 3\n   +  where 4 = <Part object at 0x...>.value" in text
    for hidden in ("secret", "parts.py:12", "src/package", "0x7f"):
        assert hidden not in text


def test_a_traceback_is_told_by_its_end() -> None:
    text = describe("a__b-1", failures(PLAIN), GOLD)
    assert "TypeError: unsupported operand at other.py\n" in text
    for hidden in ("limit_value", "Traceback", "testbed", "14", "12"):
        assert hidden not in text


def test_a_message_that_shows_the_changed_line_is_left_out() -> None:
    text = describe("a__b-1", failures("NameError: name 'limit_value' is not defined\nassert 1 == 2"), GOLD)
    assert "limit_value" not in text
    assert "assert 1 == 2" in text
    assert leaks(text, GOLD) == []


def test_parameters_that_show_the_changed_line_are_left_out() -> None:
    text = describe("a", [Failure(name="t.py::test_a[limit_value]"), Failure(name="t.py::test_b[3]")], GOLD)
    assert "`t.py::test_a`" in text
    assert "`t.py::test_b[3]`" in text


def test_many_failures_are_counted() -> None:
    text = describe("a", failures(*["assert 1 == 2"] * 9), GOLD)
    assert "- and 3 more" in text
    assert text.count("assert 1 == 2") == 1


def test_a_flood_is_cut() -> None:
    assert len(describe("a", failures("x" * 10_000, "y\n" * 10_000), GOLD)) < 2_000


def test_the_wording_is_the_ids_alone() -> None:
    told = failures("a", "b")
    assert describe("id-1", told, GOLD) == describe("id-1", told[::-1], GOLD)
    assert len({describe(f"id-{number}", told, GOLD) for number in range(200)}) > 40


def test_no_wording_leaks_by_itself() -> None:
    words = "".join(describe(f"id-{number}", failures(""), "") for number in range(200))
    patch = "".join(f"+{word}\n" for word in {word for word in words.split() if word.isalpha()})
    assert [word for word in leaks(words, patch) if len(word) > 11] == []


def test_without_failures_there_is_nothing_to_tell() -> None:
    with pytest.raises(ValueError, match=r"No failing test to describe a__b-1 by"):
        describe("a__b-1", [], GOLD)


class Writer:
    """A model that always answers the same."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[tuple[Sequence[Failure], str]] = []

    def __call__(self, failures: Sequence[Failure], template: str) -> str:
        self.asked.append((failures, template))
        return self.answer


def test_a_model_may_write_instead() -> None:
    writer = Writer("Negative numbers are taken without any complaint, which used to be an error.")
    assert describe("a", failures(TRACEBACK), GOLD, write=writer) == writer.answer
    (told, template) = writer.asked[0]
    assert "secret" not in told[0].message
    assert template == describe("a", failures(TRACEBACK), GOLD)


@pytest.mark.parametrize("answer", ["", "Too short.", "Somebody forgot to check limit_value in the beginning of it."])
def test_a_model_that_says_too_little_or_too_much_is_not_heard(answer: str) -> None:
    template = describe("a", failures("assert 1"), GOLD)
    assert describe("a", failures("assert 1"), GOLD, write=Writer(answer)) == template


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("Nothing to see, a ValueError at most", []),
        ("look at src/package/parts.py", ["src/package/parts.py"]),
        ("say `raise ValueError(limit_value)` there", ["raise ValueError(limit_value)", "limit_value"]),
        ("the limit_value is wrong", ["limit_value"]),
        ("test_limit_value fails", []),
        ("take_part is wrong", []),
    ],
)
def test_leaks_are_found(statement: str, found: list[str]) -> None:
    assert leaks(statement, GOLD) == found


ISSUE = Issue(
    number=3, title="It crashes", body="When I pass a negative number to take_part then it says nothing at all."
)
COMMIT = Commit(
    sha="", message="Refuse negative limits when taking a part of values", author_kind="person", authored_at=0, edits=()
)


def test_an_issue_comes_first() -> None:
    change = change_with(number=4, title="A good title of a pull request", body="And its body", issues=(ISSUE,))
    text, source = statement_of(change)
    assert source == "issue"
    assert text == f"It crashes\n\n{ISSUE.body}"


def test_a_short_issue_gives_way_to_the_pull_request() -> None:
    words = "Refuse negative limits, as nobody can take less than nothing."
    body = f"<!-- Read\nthis -->\n{words}\r\n\r\n- [x] Tests\n- [ ] Docs\n\nFixes #3\n"
    change = change_with(number=4, title="Check", body=body, issues=(Issue(number=3, title="Crash", body=""),))
    text, source = statement_of(change)
    assert source == "pull-request"
    assert text == f"Check\n\n{words}"


def test_a_commit_without_a_pull_request_speaks_for_itself() -> None:
    assert statement_of(change_with(title=COMMIT.message)) == (COMMIT.message, "commit")
    assert statement_of(change_with(number=4, title="Fix", commits=(COMMIT,))) == (COMMIT.message, "commit")


def test_what_is_too_short_to_work_from_is_refused() -> None:
    assert statement_of(change_with(number=4, title="Fix it", body="https://example.com/" + "a" * 99)) == (
        "",
        "pull-request",
    )
