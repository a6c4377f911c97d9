"""Replay: what a true trace proves, and every way in which an untrue one is found out."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.harvest.replay import File, ReplayError, Workspace, blob_name, compare, digest_of, prove
from agentdata.records import Event, FileProof

COMMITS = ("1" * 40, "2" * 40)


def regular(content: bytes, mode: str = "100644") -> File:
    return File.read(mode, content)


def files(**contents: str) -> dict[str, File]:
    return {name: regular(content.encode()) for name, content in contents.items()}


def proof_of(before: File | None, after: File | None, path: str = "a") -> FileProof:
    return FileProof(
        before_path=path if before else "",
        before_mode=before.mode if before else "",
        before_blob=blob_name(before.content) if before else "",
        after_path=path if after else "",
        after_mode=after.mode if after else "",
        after_blob=blob_name(after.content) if after else "",
    )


def edit(kind: str, path: str = "a", **fields: object) -> Event:
    return Event.model_validate({"kind": "edit", "edit": kind, "path": path, **fields})


def reason_of(state: dict[str, File], *events: Event) -> str:
    workspace = Workspace(state.get)
    try:
        for event in events:
            workspace.check_read(event) if event.kind == "read" else workspace.apply(event)
    except ReplayError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_blob_names_are_those_of_git(tmp_path: Path, object_format: str) -> None:
    subprocess.run(["git", "init", "-q", f"--object-format={object_format}", tmp_path], check=True)
    content = b"some\r\nbytes\x00\xff"
    command = ["git", "-C", tmp_path, "hash-object", "--stdin"]
    name = subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode().strip()
    assert blob_name(content, len(name)) == name


def test_a_proof_counts_reads_searches_and_edits() -> None:
    events = (
        Event(kind="list", command="find .", text="."),
        Event(kind="search", command="git grep x", text=""),
        Event(kind="read", path="a", text="x\n"),
        edit("str_replace", old="x", new="y"),
    )
    ends = (proof_of(regular(b"x\n"), regular(b"y\n")),)
    proof = prove(events, files(a="x\n").get, ends, COMMITS)
    assert (proof.reads, proof.searches, proof.edits, proof.snapshot, proof.head) == (1, 2, 1, *COMMITS)


def test_a_read_of_something_else_is_found_out() -> None:
    assert reason_of(files(a="x\n"), Event(kind="read", path="a", text="y\n")) == "replay-read"


def test_a_read_of_other_lines_is_found_out() -> None:
    event = Event(kind="read", path="a", start=2, end=3, text="one\ntwo")
    assert reason_of(files(a="one\ntwo\nthree\n"), event) == "replay-read"


def test_a_read_of_no_file_is_found_out() -> None:
    assert reason_of({}, Event(kind="read", path="a", text="")) == "replay-missing"


def test_lines_are_counted_by_newlines_only() -> None:
    workspace = Workspace(files(a="one\x0bx\u2028y\rz\ntwo\n").get)
    workspace.check_read(Event(kind="read", path="a", start=2, end=2, text="two"))


def test_an_old_text_that_occurs_twice_is_found_out() -> None:
    assert reason_of(files(a="x x"), edit("str_replace", old="x", new="y")) == "replay-edit"


def test_an_old_text_that_overlaps_itself_is_found_out() -> None:
    assert reason_of(files(a="xxx"), edit("str_replace", old="xx", new="y")) == "replay-edit"


def test_an_insert_beyond_the_end_is_found_out() -> None:
    assert reason_of(files(a="x\n"), edit("insert", line=5, new="y")) == "replay-edit"


def test_a_creation_over_a_file_is_found_out() -> None:
    assert reason_of(files(a="x"), edit("create", new="y", mode="100644")) == "replay-exists"


def test_a_rename_onto_a_file_is_found_out() -> None:
    assert reason_of(files(a="x", b="y"), edit("rename", new_path="b")) == "replay-exists"


def test_an_edit_of_a_deleted_file_is_found_out() -> None:
    assert reason_of(files(a="x"), edit("delete"), edit("str_replace", old="x", new="y")) == "replay-missing"


def test_a_deleted_file_can_be_created_again() -> None:
    workspace = Workspace(files(a="x").get)
    workspace.apply(edit("delete"))
    workspace.apply(edit("create", new="y", mode="100755"))
    assert workspace.files == {"a": regular(b"y", "100755")}


def test_a_rename_keeps_content_and_mode() -> None:
    workspace = Workspace({"a": regular(b"x", "100755")}.get)
    workspace.apply(edit("rename", new_path="b"))
    assert workspace.files == {"a": None, "b": regular(b"x", "100755")}


def test_a_wrong_end_is_found_out() -> None:
    with pytest.raises(ReplayError) as caught:
        compare(files(a="x"), files(a="x").get, (proof_of(regular(b"x"), regular(b"y")),))
    assert caught.value.reason == "replay-state"


def test_a_wrong_mode_is_found_out() -> None:
    with pytest.raises(ReplayError, match="100755"):
        compare(files(a="x"), files(a="x").get, (proof_of(regular(b"x"), regular(b"x", "100755")),))


def test_a_file_that_stays_but_should_go_is_found_out() -> None:
    with pytest.raises(ReplayError, match="None"):
        compare({}, files(a="x").get, (proof_of(regular(b"x"), None),))


def test_a_touched_file_that_no_change_names_is_found_out() -> None:
    with pytest.raises(ReplayError, match=r"^b ends"):
        compare(files(b="z"), files(a="x", b="y").get, ())


def test_a_file_changed_and_changed_back_is_no_fault() -> None:
    compare(files(b="y"), files(b="y").get, ())


def test_latin_1_texts_keep_their_bytes() -> None:
    workspace = Workspace({"a": regular(b"caf\xe9 \xff\n")}.get)
    workspace.apply(edit("str_replace", old="caf\xe9", new="th\xe9", encoding="latin-1"))
    assert workspace.files["a"] == regular(b"th\xe9 \xff\n")


def test_the_digest_depends_on_every_field() -> None:
    digests = {
        digest_of([Event(kind="read", path="a", text="x")]),
        digest_of([Event(kind="read", path="b", text="x")]),
        digest_of([Event(kind="read", path="a", text="y")]),
        digest_of([Event(kind="read", path="a", text="x", start=1, end=1)]),
    }
    assert len(digests) == 4


def test_the_digest_depends_on_the_order() -> None:
    one, two = Event(kind="think", text="one"), Event(kind="think", text="two")
    assert digest_of([one, two]) != digest_of([two, one])


@given(st.binary(max_size=60))
@settings(max_examples=60)
def test_a_blob_name_is_the_digest_of_header_and_content(content: bytes) -> None:
    assert blob_name(content, 64) == hashlib.sha256(b"blob %d\0" % len(content) + content).hexdigest()
