"""A landed change taken back on today's tree: its patch reversed where every hunk is still found word for word."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentdata.environments.diffs import Text, split_lines
from agentdata.environments.mutations import Edit, Mutation, assemble, edit_of, enclosing_symbol
from agentdata.records import Change, FileEdit, Rejected

STAGE = "reversal"
ABSENT, AMBIGUOUS = -1, -2
HUNK = re.compile(rb"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


class ReversalError(Exception):
    """Why a change cannot be taken back."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(slots=True)
class Hunk:
    """Lines before and after, with the line (from 0) where the lines after began."""

    start: int
    old: list[bytes] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)


def reverse(change: Change, sources: Mapping[str, bytes]) -> Mutation | Rejected:
    """The mutation that takes the source part of a change back. `sources` holds today's files by path.

    Tests and files that are no source stay as they are today. Rejected: `no-source`, `not-only-modified` (source files
    were added, deleted, renamed or re-moded), `file-gone`, `not-utf-8`, `context-differs`, `ambiguous` (a hunk fits
    equally well in two places), `does-not-compile` (also when hunks have come to overlap).
    """
    edits = [edit for edit in change.edits if edit.role == "source"]
    try:
        placed = [one for edit in sorted(edits, key=lambda edit: edit.path) for one in _reversed_file(edit, sources)]
    except ReversalError as error:
        return _rejected(change, error.reason, str(error))
    if not placed:
        return _rejected(change, "no-source", "the change touches no source file")
    mutation = assemble(("reversal",), placed, sources)
    return mutation or _rejected(change, "does-not-compile", ", ".join(edit.path for edit in edits))


def _rejected(change: Change, reason: str, detail: str) -> Rejected:
    return Rejected(id=change.id, repo=change.repo, stage=STAGE, reason=reason, detail=detail)


def _reversed_file(edit: FileEdit, sources: Mapping[str, bytes]) -> Iterator[Edit]:
    if edit.status != "modified":
        raise ReversalError("not-only-modified", f"{edit.path} is {edit.status}")
    source = sources.get(edit.path)
    if source is None:
        raise ReversalError("file-gone", edit.path)
    try:
        source.decode()
        edit.patch.encode(edit.encoding).decode()
    except UnicodeError as error:
        raise ReversalError("not-utf-8", edit.path) from error
    text, shift, after = Text(source), 0, 0
    for hunk in read_hunks(edit.patch.encode(edit.encoding)):
        place = _find(hunk.new, text.lines, hunk.start + shift, after)
        if place < 0:
            raise ReversalError("context-differs" if place == ABSENT else "ambiguous", f"{edit.path}:{hunk.start + 1}")
        shift, after = place - hunk.start, place + len(hunk.new)
        replacement = _tight(text, (text.starts[place], text.starts[after], b"".join(hunk.old)))
        yield edit_of(edit.path, enclosing_symbol(source, *replacement[:2]), text, replacement)


def read_hunks(patch: bytes) -> Iterator[Hunk]:
    """The hunks of a patch of one file."""
    hunk: Hunk | None = None
    sides: tuple[list[bytes], ...] = ()
    for line in split_lines(patch):
        if (header := HUNK.match(line)) is not None:
            if hunk is not None:
                yield hunk
            hunk = Hunk(max(int(header[2]) - 1, 0))
            continue
        if hunk is None:
            continue
        if line[:1] == b"\\":
            for side in sides:
                side[-1] = side[-1].removesuffix(b"\n")
            continue
        sides = {b"-": (hunk.old,), b"+": (hunk.new,)}.get(line[:1], (hunk.old, hunk.new))
        for side in sides:
            side.append(line[1:])
    if hunk is not None:
        yield hunk


def _find(wanted: Sequence[bytes], lines: Sequence[bytes], expected: int, after: int) -> int:
    """The nearest place of consecutive lines, not before `after`."""
    places = [
        place for place in range(after, len(lines) - len(wanted) + 1) if lines[place : place + len(wanted)] == wanted
    ]
    if not places or not wanted:
        return ABSENT
    nearest = sorted(places, key=lambda place: abs(place - expected))[:2]
    if len(nearest) == 2 and abs(nearest[0] - expected) == abs(nearest[1] - expected):
        return AMBIGUOUS
    return nearest[0]


def _tight(text: Text, replacement: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """Without the whole lines at both ends that stay the same."""
    start, end, new = replacement
    old_lines, new_lines = split_lines(text.source[start:end]), split_lines(new)
    while old_lines and new_lines and old_lines[0] == new_lines[0]:
        start += len(old_lines[0])
        del old_lines[0], new_lines[0]
    while old_lines and new_lines and old_lines[-1] == new_lines[-1]:
        end -= len(old_lines[-1])
        del old_lines[-1], new_lines[-1]
    return start, end, b"".join(new_lines)
