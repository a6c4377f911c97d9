"""Rows and a few sizes to a small model with random weights, which midtrain trains and vLLM serves."""

import json
import shutil
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from agentdata.errors import UsageError
from agentdata.records import Record
from agentdata.training.vocabulary import CHAT_TEMPLATE, END, PAD, check_vocabulary_size, read_texts, train_tokenizer


class ModelShape(Record):
    """Sizes of a model in Qwen 3's architecture, embedding and head tied."""

    hidden_size: int = Field(default=256, ge=8)
    layers: int = Field(default=4, ge=1)
    inner_size: int = Field(default=0, ge=0)
    """Width inside the feed-forward layers; 0 for three times the hidden size."""
    head_size: int = Field(default=64, ge=8)
    key_heads: int = Field(default=2, ge=1)
    """Heads of keys and values; those of queries are hidden size / head size."""
    vocabulary: int = Field(default=4096, ge=1)
    """Tokens at most; fewer where the texts give no more."""
    context: int = Field(default=32768, ge=8)
    """Positions that the model is told to have."""

    @property
    def heads(self) -> int:
        """Heads of queries."""
        return self.hidden_size // self.head_size

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.head_size % 2:
            raise ValueError(f"a head's width is even, and {self.head_size} is not")
        if self.hidden_size % self.head_size or self.heads % self.key_heads:
            raise ValueError(
                f"{self.key_heads} key heads must divide the heads, and {self.head_size} the hidden size {self.hidden_size}"
            )
        return self


def init_model(
    folder: Path, sources: list[str], shape: ModelShape, *, seed: int, most_bytes: int, split: str = "train"
) -> int:
    """Write tokenizer, chat template, configuration and seeded weights; returns the number of parameters.

    The same sources and sizes give the same bytes. most_bytes: of text that the tokenizer is trained on. Raises UsageError
    or RunError.
    """
    if folder.exists():
        raise UsageError(f"{folder} is there already: remove it, or choose another directory with -o.")
    check_vocabulary_size(shape.vocabulary)
    texts = read_texts(sources, most_bytes=most_bytes, split=split)
    tokenizer = train_tokenizer(texts, vocabulary=shape.vocabulary)
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_tokenizer(unfinished, tokenizer, shape)
    parameters = _write_weights(unfinished, tokenizer, shape, seed)
    unfinished.rename(folder)
    return parameters


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, shape: ModelShape) -> None:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _write_weights(folder: Path, tokenizer: Tokenizer, shape: ModelShape, seed: int) -> int:
    logging.disable_progress_bar()
    ends: dict[str, Any] = {"eos_token_id": tokenizer.token_to_id(END), "pad_token_id": tokenizer.token_to_id(PAD)}
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.inner_size or 3 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_size,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        dtype=torch.float32,
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(ends, indent=1) + "\n")
    return sum(each.numel() for each in model.parameters())
