"""Runs to datasets: where rows stand, what becomes of them, and that a stop changes nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import duckdb
import jinja2
import pandas
import polars
import pyarrow.parquet as pq
import pytest

from agentdata.datasets import build as building
from agentdata.datasets import gather, plan
from agentdata.errors import RunError, UsageError
from agentdata.records import Manifest
from agentdata.shards import arrow_schema
from tests.assembled import REPOSITORIES, build, chat, chats, task, text, write_run
from tests.runs import agentdata, contents, finish, launch, table

SMALL = ("shard_bytes=2000",)
EVEN = ("validation_share=0.3", "test_share=0.3")
PUBLISHED = (".parquet", "README.md", "manifest.json")


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_BYTES", 1000)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", {"messages": chats()})


def rows_in_order(dataset: Path, manifest: Manifest, config: str) -> list[dict[str, Any]]:
    (shards,) = (one.shards for one in manifest.tables if one.name == config)
    return [row for shard in shards for row in pq.read_table(dataset / shard.path).to_pylist()]


def published(dataset: Path) -> dict[str, str]:
    return {path: digest for path, digest in contents(dataset).items() if path.endswith(PUBLISHED)}


def test_every_row_stands_once_by_repository(tmp_path: Path, run: Path) -> None:
    manifest = build(tmp_path / "dataset", run, overrides=SMALL)
    rows = rows_in_order(tmp_path / "dataset", manifest, "contextual-messages")
    assert [row["id"] for row in rows if row["repo"] == "b/two"] == [f"b{number}" for number in range(6)]
    assert sorted(row["id"] for row in rows) == sorted(row.id for row in chats())
    splits = {
        shard.path: [row["repo"] for row in table_of(tmp_path / "dataset" / shard.path)] for shard in shards(manifest)
    }
    for repositories in splits.values():
        assert repositories == sorted(repositories)


def table_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def shards(manifest: Manifest) -> list[Any]:
    return [shard for one in manifest.tables for shard in one.shards]


def test_no_repository_is_in_two_splits_of_any_config(tmp_path: Path) -> None:
    rows = chats()
    run = write_run(tmp_path / "run", {"messages": rows, "markdown": [text(f"t{row.id}", row.repo) for row in rows]})
    build(tmp_path / "dataset", run, overrides=EVEN)
    found: dict[str, set[str]] = {}
    for path in (tmp_path / "dataset").glob("contextual-*/*.parquet"):
        for row in table_of(path):
            found.setdefault(row["repo"], set()).add(path.name.partition("-")[0])
    assert sorted(found) == sorted(REPOSITORIES)
    assert all(len(splits) == 1 for splits in found.values())
    assert len(set.union(*found.values())) > 1


def test_tests_of_a_task_follow_its_repository(tmp_path: Path) -> None:
    tasks = [task(f"{repo[0]}-1", repo) for repo in REPOSITORIES]
    tables = {name: [one[place] for one in tasks] for place, name in enumerate(("tasks", "tests", "gold"))}
    build(tmp_path / "dataset", write_run(tmp_path / "run", tables), overrides=EVEN)
    split = {
        name: {
            row["id"]: path.name.partition("-")[0]
            for path in (tmp_path / "dataset" / name).iterdir()
            for row in table_of(path)
        }
        for name in ("tasks", "tasks-tests", "tasks-gold")
    }
    assert split["tasks"] == split["tasks-tests"] == split["tasks-gold"]


def test_an_id_that_came_before_is_dropped_and_counted(tmp_path: Path, run: Path) -> None:
    again = write_run(tmp_path / "again", {"messages": [*chats(each=2), *chats(each=1, prefix="new-")]})
    manifest = build(tmp_path / "dataset", run, again)
    assert {count.name: count.count for count in manifest.rejections} == {"contextual-messages/duplicate": 16}
    ids = Counter(row["id"] for row in rows_in_order(tmp_path / "dataset", manifest, "contextual-messages"))
    assert set(ids.values()) == {1}
    assert len(ids) == 48 + 8


def test_a_run_added_at_the_end_leaves_full_shards_as_they_are(tmp_path: Path, run: Path) -> None:
    more = write_run(tmp_path / "more", {"messages": chats(prefix="new-")})
    before = {shard.sha256 for shard in shards(build(tmp_path / "before", run, overrides=SMALL))}
    after = {shard.sha256 for shard in shards(build(tmp_path / "after", run, more, overrides=SMALL))}
    assert len(before) > 4
    assert len(before - after) <= 2  # the last shard of each split, where it is not a quarter full


def test_rows_that_lie_apart_are_written_as_if_they_lay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = chats(each=20)
    mixed = [rows[number * 37 % len(rows)] for number in range(len(rows))]
    run = write_run(tmp_path / "run", {"messages": mixed})
    used = []
    monkeypatch.setattr(gather.BucketWindows, "_fill", record(used, gather.BucketWindows._fill))
    monkeypatch.setattr(gather, "PENDING_BYTES", 20_000)
    manifest = build(tmp_path / "dataset", run, overrides=SMALL)
    assert used
    monkeypatch.setattr(building, "lies_together", lambda plan: True)
    directly = build(tmp_path / "directly", run, overrides=SMALL)
    name = "contextual-messages"
    assert rows_in_order(tmp_path / "dataset", manifest, name) == rows_in_order(tmp_path / "directly", directly, name)
    assert not list((tmp_path / "dataset").rglob("*.arrow"))


def record(calls: list[Any], function: Any) -> Any:
    def wrapped(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    return wrapped


# Views


def view(**changed: str) -> str:
    fields = {"config": "chosen", "kind": "contextual", "table": "messages", **changed}
    return "views=[{" + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}]"


def test_a_view_chooses_columns(tmp_path: Path, run: Path) -> None:
    build(tmp_path / "dataset", run, overrides=[view(columns="[tools, id, messages]")])
    (row, *_) = table(tmp_path / "dataset", "chosen")
    assert list(row) == ["id", "messages", "tools"]


def test_a_mask_trains_actions_only_and_counts_them(tmp_path: Path, run: Path) -> None:
    build(tmp_path / "dataset", run, overrides=[view(mask="actions-only")])
    (row, *_) = table(tmp_path / "dataset", "chosen")
    assert [message["train"] for message in row["messages"]] == [False, False, True, False, True]
    (call,) = row["messages"][2]["tool_calls"]
    words = len("bash") + len(call["function"]["arguments"])
    assert row["trained_tokens"] == -(-len("I look.") // 4) + -(-words // 4) + -(-len("Done.") // 4)


def test_a_mask_of_a_text_follows_its_segments(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"markdown": [text("x", "a/one")]})
    build(tmp_path / "dataset", run, overrides=[view(table="markdown", mask="actions-only")])
    (row,) = table(tmp_path / "dataset", "chosen")
    assert [segment["train"] for segment in row["segments"]] == [False, True]
    assert row["trained_tokens"] == 5


def test_a_mask_trains_all(tmp_path: Path) -> None:
    masked = chat(
        "x",
        "a/one",
        trained_tokens=7,
        messages=tuple(m.model_copy(update={"train": False}) for m in chat("x", "a/one").messages),
    )
    build(tmp_path / "dataset", write_run(tmp_path / "run", {"messages": [masked]}), overrides=[view(mask="all")])
    (row,) = table(tmp_path / "dataset", "chosen")
    assert all(message["train"] for message in row["messages"])
    assert row["trained_tokens"] == row["tokens"]


def test_repeats_have_ids_and_numbers_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"messages": chats(["a/one"], each=2)})
    build(tmp_path / "dataset", run, overrides=[view(repeats="2")])
    rows = table(tmp_path / "dataset", "chosen")
    assert [(row["id"], row["repetition"]) for row in rows] == [("a0", 0), ("a0-1", 1), ("a1", 0), ("a1-1", 1)]


def test_a_view_of_a_table_that_there_is_not_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="no table 'poems'"):
        build(tmp_path / "dataset", run, overrides=[view(table="poems")])
    with pytest.raises(UsageError, match="no column 'poem'"):
        build(tmp_path / "dataset", run, overrides=[view(columns="[id, poem]")])


# Stopping and going on


def test_stopped_at_any_shard_the_same_call_gives_the_same_bytes(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole", run, overrides=SMALL)
    stopped = tmp_path / "stopped"
    for stop in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(building, "write_whole", failing_after(stop + 1))
            with pytest.raises(RunError):
                build(stopped, run, overrides=SMALL)
    build(stopped, run, overrides=SMALL)
    assert published(stopped) == published(tmp_path / "whole")
    assert not list(stopped.rglob("*.tmp"))


def failing_after(times: int) -> Any:
    left = [times]
    real = building.write_whole

    def write(path: Path, text: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(path, text)

    return write


def test_killed_it_goes_on(tmp_path: Path) -> None:
    rows = [chat(f"{repo}{number}", repo) for repo in REPOSITORIES for number in range(400)]
    run = write_run(tmp_path / "run", {"messages": rows}, shard_rows=400)
    arguments = ["dataset", "build", run, "-o", tmp_path / "dataset", "shard_bytes=20000"]
    process = launch(*arguments)
    while process.poll() is None and len(list((tmp_path / "dataset").glob("units/*"))) < 3:
        pass
    process.kill()
    process.communicate()
    finish(launch(*arguments)).succeeds()
    finish(launch("dataset", "build", run, "-o", tmp_path / "other/dataset", "shard_bytes=20000")).succeeds()
    assert published(tmp_path / "dataset") == published(tmp_path / "other/dataset")


def test_a_finished_dataset_is_left_as_it_is(tmp_path: Path, run: Path) -> None:
    build(tmp_path / "dataset", run)
    before = contents(tmp_path / "dataset")
    build(tmp_path / "dataset", run)
    assert contents(tmp_path / "dataset") == before


def test_another_recipe_is_refused(tmp_path: Path, run: Path) -> None:
    build(tmp_path / "dataset", run)
    with pytest.raises(UsageError, match=r"recipe\.shard_bytes was 500000000 and is now 2000"):
        build(tmp_path / "dataset", run, overrides=SMALL)


def test_a_shard_of_another_schema_is_refused_and_the_directory_left(tmp_path: Path, run: Path) -> None:
    path = next((run / "messages").iterdir())
    pq.write_table(pq.read_table(path).drop_columns("repetition"), path)
    with pytest.raises(UsageError, match="another schema"):
        build(tmp_path / "dataset", run)
    build(tmp_path / "dataset", write_run(tmp_path / "better", {"messages": chats()}))


def test_an_unfinished_run_is_refused(tmp_path: Path, run: Path) -> None:
    (run / "manifest.json").unlink()
    agentdata("dataset", "build", run, "-o", tmp_path / "dataset").explains("manifest.json", status=2)


# Readers


@pytest.fixture
def dataset(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    build(tmp_path / "dataset", run, overrides=SMALL)
    return tmp_path / "dataset"


def test_every_reader_finds_the_same_rows(dataset: Path) -> None:
    files = sorted((dataset / "contextual-messages").iterdir())
    known = sum(pq.read_metadata(path).num_rows for path in files)
    pattern = str(dataset / "contextual-messages/*.parquet")
    assert sum(len(pandas.read_parquet(path)) for path in files) == known
    assert polars.scan_parquet(pattern).select(polars.len()).collect().item() == known
    (found,) = duckdb.execute("SELECT count(*), count(DISTINCT id) FROM read_parquet(?)", [pattern]).fetchall()
    assert found == (known, known)
    loaded = datasets.load_dataset(str(dataset), "contextual-messages")
    streamed = datasets.load_dataset(str(dataset), "contextual-messages", streaming=True)
    assert sum(len(rows) for rows in loaded.values()) == known
    assert sum(1 for rows in streamed.values() for _ in rows) == known


def test_every_shard_has_the_schema_of_the_record(dataset: Path) -> None:
    expected = arrow_schema(type(chat("x", "a/one")))
    files = sorted((dataset / "contextual-messages").iterdir())
    assert len(files) > 4
    assert all(pq.read_schema(path) == expected for path in files)
    assert all(pq.ParquetFile(path).metadata.row_group(0).column(0).has_offset_index for path in files)


def test_the_features_of_the_card_are_those_of_the_files(dataset: Path) -> None:
    info = datasets.load_dataset_builder(str(dataset), "contextual-messages").info
    assert info.features["tools"] == datasets.Json()
    plain = datasets.Features.from_arrow_schema(arrow_schema(type(chat("x", "a/one"))))
    assert {name: kind for name, kind in info.features.items() if name not in ("tools", "messages")} == {
        name: kind for name, kind in plain.items() if name not in ("tools", "messages")
    }


# What the template of the Qwen2.5 family does with tools and calls, in fewer words.
CHATML = """\
{%- if tools %}<|im_start|>system
{{ messages[0].content }}

