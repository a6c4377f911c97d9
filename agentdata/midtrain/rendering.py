"""A row of a dataset to spans: stretches of text that know their kind and whether they are trained on.

`text` rows are cut at their segments, `messages` rows go through the model's chat template. Each message's rendering must
extend the one before, so that what is trained follows what the policy saw; where a template rewrites what came before, the
row is rejected. Three rules cover what templates are known to do at the borders:

- messages that a template joins, as it does with results of tools that follow one another, are one turn; it is trained
  where all of them are;
- a turn of the assistant ends with what the template puts behind the first one when nothing follows: templates write a
  last turn otherwise than the same turn in the middle. The rendering of what follows must extend it all the same, and
  reasoning must not be lost;
- a turn of the assistant is trained from behind the generation prompt to the special token that ends it. Of a prompt that
  goes on otherwise than the turn, as with an opened thought, only what both have in common counts as prompt.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agentdata.midtrain.recipe import MaskPolicy
from agentdata.midtrain.templates import JSON, Row, RowError, Template

EDITS = ("create", "insert", "str_replace")
"""Commands of the editor's tool that write."""
PRIVATE = range(0xE000, 0xF900)
"""Code points that mean nothing by themselves: one of them is put into texts of special tokens that stand in content."""


@dataclass(frozen=True)
class Span:
    """A stretch of text."""

    text: str
    kind: str
    train: bool


@dataclass(frozen=True)
class Rendered:
    """The spans of one row, which tile its text."""

    spans: tuple[Span, ...]
    template: bool = False
    """Whether a chat template wrote the text: only then the texts of special tokens stand for these tokens."""
    mark: str = ""
    """Character that is put into the texts of special tokens which stand in content, to be taken out again."""


def render_text(row: Row, column: str, policy: MaskPolicy) -> Rendered:
    """A row with a text, and perhaps with `segments` that say what of it is trained on. Raises RowError."""
    text = row[column]
    if not isinstance(text, str):
        raise RowError("no-text", f"{column} holds {type(text).__name__}, not text")
    segments = row.get("segments")
    if segments is None:
        return Rendered((Span(text, "text", True),))
    return Rendered(tuple(_segments(text, segments, policy)))


def _segments(text: str, segments: Sequence[Row], policy: MaskPolicy) -> Iterator[Span]:
    place = 0
    for segment in segments:
        start, end = int(segment["start"]), int(segment["end"])
        if not place <= start <= end <= len(text):
            raise RowError("bad-segments", f"a segment from {start} to {end} in {len(text)} characters, after {place}")
        if start > place:
            yield Span(text[place:start], "context", policy == "all")
        if end > start:
            yield Span(text[start:end], str(segment["kind"]), policy == "all" or bool(segment["train"]))
        place = end
    if place < len(text):
        yield Span(text[place:], "context", policy == "all")


def render_chat(row: Row, column: str, template: Template, policy: MaskPolicy) -> Rendered:
    """A conversation in the shape of OpenAI's, through a chat template. Raises RowError."""
    given = _parsed(row[column], column)
    if not given or not all(isinstance(message, Mapping) and message.get("role") for message in given):
        raise RowError("no-messages", f"{column} holds no list of messages")
    trained = [policy == "all" or bool(one.get("train", one["role"] == "assistant")) for one in given]
    messages = [_message(message) for message in given]
    tools = _parsed(row.get("tools") or [], "tools")
    mark = _mark((messages, tools), template.special)
    if mark:
        messages, tools = _marked(messages, template.special, mark), _marked(tools, template.special, mark)
    spans = _Conversation(template, messages, tools, trained, policy).spans()
    return Rendered(tuple(spans), template=True, mark=mark)


