"""What all forms have in common: chat turns in OpenAI's shape to prompt and steps, and back.

A turn of the assistant begins a step; every other turn until the next one is what came of it. What stands before the
first step is the prompt.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from agentdata.environments.row_fields import Row, RowError, usable
from agentdata.records import CallForm, FunctionCall, Message, Observation, Step, ToolCall, Trajectory
from agentdata.rollouts.samples import seen

Told = tuple[tuple[Message, ...], tuple[Step, ...]]
"""What stood before the first step, and the steps."""
ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "tool": "tool"}
AGENT = ("assistant", "ai", "gpt")
XML_CALL = re.compile(r"<function=([^>\s]+)>\n?(.*?)</function>", re.DOTALL)
XML_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)</parameter>", re.DOTALL)
FENCED_CALL = re.compile(r"```(?:bash|sh|mswea_bash_command)?[ \t]*\n(.*?)\n?```", re.DOTALL)
STEP_EXTRAS = tuple(
    name for name in Step.model_fields if name not in ("content", "reasoning_content", "tool_calls", "observations")
)
SEEN_EXTRAS = ("status", "seconds", "cut_characters")


# Turns to steps


def read_turns(turns: object, extras: Callable[[Row], Row] = lambda _: {}) -> Told:
    """Prompt and steps of a conversation. `extras` gives what a form tells of a turn besides. Raises RowError."""
    if not isinstance(turns, list | tuple) or not turns:
        raise RowError("no-messages", "there is no list of messages")
    prompt: list[Message] = []
    steps: list[Step] = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise RowError("not-a-message", f"message {number} is {type(turn).__name__}")
        role = turn.get("role")
        if role in AGENT and not turn.get("is_demo"):
            steps.append(_step(turn, len(steps), extras(turn)))
        elif steps:
            steps[-1] = _observed(steps[-1], turn, number, extras(turn))
        else:
            prompt.append(_message(turn, number))
    if not steps:
        raise RowError("no-steps", "no message is the assistant's")
    return tuple(prompt), tuple(steps)


def _step(turn: Row, number: int, extras: Row) -> Step:
    return Step(
        content=words(turn),
        reasoning_content=words(turn, "reasoning_content") or words(turn, "reasoning"),
        tool_calls=calls_of(turn.get("tool_calls") or extras.get("tool_calls"), number),
        **{name: value for name, value in extras.items() if name in STEP_EXTRAS},
    )


def _observed(step: Step, turn: Row, number: int, extras: Row) -> Step:
    if turn.get("role") not in ROLES:
        raise RowError("unknown-role", f"message {number} has the role {turn.get('role')!r}")
    call = _call_id(turn if turn.get("role") == "tool" else extras)
    if turn.get("role") == "tool" and not call and len(step.observations) < len(step.tool_calls):
        call = step.tool_calls[len(step.observations)].id
    told = {name: value for name, value in extras.items() if name in SEEN_EXTRAS}
    observation = Observation(tool_call_id=call, content=words(turn), **told)
    return step.model_copy(update={"observations": (*step.observations, observation)})


def _message(turn: Row, number: int) -> Message:
    role = "assistant" if turn.get("role") in AGENT else ROLES.get(str(turn.get("role")), "")
    if not role:
        raise RowError("unknown-role", f"message {number} has the role {turn.get('role')!r}")
    calls = calls_of(turn.get("tool_calls"), number)
    call = _call_id(turn)
    return Message.model_validate(
        {"role": role, "content": words(turn), "tool_calls": calls, "tool_call_id": call, "train": False}
    )


def _call_id(turn: Row) -> str:
    ids = turn.get("tool_call_ids")
    found = turn.get("tool_call_id") or (ids[0] if isinstance(ids, list | tuple) and ids else "")
    return found if isinstance(found, str) else ""


def words(turn: Row, key: str = "content") -> str:
    """The text of a turn: a text, or parts that are texts. Raises RowError."""
    value = turn.get(key)
    if value is None and key == "content":
        value = turn.get("text") or turn.get("system_prompt") or ""
    if isinstance(value, list | tuple):
        value = "".join(_part(part) for part in value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError("not-text", f"{key} of a message holds {type(value).__name__}, not text")
    return usable(value, key)


def _part(part: object) -> str:
    text = part.get("text") if isinstance(part, Mapping) else part
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        raise RowError("not-text", f"a message has a part that is {kind!r}, not text")
    return text


def calls_of(given: object, number: int) -> tuple[ToolCall, ...]:
    """Tool calls in OpenAI's shape; arguments that are no text yet become JSON text. Raises RowError."""
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        raise RowError("not-a-call", f"tool_calls hold {type(given).__name__}, not a list")
    return tuple(_call(call, f"call_{number + 1:04}_{place}") for place, call in enumerate(given))


