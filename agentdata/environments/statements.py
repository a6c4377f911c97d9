"""What a task says to the one who solves it: the words of people where there are some, else what the failing tests say.

A statement from tests never names the changed lines or files, and no code of the tests beyond names and messages.
"""

import builtins
import hashlib
import keyword
import re
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from agentdata.records import Change, Record

StatementSource = Literal["issue", "pull-request", "commit", "tests"]

TESTS_NAMED = 6
"""So many failing tests are named; of the others the number is told."""
MESSAGE_LINES = 6
MESSAGE_CHARACTERS = 600
SHORTEST = 40
"""Characters of words below which nobody can work from a text."""
KNOWN_WORDS = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "return", "assert"}

OPENINGS = (
    "{Some} started to fail although nothing in the tests themselves changed.",
    "The test suite reports failures that it should not report.",
    "Something that used to work no longer behaves as it should; {some} noticed.",
    "There is a regression in the library; it was found by {some}.",
    "Running the test suite, I see unexpected failures.",
)
REQUESTS = (
    "Find the cause in the source code and fix it. The tests are right and must not be changed.",
    "Please find out what is wrong in the code and correct it, leaving the tests as they are.",
    "The behaviour that the tests expect is the intended one. Please restore it without touching the tests.",
    "Please repair the code so that these tests pass again and all others still do.",
)
LISTS = ("Failing:", "These tests fail:", "What fails:", "Affected tests:")

TRACE_LINE = re.compile(
    r'^\s*File "[^"]*", line \d+|^\S*\.py:\d+:|^\s*(?:>|_ _ )|^Traceback \(most recent call last\)|^\s*\^+\s*$|^-{5,}|^={5,}'
)
ERROR_MARK = re.compile(r"^E(?: {3}|$)")
LINE_NUMBER = re.compile(r"(?<=\.py):\d+\b|,? \(?(?:at |on )?line \d+\)?", re.IGNORECASE)
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ROOT = re.compile(r"(?:/testbed|/(?:usr|opt|home|root)/\S*?site-packages)/")
PATCHED = re.compile(r'^(?:---|\+\+\+) "?[ab]/(.+?)"?\t?$', re.MULTILINE)
TOKEN = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*|\d+(?:\.\d+)?")

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CHECKBOX = re.compile(r"^\s*[-*] \[[ xX]\].*$", re.MULTILINE)
CLOSING = re.compile(
    r"^\W*(?:fix(?:e[sd])?|close[sd]?|resolve[sd]?|refs?|see)\W*(?:\S*#\d+\W*|https?://\S+\W*)+$", re.I | re.M
)
WORD = re.compile(r"[^\W\d_]{2,}")


class Failure(Record):
    """A test that fails with the mistake in place, as the runner's report has it."""

    name: str
    """pytest node id."""
    message: str = ""
    """What the report gives as the message, or the end of its text."""


class WriteStatement(Protocol):
    """The seam for a statement written by a model.

    It is given the failing tests, already cleaned, and the statement that the template makes of them, and returns its
    own words. What it returns is used only if it is long enough and `leaks` finds nothing in it.
    """

    def __call__(self, failures: Sequence[Failure], template: str) -> str: ...


def describe(task: str, failures: Sequence[Failure], gold_patch: str, *, write: WriteStatement | None = None) -> str:
    """A problem statement from failing tests; the wording is drawn by the task's id, the order is that of the names.

    Raises ValueError when no test fails.
    """
    if not failures:
        raise ValueError(f"No failing test to describe {task} by; a task needs at least one.")
    shown = [_cleaned(failure, gold_patch) for failure in sorted(failures, key=lambda failure: failure.name)]
    template = _filled(task, shown)
    if write is None:
        return template
    written = write(shown, template).strip()
    return written if _is_enough(written, SHORTEST) and not leaks(written, gold_patch) else template


def leaks(statement: str, gold_patch: str, *, shortest: int = 6) -> list[str]:
    """What a statement gives away of a patch: files, changed lines and words of changed lines that stand in it.

    Words are names and numbers of `shortest` characters or more, whole; plain lower-case ones, which may be English, count
    from twice that length. Python's own names are not counted.
    """
    files = [path for path in dict.fromkeys(PATCHED.findall(gold_patch)) if path in statement]
    lines = [line for line in _changed_lines(gold_patch) if len(line) >= max(shortest, 8) and line in statement]
    return [*files, *lines, *_leaked_words(statement, gold_patch, shortest)]


