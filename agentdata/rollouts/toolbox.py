"""The tools of a scaffold in a sandbox: calls in, observations out, in the forms that SWE-agent and mini-swe-agent print.

`editor`: bash in one session, `str_replace_editor`, submit. Two differences from SWE-agent's editor keep edits
byte-exact: tabs are not expanded, and a file keeps its encoding and its line endings.
`bash-only`: each command in a fresh shell; the last one prints a line that hands the work in.
"""

import json
import shlex
import time
from typing import Any

from agentdata import editor
from agentdata.editor import ROOT, SILENT
from agentdata.records import Observation, ToolCall
from agentdata.rollouts.scaffold import Scaffold
from sandboxes.protocol import CommandResult, Sandbox, Session

SUBMIT_LINE = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
QUIET = {
    "PAGER": "cat",
    "MANPAGER": "cat",
    "GIT_PAGER": "cat",
    "LESS": "-R",
    "PIP_PROGRESS_BAR": "off",
    "TQDM_DISABLE": "1",
}
"""What keeps programs from waiting for a key, and from drawing bars."""
LISTING = "find {path} -maxdepth 2 -not -path '*/\\.*' | LC_ALL=C sort"


class Refusal(Exception):  # noqa: N818
    """The editor does not do what is asked; the text says why."""


