"""`agentdata show` and `check`: what a run holds is shown, what was changed behind its back is found."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from agentdata.harvest.replay import digest_of
from agentdata.records import ChatSample, TextSample, Trace
from agentdata.shards import arrow_schema
from tests.histories import History, numbered
from tests.runs import COMMAND, ROOT, agentdata, small_history, table


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("look")
    history = small_history(base / "small", 5, name="helper")
    history.commit(
        "Sprich «deutsch»", {"helper.py": numbered("helper", 6), "alt.py": "name = 'Jürgen'\n".encode("latin-1")}
    )
    history.commit("Verbessern", {"alt.py": "name = 'Jörg'\n".encode("latin-1")})
    run = base / "run"
    arguments = [
        "harvest",
        "contextual",
        history.path,
        "-o",
        run,
        "-j1",
        "--render",
        "markdown,xml,messages",
        "--policy",
        "explore",
    ]
    agentdata(*arguments).succeeds()
    return run


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "run")


def rewrite(run: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the rows of a table and write its digests anew, as somebody would who wants to go unseen."""
    manifest = json.loads((run / "manifest.json").read_text())
    (entry,) = [one for one in manifest["tables"] if one["name"] == name]
    for shard in entry["shards"]:
        path = run / shard["path"]
        rows = pq.read_table(path)
        records = rows.to_pylist()
        for record in records:
            change(record)
        pq.write_table(rows.from_pylist(records, schema=rows.schema), path)
        shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        shard["bytes"] = path.stat().st_size
    (run / "manifest.json").write_text(json.dumps(manifest))


def proved_anew(record: dict[str, Any]) -> None:
    """Give a changed trace the digest of its changed events."""
    record["proof"]["digest"] = digest_of(Trace.model_validate(record).events)


# Show


def test_the_first_sample_is_shown_without_an_id(run: Path) -> None:
    done = agentdata("show", run)
    done.succeeds()
    assert "# Repository Context" in done.out
    assert "trained" in done.out


def test_a_sample_is_found_by_the_first_digits_of_its_id_or_its_changes(run: Path) -> None:
    row = table(run, "xml")[1]
    for wanted in (row["id"], row["id"][:9], row["change_id"]):
        done = agentdata("show", run, wanted, "--render", "xml")
        done.succeeds()
        assert row["id"] in done.out
        assert "<repository" in done.out


def test_every_rendering_is_shown_with_all_of_its_text(run: Path) -> None:
    for name in ("markdown", "xml"):
        row = table(run, name)[0]
        assert row["text"].strip() in agentdata("show", run, row["id"], "--plain").out
    row = table(run, "messages")[0]
    shown = " ".join(agentdata("show", run, row["id"], "--plain").out.split())
    assert all(" ".join(message["content"].split()) in shown for message in row["messages"])


def test_plain_output_holds_no_colours(run: Path) -> None:
    assert "\x1b" not in agentdata("show", run, "--plain").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["ffffffffffffffff"], ["no sample", "ffffffffffffffff"]), (["--render", "pdf"], ["pdf", "markdown"])],
)
def test_what_is_not_there_is_told(run: Path, arguments: list[str], words: list[str]) -> None:
    agentdata("show", run, *arguments).explains(*words, status=2)


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_directory_that_is_no_run_is_told(tmp_path: Path, command: str) -> None:
    agentdata(command, tmp_path / "absent").explains("absent", "-o", status=2)
    agentdata(command, tmp_path).explains(str(tmp_path), status=2)
    (tmp_path / "file").write_text("")
    agentdata(command, tmp_path / "file").explains("file", status=2)


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize("content", ["", "{}", "[]", "not json", '{"schema_version": 99}'])
def test_a_manifest_of_another_kind_is_told_in_one_line(run: Path, command: str, content: str) -> None:
    (run / "manifest.json").write_text(content)
    done = agentdata(command, run)
    done.explains("manifest.json", status=2)
    assert len(done.err.strip().splitlines()) == 1


def test_an_unfinished_run_is_told(run: Path) -> None:
    (run / "manifest.json").unlink()
    for command in ("show", "check"):
        agentdata(command, run).explains("unfinished", status=2)


def test_a_run_of_changes_alone_holds_no_samples(tmp_path: Path) -> None:
    history = small_history(tmp_path / "small", 3)
    agentdata("harvest", "changes", history.path, "-o", tmp_path / "run", "-j1").succeeds()
    agentdata("show", tmp_path / "run").explains("no samples", status=2)
    agentdata("check", tmp_path / "run", "--share", "1").succeeds()


@pytest.mark.parametrize("content", [None, b"", b"PAR1 torn"])
def test_show_of_a_missing_or_torn_shard_is_told(run: Path, content: bytes | None) -> None:
    for path in (run / "markdown").glob("*.parquet"):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    agentdata("show", run).explains("markdown", status=1)


