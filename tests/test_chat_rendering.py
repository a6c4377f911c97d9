"""Conversations through chat templates: what is trained, where it begins and ends, and what is refused."""

import itertools
import json
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from agentdata.errors import UsageError
from agentdata.midtrain.documents import Document, DocumentMaker
from agentdata.midtrain.encoding import Choice, make_encoder
from agentdata.midtrain.recipe import Columns, MaskPolicy
from agentdata.midtrain.rendering import render_chat, render_text
from agentdata.midtrain.templates import RowError, Template, make_template
from agentdata.midtrain.tokenizer import read_tokenizer
from tests.tokenizers_of_kinds import CHATML, FORGETFUL, write_tokenizer

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}]
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"command": "echo \\"<|im_end|>\\" > a"}'},
}
WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["<|im_end|>", "\n x \n", "<tool_call>", "é\u0301", "<|im_start|>assistant\n", ""]),
)


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "reasoning_content": "", "tool_calls": [], "tool_call_id": "", **more}


ANSWERS = st.one_of(
    st.builds(lambda words, call: say("assistant", words, tool_calls=[CALL] if call else []), WORDS, st.booleans()),
    st.builds(lambda words, thought: say("assistant", words, reasoning_content=thought), WORDS, WORDS),
)
RESULTS = st.lists(WORDS.map(lambda words: say("tool", words)), min_size=1, max_size=2)
TURNS = st.lists(st.builds(lambda answer, results: [answer, *results], ANSWERS, RESULTS), max_size=4)
CONVERSATIONS = st.builds(
    lambda system, user, turns, end: [
        say("system", system),
        say("user", user),
        *(one for turn in turns for one in turn),
        end,
    ],
    WORDS,
    WORDS,
    TURNS,
    ANSWERS,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def maker(folder: Path, policy: MaskPolicy = "trained-only", **options: Any) -> DocumentMaker:
    files = read_tokenizer(str(folder))
    encoder = make_encoder(files, Choice(fast=True, reason=""))
    return DocumentMaker(encoder, make_template(files), Columns(), policy, **options)


def reference(messages: list[dict[str, Any]], tools: list[Any], *, prompt: bool = False) -> str:
    """What `transformers` renders, where nothing has to be kept apart from special tokens."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    cleaned = []
    for message in messages:
        one = {name: value for name, value in message.items() if value and name != "train"} | {
            "content": message["content"]
        }
        if message["tool_calls"]:
            function = message["tool_calls"][0]["function"]
            arguments = json.loads(function["arguments"])
            one["tool_calls"] = [{**message["tool_calls"][0], "function": {**function, "arguments": arguments}}]
        cleaned.append(one)
    template = environment.from_string(CHATML)
    return template.render(messages=cleaned, tools=tools, add_generation_prompt=prompt)


def shown(document: Document, tokenizer: Tokenizer) -> list[str]:
    """The trained stretches of a document, as text."""
    borders = [0, *(np.flatnonzero(np.diff(document.train)) + 1).tolist(), len(document.ids)]
    return [
        tokenizer.decode(document.ids[start:end].tolist(), skip_special_tokens=False)
        for start, end in itertools.pairwise(borders)
        if document.train[start]
    ]


@settings(max_examples=60, deadline=None)
@given(messages=CONVERSATIONS)
def test_the_spans_are_the_rendering_and_only_templates_make_special_tokens(
    folder: Path, tokenizer: Tokenizer, messages: list[dict[str, Any]]
) -> None:
    made = maker(folder)
    rendered = render_chat({"messages": messages, "tools": TOOLS}, "messages", made.template, "trained-only")
    text = "".join(span.text for span in rendered.spans)
    assert text.replace(rendered.mark, "") == reference(messages, TOOLS) if rendered.mark else text
    document = made.make({"messages": messages, "tools": json.dumps(TOOLS)})
    specials = [tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>")]
    followed = pairwise(messages)
    turns = 1 + len(messages) - sum(one["role"] == two["role"] == "tool" for one, two in followed)
    assert [int((document.ids == special).sum()) for special in specials] == [turns, turns]


@settings(max_examples=60, deadline=None)
@given(messages=CONVERSATIONS)
def test_what_is_trained_follows_what_the_policy_saw(
    folder: Path, tokenizer: Tokenizer, messages: list[dict[str, Any]]
) -> None:
    made = maker(folder)
    plain = json.loads(json.dumps(messages).replace("<|im_", "(im_"))
    document = made.make({"messages": plain, "tools": TOOLS})
    trained = shown(document, tokenizer)
    whole = reference(plain, TOOLS)
    places = [place for place, message in enumerate(plain) if message["role"] == "assistant"]
    assert len(trained) == len(places)
    normal = tokenizer.normalizer.normalize_str
    for place, text in zip(places, trained, strict=True):
        seen = reference(plain[:place], TOOLS, prompt=True)
        assert whole.startswith(seen)
        follows = whole[len(seen) :]
        assert text.endswith("<|im_end|>")
        assert normal(text) == normal(follows[: follows.index("<|im_end|>") + len("<|im_end|>")])


def test_ids_are_those_of_the_whole_rendering(folder: Path, tokenizer: Tokenizer) -> None:
    messages = [
        say("user", "go"),
        say("assistant", "Look.", tool_calls=[CALL]),
        say("tool", "a\nb"),
        say("assistant", "Done."),
    ]
    plain = json.loads(json.dumps(messages).replace("<|im_end|>", "x"))
    tokenizer.encode_special_tokens = False
    expected = tokenizer.encode(reference(plain, TOOLS), add_special_tokens=False).ids
    assert maker(folder).make({"messages": plain, "tools": TOOLS}).ids.tolist() == expected


def test_turns_marked_as_not_trained_are_not(folder: Path, tokenizer: Tokenizer) -> None:
    messages = [
        say("user", "go"),
        say("assistant", "wrong", train=False),
        say("tool", "no"),
        say("assistant", "right", train=True),
    ]
    assert shown(maker(folder).make({"messages": messages}), tokenizer) == ["<think>\n\n</think>\n\nright<|im_end|>"]
    everything = maker(folder, "all").make({"messages": messages})
    assert everything.train.tolist() == [False] + [True] * (len(everything.ids) - 1)


def test_kinds_tell_edits_from_other_turns(folder: Path) -> None:
    edit = {"type": "function", "function": {"name": "editor", "arguments": '{"command": "create", "path": "/a"}'}}
    made = maker(folder)
    document = made.make({"messages": [say("user", "go"), say("assistant", "", tool_calls=[edit]), say("tool", "ok")]})
    assert {made.kinds[kind] for kind in np.unique(document.kinds)} == {"user", "context", "edit", "tool"}
    assert len(document.cuts) == 4


def test_a_template_that_loses_reasoning_is_refused(tmp_path: Path) -> None:
    made = maker(write_tokenizer(tmp_path, template=FORGETFUL))
    thought = say("assistant", "one", reasoning_content="why")
    with pytest.raises(RowError, match="reasoning of message 2 is lost"):
        made.make({"messages": [say("user", "go"), thought, say("user", "on"), say("assistant", "two")]})


def test_of_a_prompt_that_opens_a_thought_only_what_the_turn_has_too_is_prompt(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    made = maker(write_tokenizer(tmp_path, template=FORGETFUL))
    document = made.make(
        {"messages": [say("user", "go"), say("assistant", "one"), say("user", "on"), say("assistant", "two")]}
    )
    assert shown(document, tokenizer) == ["one<|im_end|>", "two<|im_end|>"]


def test_a_template_that_joins_messages_makes_one_turn_of_them() -> None:
    template = Template(
        "{% if messages | length == 1 %}{{ raise_exception('no user') }}{% endif %}"
        "{{ messages[0].content }}{% for m in messages[1:] %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    )
    row = {"messages": [say("system", "s"), say("user", "u"), say("assistant", "a")]}
    spans = render_chat(row, "messages", template, "trained-only").spans
    assert [(span.text, span.kind) for span in spans if span.text] == [
        ("s[user:u]", "user"),
        ("[assistant:a]", "assistant"),
    ]


def test_a_template_is_told_the_day_of_the_recipe(folder: Path) -> None:
    files = read_tokenizer(str(folder))
    template = Template("{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}", today=date(2026, 1, 2))
    assert template.render([say("user", "x")], []) == "02 Jan 2026x"
    assert make_template(files).today is None


def test_a_turn_that_was_seen_otherwise_is_refused(folder: Path) -> None:
    """The template shows a last turn without reasoning with an empty thought, which it drops once another follows."""
    with pytest.raises(RowError, match="message 2 \\(assistant\\) is rendered otherwise"):
        maker(folder).make({"messages": [say("user", "go"), say("assistant", "one"), say("assistant", "two")]})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no-messages"),
        ({"messages": "not json"}, "no-messages"),
        ({"messages": [{"content": "who?"}]}, "no-messages"),
        ({"messages": [{"role": "tool", "content": {"no": "text"}}]}, "template-fails"),
        ({"text": ""}, "empty"),
        ({"text": "\ud800"}, "not-unicode"),
        ({"text": None}, "no-text"),
        ({"text": "abc", "segments": [{"kind": "a", "start": 2, "end": 9, "train": True}]}, "bad-segments"),
        ({"input_ids": []}, "empty"),
        ({"input_ids": [5, 10**9]}, "foreign-ids"),
        ({"input_ids": [5, 6], "loss_mask": [1]}, "bad-mask"),
    ],
)
def test_rows_that_cannot_be_used_say_why(folder: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as refused:
        maker(folder, most_id=2000).make(row)
    assert refused.value.reason == reason


def test_a_template_with_a_mistake_is_named_with_its_line() -> None:
    with pytest.raises(UsageError, match="line 2"):
        Template("{% if tools %}\n{% endfor %}").check()


def test_a_template_may_raise(folder: Path) -> None:
    template = Template("{{ raise_exception('no tools here') }}")
    with pytest.raises(RowError, match="no tools here"):
        render_chat({"messages": [say("user", "x")]}, "messages", template, "all")


def test_a_template_with_generation_marks_and_loop_controls_is_rendered() -> None:
    template = Template(
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}<{{ m.role }}>"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    rendered = render_chat({"messages": [say("system", "s"), say("user", "u")]}, "messages", template, "all")
    assert "".join(span.text for span in rendered.spans) == "<user>u"


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.tuples(WORDS, st.booleans()), min_size=1, max_size=8), gap=WORDS)
def test_masks_of_texts_are_exact_at_borders(
    folder: Path, tokenizer: Tokenizer, pieces: list[tuple[str, bool]], gap: str
) -> None:
    segments, text = [], ""
    for words, train in pieces:
        segments.append(
            {"kind": "edit" if train else "read", "start": len(text), "end": len(text + words), "train": train}
        )
        text += words
    text += gap
    if not text:
        return
    made = maker(folder, start=(1,), end=(2,))
    document = made.make({"text": text, "segments": segments})
    tokenizer.encode_special_tokens = True
    expected: list[tuple[int, bool]] = [(1, False)]
    for words, train in [*pieces, (gap, False)]:
        expected += [(one, train) for one in tokenizer.encode(words, add_special_tokens=False).ids]
    spans = list(render_text({"text": text, "segments": segments}, "text", "trained-only").spans)
    expected.append((2, spans[-1].train))
    assert list(zip(document.ids.tolist(), document.train.tolist(), strict=True)) == expected


def test_stored_ids_are_used_as_they_are(folder: Path) -> None:
    document = maker(folder, most_id=100).make({"input_ids": [7, 8, 9, 10], "mask": [0, 1, 1, 0], "text": "unused"})
    assert document.ids.tolist() == [7, 8, 9, 10]
    assert document.train.tolist() == [False, True, True, False]
    assert document.cuts.tolist() == [1, 3]
    labelled = maker(folder, most_id=100).make({"input_ids": [7, 8, 9], "labels": [-100, 8, -100]})
    assert labelled.train.tolist() == [False, True, False]
