"""Predicates with a reason: why a change is not kept. The thresholds are the recipe's."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from agentdata.harvest.git import CommitHeader, RawEdit
from agentdata.harvest.languages import LANGUAGES, language_of
from agentdata.harvest.recipe import Filters

SUBMODULE, SYMLINK = "160000", "120000"
TEST_PATH = re.compile(
    r"(?:^|/)(?:tests?|testing|specs?|__tests__|testdata|e2e)/"
    r"|(?:^|/)(?:test_[^/]*|conftest|[^/]*[._-](?:test|tests|spec|specs))\.\w+$"
    r"|(?:^|/)[^/]*(?:Test|Tests|TestCase|IT|Spec)\.(?:java|kt|cs|scala|groovy|php)$"
)
GENERATED_BYTES = 4096
"""What a generator says of itself stands at the top of a file."""
LFS_POINTER = "version https://git-lfs.github.com/spec/"


def role_of(path: str, languages: Sequence[str]) -> Literal["source", "test", "other"]:
    """Whether a path is source or test code of the chosen languages, or something else."""
    language = language_of(path)
    if language is None or language.name not in languages:
        return "other"
    return "test" if TEST_PATH.search(path) else "source"


def suffixes_of(languages: Sequence[str]) -> tuple[str, ...]:
    """All suffixes of some languages."""
    return tuple(suffix for name in languages for suffix in LANGUAGES[name].suffixes)


@lru_cache
def _bots(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)", re.IGNORECASE)


@lru_cache(maxsize=100_000)
def is_bot(name: str, email: str, patterns: tuple[str, ...]) -> bool:
    """Whether an author is a program."""
    return bool(_bots(patterns).search(f"{name} <{email}>"))


def by_author(commits: Sequence[CommitHeader], filters: Filters) -> str:
    """`bot-author` when the first commit, whose author opened the change, is a bot's."""
    author = commits[0]
    return "bot-author" if is_bot(author.author_name, author.author_email, filters.bots) else ""


def by_paths(edits: Sequence[RawEdit], languages: Sequence[str], filters: Filters) -> tuple[str, str]:
    """Reason and detail from paths and modes alone; two empty strings for a change to keep."""
    if not edits:
        return "empty", "no file differs"
    if len(edits) > filters.most_files:
        return "too-many-files", f"{len(edits)} files"
    reason, detail = by_modes(edits)
    if reason:
        return reason, detail
    sources = [edit for edit in edits if role_of(edit.old_path.decode(), languages) != "other"]
    least, most = filters.source_files
    if len(sources) > most:
        return "too-many-source-files", f"{len(sources)} source files"
    if len(sources) < least:
        return "no-source-files", f"{len(sources)} source files"
    if filters.skip_vendored and all(_is_vendored(edit.new_path.decode()) for edit in sources):
        return "vendored", sources[0].new_path.decode()
    return "", ""


def by_modes(edits: Sequence[RawEdit]) -> tuple[str, str]:
    """Reason and detail for entries that are no files, and for paths that no file should have."""
    for edit in edits:
        for mode, name in ((SUBMODULE, "submodule"), (SYMLINK, "symlink")):
            if mode in (edit.old_mode, edit.new_mode):
                return name, repr(edit.new_path)
        if not (_is_safe(edit.old_path) and _is_safe(edit.new_path)):
            return "unsafe-path", repr(edit.new_path)
    return "", ""


def _is_safe(path: bytes) -> bool:
    """Whether a path is text, on one line, and cannot point out of its tree."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return False
    parts = text.split("/")
    return text.isprintable() and not any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)


@lru_cache(maxsize=10_000)
def _is_vendored(path: str) -> bool:
    import enry

    return bool(enry.is_vendor(path))


def is_generated(path: str, content: bytes) -> bool:
    """Whether Linguist's rules take a file for generated."""
    return _is_generated(path, content[:GENERATED_BYTES])


@lru_cache(maxsize=2_000)
def _is_generated(path: str, top: bytes) -> bool:
    import enry

    return bool(enry.is_generated(path, top))


def by_content(content: bytes) -> str:
    """Reason from the bytes of a file."""
    if content.startswith(LFS_POINTER.encode()):
        return "lfs-pointer"
    if b"\0" in content:
        return "binary"
    return ""
