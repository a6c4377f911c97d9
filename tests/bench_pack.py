"""Tokens per second of packing beside the ways of Hugging Face, in one run on the same rows.

    python -m tests.bench_pack TOKENIZER markdown.parquet messages.parquet [--template FILE] [--rows N]

CPU seconds are the figure to compare: cores may be shared. Each way runs in a process of its own. What needs a library that
is not installed (transformers, TRL) is left out.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import recipes
from agentdata.midtrain.documents import DocumentMaker
from agentdata.midtrain.encoding import Choice, choose, make_encoder
from agentdata.midtrain.packed import PackedRows
from agentdata.midtrain.packing import fill_rows
from agentdata.midtrain.recipe import Columns
from agentdata.midtrain.run import pack
from agentdata.midtrain.templates import make_template
from agentdata.midtrain.tokenizer import read_tokenizer
from tests.bench_harvest import Figures, measured

ROW_LENGTH = 32768
BATCH = 64


def read_rows(files: list[str], count: int) -> list[dict[str, Any]]:
    """The first rows of some files."""
    rows = (row for file in files for batch in pq.ParquetFile(file).iter_batches(BATCH) for row in batch.to_pylist())
    return list(islice(rows, count))


def timed(work: Callable[[], int]) -> Figures:
    """CPU and wall seconds of the work itself, and the tokens that it returns."""
    import time

    cpu, wall = time.process_time(), time.perf_counter()
    tokens = work()
    return {"tokens": tokens, "own_cpu": time.process_time() - cpu, "own_wall": time.perf_counter() - wall}


def ours(files: list[str], count: int, tokenizer: str, template: str, plain: bool) -> Figures:
    """Documents with masks, by our encoder or with the tokenizer in its place."""
    read = read_tokenizer(tokenizer, template)
    choice = Choice(fast=False, reason="asked for") if plain else choose(read, [])
    maker = DocumentMaker(make_encoder(read, choice), make_template(read), Columns(), "trained-only")
    rows = read_rows(files, count)
    maker.make(rows[0])
    return timed(lambda: sum(len(maker.make(row).ids) for row in rows))


def encode_batch(files: list[str], count: int, tokenizer: str, fast: bool) -> Figures:
    """Ids alone, of whole texts, in batches, two threads at most."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))
    texts = [row["text"] for row in read_rows(files, count)]
    encode = loaded.encode_batch_fast if fast else loaded.encode_batch
    batches = [texts[place : place + BATCH] for place in range(0, len(texts), BATCH)]
    return timed(lambda: sum(len(one.ids) for batch in batches for one in encode(batch, add_special_tokens=False)))


def by_offsets(files: list[str], count: int, tokenizer: str) -> Figures:
    """One string for each row, and a mask from the offsets of its tokens."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))
    rows = read_rows(files, count)

    def work() -> int:
        tokens = 0
        for row in rows:
            encoded = loaded.encode(row["text"], add_special_tokens=False)
            segments = iter(row["segments"])
            segment = next(segments)
            mask = []
            for start, _ in encoded.offsets:
                while start >= segment["end"]:
                    segment = next(segments)
                mask.append(segment["train"])
            tokens += len(mask)
        return tokens

    return timed(work)


def assistant_masks(files: list[str], count: int, tokenizer: str, template: str) -> Figures:
    """The mask of `transformers`, from a template with generation marks."""
    from transformers import PreTrainedTokenizerFast

    source = Path(template).read_text(encoding="utf-8")
    loaded = PreTrainedTokenizerFast(tokenizer_file=str(Path(tokenizer) / "tokenizer.json"), chat_template=source)
    rows = [(_messages(row["messages"]), json.loads(row["tools"])) for row in read_rows(files, count)]
    options = {"return_dict": True, "return_assistant_tokens_mask": "{% generation %}" in source}
    return timed(
        lambda: sum(
            len(loaded.apply_chat_template(messages, tools=tools, **options)["input_ids"]) for messages, tools in rows
        )
    )


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cleaned = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
        one = {"role": message["role"], "content": message["content"]}
        cleaned.append({**one, "tool_calls": calls} if calls else one)
    return cleaned


def trl_packing(sizes: list[int], strategy: str) -> Figures:
    """TRL's packing of documents that are tokenised already."""
    from datasets import Dataset
    from trl import pack_dataset

    dataset = Dataset.from_dict({"input_ids": [list(range(size)) for size in sizes]})
    rows: list[int] = []

    def work() -> int:
        done = pack_dataset(dataset, seq_length=ROW_LENGTH, strategy=strategy, map_kwargs={"batch_size": 1000})
        rows.append(len(done))
        return sum(len(ids) for ids in done["input_ids"])

    figures = timed(work)
    padding = 1 - figures["tokens"] / (rows[0] * ROW_LENGTH)
    return {**figures, "padding": padding, "dropped": sum(sizes) - figures["tokens"]}


