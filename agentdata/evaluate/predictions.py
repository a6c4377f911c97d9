"""Attempts, or files of predictions, to what is graded; and that in the official form."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentdata.environments.predictions import read_predictions
from agentdata.environments.swebench_rows import Triple
from agentdata.errors import UsageError
from agentdata.records import Prediction, Record, Rejected, Trajectory
from agentdata.shards import write_whole

FILE = "preds.json"


class Effort(Record):
    """What an attempt took and how it ended; empty where only a prediction was given."""

    stop: str = ""
    steps: int = 0
    prompt_tokens: int = 0
    """Summed over the steps, each of which sends the conversation so far."""
    completion_tokens: int = 0
    seconds: float = 0.0
    """From opening the sandbox to the submission."""
    policy_seconds: float = 0.0
    """What of it the policy took."""


NO_EFFORT = Effort()


@dataclass(frozen=True, slots=True)
class Submitted:
    """A prediction and the effort behind it: all that is kept in memory of an attempt."""

    prediction: Prediction
    effort: Effort = NO_EFFORT


def by_run(trajectories: Iterable[Trajectory]) -> dict[int, list[Submitted]]:
    """What was submitted by run, counted from 1: the first attempts at all tasks are the first run."""
    found: dict[int, list[Submitted]] = {}
    for trajectory in trajectories:
        found.setdefault(trajectory.attempt, []).append(Submitted(to_prediction(trajectory), effort_of(trajectory)))
    return {number: found[attempt] for number, attempt in enumerate(sorted(found), 1)}


def to_prediction(trajectory: Trajectory) -> Prediction:
    """What an attempt submits."""
    return Prediction(
        instance_id=trajectory.task,
        model_name_or_path=trajectory.model,
        model_patch=trajectory.submission,
    )


def effort_of(trajectory: Trajectory) -> Effort:
    """What an attempt took."""
    return Effort(
        stop=trajectory.stop,
        steps=len(trajectory.steps),
        prompt_tokens=sum(step.prompt_tokens for step in trajectory.steps),
        completion_tokens=sum(step.completion_tokens for step in trajectory.steps),
        seconds=trajectory.seconds,
        policy_seconds=sum(step.seconds for step in trajectory.steps),
    )


def given(source: str, triples: Sequence[Triple], say: Callable[[str], None]) -> list[Submitted]:
    """The predictions of a file for these tasks, or `gold` or `empty` for what must and must not resolve.

    What cannot be used is said, and the rest stands. Raises UsageError when nothing can be.
    """
    if source in ("gold", "empty"):
        patches = {task.id: gold.patch if source == "gold" else "" for task, _, gold in triples}
        return [
            Submitted(Prediction(instance_id=name, model_name_or_path=source, model_patch=patch))
            for name, patch in patches.items()
        ]
    wanted = {task.id for task, _, _ in triples}
    chosen: dict[str, Submitted] = {}
    strangers: list[str] = []
    for row in read_predictions(Path(source)):
        if isinstance(row, Rejected):
            say(f"Left out a prediction: {row.detail}.")
        elif row.instance_id not in wanted:
            strangers.append(row.instance_id)
        elif row.instance_id in chosen:
            say(
                f"Left out a second prediction for {row.instance_id}: give each model's predictions in a file of its own."
            )
        else:
            chosen[row.instance_id] = Submitted(row)
    if not chosen:
        raise UsageError(f"{source} holds no prediction for any of the {len(wanted)} tasks: check its `instance_id`s.")
    if strangers:
        say(f"Left out {len(strangers)} predictions of other tasks than the chosen ones, such as {strangers[0]}.")
    return list(chosen.values())


def write_predictions(folder: Path, predictions: Sequence[Prediction]) -> Path:
    """Write preds.json, by instance, and preds.jsonl; the path of the first."""
    rows = [prediction.model_dump() for prediction in predictions]
    by_instance = {row["instance_id"]: row for row in rows}
    write_whole(folder / FILE, json.dumps(by_instance, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / f"{FILE}l", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return folder / FILE
