"""What the user names to repositories on disk: clones, mirrors, URLs (mirrored into a cache), and lists of those."""

import configparser
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdata.errors import SourceError, UsageError
from agentdata.harvest import git
from agentdata.records import RepoSource

URL = re.compile(r"^(?:https?|ssh|git|file)://|^[\w.-]+@[\w.-]+:")
OWNER_NAME = re.compile(r"[/:]([^/:]+/[^/:]+?)(?:\.git)?/*$")
HEADS = ("main", "master", "trunk", "develop", "default")
LISTED = ("location", "path", "url", "clone_url")
MIRRORED = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
PULLS = ("+refs/pull/*/head:refs/pull/*/head", "+refs/merge-requests/*/head:refs/merge-requests/*/head")
COMPLETE = "agentdata-complete"


@dataclass(frozen=True)
class OpenedSource:
    """A repository that can be harvested."""

    source: RepoSource
    git_dir: Path
    head: str


def expand(arguments: Sequence[str]) -> list[RepoSource]:
    """Repositories named on the command line: paths, URLs, and `@list.yaml`, `.jsonl` or `.parquet`. Raises UsageError."""
    sources = []
    for argument in arguments:
        if argument.startswith("@"):
            sources += list(_read_list(Path(argument[1:])))
        else:
            if not _is_text(argument):
                raise UsageError(f"{argument!a} is not UTF-8: name the repository by a link whose path is.")
            sources.append(RepoSource(name="", location=argument))
    unique: dict[str, RepoSource] = {}
    for source in sources:
        place = source.location
        if not URL.match(place):
            place = os.path.realpath(os.path.expanduser(place))  # noqa: PTH111 - Path's raises for an unknown home
        unique.setdefault(place, source)
    return list(unique.values())


def key_of(source: RepoSource) -> str:
    """A name for the files of a source: readable, and the same whenever the same location is given."""
    last = "/".join(source.location.rstrip("/").split("/")[-2:])
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", source.name or last).strip("-.")[-60:]
    return f"{readable}-{hashlib.sha256(source.location.encode()).hexdigest()[:8]}".lower()


def _read_list(path: Path) -> Iterator[RepoSource]:
    for number, row in enumerate(_rows(path), 1):
        if isinstance(row, str):
            row = {"location": row}
        if not isinstance(row, dict):
            raise UsageError(f"{path}: entry {number} is {row!r}, not a path, a URL or a mapping with `location`.")
        location = next((row[key] for key in LISTED if row.get(key)), None)
        if not isinstance(location, str):
            raise UsageError(f"{path}: entry {number} has no `location` (a path or URL): {row!r}.")
        if not URL.match(location):
            location = str(path.parent / location) if not location.startswith("~") else location
        licence = row.get("licence") or row.get("license") or ""
        if isinstance(licence, dict):
            licence = licence.get("spdx_id") or ""
        stars = row.get("stars", row.get("stargazers_count"))
        if stars is not None and (not isinstance(stars, int) or not -1 <= stars < 2**63):
            raise UsageError(f"{path}: entry {number} has stars {stars!r}, not a whole number.")
        words = (row.get("name") or row.get("full_name"), location, licence, row.get("description"))
        if any(not _is_text(str(word)) for word in words):
            raise UsageError(f"{path}: entry {number} holds text that is not Unicode: {row!a}.")
        yield RepoSource(
            name=str(row.get("name") or row.get("full_name") or ""),
            location=location,
            licence=str(licence) if licence != "NOASSERTION" else "",
            stars=stars if stars is not None else -1,
            description=str(row.get("description") or ""),
        )


def _is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8; bytes of a path and JSON's escapes need not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows(path: Path) -> Iterator[Any]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1024):
                    yield from batch.to_pylist()
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        elif path.suffix in (".yaml", ".yml"):
            import yaml

            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
            rows = loaded.get("repositories") if isinstance(loaded, dict) else loaded
            if not isinstance(rows, list):
                raise UsageError(
                    f"{path} holds no list of repositories; write one entry with `location` per repository."
                )
            yield from rows
        else:
            raise UsageError(f"{path} is no list of repositories: it must end in .yaml, .jsonl or .parquet.")
    except UsageError:
        raise
    except Exception as error:  # Three parsers, each with exceptions of its own; all mean that the list cannot be read.
        raise UsageError(f"Cannot read the list of repositories {path}: {' '.join(str(error).split())}.") from error


def open_source(source: RepoSource, cache: Path, branch: str = "") -> OpenedSource:
    """Find the repository, mirror it first where it is a URL, and check that its history is whole. Raises SourceError."""
    url = source.location if URL.match(source.location) else ""
    git_dir = mirror(url, cache) if url else find_git_dir(_expanded(source.location))
    _check_whole(git_dir)
    try:
        head = find_head(git_dir, branch)
    except SourceError as error:
        if url and error.reason == "empty":
            (git_dir / COMPLETE).unlink()  # Nothing is cached of nothing: the next call looks again.
            raise SourceError("empty", f"{url} has no commits: there is nothing to harvest yet.") from error
        raise
    _check_promised(git_dir, head)
    name = source.name or _name(url or _origin(git_dir), git_dir)
    return OpenedSource(source.model_copy(update={"name": name}), git_dir, head)


def _expanded(location: str) -> Path:
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise SourceError("not-found", f"{location} does not exist: there is no such home directory.") from error


