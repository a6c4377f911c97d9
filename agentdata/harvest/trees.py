"""Trees of a repository at any commit: look up, list and search, incrementally from one snapshot to the next.

Neighbouring snapshots share almost all of their subtrees and blobs, so parsed trees and the words of each blob are kept
in memory, both bounded.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from agentdata.errors import ObjectError
from agentdata.harvest.caches import Cache
from agentdata.harvest.git import Repository

DIRECTORY, SUBMODULE = "40000", "160000"
REGULAR = ("100644", "100755", "100664")
MODES = {mode.encode(): mode for mode in (*REGULAR, DIRECTORY, SUBMODULE, "120000")}
DEEPEST = 400
"""Directories below one another beyond which a tree is not searched."""
WORD_BYTES = bytes(
    byte if chr(byte).isascii() and (chr(byte).isalnum() or byte == 0x5F) else 0x20 for byte in range(256)
)
MOST_FILES = 20_000
"""Files that one search may span."""
MOST_ENTRIES = 200_000
"""Entries of trees and files of listings that are kept; one takes about 300 bytes."""
MOST_SUMS = 100_000
MOST_POSTINGS = 6_000_000
"""(word, file version) pairs that are kept beyond the files in use; one takes about ten bytes."""


class Entry(NamedTuple):
    """One name in a tree."""

    name: bytes
    mode: str
    oid: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A line found by a search."""

    path: bytes
    line: int
    text: bytes


Files = tuple[tuple[bytes, str], ...]
"""(path, blob) in git's path order."""
Below = tuple[str, tuple[str, ...]]
"""(tree, suffixes)."""


