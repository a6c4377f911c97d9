"""Policies that need no model: gold solves a task from its gold patch, null does nothing, others repeat given turns.

Each is a pure function of the conversation, so that one policy may serve an attempt that is stopped and made again.
"""

import base64
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentdata.editor import ROOT
from agentdata.environments.patches import FilePatch, split
from agentdata.records import FunctionCall, Message, ToolCall, Trajectory
from agentdata.rollouts.parsing import written
from agentdata.rollouts.policy import PolicyGone, Reply, Sampling
from agentdata.rollouts.scaffold import Scaffold
from agentdata.rollouts.toolbox import SUBMIT

REFUSED = re.compile(
    r"No replacement was performed|Invalid `insert_line`|File already exists at|The path .* (?:does not exist|is a dir)"
    r"|Ran into "
)
"""How observations begin where the editor refused."""
HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
MOST_COMMAND_CHARACTERS = 60_000
"""Longer commands are written in parts: a shell takes 128 KiB at most."""


class ScriptedPolicy:
    """Plays given turns, one after the other. Raises PolicyGone when there are no more."""

    def __init__(self, turns: Sequence[Reply]) -> None:
        self._turns = tuple(turns)

    def reply(self, messages: Sequence[Message], tools: str, sampling: Sampling, seed: int) -> Reply:  # noqa: ARG002
        """The turn whose number is that of the turns before it."""
        turn = turns_in(messages)
        if turn >= len(self._turns):
            raise PolicyGone(f"The script has {len(self._turns)} turns and was asked for one more.", final=True)
        return self._turns[turn]


class NullPolicy(ScriptedPolicy):
    """Hands in the tree as it is."""

    def __init__(self, scaffold: Scaffold) -> None:
        super().__init__([turn_of(scaffold, _submit(scaffold))])


class ReplayPolicy(ScriptedPolicy):
    """Repeats the turns of a stored trajectory, without the tokens of their prompts."""

    def __init__(self, trajectory: Trajectory) -> None:
        kept = set(Reply.model_fields) - {"prompt_token_ids"}
        super().__init__([Reply(**{name: value for name, value in step if name in kept}) for step in trajectory.steps])


@dataclass(frozen=True, slots=True)
class Move:
    """A call, and the one that does the same where the editor refuses it."""

    call: FunctionCall
    otherwise: FunctionCall | None = None


class GoldPolicy:
    """Makes the edits of a patch through the tools of a scaffold; what the editor refuses, with `git apply`."""

    def __init__(self, patch: str, scaffold: Scaffold, workdir: str = ROOT) -> None:
        self._scaffold = scaffold
        self._moves = [*gold_moves(patch, scaffold, workdir), Move(_submit(scaffold))]

    def reply(self, messages: Sequence[Message], tools: str, sampling: Sampling, seed: int) -> Reply:  # noqa: ARG002
        """The next move, or the last one by other means if it was refused."""
        made, first, refused = 0, False, False
        for message in messages:
            if message.role == "assistant":
                made, first, refused = made + (not refused), not refused, False
            elif first and self._moves[made - 1].otherwise is not None:
                refused = bool(REFUSED.match(message.content.removeprefix("OBSERVATION:\n")))
        move = self._moves[made - 1] if refused else self._moves[min(made, len(self._moves) - 1)]
        call = move.otherwise if refused and move.otherwise is not None else move.call
        return turn_of(self._scaffold, call, turns_in(messages))


def turns_in(messages: Sequence[Message]) -> int:
    """How many turns a policy has had."""
    return sum(message.role == "assistant" for message in messages)


def turn_of(scaffold: Scaffold, call: FunctionCall, number: int = 0) -> Reply:
    """A turn that makes one call, as the scaffold's form has it; `number` counts the turns."""
    if scaffold.form == "tool-calls":
        made = ToolCall(id=f"call_{number + 1:04}", function=call)
        return Reply(content="", tool_calls=(made,), finish_reason="tool_calls")
    thought = "THOUGHT: The next step.\n\n" if scaffold.form == "fenced" else ""
    return Reply(content=thought + written(scaffold, call))


# A patch to moves


def gold_moves(patch: str, scaffold: Scaffold, workdir: str = ROOT) -> Iterator[Move]:
    """What makes the change of a patch, file by file and from top to bottom."""
    for file in split(patch):
        if scaffold.toolbox == "bash-only" or file.binary or _is_odd(file):
            yield from (Move(call) for call in _applying(file.text))
        else:
            yield from _file_moves(file, workdir)


def _is_odd(file: FilePatch) -> bool:
    """Whether a file is a copy or a link, or has a name that cannot stand in a diff as it is."""
    named = any(re.search(r'[\x00-\x1f"\\\x7f]', name) for name in file.names)
    return named or file.change == "copied" or "120000" in file.text.partition("\n@@ ")[0]


