"""Expensive rows are kept one by one; a stopped run owes only what was not finished."""

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentdata import journal
from agentdata.errors import OwedError, RunError, UsageError
from agentdata.journal import Finished, Then, run_journaled
from agentdata.records import GoldPatch, Manifest, Rejected
from agentdata.shards import read_table
from tests.runs import contents

TABLES = {"gold": GoldPatch, "rejected": Rejected}


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def key(self) -> str:
        return f"number-{self.value}"


def double(job: Number) -> Finished:
    finished = Finished(counts=Counter(numbers=1))
    finished.add("gold", GoldPatch(id=job.key, patch=f"{2 * job.value} é\n"))
    return finished


def run(path: Path, work: object = double, *, size: int = 9, option: str = "x", workers: int = 3) -> Manifest:
    return run_journaled(
        path,
        {"option": option},
        lambda: [Number(value) for value in range(size)],
        work,  # type: ignore[arg-type]
        tables=TABLES,
        title="doubling",
        unit="numbers",
        workers=workers,
    )


def test_rows_stand_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    manifest = run(tmp_path / "run")
    assert [row.id for row in read_table(tmp_path / "run", "gold", GoldPatch)] == [f"number-{n}" for n in range(9)]
    assert {count.name: count.count for count in manifest.counts} == {"numbers": 9}
    assert not (tmp_path / "run/journal.jsonl").exists()


def test_a_stopped_run_is_finished_with_the_same_bytes_and_nothing_twice(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    done: list[int] = []

    def stopping(job: Number) -> Finished:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(job.value)
        return double(job)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", stopping, workers=1)
    before = list(done)
    path = tmp_path / "run/journal.jsonl"
    assert path.read_bytes().count(b"\n") == 4
    path.write_bytes(path.read_bytes()[:-7])  # A stop tore the last line.
    again: list[int] = []

    def watched(job: Number) -> Finished:
        again.append(job.value)
        return double(job)

    run(tmp_path / "run", watched)
    assert sorted(again) == sorted({*range(9)} - {*before[:3]})
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_job_that_failed_for_no_fault_of_its_own_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BACK_OFF", (0.0, 0.0))
    tries: Counter[int] = Counter()
    lock = threading.Lock()

    def shaky(job: Number) -> Finished:
        with lock:
            tries[job.value] += 1
        if job.value == 5 and tries[5] < 3:
            raise OwedError("the engine went away")
        return double(job)

    run(tmp_path / "run", shaky)
    assert tries[5] == 3


def test_what_stays_owed_is_said_and_done_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "BACK_OFF", (0.0,))

    def broken(job: Number) -> Finished:
        if job.value == 2:
            raise OwedError("The engine does not answer.")
        return double(job)

    with pytest.raises(RunError, match=r"1 of 9 numbers are owed.*The engine does not answer"):
        run(tmp_path / "run", broken)
    assert run(tmp_path / "run").tables[0].rows == 9


def test_a_run_stops_when_job_after_job_is_owed(tmp_path: Path) -> None:
    tried: list[int] = []

    def gone(job: Number) -> Finished:
        tried.append(job.value)
        raise OwedError("The engine is gone.", final=True)

    with pytest.raises(RunError, match="40 of 40"):
        run(tmp_path / "run", gone, size=40, workers=1)
    assert len(tried) < 6


def test_other_options_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    with pytest.raises(UsageError, match="option was 'x' and is now 'y'"):
        run(tmp_path / "run", option="y")


def test_a_second_part_takes_the_place_of_the_first_which_is_not_done_again_for_it(tmp_path: Path) -> None:
    drawn: list[str] = []

    def draw(job: Number) -> Finished:
        drawn.append(job.key)
        return double(job)

    def grade(job: Number, drawn: Finished) -> Finished:
        if job.value in broken:
            raise OwedError("the grader is gone", final=True)
        (_, row), *_ = drawn.rows
        assert isinstance(row, GoldPatch)
        finished = Finished(counts=Counter(graded=1))
        finished.add("gold", row.model_copy(update={"patch": row.patch + "graded\n"}))
        return finished

    def both(path: Path) -> Manifest:
        return run_journaled(
            path,
            {},
            lambda: [Number(value) for value in range(6)],
            draw,
            tables=TABLES,
            title="drawing",
            unit="numbers",
            workers=2,
            then=Then(grade, 2),
        )

    broken = {2, 4}
    with pytest.raises(RunError, match="2 of 6 numbers are owed"):
        both(tmp_path / "run")
    broken = set()
    manifest = both(tmp_path / "run")
    assert sorted(drawn) == [f"number-{n}" for n in range(6)]
    assert {count.name: count.count for count in manifest.counts} == {"graded": 6}
    rows = list(read_table(tmp_path / "run", "gold", GoldPatch))
    assert [row.patch for row in rows] == [f"{2 * n} é\ngraded\n" for n in range(6)]


def test_a_fault_that_nobody_foresaw_keeps_no_other_job_from_being_done(tmp_path: Path) -> None:
    def faulty(job: Number) -> Finished:
        if job.value == 4:
            raise KeyError("surprise")
        return double(job)

    with pytest.raises(RunError, match=r"1 of 9 .* number-4 fails by a fault of this program \(KeyError in .*surprise"):
        run(tmp_path / "run", faulty)
    assert run(tmp_path / "run").tables[0].rows == 9
