"""Policies that need no model."""

import json
from collections.abc import Sequence

from agentdata.records import FunctionCall, Message, ToolCall, Trajectory
from agentdata.rollouts.policy import Reply, Sampling
from agentdata.rollouts.scaffold import Scaffold


class ScriptedPolicy:
    """Plays given turns, the last one for ever."""

    def __init__(self, turns: Sequence[Reply]) -> None:
        self._turns = list(turns)
        self._next = 0

    def reply(self, messages: Sequence[Message], tools: str, sampling: Sampling, seed: int) -> Reply:
        self._next += 1
        return self._turns[min(self._next, len(self._turns)) - 1]


def NullPolicy(scaffold: Scaffold) -> ScriptedPolicy:
    return ScriptedPolicy([_turn("submit", {})])


def GoldPolicy(patch: str, scaffold: Scaffold) -> ScriptedPolicy:
    return ScriptedPolicy([_turn("bash", {"command": f"git apply <<'EOF'\n{patch}\nEOF"}), _turn("submit", {})])


def ReplayPolicy(trajectory: Trajectory) -> ScriptedPolicy:
    return ScriptedPolicy([Reply(content=step.content, tool_calls=step.tool_calls) for step in trajectory.steps])


def _turn(name: str, arguments: dict) -> Reply:
    return Reply(
        content="", tool_calls=(ToolCall(id="", function=FunctionCall(name=name, arguments=json.dumps(arguments))),)
    )