def find_git_dir(path: Path) -> Path:
    """The git directory of a working clone, linked work tree, bare or mirror clone."""
    if not path.exists():
        raise SourceError("not-found", f"{path} does not exist: give a clone, a URL, or @list.yaml.")
    git.require()
    import git as gitpython

    # GitPython takes a user's GIT_OBJECT_DIRECTORY and the like for the repository's.
    own = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GIT_")}
    try:
        return Path(gitpython.Repo(path, search_parent_directories=False).git_dir).absolute()
    except (gitpython.InvalidGitRepositoryError, gitpython.NoSuchPathError) as error:
        raise SourceError(
            "not-a-repository", f"{path} is not a git repository: give the directory of a clone."
        ) from error
    except (OSError, ValueError, configparser.Error) as error:
        raise SourceError("corrupt", f"{path} cannot be opened as a git repository: {error}.") from error
    finally:
        os.environ |= own


def common_dir(git_dir: Path) -> Path:
    """The directory that holds objects and configuration; another one for linked work trees."""
    pointer = git_dir / "commondir"
    return (git_dir / pointer.read_text().strip()).resolve() if pointer.is_file() else git_dir


def _check_whole(git_dir: Path) -> None:
    if (common_dir(git_dir) / "shallow").exists():
        raise SourceError(
            "shallow", f"{git_dir} is a shallow clone without its history: run `git fetch --unshallow` in it."
        )


def find_head(git_dir: Path, branch: str = "") -> str:
    """The commit whose history is harvested: a branch, HEAD, or the usual main branch where HEAD points nowhere."""
    wanted = [branch] if branch else ["HEAD", *(f"refs/heads/{name}" for name in HEADS)]
    for name in wanted:
        try:
            found = git.run(git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
            return found.decode().strip()
        except SourceError as error:
            if error.reason != "corrupt" or "without a word" not in str(error):
                raise
    if branch:
        raise SourceError("no-branch", f"{git_dir} has no branch {branch!r}: see `git branch --all` in it.")
    branches = git.run(git_dir, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads").decode().split("\n")
    if branches[0] == "":
        raise SourceError("empty", f"{git_dir} has no commits: there is nothing to harvest yet.")
    raise SourceError(
        "corrupt", f"{git_dir}: HEAD names no commit that exists; choose one with --branch, or clone it again."
    )


def _check_promised(git_dir: Path, head: str) -> None:
    """Refuse a partial clone whose objects stayed with the remote."""
    if "promisor" not in _configuration(git_dir):
        return
    listed = git.run(git_dir, "rev-list", "--objects", "--missing=print", "-n", "100", head)
    if re.search(rb"^\?", listed, re.MULTILINE):
        raise SourceError(
            "partial-clone",
            f"{git_dir} is a partial clone whose objects are still at its remote: "
            "run `git fetch --refetch --filter=blob:limit=1g` in it, or clone it whole.",
        )


def _configuration(git_dir: Path) -> str:
    path = common_dir(git_dir) / "config"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _origin(git_dir: Path) -> str:
    urls = re.findall(r"^\s*url\s*=\s*(\S+)\s*$", _configuration(git_dir), re.MULTILINE)
    return urls[0] if urls and URL.match(urls[0]) else ""


def _name(url: str, git_dir: Path) -> str:
    found = OWNER_NAME.search(url)
    if found and not url.startswith("file:"):
        return found[1]
    directory = git_dir.parent if git_dir.name == ".git" else git_dir
    return directory.name.removesuffix(".git") or "repository"


def mirror(url: str, cache: Path) -> Path:
    """A mirror of a URL in the cache: branches, tags and the heads of pull requests.

    Branches and tags come first, then pull requests; what has arrived stays when the transfer is cut, and the next call
    goes on from there.
    """
    git.require()
    key = key_of(RepoSource(name="", location=url))
    path = cache / f"{key}.git"
    if (path / COMPLETE).exists():
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Another run may be mirroring the same URL: its mirror is ours.
            if not (path / COMPLETE).exists():
                _fetch(url, path)
    except OSError as error:
        raise SourceError("clone-failed", f"{url} cannot be mirrored into {path}: {error}.") from error
    return path


def _fetch(url: str, path: Path) -> None:
    """Fetch what is not there yet. The caller holds the lock, so git's own locks are those of a killed process."""
    import git as gitpython

    for left in path.rglob("*.lock"):
        left.unlink()
    try:
        repo = gitpython.Repo.init(path, bare=True)
        with repo.git.custom_environment(GIT_TERMINAL_PROMPT="0"):
            remote = repo.remotes["origin"] if "origin" in repo.remotes else repo.create_remote("origin", url)
            symbolic = str(repo.git.ls_remote("--symref", url, "HEAD"))
            head = re.search(r"^ref: refs/heads/(\S+)\s+HEAD", symbolic, re.MULTILINE)
            if head:
                repo.git.symbolic_ref("HEAD", f"refs/heads/{head[1]}")
            for refs in (MIRRORED, PULLS):
                repo.git.fetch(remote.name, *refs, no_tags=True, no_write_fetch_head=True, quiet=True)
        (path / COMPLETE).write_text("")
    except (gitpython.GitCommandError, gitpython.UnsafeProtocolError) as error:
        words = " ".join(str(getattr(error, "stderr", "") or error).split())[-300:]
        raise SourceError(
            "clone-failed", f"{url} cannot be mirrored: {words}. Run the same command again to go on."
        ) from error


def default_cache() -> Path:
    """Where mirrors of URLs are kept: `$AGENTDATA_CACHE`, else the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AGENTDATA_CACHE") or Path(base) / "agentdata") / "mirrors"
