"""One commit of a repository: its files looked up by path, and its objects as a pack, without a checkout."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from agentdata.errors import SourceError
from agentdata.harvest import git

SUBMODULE = "160000"
LINK = "120000"


class Snapshot:
    """The tree of a commit. Raises SourceError or ObjectError where the repository cannot be read."""

    def __init__(self, repository: git.Repository, commit: str) -> None:
        self.repository = repository
        self.commit = commit
        self.header = repository.commit(commit)
        self.entries = dict(_entries(git.run(repository.git_dir, "ls-tree", "-r", "-z", "--full-tree", commit)))

    @property
    def until(self) -> str:
        """When the commit was made, in UTC as ISO 8601."""
        return datetime.fromtimestamp(self.header.committed_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def files(self) -> list[str]:
        """Paths of regular files, in git's order."""
        return [path for path, (mode, _) in self.entries.items() if mode not in (SUBMODULE, LINK)]

    def matching(self, *patterns: str) -> list[str]:
        """Paths of files that match one of the shell patterns; `*` also matches a slash."""
        return [path for path in self.files if any(fnmatch(path, pattern) for pattern in patterns)]

    def text(self, path: str) -> str:
        """A file's text; empty when there is none."""
        mode, oid = self.entries.get(path, ("", ""))
        return git.decode(self.repository.read(oid))[0] if oid and mode != SUBMODULE else ""


def pack(snapshot: Snapshot) -> bytes:
    """A pack that holds the commit and the trees and files that belong to it, and no other object."""
    listed = "\n".join(sorted(object_ids(snapshot)))
    return git.run(snapshot.repository.git_dir, "pack-objects", "--stdout", "-q", stdin=f"{listed}\n".encode())


def object_ids(snapshot: Snapshot) -> set[str]:
    """Names of the commit, its trees and its files; submodules are only named in trees and not among them."""
    listing = git.run(snapshot.repository.git_dir, "ls-tree", "-r", "-t", "-z", "--full-tree", snapshot.commit)
    members = {oid for _, (mode, oid) in _entries(listing) if mode != SUBMODULE}
    return members | {snapshot.commit, snapshot.header.tree}


def _entries(listing: bytes) -> Iterator[tuple[str, tuple[str, str]]]:
    for line in listing.split(b"\0")[:-1]:
        facts, path = line.split(b"\t", 1)
        mode, _, oid = facts.decode().split()
        yield path.decode("utf-8", "surrogateescape"), (mode, oid)


def nearest_version(git_dir: Path, commit: str) -> str:
    """The version that a tag before the commit names, as `1.2.3`; `0.0.0` when there is none.

    Tools that ask git for the version of a project are told this one, since the tree has no tags.
    """
    described = b""
    for pattern in ("v[0-9]*", "[0-9]*", "*[0-9].[0-9]*", "*[0-9]_[0-9]*"):
        try:
            described = git.run(git_dir, "describe", "--tags", "--abbrev=0", f"--match={pattern}", commit)
            break
        except SourceError:
            continue
    found = re.search(
        r"\d+(\.\d+)*((a|b|rc|\.post|\.?dev)\d+)?", described.decode("utf-8", "replace").replace("_", ".")
    )
    return found[0] if found else "0.0.0"
