"""Shards: one schema, whole files only, and units that are finished or not begun."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agentdata.errors import UsageError
from agentdata.records import (
    Change,
    ChatSample,
    Count,
    HarvestedSource,
    Landing,
    Record,
    Rejected,
    RepoSource,
    Shard,
    TextSample,
    Trace,
)
from agentdata.shards import (
    ShardWriter,
    UnitOutput,
    arrow_schema,
    collect,
    counted,
    marker_path,
    read_manifest,
    read_rows,
    remove_unfinished,
    write_whole,
)

ROWS = [
    RepoSource(name=f"owner/{number}", location="/x", stars=number, description="\u00e9\n\t") for number in range(100)
]


def write(run: Path, unit: str, rows: list[RepoSource]) -> None:
    with UnitOutput(run, unit) as output:
        for row in rows:
            output.write("sources", row)
            output.counts["sources"] += 1


def write_from(run: Path, makers: list[Callable[[], RepoSource]]) -> None:
    with UnitOutput(run, "one") as output:
        for make in makers:
            output.write("sources", make())


def files(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


@pytest.mark.parametrize("record", [Change, Trace, TextSample, ChatSample, Landing, Rejected, HarvestedSource])
def test_every_record_has_a_schema_without_open_keys(record: type[Record]) -> None:
    assert "map<" not in str(arrow_schema(record))
    assert arrow_schema(record).names == list(record.model_fields)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, "one", ROWS)
    assert list(read_rows(tmp_path / "sources/part-one.parquet", RepoSource)) == ROWS


def test_shards_have_the_same_schema_whatever_their_rows(tmp_path: Path) -> None:
    empty = Rejected(id="", repo="", stage="", reason="", detail="")
    for unit, row in (("one", empty), ("two", empty.model_copy(update={"detail": "x"}))):
        with UnitOutput(tmp_path, unit) as output:
            output.write("rejected", row)
    schemas = [pq.read_schema(tmp_path / f"rejected/part-{unit}.parquet") for unit in ("one", "two")]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert schemas[0].equals(arrow_schema(Rejected))


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for run in ("one", "two"):
        write(tmp_path / run, "unit", ROWS)
    assert (tmp_path / "one/sources/part-unit.parquet").read_bytes() == (
        tmp_path / "two/sources/part-unit.parquet"
    ).read_bytes()


def test_row_groups_end_where_they_are_told_to(tmp_path: Path) -> None:
    with UnitOutput(tmp_path, "one") as output:
        for start in (0, 40, 80):
            for row in ROWS[start : start + 40]:
                output.write("sources", row)
            output.end_group("sources")
    with pq.ParquetFile(tmp_path / "sources/part-one.parquet") as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [40, 40, 20]


def test_a_marker_names_shards_and_counts(tmp_path: Path) -> None:
    write(tmp_path, "one", ROWS)
    marker = json.loads(marker_path(tmp_path, "one").read_text())
    content = (tmp_path / "sources/part-one.parquet").read_bytes()
    shard = {
        "path": "sources/part-one.parquet",
        "rows": 100,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert marker == {"shards": [shard], "counts": {"sources": 100}}


def test_nothing_has_its_final_name_before_the_unit_ends(tmp_path: Path) -> None:
    with UnitOutput(tmp_path, "one") as output:
        output.write("sources", ROWS[0])
        output.write("rejected", Rejected(id="", repo="", stage="", reason="", detail=""))
        assert all(name.endswith(".tmp") for name in files(tmp_path))
    assert files(tmp_path) == ["rejected/part-one.parquet", "sources/part-one.parquet", "units/one.json"]


def test_a_unit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> RepoSource:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_from(tmp_path, [lambda: ROWS[0], fail])
    assert files(tmp_path) == []


def test_a_unit_that_cannot_be_published_leaves_no_marker(tmp_path: Path) -> None:
    (tmp_path / "sources/part-one.parquet").mkdir(parents=True)
    with pytest.raises(OSError, match="part-one"), UnitOutput(tmp_path, "one") as output:
        output.write("sources", ROWS[0])
    assert files(tmp_path) == []


def test_a_unit_without_rows_is_finished_too(tmp_path: Path) -> None:
    write(tmp_path, "one", [])
    assert collect(tmp_path, ["one"]) == ((), {})


def test_a_unit_can_be_done_again(tmp_path: Path) -> None:
    write(tmp_path, "one", ROWS)
    before = (tmp_path / "sources/part-one.parquet").read_bytes()
    marker_path(tmp_path, "one").unlink()
    write(tmp_path, "one", ROWS)
    assert (tmp_path / "sources/part-one.parquet").read_bytes() == before


KILLED = """
import os, signal
from pathlib import Path
from agentdata.records import RepoSource
from agentdata.shards import UnitOutput
with UnitOutput(Path({run!r}), "one") as output:
    output.write("sources", RepoSource(name="a", location="b"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_cleaned(tmp_path: Path) -> None:
    write(tmp_path, "zero", ROWS)
    done = subprocess.run([sys.executable, "-c", KILLED.format(run=str(tmp_path))], check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(name.startswith("sources/part-one.parquet.") for name in files(tmp_path))
    remove_unfinished(tmp_path)
    assert files(tmp_path) == ["sources/part-zero.parquet", "units/zero.json"]


def test_tables_are_summed_in_the_order_of_the_units(tmp_path: Path) -> None:
    for unit in ("b", "a"):
        write(tmp_path, unit, ROWS[:3])
    (table,), counts = collect(tmp_path, ["b", "a"])
    assert (table.name, table.rows, [shard.path for shard in table.shards]) == (
        "sources",
        6,
        ["sources/part-b.parquet", "sources/part-a.parquet"],
    )
    assert counts == {"sources": 6}


def test_splits_have_shards_of_their_own(tmp_path: Path) -> None:
    with UnitOutput(tmp_path, "one") as output:
        output.write("sources", ROWS[0], split="train")
        output.write("sources", ROWS[1], split="validation")
    assert files(tmp_path)[:2] == ["sources/train-one.parquet", "sources/validation-one.parquet"]


def test_counts_are_sorted_by_number_then_name() -> None:
    from collections import Counter

    counts = Counter({"x/b": 1, "x/a": 1, "x/c": 5, "y": 9})
    assert counted(counts, "x/") == (Count(name="c", count=5), Count(name="a", count=1), Count(name="b", count=1))


def test_a_text_is_written_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "new/a.json", "one\n")
    write_whole(tmp_path / "new/a.json", "two\n")
    assert (files(tmp_path), (tmp_path / "new/a.json").read_text()) == (["new/a.json"], "two\n")


def test_a_run_without_manifest_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="unfinished run"):
        read_manifest(tmp_path)


def test_another_directory_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        read_manifest(tmp_path)


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 1}')
    with pytest.raises(UsageError, match="not a manifest"):
        read_manifest(tmp_path)


def test_an_open_shard_keeps_its_unfinished_name_until_it_is_published(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a.parquet", arrow_schema(Shard))
    writer.write(Shard(path="x", rows=1, bytes=2, sha256="y"))
    digest = writer.finish()
    (name,) = files(tmp_path)
    assert name.startswith("a.parquet.")
    assert name.endswith(".tmp")
    writer.publish()
    assert hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest() == digest
