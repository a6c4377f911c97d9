"""The same work in this process and in others, and what happens when a process dies."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from agentdata.errors import RunError, SourceError
from agentdata.stages import run_jobs


def square(number: int) -> int:
    return number * number


def pid_of(number: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise SourceError("corrupt", f"job {number} cannot be read")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    assert sorted(run_jobs(range(20), square, workers=workers)) == [number * number for number in range(20)]


def test_one_worker_keeps_the_order_and_runs_here() -> None:
    assert list(run_jobs(range(3), pid_of)) == [os.getpid()] * 3


def test_two_workers_run_elsewhere() -> None:
    assert os.getpid() not in set(run_jobs(range(8), pid_of, workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_no_jobs_give_no_results(workers: int) -> None:
    assert list(run_jobs([], square, workers=workers)) == []


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = run_jobs(jobs(), square, workers=2)
    next(results)
    assert len(taken) < 20
    assert isinstance(results, Iterator)
    results.close()  # type: ignore[attr-defined]


def test_a_dying_worker_ends_the_run_with_a_remedy() -> None:
    with pytest.raises(RunError, match=r"worker process died.*fewer --workers"):
        list(run_jobs(range(8), die, workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_comes_through_with_its_reason(workers: int) -> None:
    with pytest.raises(SourceError, match="cannot be read") as caught:
        list(run_jobs([1], fail, workers=workers))
    assert caught.value.reason == "corrupt"
