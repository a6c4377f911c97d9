"""Run the same work over many jobs: in this process, in local processes, or on Ray.

A job is small and picklable, its work is idempotent, and results come back as they finish. Resuming is not the
executor's matter: a job that is finished is not handed in again.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, forkserver, get_context, parent_process, resource_tracker
from multiprocessing.synchronize import Barrier
from typing import Literal, TypeVar

from agentdata.errors import RunError, UsageError

Job = TypeVar("Job")
Result = TypeVar("Result")
Executor = Literal["local", "ray"]


def run_jobs(
    jobs: Iterable[Job], work: Callable[[Job], Result], *, workers: int = 1, executor: Executor = "local"
) -> Iterator[Result]:
    """Yield `work(job)` for every job, in order of completion.

    One local worker runs in this process. Raises RunError when a worker process dies.
    """
    if executor == "ray":
        yield from _run_on_ray(jobs, work, workers)
    elif workers <= 1:
        yield from map(work, jobs)
    else:
        yield from _run_in_processes(jobs, work, workers)


def _run_in_processes(jobs: Iterable[Job], work: Callable[[Job], Result], workers: int) -> Iterator[Result]:
    remaining = iter(jobs)
    prepare(work)
    context = get_context("forkserver")
    together = context.Barrier(workers)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=(together,))
    try:
        with _uninterrupted(signal.SIGINT, signal.SIGTERM):
            # All workers start here, since none works before all have come: an interrupted start leaves one that
            # complains about what is gone.
            wait([pool.submit(os.getpid) for _ in range(workers)])
            running = {pool.submit(work, job) for job in islice(remaining, 2 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            with _uninterrupted(signal.SIGINT, signal.SIGTERM):
                running |= {pool.submit(work, job) for job in islice(remaining, len(finished))}
            for future in finished:
                yield future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "A worker process died, most often for lack of memory. Run the same command again with fewer --workers; "
            "finished shards are kept."
        ) from error
    finally:
        # After an error or Ctrl-C nobody waits for half-done units: their files are unfinished and simply owed again.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def prepare(work: Callable[[Job], Result]) -> None:
    """Start what makes local workers: it loads their code once for all of them, while this process goes on.

    Ctrl-C is blocked meanwhile: a terminal sends it to the whole group, also to a Python just starting.
    """
    resource_tracker.ensure_running()
    forkserver.set_forkserver_preload([work.__module__])
    with _uninterrupted(signal.SIGINT):
        forkserver.ensure_running()


@contextmanager
def _uninterrupted(*numbers: signal.Signals) -> Iterator[None]:
    """Hold signals back: a pool that is stopped while it starts a process or a thread cannot be shut down.

    The mask is for the processes that start now. It does not hold back what a thread of some library receives, so that
    the handlers are held back too; they run in the main thread alone.
    """
    held: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, lambda number, _: held.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in held[:1]:
            signal.raise_signal(received)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _prepare_worker(together: Barrier) -> None:
    """Leave Ctrl-C to the parent, end when the parent is gone, however it went, and wait for the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def follow_parent() -> None:
            connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=follow_parent, daemon=True).start()
    together.wait()


def _run_on_ray(jobs: Iterable[Job], work: Callable[[Job], Result], workers: int) -> Iterator[Result]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'agentdata[ray]'.") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    task = ray.remote(work)
    remaining = iter(jobs)
    running = [task.remote(job) for job in islice(remaining, max(workers, 2 * int(ray.cluster_resources()["CPU"])))]
    while running:
        finished, running = ray.wait(running)
        running += [task.remote(job) for job in islice(remaining, len(finished))]
        yield from ray.get(finished)
