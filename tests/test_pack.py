"""The command: rows that hold every token once, the same bytes however it is stopped, and refusals in one sentence."""

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recipes
from agentdata.errors import UsageError
from agentdata.midtrain.export import export_rows
from agentdata.midtrain.packed import PADDING, PackedRows, damaged
from agentdata.midtrain.plan import epochs, mixed
from agentdata.midtrain.run import pack
from tests.runs import Finished, agentdata, contents, finish, launch, reasons
from tests.tokenizers_of_kinds import ROOT, write_tokenizer

LENGTH = 512


def text_rows(number: int, count: int) -> list[dict[str, Any]]:
    """Rows in the shape of contextual samples, from this project's own files."""
    draw = random.Random(number)
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "agentdata").glob("*.py"))]
    rows = []
    for place in range(count):
        text = draw.choice(texts)[: draw.randint(20, 2500)]
        border = draw.randint(1, len(text) - 1)
        segments = [
            {"kind": "read", "start": 0, "end": border, "train": False},
            {"kind": "edit", "start": border, "end": len(text), "train": True},
        ]
        row = {"id": f"{number}-{place}", "kind": "contextual", "licence": draw.choice(["MIT", "BSD-3-Clause"])}
        rows.append({**row, "repo": "a/b", "text": text, "segments": segments})
    return rows


