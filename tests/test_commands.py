"""Whole commands on executable tasks: killed, given bad input, without an engine, without images, and beside the official
harness."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentdata.environments.build import build_environment
from agentdata.environments.derive import TABLES
from agentdata.environments.exchange import write_rows
from agentdata.environments.grading import read_triples
from agentdata.environments.recipe import EnvironmentRecipe
from agentdata.environments.run import add_build
from agentdata.environments.swebench_rows import Triple
from agentdata.journal import Finished as Rows
from agentdata.journal import run_journaled
from agentdata.records import BuildAttempt, Environment, GoldPatch, Record, Task, TaskTests
from sandboxes.engine import Engine
from sandboxes.owners import OWNER_LABEL, is_dead
from tests import gradetoy
from tests.bench_harness import BLANK, ROWS, run_official, run_ours
from tests.histories import History
from tests.runs import Finished, agentdata, finish, launch, table, wait_until

NAME = "toy__calc-1"
SLOW = gradetoy.diff({"calc/core.py": "import time\ntime.sleep(3)\n" + gradetoy.SOLVED["calc/core.py"]})
GOLD = gradetoy.diff(dict(gradetoy.SOLVED))


class Kept:
    """A job that only keeps rows."""

    key = "kept"

    def __init__(self, rows: Rows) -> None:
        self.rows = rows


def write_run(path: Path, rows: Rows, tables: dict[str, type[Record]]) -> Path:
    run_journaled(
        path, {}, lambda: [Kept(rows)], lambda job: job.rows, tables=tables, title="writing", unit="runs", workers=1
    )
    return path


def write_tasks(path: Path, task: Task, tests: TaskTests, gold: str, environment: Environment | None = None) -> Path:
    rows = Rows()
    rows.add("tasks", task)
    rows.add("tests", tests)
    rows.add("gold", GoldPatch(id=task.id, patch=gold))
    if environment is not None:
        rows.add("environments", environment)
    return write_run(path, rows, TABLES)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A run with the toy's task, whose image nobody made."""
    return write_tasks(tmp_path / "tasks", gradetoy.task("agentdata-test/toy:none"), gradetoy.task_tests(), GOLD)