def test_terminal_escapes_of_a_hostile_message_do_not_reach_the_terminal(tmp_path: Path) -> None:
    history = small_history(tmp_path / "loud", 2)
    history.commit("Innocent \x1b]0;owned\x07\x1b[2J\x9b31m title", {"a.py": numbered("a", 5) + "x = '\x1b[8m'\n"})
    run = tmp_path / "run"
    agentdata("harvest", "contextual", history.path, "-o", run, "-j1", "--render", "markdown,messages").succeeds()
    for name in ("markdown", "messages"):
        for row in table(run, name):
            done = agentdata("show", run, row["id"], "--plain", "--render", name)
            done.succeeds()
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.out)


def test_a_reader_that_leaves_early_is_no_error(run: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -c 10', "bash", *COMMAND, "show", str(run)],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert len(done.stdout) == 10
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


# Check


def test_a_run_checks_out(run: Path) -> None:
    done = agentdata("check", run, "--share", "1")
    done.succeeds()
    traces = table(run, "traces")
    assert f"{len(traces)} traces replayed" in done.out
    assert "no faults" in done.out
    assert any(event["kind"] == "search" for trace in traces for event in trace["events"])


def test_a_share_of_nothing_still_looks_at_the_shards(run: Path) -> None:
    done = agentdata("check", run, "--share", "0")
    done.succeeds()
    assert "replayed" not in done.out


@pytest.mark.parametrize("share", ["-1", "1.1", "half", "nan"])
def test_a_share_outside_of_zero_to_one_is_refused(run: Path, share: str) -> None:
    agentdata("check", run, "--share", share).explains("--share", status=2)


@pytest.mark.parametrize("name", ["markdown", "traces", "changes", "rejected", "sources", "landings"])
def test_a_missing_shard_is_found(run: Path, name: str) -> None:
    next((run / name).glob("*.parquet")).unlink()
    done = agentdata("check", run)
    done.explains("1 fault", status=1)
    assert "is missing" in done.out
    assert name in done.out


def test_a_changed_byte_is_found(run: Path) -> None:
    path = next((run / "markdown").glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = agentdata("check", run)
    done.explains(status=1)
    assert "another content" in done.out
    assert path.name in done.out


def test_what_check_advises_repairs_the_run(run: Path, pristine: Path) -> None:
    """The remedy in the message: delete the shard and its marker, and harvest again."""
    path = next((run / "markdown").glob("*.parquet"))
    path.write_bytes(b"torn")
    agentdata("check", run).explains("units/", status=1)
    path.unlink()
    (run / "units" / f"{path.stem.removeprefix('train-').removeprefix('validation-')}.json").unlink()
    configuration = json.loads((run / "config.json").read_text())
    (source,) = configuration["sources"]
    arguments = ["harvest", "contextual", source["location"], "-o", run, "-j1", "--render", "markdown,xml,messages"]
    agentdata(*arguments, "--policy", "explore").succeeds()
    agentdata("check", run, "--share", "1").succeeds()


def test_a_torn_shard_with_a_forged_digest_is_found(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    shard = next(one for one in manifest["tables"] if one["name"] == "markdown")["shards"][0]
    (run / shard["path"]).write_bytes(b"torn")
    shard["sha256"] = hashlib.sha256(b"torn").hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = agentdata("check", run)
    done.explains(status=1)
    assert shard["path"] in done.out


def test_a_shard_with_another_schema_is_found(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    shard = next(one for one in manifest["tables"] if one["name"] == "rejected")["shards"][0]
    path = run / shard["path"]
    pq.write_table(pq.read_table(path).drop_columns(["detail"]), path)
    shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = agentdata("check", run)
    done.explains(status=1)
    assert "schema" in done.out


def test_rows_that_the_manifest_does_not_count_are_found(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    shard = next(one for one in manifest["tables"] if one["name"] == "traces")["shards"][0]
    shard["rows"] += 1
    (run / "manifest.json").write_text(json.dumps(manifest))
    agentdata("check", run).explains(status=1)


def event_of(record: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((event for event in record["events"] if event["kind"] == kind), None)


@pytest.mark.parametrize("kind", ["read", "search", "list", "edit", "issue"])
def test_a_changed_event_text_is_found(run: Path, kind: str) -> None:
    def change(record: dict[str, Any]) -> None:
        if event := event_of(record, kind):
            event["text"] += "!"

    rewrite(run, "traces", change)
    done = agentdata("check", run, "--share", "1")
    done.explains(status=1)
    assert "not those that were proved" in done.out


@pytest.mark.parametrize(
    ("kind", "key", "value", "words"),
    [
        ("read", "text", "forged\n", "not what was read"),
        ("read", "path", "absent.py", "does not exist"),
        ("read", "path", "../../etc/passwd", ""),
        ("read", "path", "/etc/passwd", ""),
        ("read", "encoding", "latin-1", ""),
        ("search", "text", "forged\n", "prints something else"),
        ("search", "command", "ls", ""),
        ("search", "command", "git grep 'unclosed -- x | head -n 3", ""),
        ("search", "command", "git grep -n x -- '*.py' | head -n many", ""),
        ("list", "text", ".\n./forged\n", "prints something else"),
        ("edit", "old", "forged", ""),
        ("edit", "new", "forged", ""),
        ("edit", "edit", "delete", ""),
        ("edit", "encoding", "latin-1", ""),
    ],
)
def test_a_forged_event_with_a_digest_to_match_is_found_by_replaying(
    run: Path, kind: str, key: str, value: str, words: str
) -> None:
    touched = []

    def change(record: dict[str, Any]) -> None:
        event = event_of(record, kind)
        if event and event[key] != value and (key != "edit" or event["edit"]):
            # A latin-1 reading of ASCII text is no lie.
            touched.append(not (key == "encoding" and event["text"].isascii() and event["new"].isascii()))
            event[key] = value
        proved_anew(record)

    rewrite(run, "traces", change)
    for name in ("markdown", "xml", "messages"):
        digests = {row["change_id"]: row["proof"]["digest"] for row in table(run, "traces")}
        rewrite(run, name, lambda row, digests=digests: row["proof"].update(digest=digests[row["change_id"]]))  # type: ignore[misc]
    assert touched
    done = agentdata("check", run, "--share", "1")
    done.has_no_traceback()
    if any(touched):
        done.explains("fault", status=1)
        assert words in done.out


def test_a_text_told_in_the_wrong_encoding_is_found_without_a_crash(run: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        for event in record["events"]:
            if event["encoding"] == "latin-1":
                event["encoding"] = "utf-8"
        proved_anew(record)

    assert any(event["encoding"] == "latin-1" for row in table(run, "traces") for event in row["events"])
    rewrite(run, "traces", change)
    agentdata("check", run, "--share", "1").explains("fault", status=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("snapshot", "0" * 40), ("snapshot", "HEAD"), ("snapshot", ""), ("head", "--all"), ("head", "not-a-commit")],
)
def test_a_proof_between_other_commits_is_found(run: Path, key: str, value: str) -> None:
    rewrite(run, "traces", lambda record: record["proof"].update({key: value}))
    agentdata("check", run, "--share", "1").explains("fault", status=1)


def test_a_proof_that_leaves_out_its_files_is_found(run: Path) -> None:
    rewrite(run, "traces", lambda record: record["proof"].update(files=[]))
    agentdata("check", run, "--share", "1").explains("fault", status=1)


def test_a_sample_without_its_trace_is_found(run: Path) -> None:
    rewrite(run, "messages", lambda row: row["proof"].update(digest="0" * 64))
    done = agentdata("check", run, "--share", "0")
    done.explains(status=1)
    assert "carries a proof that no trace has" in done.out


def test_a_repository_that_moved_is_told(tmp_path: Path) -> None:
    history = small_history(tmp_path / "moving", 3)
    agentdata("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1").succeeds()
    history.path.rename(tmp_path / "moved")
    done = agentdata("check", tmp_path / "run", "--share", "1")
    done.explains(status=1)
    assert "moving" in done.out + done.err


@pytest.mark.parametrize(
    ("command", "snapshot"),
    [
        ("git grep -O'{program}' def -- '*' | head -n 3", "--no-index"),
        ("git grep -O'{program}' -e def -- '*' | head -n 3", "--no-index"),
        ("git grep --no-index -O'{program}' -e def -- '*' | head -n 3", "."),
    ],
)
def test_checking_a_run_of_strangers_executes_nothing(run: Path, tmp_path: Path, command: str, snapshot: str) -> None:
    """A published run may hold anything: its commands are compared, never trusted."""
    canary = tmp_path / "canary"
    program = f"touch {canary};"

    def change(record: dict[str, Any]) -> None:
        record["events"].insert(
            0,
            record["events"][0] | {"kind": "search", "command": command.format(program=program), "text": ""},
        )
        record["proof"].update(snapshot=snapshot, files=[])
        proved_anew(record)

    rewrite(run, "traces", change)
    done = agentdata("check", run, "--share", "1", cwd=ROOT)
    assert not canary.exists()
    done.explains(status=1)


# What a run is


def test_every_shard_of_a_table_has_the_schema_of_its_record(pristine: Path) -> None:
    for name, record in (("markdown", TextSample), ("xml", TextSample), ("messages", ChatSample), ("traces", Trace)):
        for path in (pristine / name).glob("*.parquet"):
            assert pq.read_schema(path).remove_metadata() == arrow_schema(record)


def test_two_repositories_without_anything_in_common_share_their_schemas(tmp_path: Path) -> None:
    first, second = small_history(tmp_path / "one", 4), History(tmp_path / "two")
    second.commit("Begin", {"b.py": ""})
    second.commit("Fill", {"b.py": "x = 1\n"}, author=("Bo", "bo@example.com"))
    run = tmp_path / "run"
    agentdata("harvest", "contextual", first.path, second.path, "-o", run, "-j1", "unit_changes=1").succeeds()
    for folder in {path.parent for path in run.glob("*/*.parquet")}:
        schemas = {str(pq.read_schema(path)) for path in folder.glob("*.parquet")}
        assert len(schemas) == 1, folder