class Trees:
    """Snapshots of one repository."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._entries: Cache[str, dict[bytes, Entry]] = Cache(MOST_ENTRIES)
        self._names: Cache[str, tuple[tuple[bytes, str], ...]] = Cache(MOST_ENTRIES)
        self._files: Cache[Below, Files] = Cache(MOST_ENTRIES)
        self._weights: Cache[Below, tuple[int, int]] = Cache(MOST_SUMS)
        self._sizes: Cache[str, int] = Cache(MOST_SUMS)
        self._indexed: dict[str, int] = {}
        self._blobs: list[str] = []
        self._postings: defaultdict[bytes, list[int]] = defaultdict(list)
        """For each word the places in `_blobs` of the versions that contain it."""
        self._held = 0

    def entries(self, tree: str) -> dict[bytes, Entry]:
        """Entries of a tree object by name, in git's order."""
        known = self._entries.get(tree)
        if known is None:
            try:
                parsed = parse_tree(self.repository.read(tree), len(tree) // 2)
            except ValueError as error:
                raise ObjectError(
                    "corrupt-object", f"tree {tree} of {self.repository.git_dir} cannot be read: {error}"
                ) from error
            known = self._entries.put(tree, parsed, len(parsed))
        return known

    def lookup(self, tree: str, path: bytes) -> Entry | None:
        """The entry at a path below a tree."""
        *directories, name = path.split(b"/")
        for directory in directories:
            entry = self.entries(tree).get(directory)
            if entry is None or entry.mode != DIRECTORY:
                return None
            tree = entry.oid
        return self.entries(tree).get(name)

    def listing(self, tree: str, depth: int, prefix: bytes = b"./") -> list[bytes]:
        """Below the root, what `find . -maxdepth DEPTH -not -path '*/.*'` prints in a clean checkout, unsorted."""
        paths = []
        visible = self._visible(tree)
        if depth > 1:
            self.repository.prefetch(below for _, below in visible if below and below not in self._names)
        for name, below in visible:
            paths.append(prefix + name)
            if below and depth > 1:
                paths += self.listing(below, depth - 1, prefix + name + b"/")
        return paths

    def _visible(self, tree: str) -> tuple[tuple[bytes, str], ...]:
        """Names in a tree that do not begin with a dot, with the tree below each directory."""
        known = self._names.get(tree)
        if known is None:
            entries = self.entries(tree).values()
            names = [(one.name, one.oid if one.mode == DIRECTORY else "") for one in entries if one.name[:1] != b"."]
            known = self._names.put(tree, tuple(names), len(names))
        return known

    def files(self, tree: str, suffixes: tuple[str, ...], depth: int = 0) -> Files:
        """Regular files below a tree whose names end in one of the suffixes."""
        key = (tree, suffixes)
        known = self._files.get(key)
        if known is None:
            ends = tuple(suffix.encode() for suffix in suffixes)
            found: list[tuple[bytes, str]] = []
            for name, entry in self.entries(tree).items():
                if entry.mode == DIRECTORY:
                    found += [(name + b"/" + path, oid) for path, oid in self.files(entry.oid, suffixes, depth + 1)]
                elif entry.mode in REGULAR and name.endswith(ends):
                    found.append((name, entry.oid))
            known = self._files.put(key, tuple(found), len(found))
        return known

    def weigh(self, tree: str, suffixes: tuple[str, ...], depth: int = 0) -> tuple[int, int]:
        """Number of those files, and their bytes in all."""
        key = (tree, suffixes)
        known = self._weights.get(key)
        if depth > DEEPEST:
            raise ObjectError("too-deep", f"{self.repository.git_dir} has directories deeper than {DEEPEST}")
        if known is None:
            ends = tuple(suffix.encode() for suffix in suffixes)
            count, size, blobs = 0, 0, []
            for name, entry in self.entries(tree).items():
                if entry.mode == DIRECTORY:
                    more, weight = self.weigh(entry.oid, suffixes, depth + 1)
                    count, size = count + more, size + weight
                elif entry.mode in REGULAR and name.endswith(ends):
                    blobs.append(entry.oid)
            known = self._weights.put(key, (count + len(blobs), size + sum(self._blob_sizes(blobs))))
        return known

    def _blob_sizes(self, blobs: list[str]) -> list[int]:
        unknown = [oid for oid in blobs if oid not in self._sizes]
        for oid, size in zip(unknown, self.repository.sizes(unknown), strict=True):
            self._sizes.put(oid, size)
        return [self._sizes.get(oid) or 0 for oid in blobs]

    def scope(self, tree: str, suffixes: tuple[str, ...], around: bytes, most_bytes: int) -> tuple[bytes, Files]:
        """The largest directory around a path whose files of these suffixes hold at most `most_bytes`.

        Returns its path with a final slash (empty for the root) and its files with paths from the root. When even the
        directory of the file is too large, there are no files.
        """
        directory = b""
        for part in (*around.split(b"/")[:-1], None):
            count, size = self.weigh(tree, suffixes)
            if size <= most_bytes and count <= MOST_FILES:
                return directory, tuple((directory + path, oid) for path, oid in self.files(tree, suffixes))
            entry = self.entries(tree).get(part) if part else None
            if entry is None or entry.mode != DIRECTORY:
                break
            tree, directory = entry.oid, directory + entry.name + b"/"
        return b"", ()

    def containing(self, files: Files, word: bytes) -> Files:
        """The files that contain an identifier as a whole word."""
        self._index([oid for _, oid in files if oid not in self._indexed])
        blobs = {self._blobs[place] for place in self._postings.get(word, ())}
        return tuple([file for file in files if file[1] in blobs]) if blobs else ()

    def hits(self, files: Files, word: bytes, most: int) -> list[Hit]:
        """The first lines that contain a whole word, in the order of `git grep -n -w`."""
        found: list[Hit] = []
        for path, oid in files:
            content = self.repository.read(oid)
            line, counted, place = 1, 0, content.find(word)
            while place >= 0:
                end = place + len(word)
                if _is_word(content, place, end):
                    line += content.count(b"\n", counted, place)
                    start, end = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", end)
                    end = len(content) if end < 0 else end
                    found.append(Hit(path, line, content[start:end]))
                    if len(found) == most:
                        return found
                    counted = place
                place = content.find(word, end)
        return found

    def _index(self, blobs: list[str]) -> None:
        for oid, content in self.repository.contents(list(dict.fromkeys(blobs))):
            # git takes a file for binary by a NUL in its first 8000 bytes, and `git grep -I` passes it over.
            words = set() if b"\0" in content[:8000] else set(content.translate(WORD_BYTES).split())
            place = self._indexed[oid] = len(self._blobs)
            self._blobs.append(oid)
            self._held += len(words)
            for word in words:
                self._postings[word].append(place)

    def trim(self) -> None:
        """Forget the index when it has grown too large; what is needed is indexed again."""
        if self._held > MOST_POSTINGS:
            self._indexed, self._blobs, self._postings, self._held = {}, [], defaultdict(list), 0


def _is_word(content: bytes, start: int, end: int) -> bool:
    """Whether no letter, digit or underscore stands beside a place."""
    before, after = content[start - 1 : start] if start else b"", content[end : end + 1]
    return not ((before and WORD_BYTES[before[0]] != 0x20) or (after and WORD_BYTES[after[0]] != 0x20))


def parse_tree(content: bytes, hash_bytes: int) -> dict[bytes, Entry]:
    """Entries of a raw tree object; object names take `hash_bytes` bytes (20 for SHA-1, 32 for SHA-256).

    Raises ValueError for what git would not check out.
    """
    found = _entry(hash_bytes).findall(content)
    if sum(len(mode) + len(name) + 2 + hash_bytes for mode, name, _ in found) != len(content):
        raise ValueError("something in it is no entry of a tree")
    return {name: Entry._make((name, MODES[mode], oid.hex())) for mode, name, oid in found}


@cache
def _entry(hash_bytes: int) -> re.Pattern[bytes]:
    return re.compile(rb"(%b) ([^\0/]+)\0(.{%d})" % (b"|".join(MODES), hash_bytes), re.DOTALL)
