"""`str_replace_editor` over the files of a sandbox: what each command does to a file, and what it prints.

Commands, arguments and printed forms are those of SWE-agent's default tool, most of them from `agentdata.editor`. A file
keeps every byte that an edit does not name: its encoding, its line ends, a missing last one, and its mode.
"""

import shlex
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from agentdata import editor
from agentdata.editor import EditError
from agentdata.records import Encoding
from sandboxes.errors import SandboxError, SandboxGone
from sandboxes.protocol import Sandbox

COMMANDS = ("view", "create", "str_replace", "insert", "undo_edit")
LISTING = "find {path} -mindepth 1 -maxdepth 2 -name '.*' -prune -o -print 2>/dev/null | LC_ALL=C sort"
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Text:
    """A file as the policy sees it: lines end at line feeds alone where all of them end alike."""

    text: str
    encoding: Encoding
    """latin-1 stands for any bytes that are not UTF-8."""
    line_end: str

    def seen(self, text: str) -> str:
        """A text of the policy's, with the line ends that it sees."""
        return text.replace("\r\n", "\n") if self.line_end == "\r\n" else text

    def encoded(self, text: str) -> bytes:
        """The bytes of the file when it holds `text`. Raises UnicodeEncodeError."""
        return text.replace("\n", self.line_end).encode(self.encoding)


def decoded(content: bytes) -> Text:
    """A file's bytes as text; `encoded` gives the same bytes back."""
    encoding: Encoding = "utf-8"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text, encoding = content.decode("latin-1"), "latin-1"
    ends = text.count("\r\n")
    if ends and ends == text.count("\n"):
        return Text(text.replace("\r\n", "\n"), encoding, "\r\n")
    return Text(text, encoding, "\n")


class FileEditor:
    """Edits files and remembers what they were, so that the last edit of each can be undone."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._former: dict[str, list[bytes]] = defaultdict(list)

    def run(self, arguments: dict[str, Any]) -> str:
        """What a command prints. Raises EditError, with what it prints, where it refuses; SandboxError."""
        given = {key: value for key, value in arguments.items() if value is not None}
        command, path = given["command"], str(PurePosixPath(given["path"]))
        if command not in COMMANDS:
            raise EditError(f"Unrecognized command {command}. The allowed commands are: {', '.join(COMMANDS)}.")
        if "\0" in path:
            raise EditError(f"The path {path!r} does not exist. Please provide a valid path.")
        if not path.startswith("/"):
            raise EditError(
                f"The path {path} is not an absolute path, it should start with `/`."
                f" Maybe you meant {editor.ROOT}/{path}?"
            )
        if command == "create":
            return self._create(path, _required(given, "file_text"))
        content = self._read(path, command)
        if content is None:
            return self._list(path, given)
        if command == "view":
            return _view(path, decoded(content).text, given.get("view_range"))
        if command == "undo_edit":
            return self._undo(path)
        edit = _replace if command == "str_replace" else _insert
        after, printed = edit(path, decoded(content), given)
        self._write(path, after)
        self._former[path].append(content)
        return printed

    def _create(self, path: str, text: str) -> str:
        try:
            self._attempt(lambda: self._sandbox.read(path))
        except FileNotFoundError:
            content = _encoded(path, decoded(b""), text)
            self._write(path, content)
            self._former[path].append(content)
            return editor.created(path)
        except OSError:
            pass
        raise EditError(f"File already exists at: {path}. Cannot overwrite files using command `create`.")

    def _undo(self, path: str) -> str:
        if not self._former[path]:
            raise EditError(f"No edit history found for {path}.")
        content = self._former[path].pop()
        self._write(path, content)
        return f"Last edit to {path} undone successfully. {editor.view(path, decoded(content).text.split(chr(10)))}"

    def _list(self, path: str, given: dict[str, Any]) -> str:
        if given.get("view_range"):
            raise EditError("The `view_range` parameter is not allowed when `path` points to a directory.")
        listing = self._sandbox.run(LISTING.format(path=shlex.quote(path))).text
        return (
            f"Here's the files and directories up to 2 levels deep in {path}, excluding hidden items:\n"
            f"{path}\n{listing}\n"
        )

    def _read(self, path: str, command: str) -> bytes | None:
        """A file's content; None for a directory that is to be viewed."""
        try:
            return self._attempt(lambda: self._sandbox.read(path))
        except (FileNotFoundError, NotADirectoryError):
            raise EditError(f"The path {path} does not exist. Please provide a valid path.") from None
        except IsADirectoryError:
            if command == "view":
                return None
            raise EditError(
                f"The path {path} is a directory and only the `view` command can be used on directories"
            ) from None
        except OSError as error:
            raise EditError(f"Ran into {error.strerror or error} while trying to read {path}") from None

    def _write(self, path: str, content: bytes) -> None:
        try:
            self._attempt(lambda: self._sandbox.write(path, content, mode=0))
        except OSError as error:
            raise EditError(f"Ran into {error.strerror or error} while trying to write to {path}") from None

    def _attempt(self, access: Callable[[], Answer]) -> Answer:
        """Reach a file once more after a command of the policy's killed what reaches it."""
        try:
            return access()
        except SandboxGone:
            raise
        except SandboxError:
            return access()


