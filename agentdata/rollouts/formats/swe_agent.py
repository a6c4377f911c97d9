"""SWE-agent's `.traj` files, of version 1 (tool calls and text) and before.

The conversation is `history`; `trajectory` repeats it by steps. Written files keep what SWE-agent has no place for under
`agentdata` in `info` and in each step's `extra_info`, and `query` at the last step alone, where SWE-smith reads it.

Not held: replay_config, so that `sweagent run-replay` needs one from elsewhere; states of the environment between steps.
"""

import json
from typing import Any

from agentdata.environments.row_fields import Row, RowError
from agentdata.records import CallForm, Step, StopReason, Trajectory
from agentdata.rollouts.formats.imported import OURS, first_text, imported, keep, ours, tools_text
from agentdata.rollouts.formats.turns import (
    XML_CALL,
    Told,
    read_turns,
    seen_extras,
    step_extras,
    told_steps,
    with_form,
    words,
    write_turn,
)

LOST = ("replay_config and the environment's state at each step, which only SWE-agent itself has",)
EXITS: dict[StopReason, str] = {
    "submitted": "submitted",
    "step-limit": "exit_cost",
    "token-budget": "exit_cost",
    "context-limit": "exit_context",
    "time-limit": "exit_total_execution_time",
    "repeated-actions": "exit_error",
    "format-errors": "exit_format",
    "policy-gone": "exit_api",
    "sandbox-gone": "exit_environment_error",
}


def is_row(row: Row) -> bool:
    """Whether a row is a `.traj`; a demonstration has the history alone."""
    history = row.get("history")
    return isinstance(history, list) and bool(history) and isinstance(history[0], dict) and "role" in history[0]


def read_row(row: Row, name: str) -> Trajectory:
    """A trajectory; `name` is the file's. Raises RowError."""
    info = row.get("info")
    info = info if isinstance(info, dict) else {}
    prompt, steps = _after_demonstrations(row["history"])
    steps = tuple(_timed(step, entry) for step, entry in zip(steps, _entries(row, len(steps)), strict=True))
    told, form = with_form((prompt, steps), ours(info).get("form") or _text_form(row["history"]))
    task = first_text(row, "environment") or name
    task = name if task in ("main", "swe_main") else task
    config = _config(row)
    agent = config.get("agent") if isinstance(config.get("agent"), dict) else {}
    model = agent.get("model") if isinstance(agent, dict) and isinstance(agent.get("model"), dict) else {}
    return imported(
        info,
        task,
        told,
        form,
        submission=first_text(info, "submission"),
        status=first_text(info, "exit_status"),
        model=first_text(model or {}, "name"),
        scaffold="swe-agent",
        scaffold_version=first_text(info, "swe_agent_version"),
        tools=tools_text(None),
    )


def _config(row: Row) -> dict[str, Any]:
    given = row.get("replay_config")
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _after_demonstrations(history: list[Any]) -> Told:
    """Demonstrations belong to the prompt, also where they hold turns of an assistant."""
    last = max(
        (place for place, turn in enumerate(history) if isinstance(turn, dict) and turn.get("is_demo")), default=-1
    )
    marked = [
        {**turn, "is_demo": True} if place <= last and isinstance(turn, dict) else turn
        for place, turn in enumerate(history)
    ]
    return read_turns(marked, _told)


def _told(turn: Row) -> Row:
    """What we kept, and the action of a turn without calls: what SWE-agent's parser read out of its text."""
    action = turn.get("action")
    if OURS in turn or turn.get("tool_calls") or not isinstance(action, str) or not action.strip() or _tagged(turn):
        return ours(turn)
    arguments = json.dumps({"command": action.strip()}, ensure_ascii=False)
    return {"tool_calls": [{"function": {"name": "bash", "arguments": arguments}}]}


def _tagged(turn: Row) -> bool:
    return XML_CALL.search(words(turn)) is not None