def statement_of(change: Change, *, shortest: int = SHORTEST) -> tuple[str, StatementSource]:
    """The words that people gave a change: its issues, else its pull request, else its commit message.

    The text is empty when none of them has `shortest` characters of words without templates, check boxes and references.
    """
    issues = "\n\n".join(_joined(issue.title, issue.body) for issue in change.issues)
    if _is_enough(issues, shortest):
        return issues, "issue"
    own = _joined(change.title, change.body)
    source: StatementSource = "pull-request" if change.number else "commit"
    if _is_enough(own, shortest):
        return own, source
    messages = "\n\n".join(_stripped(commit.message) for commit in change.commits)
    return (messages, "commit") if _is_enough(messages, shortest) else ("", source)


def _joined(title: str, body: str) -> str:
    return f"{title.strip()}\n\n{_stripped(body)}".strip()


def _stripped(text: str) -> str:
    for pattern in (COMMENT, CHECKBOX, CLOSING):
        text = pattern.sub("", text.replace("\r\n", "\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _is_enough(text: str, shortest: int) -> bool:
    return len(" ".join(WORD.findall(re.sub(r"https?://\S+", "", text)))) >= shortest


def _filled(task: str, failures: Sequence[Failure]) -> str:
    drawn = hashlib.sha256(task.encode()).digest()
    some = "a test" if len(failures) == 1 else "several tests"
    opening = OPENINGS[drawn[0] % len(OPENINGS)].format(some=some, Some=some.capitalize())
    parts = [opening, LISTS[drawn[1] % len(LISTS)], "\n".join(_listed(failures)), REQUESTS[drawn[2] % len(REQUESTS)]]
    return "\n\n".join(parts) + "\n"


def _listed(failures: Sequence[Failure]) -> Iterator[str]:
    said = set[str]()
    for failure in failures[:TESTS_NAMED]:
        yield f"- `{failure.name}`"
        if failure.message and failure.message not in said:
            said.add(failure.message)
            yield "\n".join(["", "  ```", *(f"  {line}" for line in failure.message.splitlines()), "  ```", ""])
    if len(failures) > TESTS_NAMED:
        yield f"- and {len(failures) - TESTS_NAMED} more"


def _cleaned(failure: Failure, gold_patch: str) -> Failure:
    """Without traceback, places, code and everything that the patch would give away."""
    name = failure.name
    if leaks(name.partition("[")[2], gold_patch):
        name = name.partition("[")[0]
    lines = [line for line in _message_lines(failure.message) if not leaks(line, gold_patch)]
    return Failure(name=name, message="\n".join(lines)[:MESSAGE_CHARACTERS].rstrip())


def _message_lines(message: str) -> list[str]:
    lines = COLOUR.sub("", message).splitlines()
    marked = [ERROR_MARK.sub("", line) for line in lines if ERROR_MARK.match(line)]
    kept = []
    for number, line in enumerate(marked or lines):
        before = lines[number - 1] if number and not marked else ""
        # The line below `File "...", line N` is code of the traceback.
        if TRACE_LINE.match(line) or before.lstrip().startswith('File "'):
            continue
        line = ADDRESS.sub("0x...", ROOT.sub("", LINE_NUMBER.sub("", line))).rstrip()
        if line:
            kept.append(line)
    return kept[:MESSAGE_LINES]


def _changed_lines(patch: str) -> list[str]:
    changed = [line[1:].strip() for line in patch.splitlines() if _is_changed(line)]
    return [line for line in dict.fromkeys(changed) if line]


def _is_changed(line: str) -> bool:
    return line[:1] in ("+", "-") and not line.startswith(("+++ ", "--- "))


def _leaked_words(statement: str, patch: str, shortest: int) -> list[str]:
    stated = set(_words(statement))
    changed = dict.fromkeys(word for line in _changed_lines(patch) for word in _words(line))
    return [word for word in changed if word in stated and _tells(word, shortest)]


def _tells(word: str, shortest: int) -> bool:
    plain = word.isalpha() and word[1:].islower()
    return len(word) >= (2 * shortest if plain else shortest) and word not in KNOWN_WORDS


def _words(text: str) -> list[str]:
    """Names, with the dotted ones also taken apart, and numbers."""
    found = TOKEN.findall(text)
    return [*found, *(part for name in found if "." in name for part in name.split("."))]
