"""OpenHands: rows of its evaluations (`output.jsonl`) and event histories, of version 1 (the SDK) and version 0.

Events become turns first: an assistant's for each reply of the model, however many actions it holds, then what came of
them as OpenHands shows it to the model. Written rows are of version 1. Their actions are calls alone (`action` is null,
as for a call that cannot be executed), and their observations texts, so that no tool of OpenHands has to be loaded; what
they have no place for stands under `agentdata` in `instance`.

Not held: typed actions and observations. Of what is read: knowledge that was recalled, and states of the agent.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agentdata.environments.row_fields import Row, RowError, from_json
from agentdata.records import Message, Observation, Step, Trajectory
from agentdata.rollouts.formats.imported import OURS, first_text, imported, keep, ours
from agentdata.rollouts.formats.openhands_old import old_turns, shell_text
from agentdata.rollouts.formats.turns import Told, read_turns, seen_extras, step_extras, told_steps, with_form, words

LOST = ("typed actions and observations: calls and texts stand for them",)
ERROR = "[An error occurred during execution.]\n"
"""What stands before an observation that is an error, as the model sees it."""
DEMONSTRATION = "demonstration"


def is_row(row: Row) -> bool:
    return isinstance(row.get("history"), list)


def is_history(events: object) -> bool:
    return (
        isinstance(events, list) and bool(events) and all(isinstance(event, dict) for event in events) and _told(events)
    )


def _told(events: list[Any]) -> bool:
    return any("role" not in event and event.keys() & {"kind", "action", "observation"} for event in events)


def read_row(row: Row, name: str = "") -> Trajectory:
    """A row of an evaluation, or `{"history": events}` for a history alone. Raises RowError."""
    instance = row.get("instance")
    instance = instance if isinstance(instance, dict) else {}
    result = row.get("test_result")
    result = from_json(result, "test_result") if isinstance(result, str) else result
    result = result if isinstance(result, dict) else {}
    turns = list(turns_of(row["history"]))
    if not any(turn["role"] in ("system", "user") for turn in turns) and row.get("instruction"):
        turns.insert(0, {"role": "user", "content": row["instruction"]})
    kept = ours(instance)
    told, form = with_form(_with_extras(read_turns(turns, _extras), kept.pop("extras", None)), kept.get("form"))
    metadata = row.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    task = first_text(row, "instance_id") or first_text(instance, "instance_id") or name
    fields: dict[str, Any] = {
        "model": _model(metadata),
        "scaffold": first_text(metadata, "agent_class") or "openhands",
        "scaffold_version": first_text(metadata, "openhands_sdk_version"),
        "base_commit": first_text(instance, "base_commit"),
    }
    if repo := first_text(instance, "repo"):
        fields["repo"] = repo
    if isinstance(row.get("attempt"), int):
        fields["attempt"] = row["attempt"]
    patch = first_text(result, "git_patch") or first_text(row, "git_patch")
    error = first_text(row, "error")
    status = "stuck" if "stuck" in error.lower() else "max_iterations" if "iteration" in error.lower() else error
    return imported({OURS: kept}, task, told, form, submission=patch, status=status, **fields)


def _with_extras(told: Told, extras: object) -> Told:
    """What we kept of each step and observation, put back."""
    prompt, steps = told
    if not isinstance(extras, list) or len(extras) != len(steps):
        return told
    return prompt, tuple(_with_step_extras(step, kept) for step, kept in zip(steps, extras, strict=True))


def _with_step_extras(step: Step, kept: list[dict[str, Any]]) -> Step:
    of_step, *of_seen = kept
    seen = zip(step.observations, of_seen, strict=True)
    observations = tuple(Observation(**{**dict(observation), **more}) for observation, more in seen)
    return Step(**{**dict(step), **of_step, "observations": observations})


def _model(metadata: Row) -> str:
    for key in ("llm", "llm_config"):
        if isinstance(metadata.get(key), dict):
            return first_text(metadata[key], "model")
    return ""


def _extras(turn: Row) -> Row:
    told = turn.get("extras")
    return told if isinstance(told, dict) else {}


def turns_of(history: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The conversation as turns in OpenAI's shape. Raises RowError."""
    events = [part for event in history for part in (event if isinstance(event, list | tuple) else [event])]
    if not all(isinstance(event, dict) for event in events):
        raise RowError("not-an-event", "history holds something else than events")
    yield from _turns(events) if any("kind" in event for event in events) else old_turns(events)