def _text_form(history: list[Any]) -> CallForm | None:
    """How calls are written where the server read none of them out of the text."""
    acting = [turn for turn in history if isinstance(turn, dict) and turn.get("role") == "assistant"]
    if any(turn.get("tool_calls") for turn in acting):
        return None
    return "xml" if any(map(_tagged, acting)) else "fenced"


def _entries(row: Row, steps: int) -> list[Row]:
    """The steps of `trajectory`, where they are as many as those of the conversation."""
    entries: list[Row] = [entry for entry in row.get("trajectory") or () if isinstance(entry, dict)]
    return entries if len(entries) == steps else [{}] * steps


def _timed(step: Step, entry: Row) -> Step:
    seconds = entry.get("execution_time")
    if not step.observations or not isinstance(seconds, int | float) or any(seen.seconds for seen in step.observations):
        return step
    first = step.observations[0].model_copy(update={"seconds": float(seconds)})
    return step.model_copy(update={"observations": (first, *step.observations[1:])})


def write_file(trajectory: Trajectory) -> dict[str, Any]:
    """The content of a `.traj` file."""
    if not trajectory.steps:
        raise RowError("no-steps", "SWE-agent has no trajectory without a step")
    history = [_opening(write_turn(message)) for message in trajectory.prompt]
    entries: list[dict[str, Any]] = []
    for step, turn, answers in told_steps(trajectory):
        before = list(history)
        action = "\n".join(_action(call.function.name, call.function.arguments) for call in step.tool_calls)
        history.append(_acting(step, turn, action))
        for observation, answer in answers:
            history.append(_answer(answer, seen_extras(observation, answer)))
        entries.append(_entry(step, action))
    entries[-1]["query"] = before
    return {
        "environment": trajectory.task,
        "trajectory": entries,
        "history": history,
        "info": {
            "exit_status": EXITS[trajectory.stop],
            "submission": trajectory.submission,
            "model_stats": _stats(trajectory),
            OURS: keep(trajectory),
        },
    }


def _opening(turn: dict[str, Any]) -> dict[str, Any]:
    kinds = {"system": "system_prompt", "assistant": "action"}
    demonstration = {"is_demo": True} if turn["role"] in ("assistant", "tool") else {}
    ids = {"tool_call_ids": [turn["tool_call_id"]]} if turn["role"] == "tool" else {}
    return {**turn, "agent": "main", "message_type": kinds.get(turn["role"], "observation"), **demonstration, **ids}


def _acting(step: Step, turn: dict[str, Any], action: str) -> dict[str, Any]:
    named = {"thought": step.content, "action": action, "agent": "main", "message_type": "action"}
    return {**turn, "tool_calls": turn.get("tool_calls"), **named, OURS: step_extras(step, turn)}


def _answer(turn: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    ids = {"tool_call_ids": [turn["tool_call_id"]]} if turn["role"] == "tool" else {}
    return {**turn, "agent": "main", "message_type": "observation", **ids, OURS: extras}


def _entry(step: Step, action: str) -> dict[str, Any]:
    return {
        "action": action,
        "observation": "\n".join(seen.content for seen in step.observations),
        "response": step.content,
        "thought": step.content,
        "execution_time": sum(seen.seconds for seen in step.observations),
        "state": {},
        "query": [],
        "extra_info": {},
    }


def _action(name: str, arguments: str) -> str:
    """A call as SWE-agent's command line: bash as it is, other tools by name."""
    try:
        given = json.loads(arguments)
    except ValueError:
        return f"{name} {arguments}"
    if name == "bash" and isinstance(given, dict) and isinstance(given.get("command"), str):
        return str(given["command"])
    return name if not given else f"{name} {arguments}"


def _stats(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "instance_cost": 0.0,
        "tokens_sent": sum(step.prompt_tokens for step in trajectory.steps),
        "tokens_received": sum(step.completion_tokens for step in trajectory.steps),
        "api_calls": len(trajectory.steps),
    }