def _required(given: dict[str, Any], name: str) -> Any:
    if name not in given:
        raise EditError(f"Parameter `{name}` is required for command: {given['command']}")
    return given[name]


def _view(path: str, text: str, asked: list[int] | None) -> str:
    lines = text.split("\n")
    if not asked:
        return editor.view(path, lines)
    if len(asked) != 2:
        raise EditError("Invalid `view_range`. It should be a list of two integers.")
    first, last = asked
    fault = ""
    if not 1 <= first <= len(lines):
        fault = f"first element `{first}` should be within the range of lines of the file: {[1, len(lines)]}"
    elif last > len(lines):
        fault = f"second element `{last}` should be smaller than the number of lines in the file: `{len(lines)}`"
    elif last != -1 and last < first:
        fault = f"second element `{last}` should be larger or equal than its first `{first}`"
    if fault:
        raise EditError(f"Invalid `view_range`: {asked}. Its {fault}")
    return editor.view(path, lines[first - 1 : len(lines) if last == -1 else last], first)


def _replace(path: str, file: Text, given: dict[str, Any]) -> tuple[bytes, str]:
    old, new = file.seen(_required(given, "old_str")), file.seen(given.get("new_str", ""))
    try:
        after = editor.replace(file.text, old, new)
    except EditError:
        raise EditError(_not_unique(path, file.text, old)) from None
    if old == new:
        raise EditError(f"No replacement was performed, old_str `{old}` is the same as new_str `{new}`.")
    place = file.text.find(old)
    line = file.text.count("\n", 0, place) + 1
    return _encoded(path, file, after), editor.replaced(path, after, place, line, new)


def _not_unique(path: str, text: str, old: str) -> str:
    if not old or old not in text:
        return f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
    lines, place = [], text.find(old)
    while place >= 0:
        lines.append(text.count("\n", 0, place) + 1)
        place = text.find(old, place + 1)
    return (
        f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines {lines}."
        " Please ensure it is unique"
    )


def _insert(path: str, file: Text, given: dict[str, Any]) -> tuple[bytes, str]:
    line, new = _required(given, "insert_line"), file.seen(_required(given, "new_str"))
    try:
        after = editor.insert(file.text, line, new)
    except EditError:
        raise EditError(
            f"Invalid `insert_line` parameter: {line}. It should be within the range of lines of the file:"
            f" {[0, file.text.count(chr(10)) + 1]}"
        ) from None
    place = len("\n".join(after.split("\n", line)[:line])) + (line > 0)
    return _encoded(path, file, after), editor.inserted(path, after, place, line + 1, new)


def _encoded(path: str, file: Text, after: str) -> bytes:
    try:
        return file.encoded(after)
    except UnicodeEncodeError as error:
        raise EditError(f"Ran into {error} while trying to write to {path}") from None