class Toolbox:
    """The tools of one attempt."""

    def __init__(self, sandbox: Sandbox, scaffold: Scaffold) -> None:
        self._sandbox = sandbox
        self._scaffold = scaffold
        self._session: Session | None = None
        self._handed_in = False

    def is_submit(self, call: ToolCall) -> bool:
        """Whether a call hands the work in without running anything."""
        return call.function.name == "submit"

    def run(self, call: ToolCall) -> Observation:
        """Run a call that `read_calls` accepted. Raises SandboxError."""
        began = time.monotonic()
        arguments = json.loads(call.function.arguments)
        status = 0
        if call.function.name == "bash":
            result = self._bash(arguments["command"])
            text, status = self._printed(result), result.status
        else:
            try:
                text = self._edit(arguments)
            except Refusal as refusal:
                text, status = str(refusal), 1
        text, cut = shortened(text, self._scaffold.most_observation_characters)
        return Observation(
            tool_call_id=call.id, content=text, status=status, seconds=time.monotonic() - began, cut_characters=cut
        )

    @property
    def handed_in(self) -> bool:
        """Whether a command printed the line that hands the work in (`bash-only`)."""
        return self._handed_in

    # Shell

    def _bash(self, command: str) -> CommandResult:
        seconds = self._scaffold.command_seconds
        if self._scaffold.toolbox == "bash-only":
            result = self._sandbox.run(command, timeout=seconds, workdir=ROOT, environment=QUIET)
            first = result.text.lstrip().partition("\n")[0].strip()
            self._handed_in = first == SUBMIT_LINE and result.status == 0
            return result
        if self._session is None:
            self._session = self._sandbox.session(workdir=ROOT)
            self._session.run("export " + " ".join(f"{name}={value}" for name, value in QUIET.items()))
        return self._session.run(command, timeout=seconds)

    def _printed(self, result: CommandResult) -> str:
        seconds = self._scaffold.command_seconds
        late = f"The command was stopped because it ran for more than {seconds:g} seconds." if result.timed_out else ""
        if self._scaffold.toolbox == "editor":
            return "\n".join(filter(None, [result.text.rstrip("\n"), late])) or SILENT
        stopped = f"<exception>{late}</exception>\n" if late else ""
        return f"{stopped}<returncode>{result.status}</returncode>\n<output>\n{result.text}</output>"

    # Editor

    def _edit(self, arguments: dict[str, Any]) -> str:
        command, path = arguments["command"], arguments["path"]
        if not path.startswith("/"):
            raise Refusal(
                f"The path {path} is not an absolute path, it should start with `/`. Maybe you meant {ROOT}/{path}?"
            )
        if command == "view":
            return self._view(path, arguments.get("view_range"))
        if command == "create":
            return self._create(path, _needed(arguments, "file_text"))
        if command == "str_replace":
            return self._replace(path, _needed(arguments, "old_str"), arguments.get("new_str", ""))
        return self._insert(path, _needed(arguments, "insert_line"), _needed(arguments, "new_str"))

    def _view(self, path: str, view_range: list[int] | None) -> str:
        try:
            text, _ = self._read(path)
        except IsADirectoryError:
            if view_range:
                raise Refusal("The `view_range` parameter is not allowed when `path` points to a directory.") from None
            listed = self._sandbox.run(LISTING.format(path=shlex.quote(path))).text
            return (
                f"Here's the files and directories up to 2 levels deep in {path}, excluding hidden items:\n{listed}\n"
            )
        lines = text.split("\n")
        first, last = _range(view_range, len(lines)) if view_range is not None else (1, len(lines))
        return editor.view(path, lines[first - 1 : last], first)

    def _create(self, path: str, text: str) -> str:
        try:
            self._sandbox.read(path)
        except FileNotFoundError:
            self._write(path, text, "utf-8")
            return editor.created(path)
        except OSError as error:
            raise Refusal(f"{path} cannot be created: {error.strerror}.") from error
        raise Refusal(f"File already exists at: {path}. Cannot overwrite files using command `create`.")

    def _replace(self, path: str, old: str, new: str) -> str:
        text, encoding = self._read_file(path)
        if old not in text and "\r\n" in text:
            old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
        place = text.find(old) if old else -1
        if place < 0:
            raise Refusal(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
        lines = [text.count("\n", 0, at) + 1 for at in _places(text, old)]
        if len(lines) > 1:
            raise Refusal(
                f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines {lines}. "
                "Please ensure it is unique"
            )
        if old == new:
            raise Refusal(f"No replacement was performed, old_str `{old}` is the same as new_str `{new}`.")
        after = text[:place] + new + text[place + len(old) :]
        self._write(path, after, encoding)
        return editor.replaced(path, after, place, lines[0], new)

    def _insert(self, path: str, line: int, new: str) -> str:
        text, encoding = self._read_file(path)
        if "\r\n" in text and "\r\n" not in new:
            new = new.replace("\n", "\r\n") + "\r"
        try:
            after = editor.insert(text, line, new)
        except editor.EditError:
            most = text.count("\n") + 1
            raise Refusal(
                f"Invalid `insert_line` parameter: {line}. It should be within the range of lines of the file: {[0, most]}"
            ) from None
        self._write(path, after, encoding)
        place = len("\n".join(after.split("\n")[:line])) + (1 if line else 0)
        return editor.inserted(path, after, place, line + 1, new)

    def _read_file(self, path: str) -> tuple[str, str]:
        try:
            return self._read(path)
        except IsADirectoryError:
            raise Refusal(
                f"The path {path} is a directory and only the `view` command can be used on directories"
            ) from None

    def _read(self, path: str) -> tuple[str, str]:
        """Text and encoding. Raises Refusal, IsADirectoryError."""
        try:
            content = self._sandbox.read(path)
        except IsADirectoryError:
            raise
        except FileNotFoundError:
            raise Refusal(f"The path {path} does not exist. Please provide a valid path.") from None
        except OSError as error:
            raise Refusal(f"{path} cannot be read: {error.strerror}.") from error
        try:
            return content.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            return content.decode("latin-1"), "latin-1"

    def _write(self, path: str, text: str, encoding: str) -> None:
        try:
            content = text.encode(encoding)
        except UnicodeEncodeError as error:
            raise Refusal(f"{path} is not UTF-8, and {error.object[error.start]!r} cannot be written in it.") from error
        try:
            self._sandbox.write(path, content, mode=0)
        except OSError as error:
            raise Refusal(f"{path} cannot be written: {error.strerror}.") from error


def shortened(text: str, most: int) -> tuple[str, int]:
    """Head and tail of a text that is too long, with a line between them that says how much was cut; and how much."""
    cut = len(text) - most
    if cut <= 0:
        return text, 0
    head = most // 2
    tail = text[len(text) - (most - head) :]
    return f"{text[:head]}\n<response clipped: {cut} characters left out>\n{tail}", cut


def _needed(arguments: dict[str, Any], name: str) -> Any:
    if name not in arguments:
        raise Refusal(f"Parameter `{name}` is required for command: {arguments['command']}")
    return arguments[name]


def _range(view_range: list[int], lines: int) -> tuple[int, int]:
    """First and last line, as SWE-agent's editor reads them."""
    if len(view_range) != 2:
        raise Refusal("Invalid `view_range`. It should be a list of two integers.")
    first, last = view_range
    wrong = f"Invalid `view_range`: {view_range}."
    if not 1 <= first <= lines:
        raise Refusal(
            f"{wrong} Its first element `{first}` should be within the range of lines of the file: {[1, lines]}"
        )
    if last > lines:
        raise Refusal(
            f"{wrong} Its second element `{last}` should be smaller than the number of lines in the file: `{lines}`"
        )
    if last != -1 and last < first:
        raise Refusal(f"{wrong} Its second element `{last}` should be larger or equal than its first `{first}`")
    return first, lines if last == -1 else last


def _places(text: str, old: str) -> list[int]:
    """Where a text occurs, overlapping occurrences too."""
    places = []
    place = text.find(old)
    while place >= 0:
        places.append(place)
        place = text.find(old, place + 1)
    return places
