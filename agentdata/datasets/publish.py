"""A dataset to a repository on the Hub: only what is new travels, and readers see the old or the new whole.

Contents are uploaded first, without being seen, and can be cut off at any place: the next attempt sends what is
missing. One commit then puts them in their places, with the card and the manifest. The manifest at the Hub says which
files were written by a publication; nothing else is overwritten or deleted there.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentdata.datasets.hub_errors import explained
from agentdata.errors import RunError, UsageError
from agentdata.progress import Progress
from agentdata.records import Manifest
from agentdata.shards import read_manifest

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

CARD = "README.md"
MANIFEST = "manifest.json"
FILES_AT_ONCE = 5
"""Files whose contents are uploaded between two lines of progress."""
FILES_OF_COMMIT = 250
"""New files that one commit takes; where there are more, the card and the manifest come with the last ones."""


@dataclass(frozen=True)
class LocalFile:
    """A file of the dataset."""

    path: str
    """Relative to the dataset, with slashes."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RemoteFile:
    """A file at the Hub."""

    bytes: int
    digest: str
    """SHA-256 of a large file, git's object name of a small one."""

    def holds(self, file: LocalFile, folder: Path) -> bool:
        """Whether it is the same as a local file."""
        if self.bytes != file.bytes:
            return False
        return self.digest == (file.sha256 if len(self.digest) == 64 else _blob_name(folder / file.path))


@dataclass(frozen=True)
class Changes:
    """What makes the repository hold the dataset."""

    upload: tuple[LocalFile, ...] = ()
    copy: tuple[tuple[str, str], ...] = ()
    """Path at the Hub and path to be, for a shard that is there under another name."""
    delete: tuple[str, ...] = ()
    """Files of an earlier publication that the dataset has no more."""

    def __bool__(self) -> bool:
        return bool(self.upload or self.copy or self.delete)

    @property
    def bytes(self) -> int:
        """What is uploaded."""
        return sum(file.bytes for file in self.upload)


@dataclass(frozen=True)
class Published:
    """How a publication ended."""

    url: str
    commit: str
    """Commit at which the dataset is whole; empty for a dry run."""
    changes: Changes


def publish(
    folder: Path, repo: str, *, private: bool = False, revision: str = "main", dry_run: bool = False
) -> Published:
    """Make the Hub's dataset `repo` (`owner/name`) hold a finished dataset. The same call goes on after any failure.

    private: whether a repository that is made is private; one that exists stays as it is. dry_run: only say what would
    be done. Raises UsageError and RunError, with what to do about it.
    """
    files = local_files(folder)
    from huggingface_hub import HfApi

    api = HfApi(library_name="agentdata")
    with explained(repo), _own_progress():
        if not dry_run:
            api.whoami()
            api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            if revision != "main":
                api.create_branch(repo, repo_type="dataset", branch=revision, exist_ok=True)
        head, remote = _remote(api, repo, revision, absent=dry_run)
        changes = _changes(folder, files, remote, _written(api, repo, head, remote), repo)
        if dry_run:
            return Published(f"{api.endpoint}/datasets/{repo}", "", changes)
        if changes:
            head = _send(api, repo, revision, head, folder, changes)
        _verify(api, repo, head, folder, files)
    return Published(f"{api.endpoint}/datasets/{repo}", head, changes)


def local_files(folder: Path) -> list[LocalFile]:
    """The shards, the card and the manifest of a finished dataset. Raises UsageError for one that is not whole."""
    manifest = read_manifest(folder)
    if not (folder / CARD).is_file():
        raise UsageError(f"{folder} has no {CARD}: give a directory that `agentdata dataset build` wrote.")
    files = [LocalFile(shard.path, shard.bytes, shard.sha256) for table in manifest.tables for shard in table.shards]
    for file in files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise UsageError(
                f"{path} is missing or has another size than when it was written: build the dataset again."
            )
    for name in (CARD, MANIFEST):
        content = (folder / name).read_bytes()
        files.append(LocalFile(name, len(content), hashlib.sha256(content).hexdigest()))
    return files


