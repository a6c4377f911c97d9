"""Stopped at any moment by any means, the same command finishes a run with the bytes of an uninterrupted one."""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.histories import History, numbered
from tests.runs import (
    Finished,
    agentdata,
    contents,
    finish,
    launch,
    processes_mentioning,
    reasons,
    small_history,
    table,
    wait_until,
)

OVERRIDES = ("unit_changes=3", "--render", "markdown,messages", "--policy", "explore")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two repositories of many small units, and one that fails."""
    base = tmp_path_factory.mktemp("resume")
    first = History(base / "first")
    first.commit("Begin", {f"module_{place}.py": numbered(f"m{place}", 8) for place in range(6)})
    for number in range(26):
        text = numbered(f"m{number % 6}", 8).replace("+ 3\n", f"+ 3 + {number}\n")
        first.commit(f"Add {number} in m{number % 6}_3", {f"module_{number % 6}.py": text})
    second = small_history(base / "second", 8)
    return [first.path, second.path, base / "absent"]


@pytest.fixture(scope="module")
def pulls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pulls") / "pulls.jsonl"
    rows = ({"repository": "x/y", "number": number, "title": "t" * 900, "reviews": []} for number in range(1, 401))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(repositories: Sequence[Path], pulls: Path, run: Path, *more: str) -> list[str | Path]:
    return ["harvest", "contextual", *repositories, "-o", run, "--pulls", pulls, *OVERRIDES, *more]


@pytest.fixture(scope="module")
def whole(repositories: list[Path], pulls: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = agentdata(*command(repositories, pulls, run, "-j1"))
    done.explains("absent does not exist", status=1)
    assert len(table(run, "markdown")) > 25
    return contents(run)


def same(run: Path, whole: dict[str, str]) -> None:
    found = contents(run)
    assert found.keys() == whole.keys()
    assert [name for name in whole if found[name] != whole[name]] == []


def test_a_second_run_elsewhere_gives_the_same_bytes(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    agentdata(*command(repositories, pulls, tmp_path / "run", "-j1"))
    same(tmp_path / "run", whole)


def test_a_finished_run_stays_as_it_is(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    for _ in range(2):
        agentdata(*command(repositories, pulls, tmp_path / "run", "-j1"))
    same(tmp_path / "run", whole)


def test_two_workers_give_the_bytes_of_one(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    finish(launch(*command(repositories, pulls, tmp_path / "run", "-j2"))).explains("absent")
    same(tmp_path / "run", whole)


@pytest.mark.parametrize(("workers", "kills", "longest"), [("-j1", 8, 1.6), ("-j2", 4, 2.6)])
def test_killed_at_random_moments_the_run_ends_with_the_same_bytes(
    repositories: list[Path],
    pulls: Path,
    whole: dict[str, str],
    tmp_path: Path,
    workers: str,
    kills: int,
    longest: float,
) -> None:
    """The whole process group gets SIGKILL, at moments spread over its life; the seed makes a failure repeatable."""
    draw = random.Random(f"kill {workers}")
    run = tmp_path / "run"
    for turn in range(kills):
        process = launch(*command(repositories, pulls, run, workers))
        delay = draw.uniform(0.2, longest)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        done = finish(process)
        assert done.status in (-signal.SIGKILL, 1), (turn, delay, done)
        done.has_no_traceback()
        if (run / "manifest.json").exists():
            same(run, whole)
            shutil.rmtree(run)
    agentdata(*command(repositories, pulls, run, "-j1")).explains("absent", status=1)
    same(run, whole)


@pytest.mark.parametrize("kills", [5])
def test_killed_right_after_each_new_file_the_run_ends_with_the_same_bytes(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path, kills: int
) -> None:
    """Killed as soon as something more appears in the directory, when most is half done."""
    run = tmp_path / "run"

    def seen() -> int:
        return sum(1 for _ in run.rglob("*")) if run.exists() else 0

    for turn in range(kills):
        before = seen()
        process = launch(*command(repositories, pulls, run, "-j1"))

        def more(enough: int = before + turn, process: "subprocess.Popen[str]" = process) -> bool:
            return seen() > enough or process.poll() is not None

        wait_until(more)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process).has_no_traceback()
    agentdata(*command(repositories, pulls, run, "-j1")).explains("absent", status=1)
    same(run, whole)


@pytest.mark.parametrize(
    "left",
    [
        ["config.json.tmp"],
        ["pulls.sqlite.tmp"],
        ["pulls.sqlite.tmp", "pulls.sqlite.tmp-journal"],
        ["README.md.tmp", "manifest.json.tmp"],
        ["units/x.json.tmp", "traces/part-x.parquet.tmp"],
    ],
)
def test_half_written_files_of_a_killed_run_are_no_obstacle_and_do_not_stay(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path, left: list[str]
) -> None:
    run = tmp_path / "run"
    if left != ["config.json.tmp"]:
        agentdata(*command(repositories, pulls, run, "-j1"))
        (run / "manifest.json").unlink()
        (run / "pulls.sqlite").unlink()
    for name in left:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"half")
    (run / ".lock-1-of-1").touch()
    agentdata(*command(repositories, pulls, run, "-j1")).explains("absent", status=1)
    same(run, whole)


def test_units_that_lost_their_markers_are_done_again(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    agentdata(*command(repositories, pulls, run, "-j1"))
    for marker in sorted((run / "units").glob("*.json"))[::2]:
        marker.unlink()
    (run / "manifest.json").unlink()
    agentdata(*command(repositories, pulls, run, "-j1"))
    same(run, whole)


def test_commits_that_arrive_meanwhile_do_not_change_a_begun_run(tmp_path: Path) -> None:
    history = small_history(tmp_path / "moving", 5)
    run = tmp_path / "run"
    agentdata("harvest", "contextual", history.path, "-o", run, "-j1").succeeds()
    before = contents(run)
    history.commit("Later", {"a.py": numbered("a", 9)})
    for marker in (run / "units").glob("*-00000.json"):
        marker.unlink()
    (run / "manifest.json").unlink()
    agentdata("harvest", "contextual", history.path, "-o", run, "-j1").succeeds()
    assert contents(run) == before


def test_a_repository_that_vanished_before_the_run_went_on_is_told_and_owed(tmp_path: Path) -> None:
    """Nothing is rejected for good because a disk was not mounted."""
    history = small_history(tmp_path / "travelling", 5)
    other = small_history(tmp_path / "staying", 5, name="b")
    run = tmp_path / "run"
    arguments = ["harvest", "contextual", history.path, other.path, "-o", run, "-j1"]
    agentdata(*arguments).succeeds()
    before = contents(run)
    for marker in (run / "units").glob("*-00000.json"):
        marker.unlink()
    (run / "manifest.json").unlink()
    history.path.rename(tmp_path / "away")
    agentdata(*arguments).explains("travelling")
    (tmp_path / "away").rename(history.path)
    agentdata(*arguments).succeeds()
    assert contents(run) == before


def test_a_source_that_failed_is_tried_again(tmp_path: Path) -> None:
    good = small_history(tmp_path / "good", 4)
    arguments = ["harvest", "contextual", good.path, tmp_path / "late", "-o", tmp_path / "run", "-j1"]
    agentdata(*arguments).explains("late does not exist", status=1)
    assert reasons(tmp_path / "run")["sources/not-found"] == 1
    assert len(table(tmp_path / "run", "sources")) == 1
    small_history(tmp_path / "late", 4, name="b")
    agentdata(*arguments).succeeds()
    assert "sources/not-found" not in reasons(tmp_path / "run")
    fresh = ["harvest", "contextual", good.path, tmp_path / "late", "-o", tmp_path / "fresh", "-j1"]
    agentdata(*fresh).succeeds()
    assert contents(tmp_path / "run") == contents(tmp_path / "fresh")


# Another configuration


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["unit_changes=4"], ["recipe.unit_changes", "3", "4"]),
        (["--limit", "5"], ["options.limit", "0", "5"]),
        (["--mask", "actions-only"], ["recipe.mask", "'all'", "'actions-only'"]),
        (["--branch", "main"], ["options.branch", "''", "'main'"]),
        (["filters.most_files=3"], ["recipe.filters.most_files", "20", "3"]),
    ],
)
def test_a_run_begun_with_another_configuration_is_not_continued(
    repositories: list[Path], tmp_path: Path, more: list[str], words: list[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["harvest", "contextual", repositories[1], "-o", run, "-j1", "unit_changes=3"]
    agentdata(*arguments).succeeds()
    before = contents(run)
    done = agentdata(*arguments, *more)
    done.explains("another configuration", *words, status=2)
    assert len(done.err.strip().splitlines()) == 1
    assert contents(run) == before


def test_another_list_of_sources_is_told_in_a_sentence_that_can_be_read(tmp_path: Path) -> None:
    """With a thousand repositories, the two lists are not printed whole."""
    paths = [small_history(tmp_path / "one", 2).path, *(tmp_path / f"missing-{number}" for number in range(300))]
    agentdata("harvest", "contextual", *paths, "-o", tmp_path / "run", "-j1")
    done = agentdata("harvest", "contextual", *paths, tmp_path / "new-one", "-o", tmp_path / "run", "-j1")
    done.explains("sources", "new-one", status=2)
    assert len(done.err) < 2000


def test_changes_and_contextual_do_not_share_a_directory(repositories: list[Path], tmp_path: Path) -> None:
    agentdata("harvest", "changes", repositories[1], "-o", tmp_path / "run", "-j1").succeeds()
    done = agentdata("harvest", "contextual", repositories[1], "-o", tmp_path / "run", "-j1")
    done.explains("options.stage", "'changes'", "'contextual'", status=2)


def test_another_number_of_workers_or_another_cache_is_no_other_configuration(
    repositories: list[Path], tmp_path: Path
) -> None:
    arguments = ["harvest", "contextual", repositories[1], "-o", tmp_path / "run"]
    agentdata(*arguments, "-j1").succeeds()
    agentdata(*arguments, "-j2", "--cache", tmp_path / "cache").succeeds()


# Several processes


def test_a_directory_that_another_process_writes_is_refused(repositories: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["harvest", "contextual", repositories[1], "-o", run, "-j1"]
    agentdata(*arguments).succeeds()
    with open(run / ".lock-1-of-1", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        agentdata(*arguments).explains("another process", "-o", status=1)
    agentdata(*arguments).succeeds()


def test_a_share_does_not_run_beside_the_whole(repositories: list[Path], tmp_path: Path) -> None:
    """The whole run deletes unfinished files; they would be the share's."""
    run = tmp_path / "run"
    arguments = ["harvest", "contextual", repositories[1], "-o", run, "-j1"]
    agentdata(*arguments).succeeds()
    with open(run / ".lock-1-of-1", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        agentdata(*arguments, "--shard", "1/2").explains("another process", status=1)


def test_two_processes_started_together_finish_one_run(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    both = [launch(*command(repositories, pulls, run, "-j1")) for _ in range(2)]
    ends = [finish(process) for process in both]
    assert sum("another process" in end.err for end in ends) <= 1
    for end in ends:
        end.has_no_traceback()
    same(run, whole)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_shares_one_after_the_other_give_the_bytes_of_one_run(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path, order: tuple[int, int]
) -> None:
    run = tmp_path / "run"
    first = agentdata(*command(repositories, pulls, run, "-j1", "--shard", f"{order[0]}/2"))
    first.has_no_traceback()
    assert "owed" in first.out or "not finished" in first.err
    assert not (run / "manifest.json").exists()
    agentdata("show", run).explains("unfinished", status=2)
    agentdata(*command(repositories, pulls, run, "-j1", "--shard", f"{order[1]}/2"))
    same(run, whole)


def test_a_share_says_so_when_a_source_failed(repositories: list[Path], pulls: Path, tmp_path: Path) -> None:
    done = agentdata(*command(repositories, pulls, tmp_path / "run", "-j1", "--shard", "1/2"))
    done.explains("absent does not exist", status=1)


@pytest.mark.parametrize("turn", range(2))
def test_shares_at_the_same_time_give_the_bytes_of_one_run(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path, turn: int
) -> None:
    run = tmp_path / "run"
    shares = [launch(*command(repositories, pulls, run, "-j1", "--shard", f"{place}/3")) for place in (1, 2, 3)]
    for done in [finish(process) for process in shares]:
        done.has_no_traceback()
        assert all("absent" in line or "repositories failed" in line for line in done.err.splitlines()), done
    same(run, whole)


# Signals


def ends_when_interrupted(
    run: Path, arguments: Sequence[str | Path], number: int, workers: str, delay: float
) -> Finished:
    process = launch(*arguments, workers, environment={"AGENTDATA_TEST_MARK": f"mark{run}"})
    assert wait_until(lambda: (run / "config.json").exists())
    time.sleep(delay)
    os.killpg(process.pid, number)
    return finish(process)


@pytest.mark.parametrize("workers", ["-j1", "-j2"])
@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_ctrl_c_ends_with_one_sentence_and_the_same_command_goes_on(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path, workers: str, delay: float
) -> None:
    run = tmp_path / "run"
    arguments = command(repositories, pulls, run)
    done = ends_when_interrupted(run, arguments, signal.SIGINT, workers, delay)
    done.has_no_traceback()
    if done.status != 1:  # It was not quicker than the signal.
        assert done.status == 130, done
        assert len(done.err.strip().splitlines()) == 1, done
        assert "same command" in done.err
        assert str(run) in done.err
    assert wait_until(lambda: not processes_mentioning(f"mark{run}"))
    agentdata(*arguments, "-j1").explains("absent", status=1)
    same(run, whole)


@pytest.mark.parametrize("delay", [0.25, 0.5, 0.75])
def test_ctrl_c_before_the_work_begins_ends_with_130_too(
    repositories: list[Path], pulls: Path, tmp_path: Path, delay: float
) -> None:
    process = launch(*command(repositories, pulls, tmp_path / "run", "-j1"))
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    done = finish(process)
    if "import" not in done.err:  # Python itself was still starting.
        done.has_no_traceback()
        assert done.status in (130, 1), done  # 1: it was quicker than the signal.


def test_a_request_to_terminate_ends_like_ctrl_c(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = launch(*command(repositories, pulls, run, "-j2"))
    assert wait_until(lambda: (run / "config.json").exists())
    process.terminate()  # To the parent alone, as a batch system does.
    done = finish(process)
    done.has_no_traceback()
    assert done.status in (130, 143), done
    agentdata(*command(repositories, pulls, run, "-j1"))
    same(run, whole)


def test_no_process_survives_a_killed_parent(tmp_path: Path) -> None:
    """Only the parent is killed, as the kernel does for lack of memory; workers and their git processes end too."""
    paths = []
    for place in range(2):
        history = small_history(tmp_path / f"r{place}", 3)
        for number in range(60):
            history.commit(f"Change {number}", {f"n{number}.py": numbered(f"n{number}", 30)})
        paths.append(history.path)
    mark = f"mark{tmp_path}"
    process = launch(
        "harvest",
        "contextual",
        *paths,
        "-o",
        tmp_path / "run",
        "-j2",
        "unit_changes=2",
        environment={"AGENTDATA_TEST_MARK": mark},
    )
    assert wait_until(lambda: len(list((tmp_path / "run").glob("units/*.json"))) > 2)
    assert len(processes_mentioning(mark)) > 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: not processes_mentioning(mark)), processes_mentioning(mark)


def test_a_worker_that_is_killed_is_told_and_the_run_can_go_on(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    mark = f"mark{tmp_path}"
    process = launch(*command(repositories, pulls, run, "-j2"), environment={"AGENTDATA_TEST_MARK": mark})
    assert wait_until(lambda: (run / "config.json").exists() and len(workers_of(process.pid)) >= 2)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    done = finish(process)
    done.explains("worker process died", "--workers", status=1)
    assert wait_until(lambda: not processes_mentioning(mark))
    agentdata(*command(repositories, pulls, run, "-j1"))
    same(run, whole)


def workers_of(parent: int) -> list[int]:
    """Worker processes: the children of the fork server, which is a child of the command."""
    return [worker for server in children(parent) for worker in children(server) if is_python(worker)]


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_python(pid: int) -> bool:
    try:
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_git_processes_that_are_killed_do_not_take_the_run_with_them_silently(
    repositories: list[Path], pulls: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """The kernel may kill a git process for lack of memory: the run goes on, or says what happened; it never lies."""
    run = tmp_path / "run"
    process = launch(*command(repositories, pulls, run, "-j1"))
    wait_until(lambda: (run / "units").exists())
    for _ in range(40):
        for child in children(process.pid):
            try:
                if b"cat-file" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)
    done = finish(process)
    assert done.status > 0, done
    done.has_no_traceback()
    agentdata(*command(repositories, pulls, run, "-j1"))
    same(run, whole)