def chat_rows(count: int) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    return [
        {
            "id": f"chat-{place}",
            "kind": "environmental",
            "licence": "MIT",
            "tools": "[]",
            "messages": [
                {"role": "user", "content": f"Do {place}", "tool_calls": [], "train": False},
                {"role": "assistant", "content": "", "tool_calls": [call], "train": True},
                {"role": "tool", "content": "word " * (place % 7), "tool_calls": [], "train": False},
                {"role": "assistant", "content": "Done.", "tool_calls": [], "train": True},
            ],
        }
        for place in range(count)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two tables, a file of JSON lines, and a tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    write_tokenizer(folder / "base")
    (folder / "run/markdown").mkdir(parents=True)
    (folder / "run/messages").mkdir()
    for number in range(4):
        pq.write_table(pa.Table.from_pylist(text_rows(number, 25)), folder / f"run/markdown/train-{number}.parquet")
    pq.write_table(pa.Table.from_pylist(text_rows(9, 5)), folder / "run/markdown/validation-0.parquet")
    pq.write_table(pa.Table.from_pylist(chat_rows(40)), folder / "run/messages/train-0.parquet")
    plain = [{"text": row["text"]} for row in text_rows(7, 20)]
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    return folder


def sources(data: Path) -> list[dict[str, Any]]:
    return [
        {"path": str(data / "run"), "rendering": "markdown", "name": "text"},
        {"path": str(data / "run"), "rendering": "messages", "name": "chat", "repeat": 2},
        {"path": str(data / "plain.jsonl"), "name": "plain"},
    ]


def overrides(data: Path, **more: object) -> list[str]:
    given = {
        "sources": sources(data),
        "tokenizer": str(data / "base"),
        "row_length": LENGTH,
        "shard_tokens": 16 * LENGTH,
    }
    return [f"{key}={json.dumps(value)}" for key, value in {**given, **more}.items()]


def command(data: Path, output: Path, **more: object) -> list[str]:
    workers = str(more.pop("workers", 1))
    return ["pack", "pack", *overrides(data, **more), "-o", str(output), "-j", workers]


@pytest.fixture(scope="module")
def packed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packed") / "rows"
    done = agentdata(*command(data, output))
    done.succeeds()
    assert "tiktoken" in done.out
    return output


def test_no_token_is_lost_and_each_piece_is_where_it_says(packed: Path) -> None:
    rows = PackedRows(packed)
    ledger = rows.manifest.ledger
    assert sum(row.tokens for row in rows) == ledger.tokens == sum(line.packed_tokens for line in ledger.lines)
    assert sum(LENGTH - row.tokens for row in rows) == ledger.padding
    assert sum(int(row.train.sum()) for row in rows) == sum(kind.trained for kind in ledger.kinds)
    seen: dict[tuple[int, int], int] = {}
    for row in rows:
        assert row.pieces["start"].tolist() == np.cumsum([0, *row.pieces["tokens"]])[:-1].tolist()
        for piece in row.pieces:
            key = int(piece["unit"]), int(piece["document"])
            seen[key] = seen.get(key, 0) + int(piece["tokens"])
    assert sum(seen.values()) == ledger.tokens
    assert len(seen) == sum(line.documents for line in ledger.lines) == 100 + 40 + 20


def test_rows_say_positions_kinds_and_what_is_trained(packed: Path) -> None:
    rows = PackedRows(packed)
    kinds = rows.manifest.kinds
    assert kinds[0] == PADDING
    for row in rows:
        ends = [*row.pieces["start"][1:].tolist(), row.tokens]
        for start, end in zip(row.pieces["start"].tolist(), ends, strict=True):
            assert row.positions[start:end].tolist() == list(range(end - start))
            assert not row.train[start]
        assert not row.train[row.tokens :].any()
        assert (row.ids[row.tokens :] == rows.manifest.pad_id).all()
        assert (row.kinds[row.tokens :] == 0).all()
        assert row.starts[-1] == LENGTH
        assert row.documents[-1] == len(row.starts) - 2
        trained = {kinds[kind] for kind in np.unique(row.kinds[row.train])}
        assert trained <= {"edit", "assistant", "text"}
        assert ((row.labels == -100) == ~row.train).all()


def test_a_row_is_a_view_of_the_files(packed: Path) -> None:
    row = PackedRows(packed)[0]
    assert not row.ids.flags.owndata
    assert not row.ids.flags.writeable
    assert row.ids.dtype == np.uint16
    with pytest.raises(IndexError):
        PackedRows(packed)[10**6]
    assert np.array_equal(PackedRows(packed)[-1].ids, PackedRows(packed)[len(PackedRows(packed)) - 1].ids)


def test_texts_come_back_from_the_rows(data: Path, packed: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(data / "base/tokenizer.json"))
    rows = PackedRows(packed)
    texts = sorted(row["text"] for number in (*range(4), 7) for row in text_rows(number, 20 if number == 7 else 25))
    pieces: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
    for row in rows:
        for piece in row.pieces:
            if rows.manifest.sources[piece["source"]] != "chat":
                stretch = row.ids[piece["start"] : piece["start"] + piece["tokens"]].tolist()
                pieces.setdefault((piece["unit"], piece["document"]), []).append((piece["first"], stretch))
    documents = [[one for _, stretch in sorted(found) for one in stretch] for found in pieces.values()]
    assert {ids.pop() for ids in documents} == {rows.manifest.end_id}
    assert sorted(tokenizer.decode(ids, skip_special_tokens=False) for ids in documents) == texts


def test_the_ledger_counts_by_source_kind_and_licence(packed: Path) -> None:
    ledger = PackedRows(packed).manifest.ledger
    lines = {(line.source, line.kind, line.licence): line for line in ledger.lines}
    assert {key[:2] for key in lines} == {("text", "contextual"), ("chat", "environmental"), ("plain", "unknown")}
    chat = lines["chat", "environmental", "MIT"]
    assert (chat.documents, chat.packed_documents, chat.epochs) == (40, 80, 2.0)
    assert chat.packed_tokens == 2 * chat.tokens
    assert 0 < chat.trained < chat.tokens
    assert ledger.split_documents > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_packing_gives_the_same_bytes(data: Path, packed: Path, tmp_path: Path, workers: int) -> None:
    finish(launch(*command(data, tmp_path / "rows", workers=workers))).succeeds()
    assert contents(tmp_path / "rows") == contents(packed)
    agentdata(*command(data, tmp_path / "rows")).succeeds()
    assert contents(tmp_path / "rows") == contents(packed)
    assert list(damaged(tmp_path / "rows")) == []


def test_killed_at_random_moments_it_ends_with_the_same_bytes(data: Path, packed: Path, tmp_path: Path) -> None:
    draw = random.Random("pack")
    output = tmp_path / "rows"
    for turn in range(8):
        process = launch(*command(data, output, workers=1 + turn % 2))
        try:
            process.wait(draw.uniform(0.5, 3.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        finish(process).has_no_traceback()
        if (output / "manifest.json").exists():
            assert contents(output) == contents(packed) or (output / "tokens").exists()
            shutil.rmtree(output)
    agentdata(*command(data, output)).succeeds()
    assert contents(output) == contents(packed)


def test_another_seed_gives_other_rows_of_the_same_tokens(data: Path, packed: Path, tmp_path: Path) -> None:
    agentdata(*command(data, tmp_path / "rows", seed=1)).succeeds()
    one, two = PackedRows(packed), PackedRows(tmp_path / "rows")
    assert one.manifest.ledger.tokens == two.manifest.ledger.tokens
    assert not np.array_equal(one[0].ids, two[0].ids)


def test_other_forms_hold_the_same_rows(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "rows")
    rows = PackedRows(tmp_path / "rows")
    for name in ("parquet", "olmo-core", "torchtitan"):
        export_rows(tmp_path / "rows", name)
    table = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "rows/parquet").glob("*.parquet")))
    assert table.num_rows == len(rows)
    for number, row in enumerate(table.to_pylist()):
        assert row["input_ids"] == rows[number].ids.tolist()
        assert row["loss_mask"] == rows[number].train.tolist()
        assert row["position_ids"] == rows[number].positions.tolist()
        assert sum(row["seq_lengths"]) == LENGTH
    flat = np.memmap(tmp_path / "rows/olmo-core/00000.npy", np.uint16, mode="r")
    mask = np.memmap(tmp_path / "rows/olmo-core/00000.mask.npy", np.bool_, mode="r")
    assert flat[:LENGTH].tolist() == rows[0].ids.tolist()
    assert mask[:LENGTH].tolist() == rows[0].train.tolist()
    for file in ("olmo-core/dataset.py", "torchtitan/dataloader.py"):
        compile((tmp_path / "rows" / file).read_text(), file, "exec")