def our_packing(sizes: list[int]) -> Figures:
    """The plan of rows from lengths alone."""
    fitting = [part for size in sizes for part in [ROW_LENGTH] * (size // ROW_LENGTH) + [size % ROW_LENGTH] if part]
    rows: list[int] = []

    def work() -> int:
        rows.append(sum(1 for _ in fill_rows(enumerate(fitting), ROW_LENGTH, 64)))
        return sum(fitting)

    figures = timed(work)
    return {**figures, "padding": 1 - sum(sizes) / (rows[0] * ROW_LENGTH), "dropped": 0}


def whole_command(files: list[str], tokenizer: str, template: str, output: str, workers: int) -> Figures:
    """`agentdata pack`, from Parquet to packed rows."""
    sources = [{"path": file, "name": str(place)} for place, file in enumerate(files)]
    overrides = {"sources": sources, "tokenizer": tokenizer, "chat_template": template}
    recipe = recipes.load_pack("pack", [f"{key}={json.dumps(value)}" for key, value in overrides.items()])
    ledger = pack(Path(output), recipe, workers=workers).ledger
    return {"tokens": ledger.tokens, "padding": ledger.padding_share, "workers": workers}


def _told(name: str, figures: Figures) -> str:
    cpu, wall = figures.get("own_cpu", figures["cpu"]), figures.get("own_wall", figures["wall"])
    # CPU of workers under a fork server is nobody's to read: the wall tells of several processes.
    spent = f"{figures['tokens'] / cpu / 1e6:6.2f}" if figures.get("workers", 1) == 1 else "     -"
    speed = f"{spent} Mtok/CPU-s {figures['tokens'] / wall / 1e6:6.2f} Mtok/s"
    more = f" padding {figures['padding']:.2%}" if "padding" in figures else ""
    more += f" dropped {figures['dropped'] / figures['tokens']:.2%}" if "dropped" in figures else ""
    return f"{name:<58} {speed} {figures['mb']:6.0f} MB{more}"


def bench(options: argparse.Namespace, work: Path) -> Iterator[str]:
    """Measure all ways; yields lines."""
    texts, chats, tokenizer, template = (
        options.texts.split(","),
        options.chats.split(","),
        options.tokenizer,
        options.template,
    )
    count = options.rows
    yield _told("texts: ours, ids and masks", measured(ours, texts, count, tokenizer, template, False))
    yield _told("texts: ours with the plain tokenizer", measured(ours, texts, count, tokenizer, template, True))
    yield _told("texts: tokenizers, mask from offsets", measured(by_offsets, texts, count, tokenizer))
    yield _told("texts: tokenizers encode_batch, no mask", measured(encode_batch, texts, count, tokenizer, False))
    yield _told("texts: tokenizers encode_batch_fast, no mask", measured(encode_batch, texts, count, tokenizer, True))
    yield _told("conversations: ours, ids and masks", measured(ours, chats, count, tokenizer, template, False))
    if find_spec("transformers"):
        name = "conversations: transformers apply_chat_template"
        yield _told(name, measured(assistant_masks, chats, count, tokenizer, template))
    for workers in (1, 2):
        for kind, files in (("texts", texts), ("conversations", chats)):
            output = work / f"{kind}-{workers}"
            figures = measured(whole_command, files, tokenizer, template, str(output), workers)
            yield _told(f"{kind}: agentdata pack -j{workers}", figures)
    rows = PackedRows(work / "texts-1")
    sizes = [size for row in rows for size in row.pieces["tokens"].tolist()]
    yield _told("packing: ours, plan", measured(our_packing, sizes))
    if find_spec("trl"):
        for strategy in ("bfd", "bfd_split"):
            yield _told(f"packing: TRL {strategy}", measured(trl_packing, sizes, strategy))


def main() -> None:
    """Measure the files given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="directory of a tokenizer")
    parser.add_argument("texts", help="Parquet files with texts and segments, with commas")
    parser.add_argument("chats", help="Parquet files with messages, with commas")
    parser.add_argument("--template", default="", help="chat template of the conversations")
    parser.add_argument("--rows", type=int, default=1000)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        for line in bench(options, work):
            print(line, flush=True)
    finally:
        shutil.rmtree(work)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
