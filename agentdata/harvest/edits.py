"""Patches to edits that an agent's editor can make: unique old texts, insertions, and whole files as the last resort."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agentdata import editor
from agentdata.records import Event

HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
JOIN_LINES = 2
"""Changed runs with at most this many unchanged lines between them are one edit."""


class PatchError(Exception):
    """A patch does not describe the text that it is applied to."""


class UnfitError(Exception):
    """No edit of the usual kinds makes a change."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive changed lines: `removed` at line `start` (from 0) of the old text becomes `added`."""

    start: int
    removed: str
    added: str


@dataclass(frozen=True, slots=True)
class Place:
    """An edit and the lines (from 1, inclusive) of the text before it that one must have seen to make it."""

    event: Event
    first: int
    last: int
    after: str
    """The whole text after the edit."""
    grown: int
    """Lines by which the text became longer."""


@lru_cache(maxsize=128)
def parse_runs(patch: str) -> tuple[Run, ...]:
    """The changed runs of one file's unified diff."""
    runs: list[Run] = []
    removed: list[str] = []
    added: list[str] = []
    old = start = 0

    def close() -> None:
        if removed or added:
            runs.append(Run(start, "".join(removed), "".join(added)))
            removed.clear()
            added.clear()

    inside = False
    last: list[str] = []
    for line in patch.split("\n"):
        if line.startswith("@@ ") and (found := HUNK.match(line)):
            close()
            # A hunk without old lines names the line before it.
            old = int(found[1]) - (found[2] != "0")
            inside = True
        elif not inside:
            continue
        elif line.startswith("-"):
            if not (removed or added):
                start = old
            removed.append(line[1:] + "\n")
            last = removed
            old += 1
        elif line.startswith("+"):
            if not (removed or added):
                start = old
            added.append(line[1:] + "\n")
            last = added
        elif line.startswith(" "):
            close()
            last = []
            old += 1
        elif line.startswith("\\") and last:
            last[-1] = last[-1][:-1]
    close()
    return tuple(runs)


def apply_runs(text: str, runs: Sequence[Run]) -> str:
    """The text after a patch. Raises PatchError where it does not fit."""
    lines = Lines(text)
    parts, position = [], 0
    for run in runs:
        place = lines.offset(run.start)
        if place < position or not text.startswith(run.removed, place):
            raise PatchError(f"line {run.start + 1} is not what the patch removes")
        parts += [text[position:place], run.added]
        position = place + len(run.removed)
    return "".join([*parts, text[position:]])


class Lines:
    """Where the lines of a text begin; reads on from the line that was asked for last."""

    def __init__(self, text: str) -> None:
        self._text = self._rest = text
        self._line = 0
        self._known: dict[int, int] = {}

    def offset(self, line: int) -> int:
        """Offset of a line's first character, from 0; -1 for a line that does not exist."""
        if line not in self._known:
            self._known[line] = self._find(line) if line >= 0 else -1
        return self._known[line]

    def _find(self, line: int) -> int:
        if line < self._line:
            self._rest, self._line = self._text, 0
        pieces = self._rest.split("\n", line - self._line)
        if len(pieces) <= line - self._line:
            return -1
        self._rest, self._line = pieces[-1], line
        return len(self._text) - len(self._rest)


def join_runs(text: str, lines: Lines, runs: Sequence[Run]) -> list[Run]:
    """Join runs that are a few unchanged lines apart."""
    joined: list[Run] = []
    end = 0
    for run in runs:
        if joined and run.start - end <= JOIN_LINES:
            before = joined.pop()
            between = text[lines.offset(end) : lines.offset(run.start)]
            joined.append(Run(before.start, before.removed + between + run.removed, before.added + between + run.added))
        else:
            joined.append(run)
        end = run.start + run.removed.count("\n")
    return joined


def make_edits(path: str, text: str, runs: Sequence[Run], widen: int) -> Iterator[Place]:
    """Edits, top to bottom, that turn `text` into the text after the patch.

    Raises PatchError where the patch does not fit, and UnfitError where no unique old text is found within `widen` lines.
    """
    lines = Lines(text)
    if any(lines.offset(run.start) < 0 for run in runs):
        raise PatchError("the patch has more lines than the text")
    shift = grown = 0
    for run in join_runs(text, lines, runs):
        place = lines.offset(run.start) + shift
        if not text.startswith(run.removed, place):
            raise PatchError(f"line {run.start + 1} is not what the patch removes")
        edit = _edit(path, text, place, run.start + grown, run, widen)
        yield edit
        shift += len(run.added) - len(run.removed)
        grown += edit.grown
        text = edit.after


def _edit(path: str, text: str, place: int, line: int, run: Run, widen: int) -> Place:
    """The edit for one run at the offset `place`, before which there are `line` lines."""
    after = text[:place] + run.added + text[place + len(run.removed) :]
    grown = run.added.count("\n") - run.removed.count("\n")
    if not run.removed and run.added.endswith("\n"):
        new = run.added[:-1]
        printed = editor.inserted(path, after, place, line + 1, new)
        event = Event(kind="edit", edit="insert", path=path, new=new, line=line, text=printed)
        return Place(event, max(line, 1), line + 1, after, grown)
    start, end = place, place + len(run.removed)
    for width in range(widen + 1):
        # Text that is only taken away, or is only space, needs something to hold on to.
        if width or (run.removed.strip() and run.added):
            old, new = text[start:end], text[start:place] + run.added + text[place + len(run.removed) : end]
            ends = old.endswith("\n") and new.endswith("\n") and len(old) > 1
            for shorter in (1, 0) if ends else (0,):
                held = old[: len(old) - shorter]
                if held and text.find(held) == start and text.find(held, start + 1) < 0:
                    new = new[: len(new) - shorter]
                    printed = editor.replaced(path, after, start, line + 1, new)
                    event = Event(kind="edit", edit="str_replace", path=path, old=held, new=new, text=printed)
                    return Place(event, line + 1, line + 1 + held.rstrip("\n").count("\n"), after, grown)
        if start > 0:
            start, line = text.rfind("\n", 0, start - 1) + 1, line - 1
        if end < len(text):
            end = text.find("\n", end) + 1 or len(text)
    raise UnfitError(f"no unique old text within {widen} lines of line {run.start + 1}")
