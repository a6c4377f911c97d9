"""A trace as a sample: three renderings of the same events.

`markdown` is the layout of the reference recipe's Python subset, `xml` a small tag set for the general one, `messages`
chat turns with the tools of the `editor` scaffold. Texts are built as segments, so that every stretch knows its kind and
whether it is trained on.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agentdata import __version__, editor
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.records import (
    Change,
    ChatSample,
    Comment,
    Event,
    FunctionCall,
    Issue,
    Message,
    Rejected,
    Rendering,
    Sample,
    Segment,
    TextSample,
    ToolCall,
    Trace,
)
from agentdata.tokens import CountTokens, count_message

GENERATOR = f"agentdata {__version__}"
ACTIONS = ("think", "edit", "done", "command")
"""Segment kinds that the agent itself writes."""
Piece = tuple[str, str]
"""(segment kind, text)."""


class Renderer:
    """Renders traces by one recipe. `count_tokens` gives the tokens of a text, `token_counter` its name."""

    def __init__(
        self, recipe: HarvestRecipe, count_tokens: CountTokens, token_counter: str, description: str = ""
    ) -> None:
        self.recipe = recipe
        self.count_tokens = count_tokens
        self.token_counter = token_counter
        self.description = description

    def render(self, rendering: Rendering, change: Change, trace: Trace) -> Sample | Rejected:
        """The sample, or `too-long` where it has more tokens than the recipe allows."""
        if rendering == "messages":
            sample: Sample = self._chat(change, trace)
        else:
            pieces = (
                markdown(change, trace, self.description)
                if rendering == "markdown"
                else xml(change, trace, self.description)
            )
            sample = self._text(rendering, change, trace, list(pieces))
        if sample.tokens > self.recipe.most_tokens:
            detail = f"{sample.tokens} tokens"
            return Rejected(id=change.id, repo=change.repo, stage=rendering, reason="too-long", detail=detail)
        return sample

    def _trains(self, kind: str) -> bool:
        return self.recipe.mask == "all" or kind in ACTIONS

    def _common(self, rendering: Rendering, change: Change, trace: Trace) -> dict[str, Any]:
        return {
            "id": hashlib.sha256(f"{trace.id} {rendering} {self.recipe.mask}".encode()).hexdigest()[:16],
            "kind": "contextual",
            "rendering": rendering,
            "repo": change.repo,
            "change_id": change.id,
            "number": change.number,
            "snapshot": change.snapshot,
            "head": change.head,
            "landed_at": change.landed_at,
            "licence": change.licence,
            "languages": tuple(sorted({file.language for file in change.files if file.language})),
            "tier": "L1",
            "policy": trace.policy,
            "unparsed": trace.unparsed,
            "token_counter": self.token_counter,
            "proof": trace.proof,
            "generator": GENERATOR,
        }

    def _text(self, rendering: Rendering, change: Change, trace: Trace, pieces: list[Piece]) -> TextSample:
        segments: list[Segment] = []
        tokens = trained = place = 0
        for kind, text in pieces:
            train = self._trains(kind)
            count = self.count_tokens(text)
            tokens += count
            trained += count if train else 0
            segments.append(Segment(kind=kind, start=place, end=place + len(text), train=train))
            place += len(text)
        return TextSample(
            **self._common(rendering, change, trace),
            tokens=tokens,
            trained_tokens=trained,
            text="".join(text for _, text in pieces),
            segments=tuple(segments),
        )

    def _chat(self, change: Change, trace: Trace) -> ChatSample:
        system = Message(role="system", content=self.recipe.system_prompt, train=self._trains("context"))
        messages = (system, *conversation(trace.events, self._trains("context")))
        tokens = trained = 0
        for message in messages:
            count = count_message(message, self.count_tokens)
            tokens += count
            trained += count if message.train else 0
        return ChatSample(
            **self._common("messages", change, trace),
            tokens=tokens,
            trained_tokens=trained,
            messages=messages,
            tools=self.recipe.tools,
        )


def first_edit(events: Sequence[Event]) -> int:
    """Place of the first edit or of the first thought that belongs to a commit."""
    for place, event in enumerate(events):
        if event.kind == "edit" or (event.kind == "think" and event.commit >= 0):
            return place
    return len(events)


# Markdown


def markdown(change: Change, trace: Trace, description: str = "") -> Iterator[Piece]:
    """Repository, issue, pull request, what was explored and found, then the edits commit by commit."""
    border = first_edit(trace.events)
    yield "context", f"# Repository Context\n\n{change.repo}\n" + (f"\n{description}\n" if description else "")
    for event in trace.events[:border]:
        if event.kind == "list":
            yield "command", f"\n```console\n$ {event.command}\n"
            yield "list", event.text
            yield "context", "```\n"
    for issue in change.issues:
        yield "issue", f"\n# Issue\n\n{_issue(issue)}"
    yield "issue", "\n# Pull Request\n\n" + _block(change.title, change.body)
    found = False
    for event in trace.events[:border]:
        if event.kind == "search":
            yield "context", "\n"
            yield "command", f"```console\n$ {event.command}\n"
            yield "search", event.text
            yield "context", "```\n"
        elif event.kind == "think":
            if event.text != _block(change.title, change.body).strip():
                yield "think", f"\n{event.text}\n"
        elif event.kind == "read":
            if not found:
                yield "context", "\n# Relevant Files Found\n"
                found = True
            yield from _markdown_read(event)
    yield "context", "\n# Edits\n"
    for event in trace.events[border:]:
        if event.kind == "think":
            yield "think", f"\n{event.text}\n"
        elif event.kind == "read":
            yield from _markdown_read(event)
        elif event.kind == "edit":
            yield "edit", "\n" + markdown_edit(event)


def _issue(issue: Issue) -> str:
    spoken = "".join(f"\n**{comment.author or 'comment'}**: {comment.body}\n" for comment in issue.comments)
    return _block(issue.title, issue.body) + spoken


def _block(title: str, body: str) -> str:
    return f"{title}\n" + (f"\n{body}\n" if body else "")


def _markdown_read(event: Event) -> Iterator[Piece]:
    lines = f" (lines {event.start}-{event.end})" if event.start else ""
    mark = fence(event.text)
    yield "command", f"\n## {event.path}{lines}\n\n"
    yield "read", f"{mark}\n{event.text}{_newline(event.text)}{mark}\n"


def fence(text: str) -> str:
    """A fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"^[ \t]*(`{3,})", text, re.MULTILINE)), default=2)
    return "`" * (longest + 1)


