"""Git's plumbing as data: commits, tree differences, patches and objects of a repository that is not trusted.

Nothing in a repository can make these commands run something or reach the network: user and system configuration is
not read, the dangerous keys of the repository's own configuration are overridden, its work tree is never looked at, and
fetching objects on demand is off.
"""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from agentdata.errors import ObjectError, RunError, SourceError, UsageError
from agentdata.harvest.caches import Cache
from agentdata.records import Encoding

OLDEST = (2, 34)
HARDENED = {
    "safe.directory": "*",
    "core.bare": "true",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.sshCommand": "false",
    "core.pager": "cat",
    "core.quotePath": "true",
    "diff.external": "",
    "diff.suppressBlankEmpty": "false",
    "log.showSignature": "false",
    "gc.auto": "0",
    "protocol.allow": "never",
}
DIFF = ("--no-ext-diff", "--no-textconv", "--no-color", "-O/dev/null", "-r", "-M50%", "-l400", "--always", "--stdin")
PATCH = (
    "-p",
    "--text",
    "--full-index",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--unified=3",
    "--inter-hunk-context=0",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--submodule=short",
)
REQUEST = 256
CHUNK = 1 << 20
MOST_COMMITS = 4096
"""Parsed commits that are kept."""


def environment() -> dict[str, str]:
    """Environment of every git process: no configuration but the repository's, no prompt, no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "advice.graftFileDeprecated",
        "GIT_CONFIG_VALUE_0": "false",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "none",
    }


def require() -> None:
    """Raise UsageError unless a git that is new enough is there."""
    try:
        words = subprocess.run(["git", "--version"], capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"git does not run ({error}): install git {OLDEST[0]}.{OLDEST[1]} or newer.") from error
    found = re.search(r"(\d+)\.(\d+)", words)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise UsageError(f"{words.strip()} is too old: install git {OLDEST[0]}.{OLDEST[1]} or newer.")


def command(git_dir: Path, *arguments: str) -> list[str]:
    settings = [part for key, value in HARDENED.items() for part in ("-c", f"{key}={value}")]
    # `--bare`: neither the current directory nor the index is a source of attributes.
    return ["git", f"--git-dir={git_dir}", "--bare", "--literal-pathspecs", *settings, *arguments]


def run(git_dir: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Output of a git command. Raises SourceError with git's own words when it fails."""
    with _Process(git_dir, arguments, stdin) as process:
        return process.stdout.read()


