"""What an agent would do before it edits: list, search, open, recognise, read. Every observation is computed from the tree."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentdata.errors import ObjectError
from agentdata.harvest import filters, languages
from agentdata.harvest.caches import Cache
from agentdata.harvest.edits import Run, parse_runs
from agentdata.harvest.git import decode
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.harvest.replay import File
from agentdata.harvest.trees import Files as Blobs
from agentdata.harvest.trees import Trees
from agentdata.records import Change, Event, SnapshotFile

if TYPE_CHECKING:
    from tree_sitter import Tree

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,60}")
TELLING = re.compile(r"_|[a-z][A-Z]|\d")
"""Marks that tell an identifier from an English word."""
UNTELLING = re.compile(r"__\w+__|main|test|self|this|true|false|null|none", re.IGNORECASE)
"""Names that are everywhere."""
QUOTED = re.compile(r"`([^`\n]{4,80})`")
QUOTE_BYTES = {
    0x07: "\\a",
    0x08: "\\b",
    0x09: "\\t",
    0x0A: "\\n",
    0x0B: "\\v",
    0x0C: "\\f",
    0x0D: "\\r",
    0x22: '\\"',
    0x5C: "\\\\",
}
FEW_FILES = 3
"""A term in no more files than this is worth a search however few files there are."""
IMPORT = re.compile(rb"\s*(?:from|import|use|using|#include|require)\b")
"""A line that brings a name in, which says little about how it is used."""
JOIN_READS = 10
"""Ranges with at most this many lines between them are read as one."""
MOST_LINE = 1000
"""A hit on a longer line is no help to a reader; such searches are left out."""
MOST_PARSED = 2_000_000
"""Bytes of text whose parses are kept; a parse takes about twenty times its text."""
MOST_FLAGS = 50_000

Files = dict[str, File]
"""The touched files at the snapshot, by path."""
Range = tuple[int, int]
"""Lines from 1, inclusive."""


class Explorer:
    """Makes the events before the edits, for changes of one repository."""

    def __init__(self, trees: Trees, recipe: HarvestRecipe) -> None:
        self.trees = trees
        self.recipe = recipe
        self.options = recipe.exploration
        self._parsed: Cache[str, Tree] = Cache(MOST_PARSED)
        self._errors: Cache[str, bool] = Cache(MOST_FLAGS)

    def unparsed(self, change: Change, files: Files) -> tuple[str, ...]:
        """Source files of the change that their grammar does not accept."""
        return tuple(file.path for file in self._sources(change) if self._has_error(file, files[file.path]))

    def events(self, change: Change, files: Files) -> list[Event]:
        """Listing, searches and reads, in the order that a reader would take."""
        tree = self.trees.repository.commit(change.snapshot).tree
        events = self._list(tree)
        runs = {edit.old_path or edit.path: parse_runs(edit.patch) for edit in change.edits if edit.old_blob}
        if self.options.policy == "explore":
            events += self._search(change, files, tree, runs)
        for file in self._sources(change):
            events += self._read(file, files[file.path], runs.get(file.path, ()))
        return events

    def _sources(self, change: Change) -> list[SnapshotFile]:
        """The touched source files: implementation before tests, what changes most first."""
        sizes = {edit.old_path or edit.path: len(edit.patch) for edit in change.edits}
        roles = {file.path: filters.role_of(file.path, self.recipe.languages) for file in change.files}
        chosen = [file for file in change.files if roles[file.path] != "other"]
        return sorted(chosen, key=lambda file: (roles[file.path] == "test", -sizes.get(file.path, 0), file.path))

    # Listing

    def _list(self, tree: str) -> list[Event]:
        for depth in (2, 1):
            paths = [b".", *self.trees.listing(tree, depth)]
            if len(paths) <= self.options.most_listed:
                command = f"find . -maxdepth {depth} -not -path '*/.*' | LC_ALL=C sort"
                lines = b"\n".join(paths).split(b"\n")  # A name with a line end in it is two lines to `sort`.
                return [Event(kind="list", command=command, text=shown(b"\n".join(sorted(lines)) + b"\n"))]
        return []

    # Reading

    def _read(self, source: SnapshotFile, file: File, runs: Sequence[Run]) -> list[Event]:
        if file.text.count("\n") < self.options.whole_file_lines:
            return [read_event(source.path, file, [])]
        lines = file.text.split("\n")
        ranges = merge([self._around(source, file, spot, len(lines)) for spot in spots(runs) or [(1, 1)]])
        return [read_event(source.path, file, lines, one) for one in ranges]

    def _around(self, source: SnapshotFile, file: File, spot: Range, count: int) -> Range:
        """The lines to read to understand an edited place: its definition, or some lines around it."""
        first, last = max(1, spot[0] - self.options.margin_lines), min(count, spot[1] + self.options.margin_lines)
        for symbol in self._enclosing(source, file, spot)[:1]:
            if symbol.end - symbol.start < self.options.most_symbol_lines:
                first, last = min(first, symbol.start), max(last, symbol.end)
        return first, min(last, count)

    def _enclosing(self, source: SnapshotFile, file: File, spot: Range) -> list[languages.Symbol]:
        language = languages.language_of(source.path)
        return languages.enclosing(self._tree(source, file), language, *spot) if language else []

    def _tree(self, source: SnapshotFile, file: File) -> Tree:
        tree = self._parsed.get(source.blob)
        if tree is None:
            language = languages.language_of(source.path)
            assert language is not None
            content = file.content
            tree = self._parsed.put(source.blob, languages.parse(language, content), len(content))
        return tree

    def _has_error(self, source: SnapshotFile, file: File) -> bool:
        known = self._errors.get(source.blob)
        if known is None:
            known = self._errors.put(source.blob, self._tree(source, file).root_node.has_error)
        return known

    # Searching

    def _search(self, change: Change, files: Files, tree: str, runs: dict[str, tuple[Run, ...]]) -> list[Event]:
        sources = self._sources(change)
        if not sources:
            return []
        suffixes = filters.suffixes_of(self.recipe.languages)
        try:
            directory, blobs = self.trees.scope(tree, suffixes, sources[0].path.encode(), self.options.search_bytes)
        except ObjectError:
            return []
        events: list[Event] = []
        touched = {file.path for file in change.files}
        done = 0
        for term in self._terms(change, files, sources, runs):
            if done == self.options.searches:
                break
            try:
                containing = self.trees.containing(blobs, term.encode())
                if len(containing) > min(self.options.most_hit_files, max(len(blobs) // 2, FEW_FILES)):
                    continue
                found = self._found(change, term, containing, directory, suffixes, touched, done)
            except ObjectError:
                continue  # A blob of an untouched file is not in this clone: what cannot be searched is not searched.
            events += found
            done += bool(found)
        self.trees.trim()
        return events

    def _terms(
        self, change: Change, files: Files, sources: Sequence[SnapshotFile], runs: dict[str, tuple[Run, ...]]
    ) -> list[str]:
        """Identifiers to search for: those that people wrote, then the changed definitions."""
        words = " \n".join([*(f"{issue.title} {issue.body}" for issue in change.issues), change.title, change.body])
        quoted = [name for part in QUOTED.findall(words) for name in IDENTIFIER.findall(part)]
        written = [name for name in IDENTIFIER.findall(words) if TELLING.search(name)]
        changed = []
        for source in sources:
            for spot in spots(runs.get(source.path, ())):
                enclosing = self._enclosing(source, files[source.path], spot)
                changed += [symbol.name for symbol in enclosing if IDENTIFIER.fullmatch(symbol.name)]
        return [term for term in dict.fromkeys([*quoted, *written, *changed]) if not UNTELLING.fullmatch(term)]

    def _found(
        self,
        change: Change,
        term: str,
        containing: Blobs,
        directory: bytes,
        suffixes: tuple[str, ...],
        touched: set[str],
        turn: int,
    ) -> list[Event]:
        """A search that finds something the change touches, and a plausible wrong file opened after it."""
        most = self.options.most_hits
        hits = self.trees.hits(containing, term.encode(), most)
        paths = {decode(hit.path)[0] for hit in hits}
        if not touched & paths or any(len(hit.text) > MOST_LINE for hit in hits):
            return []
        lines = [quote_path(hit.path).encode() + b":%d:" % hit.line + hit.text + b"\n" for hit in hits]
        patterns = " ".join(shlex.quote(f"{pathspec(directory)}*{suffix}") for suffix in suffixes)
        command = f"git grep -n -I -w {shlex.quote(term)} -- {patterns} | head -n {most}"
        events = [Event(kind="search", command=command, text=shown(b"".join(lines)))]
        wrong = [path for path in sorted(paths - touched) if filters.role_of(path, self.recipe.languages) == "source"]
        if not wrong or turn >= self.options.wrong_files:
            return events
        path = wrong[_draw(f"{self.options.seed} {change.id} {term}") % len(wrong)]
        there = [hit for hit in hits if decode(hit.path)[0] == path]
        hit = next((hit for hit in there if not IMPORT.match(hit.text)), there[0])
        entry = next(oid for name, oid in containing if name == hit.path)
        file = File.read("", self.trees.repository.read(entry))
        lines_there = file.text.split("\n")
        one = (
            max(1, hit.line - self.options.margin_lines),
            min(len(lines_there), hit.line + self.options.margin_lines),
        )
        whole = len(lines_there) <= 2 * self.options.margin_lines
        events.append(read_event(path, file, lines_there, None if whole else one))
        events.append(Event(kind="think", text=f"`{path}` mentions `{term}`, but it needs no change here."))
        return events


def spots(runs: Sequence[Run]) -> list[Range]:
    """The lines of the old text that runs change, or stand beside."""
    return [(run.start + 1, max(run.start + run.removed.count("\n"), run.start + 1)) for run in runs]


def read_event(path: str, file: File, lines: list[str], one: Range | None = None) -> Event:
    """A read of a whole file, or of some of its lines."""
    if one is None or one == (1, len(lines)):
        return Event(kind="read", path=path, text=file.text, encoding=file.encoding)
    text = "\n".join(lines[one[0] - 1 : one[1]])
    return Event(kind="read", path=path, start=one[0], end=one[1], text=text, encoding=file.encoding)


def merge(ranges: Sequence[Range]) -> list[Range]:
    """Overlapping and neighbouring ranges as one, in order."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first - merged[-1][1] <= JOIN_READS:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def shown(output: bytes) -> str:
    """Output of a command as an agent's tool shows it: bytes that are not UTF-8 become the replacement character."""
    return output.decode("utf-8", "replace")


def pathspec(directory: bytes) -> str:
    """A directory as the beginning of a pathspec that means it and nothing else."""
    text = re.sub(r"([*?\[\\])", r"\\\1", decode(directory)[0])
    return f"./{text}" if text.startswith(":") else text


def quote_path(path: bytes) -> str:
    """A path as git prints it with `core.quotePath` on."""
    if all(0x20 <= byte < 0x7F and byte not in QUOTE_BYTES for byte in path):
        return path.decode()
    quoted = "".join(QUOTE_BYTES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in path)
    return f'"{quoted}"'


def _draw(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
