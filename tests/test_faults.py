"""Each thing that can be wrong with sources, disks and directories ends in one sentence; everything else goes on."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.histories import History, numbered
from tests.runs import Finished, agentdata, contents, finish, launch, reasons, small_history, table


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_history(tmp_path_factory.mktemp("good") / "good", 4, name="g").path


def harvest_beside(good: Path, bad: str | Path, run: Path, *more: str | Path) -> Finished:
    """Harvest a faulty source beside a good one, and see that the good one was harvested whole."""
    done = agentdata("harvest", "contextual", bad, good, "-o", run, "-j1", *more)
    done.has_no_traceback()
    rows = [row for row in table(run, "markdown") if row["repo"] == "good"]
    assert len(rows) == 3, done
    assert (run / "manifest.json").exists()
    return done


# Sources that cannot be harvested at all


def test_a_missing_path(good: Path, tmp_path: Path) -> None:
    done = harvest_beside(good, tmp_path / "absent", tmp_path / "run")
    done.explains("absent does not exist", "1 of 2", status=1)
    assert reasons(tmp_path / "run")["sources/not-found"] == 1


def test_a_directory_that_is_no_repository(good: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    harvest_beside(good, tmp_path / "plain", tmp_path / "run").explains("plain is not a git repository", status=1)


def test_a_file_that_is_no_repository(good: Path, tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes(b"tar")
    harvest_beside(good, tmp_path / "archive.tar", tmp_path / "run").explains("archive.tar", status=1)


def test_a_directory_inside_a_repository_is_not_taken_for_the_repository(good: Path, tmp_path: Path) -> None:
    history = small_history(tmp_path / "outer", 2)
    (history.path / "inner").mkdir()
    harvest_beside(good, history.path / "inner", tmp_path / "run").explains("inner is not a git repository", status=1)


def test_an_empty_repository(good: Path, tmp_path: Path) -> None:
    History(tmp_path / "empty")
    harvest_beside(good, tmp_path / "empty", tmp_path / "run").explains("empty", "no commits", status=1)


def test_a_shallow_clone(good: Path, tmp_path: Path) -> None:
    origin = small_history(tmp_path / "origin", 4)
    path = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "-q", "--depth=2", f"file://{origin.path}", str(path)], check=True, capture_output=True
    )
    done = harvest_beside(good, path, tmp_path / "run")
    done.explains("shallow clone", "--unshallow", status=1)
    subprocess.run(["git", "-C", str(path), "fetch", "-q", "--unshallow"], check=True, capture_output=True)
    harvest_beside(good, path, tmp_path / "run").succeeds()


def test_a_linked_work_tree_whose_clone_is_gone(good: Path, tmp_path: Path) -> None:
    history = small_history(tmp_path / "main", 3)
    history.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    shutil.rmtree(history.path)
    harvest_beside(good, tmp_path / "linked", tmp_path / "run").explains("linked", status=1)


@pytest.mark.parametrize(
    "config", [b"[core\n", b"\xff\xfe\x00[[[", b"[core]\n\tbare = perhaps\n\trepositoryformatversion = 99\n"]
)
def test_a_repository_with_a_broken_configuration(good: Path, tmp_path: Path, config: bytes) -> None:
    history = small_history(tmp_path / "odd", 3)
    (history.path / ".git/config").write_bytes(config)
    harvest_beside(good, history.path, tmp_path / "run").explains("odd", status=1)


# Objects that are lost or broken


def loose(history: History, name: str) -> Path:
    oid = history.git("rev-parse", name)
    return history.path / ".git/objects" / oid[:2] / oid[2:]


def with_two_files(path: Path) -> History:
    """Eight changes of `a.py` beside a directory that changes once, in the fourth commit."""
    history = History(path)
    history.commit("Begin", {"a.py": numbered("a", 4), "lib/sub/b.py": numbered("b", 4), "lib/c.py": numbered("c", 4)})
    for number in range(1, 8):
        files: dict[str, str | bytes | None] = {"a.py": numbered("a", 4).replace("+ 0", f"+ {number}00")}
        if number == 3:
            files["lib/sub/b.py"] = numbered("b", 5)
        history.commit(f"Return {number} more", files)
    return history


def test_a_missing_blob_costs_the_changes_that_need_it(good: Path, tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "holed")
    loose(history, "HEAD~4:a.py").unlink()
    harvest_beside(good, history.path, tmp_path / "run")
    run = tmp_path / "run"
    assert len([row for row in table(run, "markdown") if row["repo"] == "holed"]) == 5
    rejected = [row for row in table(run, "rejected") if row["repo"] == "holed" and row["reason"] != "no-parent"]
    assert len(rejected) == 2
    oid = history.git("rev-parse", "HEAD~4:a.py")
    assert all(oid in row["detail"] for row in rejected)


@pytest.mark.parametrize("policy", ["direct", "explore"])
@pytest.mark.parametrize("name", ["HEAD:lib/sub", "HEAD:lib"])
def test_a_missing_tree_that_no_change_touches_does_not_end_the_run(
    good: Path, tmp_path: Path, policy: str, name: str
) -> None:
    """A listing of the snapshot needs directories that the change does not touch."""
    history = with_two_files(tmp_path / "holed")
    loose(history, name).unlink()
    harvest_beside(good, history.path, tmp_path / "run", "--policy", policy)


def test_a_missing_tree_costs_the_changes_that_need_it(good: Path, tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "holed")
    loose(history, "HEAD~2^{tree}").unlink()
    harvest_beside(good, history.path, tmp_path / "run")
    assert len([row for row in table(tmp_path / "run", "markdown") if row["repo"] == "holed"]) == 5


def test_a_missing_commit_is_a_fault_of_the_source(good: Path, tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "holed")
    loose(history, "HEAD~3").unlink()
    harvest_beside(good, history.path, tmp_path / "run").explains("holed", "clone", status=1)


def test_a_head_whose_commit_is_missing_is_a_fault_of_the_source(good: Path, tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "holed")
    loose(history, "HEAD").unlink()
    harvest_beside(good, history.path, tmp_path / "run").explains("holed", status=1)


@pytest.mark.parametrize("name", ["HEAD~4:a.py", "HEAD~2^{tree}", "HEAD:lib/sub"])
def test_an_unreadable_loose_object_costs_the_changes_that_need_it(good: Path, tmp_path: Path, name: str) -> None:
    history = with_two_files(tmp_path / "scratched")
    path = loose(history, name)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:8] + b"garbage")
    harvest_beside(good, history.path, tmp_path / "run")


def test_a_scratched_pack_never_gives_an_untrue_sample(good: Path, tmp_path: Path) -> None:
    """Bytes of the pack are flipped at many places; each time what is still told is what the whole repository tells."""
    history = with_two_files(tmp_path / "packed")
    agentdata("harvest", "contextual", history.path, "-o", tmp_path / "whole", "-j1").succeeds()
    true = {row["change_id"]: row["text"] for row in table(tmp_path / "whole", "markdown")}
    history.git("gc", "-q", "--aggressive", "--prune=now")
    (pack,) = (history.path / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o644)
    whole = pack.read_bytes()
    draw = random.Random(5)
    for turn in range(12):
        content = bytearray(whole)
        for _ in range(3):
            content[draw.randrange(12, len(content) - 20)] ^= 1 << draw.randrange(8)
        pack.write_bytes(content)
        run = tmp_path / f"run{turn}"
        done = agentdata("harvest", "contextual", history.path, "-o", run, "-j1")
        done.has_no_traceback()
        if done.status:
            done.explains("packed", status=1)
        for row in table(run, "markdown"):
            assert row["text"] == true[row["change_id"]]


def test_a_scratched_pack_in_a_repository_named_like_gits_words_is_not_called_partial(tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "protocol-not-allowed")
    loose(history, "HEAD~3").unlink()
    loose(history, "HEAD").unlink()
    done = agentdata("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1")
    done.explains("protocol-not-allowed", status=1)
    assert "partial clone" not in done.err


def test_a_cut_pack_is_a_fault_of_the_source(good: Path, tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "cut")
    history.git("gc", "-q", "--prune=now")
    (pack,) = (history.path / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:200])
    harvest_beside(good, history.path, tmp_path / "run").explains("cut", "git fsck", status=1)


def test_a_pack_without_its_index_is_a_fault_of_the_source(good: Path, tmp_path: Path) -> None:
    history = with_two_files(tmp_path / "unindexed")
    history.git("gc", "-q", "--prune=now")
    for path in (history.path / ".git/objects/pack").glob("*.idx"):
        path.unlink()
    harvest_beside(good, history.path, tmp_path / "run").explains("unindexed", status=1)


@pytest.mark.parametrize("filter_", ["blob:none", "tree:0"])
def test_a_partial_clone_without_its_remote(good: Path, tmp_path: Path, filter_: str) -> None:
    origin = with_two_files(tmp_path / "origin")
    origin.git("config", "uploadpack.allowFilter", "true")
    path = tmp_path / "partial.git"
    arguments = ["git", "clone", "-q", "--bare", f"--filter={filter_}", f"file://{origin.path}", str(path)]
    subprocess.run(arguments, check=True, capture_output=True)
    shutil.move(origin.path, tmp_path / "away")
    done = harvest_beside(good, path, tmp_path / "run")
    done.explains("partial clone", "refetch", status=1)


def test_a_partial_clone_never_reaches_for_its_remote(good: Path, tmp_path: Path) -> None:
    """The remote is there, but fetching objects one by one behind the user's back is not what harvesting does."""
    origin = with_two_files(tmp_path / "origin")
    origin.git("config", "uploadpack.allowFilter", "true")
    path = tmp_path / "partial.git"
    arguments = ["git", "clone", "-q", "--bare", "--filter=blob:none", f"file://{origin.path}", str(path)]
    subprocess.run(arguments, check=True, capture_output=True)
    before = sorted(str(one) for one in (path / "objects").rglob("*"))
    harvest_beside(good, path, tmp_path / "run").explains("partial clone", status=1)
    assert sorted(str(one) for one in (path / "objects").rglob("*")) == before


