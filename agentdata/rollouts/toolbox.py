"""A call to what it does in the sandbox and what the policy sees of it.

`editor`: bash in a session that keeps directory and variables, `str_replace_editor`, `submit`. `bash-only`: each command
in a fresh shell; one that succeeds and prints `COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT` first hands the work in.
"""

import json
import time
from typing import NamedTuple

from agentdata.editor import ROOT, SILENT, EditError
from agentdata.records import Observation, ToolCall
from agentdata.rollouts.file_editor import FileEditor
from agentdata.rollouts.scaffold import Scaffold
from sandboxes.protocol import CommandResult, Sandbox, Session

VARIABLES = {
    "PAGER": "cat",
    "MANPAGER": "cat",
    "GIT_PAGER": "cat",
    "LESS": "-R",
    "PIP_PROGRESS_BAR": "off",
    "TQDM_DISABLE": "1",
}
"""What programs are told, so that none of them waits for a reader or draws."""
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
LONG = "(Long output. Print less of it: search with grep, show a part with sed -n, or write it to a file first.)"


class Cut(NamedTuple):
    """A text of which the middle may be missing."""

    head: str
    tail: str
    """Empty where nothing is missing."""
    missing: int
    """Characters."""


def cut(text: str, most: int, already: int = 0) -> Cut:
    """Keep head and tail of a text longer than `most` characters. `already`: what was taken out of it before."""
    if len(text) <= most:
        return Cut(text, "", 0)
    half = most // 2
    return Cut(text[: most - half], text[len(text) - half :], len(text) - most + already)


class Toolbox:
    """The tools of one attempt. The session is opened by the first command that needs it."""

    def __init__(self, sandbox: Sandbox, scaffold: Scaffold, workdir: str = ROOT) -> None:
        self._sandbox = sandbox
        self._scaffold = scaffold
        self._workdir = workdir
        self._session: Session | None = None
        self._files = FileEditor(sandbox)
        self.handed_in = False
        """Whether a command printed the line that hands the work in."""

    def is_submit(self, call: ToolCall) -> bool:
        """Whether a call hands in the work without running anything."""
        return call.function.name == "submit"

    def run(self, call: ToolCall) -> Observation:
        """Run a call that was read by `parsing.read_calls`. Raises SandboxError."""
        began = time.monotonic()
        arguments = json.loads(call.function.arguments)
        if self._scaffold.toolbox == "bash-only":
            content, status, missing = self._run_alone(_writable(arguments["command"]))
        elif call.function.name == "bash":
            content, status, missing = self._run_in_session(_writable(arguments["command"]))
        else:
            content, status, missing = self._edit(arguments)
        return Observation(
            tool_call_id=call.id,
            content=self._scaffold.observation_prompt.replace("{observation}", content),
            status=status,
            seconds=time.monotonic() - began,
            cut_characters=missing,
        )

    def _edit(self, arguments: dict[str, object]) -> tuple[str, int, int]:
        try:
            printed, status = self._files.run(arguments), 0
        except EditError as error:
            printed, status = str(error), 1
        kept = cut(printed, self._scaffold.most_observation_characters)
        return _clipped(kept), status, kept.missing

    def _run_in_session(self, command: str) -> tuple[str, int, int]:
        if self._session is None:
            self._session = self._sandbox.session(workdir=self._workdir)
            self._session.run(f"export {' '.join(f'{name}={value}' for name, value in VARIABLES.items())}")
        seconds = self._scaffold.command_seconds
        result = self._session.run(command, timeout=seconds)
        kept = self._cut(result)
        content = _clipped(kept)
        if result.timed_out:
            content += f"{_line_end(content)}{stopped(seconds)} The shell is as it was before the command."
        elif not content:
            content = (
                SILENT if result.status == 0 else f"Your command printed nothing; its exit status is {result.status}."
            )
        return content, result.status, kept.missing

    def _run_alone(self, command: str) -> tuple[str, int, int]:
        seconds = self._scaffold.command_seconds
        result = self._sandbox.run(command, timeout=seconds, workdir=self._workdir, environment=VARIABLES)
        first = result.text.lstrip().partition("\n")[0].strip()
        self.handed_in = first == SUBMIT and result.status == 0
        kept = self._cut(result)
        exception = f"<exception>{stopped(seconds)}</exception>\n" if result.timed_out else ""
        content = f"{exception}<returncode>{-1 if result.timed_out else result.status}</returncode>\n"
        if not kept.missing:
            return f"{content}<output>\n{kept.head}</output>", result.status, 0
        content += (
            f"<warning>\n{LONG}\n</warning>\n<output_head>\n{kept.head}\n</output_head>\n"
            f"<elided_chars>\n{kept.missing} characters elided\n</elided_chars>\n"
            f"<output_tail>\n{kept.tail}\n</output_tail>"
        )
        return content, result.status, kept.missing

    def _cut(self, result: CommandResult) -> Cut:
        return cut(result.text, self._scaffold.most_observation_characters, result.cut_bytes)


def _writable(command: str) -> str:
    """A command that can be sent: half a character, which JSON can hold, is not one."""
    return command.encode(errors="replace").decode()


def _clipped(kept: Cut) -> str:
    if not kept.missing:
        return kept.head
    return (
        f"{kept.head}\n<response clipped><NOTE>{kept.missing} characters are left out here. {LONG}</NOTE>\n{kept.tail}"
    )


def _line_end(text: str) -> str:
    return "" if not text or text.endswith("\n") else "\n"


def stopped(seconds: float) -> str:
    """What is said of a command that took too long."""
    return (
        f"The command was stopped because it took more than {seconds:g} seconds."
        " Run something that ends sooner; nothing can be typed into a command that waits for input."
    )
