"""A unified diff to the diff that undoes it."""

import re
from collections.abc import Iterator

from agentdata.environments.patches import FilePatch, split
from agentdata.environments.row_fields import RowError

HUNK = re.compile(r"@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@(.*)", re.DOTALL)
INDEX = re.compile(r"index ([0-9a-f]+)\.\.([0-9a-f]+)(.*)", re.DOTALL)
GIT = re.compile(r"diff --git (\"?)a/(.*?)\1 (\"?)b/(.*?)\3\n?", re.DOTALL)
PAIRS = (
    ("old mode ", "new mode "),
    ("new file mode ", "deleted file mode "),
    ("rename from ", "rename to "),
)


def reverse_diff(diff: str) -> str:
    """The diff that takes a tree back from after to before. Raises RowError for copies and binary content."""
    files = split(diff)
    if not files:
        raise RowError("no-diff", "the patch holds no file")
    return "".join(_reverse_file(file) for file in files)


def _reverse_file(file: FilePatch) -> str:
    if file.change == "copied":
        raise RowError("copy-in-patch", f"{file.path} is a copy, which only its text can undo")
    if file.binary:
        raise RowError("binary-patch", f"{file.path} is not text")
    lines = re.findall(r"[^\n]*\n|[^\n]+", file.text)
    first = next((index for index, line in enumerate(lines) if line.startswith("@@ ")), len(lines))
    return "".join([*_reverse_header(lines[:first]), *_reverse_hunks(lines[first:])])


def _reverse_header(lines: list[str]) -> list[str]:
    out: list[str] = []
    for line in lines:
        if match := GIT.fullmatch(line):
            first, old, second, new = match.groups()
            line = f"diff --git {second}a/{new}{second} {first}b/{old}{first}\n"
        elif match := INDEX.fullmatch(line):
            line = f"index {match[2]}..{match[1]}{match[3]}"
        elif line.startswith(("--- ", "+++ ")):
            line = _side(line)
        else:
            line = _swapped(line)
        out.append(line)
    return _ordered(out)


def _swapped(line: str) -> str:
    for one, other in PAIRS:
        if line.startswith(one):
            return other + line.removeprefix(one)
        if line.startswith(other):
            return one + line.removeprefix(other)
    return line


def _side(line: str) -> str:
    """`--- a/x` becomes `+++ b/x` and the other way round."""
    mark, name = ("+++ ", line[4:]) if line.startswith("--- ") else ("--- ", line[4:])
    prefix = ("a/", "b/") if mark == "+++ " else ("b/", "a/")
    quote = '"' if name.startswith('"') else ""
    if name.startswith(quote + prefix[0]):
        name = quote + prefix[1] + name.removeprefix(quote + prefix[0])
    return mark + name


def _ordered(lines: list[str]) -> list[str]:
    """Put what git writes first back to the front: old before new, from before to, `---` before `+++`."""
    for first, second in (("old mode ", "new mode "), ("rename from ", "rename to "), ("--- ", "+++ ")):
        places = [index for index, line in enumerate(lines) if line.startswith((first, second))]
        if len(places) == 2 and lines[places[0]].startswith(second):
            lines[places[0]], lines[places[1]] = lines[places[1]], lines[places[0]]
    return lines


def _reverse_hunks(lines: list[str]) -> Iterator[str]:
    removed: list[str] = []
    added: list[str] = []
    last: list[str] | None = None
    for line in lines:
        if line.startswith("-"):
            added.append("+" + line[1:])
            last = added
        elif line.startswith("+"):
            removed.append("-" + line[1:])
            last = removed
        elif line.startswith("\\") and last is not None:
            last.append(line)
        else:
            yield from (*removed, *added)
            removed, added, last = [], [], None
            yield _reverse_start(line)
    yield from (*removed, *added)


def _reverse_start(line: str) -> str:
    match = HUNK.fullmatch(line)
    if match is None:
        return line
    old, old_count, new, new_count, rest = match.groups()
    return f"@@ -{new}{new_count or ''} +{old}{old_count or ''} @@{rest}"