# Directories and disks


def test_an_output_directory_of_somebody_else_is_left_alone(good: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("words")
    done = agentdata("harvest", "contextual", good, "-o", tmp_path / "thesis", "-j1")
    done.explains("thesis", "chapter.tex", "-o", status=2)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"architectures": ["GPT"]}', ""])
def test_a_directory_with_another_config_json_is_left_alone(good: Path, tmp_path: Path, content: str) -> None:
    """Checkpoints of models hold a config.json too."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(content)
    done = agentdata("harvest", "contextual", good, "-o", tmp_path / "model", "-j1")
    done.explains("model", "-o", status=2)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]
    assert (tmp_path / "model/config.json").read_text() == content


def test_an_output_that_is_a_file(good: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("words")
    done = agentdata("harvest", "contextual", good, "-o", tmp_path / "taken", "-j1")
    done.explains("taken", "-o")
    assert "same command again" not in done.err
    assert (tmp_path / "taken").read_text() == "words"


def test_an_output_below_a_file(good: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("words")
    done = agentdata("harvest", "contextual", good, "-o", tmp_path / "taken/run", "-j1")
    done.explains("taken", "-o")
    assert "same command again" not in done.err


def test_an_empty_output_directory_is_welcome(good: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    agentdata("harvest", "contextual", good, "-o", tmp_path / "run", "-j1").succeeds()


def test_an_output_that_may_not_be_written(good: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        if not Path("/proc/version").exists():
            pytest.skip("root may write everywhere, and there is no /proc to try")
        target = Path("/proc/agentdata-run")
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        target = tmp_path / "closed/run"
    done = agentdata("harvest", "contextual", good, "-o", target, "-j1")
    done.explains(str(target))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("workers", ["-j1", "-j2"])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    good: Path, small_disk: Path, tmp_path: Path, workers: str
) -> None:
    history = History(tmp_path / "bulky")
    history.commit("Begin", {"a.py": numbered("a", 3)})
    for number in range(8):
        noise = random.Random(number).randbytes(20_000).hex()
        history.commit(f"Add {number}", {f"n{number}.py": f"text = '''\n{noise}\n'''\n"})
    arguments = ["harvest", "contextual", history.path, "unit_changes=1", "most_tokens=1000000", workers]
    done = finish(launch(*arguments, "-o", small_disk / "run"))
    done.explains("No space left", str(small_disk / "run"), "same command", status=1)
    assert len(done.err.strip().splitlines()) == 1
    assert not list(small_disk.rglob("*.parquet.tmp"))
    assert list((small_disk / "run/units").glob("*.json"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    agentdata(*arguments[:-1], "-j1", "-o", small_disk / "run").succeeds()
    agentdata(*arguments[:-1], "-j1", "-o", tmp_path / "run").succeeds()
    assert contents(small_disk / "run") == contents(tmp_path / "run")


@pytest.mark.parametrize("room", [0, 20, 60, 110])
def test_a_disk_that_is_full_from_the_start_is_told(good: Path, small_disk: Path, tmp_path: Path, room: int) -> None:
    """Wherever the space ends: configuration, index of pull requests, plan, shard or manifest."""
    pulls = tmp_path / "pulls.jsonl"
    rows = ({"repository": "x/y", "number": number, "title": "t" * 500, "reviews": []} for number in range(1, 101))
    pulls.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run(["mount", "-o", f"remount,size={max(room, 4)}k", str(small_disk)], check=True)
    if not room:
        (small_disk / "filler").write_bytes(b"x" * 4096)
    done = agentdata("harvest", "contextual", good, "-o", small_disk / "run", "-j1", "--pulls", pulls)
    done.explains("No space left", status=1)


def test_a_machine_without_git_is_told(good: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = finish(
        launch(
            "harvest", "contextual", good, "-o", tmp_path / "run", "-j1", environment={"PATH": str(tmp_path / "bin")}
        )
    )
    done.explains("git", "install", status=2)
    assert len(done.err.strip().splitlines()) <= 2


# Texts of pull requests


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pulls.jsonl", b"{not json}\n"),
        ("pulls.jsonl", b"[1]\n"),
        ("pulls.jsonl", b'{"title": "no number", "repository": "a/b"}\n'),
        ("pulls.jsonl", b'{"number": 1}\n'),
        ("pulls.jsonl", b"\xff\xfe\n"),
        ("pulls.jsonl", b'{"repository": "a/b", "number": 99999999999999999999}\n'),
        ("pulls.jsonl", b'{"repository": "a/b", "number": 1, "closing_issues": [{"title": "no number"}]}\n'),
        ("pulls.jsonl", b'{"repository": "a/b", "number": 1, "closing_issues": [{"number": "x", "title": "t"}]}\n'),
        ("pulls.jsonl", b'{"html_url": 5, "number": 1}\n'),
        ("pulls.jsonl", b'{"repository": "a/b\\ud800", "number": 1}\n'),
        ("pulls.jsonl", b"[" * 100_000 + b"\n"),
        ("pulls.parquet", b"PAR1 not really"),
    ],
)
def test_a_malformed_file_of_pull_requests_is_refused_by_name(
    good: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    done = agentdata("harvest", "contextual", good, "-o", tmp_path / "run", "-j1", "--pulls", tmp_path / name)
    done.explains(str(tmp_path / name))


@pytest.mark.parametrize(
    "fields",
    [
        {"closing_issues": ["abc"]},
        {"closing_issues": [None]},
        {"closing_issues": [{"number": None}]},
        {"title": "lone \ud800 surrogate", "body": "\udfff"},
        {"comments": [None, 5, {"body": None}, {"body": "said", "user": {"login": None}, "created_at": 5}]},
        {"body": {"not": "text"}, "comments": "many", "reviews": 3},
        {"body": "Fixes #" + "9" * 30},
        {"body": "Fixes #" + "9" * 5000},
        {"closing_issues": [10**30]},
    ],
)
def test_odd_rows_of_pull_requests_are_no_obstacle(tmp_path: Path, fields: dict[str, object]) -> None:
    history = small_history(tmp_path / "joined", 3)
    history.commit("Grow (#7)", {"a.py": numbered("a", 6)})
    row = {"repository": "joined", "number": 7, "title": "Grow", "reviews": [], **fields}
    (tmp_path / "pulls.jsonl").write_text(json.dumps(row) + "\n")
    run = tmp_path / "run"
    done = agentdata("harvest", "contextual", history.path, "-o", run, "-j1", "--pulls", tmp_path / "pulls.jsonl")
    done.has_no_traceback()
    if done.status == 0:
        assert [change["number"] for change in table(run, "changes")] == [7]
    else:
        done.explains("pulls.jsonl")


def test_texts_of_pull_requests_are_joined_to_their_changes(tmp_path: Path) -> None:
    history = small_history(tmp_path / "joined", 3)
    history.commit("Grow (#7)", {"a.py": numbered("a", 6)})
    rows = [
        {
            "repository": {"full_name": "joined"},
            "number": 7,
            "title": "Two more helpers",
            "body": "Closes #3",
            "reviews": [{"user": {"login": "rae"}, "body": "Good.", "submitted_at": "2024-01-02T00:00:00Z"}],
        },
        {
            "repository": "JOINED",
            "number": 3,
            "title": "Too few helpers",
            "body": "Four are not enough.",
            "comments": [],
        },
    ]
    (tmp_path / "pulls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    agentdata("harvest", "contextual", history.path, "-o", run, "-j1", "--pulls", tmp_path / "pulls.jsonl").succeeds()
    (change,) = table(run, "changes")
    assert (change["title"], change["issues"][0]["title"]) == ("Two more helpers", "Too few helpers")
    assert [comment["author"] for comment in change["comments"]] == ["rae"]
    (sample,) = table(run, "markdown")
    assert "Four are not enough." in sample["text"]