def _call(given: object, fallback: str) -> ToolCall:
    function = given.get("function") if isinstance(given, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(function, Mapping) or not isinstance(name, str):
        raise RowError("not-a-call", f"a tool call has no function with a name: {str(given)[:80]}")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    identity = given.get("id")
    return call(identity if isinstance(identity, str) and identity else fallback, name, arguments)


def call(identity: str, name: str, arguments: str) -> ToolCall:
    """A tool call of records. Raises RowError for text that cannot be stored."""
    function = FunctionCall(name=usable(name, "name"), arguments=usable(arguments, "arguments"))
    return ToolCall(id=usable(identity, "id"), function=function)


# The form of calls


def with_form(told: Told, given: object = None) -> tuple[Told, CallForm]:
    """The steps with the calls that stand in their text, and the form in which they are written, given or found."""
    prompt, steps = told
    form = next((known for known in get_args(CallForm) if known == given), None) or _form(steps)
    if form == "tool-calls":
        return told, form
    return (prompt, tuple(_with_calls(step, number, form) for number, step in enumerate(steps))), form


def _form(steps: Sequence[Step]) -> CallForm:
    if any(step.tool_calls for step in steps):
        return "tool-calls"
    if any(XML_CALL.search(step.content) for step in steps):
        return "xml"
    return "fenced" if any(FENCED_CALL.search(step.content) for step in steps) else "tool-calls"


def _with_calls(step: Step, number: int, form: CallForm) -> Step:
    if any(seen.tool_call_id for seen in step.observations):
        return step
    calls = step.tool_calls or tuple(
        call(f"call_{number + 1:04}_{place}", name, arguments)
        for place, (name, arguments) in enumerate(calls_in(step.content, form))
    )
    observations = tuple(
        seen.model_copy(update={"tool_call_id": made.id}) if not seen.tool_call_id else seen
        for seen, made in zip(step.observations, calls, strict=False)
    )
    observations += step.observations[len(observations) :]
    return step.model_copy(update={"tool_calls": calls, "observations": observations})


def calls_in(text: str, form: CallForm) -> Iterator[tuple[str, str]]:
    """Name and JSON arguments of the calls that stand in a text: every function tag, or a single fenced block."""
    if form == "xml":
        for name, body in XML_CALL.findall(text):
            given = {key: _parameter(value) for key, value in XML_PARAMETER.findall(body)}
            yield name, json.dumps(given, ensure_ascii=False)
        return
    blocks = FENCED_CALL.findall(text)
    if len(blocks) == 1:
        yield "bash", json.dumps({"command": blocks[0].strip()}, ensure_ascii=False)


def _parameter(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value.startswith("\n") and value.endswith("\n") else value


# Steps to turns


def write_turn(message: Message) -> dict[str, Any]:
    """A turn in OpenAI's shape, without keys that have nothing to say."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning_content:
        turn["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        turn["tool_calls"] = [made.model_dump() for made in message.tool_calls]
    if message.role == "tool":
        turn["tool_call_id"] = message.tool_call_id
    return turn


def told_steps(
    trajectory: Trajectory,
) -> Iterator[tuple[Step, dict[str, Any], list[tuple[Observation, dict[str, Any]]]]]:
    """Each step, its turn, and what came of it with the turns that say so."""
    for step in trajectory.steps:
        said, *answers = seen(trajectory, prompt=(), steps=(step,))
        yield (
            step,
            write_turn(said),
            [(observation, write_turn(answer)) for observation, answer in zip(step.observations, answers, strict=True)],
        )


def step_extras(step: Step, turn: Row) -> dict[str, Any]:
    """What a step holds besides what its turn says; its calls too, where they stand in text or could not be read."""
    calls: set[str] = set() if "tool_calls" in turn else {"tool_calls"}
    return step.model_dump(mode="json", include={*STEP_EXTRAS, *calls}, exclude_defaults=True)


def seen_extras(observation: Observation, answer: Row) -> dict[str, Any]:
    """What an observation holds besides what its turn says; its call too, where that is the user's."""
    call: set[str] = set() if "tool_call_id" in answer else {"tool_call_id"}
    return observation.model_dump(include={*SEEN_EXTRAS, *call}, exclude_defaults=True)
