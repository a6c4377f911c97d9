"""What may be named as a source, and what each kind of clone gives."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.histories import History, numbered
from tests.runs import Finished, agentdata, contents, finish, launch, reasons, small_history, table, wait_until


def harvest(*arguments: str | Path, run: Path, **options: object) -> Finished:
    return agentdata("harvest", "contextual", *arguments, "-o", run, "-j1", **options)  # type: ignore[arg-type]


def told(run: Path) -> list[str]:
    """The texts of a run's samples: the same whichever way the same history was reached."""
    return [row["text"].partition("\n\n")[2].partition("\n")[2] for row in table(run, "markdown")]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A history with pull requests, so that every kind of clone has something to tell."""
    history = small_history(tmp_path_factory.mktemp("sources") / "small", 3)
    for number in (1, 2):
        history.branch(f"topic-{number}")
        history.commit(f"Change helper {number}", {"a.py": numbered("a", 4 + number)})
        history.switch("main")
        history.merge(f"topic-{number}", f"Merge pull request #{number} from x/topic-{number}\n\nGrow helper {number}")
    history.git("config", "protocol.file.allow", "always")
    return history


@pytest.fixture(scope="module")
def expected(history: History, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    run = tmp_path_factory.mktemp("expected") / "run"
    harvest(history.path, run=run).succeeds()
    assert len(told(run)) == 2
    return told(run)


def clone(history: History, path: Path, *options: str) -> Path:
    subprocess.run(["git", "clone", "-q", *options, str(history.path), str(path)], check=True, capture_output=True)
    return path


def test_a_linked_work_tree_gives_what_its_clone_gives(history: History, expected: list[str], tmp_path: Path) -> None:
    history.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    harvest(tmp_path / "linked", run=tmp_path / "run").succeeds()
    assert told(tmp_path / "run") == expected


@pytest.mark.parametrize("options", [("--bare",), ("--mirror",), (), ("--no-checkout",), ("--shared",)])
def test_every_kind_of_clone_gives_the_same(
    history: History, expected: list[str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    harvest(clone(history, tmp_path / "clone", *options), run=tmp_path / "run").succeeds()
    assert told(tmp_path / "run") == expected


def test_the_git_directory_itself_may_be_named(history: History, expected: list[str], tmp_path: Path) -> None:
    harvest(history.path / ".git", run=tmp_path / "run").succeeds()
    assert told(tmp_path / "run") == expected


def test_a_detached_head_with_a_missing_work_tree_file_is_harvested(
    history: History, expected: list[str], tmp_path: Path
) -> None:
    path = clone(history, tmp_path / "clone")
    subprocess.run(["git", "-C", str(path), "checkout", "-q", "--detach"], check=True)
    (path / "a.py").unlink()
    (path / ".git/index").unlink()
    harvest(path, run=tmp_path / "run").succeeds()
    assert told(tmp_path / "run") == expected


def test_a_head_that_points_nowhere_falls_back_to_the_usual_main_branch(
    history: History, expected: list[str], tmp_path: Path
) -> None:
    path = clone(history, tmp_path / "clone.git", "--bare")
    (path / "HEAD").write_text("ref: refs/heads/gone\n")
    harvest(path, run=tmp_path / "run").succeeds()
    assert told(tmp_path / "run") == expected


def test_a_submodule_checkout_is_a_clone_like_any_other(history: History, expected: list[str], tmp_path: Path) -> None:
    outer = small_history(tmp_path / "outer", 2)
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(history.path), "inner")
    harvest(outer.path / "inner", run=tmp_path / "run").succeeds()
    assert told(tmp_path / "run") == expected


def test_a_sha256_repository_is_harvested_and_checked(tmp_path: Path) -> None:
    history = History(tmp_path / "long", object_format="sha256")
    history.commit("Begin", {"a.py": numbered("a", 3)})
    history.commit("Grow", {"a.py": numbered("a", 4)})
    harvest(history.path, run=tmp_path / "run").succeeds()
    (row,) = table(tmp_path / "run", "markdown")
    assert len(row["head"]) == 64
    agentdata("check", tmp_path / "run", "--share", "1").succeeds()


def test_a_branch_may_be_chosen(history: History, tmp_path: Path) -> None:
    harvest(history.path, "--branch", "topic-1", run=tmp_path / "run").succeeds()
    (source,) = table(tmp_path / "run", "sources")
    assert source["head"] == history.git("rev-parse", "topic-1")


def test_a_limit_takes_the_newest_landings(history: History, tmp_path: Path) -> None:
    harvest(history.path, "--limit", "1", run=tmp_path / "run").succeeds()
    (landing,) = table(tmp_path / "run", "landings")
    assert landing["landed"] == history.git("rev-parse", "main")


def test_an_unknown_branch_is_told(history: History, tmp_path: Path) -> None:
    done = harvest(history.path, "--branch", "nosuch", run=tmp_path / "run")
    done.explains("nosuch", "git branch", status=1)


def test_a_branch_named_like_an_option_is_only_a_name(history: History, tmp_path: Path) -> None:
    done = harvest(history.path, "--branch=--output=/tmp/x", run=tmp_path / "run")
    done.explains("--output=/tmp/x", status=1)


# Lists


@pytest.mark.parametrize("suffix", [".yaml", ".jsonl", ".parquet"])
def test_a_list_gives_name_licence_and_stars(history: History, tmp_path: Path, suffix: str) -> None:
    other = small_history(tmp_path / "other", 3)
    rows = [
        {"location": str(history.path), "name": "one/first", "licence": "MIT", "stars": 7, "description": "First."},
        {"location": str(other.path), "name": "two/second", "licence": None, "stars": None, "description": None},
    ]
    path = tmp_path / f"repos{suffix}"
    if suffix == ".yaml":
        path.write_text(yaml.safe_dump(rows))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    harvest(f"@{path}", run=tmp_path / "run").succeeds()
    sources = {row["name"]: row for row in table(tmp_path / "run", "sources")}
    assert sources.keys() == {"one/first", "two/second"}
    assert (sources["one/first"]["licence"], sources["one/first"]["stars"]) == ("MIT", 7)
    assert (sources["two/second"]["licence"], sources["two/second"]["stars"]) == ("", -1)
    samples = [row for row in table(tmp_path / "run", "markdown") if row["repo"] == "one/first"]
    assert {row["licence"] for row in samples} == {"MIT"}
    assert all("First." in row["text"] for row in samples)


def test_a_list_in_the_shape_of_a_forges_answer_is_understood(history: History, tmp_path: Path) -> None:
    row = {
        "full_name": "one/first",
        "clone_url": f"file://{history.path}",
        "license": {"key": "mit", "spdx_id": "MIT"},
        "stargazers_count": 12,
    }
    (tmp_path / "repos.jsonl").write_text(json.dumps(row) + "\n")
    harvest(f"@{tmp_path / 'repos.jsonl'}", "--cache", tmp_path / "cache", run=tmp_path / "run").succeeds()
    (source,) = table(tmp_path / "run", "sources")
    assert (source["name"], source["licence"], source["stars"]) == ("one/first", "MIT", 12)


def test_paths_in_a_list_are_relative_to_the_list(tmp_path: Path) -> None:
    small_history(tmp_path / "lists/near", 3)
    (tmp_path / "lists/repos.yaml").write_text("repositories:\n  - near\n")
    (tmp_path / "elsewhere").mkdir()
    harvest(f"@{tmp_path / 'lists/repos.yaml'}", run=tmp_path / "run", cwd=tmp_path / "elsewhere").succeeds()
    assert [row["name"] for row in table(tmp_path / "run", "sources")] == ["near"]


def test_a_source_that_is_named_twice_is_harvested_once(history: History, tmp_path: Path) -> None:
    (tmp_path / "repos.yaml").write_text(f"- {history.path}\n")
    harvest(history.path, f"@{tmp_path / 'repos.yaml'}", history.path, run=tmp_path / "run").succeeds()
    assert len(table(tmp_path / "run", "sources")) == 1


def test_two_repositories_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("left", "right"):
        history = History(tmp_path / place / "same")
        history.commit("Begin", {"a.py": numbered(place, 3)})
        history.commit(f"Grow {place}", {"a.py": numbered(place, 4)})
    run = tmp_path / "run"
    harvest(tmp_path / "left/same", tmp_path / "right/same", run=run).succeeds()
    assert len(table(run, "sources")) == len(table(run, "markdown")) == 2
    agentdata("check", run, "--share", "1").succeeds()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.yaml", b"- [unclosed\n"),
        ("text.yaml", b"just words\n"),
        ("empty.yaml", b""),
        ("number.yaml", b"- 5\n"),
        ("nowhere.yaml", b"- name: a/b\n"),
        ("bytes.yaml", b"\xff\xfe\x00"),
        ("stars.yaml", b"- {location: somewhere, stars: many}\n"),
        ("infinite.yaml", b"- {location: somewhere, stars: .inf}\n"),
        ("huge.yaml", b"- {location: somewhere, stars: 99999999999999999999}\n"),
        ("broken.jsonl", b'{"location": \n'),
        ("surrogate.jsonl", b'{"location": "/x\\ud800"}\n'),
        ("array.jsonl", b"[1, 2]\n"),
        ("deep.jsonl", b"[" * 100_000 + b"\n"),
        ("broken.parquet", b"PAR1 not really"),
        ("repos.txt", b"/some/where\n"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    done = harvest(f"@{tmp_path / name}", run=tmp_path / "run")
    done.explains(name, status=2)
    assert not (tmp_path / "run").exists()


def test_a_list_that_is_missing_or_a_directory_is_refused_by_its_name(tmp_path: Path) -> None:
    harvest(f"@{tmp_path / 'absent.yaml'}", run=tmp_path / "run").explains("absent.yaml", status=2)
    (tmp_path / "folder.yaml").mkdir()
    harvest(f"@{tmp_path / 'folder.yaml'}", run=tmp_path / "run").explains("folder.yaml", status=2)


def test_a_repository_whose_path_is_not_utf_8_is_harvested_or_refused(tmp_path: Path) -> None:
    small_history(tmp_path / "plain", 3)
    path = (tmp_path / "plain").rename(tmp_path / os.fsdecode(b"n\xffme"))
    done = harvest(path, run=tmp_path / "run")
    done.has_no_traceback()
    assert done.status == 0 or "UTF-8" in done.err


def test_a_home_directory_that_does_not_exist_is_told(tmp_path: Path) -> None:
    harvest("~nosuchuser/repo", run=tmp_path / "one").explains("~nosuchuser/repo")
    (tmp_path / "repos.yaml").write_text("- ~nosuchuser/repo\n")
    harvest(f"@{tmp_path / 'repos.yaml'}", run=tmp_path / "two").explains("~nosuchuser/repo")


# URLs


def test_a_url_is_mirrored_once_and_then_read_from_the_cache(
    history: History, expected: list[str], tmp_path: Path
) -> None:
    remote = clone(history, tmp_path / "remote.git", "--mirror")
    url = f"file://{remote}"
    harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "first").succeeds()
    assert told(tmp_path / "first") == expected
    shutil.rmtree(remote)
    harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "second").succeeds()
    assert contents(tmp_path / "second") == contents(tmp_path / "first")


def test_the_cache_may_be_named_by_the_environment(history: History, tmp_path: Path) -> None:
    harvest(
        f"file://{history.path}", run=tmp_path / "run", environment={"AGENTDATA_CACHE": str(tmp_path / "mine")}
    ).succeeds()
    assert list((tmp_path / "mine/mirrors").glob("*.git"))


def test_a_mirror_holds_the_heads_of_pull_requests(tmp_path: Path) -> None:
    history = small_history(tmp_path / "remote", 3)
    history.branch("topic")
    history.commit("Grow a bit", {"a.py": numbered("a", 5)})
    history.commit("Grow some more", {"a.py": numbered("a", 6)})
    history.switch("main")
    history.squash("topic", "Grow (#5)", number=5)
    history.git("branch", "-q", "-D", "topic")
    harvest(f"file://{history.path}", "--cache", tmp_path / "cache", run=tmp_path / "run").succeeds()
    (change,) = [row for row in table(tmp_path / "run", "changes") if row["number"] == 5]
    assert [commit["message"] for commit in change["commits"]] == ["Grow a bit", "Grow some more"]


def test_a_url_that_leads_nowhere_is_told_and_works_once_it_leads_somewhere(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'later'}"
    done = harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "run")
    done.explains(url, status=1)
    small_history(tmp_path / "later", 3)
    harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "run").succeeds()
    assert table(tmp_path / "run", "markdown")


def test_a_url_of_an_empty_repository_is_told_and_works_once_it_has_commits(tmp_path: Path) -> None:
    History(tmp_path / "remote")
    url = f"file://{tmp_path / 'remote'}"
    done = harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "run")
    done.explains("no commits", url, status=1)
    small_history(tmp_path / "remote", 3)
    harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "run").succeeds()


def test_a_url_of_a_shallow_clone_is_told(history: History, tmp_path: Path) -> None:
    path = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "-q", "--depth=1", f"file://{history.path}", str(path)], check=True, capture_output=True
    )
    done = harvest(f"file://{path}", "--cache", tmp_path / "cache", run=tmp_path / "run")
    done.explains("shallow", status=1)


def test_a_transfer_that_was_killed_goes_on(tmp_path: Path) -> None:
    """The process group is killed at several moments of the transfer; what the last one gives is whole."""
    history = small_history(tmp_path / "remote", 3)
    history.commit("Add bulk", {"bulk.bin": os.urandom(3_000_000)})
    url = f"file://{history.path}"
    cache = tmp_path / "cache"
    for delay in (0.0, 0.02, 0.05, 0.1, 0.15):
        process = launch("harvest", "contextual", url, "-o", tmp_path / "run", "-j1", "--cache", cache)
        assert wait_until(cache.exists)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    harvest(url, "--cache", cache, run=tmp_path / "run").succeeds()
    harvest(url, "--cache", tmp_path / "fresh", run=tmp_path / "other").succeeds()
    assert told(tmp_path / "run") == told(tmp_path / "other") != []


@pytest.mark.parametrize("lock", ["HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock"])
def test_a_lock_left_by_a_killed_transfer_does_not_stop_the_next(tmp_path: Path, lock: str) -> None:
    history = small_history(tmp_path / "remote", 3)
    url = f"file://{history.path}"
    cache = tmp_path / "cache"
    harvest(url, "--cache", cache, run=tmp_path / "first").succeeds()
    (mirror,) = cache.glob("*.git")
    (mirror / "agentdata-complete").unlink()
    for name in ("refs/heads/main", "packed-refs"):
        (mirror / name).unlink(missing_ok=True)
    (mirror / lock).write_text("")
    harvest(url, "--cache", cache, run=tmp_path / "second").succeeds()


def test_two_runs_may_mirror_the_same_url_at_once(tmp_path: Path) -> None:
    history = small_history(tmp_path / "remote", 3)
    history.commit("Add bulk", {"bulk.bin": os.urandom(2_000_000)})
    arguments = ["harvest", "contextual", f"file://{history.path}", "--cache", tmp_path / "cache", "-j1", "-o"]
    both = [launch(*arguments, tmp_path / name) for name in ("one", "two")]
    for process in both:
        finish(process).succeeds()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# Excluded


def test_an_excluded_repository_is_left_out_by_name(history: History, tmp_path: Path) -> None:
    (tmp_path / "repos.yaml").write_text(f"- {{location: {history.path}, name: Django/Django}}\n")
    harvest(f"@{tmp_path / 'repos.yaml'}", run=tmp_path / "run").succeeds()
    assert reasons(tmp_path / "run") == {"sources/excluded-repository": 1}
    assert not table(tmp_path / "run", "changes")


def test_an_excluded_repository_is_recognised_by_the_origin_of_its_clone(history: History, tmp_path: Path) -> None:
    path = clone(history, tmp_path / "renamed")
    subprocess.run(
        ["git", "-C", str(path), "remote", "set-url", "origin", "git@github.com:sympy/sympy.git"], check=True
    )
    harvest(path, run=tmp_path / "run").succeeds()
    assert reasons(tmp_path / "run") == {"sources/excluded-repository": 1}


def test_a_fork_of_an_excluded_repository_is_recognised_by_its_root(history: History, tmp_path: Path) -> None:
    root = history.git("rev-list", "--max-parents=0", "HEAD")
    harvest(history.path, f"filters.excluded_roots=[{root}]", run=tmp_path / "run").succeeds()
    (rejected,) = table(tmp_path / "run", "rejected")
    assert root in rejected["detail"]
    assert not table(tmp_path / "run", "markdown")


def test_every_repository_has_one_split(tmp_path: Path) -> None:
    paths = [small_history(tmp_path / f"r{number}", 3).path for number in range(6)]
    harvest(*paths, "validation_share=0.5", run=tmp_path / "run").succeeds()
    splits = {path.name.partition("-")[0] for path in (tmp_path / "run/markdown").glob("*.parquet")}
    assert splits == {"train", "validation"}
    expected = {row["name"]: row["split"] for row in table(tmp_path / "run", "sources")}
    for path in (tmp_path / "run/markdown").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert expected[row["repo"]] == path.name.partition("-")[0]
