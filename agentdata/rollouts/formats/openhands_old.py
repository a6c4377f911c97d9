"""Events of OpenHands before version 1 (`action`, `observation`, `cause`) to turns in OpenAI's shape."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentdata.environments.row_fields import Row, RowError

TOOLS = {
    "run": "execute_bash",
    "run_ipython": "execute_ipython_cell",
    "edit": "str_replace_editor",
    "read": "str_replace_editor",
    "write": "str_replace_editor",
    "browse_interactive": "browser",
}
"""Action to the tool that made it, where an event does not tell."""
SILENT = ("agent_state_changed", "null", "recall", "loop_detection")
"""Observations that the model does not see as such."""
UNSAID = ("recall", "change_agent_state", "null", "condensation", "condensation_request", "loop_recovery")
TOLD = ("thought", "hidden", "confirmation_state", "security_risk", "blocking", "is_static", "cwd", "impl_source")
"""Arguments of an event that are not the call's."""


def old_turns(events: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Turns of the conversation. Raises RowError."""
    calls: dict[object, str] = {}
    replies: set[str] = set()
    for event in events:
        if "action" in event:
            turn = _acting(event, calls, replies)
        elif "observation" in event:
            turn = _observed(event, calls)
        else:
            raise RowError("not-an-event", f"an event is neither action nor observation: {str(event)[:80]}")
        if turn:
            yield turn


def _acting(event: Row, calls: dict[object, str], replies: set[str]) -> dict[str, Any]:
    given = event.get("args")
    arguments: Row = given if isinstance(given, Mapping) else {}
    kind, agent = event["action"], event.get("source") == "agent"
    if kind == "system":
        return {"role": "system", "content": arguments.get("content")}
    if kind == "message":
        return {"role": "assistant" if agent else "user", "content": arguments.get("content")}
    if kind in UNSAID or not agent:
        return {}
    metadata = event.get("tool_call_metadata")
    if isinstance(metadata, Mapping):
        calls[event.get("id")] = str(metadata.get("tool_call_id"))
        return _reply(metadata, replies)
    identity = calls[event.get("id")] = f"event_{event.get('id')}"
    made = {name: value for name, value in arguments.items() if name not in TOLD and value is not None}
    function = {"name": TOOLS.get(str(kind), str(kind)), "arguments": json.dumps(made, ensure_ascii=False)}
    turn: dict[str, Any] = {"role": "assistant", "content": arguments.get("thought")}
    return {**turn, "tool_calls": [{"id": identity, "function": function}]}


def _reply(metadata: Row, replies: set[str]) -> dict[str, Any]:
    """The model's own words and calls, once for all actions that came of them."""
    response = metadata.get("model_response")
    choices = response.get("choices") if isinstance(response, Mapping) else None
    message = (
        choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else None
    )
    if not isinstance(response, Mapping) or not isinstance(message, Mapping):
        raise RowError("not-an-event", "tool_call_metadata holds no message of the model")
    identity = str(response.get("id") or metadata.get("tool_call_id"))
    if identity in replies:
        return {}
    replies.add(identity)
    return {**message, "role": "assistant"}


def _observed(event: Row, calls: dict[object, str]) -> dict[str, Any]:
    if event["observation"] in SILENT:
        return {}
    metadata = event.get("tool_call_metadata")
    call = str(metadata.get("tool_call_id")) if isinstance(metadata, Mapping) else calls.get(event.get("cause"), "")
    text, extras = event.get("content") or "", event.get("extras")
    told = extras.get("metadata") if isinstance(extras, Mapping) else None
    status: dict[str, Any] = {}
    if event["observation"] == "run" and isinstance(told, Mapping):
        text = shell_text(text, told)
        status = {"status": told["exit_code"]} if isinstance(told.get("exit_code"), int) else {}
    if event["observation"] == "error":
        text, status = f"{text}\n[Error occurred in processing last action]", {"status": 1}
    role = "tool" if call else "user"
    return {"role": role, "content": text, "tool_call_id": call, "extras": status}


def shell_text(text: str, metadata: Row) -> str:
    """What the model sees of a command: its output and what the shell says of itself."""
    told = f"{metadata.get('prefix') or ''}{text}{metadata.get('suffix') or ''}"
    if metadata.get("working_dir"):
        told += f"\n[Current working directory: {metadata['working_dir']}]"
    if metadata.get("py_interpreter_path"):
        told += f"\n[Python interpreter: {metadata['py_interpreter_path']}]"
    if metadata.get("exit_code", -1) != -1:
        told += f"\n[Command finished with exit code {metadata['exit_code']}]"
    return told