def _newline(text: str) -> str:
    return "" if text.endswith("\n") else "\n"


def markdown_edit(event: Event) -> str:
    """An edit as a heading and, where there is text, a fenced block; the old and new text of a replacement in one."""
    if event.edit == "rename":
        return f"## Rename {event.path} to {event.new_path}\n"
    if event.edit == "delete":
        return f"## Delete {event.path}\n"
    if event.edit == "chmod":
        return f"## Mode {event.mode[-3:]} of {event.path}\n"
    mark = fence(f"{event.old}\n{event.new}")
    if event.edit == "str_replace":
        body = f"<<<<<<< SEARCH\n{event.old}\n=======\n{event.new}\n>>>>>>> REPLACE\n"
        return f"## Replace in {event.path}\n\n{mark}\n{body}{mark}\n"
    if event.edit == "insert":
        return f"## Insert after line {event.line} of {event.path}\n\n{mark}\n{event.new}\n{mark}\n"
    return f"## Create {event.path}\n\n{mark}\n{event.new}{_newline(event.new)}{mark}\n"


# XML


def xml(change: Change, trace: Trace, description: str = "") -> Iterator[Piece]:
    """The general layout.

    Tags: repository, listing, issue, pull_request, comment, review, search, file, thought, commit, edit (with old and
    new). Contents stand verbatim between the tags, attributes are escaped.
    """
    yield "context", f"<repository{_attributes(name=change.repo)}>\n" + (f"{description}\n" if description else "")
    events = list(trace.events)
    for event in events:
        if event.kind == "list":
            yield "command", f"<listing{_attributes(command=event.command)}>\n"
            yield "list", event.text
            yield "context", "</listing>\n"
    yield "context", "</repository>\n"
    for issue in change.issues:
        spoken = "".join(_comment("comment", comment) for comment in issue.comments)
        opening = f"<issue{_attributes(number=str(issue.number))}>\n"
        yield "issue", f"{opening}{_block(issue.title, issue.body)}{spoken}</issue>\n"
    number = str(change.number) if change.number else ""
    spoken = "".join(_comment("review" if comment.path else "comment", comment) for comment in change.comments)
    opening = f"<pull_request{_attributes(number=number)}>\n"
    yield "issue", f"{opening}{_block(change.title, change.body)}{spoken}</pull_request>\n"
    current = -1
    for event in events:
        if event.commit >= 0 and event.commit != current:
            yield "context", ("</commit>\n" if current >= 0 else "") + "<commit>\n"
            current = event.commit
        yield from _xml_event(event)
    yield "context", "</commit>\n" if current >= 0 else ""


