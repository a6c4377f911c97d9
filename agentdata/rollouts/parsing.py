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
THOUGHT = "</think>"
"""A turn may think in its text, and write of calls there; only what comes after counts."""
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
        found = _found(scaffold, reply)
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


def _found(scaffold: Scaffold, reply: Reply) -> Found:
    """Name and arguments of each call. Raises ValueError."""
    if scaffold.form == "tool-calls":
        return _native(reply)
    said = reply.content.rpartition(THOUGHT)[2]
    return _fenced(said) if scaffold.form == "fenced" else _xml(scaffold, said, whole=reply.finish_reason != "length")


def _native(reply: Reply) -> Found:
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


def _xml(scaffold: Scaffold, text: str, *, whole: bool) -> Found:
    """A turn that a stop text ended, which servers take off, may lack the last tag; one that was cut off may not."""
    place = 0
    found: Found = []
    while start := FUNCTION.search(text, place):
        place, parameters = start.end(), []
        while value := PARAMETER.match(text, place):
            parameters.append((value[1], _unpadded(value[2])))
            place = value.end()
        end = END.match(text, place)
        if end is None or not (whole or end[0].strip()):
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


def _fenced(text: str) -> Found:
    blocks = BLOCK.findall(text)
    if len(blocks) > 1:
        raise ValueError(f"it has {len(blocks)} blocks of commands and must have exactly one")
    return [("bash", {"command": block}) for block in blocks]


def written(scaffold: Scaffold, call: FunctionCall) -> str:
    """A call as a policy writes it in a text form; `read_calls` reads the same out of it."""
    if scaffold.form == "fenced":
        return f"```bash\n{json.loads(call.arguments)['command']}\n```"
    return xml_call(call)


def xml_call(function: FunctionCall) -> str:
    """A call as tags. Arguments that are no JSON object stand as they are."""
    try:
        arguments = json.loads(function.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return f"<function={function.name}>\n{function.arguments}\n</function>"
    inner = "".join(f"<parameter={name}>{_value(value)}</parameter>\n" for name, value in arguments.items())
    return f"<function={function.name}>\n{inner}</function>"


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # A text of several lines stands on lines of its own, so that its first line keeps its indentation.
    return f"\n{text}\n" if "\n" in text else text


@cache
def _schemas(tools: str) -> dict[str, dict[str, Any]]:
    """Name of a tool to the schema of its parameters."""
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in json.loads(tools)}


def _require_fit(schemas: dict[str, dict[str, Any]], name: str, arguments: dict[str, Any]) -> None:
    """Raises ValueError for a call that its tool cannot take. An optional argument may be null, as some models write it."""
    if name not in schemas:
        raise ValueError(f"there is no tool {name[:80]!r}, only {', '.join(schemas)}")
    properties = schemas[name].get("properties", {})
    for key in schemas[name].get("required", ()):
        if key not in arguments:
            raise ValueError(f"{name} needs the argument {key!r}")
    for key, value in arguments.items():
        if key not in properties:
            raise ValueError(f"{name} takes no argument {key!r}, only {', '.join(properties) or 'none'}")
        if value is not None or key in schemas[name].get("required", ()):
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
