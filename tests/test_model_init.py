"""A model to begin with: the same sources give the same bytes, and packing, training and serving can take it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentdata.midtrain.encoding import choose, make_encoder
from agentdata.midtrain.rendering import render_chat
from agentdata.midtrain.templates import Template, make_template
from agentdata.midtrain.tokenizer import TokenizerFiles, read_tokenizer
from agentdata.training.vocabulary import CHAT_TEMPLATE, END, MARKS, PAD, TURN, read_texts
from tests.runs import agentdata, contents
from tests.test_chat_rendering import CONVERSATIONS, say

ROOT = Path(__file__).parent.parent
TEMPLATE = Template(source=CHAT_TEMPLATE, specials=(PAD, TURN, END))
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}]
VOCABULARY = 1024
SIZES = ("--vocabulary", str(VOCABULARY), "--hidden-size", "64", "--layers", "2", "--head-size", "16")
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
ARGUMENTS = st.dictionaries(
    st.text(max_size=5), st.one_of(st.text(max_size=12), st.integers(), st.lists(st.booleans())), max_size=3
)


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "bash", "arguments": json.dumps(arguments)}}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts and conversations about this project's own files, in the folders of a run beside a table of other things."""
    folder = tmp_path_factory.mktemp("sources")
    files = sorted((ROOT / "agentdata").rglob("*.py"))[:40]
    tables = {
        "markdown": [{"text": path.read_text(encoding="utf-8")} for path in files],
        "messages": [
            {
                "tools": json.dumps(TOOLS),
                "messages": [
                    say("user", f"Read {path.name}"),
                    say("assistant", "", tool_calls=[call({"command": f"cat {path.name}"})]),
                    say("tool", path.read_text(encoding="utf-8")[:500]),
                    say("assistant", "Done."),
                ],
            }
            for path in files
        ],
        "xml": [{"text": "half a character \ud800"}],
        "changes": [{"patch": "none"}],
    }
    for name, rows in tables.items():
        (folder / name).mkdir()
        (folder / name / "train-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def model(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    agentdata("model", "init", sources, "-o", folder, *SIZES).succeeds()
    return folder


@pytest.fixture(scope="module")
def files(model: Path) -> TokenizerFiles:
    return read_tokenizer(str(model))


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def test_the_same_sources_give_the_same_bytes(sources: Path, model: Path, tmp_path: Path) -> None:
    agentdata("model", "init", sources, "-o", tmp_path / "again", *SIZES).succeeds()
    agentdata("model", "init", sources, "-o", tmp_path / "other", "--seed", "1", *SIZES).succeeds()
    once, other = contents(model), contents(tmp_path / "other")
    assert contents(tmp_path / "again") == once
    assert {name for name, digest in other.items() if once[name] != digest} == {"model.safetensors"}


def test_the_vocabulary_has_the_size_that_was_asked_for(files: TokenizerFiles, tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == files.most_id + 1 == VOCABULARY
    assert [token.text for token in files.added] == [PAD, TURN, END, *MARKS]
    assert [token.special for token in files.added] == [True] * 3 + [False] * len(MARKS)


def test_packing_runs_it_with_tiktoken(sources: Path, files: TokenizerFiles, tokenizer: Tokenizer) -> None:
    texts = list(read_texts([f"{sources}:messages"], most_bytes=1 << 20))
    choice = choose(files, texts)
    assert (choice.fast, choice.reason) == (True, "")
    encoder = make_encoder(files, choice)
    text = f"{TURN}user\n{(ROOT / 'README.md').read_text(encoding='utf-8')}{END}\n<tool_call>"
    assert encoder.encode(text, specials=True).tolist() == tokenizer.encode(text).ids


@given(st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_what_is_read_is_what_is_trained_on(sources: Path) -> None:
    texts = list(read_texts([str(sources)], most_bytes=1 << 22))
    assert not any(mark in text for text in texts for mark in MARKS)
    assert any("# Tools" in text for text in texts)
    assert any('"arguments": {"command": "cat ' in text for text in texts)
    alone = list(read_texts([f"{sources}:markdown"], most_bytes=1 << 22))
    assert not any("# Tools" in text for text in alone)
    assert len(alone) < len(texts)


def test_a_cap_on_bytes_takes_from_everywhere(sources: Path) -> None:
    whole = list(read_texts([f"{sources}:markdown"], most_bytes=1 << 30))
    size = sum(len(text.encode()) for text in whole)
    part = list(read_texts([f"{sources}:markdown"], most_bytes=size // 3))
    assert size // 10 < sum(len(text.encode()) for text in part[:-1]) < size // 3
    assert whole.index(part[-1]) > len(whole) // 2


@given(CONVERSATIONS, st.booleans())
def test_what_follows_never_changes_what_was_rendered(conversation: list[dict[str, Any]], tools: bool) -> None:
    given_tools = TOOLS if tools else []
    whole = TEMPLATE.render(conversation, given_tools)
    for count in range(1, len(conversation)):
        asked = TEMPLATE.render(conversation[:count], given_tools, prompt=conversation[count]["role"] == "assistant")
        assert whole.startswith(asked)
    row = {"messages": conversation, "tools": json.dumps(given_tools)}
    spans = render_chat(row, "messages", TEMPLATE, "trained-only").spans
    assert {span.kind for span in spans if span.train} == {"assistant"}


@given(st.text(max_size=20).filter(lambda words: "<" not in words), st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_calls_parse_back_and_are_rendered_to_the_same_text(words: str, arguments: list[dict[str, Any]]) -> None:
    """As vLLM's parser `hermes` reads them: what stands before the first call is content, each call is JSON."""
    asked = [say("user", "Work.")]
    before = TEMPLATE.render(asked, TOOLS, prompt=True)
    whole = TEMPLATE.render([*asked, say("assistant", words, tool_calls=_parsed(arguments))], TOOLS)
    written = whole.removeprefix(before).removesuffix(f"{END}\n")
    content = written[: written.find("<tool_call>")]
    read = [json.loads(found) for found in CALL.findall(written)]
    assert read == [{"name": "bash", "arguments": one} for one in arguments]
    assert content.removesuffix("\n") == words.removesuffix("\n")
    again = say("assistant", content, tool_calls=_parsed([one["arguments"] for one in read]))
    assert TEMPLATE.render([*asked, again], TOOLS) == whole


def _parsed(arguments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"function": {"name": "bash", "arguments": one}} for one in arguments]


def test_the_libraries_load_it(model: Path, files: TokenizerFiles) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = [{"role": "user", "content": "Work."}]
    shown = tokenizer.apply_chat_template(asked, tools=TOOLS, tokenize=False, add_generation_prompt=True)
    assert shown == make_template(files).render(asked, TOOLS, prompt=True)
    ids = torch.tensor([tokenizer.encode(shown)])
    with torch.no_grad():
        logits = loaded(ids).logits
    assert logits.shape == (1, ids.shape[1], VOCABULARY)
    assert torch.isfinite(logits).all()
    assert tokenizer.decode(loaded.generation_config.eos_token_id) == END


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--vocabulary", "200"), ("--vocabulary 200", "263")),
        (("--hidden-size", "18", "--head-size", "9"), ("do not fit: a head's width is even", "9")),
        (("--split", "nothing"), ("--split nothing", "validation")),
        (("--seed", str(2**64)), ("--seed",)),
        (("--hidden-size", "100"), ("100",)),
        (("--head-size", "64", "--hidden-size", "192"), ("key heads",)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    sources: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    agentdata("model", "init", sources, "-o", tmp_path / "new", *options).explains(*words, status=2)
    assert not (tmp_path / "new").exists()


def test_a_directory_that_is_there_is_kept(sources: Path, tmp_path: Path) -> None:
    agentdata("model", "init", sources, "-o", tmp_path, *SIZES).explains("is there already", status=2)
    agentdata("model", "init", tmp_path / "none", "-o", tmp_path / "new", *SIZES).explains("none", status=2)
