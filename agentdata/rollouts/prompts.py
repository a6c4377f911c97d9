"""The conversation, built by one function for the model and for the sample: what was seen is what is trained."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agentdata.editor import ROOT
from agentdata.records import Message, Observation, Step, Task
from agentdata.rollouts.scaffold import Scaffold

FIELD = re.compile(r"\{(problem_statement|workdir|hints)\}")
ELIDED = "(An older observation, left out to save space.)"


def opening(scaffold: Scaffold, task: Task) -> tuple[Message, ...]:
    """What stands before the first step: who the policy is, and what it is asked to do."""
    values = {"problem_statement": task.problem_statement, "workdir": ROOT, "hints": task.hints}
    asked = FIELD.sub(lambda field: values[field[1]], scaffold.task_prompt)
    told = scaffold.system_prompt.replace("{tools}", described(scaffold.tools))
    return (
        Message(role="system", content=told, train=False),
        Message(role="user", content=asked, train=False),
    )


def described(tools: str) -> str:
    """The tools' schemas in words, for policies whose server does not show them."""
    return "\n\n".join(_tool(tool["function"]) for tool in json.loads(tools or "[]"))


def _tool(function: dict[str, Any]) -> str:
    schema = function["parameters"]
    lines = [f"### {function['name']}", "", function["description"], ""]
    for name, value in schema.get("properties", {}).items():
        kind = value["type"] + (f" of {value['items']['type']}" if "items" in value else "")
        choices = f", one of {', '.join(value['enum'])}" if "enum" in value else ""
        need = "required" if name in schema.get("required", ()) else "optional"
        lines.append(f"- {name} ({kind}, {need}{choices}): {value['description']}")
    return "\n".join(lines if schema.get("properties") else [*lines, "No parameters."])


def conversation(
    scaffold: Scaffold, prompt: Sequence[Message], steps: Sequence[Step], elided: int = 0
) -> list[Message]:
    """The messages after some steps; the oldest `elided` observations only say that they were left out.

    A turn that could not be read keeps its words alone, since servers refuse calls that they cannot parse.
    """
    messages = list(prompt)
    seen = 0
    for step in steps:
        messages.append(_spoken(scaffold, step))
        shown = [
            observation if seen + place >= elided else observation.model_copy(update={"content": ELIDED})
            for place, observation in enumerate(step.observations)
        ]
        seen += len(shown)
        messages += _answers(scaffold, shown)
    return messages


def readable(step: Step) -> bool:
    """Whether the calls of a step could be read; if not, its observation corrects the policy."""
    return all(observation.tool_call_id for observation in step.observations)


def _spoken(scaffold: Scaffold, step: Step) -> Message:
    calls = step.tool_calls if scaffold.form == "tool-calls" and readable(step) else ()
    return Message(
        role="assistant",
        content=step.content,
        reasoning_content=step.reasoning_content,
        tool_calls=calls,
        train=True,
    )


def _answers(scaffold: Scaffold, observations: Sequence[Observation]) -> Iterator[Message]:
    """Observations as turns of the tools, or of the user where calls are text."""
    for observation in observations:
        if scaffold.form == "tool-calls" and observation.tool_call_id:
            yield Message(role="tool", content=observation.content, tool_call_id=observation.tool_call_id, train=False)
        else:
            yield Message(role="user", content=observation.content, train=False)