def _xml_event(event: Event) -> Iterator[Piece]:
    if event.kind == "search":
        yield "command", f"<search{_attributes(command=event.command)}>\n"
        yield "search", event.text
        yield "context", "</search>\n"
    elif event.kind == "read":
        lines = f"{event.start}-{event.end}" if event.start else ""
        yield "command", f"<file{_attributes(path=event.path, lines=lines)}>\n"
        yield "read", f"{event.text}{_newline(event.text)}</file>\n"
    elif event.kind == "think":
        yield "think", f"<thought>\n{event.text}\n</thought>\n"
    elif event.kind == "edit":
        yield "edit", xml_edit(event)


def xml_edit(event: Event) -> str:
    """One edit as a tag."""
    line = str(event.line) if event.edit == "insert" else ""
    attributes = _attributes(kind=event.edit, path=event.path, to=event.new_path, after_line=line, mode=event.mode)
    if event.edit in ("rename", "delete", "chmod"):
        return f"<edit{attributes}/>\n"
    old = f"<old>\n{event.old}\n</old>\n" if event.edit == "str_replace" else ""
    return f"<edit{attributes}>\n{old}<new>\n{event.new}\n</new>\n</edit>\n"


def _comment(tag: str, comment: Comment) -> str:
    attributes = _attributes(author=comment.author, time=comment.created_at, path=comment.path)
    return f"<{tag}{attributes}>\n{comment.body}\n</{tag}>\n"


def _attributes(**values: str) -> str:
    escaped = {
        name: value.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;") for name, value in values.items()
    }
    return "".join(f' {name}="{value}"' for name, value in escaped.items() if value)


# Messages


def conversation(events: Sequence[Event], train_context: bool) -> Iterator[Message]:
    """The events as turns: the issue from the user, thoughts and tool calls from the assistant, observations from tools."""
    thoughts: list[str] = []
    number = 0
    for event in events:
        if event.kind == "issue":
            yield Message(role="user", content=event.text, train=train_context)
            continue
        if event.kind == "think":
            thoughts.append(event.text)
            continue
        number += 1
        call = ToolCall(id=f"call_{number:04}", function=call_of(event))
        yield Message(role="assistant", content="\n\n".join(thoughts), tool_calls=(call,), train=True)
        thoughts = []
        if event.kind != "done":
            yield Message(role="tool", content=observation(event), tool_call_id=call.id, train=train_context)


def call_of(event: Event) -> FunctionCall:
    """The tool call that stands for an event."""
    if event.kind == "done":
        return FunctionCall(name="submit", arguments="{}")
    if event.command:
        return _call("bash", command=event.command)
    path = f"{editor.ROOT}/{event.path}"
    if event.kind == "read":
        if event.start:
            return _call("str_replace_editor", command="view", path=path, view_range=[event.start, event.end])
        return _call("str_replace_editor", command="view", path=path)
    if event.edit == "create":
        return _call("str_replace_editor", command="create", path=path, file_text=event.new)
    if event.edit == "insert":
        return _call("str_replace_editor", command="insert", path=path, insert_line=event.line, new_str=event.new)
    return _call("str_replace_editor", command="str_replace", path=path, old_str=event.old, new_str=event.new)


def _call(name: str, **arguments: object) -> FunctionCall:
    return FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False))


def observation(event: Event) -> str:
    """What the tool prints for an event."""
    if event.kind == "read":
        return editor.view(event.path, event.text.split("\n"), event.start or 1)
    return event.text or editor.SILENT
