"""Directories of each kind that a report knows, made by the project's own code, small."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.evaluate.run import write_report
from agentdata.records import BuildAttempt, Environment, Record, TestCount, TestResult, Verdict
from tests.assembled import build, chat, chats, task, write_run
from tests.histories import History, numbered
from tests.rollouts import attempt, save, step
from tests.runs import agentdata
from tests.test_evaluate import report_of
from tests.test_pack import text_rows
from tests.tokenizers_of_kinds import write_tokenizer

HOSTILE = "</title></script><script>document.body.id='caught'</script><img src=x onerror=\"document.body.id='caught'\">"


def contextual(folder: Path) -> Path:
    """A harvest of a history with merges, a plain commit and a change without source files."""
    history = History(folder / "repository")
    history.commit("Begin", {"a.py": numbered("a", 4), "LICENSE": "MIT License\n"})
    for number in range(1, 6):
        history.branch(f"b{number}")
        text = numbered("a", 4).replace("+ 0", f"+ {number}00")
        history.commit(f"Return {number} more", {f"{'a' if number < 5 else 'b'}.{'py' if number != 3 else 'md'}": text})
        history.switch("main")
        history.merge(f"b{number}", f"Merge pull request #{number} from ada/b{number}\n\nReturn {number} more")
    agentdata("harvest", "contextual", history.path, "-o", folder / "harvest", "-j1").succeeds()
    return folder / "harvest"


def dataset(folder: Path) -> Path:
    """A dataset of conversations and tasks."""
    sizes = [*chats(), *(chat(f"x{n}", "a/one", tokens=100 * n, licence="Apache-2.0") for n in range(1, 30))]
    tasks = [task(f"a__one-{number}", "a/one") for number in range(3)]
    parts = {"tasks": [one[0] for one in tasks], "tests": [one[1] for one in tasks], "gold": [one[2] for one in tasks]}
    runs = [write_run(folder / "chats", {"messages": sizes}), write_run(folder / "tasks", parts)]
    build(folder / "dataset", *runs)
    return folder / "dataset"


def environments(folder: Path) -> Path:
    """A run of environments, as its tables."""
    made = {"python": "3.11", "base_image": "b", "lock": "", "until": "", "install": (), "test_command": "pytest"}
    rows = [
        Environment(
            id=f"e{n}", repo="a/one", git_dir="", commit="c", lock_id=f"l{n % 2}", origin="tox.ini", image="i",
            image_id=f"{n}", **made,
        )
        for n in range(3)
    ]  # fmt: skip
    tried = [
        BuildAttempt(
            id=f"e{n}/0", repo="a/one", commit="c", origin="tox.ini", reason="import-failed" if n > 2 else "", log="",
            seconds=7.0 * n,
        )
        for n in range(5)
    ]  # fmt: skip
    tables: dict[str, list[Record]] = {"environments": [*rows], "attempts": [*tried]}
    return write_run(folder / "environments", tables, rejections={"environments/import-failed": 2})


def attempts(folder: Path) -> Path:
    """A run of trajectories: ten tasks, three attempts each."""
    made = []
    for number in range(10):
        for again in range(3):
            steps = [step(place, f"ls {place}", "there\n", status=place % 3) for place in range(1, 4 + number + again)]
            stopped = "submitted" if number % 3 else "step-limit"
            resolved = None if (number, again) == (9, 2) else again < number % 4 and stopped == "submitted"
            leaks = ("history: git log --all",) if number == 7 else ()
            one = attempt(f"toy__calc-{number}", again, resolved=resolved, steps=steps, stop=stopped, leaks=leaks)
            made.append(one.model_copy(update={"seconds": 40.0 * (number + 1) + again}))
    return save(folder / "attempts", *made)


def gradings(folder: Path) -> Path:
    """A run of verdicts."""
    tests = (TestResult(name="t", status="passed"),)
    rows = [
        Verdict(
            task=f"t{n}", model="gold", resolved=n > 0, reason="resolved" if n else "tests-failed", fail_to_pass=tests,
            test_seconds=n + 0.5,
        )
        for n in range(4)
    ]  # fmt: skip
    return write_run(folder / "gradings", {"verdicts": rows})


def tasks(folder: Path) -> Path:
    """A run of tasks, one of which has a flaky test."""
    parts = [task(f"a__one-{number}", "a/one") for number in range(4)]
    counts = (TestCount(name="t.py::u", runs=3, passed_before=1, passed_after=2),)
    tests = [
        one.model_copy(
            update={"flaky": ("t.py::u",) * (number == 2), "counts": counts, "pass_to_pass": ("t.py::p",) * number}
        )
        for number, (_, one, _) in enumerate(parts)
    ]
    tables: dict[str, list[Record]] = {
        "tasks": [one[0] for one in parts],
        "tests": [*tests],
        "gold": [one[2] for one in parts],
    }
    return write_run(folder / "task-run", tables, rejections={"tasks/no-fail-to-pass": 4})


def evaluation(folder: Path) -> Path:
    """A finished evaluation."""
    write_report(folder / "evaluation", report_of([number % 3 > 0 for number in range(120)], model="base"))
    return folder / "evaluation"


def packed(folder: Path) -> Path:
    """Packed rows of texts."""
    write_tokenizer(folder / "base")
    (folder / "run/markdown").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(text_rows(0, 40)), folder / "run/markdown/train-0.parquet")
    source = {"path": str(folder / "run"), "rendering": "markdown", "name": "text"}
    given = {"sources": [source], "tokenizer": str(folder / "base"), "row_length": 512}
    done = agentdata(
        "pack", "pack", *(f"{key}={json.dumps(value)}" for key, value in given.items()), "-o", folder / "packed", "-j1"
    )
    done.succeeds()
    return folder / "packed"


def training(folder: Path, *, steps: int = 40) -> Path:
    """The metrics of two stages, in the form that a training writes."""
    run = folder / "training"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"generator": "agentdata test", "options": {}}))
    with open(run / "metrics.jsonl", "w", encoding="utf-8") as file:
        for stage, first in (("contextual", 1), ("environmental", steps + 1)):
            for number in range(first, first + steps):
                file.write(json.dumps(train_event(stage, number)) + "\n")
                if number % 10 == 0:
                    for place, kind in enumerate(("all", "read", "edit")):
                        told = {
                            "source": "runs/click:messages",
                            "kind": kind,
                            "loss": 2 / number + place,
                            "tokens": 900,
                        }
                        file.write(json.dumps({"event": "held-out", "stage": stage, "step": number, **told}) + "\n")
        notice = {"event": "notice", "stage": "contextual", "step": 7, "reason": "loss-spike", "detail": "loss 9.1"}
        file.write(json.dumps(notice) + "\n")
    return run


def train_event(stage: str, step: int) -> dict[str, Any]:
    """A step; the seventh has no finite loss."""
    return {
        "event": "train", "stage": stage, "step": step, "loss": math.nan if step == 7 else 4 / step + 1, "tokens": 2000,
        "trained": 1500, "rate": 0.001 / step, "gradient_norm": 1.5, "seconds": 0.5, "tokens_per_second": 4000.0,
        "mfu": None, "memory": 600_000_000,
    }  # fmt: skip


KINDS = {
    "contextual run": contextual,
    "dataset": dataset,
    "environment run": environments,
    "environmental run": attempts,
    "grading run": gradings,
    "task run": tasks,
    "evaluation": evaluation,
    "packed rows": packed,
    "training": training,
}