# Tools
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "user" or (message.role == "assistant" and not message.tool_calls) %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% elif message.role == "assistant" %}<|im_start|>assistant
{%- if message.content %}
{{ message.content }}
{%- endif %}
{%- for call in message.tool_calls %}
{%- set call = call.function %}
<tool_call>
{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif message.role == "tool" %}
{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != "tool" %}<|im_start|>user{% endif %}
<tool_response>
{{ message.content }}
</tool_response>
{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}<|im_end|>
{% endif %}
{%- endif %}
{%- endfor %}"""


@pytest.mark.parametrize("streaming", [True, False])
def test_messages_render_with_a_chat_template(dataset: Path, streaming: bool) -> None:
    loaded = datasets.load_dataset(str(dataset), "contextual-messages", split="train", streaming=streaming)
    row = next(iter(loaded))
    told = jinja2.Environment().from_string(CHATML).render(messages=row["messages"], tools=row["tools"])
    assert f'{{"name": "bash", "arguments": {{"command": "cat {row["id"]}"}}}}' in told
    assert '{"function": {"name": "bash"' in told
    assert told.count("<|im_start|>") == told.count("<|im_end|>") == 5


def test_arguments_that_are_no_json_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    good = chat("x", "a/one", kind="environmental")
    (call,) = good.messages[2].tool_calls
    bad = call.model_copy(update={"function": call.function.model_copy(update={"arguments": "{torn"})})
    messages = [*good.messages[:2], good.messages[2].model_copy(update={"tool_calls": (bad,)}), *good.messages[3:]]
    run = write_run(tmp_path / "run", {"messages": [good.model_copy(update={"messages": tuple(messages)})]})
    build(tmp_path / "dataset", run, overrides=["validation_share=0"])
    (row,) = datasets.load_dataset(str(tmp_path / "dataset"), "environmental-messages", split="train")
    assert row["messages"][2]["tool_calls"][0]["function"]["arguments"] == "{torn"
    assert "1 `arguments` in `environmental-messages` are no JSON" in (tmp_path / "dataset/README.md").read_text()