def _parsed(value: Any, column: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else []
        except ValueError as error:
            raise RowError("no-messages", f"{column} is neither a list nor JSON: {error}") from error
    if not isinstance(value, list):
        raise RowError("no-messages", f"{column} holds {type(value).__name__}, not a list")
    return value


def _message(given: Row) -> dict[str, Any]:
    """A message as templates expect it: no empty fields, and arguments of calls as objects."""
    message = {name: value for name, value in given.items() if name != "train" and value not in (None, "", [], ())}
    message.setdefault("content", "")
    if "tool_calls" in message:
        message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return message


def _call(given: Row) -> dict[str, Any]:
    function = dict(given.get("function") or {})
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except ValueError:
            read = arguments
        function["arguments"] = read if isinstance(read, dict) else arguments
    return {**given, "function": function}


def _mark(value: Any, special: "re.Pattern[str]") -> str:
    """A character that occurs nowhere, if the text of a special token does; else nothing."""
    texts = list(_texts(value))
    if not any(map(special.search, texts)):
        return ""
    return next(chr(code) for code in PRIVATE if not any(chr(code) in text for text in texts))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _marked(value: Any, special: "re.Pattern[str]", mark: str) -> Any:
    if isinstance(value, str):
        return special.sub(lambda found: found[0][0] + mark + found[0][1:], value)
    if isinstance(value, Mapping):
        return {_marked(key, special, mark): _marked(inner, special, mark) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(inner, special, mark) for inner in value]
    return value


@dataclass
class _Conversation:
    """One conversation on its way through a template."""

    template: Template
    messages: list[dict[str, Any]]
    tools: list[Any]
    trained: list[bool]
    policy: MaskPolicy

    def spans(self) -> Iterator[Span]:
        JSON.clear()
        whole = self.template.render(self.messages, self.tools)
        place = first = 0
        for last in range(len(self.messages)):
            end = self._end(whole, place, last)
            if end is not None:
                yield from self._turn(whole, place, end, first, last)
                place, first = end, last + 1

    def _end(self, whole: str, place: int, last: int) -> int | None:
        """Where the rendering of the messages up to one ends in the whole; None where it is joined with the next."""
        if last + 1 == len(self.messages):
            return len(whole)
        role, following = (message["role"] for message in self.messages[last : last + 2])
        if role == following == "tool":
            return None
        if role == "assistant" != following and self._ending:
            end = whole.find(self._ending, place)
            if end >= 0:
                return end + len(self._ending)
        joined = "assistant" not in (role, following)
        try:
            until = self.template.render(self.messages[: last + 1], self.tools)
        except RowError:
            if joined:
                return None
            raise
        if len(until) >= place and whole.startswith(until):
            return len(until)
        if joined:
            return None
        raise RowError("template-rewrites", f"message {last + 1} ({role}) is rendered otherwise once others follow")

    @cached_property
    def _ending(self) -> str:
        """What the template puts behind a turn of the assistant, from the special token that ends it."""
        first = [message["role"] for message in self.messages].index("assistant")
        until = self.template.render(self.messages[: first + 1], self.tools)
        marks = list(self.template.special.finditer(until))
        return until[marks[-1].start() :] if marks else ""

    def _turn(self, whole: str, place: int, end: int, first: int, last: int) -> Iterator[Span]:
        message = self.messages[last]
        train = all(self.trained[first : last + 1])
        if message["role"] != "assistant":
            yield Span(whole[place:end], message["role"], train)
            return
        if message.get("reasoning_content", "").strip() not in whole[place:end]:
            raise RowError("template-rewrites", f"the reasoning of message {last + 1} is lost once others follow")
        start = place + self._opening(whole, place, first)
        marks = list(self.template.special.finditer(whole, start, end))
        stop = marks[-1].end() if marks else end
        around = self.policy == "all"
        yield Span(whole[place:start], "context", around)
        yield Span(whole[start:stop], _kind(message), train)
        yield Span(whole[stop:end], "context", around)

    @cached_property
    def _prompt(self) -> str:
        """What the template puts at the end where it asks for a turn of the assistant."""
        before = self.messages[: [message["role"] for message in self.messages].index("assistant")]
        if not before:
            return ""
        return self.template.render(before, self.tools, prompt=True).removeprefix(
            self.template.render(before, self.tools)
        )

    def _opening(self, whole: str, place: int, first: int) -> int:
        """Length of the generation prompt that stands before a turn of the assistant."""
        if whole.startswith(self._prompt, place):
            return len(self._prompt)
        common = _common_length(self._prompt, whole[place : place + len(self._prompt)])
        marks = list(self.template.special.finditer(self._prompt))
        if not marks or common < marks[-1].end():
            raise RowError("template-rewrites", f"message {first + 1} does not begin with the generation prompt")
        return common


def _common_length(one: str, two: str) -> int:
    return next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _kind(message: Row) -> str:
    """`edit` for a turn that writes files, else `assistant`."""
    calls = [call["function"].get("arguments") for call in message.get("tool_calls", [])]
    edits = any(isinstance(arguments, dict) and arguments.get("command") in EDITS for arguments in calls)
    return "edit" if edits else "assistant"
