"""Three renderings of the same events, their masks, and a chat template that takes them."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.harvest.pulls import PullTexts, build_index
from agentdata.harvest.render import Renderer, fence
from agentdata.tokens import token_counter
from agentdata.records import ChatSample, Event, Rejected, Rendering, Sample, TextSample
from tests.histories import History, numbered
from tests.tellings import Told, recipe, tell

RENDERINGS: tuple[Rendering, ...] = ("markdown", "xml", "messages")
FENCED = 'TEXT = """\n```python\nx\n```\n````\n"""\n'
ROWS = (
    {
        "repo": "owner/name",
        "number": 3,
        "title": "It <breaks>",
        "body": 'When "run" & so on.',
        "comments": [{"body": "Yes", "user": {"login": "ben"}}],
    },
    {
        "repo": "owner/name",
        "number": 1,
        "title": "Change `target_1`",
        "body": "Fixes #3",
        "merged_at": "x",
        "reviews": [{"body": "Fine", "path": "a.py"}],
    },
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A pull request that does everything: searches, reads, and every kind of edit."""
    base = tmp_path_factory.mktemp("render")
    history = History(base / "repository")
    text = numbered("target", 9)
    history.commit(
        "Before",
        {
            "a.py": text,
            "b.py": "import a\na.target_1(0)\n",
            "move.py": numbered("move", 9),
            "gone.py": "1\n",
            "fences.py": FENCED,
        },
    )
    history.branch("topic")
    history.commit(
        "One", {"a.py": text.replace("value + 5", "value - 5"), "fences.py": FENCED + "```\n", "gone.py": None}
    )
    (history.path / "move.py").rename(history.path / "moved.py")
    history.write({"new.py": "print('''\n`````\n''')"})
    (history.path / "new.py").chmod(0o755)
    history.commit("Two", {"a.py": text.replace("value + 5", "value - 5") + "x = 1\n"})
    history.switch("main")
    history.merge("topic", "Merge pull request #1 from a/topic\n\nChange `target_1`")
    (base / "pulls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    build_index(base / "pulls.jsonl", base / "pulls.sqlite")
    pulls = PullTexts(base / "pulls.sqlite")
    found = tell(history.path, "exploration.policy=explore", pulls=pulls, last=1)
    pulls.close()
    assert {event.edit for event in found.traces[0].events} == {
        "",
        "str_replace",
        "insert",
        "create",
        "delete",
        "rename",
        "chmod",
    }
    return found


def render(told: Told, rendering: Rendering, *overrides: str) -> Sample:
    chosen = recipe(*overrides)
    renderer = Renderer(chosen, *token_counter(chosen.tokenizer, chosen.bytes_per_token), "A small thing.")
    sample = renderer.render(rendering, told.changes[0], told.traces[0])
    assert isinstance(sample, Sample)
    return sample


def text_of(told: Told, rendering: Rendering, *overrides: str) -> TextSample:
    sample = render(told, rendering, *overrides)
    assert isinstance(sample, TextSample)
    return sample


def chat_of(told: Told, *overrides: str) -> ChatSample:
    sample = render(told, "messages", *overrides)
    assert isinstance(sample, ChatSample)
    return sample


# Texts


@pytest.mark.parametrize("rendering", ["markdown", "xml"])
def test_segments_tile_the_text(told: Told, rendering: Rendering) -> None:
    sample = text_of(told, rendering)
    ends = [0, *(segment.end for segment in sample.segments)]
    assert [segment.start for segment in sample.segments] == ends[:-1]
    assert ends[-1] == len(sample.text)


@pytest.mark.parametrize("rendering", ["markdown", "xml"])
def test_every_observation_stands_in_the_text(told: Told, rendering: Rendering) -> None:
    text = text_of(told, rendering).text
    for event in told.traces[0].events:
        if event.kind in ("read", "search", "list", "think"):
            assert event.text in text


@pytest.mark.parametrize("rendering", ["markdown", "xml"])
def test_every_edit_stands_in_the_text(told: Told, rendering: Rendering) -> None:
    text = text_of(told, rendering).text
    for event in told.traces[0].events:
        if event.kind == "edit":
            assert event.old in text
            assert event.new in text
            assert event.path in text


def test_all_is_trained_by_default(told: Told) -> None:
    sample = text_of(told, "markdown")
    assert all(segment.train for segment in sample.segments)
    assert sample.trained_tokens == sample.tokens


@pytest.mark.parametrize("rendering", ["markdown", "xml"])
def test_actions_only_trains_what_the_agent_writes(told: Told, rendering: Rendering) -> None:
    sample = text_of(told, rendering, "mask=actions-only")
    assert {segment.kind for segment in sample.segments if segment.train} == {"think", "edit", "command"}
    assert {segment.kind for segment in sample.segments if not segment.train} == {
        "context",
        "issue",
        "list",
        "search",
        "read",
    }
    assert 0 < sample.trained_tokens < sample.tokens


def blocks(text: str) -> list[str]:
    """The fenced blocks of a Markdown text, as a parser of CommonMark finds them."""
    found: list[str] = []
    mark, lines = "", list[str]()
    for line in text.split("\n"):
        fenced = re.match(r" {0,3}(`{3,})([^`]*)$", line)
        if not mark and fenced:
            mark, lines = fenced[1], []
        elif mark and fenced and len(fenced[1]) >= len(mark) and not fenced[2].strip():
            found.append("\n".join(lines))
            mark = ""
        elif mark:
            lines.append(line)
    assert not mark
    return found


def test_a_markdown_parser_finds_each_read_whole(told: Told) -> None:
    found = blocks(text_of(told, "markdown").text)
    for event in told.traces[0].events:
        if event.kind == "read":
            assert event.text.removesuffix("\n") in found


@given(st.text("`~ \nab\r", max_size=40))
@settings(max_examples=80)
def test_a_fence_is_longer_than_any_in_its_text(text: str) -> None:
    mark = fence(text)
    assert blocks(f"{mark}\n{text}\n{mark}") == [text]


def test_markdown_has_its_sections_in_order(told: Told) -> None:
    headings = [line for line in text_of(told, "markdown").text.split("\n") if re.match(r"# [A-Z]", line)]
    assert headings == ["# Repository Context", "# Issue", "# Pull Request", "# Relevant Files Found", "# Edits"]


def test_xml_attributes_are_escaped_and_contents_are_not(told: Told) -> None:
    text = text_of(told, "xml").text
    assert 'When "run" & so on.' in text
    assert '<issue number="3">\nIt <breaks>\n' in text
    assert "&amp;" not in text


def test_xml_tags_are_balanced(told: Told) -> None:
    text = text_of(told, "xml").text
    for tag in (
        "repository",
        "listing",
        "issue",
        "pull_request",
        "comment",
        "review",
        "search",
        "file",
        "thought",
        "commit",
    ):
        assert len(re.findall(rf"^<{tag}[ >]", text, re.MULTILINE)) == text.count(f"</{tag}>") > 0, tag


# Messages


def test_messages_begin_with_the_system_and_the_issue(told: Told) -> None:
    messages = chat_of(told).messages
    assert [message.role for message in messages[:2]] == ["system", "user"]
    assert "It <breaks>" in messages[1].content


def test_messages_alternate_between_calls_and_answers(told: Told) -> None:
    roles = [message.role for message in chat_of(told).messages[2:]]
    assert roles == ["assistant", "tool"] * (len(roles) // 2) + ["assistant"]


def test_each_tool_message_answers_the_call_before_it(told: Told) -> None:
    messages = chat_of(told).messages
    for before, message in pairwise(messages):
        if message.role == "tool":
            assert [call.id for call in before.tool_calls] == [message.tool_call_id]


def test_ids_of_calls_are_unique(told: Told) -> None:
    ids = [call.id for message in chat_of(told).messages for call in message.tool_calls]
    assert len(ids) == len(set(ids))


def test_the_conversation_ends_with_submit(told: Told) -> None:
    (call,) = chat_of(told).messages[-1].tool_calls
    assert (call.function.name, call.function.arguments) == ("submit", "{}")


def test_arguments_are_json_that_fits_the_tools(told: Told) -> None:
    sample = chat_of(told)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in json.loads(sample.tools)}
    types = {"string": str, "integer": int, "array": list}
    for message in sample.messages:
        for call in message.tool_calls:
            schema = schemas[call.function.name]
            arguments = json.loads(call.function.arguments)
            assert set(schema.get("required", [])) <= arguments.keys() <= schema["properties"].keys()
            for name, value in arguments.items():
                assert isinstance(value, types[schema["properties"][name]["type"]])


def test_actions_only_trains_the_assistant(told: Told) -> None:
    sample = chat_of(told, "mask=actions-only")
    assert all(message.train == (message.role == "assistant") for message in sample.messages)


def test_every_thought_is_spoken_before_the_call_that_follows_it(told: Told) -> None:
    spoken = "\n".join(message.content for message in chat_of(told).messages if message.role == "assistant")
    for event in told.traces[0].events:
        if event.kind == "think":
            assert event.text in spoken


TEMPLATE = """{%- if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}<|assistant|>{{ message.content }}
{%- for call in message.tool_calls %}<call>{{ call.function.name }}
{{ call.function.arguments }}</call>{% endfor %}<|end|>
{%- elif message.role == 'tool' %}<|tool|>{{ message.content }}<|end|>
{%- else %}<|{{ message.role }}|>{{ message.content }}<|end|>
{%- endif %}
{%- endfor %}"""


def test_a_chat_template_takes_messages_and_tools(told: Told) -> None:
    jinja2 = pytest.importorskip("jinja2", reason="chat templates are Jinja texts")
    sample = chat_of(told)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    messages: list[Mapping[str, object]] = [message.model_dump() for message in sample.messages]
    text = environment.from_string(TEMPLATE).render(messages=messages, tools=json.loads(sample.tools))
    assert text.count("<|assistant|>") == text.count("<call>") == text.count("<|tool|>") + 1
    assert text.count("<|end|>") == len(messages)


# Samples


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_the_same_events_give_the_same_sample(told: Told, rendering: Rendering) -> None:
    assert render(told, rendering) == render(told, rendering)


def test_ids_tell_renderings_and_masks_apart(told: Told) -> None:
    ids = {render(told, rendering, f"mask={mask}").id for rendering in RENDERINGS for mask in ("all", "actions-only")}
    assert len(ids) == 6


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_a_sample_carries_the_proof_of_its_trace(told: Told, rendering: Rendering) -> None:
    sample = render(told, rendering)
    assert (sample.proof, sample.change_id, sample.languages) == (told.traces[0].proof, told.changes[0].id, ("python",))


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_a_sample_that_is_too_long_is_rejected_by_its_rendering(told: Told, rendering: Rendering) -> None:
    renderer = Renderer(recipe("most_tokens=50"), *token_counter("", 3.5))
    rejected = renderer.render(rendering, told.changes[0], told.traces[0])
    assert isinstance(rejected, Rejected)
    assert (rejected.stage, rejected.reason, rejected.id) == (rendering, "too-long", told.changes[0].id)


def test_the_estimate_counts_bytes(told: Told) -> None:
    count, name = token_counter("", 4.0)
    assert (count("abcdefgh"), count("\u00e9\u00e9"), count(""), name) == (2, 1, 0, "estimate: UTF-8 bytes / 4")


def test_a_tokenizer_from_a_file_counts_its_tokens(tmp_path: Path) -> None:
    vocabulary = {
        "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
        "pre_tokenizer": {"type": "Whitespace"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], **vocabulary}))
    count, _ = token_counter(str(tmp_path), 4.0)
    assert count("a b a a") == 4


def test_an_event_that_prints_nothing_says_so() -> None:
    from agentdata.harvest.render import observation

    assert (
        observation(Event(kind="search", command="x"))
        == "Your command ran successfully and did not produce any output."
    )