def _turns(events: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Events of version 1. Actions of one reply are one turn."""
    acting: dict[str, Any] = {}
    forgotten = 0
    for event in events:
        kind = event.get("kind")
        if kind == "Condensation":
            forgotten += max(1, len(event.get("forgotten_event_ids") or ()))
            continue
        turn = READ[kind](event) if kind in READ else {}
        if not turn:
            continue
        response = event.get("llm_response_id") if kind == "ActionEvent" else None
        if response and acting.get("response") == response:
            acting["tool_calls"] += turn["tool_calls"]
            continue
        if acting:
            yield acting
        acting = {}
        if kind == "ActionEvent":
            acting = {**turn, "response": response, "extras": {**_extras(turn), **_elided(forgotten)}}
            continue
        yield turn
    if acting:
        yield acting


def _elided(forgotten: int) -> dict[str, Any]:
    return {"elided": forgotten} if forgotten else {}


def _system(event: Row) -> dict[str, Any]:
    parts = [event.get("system_prompt"), event.get("dynamic_context")]
    return {"role": "system", "content": [part for part in parts if part]}


def _message(event: Row) -> dict[str, Any]:
    said = event.get("llm_message")
    if not isinstance(said, dict):
        raise RowError("not-an-event", "a MessageEvent has no llm_message")
    content = [*(said.get("content") or []), *(event.get("extended_content") or [])]
    calls = [_openai_call(call) for call in said.get("tool_calls") or ()]
    return {
        **said,
        "content": content,
        "tool_calls": calls or None,
        "is_demo": event.get("sender") == DEMONSTRATION,
    }


def _openai_call(call: Row) -> dict[str, Any]:
    return {"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("arguments")}}


def _action(event: Row) -> dict[str, Any]:
    call = event.get("tool_call")
    if not isinstance(call, dict):
        raise RowError("not-an-event", "an ActionEvent has no tool_call")
    made = {**_openai_call(call), "id": event.get("tool_call_id") or call.get("id")}
    thought, reasoning = event.get("thought"), event.get("reasoning_content")
    return {"role": "assistant", "content": thought, "reasoning_content": reasoning, "tool_calls": [made]}


def _observation(event: Row) -> dict[str, Any]:
    seen = event.get("observation")
    if not isinstance(seen, dict):
        raise RowError("not-an-event", "an ObservationEvent has no observation")
    metadata = seen.get("metadata")
    text = words(seen)
    extras: dict[str, Any] = {"status": 1} if seen.get("is_error") else {}
    if isinstance(metadata, dict):
        text = shell_text(text, metadata)
        extras = {"status": metadata["exit_code"]} if isinstance(metadata.get("exit_code"), int) else extras
    text = (ERROR if seen.get("is_error") else "") + text + words({"content": event.get("extended_content") or []})
    return {"role": "tool", "content": text, "tool_call_id": event.get("tool_call_id"), "extras": extras}


def _failure(event: Row) -> dict[str, Any]:
    told = {"role": "tool", "tool_call_id": event.get("tool_call_id"), "extras": {"status": 1}}
    if event.get("kind") == "UserRejectObservation":
        return {**told, "content": f"Action rejected: {event.get('rejection_reason')}"}
    return {**told, "content": event.get("error")}


READ: dict[object, Callable[[Row], dict[str, Any]]] = {
    "SystemPromptEvent": _system,
    "MessageEvent": _message,
    "ActionEvent": _action,
    "ObservationEvent": _observation,
    "AgentErrorEvent": _failure,
    "UserRejectObservation": _failure,
}


# Writing


def write_row(trajectory: Trajectory) -> dict[str, Any]:
    """A row of `output.jsonl`."""
    instance = {
        "instance_id": trajectory.task,
        "repo": trajectory.repo,
        "base_commit": trajectory.base_commit,
        OURS: {**keep(trajectory), "extras": _all_extras(trajectory)},
    }
    return {
        "instance_id": trajectory.task,
        "attempt": trajectory.attempt,
        "test_result": {"git_patch": trajectory.submission},
        "instruction": next((turn.content for turn in trajectory.prompt if turn.role == "user"), ""),
        "metadata": None,
        "history": list(_events(trajectory)),
        "metrics": None,
        "error": None,
        "instance": instance,
    }


def _all_extras(trajectory: Trajectory) -> list[list[dict[str, Any]]]:
    return [
        [step_extras(step, turn), *(seen_extras(observation, answer) for observation, answer in answers)]
        for step, turn, answers in told_steps(trajectory)
    ]


def _events(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    told: list[dict[str, Any]] = [_opening(message) for message in trajectory.prompt]
    for number, (step, turn, answers) in enumerate(told_steps(trajectory)):
        actions = list(_acting(step, number)) if turn.get("tool_calls") else [_saying(turn, "agent")]
        told += actions
        ids = {
            action.get("tool_call_id"): (action["id"], action["tool_name"])
            for action in actions
            if "tool_name" in action
        }
        for place, (observation, answer) in enumerate(answers):
            told.append(_answer(observation, answer, ids, f"observation-{number}-{place}"))
    for place, event in enumerate(told):
        yield {"id": f"event-{place:05}", "timestamp": trajectory.created_at, **event}


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}] if text else []


def _opening(message: Message) -> dict[str, Any]:
    if message.role == "system":
        prompt = {"type": "text", "text": message.content}
        return {"kind": "SystemPromptEvent", "source": "agent", "system_prompt": prompt, "tools": []}
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            _call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.role == "user":
        return _saying(turn, "user")
    return {**_saying(turn, "agent"), "sender": DEMONSTRATION}


def _saying(turn: Row, source: str) -> dict[str, Any]:
    return {"kind": "MessageEvent", "source": source, "llm_message": {**turn, "content": _parts(turn["content"])}}


def _acting(step: Step, number: int) -> Iterator[dict[str, Any]]:
    for place, call in enumerate(step.tool_calls):
        yield {
            "id": f"action-{number}-{place}",
            "kind": "ActionEvent",
            "source": "agent",
            "thought": [] if place else _parts(step.content),
            "reasoning_content": None if place else step.reasoning_content or None,
            "action": None,
            "tool_name": call.function.name,
            "tool_call_id": call.id,
            "tool_call": _call(call.id, call.function.name, call.function.arguments),
            "llm_response_id": f"response-{number}",
        }


def _call(identity: str, name: str, arguments: str) -> dict[str, str]:
    return {"id": identity, "name": name, "arguments": arguments, "origin": "completion"}


def _answer(observation: Observation, answer: Row, ids: dict[object, tuple[str, str]], identity: str) -> dict[str, Any]:
    if answer["role"] != "tool":
        return {**_saying({"role": "user", "content": observation.content}, "user"), "id": identity}
    action, tool = ids.get(observation.tool_call_id, ("", ""))
    seen = {"kind": "ClientToolObservation", "content": _parts(observation.content), "is_error": False}
    return {
        "id": identity,
        "kind": "ObservationEvent",
        "source": "environment",
        "observation": seen,
        "action_id": action,
        "tool_name": tool,
        "tool_call_id": observation.tool_call_id,
    }
