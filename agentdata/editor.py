"""The agent's file editor as pure functions: what each command does to a text, and what it prints.

Command names, arguments and printed forms are those of SWE-agent's `str_replace_editor`, so that contextual samples and
real rollouts share one distribution. Two differences keep edits byte-exact: tabs are not expanded, and an old text must
occur exactly once with overlapping occurrences counted too.
"""

from operator import add

from agentdata.errors import AgentdataError

ROOT = "/testbed"
SNIPPET_LINES = 4
_MARGINS: list[str] = []
"""What stands before each line, by its number."""
SILENT = "Your command ran successfully and did not produce any output."


class EditError(AgentdataError):
    """An edit that the editor refuses."""


def named(path: str) -> str:
    """A path as the editor prints it: relative ones are the repository's."""
    return path if path.startswith("/") else f"{ROOT}/{path}"


def numbered(lines: list[str], first: int) -> str:
    """Lines as `cat -n` prints them, counted from `first`."""
    past = first + len(lines)
    while len(_MARGINS) < past:
        _MARGINS.append(f"{len(_MARGINS):6}\t")
    return "\n".join(map(add, _MARGINS[first:past], lines))


def view(path: str, lines: list[str], first: int = 1) -> str:
    """What `view` prints for the given lines of a file."""
    return f"Here's the result of running `cat -n` on {named(path)}:\n{numbered(lines, first)}\n"


def replace(text: str, old: str, new: str) -> str:
    """`str_replace`. Raises EditError unless `old` occurs exactly once."""
    place = text.find(old) if old else -1
    if place < 0 or text.find(old, place + 1) >= 0:
        raise EditError(f"the old text occurs {'nowhere' if place < 0 else 'more than once'}: {old[:80]!r}")
    return text[:place] + new + text[place + len(old) :]


def insert(text: str, line: int, new: str) -> str:
    """`insert`: the lines of `new` after line `line`; 0 is the top. Raises EditError for a line that does not exist."""
    *before, rest = text.split("\n", max(line, 0))
    if len(before) != line:
        if len(before) + 1 == line:
            return f"{text}\n{new}"  # After a last line that does not end.
        raise EditError(f"line {line} is outside of a file of {len(before) + 1} lines")
    return f"{text[: len(text) - len(rest)]}{new}\n{rest}"


def replaced(path: str, after: str, place: int, line: int, new: str) -> str:
    """What `str_replace` prints; `new` stands at the offset `place`, on line `line` (from 1) of the text after it."""
    snippet, first = _around(after, place, line, new)
    return (
        f"The file {named(path)} has been edited. "
        f"Here's the result of running `cat -n` on a snippet of {named(path)}:\n"
        f"{numbered(snippet, first)}\n"
        "Review the changes and make sure they are as expected. Edit the file again if necessary."
    )


def inserted(path: str, after: str, place: int, line: int, new: str) -> str:
    """What `insert` prints; `new` stands at the offset `place`, on line `line` (from 1) of the text after it."""
    snippet, first = _around(after, place, line, new)
    return (
        f"The file {named(path)} has been edited. "
        "Here's the result of running `cat -n` on a snippet of the edited file:\n"
        f"{numbered(snippet, first)}\n"
        "Review the changes and make sure they are as expected (correct indentation, no duplicate lines, etc). "
        "Edit the file again if necessary."
    )


def created(path: str) -> str:
    """What `create` prints."""
    return f"File created successfully at: {named(path)}"


def _around(text: str, place: int, line: int, new: str) -> tuple[list[str], int]:
    """The lines of `new` at `place` with some before and after them, and the number of the first."""
    start = text.rfind("\n", 0, place) + 1
    before = min(SNIPPET_LINES, line - 1)
    for _ in range(before):
        start = text.rfind("\n", 0, start - 1) + 1
    count = before + new.count("\n") + 1 + SNIPPET_LINES
    return text[start:].split("\n", count)[:count], line - before
