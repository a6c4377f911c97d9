"""A benchmark by name, file or run to tasks with images that are here."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentdata.environments.derive import TABLES
from agentdata.environments.exchange import read_tasks, tasks_of
from agentdata.environments.grading import read_triples
from agentdata.environments.row_files import Place
from agentdata.environments.swebench_rows import Triple
from agentdata.errors import OwedError, UsageError
from agentdata.journal import Finished, run_journaled
from agentdata.records import Rejected, Task
from agentdata.shards import read_table
from sandboxes.engine import Engine
from sandboxes.errors import EngineError, ImageError

DATASETS = {
    "verified": "SWE-bench/SWE-bench_Verified",
    "lite": "SWE-bench/SWE-bench_Lite",
    "full": "SWE-bench/SWE-bench",
}
"""The official datasets, whose rows of version 5 hold images and evaluation scripts."""
SPLIT = "test"
PLACE = "{instance_id}"
KINDS = f"give {', '.join(DATASETS)}, a file of rows (.jsonl, .json or .parquet), or a run of tasks"


@dataclass(frozen=True)
class TaskJob:
    """Find the image of one task, or keep why its row is none."""

    row: Triple | Rejected

    @property
    def key(self) -> str:
        return self.row.id if isinstance(self.row, Rejected) else self.row[0].id


def identify(benchmark: str) -> str:
    """What tells a benchmark from another of the same name: the digest of a file. Raises UsageError for what is none."""
    path = Path(benchmark)
    if benchmark in DATASETS:
        return DATASETS[benchmark]
    if path.is_dir():
        return str(path.resolve())
    if not path.is_file():
        raise UsageError(f"There is no benchmark {benchmark!r}: {KINDS}.")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_benchmark(benchmark: str, instances: Sequence[str] = (), limit: int = 0) -> list[Triple | Rejected]:
    """The chosen tasks of a benchmark in its order, and what its other rows were rejected for.

    Raises UsageError when it cannot be read, lacks an instance, or holds nothing that can be used.
    """
    rows = list(_rows(benchmark))
    ids = {TaskJob(row).key for row in rows}
    unknown = [name for name in instances if name not in ids]
    if unknown:
        first = next(iter(ids), "none")
        raise UsageError(f"{benchmark} has no instance {unknown[0]!r}; it has {len(ids)}, such as {first}.")
    chosen = [row for row in rows if not instances or TaskJob(row).key in instances][: limit or None]
    if all(isinstance(row, Rejected) for row in chosen):
        why = f": {chosen[0].detail}" if chosen and isinstance(chosen[0], Rejected) else ""
        raise UsageError(f"None of the {len(chosen)} rows of {benchmark} can be used{why}.")
    return chosen


def _rows(benchmark: str) -> Iterator[Triple | Rejected]:
    if benchmark in DATASETS:
        yield from tasks_of(_download(DATASETS[benchmark]), benchmark)
    elif Path(benchmark).is_dir():
        yield from read_triples(Path(benchmark))
    else:
        yield from read_tasks(Path(benchmark))


def _download(name: str) -> Iterator[Place]:
    """The rows of a dataset on the Hub, or of its copy in the cache."""
    import datasets

    # It tells of every try; the sentence below is enough.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        rows = datasets.load_dataset(name, split=SPLIT)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{name} cannot be loaded: {words}. Give its rows as a local file, or set HF_ENDPOINT to a mirror."
        ) from error
    for number, row in enumerate(rows, 1):
        yield str(number), dict(row)


def require_template(image: str) -> None:
    """Raises UsageError for a name that would be the same for every task."""
    if image and PLACE not in image:
        raise UsageError(f"--image {image!r} names one image for all tasks: put {PLACE} where the instance stands.")


def image_names(task: Task, template: str = "") -> tuple[str, ...]:
    """Names under which the image of a task may be here, the first being the one to pull.

    Rows without an image have theirs by the convention of the official harness (swebench 5, `swebench.task.checks`):
    the published name, or the name that it gives images which it builds.
    """
    if template:
        return (template.replace(PLACE, task.id),)
    if task.image:
        return (task.image,)
    built = f"sweb.eval.x86_64.{task.id}:latest".lower()
    return f"swebench/{built.replace('__', '_1776_')}", built


def prepare(run: Path, rows: Callable[[], list[Triple | Rejected]], *, image: str, pull: bool, workers: int) -> None:
    """Write the run of those tasks whose images are here, after pulling what is not, if wanted.

    `image` is a name with {instance_id} in it, and overrides those of the rows; empty to keep them. What has no image
    is rejected as `no-image`. Raises UsageError when there is no task left, RunError, SandboxError.
    """
    with closing(Engine()) as engine:
        run_journaled(
            run,
            {"image": image},
            lambda: [TaskJob(row) for row in rows()],
            partial(_prepare, engine, image, pull),
            tables=TABLES,
            title="images",
            unit="tasks",
            workers=workers,
        )
    if not any(True for _ in read_table(run, "tasks", Task)):
        first = next(read_table(run, "rejected", Rejected))
        # Nothing is lost, and the same command may find more.
        shutil.rmtree(run)
        raise UsageError(f"No task can be evaluated; of {first.id}: {first.detail}")


def _prepare(engine: Engine, template: str, pull: bool, job: TaskJob) -> Finished:
    finished = Finished()
    if isinstance(job.row, Rejected):
        finished.reject(job.row)
        return finished
    task, tests, gold = job.row
    try:
        task = task.model_copy(update={"image": _find_image(engine, image_names(task, template), pull)})
    except EngineError as error:
        raise OwedError(str(error)) from error
    except ImageError as error:
        detail = f"{error} Pull or build it, or name a local one with --image, and evaluate {task.id} in a new run."
        finished.reject(Rejected(id=task.id, repo=task.repo, stage="images", reason="no-image", detail=detail))
        return finished
    finished.add("tasks", task)
    finished.add("tests", tests)
    finished.add("gold", gold)
    finished.counts["tasks"] += 1
    return finished


def _find_image(engine: Engine, names: Sequence[str], pull: bool) -> str:
    """The first name that is here, pulled if need be. Raises ImageError, EngineError."""
    for name in names:
        if engine.images_have(name):
            return name
    if not pull:
        raise ImageError(f"There is no image {' or '.join(names)}.")
    engine.pull(names[0])
    return names[0]
