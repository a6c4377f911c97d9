"""Encoders give the ids of the tokenizer, whatever the text."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from agentdata.errors import UsageError
from agentdata.midtrain.encoding import (
    LONG_RUN,
    Choice,
    Encoder,
    FastEncoder,
    PlainEncoder,
    choose,
    make_encoder,
    obstacle,
)
from agentdata.midtrain.tokenizer import read_tokenizer
from tests.tokenizers_of_kinds import KINDS, ROOT, tokenizer_json, write_tokenizer

SPECIALS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<|im_", "_end|>"]
TEXTS = st.lists(
    st.one_of(
        st.text(),
        st.sampled_from(SPECIALS),
        st.sampled_from(
            ["don't", "WE'LL", "\u017f", "'\u017f", "\u212a", "e\u0301", "\u1100\u1161", "\u00a0", "\u2028", "12345"]
        ),
        st.text(alphabet=" \n\t\r\x0b\u3000", max_size=40),
        st.text(alphabet="abc'123 \n", max_size=40),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Tokenizer]:
    """The chosen encoder of a kind of tokenizer, and the tokenizer itself."""
    files = read_tokenizer(str(write_tokenizer(tmp_path_factory.mktemp("tokenizer"), request.param)))
    choice = choose(files, ["some text"])
    assert choice.fast, choice.reason
    return make_encoder(files, choice), Tokenizer.from_file(str(files.path))


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, specials=st.booleans())
def test_ids_are_the_tokenizers(pair: tuple[Encoder, Tokenizer], text: str, specials: bool) -> None:
    encoder, tokenizer = pair
    tokenizer.encode_special_tokens = not specials
    assert encoder.encode(text, specials=specials).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def test_content_makes_no_special_token(pair: tuple[Encoder, Tokenizer]) -> None:
    encoder, tokenizer = pair
    text = "one <|im_end|> two"
    special = tokenizer.token_to_id("<|im_end|>")
    assert special not in encoder.encode(text)
    assert special in encoder.encode(text, specials=True)
    assert tokenizer.decode(encoder.encode(text).tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("run", [" ", "\n", " \n", "\t"])
def test_long_runs_of_spaces_take_no_quadratic_time(pair: tuple[Encoder, Tokenizer], run: str) -> None:
    encoder, tokenizer = pair
    tokenizer.encode_special_tokens = True
    text = "x" + run * (20 * LONG_RUN) + "y"
    assert encoder.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def test_real_files_have_the_tokenizers_ids(pair: tuple[Encoder, Tokenizer]) -> None:
    encoder, tokenizer = pair
    tokenizer.encode_special_tokens = True
    for path in [*ROOT.glob("*.md"), *(ROOT / "tests").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert encoder.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def test_texts_with_characters_that_differ_go_to_the_tokenizer(tmp_path: Path) -> None:
    files = read_tokenizer(str(write_tokenizer(tmp_path)))
    marked = make_encoder(files, Choice(fast=True, reason="", differing=((0xE9, 0xE9),)))
    assert isinstance(marked, FastEncoder)
    marked._plain = None  # type: ignore[assignment]
    assert len(marked.encode("plain"))
    with pytest.raises(AttributeError):
        marked.encode("caf\u00e9")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}}, "Unigram"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "byte-level"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "space"),
    ],
)
def test_what_is_no_byte_level_bpe_stays_with_the_tokenizer(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    folder = write_tokenizer(tmp_path)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    files = read_tokenizer(str(folder))
    assert word in obstacle(files)
    choice = choose(files, [])
    assert not choice.fast
    assert word in choice.reason
    assert isinstance(make_encoder(files, choice), PlainEncoder)


def test_ids_in_another_order_than_the_merges_stay_with_the_tokenizer(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    path = folder / "tokenizer.json"
    definition = json.loads(path.read_text())
    vocabulary = definition["model"]["vocab"]
    one, two = (token for token, rank in vocabulary.items() if rank in (600, 900))
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    path.write_text(json.dumps(definition))
    assert "order" in obstacle(read_tokenizer(str(folder)))


def test_a_tokenizer_that_splits_differently_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = read_tokenizer(str(write_tokenizer(tmp_path)))
    monkeypatch.setattr("agentdata.midtrain.encoding._split_rule", lambda definition: r"\s+|\S+")
    choice = choose(files, ["x = 1"])
    assert not choice.fast
    assert "tiktoken" in choice.reason


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_tokenizer(str(tmp_path / "nowhere"))
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        read_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(UsageError, match="Cannot load"):
        PlainEncoder(read_tokenizer(str(tmp_path))).encode("x")


def test_a_tokenizer_without_added_tokens_is_converted(tmp_path: Path) -> None:
    definition = json.loads(tokenizer_json("qwen"))
    (tmp_path / "tokenizer.json").write_text(json.dumps({**definition, "added_tokens": []}))
    files = read_tokenizer(str(tmp_path))
    choice = choose(files, [])
    assert choice.fast
    text = "a \ue000 no token \uf8ff <|im_end|>"
    assert make_encoder(files, choice).encode(text).tolist() == PlainEncoder(files).encode(text).tolist()
    assert make_encoder(files, Choice(fast=True, reason="")).encode(text).max() <= files.most_id


def test_the_files_of_a_tokenizer_can_be_named_in_three_ways(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "base")
    alone = tmp_path / "other.json"
    alone.write_text(tokenizer_json("qwen"))
    by_folder, by_file = read_tokenizer(str(folder)), read_tokenizer(str(folder / "tokenizer.json"))
    assert by_folder.chat_template == by_file.chat_template != ""
    assert read_tokenizer(str(alone)).chat_template == ""
    assert np.array_equal(
        PlainEncoder(by_folder).encode("same"), PlainEncoder(read_tokenizer(str(alone))).encode("same")
    )
