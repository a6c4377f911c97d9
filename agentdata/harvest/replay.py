"""Replay a trace from the snapshot and prove it: reads are what is there, old texts are unique, the end is the truth."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agentdata import editor
from agentdata.harvest.git import decode
from agentdata.records import Encoding, Event, FileProof, Proof


@dataclass(frozen=True, slots=True)
class File:
    """A file as it stands: `text` in `encoding` is its content."""

    mode: str
    text: str
    encoding: Encoding

    @classmethod
    def read(cls, mode: str, content: bytes) -> "File":
        return cls(mode, *decode(content))

    @property
    def content(self) -> bytes:
        return self.text.encode(self.encoding)

    def text_as(self, encoding: Encoding) -> str:
        """The text under another encoding of the same bytes. Raises UnicodeDecodeError."""
        return self.text if encoding == self.encoding else self.content.decode(encoding)


class ReplayError(Exception):
    """A trace is not true. `reason` is the short word that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def blob_name(content: bytes, digits: int = 40) -> str:
    """Git's object name of a blob; 40 digits for SHA-1 repositories, 64 for SHA-256."""
    digest = hashlib.sha1(usedforsecurity=False) if digits == 40 else hashlib.sha256()
    digest.update(b"blob %d\0" % len(content))
    digest.update(content)
    return digest.hexdigest()


def digest_of(events: Iterable[Event]) -> str:
    """SHA-256 over the events' fields, in order."""
    digest = hashlib.sha256()
    for event in events:
        digest.update(event.model_dump_json().encode())
        digest.update(b"\n")
    return digest.hexdigest()


class Workspace:
    """The files that a trace touches, as they stand after the events so far. Files are read from the snapshot on demand."""

    def __init__(self, snapshot: Callable[[str], File | None]) -> None:
        self._snapshot = snapshot
        self.files: dict[str, File | None] = {}

    def at(self, path: str) -> File | None:
        if path not in self.files:
            self.files[path] = self._snapshot(path)
        return self.files[path]

    def _existing(self, path: str) -> File:
        file = self.at(path)
        if file is None:
            raise ReplayError("replay-missing", f"{path} does not exist when it is used")
        return file

    def check_read(self, event: Event) -> None:
        """A read shows the lines that are there."""
        text = self._existing(event.path).text_as(event.encoding)
        shown = "\n".join(text.split("\n", event.end)[event.start - 1 : event.end]) if event.start else text
        if shown != event.text:
            raise ReplayError("replay-read", f"lines {event.start}-{event.end} of {event.path} are not what was read")

    def apply(self, event: Event) -> None:
        """Do what an edit says. Raises ReplayError where the editor or the shell would refuse."""
        path = event.path
        if event.edit == "create":
            if self.at(path) is not None:
                raise ReplayError("replay-exists", f"{path} exists when it is created")
            self.files[path] = File(event.mode, event.new, event.encoding)
            return
        file = self._existing(path)
        if event.edit == "delete":
            self.files[path] = None
        elif event.edit == "rename":
            if self.at(event.new_path) is not None:
                raise ReplayError("replay-exists", f"{event.new_path} exists when {path} is renamed to it")
            self.files[event.new_path] = file
            self.files[path] = None
        elif event.edit == "chmod":
            self.files[path] = File(event.mode, file.text, file.encoding)
        else:
            try:
                text = file.text_as(event.encoding)
                if event.edit == "insert":
                    text = editor.insert(text, event.line, event.new)
                else:
                    text = editor.replace(text, event.old, event.new)
            except (editor.EditError, UnicodeDecodeError) as error:
                raise ReplayError("replay-edit", f"{path}: {error}") from error
            self.files[path] = File(file.mode, text, event.encoding)


def prove(
    events: tuple[Event, ...],
    snapshot: Callable[[str], File | None],
    files: tuple[FileProof, ...],
    commits: tuple[str, str],
) -> Proof:
    """Replay `events` and compare every touched file with the state it must end in. Raises ReplayError.

    files: what the change does, by git's account. commits: snapshot and head.
    """
    workspace = Workspace(snapshot)
    reads = searches = edits = 0
    for event in events:
        if event.kind == "read":
            workspace.check_read(event)
            reads += 1
        elif event.kind == "edit":
            workspace.apply(event)
            edits += 1
        elif event.kind in ("search", "list"):
            searches += 1
    compare(workspace.files, snapshot, files)
    return Proof(
        snapshot=commits[0],
        head=commits[1],
        files=files,
        reads=reads,
        searches=searches,
        edits=edits,
        digest=digest_of(events),
    )


def compare(
    found: Mapping[str, File | None], snapshot: Callable[[str], File | None], files: tuple[FileProof, ...]
) -> None:
    """Every file ends as git says, and no other file was touched. Raises ReplayError."""
    expected: dict[str, tuple[str, str] | None] = {file.before_path: None for file in files if file.before_path}
    expected |= {file.after_path: (file.after_mode, file.after_blob) for file in files if file.after_path}
    for path in sorted(expected.keys() | found.keys()):
        wanted = expected[path] if path in expected else _name(snapshot(path))
        digits = len(wanted[1]) if wanted else 40
        have = _name(found[path] if path in found else snapshot(path), digits)
        if have != wanted:
            raise ReplayError("replay-state", f"{path} ends as {have}, not as {wanted}")


def _name(file: File | None, digits: int = 40) -> tuple[str, str] | None:
    return (file.mode, blob_name(file.content, digits)) if file else None