def test_a_tokenizer_of_another_kind_packs_with_itself(data: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["?", *sorted({word for row in text_rows(7, 20) for word in row["text"].split()})]
    tokenizer = Tokenizer(models.Unigram([(word, -float(place)) for place, word in enumerate(words)], 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "words.json"))
    plain = [{"path": str(data / "plain.jsonl")}]
    done = agentdata(
        *command(data, tmp_path / "rows", sources=plain, tokenizer=str(tmp_path / "words.json"), document_end="none")
    )
    done.succeeds()
    assert "tokenizers: its model is Unigram" in done.out
    assert PackedRows(tmp_path / "rows").manifest.vocabulary == len(words)


def test_packing_anew_in_the_same_place_uses_the_new_tokenizer(data: Path, tmp_path: Path) -> None:
    plain = [{"path": str(data / "plain.jsonl")}]
    write_tokenizer(tmp_path / "base", "qwen")
    given = overrides(data, sources=plain, tokenizer=str(tmp_path / "base"))
    pack(tmp_path / "rows", recipes.load_pack("pack", given))
    shutil.rmtree(tmp_path / "rows")
    write_tokenizer(tmp_path / "base", "gpt2")
    anew = pack(tmp_path / "rows", recipes.load_pack("pack", given))
    fresh = pack(tmp_path / "fresh", recipes.load_pack("pack", given))
    assert [shard.files for shard in anew.shards] == [shard.files for shard in fresh.shards]


def test_weights_share_the_tokens_out(data: Path, tmp_path: Path) -> None:
    weighted = [{**source, "weight": weight} for source, weight in zip(sources(data), (0.5, 0.25, 0.25), strict=True)]
    recipe = recipes.load_pack("pack", overrides(data, sources=weighted))
    ledger = pack(tmp_path / "rows", recipe).ledger
    tokens = {
        name: sum(line.packed_tokens for line in ledger.lines if line.source == name) for name in ("text", "chat")
    }
    assert tokens["text"] / ledger.tokens == pytest.approx(0.5, abs=0.03)
    assert tokens["chat"] / ledger.tokens == pytest.approx(0.25, abs=0.03)
    assert epochs([100, 100], recipes.load_pack("pack", overrides(data, sources=weighted[:2]))) == [1.0, 0.5]


def test_the_order_of_documents_is_the_same_everywhere() -> None:
    assert mixed(np.arange(3, dtype=np.uint64), 0).tolist() == [
        16294208416658607535,
        7960286522194355700,
        487617019471545679,
    ]


def test_rows_that_are_not_taken_are_told(data: Path, tmp_path: Path) -> None:
    rows = [{"text": "fine"}, {"text": ""}, {"text": None}, {"text": 3}]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    odd = [{"path": str(tmp_path / "odd.jsonl"), "name": "odd"}]
    done = agentdata(*command(data, tmp_path / "rows", sources=odd))
    done.succeeds()
    assert "dropped 1: odd/empty" in done.out
    assert reasons(tmp_path / "rows") == {"pack/empty": 1, "pack/no-text": 2}


def refused(data: Path, tmp_path: Path, **more: object) -> Finished:
    done = agentdata(*command(data, tmp_path / "rows", **more))
    assert not (tmp_path / "rows/manifest.json").exists()
    return done


def test_what_cannot_be_used_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"question": ["?"]}), other)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    silent = write_tokenizer(tmp_path / "silent", template="")
    wrong = write_tokenizer(tmp_path / "wrong", template="{% if %}")
    for more, words in (
        ({"tokenizer": "/nonexistent/model"}, ["/nonexistent/model", "tokenizer.json"]),
        ({"sources": [{"path": str(other)}]}, [str(other), "question", "messages"]),
        ({"sources": [{"path": str(broken)}]}, [str(broken), "Parquet"]),
        ({"sources": [{"path": str(tmp_path / "*.none")}]}, ["*.none", "glob"]),
        ({"sources": [{"path": str(data / "run"), "rendering": "xml"}]}, ["xml", "train"]),
        ({"sources": []}, ["sources"]),
        ({"sources": [{"path": "a", "weight": 1}, {"path": "b"}]}, ["weight"]),
        ({"sources": [{"path": "a"}, {"path": "a"}]}, ["name"]),
        ({"tokenizer": str(silent)}, ["chat template", "chat_template"]),
        ({"tokenizer": str(wrong)}, ["line 1"]),
        ({"chat_template": "/nonexistent/chat.jinja"}, ["/nonexistent/chat.jinja"]),
        ({"document_end": "<|nope|>"}, ["<|nope|>", "<|endoftext|>"]),
        ({"row_length": 1}, ["row_length"]),
        ({"mask": "some"}, ["mask"]),
    ):
        refused(data, tmp_path, **more).explains(*words, status=2)
        assert not (tmp_path / "rows").exists()
    agentdata(*command(data, tmp_path / "rows"), "--export", "webdataset").explains("webdataset", "parquet", status=2)