class _Process:
    """A running git command whose input is all there: git may print as much as it likes, and nobody waits for anybody.

    Raises SourceError at the end of the block when the command failed.
    """

    def __init__(self, git_dir: Path, arguments: Sequence[str], stdin: bytes) -> None:
        self.git_dir = git_dir
        with tempfile.TemporaryFile() as requests:
            requests.write(stdin)
            requests.seek(0)
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
            self._process = subprocess.Popen(
                command(git_dir, *arguments),
                stdin=requests,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment(),
                process_group=0,  # Ctrl-C is for us; git ends when its pipes do.
                bufsize=1 << 17,
            )
        self.stdout = _pipe(self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self.stdout.close()
        status = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read()
        self._errors.close()
        if status != 0 and not isinstance(error, GeneratorExit):
            raise failure(self.git_dir, words) from error


def output(arguments: list[str]) -> bytes:
    """Output of a command line made by `command` that may find nothing (exit status 1)."""
    done = subprocess.run(arguments, capture_output=True, env=environment())
    if done.returncode > 1:
        raise failure(Path(), done.stderr)
    return done.stdout


def failure(git_dir: Path, stderr: bytes) -> SourceError:
    """The sentence for a git process that failed."""
    words = " ".join(stderr.decode("utf-8", "replace").split())[-400:] or "git ended without a word"
    if re.search(r"not a git repository", words):
        return SourceError("not-a-repository", f"{git_dir} is not a git repository: {words}")
    if re.search(r"transport '\w+' not allowed|could not fetch \S+ from promisor remote|promisor remote", words):
        return SourceError(
            "partial-clone",
            f"{git_dir} is a partial clone that lacks objects: run `git fetch --refetch` in it, or clone it whole.",
        )
    return SourceError(
        "corrupt", f"git cannot read {git_dir}: {words}. Run `git fsck` in it and clone it again if objects are lost."
    )


@dataclass(frozen=True, slots=True)
class RawEdit:
    """One entry of a raw tree difference. Paths are bytes, as git keeps them."""

    status: str
    """A, M, D, R or T."""
    old_mode: str
    new_mode: str
    old_blob: str
    new_blob: str
    old_path: bytes
    new_path: bytes


@dataclass(frozen=True, slots=True)
class CommitHeader:
    """What a commit object says, decoded."""

    tree: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    authored_at: int
    committed_at: int
    message: str


Pair = tuple[str, str]
"""(before, after): two commits whose trees are compared."""


class Repository:
    """An open repository: one `git cat-file --batch` with a cache of recent objects, and batched differences.

    cache_bytes bounds the objects kept in memory.
    """

    def __init__(self, git_dir: Path, *, cache_bytes: int = 48 << 20) -> None:
        self.git_dir = git_dir
        self._contents: subprocess.Popen[bytes] | None = None
        self._sizes: subprocess.Popen[bytes] | None = None
        self._cache: Cache[str, bytes] = Cache(cache_bytes)
        self._commits: Cache[str, CommitHeader] = Cache(MOST_COMMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for process in (self._contents, self._sizes):
            if process is not None:
                _end(process)
        self._contents = self._sizes = None

    def __del__(self) -> None:
        # A worker lets go of its repository when it comes to another one.
        self.close()

    # Objects

    def read(self, oid: str) -> bytes:
        """Content of an object. Raises ObjectError when it is missing or cannot be read."""
        known = self._cache.get(oid)
        if known is None:
            self.prefetch([oid])
            known = self._cache.get(oid)
            assert known is not None
        return known

    def prefetch(self, oids: Iterable[str]) -> None:
        """Read objects into the cache, many for one round trip. Raises ObjectError for the first that cannot be had."""
        for oid, content in self.contents([oid for oid in dict.fromkeys(oids) if oid not in self._cache]):
            self._cache.put(oid, content, len(content))

    def contents(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Objects in the order asked for, past the cache. Raises ObjectError for the first that cannot be had."""
        for start in range(0, len(oids), REQUEST):
            part = oids[start : start + REQUEST]
            self._contents = self._contents or self._start("--batch")
            missing = ""
            for oid, content in zip(part, self._replies(self._contents, part), strict=True):
                if content is None:
                    missing = missing or oid
                else:
                    yield oid, content
            if missing:
                raise ObjectError("missing-object", f"object {missing} is not in {self.git_dir}")

    def known_sizes(self, oids: Sequence[str]) -> dict[str, int | None]:
        """Sizes of objects in bytes, without reading them; None for one that is missing."""
        self._sizes = self._sizes or self._start("--batch-check=%(objectname) %(objectsize)")
        sizes: dict[str, int | None] = {}
        for start in range(0, len(oids), REQUEST):
            part = oids[start : start + REQUEST]
            self._ask(self._sizes, part)
            for oid in part:
                words = self._answer(self._sizes, oid).split()
                sizes[oid] = None if words[-1] == b"missing" else int(words[1])
        return sizes

    def sizes(self, oids: Sequence[str]) -> list[int]:
        """Sizes of objects in bytes, without reading them. Raises ObjectError when one is missing."""
        known = self.known_sizes(list(dict.fromkeys(oids)))
        missing = next((oid for oid, size in known.items() if size is None), None)
        if missing:
            raise ObjectError("missing-object", f"object {missing} is not in {self.git_dir}")
        return [known[oid] or 0 for oid in oids]

    def _start(self, mode: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(self.git_dir, "cat-file", mode),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            process_group=0,  # Ctrl-C is for us; git ends when its pipes do.
            bufsize=1 << 16,
        )

    def _ask(self, process: subprocess.Popen[bytes], oids: Sequence[str]) -> None:
        stdin = _pipe(process.stdin)
        try:
            stdin.write("\n".join(oids).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            self._broken(oids[0])

    def _answer(self, process: subprocess.Popen[bytes], oid: str) -> bytes:
        line = _pipe(process.stdout).readline()
        if not line.endswith(b"\n"):
            self._broken(oid)
        return line

    def _replies(self, process: subprocess.Popen[bytes], oids: Sequence[str]) -> Iterator[bytes | None]:
        self._ask(process, oids)
        stdout = _pipe(process.stdout)
        for oid in oids:
            words = self._answer(process, oid).split()
            if words[-1] == b"missing":
                yield None
                continue
            size = int(words[2])
            content = stdout.read(size + 1)
            if len(content) != size + 1:
                self._broken(oid)
            yield content[:-1]

    def _broken(self, oid: str) -> None:
        processes = [process for process in (self._contents, self._sizes) if process is not None]
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        ended = {process.returncode for process in processes}
        self.close()
        if any(status is not None and status < 0 for status in ended):
            raise RunError(
                f"A git process that read {self.git_dir} was killed, most often for lack of memory. Run the same command "
                "again with fewer --workers; finished shards are kept."
            )
        if not self.git_dir.exists():
            raise RunError(f"{self.git_dir} is gone: bring it back, and run the same command again.")
        raise ObjectError("corrupt-object", f"git cannot read object {oid} of {self.git_dir}; run `git fsck` in it")

    def commit(self, oid: str) -> CommitHeader:
        """A parsed commit object."""
        return self._commits.get(oid) or self._commits.put(oid, parse_commit(self.read(oid)))

    # Differences

    def raw_differences(self, pairs: Sequence[Pair]) -> list[list[RawEdit]]:
        """Changed paths of each pair of commits, renames detected, without reading any blob that is not renamed."""
        if not pairs:
            return []
        output = run(self.git_dir, "diff-tree", *DIFF, "--raw", "-z", "--no-abbrev", stdin=_requests(pairs))
        return _parse_raw(output, len(pairs), self.git_dir)

    def patches(self, pairs: Sequence[Pair]) -> Iterator[list[bytes]]:
        """Unified diffs of each pair of commits, one per changed path in the order of the raw difference."""
        if not pairs:
            return
        with _Process(self.git_dir, ("diff-tree", *DIFF, *PATCH), _requests(pairs)) as process:
            yield from _read_patches(process.stdout, pairs, self.git_dir)

    def patch(self, pair: Pair, paths: Sequence[bytes]) -> list[bytes]:
        """Unified diffs of some paths between two commits."""
        names = ["--", *(os.fsdecode(path) for path in paths)]
        text = run(self.git_dir, "diff-tree", *DIFF[:-2], *PATCH, *pair, *names)
        return [b"diff --git " + part for part in re.split(rb"(?m)^diff --git ", text)[1:]]


def _read_patches(stdout: IO[bytes], pairs: Sequence[Pair], git_dir: Path) -> Iterator[list[bytes]]:
    """Split the stream of `git diff-tree --stdin -p` into one list of file patches for each pair.

    A line of a patch begins with a sign, so that neither a commit's name nor `diff --git` can be taken for one.
    """
    buffer, start = b"\n", 0
    headers = [b"\n" + after.encode() + b"\n" for _, after in pairs]
    for header, following in zip(headers, [*headers[1:], b""], strict=True):
        searched, end = start + 1, -1
        while not following or (end := buffer.find(following, searched)) < 0:
            more = stdout.read1(CHUNK)  # type: ignore[attr-defined]
            if not more:
                end = -1 if following else len(buffer)
                break
            searched = max(1, len(buffer) - start - len(following))
            buffer, start = buffer[start:] + more, 0
        if end < 0 or not buffer.startswith(header, start):
            raise SourceError("corrupt", f"git diff-tree stopped early in {git_dir}; run `git fsck` in it")
        _, *files = buffer[start + len(header) - 1 : end].split(b"\ndiff --git ")
        # A commit's name follows on a line of its own; at the end of the stream the last line end is there already.
        whole = [b"diff --git " + file + b"\n" for file in files]
        if files and not following:
            whole[-1] = whole[-1][:-1]
        yield whole
        start = end


def _requests(pairs: Sequence[Pair]) -> bytes:
    return "".join(f"{after} {before}\n" for before, after in pairs).encode()


def _parse_raw(output: bytes, expected: int, git_dir: Path) -> list[list[RawEdit]]:
    fields = output.split(b"\0")
    groups: list[list[RawEdit]] = []
    position = 0
    while position < len(fields) - 1:
        field = fields[position]
        position += 1
        if not field.startswith(b":"):
            groups.append([])
            continue
        old_mode, new_mode, old_blob, new_blob, status = field[1:].decode().split(" ")
        paths = 2 if status[0] in "RC" else 1
        groups[-1].append(
            RawEdit(status[0], old_mode, new_mode, old_blob, new_blob, fields[position], fields[position + paths - 1])
        )
        position += paths
    if len(groups) != expected:
        raise SourceError("corrupt", f"git diff-tree stopped early in {git_dir}; run `git fsck` in it")
    return groups


def parse_commit(content: bytes) -> CommitHeader:
    """A commit object as git stores it; the message is decoded by its own header, then UTF-8, then latin-1."""
    head, _, body = content.partition(b"\n\n")
    tree, parents, encoding = "", [], "utf-8"
    author, committed_at = (b"", b"", 0), 0
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key == b"tree":
            tree = value.decode()
        elif key == b"parent":
            parents.append(value.decode())
        elif key == b"author":
            author = _signature(value)
        elif key == b"committer":
            committed_at = _signature(value)[2]
        elif key == b"encoding":
            encoding = value.decode("ascii", "replace")
    try:
        message = body.decode(encoding)
        message.encode()  # Some codecs give lone surrogates, which nothing can store.
    except (ValueError, LookupError):
        message = decode(body)[0]
    return CommitHeader(
        tree, tuple(parents), decode(author[0])[0], decode(author[1])[0], author[2], committed_at, message
    )


def _signature(value: bytes) -> tuple[bytes, bytes, int]:
    found = re.match(rb"(.*?) ?<([^>]*)>(?: (-?\d+))?", value)
    return (found[1], found[2], seconds(found[3] or b"")) if found else (value, b"", 0)


def seconds(digits: bytes) -> int:
    """A time as a commit states it; 0 for none, and for one that is none."""
    bare = digits.removeprefix(b"-")
    return int(digits) if bare.isdigit() and len(bare) <= 18 else 0


def decode(content: bytes) -> tuple[str, Encoding]:
    """Text and the encoding that maps it back to exactly these bytes: UTF-8, else latin-1."""
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    process.wait()
