"""mini-swe-agent's `.traj.json` files: version 2 with tool calls or text (`mini-swe-agent-1.1`), and version 1.

Written files are of version 2; what it has no place for stands under `agentdata` in `info` and in `extra` of messages.
A turn that mini-swe-agent could not read is not in its conversation; its correction is, and is read as what came of the
step before.

Not held: calls of other tools than bash among `extra.actions` (they stand in `tool_calls`); costs.
"""

import json
from collections.abc import Iterator
from typing import Any

from agentdata.environments.row_fields import Row
from agentdata.records import Step, StopReason, ToolCall, Trajectory
from agentdata.rollouts.formats.imported import OURS, first_text, imported, keep, ours, tools_text
from agentdata.rollouts.formats.turns import read_turns, seen_extras, step_extras, told_steps, with_form, write_turn

LOST = ("calls of other tools than bash among the actions that its inspector shows", "costs")
EXITS: dict[StopReason, str] = {
    "submitted": "Submitted",
    "step-limit": "LimitsExceeded",
    "token-budget": "LimitsExceeded",
    "context-limit": "ContextWindowExceededError",
    "time-limit": "TimeExceeded",
    "repeated-actions": "LimitsExceeded",
    "format-errors": "RepeatedFormatError",
    "policy-gone": "ServiceUnavailableError",
    "sandbox-gone": "RuntimeError",
}
BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Execute a bash command",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The bash command to execute"}},
            "required": ["command"],
        },
    },
}
"""The only tool of mini-swe-agent 2, which its files do not repeat."""


def is_row(row: Row) -> bool:
    return isinstance(row.get("messages"), list) and isinstance(row.get("info"), dict)


def read_row(row: Row, name: str) -> Trajectory:
    """A trajectory; `name` is the file's. Raises RowError."""
    info = row["info"]
    submission = first_text(info, "submission")
    told, form = with_form(read_turns(list(_spoken(row["messages"], submission)), _told), ours(info).get("form"))
    config = info.get("config")
    model = config.get("model") if isinstance(config, dict) else {}
    return imported(
        info,
        first_text(row, "instance_id") or name,
        told,
        form,
        submission=submission,
        status=first_text(info, "exit_status"),
        model=first_text(model, "model_name") if isinstance(model, dict) else "",
        scaffold="mini-swe-agent",
        scaffold_version=first_text(info, "mini_version"),
        tools=tools_text([BASH] if form == "tool-calls" else None),
    )


def _spoken(messages: list[Any], submission: str) -> Iterator[Any]:
    """Messages that the model saw: version 2 ends with an `exit`, version 1 with the submission as the user's words."""
    for place, message in enumerate(messages):
        last = place == len(messages) - 1 and isinstance(message, dict)
        if isinstance(message, dict) and message.get("role") == "exit":
            continue
        if last and place and message.get("role") == "user" and message.get("content") == submission:
            continue
        yield message


def _told(turn: Row) -> Row:
    extra = turn.get("extra")
    if not isinstance(extra, dict):
        return {}
    status = extra.get("returncode")
    told = {"status": status} if isinstance(status, int) else {}
    return {**told, **_usage(extra), **ours(extra)}


def _usage(extra: Row) -> dict[str, Any]:
    response = extra.get("response")
    response = response if isinstance(response, dict) else {}
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    told = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    choices = response.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        told["finish_reason"] = choices[0].get("finish_reason")
    return {name: value for name, value in told.items() if isinstance(value, int | str)}


def write_file(trajectory: Trajectory) -> dict[str, Any]:
    """The content of a `.traj.json` file."""
    messages: list[dict[str, Any]] = [write_turn(message) for message in trajectory.prompt]
    for step, turn, answers in told_steps(trajectory):
        messages.append({**turn, "extra": _acting(step, turn)})
        for observation, answer in answers:
            messages.append(
                {
                    **answer,
                    "extra": {
                        "raw_output": observation.content,
                        "returncode": observation.status,
                        "exception_info": "",
                        OURS: seen_extras(observation, answer),
                    },
                }
            )
    ending = {"exit_status": EXITS[trajectory.stop], "submission": trajectory.submission}
    messages.append({"role": "exit", "content": trajectory.submission or ending["exit_status"], "extra": ending})
    return {
        "info": {
            "model_stats": {"instance_cost": 0.0, "api_calls": len(trajectory.steps)},
            "config": {"model": {"model_name": trajectory.model}, "agent": {}, "environment": {}},
            "mini_version": "2.0.0",
            **ending,
            OURS: keep(trajectory),
        },
        "messages": messages,
        "trajectory_format": "mini-swe-agent-1.1",
        "instance_id": trajectory.task,
    }


def _acting(step: Step, turn: Row) -> dict[str, Any]:
    usage = {"prompt_tokens": step.prompt_tokens, "completion_tokens": step.completion_tokens}
    actions = [action for call in step.tool_calls if (action := _action(call))]
    return {"actions": actions, "cost": 0.0, "response": {"usage": usage}, OURS: step_extras(step, turn)}


def _action(call: ToolCall) -> dict[str, Any]:
    try:
        given = json.loads(call.function.arguments)
    except ValueError:
        given = None
    if call.function.name != "bash" or not isinstance(given, dict) or not isinstance(given.get("command"), str):
        return {}
    return {"command": given["command"], "tool_call_id": call.id}
