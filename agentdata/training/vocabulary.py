"""Rows of runs and datasets to a tokenizer: byte-level BPE in the shape of Qwen's, with the tokens of ChatML."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from agentdata.errors import UsageError
from agentdata.midtrain.inputs import find_units, read_unit
from agentdata.midtrain.recipe import Columns, PackSource
from agentdata.midtrain.rendering import render_chat, render_text
from agentdata.midtrain.templates import RowError, Template

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens of their own that are text: they are found in content and stay in what is decoded."""
MARKED = re.compile("|".join(map(re.escape, MARKS)))
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where words begin and end, as Qwen 2 has it."""
BYTES = 256
LEAST = BYTES + len((PAD, TURN, END, *MARKS))
"""The smallest vocabulary: every byte, and what is added."""
RENDERINGS = ("markdown", "xml", "messages")
UNIT_BYTES = 1 << 25
TEMPLATE = Template(source=CHAT_TEMPLATE, specials=(PAD, TURN, END))


def train_tokenizer(texts: Iterator[str], *, vocabulary: int) -> Tokenizer:
    """A tokenizer of at most so many tokens. Every text has tokens, and these give it back byte by byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - (LEAST - BYTES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Added behind the merges, so that ids follow their order, as tiktoken wants it.
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (PAD, TURN, END)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in MARKS])
    return tokenizer


def read_texts(sources: Sequence[str], *, most_bytes: int, split: str = "train") -> Iterator[str]:
    """Texts of sources as a model will see them, without special tokens; spread evenly where there are more bytes.

    sources: runs, directories, files or globs as `agentdata pack` takes them, `PATH:RENDERING` for one table of a run.
    most_bytes: of UTF-8, but for the end of the last text. Raises UsageError or RunError.
    """
    units = [unit for source in _tables(sources, split) for unit in find_units(source, 0, UNIT_BYTES)]
    stride = max(1, -(-sum(unit.bytes for unit in units) // most_bytes))
    read = 0
    for number, row in enumerate(row for unit in units for row in read_unit(unit, Columns())):
        if number % stride:
            continue
        for text in _texts(row):
            if read >= most_bytes:
                return
            encoded = text.encode("utf-8", "replace")
            read += len(encoded)
            yield encoded.decode()
    if not read:
        raise UsageError(f"{', '.join(sources)} hold no text that a tokenizer could be trained on: give other sources.")


def _tables(sources: Sequence[str], split: str) -> Iterator[PackSource]:
    for source in sources:
        path, _, rendering = source.rpartition(":")
        if path and rendering in RENDERINGS:
            yield PackSource.model_validate({"path": path, "rendering": rendering, "split": split})
            continue
        # A run holds tables besides its samples: changes, traces, ...
        folder = Path(source).expanduser()
        found = [name for name in RENDERINGS if (folder / name).is_dir()] or [""]
        for name in found:
            yield PackSource.model_validate({"path": source, "rendering": name, "split": split})


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """The text of one row between special tokens; nothing for a row that the packing would reject."""
    columns = Columns()
    try:
        if row.get(columns.messages) is not None:
            rendered = render_chat(row, columns.messages, TEMPLATE, "all")
        elif row.get(columns.text) is not None:
            rendered = render_text(row, columns.text, "all")
        else:
            return
    except RowError:
        return
    whole = "".join(span.text for span in rendered.spans)
    for text in TEMPLATE.special.split(whole) if rendered.template else [whole]:
        if kept := text.replace(rendered.mark, "") if rendered.mark else text:
            # What is a token of its own must not be learnt as a word, too.
            yield from filter(None, MARKED.split(kept))


def check_vocabulary_size(vocabulary: int) -> None:
    """Raise UsageError for a vocabulary that cannot hold every byte."""
    if vocabulary < LEAST:
        raise UsageError(
            f"--vocabulary {vocabulary} is too small: {LEAST} tokens are the least, for every byte and the marks of turns."
        )
