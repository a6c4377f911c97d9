"""A source file to the test files that are about it: what has to be run to see a mistake in it."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from agentdata.environments.plugins import find_own_tests
from agentdata.environments.snapshot import Snapshot

MOST = 12
"""Test files that are run for one source file."""
ROOTS = ("src", "lib")


def related_tests(snapshot: Snapshot, path: str) -> tuple[str, ...]:
    """Test files that are named after a module, and then those that import it; none when there are none of either."""
    files = find_own_tests(snapshot)
    module = module_of(path)
    parent, _, name = module.rpartition(".")
    named = [file for file in files if _stem(file).strip("_") == name.strip("_")]
    mention = rf"\b{re.escape(module)}\b"
    if parent:
        mention += rf"|from {re.escape(parent)} import [^\n]*\b{re.escape(name)}\b"
    return tuple(dict.fromkeys([*named, *_mentioning(snapshot, files, re.compile(mention))]))[:MOST]


def module_of(path: str) -> str:
    """The dotted name of a source file, of the package for its `__init__.py`."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    parts = parts[1:] if parts[0] in ROOTS else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _stem(file: str) -> str:
    return PurePosixPath(file).stem.removeprefix("test_").removesuffix("_test")


def _mentioning(snapshot: Snapshot, files: list[str], mention: re.Pattern[str]) -> Iterator[str]:
    return (file for file in files if mention.search(snapshot.text(file)))
