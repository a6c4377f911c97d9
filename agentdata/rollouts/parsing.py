"""A turn to the calls in it, or to what tells the policy how to write them.

`tool-calls`: as the server read them. `xml`: one `<function=NAME>` with `<parameter=KEY>` inside, in the text. `fenced`:
one block of the kind ```` ```bash ````. Arguments are held against the schemas of the scaffold's tools.
"""

import json
import re
from functools import cache
from typing import Any

from agentdata.errors import AgentdataError
from agentdata.records import FunctionCall, ToolCall
from agentdata.rollouts.policy import Reply
from agentdata.rollouts.scaffold import Scaffold

FUNCTION = re.compile(r"<function=([^>\s]+)\s*>\s*")
PARAMETER = re.compile(
    r"<parameter=([^>\s]+)\s*>(.*?)</parameter>\s*(?=<parameter=[^>\s]+\s*>|</function>|\Z)", re.DOTALL
)
"""A value ends where a parameter, or the end of the call, follows: it may hold such a tag itself."""
END = re.compile(r"\s*(?:</function>|\Z)")
CUT_OFF = "it was cut off at the most tokens that a turn may have, before it called a tool; be brief"
BLOCK = re.compile(r"^```(?:bash|sh|mswea_bash_command)[ \t]*\n(.*?)\n?^```[ \t]*$", re.DOTALL | re.MULTILINE)
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


class FormatError(AgentdataError):
    """A turn whose calls cannot be read. The text is the observation that corrects the policy."""


def read_calls(scaffold: Scaffold, reply: Reply, number: int) -> tuple[ToolCall, ...]:
    """The calls of a turn, in order, each with an id of its own; `number` counts the turns. Raises FormatError."""
    try:
        found = _READERS[scaffold.form](scaffold, reply)
        if not found:
            raise ValueError(CUT_OFF if reply.finish_reason == "length" else "it calls no tool")
        for name, arguments in found:
            _require_fit(_schemas(scaffold.tools), name, arguments)
    except ValueError as error:
        raise FormatError(scaffold.format_error_prompt.replace("{error}", str(error))) from error
    return tuple(_call(scaffold, reply, number, place, *given) for place, given in enumerate(found))


def _call(scaffold: Scaffold, reply: Reply, number: int, place: int, name: str, arguments: dict[str, Any]) -> ToolCall:
    """A call as it was written, under an id that no other call of the conversation has."""
    made = f"call_{number + 1:04}" + (f"_{place + 1}" if place else "")
    if scaffold.form != "tool-calls":
        function = FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False))
        return ToolCall(id=made, function=function)
    call = reply.tool_calls[place]
    ids = [other.id for other in reply.tool_calls]
    function = FunctionCall(name=name, arguments=call.function.arguments or "{}")
    return ToolCall(id=call.id if call.id and ids.count(call.id) == 1 else made, function=function)


Found = list[tuple[str, dict[str, Any]]]


def _native(scaffold: Scaffold, reply: Reply) -> Found:
    found: Found = []
    for call in reply.tool_calls:
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except ValueError as error:
            raise ValueError(f"the arguments of {call.function.name} are not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of {call.function.name} are not a JSON object")
        found.append((call.function.name, arguments))
    return found


def _xml(scaffold: Scaffold, reply: Reply) -> Found:
    """A turn that a stop text ended, which servers take off, may lack the last tag."""
    text, place = reply.content, 0
    found: Found = []
    while start := FUNCTION.search(text, place):
        place, parameters = start.end(), []
        while value := PARAMETER.match(text, place):
            parameters.append((value[1], _unpadded(value[2])))
            place = value.end()
        end = END.match(text, place)
        if end is None or (reply.finish_reason == "length" and not end[0].strip()):
            raise ValueError(
                f"the call of {start[1]} is not complete: every parameter and the function need their ends"
            )
        place = end.end()
        found.append((start[1], _converted(scaffold, start[1], parameters)))
    if len(found) > 1:
        raise ValueError(f"it calls {len(found)} functions and must call exactly one")
    return found


def _unpadded(value: str) -> str:
    """A value without the line end after its opening tag and that before its closing tag."""
    return re.sub(r"\A\n|\n\Z", "", value)


def _converted(scaffold: Scaffold, name: str, parameters: list[tuple[str, str]]) -> dict[str, Any]:
    """Texts to what the schema wants; a text that is no such value stays, and is refused as such."""
    schema = _schemas(scaffold.tools).get(name, {}).get("properties", {})
    values: dict[str, Any] = {}
    for key, text in parameters:
        values[key] = text
        if schema.get(key, {}).get("type", "string") != "string":
            try:
                values[key] = json.loads(text)
            except ValueError:
                continue
    return values


def _fenced(scaffold: Scaffold, reply: Reply) -> Found:
    blocks = BLOCK.findall(reply.content)
    if len(blocks) > 1:
        raise ValueError(f"it has {len(blocks)} blocks of commands and must have exactly one")
    return [("bash", {"command": block}) for block in blocks]


def written(scaffold: Scaffold, call: FunctionCall) -> str:
    """A call as a policy writes it in a text form; `read_calls` reads the same out of it."""
    arguments = json.loads(call.arguments)
    if scaffold.form == "fenced":
        return f"```bash\n{arguments['command']}\n```"
    lines = [f"<parameter={key}>{_padded(value)}</parameter>" for key, value in arguments.items()]
    return "\n".join([f"<function={call.name}>", *lines, "</function>"])


def _padded(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"\n{text}\n" if text.startswith("\n") or text.endswith("\n") else text


_READERS = {"tool-calls": _native, "xml": _xml, "fenced": _fenced}


@cache
def _schemas(tools: str) -> dict[str, dict[str, Any]]:
    """Name of a tool to the schema of its parameters."""
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in json.loads(tools)}


def _require_fit(schemas: dict[str, dict[str, Any]], name: str, arguments: dict[str, Any]) -> None:
    """Raises ValueError for a call that its tool cannot take."""
    if name not in schemas:
        raise ValueError(f"there is no tool {name!r}, only {', '.join(schemas)}")
    properties = schemas[name].get("properties", {})
    for key in schemas[name].get("required", ()):
        if key not in arguments:
            raise ValueError(f"{name} needs the argument {key!r}")
    for key, value in arguments.items():
        if key not in properties:
            raise ValueError(f"{name} takes no argument {key!r}, only {', '.join(properties) or 'none'}")
        _require_value(f"{name}: {key}", properties[key], value)


def _require_value(where: str, schema: dict[str, Any], value: Any) -> None:
    kind = schema.get("type", "")
    if kind in TYPES and (not isinstance(value, TYPES[kind]) or (kind != "boolean" and isinstance(value, bool))):
        raise ValueError(f"{where} must be of type {kind}, not {json.dumps(value)[:80]}")
    if "enum" in schema and value not in schema["enum"]:
        raise ValueError(f"{where} must be one of {', '.join(schema['enum'])}, not {json.dumps(value)[:80]}")
    if kind == "array" and "items" in schema:
        for item in value:
            _require_value(where, schema["items"], item)
