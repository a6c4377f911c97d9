"""Small trainings for tests: a model and samples made on the spot, a recipe over them, and what came of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import recipes
from agentdata.training.metrics import read_metrics
from agentdata.training.recipe import TrainingRecipe
from tests.runs import ROOT
from tests.test_pack import chat_rows, text_rows
from tests.tiny_model import make_model

LENGTH = 128
ALONE = (sys.executable, "-m", "agentdata", "midtrain")
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def ranks(count: int) -> tuple[str, ...]:
    """The command that starts so many processes on this machine."""
    return (sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "-m", "agentdata", "midtrain")


def make_data(folder: Path) -> Path:
    """A model of 0.1 million parameters, a run of two tables, and one that is held out."""
    for name, number in (("run", 1), ("unseen", 2)):
        (folder / name / "markdown").mkdir(parents=True)
        (folder / name / "messages").mkdir()
        pq.write_table(pa.Table.from_pylist(text_rows(number, 20)), folder / name / "markdown/train-0.parquet")
        pq.write_table(pa.Table.from_pylist(chat_rows(40)), folder / name / "messages/train-0.parquet")
    make_model(folder / "model", vocabulary=512, context=1024, width=32, layers=2)
    return folder


def values_of(data: Path) -> dict[str, Any]:
    """Two stages of 6 and 4 steps: all of the text, then what is marked in conversations."""
    text = {"path": str(data / "run"), "rendering": "markdown", "name": "text"}
    chat = {"path": str(data / "run"), "rendering": "messages", "name": "chat"}
    unseen = {"path": str(data / "unseen"), "rendering": "markdown", "name": "unseen"}
    return {
        "model": str(data / "model"),
        "checkpoint_steps": 2,
        "held_out_steps": 3,
        "held_out_rows": 4,
        "stage": {
            "row_length": LENGTH,
            "batch_tokens": 4 * LENGTH,
            "held_out": [unseen],
            "optimiser": {"rate": 1e-3},
        },
        "stages": [
            {"name": "first", "sources": [text], "steps": 6},
            {"name": "second", "sources": [chat], "steps": 4, "mask": "trained-only"},
        ],
    }


def write_recipe(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def recipe_of(folder: Path, values: dict[str, Any]) -> TrainingRecipe:
    return recipes.load_training(str(write_recipe(folder, values)))


def losses(run: Path) -> dict[tuple[str, int], float]:
    """The training loss of each step."""
    found = [one for one in read_metrics(run / "metrics.jsonl") if one["event"] == "train"]
    taken = {(one["stage"], one["step"]): one["loss"] for one in found}
    assert len(taken) == len(found), "a step stands twice"
    return taken


def held_out(run: Path, stage: str, kind: str = "all") -> list[float]:
    """The held-out losses of a stage in their order."""
    found = (one for one in read_metrics(run / "metrics.jsonl") if one["event"] == "held-out")
    return [one["loss"] for one in found if one["stage"] == stage and one["kind"] == kind]


def start(command: tuple[str, ...], recipe: Path, run: Path) -> "subprocess.Popen[str]":
    """A training in processes of their own, in a group that a signal reaches as a whole."""
    return subprocess.Popen(
        [*command, str(recipe), "-o", str(run), "-j", "1"],
        cwd=ROOT,
        env=QUIET,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(training: "subprocess.Popen[str]", seconds: int = 240) -> tuple[int, str]:
    """Its status and what it said."""
    said, _ = training.communicate(timeout=seconds)
    return training.returncode, said


def kill_after(training: "subprocess.Popen[str]", run: Path, steps: int, seconds: int = 240) -> None:
    """Kill it, with all that it started, as soon as so many steps are told and a checkpoint is whole."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        told = sum(one["event"] == "train" for one in read_metrics(run / "metrics.jsonl"))
        if told >= steps and list(run.glob("stages/*/checkpoints/step-????????/state.json")):
            os.killpg(training.pid, signal.SIGKILL)
            training.communicate()
            return
        assert training.poll() is None, training.communicate()[0]
        time.sleep(0.01)
    raise TimeoutError(f"{run} did not get to step {steps}: {json.dumps(sorted(map(str, run.rglob('*'))))[:2000]}")