def _file_moves(file: FilePatch, workdir: str) -> Iterator[Move]:
    path, quoted = f"{workdir}/{file.path}", shlex.quote(file.path)
    if file.change == "deleted":
        yield Move(_bash(f"rm -- {quoted}"))
        return
    if file.change == "renamed":
        folder = shlex.quote(file.path.rpartition("/")[0] or ".")
        yield Move(_bash(f"mkdir -p -- {folder} && mv -- {shlex.quote(file.names[0])} {quoted}"))
    if file.change == "added":
        yield Move(_edit("create", path, file_text="".join(hunk.new for hunk in _hunks(file))))
    else:
        yield from (_hunk_move(hunk, file.path, path) for hunk in _hunks(file))
    if file.mode == "100755" or (file.mode == "100644" and file.change != "added"):
        yield Move(_bash(f"chmod {file.mode[-3:]} -- {quoted}"))


@dataclass(frozen=True, slots=True)
class Hunk:
    """A hunk of a diff. The lines have their marks and, but for a last one without, their ends."""

    start: int
    """Its first line in the text with all hunks before it applied, from 1."""
    lines: tuple[str, ...]

    @property
    def old(self) -> str:
        """The text that it replaces."""
        return "".join(line[1:] for line in self.lines if line[0] in " -")

    @property
    def new(self) -> str:
        """The text that it writes."""
        return "".join(line[1:] for line in self.lines if line[0] in " +")


def _hunks(file: FilePatch) -> Iterator[Hunk]:
    start, lines, old, new = 0, list[str](), 0, 0
    for line in file.text.split("\n"):
        if line.startswith("\\") and lines:
            lines[-1] = lines[-1][:-1]
        elif old > 0 or new > 0:
            mark = line[:1] or " "
            old, new = old - (mark in " -"), new - (mark in " +")
            lines.append(f"{mark}{line[1:]}\n")
        elif match := HUNK.match(line):
            if lines:
                yield Hunk(start, tuple(lines))
            start, lines = int(match[2]) + (match[3] == "0"), []
            old, new = int(match[1] or 1), int(match[3] or 1)
    if lines:
        yield Hunk(start, tuple(lines))


def _hunk_move(hunk: Hunk, name: str, path: str) -> Move:
    """Lines that are only added are inserted; other text is replaced, if it occurs once."""
    otherwise = next(_applying(_diff(hunk, name)))
    marks = "".join(line[0] for line in hunk.lines)
    added = "".join(line[1:] for line in hunk.lines if line[0] == "+")
    if re.fullmatch(r" *\++ *", marks) and added.endswith("\n"):
        line = hunk.start - 1 + marks.index("+")
        return Move(_edit("insert", path, insert_line=line, new_str=added[:-1]), otherwise)
    old, new = hunk.old, hunk.new
    if old.endswith("\n") and new.endswith("\n") and old.strip():
        old, new = old[:-1], new[:-1]
    return Move(_edit("str_replace", path, old_str=old, new_str=new), otherwise)


def _diff(hunk: Hunk, name: str) -> str:
    """A diff of one hunk alone."""
    old, new = (sum(line[0] in marks for line in hunk.lines) for marks in (" -", " +"))
    ranges = f"-{hunk.start - (old == 0)},{old} +{hunk.start - (new == 0)},{new}"
    body = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in hunk.lines)
    return f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ {ranges} @@\n{body}"


def _applying(diff: str) -> Iterator[FunctionCall]:
    """Commands that apply a diff; a shell takes only so much at once."""
    if len(diff) <= MOST_COMMAND_CHARACTERS:
        end = "" if diff.endswith("\n") else "\n"
        yield _bash(f"git apply --whitespace=nowarn - <<'END_OF_PATCH'\n{diff}{end}END_OF_PATCH")
        return
    encoded = base64.b64encode(diff.encode("utf-8", "surrogateescape")).decode()
    parts = range(0, len(encoded), MOST_COMMAND_CHARACTERS)
    for place in parts:
        arrow = ">>" if place else ">"
        yield _bash(f"printf %s {encoded[place : place + MOST_COMMAND_CHARACTERS]} {arrow} /tmp/patch")
    yield _bash("base64 -d /tmp/patch | git apply --whitespace=nowarn -")


def _bash(command: str) -> FunctionCall:
    return _call("bash", command=command)


def _edit(command: str, path: str, **arguments: object) -> FunctionCall:
    return _call("str_replace_editor", command=command, path=path, **arguments)


def _call(name: str, **arguments: object) -> FunctionCall:
    return FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False))


def _submit(scaffold: Scaffold) -> FunctionCall:
    return _bash(f"echo {SUBMIT}") if scaffold.toolbox == "bash-only" else _call("submit")
