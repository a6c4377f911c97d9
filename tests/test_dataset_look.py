"""Rows of datasets looked at, and two datasets compared."""

import json
from pathlib import Path

import pytest

from agentdata.datasets.look import differences, sample
from agentdata.errors import UsageError
from tests.assembled import build, chat, chats, task, write_run
from tests.runs import agentdata


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    build(tmp_path / "dataset", write_run(tmp_path / "run", {"messages": chats()}), overrides=["shard_bytes=3000"])
    return tmp_path / "dataset"


def test_a_sample_fulfils_its_condition(dataset: Path) -> None:
    rows = sample(dataset, where="repo = 'b/two' and tokens < 4000", count=3)
    assert len(rows) == 3
    assert {row["repo"] for row in rows} == {"b/two"}
    assert not sample(dataset, where="tokens > 4000")


def test_a_sample_depends_on_its_seed_alone(dataset: Path) -> None:
    assert sample(dataset, seed=1) == sample(dataset, seed=1)
    assert sample(dataset, seed=1) != sample(dataset, seed=2)


@pytest.mark.parametrize("where", ["poem = 3", "repo =", "tokens < 'many'"])
def test_a_condition_that_is_none_is_refused(dataset: Path, where: str) -> None:
    with pytest.raises(UsageError, match="is no condition on these columns"):
        sample(dataset, where=where)


def test_a_config_that_there_is_not_is_refused(dataset: Path) -> None:
    with pytest.raises(UsageError, match="choose from contextual-messages"):
        sample(dataset, "poems")


def test_the_command_prints_rows_for_people_and_programs(dataset: Path) -> None:
    shown = agentdata("dataset", "sample", dataset, "-n", "1", "--where", "id = 'a0'")
    assert "[assistant] I look." in shown.out
    assert '  > bash {"command": "cat a0"}' in shown.out
    (line,) = agentdata("dataset", "sample", dataset, "-n", "1", "--where", "id = 'a0'", "--json").out.splitlines()
    assert json.loads(line)["messages"][1]["content"] == "Fix a0."


def test_control_characters_are_written_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"messages": [chat("x", "a/one", policy="\x1b[31mred")]})
    build(tmp_path / "dataset", run)
    shown = agentdata("dataset", "sample", tmp_path / "dataset")
    assert "\\x1b[31mred" in shown.out
    assert "\x1b" not in shown.out


def test_differences_are_told_by_id(dataset: Path, tmp_path: Path) -> None:
    rows = [row for row in chats() if row.id != "a0"]
    changed = [row.model_copy(update={"licence": "ISC"}) if row.id == "b0" else row for row in rows]
    added = [chat("new1", "a/one"), chat("new2", "a/one")]
    tasks = task("a-1", "a/one")
    run = write_run(tmp_path / "other", {"messages": [*changed, *added], "tasks": [tasks[0]]})
    build(tmp_path / "after", run)
    found = {one.config: one for one in differences(dataset, tmp_path / "after")}
    one = found["contextual-messages"]
    assert (one.rows, one.added, one.removed, one.changed) == ((48, 49), 2, 1, 1)
    assert one.examples == ("+new1", "+new2", "-a0", "~b0")
    assert ("ISC", 0, 1) in one.licences
    assert found["tasks"].added == 1


def test_differences_of_columns_are_told(dataset: Path, tmp_path: Path) -> None:
    view = "views=[{config: contextual-messages, kind: contextual, table: messages, columns: [id, repo, licence]}]"
    build(tmp_path / "after", tmp_path / "run", overrides=[view])
    (one,) = differences(dataset, tmp_path / "after")
    assert (one.added, one.removed, one.changed) == (0, 0, 0)
    assert "column messages is gone" in one.schema


def test_the_command_tells_by_its_status(dataset: Path, tmp_path: Path) -> None:
    same = agentdata("dataset", "diff", dataset, dataset)
    assert (same.status, same.out) == (0, "contextual-messages: 48 rows and 48: the same\n")
    build(tmp_path / "after", write_run(tmp_path / "other", {"messages": chats(each=1)}))
    other = agentdata("dataset", "diff", dataset, tmp_path / "after")
    assert other.status == 1
    assert "40 removed" in other.out