def _blob_name(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


# What is there


def _remote(api: "HfApi", repo: str, revision: str, *, absent: bool) -> tuple[str, dict[str, RemoteFile]]:
    """Head commit and files of the repository; none where it need not exist yet."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        head = api.repo_info(repo, repo_type="dataset", revision=revision).sha or ""
        return head, _files_at(api, repo, head)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        if absent:
            return "", {}
        raise


def _files_at(api: "HfApi", repo: str, commit: str) -> dict[str, RemoteFile]:
    from huggingface_hub.hf_api import RepoFile

    return {
        entry.path: RemoteFile(entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
        for entry in api.list_repo_tree(repo, repo_type="dataset", revision=commit, recursive=True)
        if isinstance(entry, RepoFile)
    }


def _written(api: "HfApi", repo: str, head: str, remote: dict[str, RemoteFile]) -> dict[str, str]:
    """Files that an earlier publication wrote, with the SHA-256 of the shards."""
    if MANIFEST not in remote:
        return {}
    path = api.hf_hub_download(repo, MANIFEST, repo_type="dataset", revision=head)
    try:
        manifest = Manifest.model_validate_json(Path(path).read_bytes())
    except ValueError:
        return {}
    shards = {shard.path: shard.sha256 for table in manifest.tables for shard in table.shards}
    return {CARD: "", MANIFEST: "", **shards}


def _changes(
    folder: Path, files: Sequence[LocalFile], remote: dict[str, RemoteFile], written: dict[str, str], repo: str
) -> Changes:
    """What has to be done. Raises UsageError where a file of somebody else is in the way."""
    missing = [file for file in files if file.path not in remote or not remote[file.path].holds(file, folder)]
    for file in missing:
        if file.path in remote and file.path not in written:
            raise UsageError(
                f"{repo} has a {file.path} that agentdata did not write: choose another name, or remove that file there."
            )
    places = {there.digest: path for path, there in remote.items() if len(there.digest) == 64}
    wanted = {file.path for file in files}
    return Changes(
        upload=tuple(file for file in missing if file.sha256 not in places),
        copy=tuple((places[file.sha256], file.path) for file in missing if file.sha256 in places),
        # What somebody changed since it was published is theirs.
        delete=tuple(
            path
            for path, sha256 in sorted(written.items())
            if path not in wanted and path in remote and remote[path].digest == sha256
        ),
    )


# Doing it


@contextmanager
def _own_progress() -> Iterator[None]:
    """Our progress instead of the client's bars, of which it has one for each file."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _send(api: "HfApi", repo: str, revision: str, head: str, folder: Path, changes: Changes) -> str:
    """Upload contents, then commit them. Returns the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    adds = [CommitOperationAdd(file.path, folder / file.path) for file in changes.upload]
    sizes = [file.bytes for file in changes.upload]
    with Progress("uploading", changes.bytes >> 20, unit="MB") as progress:
        for start in range(0, len(adds), FILES_AT_ONCE):
            some = adds[start : start + FILES_AT_ONCE]
            api.preupload_lfs_files(repo, some, repo_type="dataset", revision=revision)
            progress.advance(sum(sizes[start : start + FILES_AT_ONCE]) >> 20)
    moves: list[CommitOperationCopy | CommitOperationDelete] = [
        CommitOperationCopy(source, target) for source, target in changes.copy
    ]
    moves += [CommitOperationDelete(path) for path in changes.delete]
    for batch in _batches(adds):
        last = batch[-1:] == adds[-1:]
        info = api.create_commit(
            repo,
            [*batch, *(moves if last else [])],
            repo_type="dataset",
            revision=revision,
            commit_message=_message(changes),
            parent_commit=head,
        )
        head = info.oid
    return head


def _batches(adds: "Sequence[CommitOperationAdd]") -> "Iterator[Sequence[CommitOperationAdd]]":
    """The card and the manifest are the last of the files."""
    yield from (adds[start : start + FILES_OF_COMMIT] for start in range(0, max(len(adds), 1), FILES_OF_COMMIT))


def _message(changes: Changes) -> str:
    parts = [f"{len(changes.upload)} files new or changed"]
    parts += [f"{len(changes.copy)} renamed"] if changes.copy else []
    parts += [f"{len(changes.delete)} removed"] if changes.delete else []
    return "Publish dataset: " + ", ".join(parts)


def _verify(api: "HfApi", repo: str, commit: str, folder: Path, files: Sequence[LocalFile]) -> None:
    """Raise RunError unless every file is at the Hub with its size and digest."""
    there = _files_at(api, repo, commit)
    wrong = [file.path for file in files if file.path not in there or not there[file.path].holds(file, folder)]
    if wrong:
        raise RunError(
            f"{len(wrong)} files of {repo} are not what was sent, the first is {wrong[0]}: run the same command again."
        )
