"""A row to what a page shows of it: facts, and steps of parts with what is trained marked."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Form = Literal["text", "diff", "code", "passed", "failed"]
MOST = 20_000
"""Characters of a part that are shown unless all are asked for."""
FOLDED = 2_500
"""Characters from which on a part is folded."""
MOST_LIST = 500
"""Tests of a verdict that are named."""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
DIFF = re.compile(r"^(?:diff --git |--- |\+\+\+ |@@ )", re.MULTILINE)
PASSED = "passed"
"""The one status that counts as passed, as for the grader."""
LARGE = ("prompt_token_ids", "token_ids", "logprobs", "input_ids", "loss_mask", "labels")
"""Columns of numbers that nobody reads."""


@dataclass(frozen=True)
class Line:
    """A line of a part, and what it is in a diff."""

    text: str
    look: Literal["", "add", "del", "hunk", "head"] = ""


@dataclass(frozen=True)
class Part:
    """A stretch of a step that is of one form."""

    title: str
    lines: tuple[Line, ...]
    form: Form = "text"
    trained: bool | None = None
    left: int = 0
    """Characters that are not shown."""
    folded: bool = False


@dataclass(frozen=True)
class Step:
    """Something that was said, done or seen, with an anchor of its own."""

    title: str
    parts: tuple[Part, ...]
    trained: bool | None = None
    """Whether it is trained, where rows say so."""
    look: str = ""
    """Role or kind, for its colour."""


@dataclass(frozen=True)
class Told:
    """A row as a page shows it."""

    facts: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = field(default=())

    @property
    def verdict(self) -> int | None:
        """Which step is the verdict, from 1."""
        return next((place for place, step in enumerate(self.steps, 1) if step.title.startswith("verdict: ")), None)


def tell(row: Mapping[str, Any], *, whole: bool = False) -> Told:
    """What a page shows of a row of any table. whole: cut no text."""
    most = 1 << 62 if whole else MOST
    teller = _Teller(row, most)
    used, steps = {"segments"}, list[Step]()
    for name, words in TELLERS.items():
        # Rows of others have columns of these names that hold something else: they are facts.
        with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
            if row.get(name):
                steps += list(words(teller, row[name]))
                used.add(name)
    facts = tuple(
        (name, said) for name, value in row.items() if name not in used for said in [_fact(name, value)] if said
    )
    return Told(facts, tuple(steps))


def visible(text: str) -> str:
    """With what is not seen, or turns what is seen around, written as its code point."""
    return UNSEEN.sub(lambda found: f"⟨{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))


def _fact(name: str, value: Any) -> str:
    if value is None or value == "" or value == [] or name in LARGE:
        return f"{len(value):,} numbers" if name in LARGE and value else ""
    plain = isinstance(value, str | int | float | bool)
    said = str(value) if plain else json.dumps(value, ensure_ascii=False, default=str)
    return visible(said if len(said) <= MOST_LIST else f"{said[:MOST_LIST]}… ({len(said):,} characters)")


class _Teller:
    """Makes parts that are no longer than asked for."""

    def __init__(self, row: Mapping[str, Any], most: int) -> None:
        self.row, self._most = row, most

    def part(self, text: str, title: str = "", *, form: Form | None = None, trained: bool | None = None) -> Part:
        shown = visible(text[: self._most])
        form = form or ("diff" if DIFF.search(shown) and ("\n+" in shown or "\n-" in shown) else "text")
        lines = tuple(_lines(shown) if form == "diff" else (Line(shown),))
        return Part(title, lines, form, trained, max(0, len(text) - self._most), len(text) > FOLDED)

    def replaced(self, title: str, old: str, new: str, trained: bool | None = None) -> Part:
        """Text that takes the place of another."""
        taken = [Line(f"-{line}", "del") for line in visible(old[: self._most]).split("\n")] if old else []
        given = [Line(f"+{line}", "add") for line in visible(new[: self._most]).split("\n")] if new else []
        left = max(0, len(old) - self._most) + max(0, len(new) - self._most)
        return Part(title, (*taken, *given), "diff", trained, left, len(old) + len(new) > FOLDED)

    def calls(self, calls: list[dict[str, Any]] | None) -> Iterator[Part]:
        """Calls of tools, each argument laid out."""
        for call in calls or []:
            function = call.get("function") or call
            name, text = str(function.get("name", "")), function.get("arguments") or ""
            try:
                values = json.loads(text) if isinstance(text, str) else text
            except ValueError:
                values = None
            if not isinstance(values, dict):
                yield self.part(str(text), name, form="code")
                continue
            old, new = values.pop("old_str", None), values.pop("new_str", None) or values.pop("file_text", None)
            words = "\n".join(_argument(key, value) for key, value in values.items())
            yield self.part(words, f"{name}()", form="code") if words else Part(f"{name}()", ())
            if old or new:
                yield self.replaced("", str(old or ""), str(new or ""))


def _argument(key: str, value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{key}: {said}" if "\n" not in said else f"{key}:\n{said}"


def _lines(text: str) -> Iterator[Line]:
    inside = False
    for line in text.split("\n"):
        if line.startswith("@@"):
            inside = True
            yield Line(line, "hunk")
        elif line.startswith(
            ("diff --git ", "--- ", "+++ ", "index ", "new file", "deleted file", "rename ", "similarity ")
        ):
            inside = False
            yield Line(line, "head")
        elif inside and line.startswith("+"):
            yield Line(line, "add")
        elif inside and line.startswith("-"):
            yield Line(line, "del")
        else:
            yield Line(line)


# What each column of a row tells


def _messages(teller: _Teller, messages: list[dict[str, Any]]) -> Iterator[Step]:
    for message in messages:
        trained = message.get("train")
        parts = []
        if message.get("reasoning_content"):
            parts.append(teller.part(message["reasoning_content"], "reasoning", form="text"))
        if message.get("content"):
            parts.append(teller.part(str(message["content"])))
        parts += teller.calls(message.get("tool_calls"))
        yield Step(str(message.get("role", "")), tuple(parts), trained, str(message.get("role", "")))


def _steps(teller: _Teller, steps: list[dict[str, Any]]) -> Iterator[Step]:
    for step in steps:
        told = [f"{step.get('completion_tokens') or 0:,} tokens", f"{step.get('seconds') or 0:.1f} s"]
        parts = [
            teller.part(step[key], title)
            for key, title in (("reasoning_content", "reasoning"), ("content", ""))
            if step[key]
        ]
        parts += teller.calls(step.get("tool_calls"))
        yield Step(f"policy · {' · '.join(told)}", tuple(parts), None, "assistant")
        for seen in step.get("observations") or []:
            title = f"observation · status {seen['status']} · {seen['seconds']:.2f} s"
            yield Step(title, (teller.part(seen["content"]),), None, "tool")


def _text(teller: _Teller, text: str) -> Iterator[Step]:
    segments = teller.row.get("segments") or [{"kind": "text", "start": 0, "end": len(text), "train": None}]
    for segment in segments:
        words, kind = text[segment["start"] : segment["end"]], str(segment["kind"])
        yield Step(kind, (teller.part(words, trained=segment["train"]),), segment["train"], kind)


def _events(teller: _Teller, events: list[dict[str, Any]]) -> Iterator[Step]:
    for event in events:
        place = event.get("path") or ""
        if event.get("start"):
            place += f", lines {event['start']} to {event['end']}"
        parts = [teller.part(event["command"], "command", form="code")] if event.get("command") else []
        if event.get("old") or event.get("new"):
            parts.append(
                teller.replaced(f"{event.get('edit', '')} {place}", event.get("old") or "", event.get("new") or "")
            )
        if event.get("text"):
            parts.append(teller.part(event["text"], "" if event.get("old") or event.get("new") else place))
        yield Step(event["kind"], tuple(parts) or (teller.part(place),), None, event["kind"])


def _patch(title: str) -> Any:
    def words(teller: _Teller, patch: str) -> Iterator[Step]:
        yield Step(title, (teller.part(patch, form="diff"),), None, "diff")

    return words


def _words(title: str) -> Any:
    def words(teller: _Teller, text: str) -> Iterator[Step]:
        yield Step(title, (teller.part(str(text)),), None, "issue")

    return words


def _talk(title: str) -> Any:
    """Issues, comments and commits: whoever said something, and what."""

    def words(teller: _Teller, said: list[dict[str, Any]]) -> Iterator[Step]:
        for one in said:
            if not isinstance(one, dict):
                yield Step(f"{title} {visible(str(one))}", (), None, "issue")
                continue
            head = " ".join(str(one[key]) for key in ("number", "title", "author", "sha", "path") if one.get(key))
            body = str(one.get("body") or one.get("message") or "")
            yield Step(f"{title} {visible(head)}", (teller.part(body),), None, "issue")

    return words


def _edits(teller: _Teller, edits: list[dict[str, Any]]) -> Iterator[Step]:
    for edit in edits:
        patch = next((edit[key] for key in ("patch", "diff") if edit.get(key)), "")
        head = " ".join(str(edit[key]) for key in ("status", "path", "new_path") if edit.get(key))
        yield Step(visible(head), (teller.part(patch, form="diff"),) if patch else (), None, "edit")


def _verdict(teller: _Teller, verdict: Any) -> Iterator[Step]:
    if not isinstance(verdict, dict):
        yield Step("verdict", (teller.part(str(verdict)),), None, "verdict")
        return
    parts = list(_tests(verdict))
    if verdict.get("tampering"):
        parts.append(Part("tampering", tuple(Line(visible(one)) for one in verdict["tampering"]), "failed"))
    if verdict.get("log"):
        parts.append(teller.part(verdict["log"], "end of the log", form="code"))
    yield Step(f"verdict: {visible(verdict.get('reason') or '')}", tuple(parts), None, "verdict")


def _tests(verdict: Mapping[str, Any]) -> Iterator[Part]:
    for key, title in (("fail_to_pass", "fail to pass"), ("pass_to_pass", "pass to pass")):
        tests = verdict.get(key) or []
        if not tests or isinstance(tests[0], str):
            continue
        bad = [one for one in tests if one["status"] != PASSED]
        good = [one for one in tests if one["status"] == PASSED]
        for found, form in ((bad, "failed"), (good, "passed")):
            lines = tuple(Line(visible(f"{one['status']}  {one['name']}")) for one in found[:MOST_LIST])
            if lines:
                more = f", {MOST_LIST} shown" if len(found) > MOST_LIST else ""
                words = f"{title}: {len(found):,} of {len(tests):,} {form}{more}"
                yield Part(words, lines, form, folded=len(lines) > 20)  # type: ignore[arg-type]


def _names(title: str) -> Any:
    def words(teller: _Teller, names: list[Any]) -> Iterator[Step]:
        if isinstance(names[0], dict):
            if "verdict" not in teller.row:
                yield Step("tests", tuple(_tests(teller.row)), None, "verdict")
            return
        lines = tuple(Line(visible(str(name))) for name in names[:MOST_LIST])
        yield Step(f"{title}: {len(names):,}", (Part("", lines, "code", folded=len(lines) > 20),), None, "verdict")

    return words


TELLERS: dict[str, Any] = {
    "problem_statement": _words("problem statement"),
    "body": _words("body"),
    "issues": _talk("issue"),
    "comments": _talk("comment"),
    "prompt": _messages,
    "messages": _messages,
    "steps": _steps,
    "text": _text,
    "events": _events,
    "commits": _talk("commit"),
    "edits": _edits,
    "submission": _patch("submission"),
    "patch": _patch("patch"),
    "test_patch": _patch("test patch"),
    "verdict": _verdict,
    "fail_to_pass": _names("fail to pass"),
    "pass_to_pass": _names("pass to pass"),
    "log": _words("log"),
}
"""Columns that are steps of the page, in the order in which they stand there; all others are facts."""
