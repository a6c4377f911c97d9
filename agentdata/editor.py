"""The agent's file editor as pure functions: what each command does to a text, and what it prints.

Command names, arguments and printed forms are those of SWE-agent's `str_replace_editor`, so that contextual samples and
real rollouts share one distribution. Two differences keep edits byte-exact: tabs are not expanded, and an old text must
occur exactly once with overlapping occurrences counted too.
"""

from agentdata.errors import AgentdataError

ROOT = "/testbed"
SNIPPET_LINES = 4
SILENT = "Your command ran successfully and did not produce any output."


class EditError(AgentdataError):
    """An edit that the editor refuses."""


def numbered(lines: list[str], first: int) -> str:
    """Lines as `cat -n` prints them, counted from `first`."""
    return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, first))


def view(path: str, lines: list[str], first: int = 1) -> str:
    """What `view` prints for the given lines of a file."""
    return f"Here's the result of running `cat -n` on {ROOT}/{path}:\n{numbered(lines, first)}\n"


def occurs_once(text: str, old: str) -> bool:
    """Whether `old` occurs exactly once, overlapping occurrences included."""
    place = text.find(old)
    return old != "" and place >= 0 and text.find(old, place + 1) < 0


def replace(text: str, old: str, new: str) -> str:
    """`str_replace`. Raises EditError unless `old` occurs exactly once."""
    if not occurs_once(text, old):
        raise EditError(f"the old text occurs {'more than once' if old and old in text else 'nowhere'}: {old[:80]!r}")
    return text.replace(old, new, 1)


def insert(text: str, line: int, new: str) -> str:
    """`insert`: the lines of `new` after line `line`; 0 is the top. Raises EditError for a line that does not exist."""
    lines = text.split("\n")
    if not 0 <= line <= len(lines):
        raise EditError(f"line {line} is outside of a file of {len(lines)} lines")
    return "\n".join([*lines[:line], *new.split("\n"), *lines[line:]])


def replaced(path: str, after: str, place: int, new: str) -> str:
    """What `str_replace` prints; `place` is the offset of the replacement in the text after it."""
    snippet, first = _around(after, place, new)
    return (
        f"The file {ROOT}/{path} has been edited. Here's the result of running `cat -n` on a snippet of {ROOT}/{path}:\n"
        f"{numbered(snippet, first)}\n"
        "Review the changes and make sure they are as expected. Edit the file again if necessary."
    )


def inserted(path: str, after: str, place: int, new: str) -> str:
    """What `insert` prints; `place` is the offset of the inserted text in the text after it."""
    snippet, first = _around(after, place, new)
    return (
        f"The file {ROOT}/{path} has been edited. Here's the result of running `cat -n` on a snippet of the edited file:\n"
        f"{numbered(snippet, first)}\n"
        "Review the changes and make sure they are as expected (correct indentation, no duplicate lines, etc). "
        "Edit the file again if necessary."
    )


def created(path: str) -> str:
    """What `create` prints."""
    return f"File created successfully at: {ROOT}/{path}"


def _around(text: str, place: int, new: str) -> tuple[list[str], int]:
    """The lines of `new` at `place` with some before and after them, and the number of the first."""
    start = place
    for _ in range(SNIPPET_LINES + 1):
        start = text.rfind("\n", 0, max(start, 0))
        if start < 0:
            break
    count = text.count("\n", start + 1, place) + new.count("\n") + 1 + SNIPPET_LINES
    return text[start + 1 :].split("\n", count)[:count], text.count("\n", 0, start + 1) + 1
