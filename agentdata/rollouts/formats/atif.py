"""ATIF, the Agent Trajectory Interchange Format of Harbor, version 1.7 (written only).

Turns of the prompt are steps of `system` and `user`; those of a demonstration are copied context. Everything of ours
that ATIF has no place for stands under `extra`; a call's text does where it is not the plain form of its arguments.

Not held outside of `extra`: verdicts, submissions, exit statuses.
"""

import json
from collections.abc import Sequence
from typing import Any

from agentdata.records import Message, Observation, Step, ToolCall, Trajectory
from agentdata.rollouts.formats.imported import OURS, keep
from agentdata.rollouts.formats.turns import SEEN_EXTRAS

VERSION = "ATIF-v1.7"
LOST = ("submission, verdict and exit statuses outside of `extra`, where they are",)
METRICS = {
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "prompt_token_ids": "prompt_token_ids",
    "token_ids": "completion_token_ids",
    "logprobs": "logprobs",
}


def write_file(trajectory: Trajectory) -> dict[str, Any]:
    """The content of a trajectory.json file."""
    steps = [*_opening(trajectory.prompt), *(_step(step) for step in trajectory.steps)]
    for number, step in enumerate(steps, 1):
        step["step_id"] = number
    return {
        "schema_version": VERSION,
        "session_id": trajectory.id,
        "trajectory_id": trajectory.id,
        "agent": _agent(trajectory),
        "steps": steps,
        "final_metrics": {
            "total_prompt_tokens": sum(step.prompt_tokens for step in trajectory.steps),
            "total_completion_tokens": sum(step.completion_tokens for step in trajectory.steps),
            "total_steps": len(steps),
        },
        "extra": {"submission": trajectory.submission, OURS: keep(trajectory)},
    }


def _agent(trajectory: Trajectory) -> dict[str, Any]:
    agent: dict[str, Any] = {
        "name": trajectory.scaffold or "unknown",
        "version": trajectory.scaffold_version or "unknown",
        "model_name": trajectory.model,
    }
    tools = json.loads(trajectory.tools) if trajectory.tools else []
    return {**agent, "tool_definitions": tools} if isinstance(tools, list) and tools else agent


def _opening(prompt: Sequence[Message]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for message in prompt:
        if message.role == "tool" and steps and steps[-1]["source"] == "agent":
            ids = {call["tool_call_id"] for call in steps[-1].get("tool_calls", [])}
            _answered(steps[-1], message.tool_call_id if message.tool_call_id in ids else None, message.content)
        elif message.role == "assistant":
            calls = {"tool_calls": [_call(call) for call in message.tool_calls]} if message.tool_calls else {}
            steps.append({"source": "agent", "message": message.content, "is_copied_context": True, **calls})
        else:
            steps.append({"source": "system" if message.role == "system" else "user", "message": message.content})
    return steps


def _answered(step: dict[str, Any], call: str | None, content: str, extra: dict[str, Any] | None = None) -> None:
    result = {"source_call_id": call, "content": content, "extra": extra}
    results = step.setdefault("observation", {"results": []})["results"]
    results.append({name: value for name, value in result.items() if value is not None and value != {}})


def _step(step: Step) -> dict[str, Any]:
    made: dict[str, Any] = {"source": "agent", "message": step.content, "llm_call_count": 1}
    if step.reasoning_content:
        made["reasoning_content"] = step.reasoning_content
    if step.tool_calls:
        made["tool_calls"] = [_call(call) for call in step.tool_calls]
    ids = {call.id for call in step.tool_calls}
    for observation in step.observations:
        _answered(
            made,
            _source(observation, ids),
            observation.content,
            seen_extras(observation, {"tool_call_id": observation.tool_call_id}),
        )
    metrics = {theirs: _plain(getattr(step, ours)) for ours, theirs in METRICS.items() if getattr(step, ours)}
    if metrics:
        made["metrics"] = metrics
    extra = {name: value for name in ("finish_reason", "seconds") if (value := getattr(step, name))}
    return {**made, "extra": extra} if extra else made


def _statuses(observation: Observation) -> dict[str, Any]:
    return observation.model_dump(include=set(SEEN_EXTRAS), exclude_defaults=True)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _call(call: ToolCall) -> dict[str, Any]:
    """Arguments are a mapping in ATIF; text that is not its plain form is kept beside it."""
    text = call.function.arguments
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    made = {"tool_call_id": call.id, "function_name": call.function.name}
    if not isinstance(arguments, dict):
        return {**made, "arguments": {}, "extra": {"arguments": text}}
    plain = json.dumps(arguments, ensure_ascii=False) == text
    return {**made, "arguments": arguments, **({} if plain else {"extra": {"arguments": text}})}
