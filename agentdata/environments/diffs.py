"""Replacements of bytes to unified diffs that `git apply` takes, forward and back, without comparing whole files."""

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

CONTEXT = 3
PLAIN = re.compile(r'[^\x00-\x1f"\\\x7f]+')
"""A path that stands in a diff as it is."""
NO_END = b"\n\\ No newline at end of file\n"

Replacement = tuple[int, int, bytes]
"""Start and end of the bytes that go, and what comes in their place."""


class Text:
    """A file's bytes with its lines, which end at line feeds alone, as git sees them."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.lines = split_lines(source)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def line_at(self, offset: int) -> int:
        """Index of the line that holds an offset; the last line for the end of the file."""
        return max(min(bisect.bisect_right(self.starts, offset) - 1, len(self.lines) - 1), 0)

    def line_start(self, offset: int) -> int:
        """Offset at which the line of an offset begins."""
        return self.starts[self.line_at(offset)]

    def line_end(self, offset: int) -> int:
        """Offset after the line end of the line of an offset."""
        return self.starts[min(self.line_at(offset) + 1, len(self.lines))]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines that are replaced: `first` to `last` (half open, from 0) by `lines`."""

    first: int
    last: int
    lines: list[bytes]


def apply(source: bytes, replacements: Sequence[Replacement]) -> bytes:
    """The text after replacements that are in order and do not overlap."""
    parts, done = [], 0
    for start, end, new in replacements:
        parts += [source[done:start], new]
        done = end
    return b"".join([*parts, source[done:]])


def are_apart(replacements: Sequence[Replacement]) -> bool:
    """Whether ordered replacements neither overlap nor meet."""
    return all(before[1] < after[0] for before, after in itertools.pairwise(replacements))


def unified(path: str, text: Text, replacements: Sequence[Replacement]) -> tuple[str, str]:
    """Diff of a file and its reverse, three lines of context. The file is UTF-8.

    Both are empty when the replacements change nothing.
    """
    blocks = list(_trimmed(text, _blocks(text, replacements)))
    if not blocks:
        return "", ""
    header = _header(path)
    forward, backward, shift = [header], [header], 0
    for group in _groups(blocks):
        body, back = _hunk(text, group, shift)
        forward.append(body)
        backward.append(back)
        shift += sum(len(block.lines) - (block.last - block.first) for block in group)
    return "".join(forward), "".join(backward)


def split_lines(source: bytes) -> list[bytes]:
    """Lines with their ends, split at line feeds alone."""
    parts = [part + b"\n" for part in source.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]


def _header(path: str) -> str:
    old, new = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    tab = "\t" if " " in path else ""
    return f"diff --git {old} {new}\n--- {old}{tab}\n+++ {new}{tab}\n"


def _quoted(path: str) -> str:
    if PLAIN.fullmatch(path):
        return path
    escaped = "".join(
        f"\\{character}" if character in '"\\' else character if character >= " " else f"\\{ord(character):03o}"
        for character in path
    )
    return f'"{escaped}"'


def _blocks(text: Text, replacements: Iterable[Replacement]) -> Iterator[Block]:
    """Whole lines around the replacements; those that share a line are joined."""
    pending: list[Replacement] = []
    for replacement in replacements:
        if pending and text.line_at(replacement[0]) > text.line_at(pending[-1][1]):
            yield _block(text, pending)
            pending = []
        pending.append(replacement)
    if pending:
        yield _block(text, pending)


def _block(text: Text, replacements: Sequence[Replacement]) -> Block:
    if not text.lines:
        return Block(0, 0, split_lines(apply(b"", replacements)))
    first, last = text.line_at(replacements[0][0]), text.line_at(replacements[-1][1]) + 1
    start = text.starts[first]
    moved = [(begin - start, end - start, new) for begin, end, new in replacements]
    return Block(first, last, split_lines(apply(text.source[start : text.starts[last]], moved)))


def _trimmed(text: Text, blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        old, new = text.lines[block.first : block.last], block.lines
        same = next((index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), -1)
        head = min(len(old), len(new)) if same < 0 else same
        old, new = old[head:], new[head:]
        tail = 0
        while tail < min(len(old), len(new)) and old[-1 - tail] == new[-1 - tail]:
            tail += 1
        if len(old) > tail or len(new) > tail:
            yield Block(block.first + head, block.last - tail, new[: len(new) - tail])


def _groups(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks that are near enough to share a hunk."""
    group = [blocks[0]]
    for block in blocks[1:]:
        if block.first - group[-1].last > 2 * CONTEXT:
            yield group
            group = []
        group.append(block)
    yield group


def _hunk(text: Text, group: Sequence[Block], shift: int) -> tuple[str, str]:
    start, end = max(group[0].first - CONTEXT, 0), min(group[-1].last + CONTEXT, len(text.lines))
    forward: list[bytes] = []
    backward: list[bytes] = []
    at = start
    for block in group:
        context = [b" " + line for line in text.lines[at : block.first]]
        old, new = text.lines[block.first : block.last], block.lines
        forward += [*context, *(b"-" + line for line in old), *(b"+" + line for line in new)]
        backward += [*context, *(b"-" + line for line in new), *(b"+" + line for line in old)]
        at = block.last
    context = [b" " + line for line in text.lines[at:end]]
    old_count = end - start
    new_count = old_count + sum(len(block.lines) - (block.last - block.first) for block in group)
    old_range, new_range = _range(start, old_count), _range(start + shift, new_count)
    return (
        f"@@ -{old_range} +{new_range} @@\n{_joined(forward + context)}",
        f"@@ -{new_range} +{old_range} @@\n{_joined(backward + context)}",
    )


def _range(start: int, count: int) -> str:
    return f"{start + 1 if count else start},{count}"


def _joined(lines: Iterable[bytes]) -> str:
    return b"".join(line if line.endswith(b"\n") else line + NO_END for line in lines).decode()