def test_a_corrupt_shard_is_named_and_what_is_finished_stays(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "run/markdown", tmp_path / "in")
    victim = tmp_path / "in/train-2.parquet"
    content = bytearray(victim.read_bytes())
    content[200:2000] = bytes(1800)
    victim.write_bytes(content)
    done = refused(data, tmp_path, sources=[{"path": str(tmp_path / "in")}], tokenizer=str(data / "base"))
    done.explains(str(victim), "corrupt", status=1)
    assert len(list((tmp_path / "rows/units").iterdir())) == 2


def test_a_line_that_is_no_json_is_named(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n')
    refused(data, tmp_path, sources=[{"path": str(path)}]).explains(f"{path} is corrupt at byte 16", status=1)


def test_another_configuration_in_the_directory_is_refused(data: Path, packed: Path) -> None:
    before = contents(packed)
    agentdata(*command(data, packed, row_length=256)).explains("row_length", "512", "256", status=2)
    assert contents(packed) == before


def test_a_full_disk_is_told(data: Path, tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -f 8; trap "" XFSZ; exec "$@"', "sh"]
    process = subprocess.run(
        [*limited, *launch_command(command(data, tmp_path / "rows"))], capture_output=True, text=True, cwd=ROOT
    )
    Finished(process.returncode, process.stdout, process.stderr).explains("No space left", status=1)


def launch_command(arguments: list[str]) -> list[str]:
    from tests.runs import COMMAND

    return [*COMMAND, *arguments]


def test_what_holds_no_rows_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="agentdata pack"):
        PackedRows(tmp_path)
