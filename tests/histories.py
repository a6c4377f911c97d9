"""Small real git histories, deterministic to the byte: authors and times are fixed, configuration is not read."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

AUTHOR = ("Ada Author", "ada@example.com")


class History:
    """A git repository in the making. Each commit is one minute after the one before."""

    def __init__(self, path: Path, *, bare: bool = False, object_format: str = "sha1") -> None:
        self.path = path
        self.time = 1_600_000_000
        path.mkdir(parents=True, exist_ok=True)
        bareness = ["--bare"] if bare else []
        self.git("init", "-q", "-b", "main", f"--object-format={object_format}", *bareness)

    def git(self, *arguments: str, stdin: bytes | None = None, author: tuple[str, str] = AUTHOR) -> str:
        """Run git in the repository and return what it prints."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": author[0],
            "GIT_AUTHOR_EMAIL": author[1],
            "GIT_COMMITTER_NAME": "Carl Committer",
            "GIT_COMMITTER_EMAIL": "carl@example.com",
            "GIT_AUTHOR_DATE": f"{self.time} +0000",
            "GIT_COMMITTER_DATE": f"{self.time} +0000",
        }
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments], input=stdin, capture_output=True, env=environment, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"git {arguments} failed: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode(errors="replace").strip()

    def write(self, files: dict[str, str | bytes | None]) -> None:
        """Write files into the work tree; None removes one."""
        for name, content in files.items():
            path = self.path / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(
        self, message: str, files: dict[str, str | bytes | None] | None = None, *, author: tuple[str, str] = AUTHOR
    ) -> str:
        """Commit files and everything else that changed in the work tree; returns the commit's name."""
        self.time += 60
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "--cleanup=verbatim", "-m", message, author=author)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str = "HEAD") -> None:
        """Begin a branch and switch to it."""
        self.git("checkout", "-q", "-b", name, start)

    def switch(self, name: str) -> None:
        self.git("checkout", "-q", name)

    def merge(self, branch: str, message: str) -> str:
        """Merge a branch into the current one with a merge commit."""
        self.time += 60
        self.git("merge", "-q", "--no-ff", "--no-edit", "-m", message, branch)
        return self.head()

    def squash(self, branch: str, message: str, number: int = 0) -> str:
        """Squash-merge a branch; with a number its head is kept as a pull request's ref, as a forge does."""
        if number:
            self.git("update-ref", f"refs/pull/{number}/head", branch)
        self.time += 60
        self.git("merge", "-q", "--squash", branch)
        self.git("commit", "-q", "-m", message)
        return self.head()

    def import_branch(self, states: Sequence[Mapping[str, tuple[str, bytes]]], messages: Sequence[str]) -> None:
        """Write many commits at once: a first one, a branch of one commit per further state, and its merge as number 1.

        Each state is a whole tree: path to (mode, content).
        """
        lines: list[bytes] = []
        for number, (state, message) in enumerate(zip(states, messages, strict=True)):
            self.time += 60
            lines += [_stamped(f"refs/heads/{'branch' if number else 'main'}", number + 1, self.time, message)]
            if number:
                lines.append(b"from :%d\n" % number)
            lines.append(b"deleteall\n")
            for path, (mode, content) in state.items():
                lines.append(f"M {mode} inline {path}\n".encode() + b"data %d\n" % len(content) + content + b"\n")
        self.time += 60
        lines.append(
            _stamped("refs/heads/main", len(states) + 1, self.time, "Merge pull request #1 from a/branch\n\nThe title")
        )
        lines.append(b"from :1\nmerge :%d\ndeleteall\n" % len(states))
        for path, (mode, content) in states[-1].items():
            lines.append(f"M {mode} inline {path}\n".encode() + b"data %d\n" % len(content) + content + b"\n")
        self.git("fast-import", "--quiet", stdin=b"".join(lines))

    def mirror(self, path: Path) -> Path:
        """A mirror clone with all refs."""
        subprocess.run(["git", "clone", "-q", "--mirror", str(self.path), str(path)], check=True, capture_output=True)
        return path


def _stamped(ref: str, mark: int, time: int, message: str) -> bytes:
    people = "".join(f"{role} Ada Author <ada@example.com> {time} +0000\n" for role in ("author", "committer"))
    return f"commit {ref}\nmark :{mark}\n{people}data {len(message.encode())}\n{message}\n".encode()


def numbered(name: str, count: int, start: int = 0) -> str:
    """A Python file of small distinct functions."""
    return "".join(
        f"def {name}_{place}(value):\n    return value + {place}\n\n\n" for place in range(start, start + count)
    )