def predictions(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def prediction(model: str, patch: object, name: str = NAME) -> dict[str, object]:
    return {"instance_id": name, "model_name_or_path": model, "model_patch": patch}


# Without an engine


@pytest.mark.parametrize(
    "command",
    [
        ("environments", "build", "runs/none", "-o", "out"),
        ("tasks", "derive", "runs/none", "-o", "out"),
        ("tasks", "mutate", "runs/none", "-o", "out"),
        ("tasks", "grade", "runs/none", "-p", "gold", "-o", "out"),
        ("sandbox", "ps"),
        ("sandbox", "prune"),
        ("sandbox", "gc", "--max-disk", "5GB"),
    ],
)
def test_an_engine_that_does_not_run_is_told(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "runs/none").mkdir(parents=True)
    (tmp_path / "runs/none/manifest.json").touch()
    done = agentdata(*command, cwd=tmp_path, environment={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    done.explains("No Docker engine answers", "none.sock", "systemctl start docker", status=1)
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


# Bad input


@pytest.mark.docker
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((), "None of the 0 predictions"),
        (("not json",), "not-json, preds.jsonl:1"),
        ((prediction("m", 3),), "model_patch"),
        (({"instance_id": NAME},), "no model_patch"),
        ((prediction("m", "", "nowhere-1"),), "no task nowhere-1"),
    ],
)
def test_predictions_of_which_none_can_be_graded_are_refused_with_the_reason(
    engine: Engine, tasks: Path, tmp_path: Path, rows: tuple[object, ...], said: str
) -> None:
    path = predictions(tmp_path / "preds.jsonl", *rows)
    done = finish(launch("tasks", "grade", tasks, "-p", path, "-o", tmp_path / "out"))
    done.explains(str(path), said, status=2)


@pytest.mark.docker
def test_an_image_that_is_missing_and_not_described_is_owed_at_once(
    engine: Engine, tasks: Path, tmp_path: Path
) -> None:
    done = finish(launch("tasks", "grade", tasks, "-p", "gold", "-o", tmp_path / "out"), 20)
    done.explains("1 of 1 verdicts are owed", "no image agentdata-test/toy:none", status=1)


@pytest.mark.docker
@pytest.mark.parametrize(("key", "value"), [("pyton", "3.11"), ("python", "three"), ("until", "yesterday")])
def test_a_recipe_that_does_not_fit_is_told_with_its_key(tmp_path: Path, key: str, value: str) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(json.dumps({"default": {key: value}}))
    done = agentdata("environments", "build", tmp_path, "-o", tmp_path / "out", "--recipe", recipe)
    done.explains("own.yaml", f"default.{key}", value, status=2)


@pytest.mark.docker
def test_a_run_that_is_no_harvest_is_not_built_from(engine: Engine, tasks: Path, tmp_path: Path) -> None:
    done = finish(launch("environments", "build", tasks, "-o", tmp_path / "out"))
    done.explains("tasks holds no harvest", status=2)


@pytest.mark.docker
def test_a_size_that_is_none_is_refused() -> None:
    agentdata("sandbox", "gc", "--max-disk", "lots").explains("'lots' is not a size", "50GB", status=2)


# Stopped in the middle


def grade_twice(run: Path, tasks: Path, path: Path, stop: signal.Signals) -> tuple[Finished, Finished, bytes]:
    """Grade until the first verdict is kept, stop the command, and run it again; with what had been kept."""
    command = ("tasks", "grade", tasks, "-p", path, "-o", run, "-j1")
    process = launch(*command)
    journal = run / "journal.jsonl"
    assert wait_until(lambda: journal.is_file() and journal.read_bytes().endswith(b"\n"), 40)
    kept = journal.read_bytes()
    process.send_signal(stop)
    return finish(process), finish(launch(*command)), kept


@pytest.mark.docker
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_goes_on_where_it_was_and_leaves_no_container(
    engine: Engine, base: str, tmp_path: Path, stop: signal.Signals
) -> None:
    toy = gradetoy.image(engine, base)
    tasks = write_tasks(tmp_path / "tasks", gradetoy.task(toy), gradetoy.task_tests(), GOLD)
    path = predictions(tmp_path / "preds.jsonl", prediction("fast", GOLD), prediction("slow", SLOW), "torn")
    first, second, kept = grade_twice(tmp_path / "run", tasks, path, stop)
    assert first.status == (-stop if stop is signal.SIGKILL else 130)
    second.succeeds()
    rows = table(tmp_path / "run", "verdicts")
    assert [(row["model"], row["resolved"]) for row in rows] == [("fast", True), ("slow", True)]
    assert rows[0]["seconds"] == json.loads(kept)["rows"][0][1]["seconds"]
    assert [row["reason"] for row in table(tmp_path / "run", "rejected")] == ["not-json"]
    # Other runs of these tests may use the image at the same time.
    assert wait_until(lambda: not [box for box in engine.containers() if box["Image"] == toy and is_abandoned(box)])


def is_abandoned(box: dict[str, Any]) -> bool:
    return is_dead(box["Labels"][OWNER_LABEL])


# Images that were removed


@pytest.fixture
def larder(engine: Engine, tmp_path: Path) -> Iterator[tuple[Environment, Path]]:
    """An environment of a repository whose test fails, and a run with the task to mend it."""
    history = History(tmp_path / "repository")
    files = {
        "larder.py": "def stock():\n    return 1\n",
        "test_larder.py": "import larder\n\n\ndef test_stock():\n    assert larder.stock() == 2\n",
    }
    history.commit("base", dict(files))
    recipe = EnvironmentRecipe(python="3.11", until="2023-07-01T00:00:00Z")
    built, attempts = build_environment(
        engine, history.path / ".git", "ada/larder", history.git("rev-parse", "HEAD"), recipe=recipe
    )
    assert isinstance(built, Environment), built
    write_run(tmp_path / "environments", _built(built, attempts), {**TABLES, "attempts": BuildAttempt})
    (history.path / "larder.py").write_text(files["larder.py"].replace("1", "2"))
    task = gradetoy.task(built.image).model_copy(
        update={"environment": built.id, "repo": built.repo, "base_commit": built.commit}
    )
    tests = gradetoy.task_tests("python -m pytest").model_copy(
        update={
            "test_patch": "",
            "test_files": ("test_larder.py",),
            "fail_to_pass": ("test_larder.py::test_stock",),
            "pass_to_pass": (),
        }
    )
    yield built, write_tasks(tmp_path / "tasks", task, tests, history.git("diff") + "\n", built)
    if engine.images_have(built.image):
        engine.api.remove_image(built.image)


def _built(environment: Environment, attempts: list[BuildAttempt]) -> Rows:
    rows = Rows()
    add_build(rows, environment, attempts)
    return rows


@pytest.mark.docker
def test_an_image_that_was_removed_is_made_again(
    engine: Engine, larder: tuple[Environment, Path], tmp_path: Path
) -> None:
    environment, tasks = larder
    engine.api.remove_image(environment.image)
    done = finish(launch("tasks", "grade", tasks, "-p", "gold", "-o", tmp_path / "out"), 120)
    done.succeeds()
    assert [row["reason"] for row in table(tmp_path / "out", "verdicts")] == ["resolved"]
    assert engine.images_have(environment.image)


@pytest.mark.docker
def test_the_official_harness_grades_exported_tasks_as_we_do(larder: tuple[Environment, Path], tmp_path: Path) -> None:
    pytest.importorskip("swebench")
    (triple,) = read_triples(larder[1])
    solved, left = (renamed(triple, f"toy__calc-{number}") for number in (1, 2))
    patches = {solved[0].id: solved[2].patch, left[0].id: BLANK}
    assert not write_rows(tmp_path / ROWS, [solved, left]).rejected
    official = run_official(tmp_path, "model", patches, 2, 300).outcomes
    ours = run_ours([solved, left], patches, 2, 300).outcomes
    for outcomes in (official, ours):
        assert [outcomes[name].resolved for name in patches] == [True, False], (official, ours)


def renamed(triple: Triple, name: str) -> Triple:
    task, tests, gold = (record.model_copy(update={"id": name}) for record in triple)
    return task, tests, gold  # type: ignore[return-value]
