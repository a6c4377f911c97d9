"""The loop's own recipe, made small: histories to a trained model that was measured on another repository."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentdata.cli.demo import build
from agentdata.errors import UsageError
from agentdata.rollouts.recipe import RolloutRecipe
from agentdata.training.metrics import read_metrics
from recipes import load_rollouts, load_training
from recipes.loop.__main__ import HERE, Repository, fill
from tests.histories import History
from tests.runs import contents, small_history

ROOT = HERE.parent.parent
SMALL = {"steps": 8, "row_length": 128, "batch_tokens": 512}


def loop(out: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "recipes.loop", str(out), *map(str, arguments)]
    # Threads that wait for each other by spinning take many times as long where other tests run beside this one.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The recipe of the loop with few short steps."""
    recipe = yaml.safe_load((HERE / "midtrain.yaml").read_text())
    stages = [{**stage, **SMALL} for stage in recipe["stages"]]
    several: dict[str, Any] = {"held_out_steps": 4, "held_out_rows": 4, "checkpoint_steps": 0, "precision": "fp32"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**recipe, **several, "stages": stages}))
    return path


def test_the_loop_runs_and_is_not_run_twice(tmp_path: Path, small: Path) -> None:
    build(tmp_path)
    small_history(tmp_path / "other")
    out = tmp_path / "out"
    given = ("--seen", f"harbour/larder={tmp_path / 'larder.git'}", "--unseen", tmp_path / "other", "--tasks", "0")
    done = loop(out, *given, "--recipe", small)
    assert done.returncode == 0, done.stdout + done.stderr
    losses: dict[str, list[float]] = {}
    for event in read_metrics(out / "trained/metrics.jsonl"):
        if event["event"] == "held-out" and event["kind"] == "all":
            assert event["source"] == "other"
            losses.setdefault(event["stage"], []).append(event["loss"])
    assert list(losses) == ["markdown", "messages"]
    assert all(len(found) == 3 and found[0] > found[-1] for found in losses.values())
    assert f"| markdown | other | {losses['markdown'][0]:.3f} |" in (out / "report.md").read_text()
    before = contents(out)
    again = loop(out, *given, "--recipe", small)
    assert "$ agentdata" not in again.stdout
    assert contents(out) == before


def test_a_step_that_fails_ends_the_loop(tmp_path: Path) -> None:
    History(tmp_path / "empty")
    done = loop(tmp_path / "out", "--seen", tmp_path / "empty", "--unseen", tmp_path / "empty")
    assert done.returncode == 1
    assert "the same command goes on" in done.stderr
    assert not (tmp_path / "out/steps.jsonl").exists()


def test_the_recipes_fit(tmp_path: Path) -> None:
    unseen = [Repository("a/b", "/a"), Repository("c", "/c")]
    filled = fill(yaml.safe_load((HERE / "midtrain.yaml").read_text()), unseen)
    (tmp_path / "filled.yaml").write_text(yaml.safe_dump(filled))
    training = load_training(str(tmp_path / "filled.yaml"))
    for stage in training.stages:
        assert [(one.name, one.path) for one in stage.held_out] == [("a/b", "unseen/a-b"), ("c", "unseen/c")]
        assert {one.rendering for one in stage.held_out} == {stage.sources[0].rendering}
    assert isinstance(load_rollouts(str(HERE / "environmental.yaml")), RolloutRecipe)
    with pytest.raises(UsageError):
        load_training(str(HERE / "environmental.yaml"))


@pytest.mark.parametrize(
    ("word", "name", "folder"),
    [
        ("https://host/owner/name.git", "name", "name"),
        ("owner/name=https://host/x", "owner/name", "owner-name"),
        (str(ROOT), ROOT.name, ROOT.name),
    ],
)
def test_repositories_are_named_by_word_or_place(word: str, name: str, folder: str) -> None:
    found = Repository.read(word)
    assert (found.name, found.folder) == (name, folder)
    assert json.dumps(word).endswith(f'{found.location}"')
