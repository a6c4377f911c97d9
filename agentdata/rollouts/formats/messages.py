"""Rows of `messages` in OpenAI's shape, as datasets of trajectories have them.

Read: SWE-smith trajectories (tool, xml and ticks), SWE-rebench-openhands-trajectories and others of `trajectory` and
`tools`, nebius/SWE-agent-trajectories (roles `ai`, texts under `text`), rows with `reasoning_content` as those of
daVinci-Dev, and our own. Written: one row for each trajectory, `tools` and arguments as JSON text.

Not held: tokens, log-probabilities and seconds of steps, calls that could not be read, exit statuses of commands, the
tests behind a verdict and its log. SWE-smith's form holds no commit, no licence and no call apart from its text either.
"""

from typing import Any

from agentdata.environments.row_fields import Row, RowError, from_json
from agentdata.records import Message, Trajectory, Verdict
from agentdata.rollouts.formats.imported import ATTEMPT_UNKNOWN, first_text, imported, repo_of, tools_text, verdict_of
from agentdata.rollouts.formats.turns import read_turns, with_form, write_turn
from agentdata.rollouts.samples import seen, xml_words

LOST = (
    "tokens, log-probabilities, seconds and finish reasons of steps",
    "calls that could not be read, which were never shown again",
    "exit statuses of commands and how much of an output was cut",
    "the tests behind a verdict, and its log",
)
SMITH_LOST = (*LOST, "commit, licence, seed, sampling and scaffold", "calls apart from the text they stand in")
COLUMNS = ("messages", "trajectory", "conversation", "conversations")
PATCHES = ("model_patch", "patch", "git_patch", "generated_patch", "submission")
KEPT = ("base_commit", "seed", "sampling", "scaffold", "scaffold_version", "detail", "created_at", "generator")


def is_row(row: Row) -> bool:
    return any(row.get(column) is not None for column in COLUMNS)


def is_conversation(turns: object) -> bool:
    """Whether a list is one conversation, and not one of rows."""
    return isinstance(turns, list) and bool(turns) and all(isinstance(turn, dict) and "role" in turn for turn in turns)


def read_row(row: Row) -> Trajectory:
    """A trajectory. Raises RowError."""
    column = next(column for column in COLUMNS if row.get(column) is not None)
    turns = row[column]
    turns = from_json(turns, column) if isinstance(turns, str) else turns
    told, form = with_form(read_turns(turns), row.get("form"))
    task = first_text(row, "instance_id", "task", "task_id")
    if not task:
        raise RowError("missing-column", "instance_id is absent or empty")
    model = first_text(row, "model", "model_name", "model_name_or_path")
    fields: dict[str, Any] = {name: row[name] for name in KEPT if row.get(name) is not None}
    attempt = row.get("attempt")
    fields |= {
        "repo": first_text(row, "repo") or repo_of(task),
        "licence": first_text(row, "license", "licence"),
        "attempt": attempt if isinstance(attempt, int) and attempt >= 0 else ATTEMPT_UNKNOWN,
        "model": model,
        "tools": tools_text(row.get("tools")),
        "leaks": tuple(row.get("leaks") or ()),
        "verdict": _verdict(row, task, model),
    }
    fields.setdefault("seconds", row.get("seconds") or 0.0)
    if row.get("stop"):
        fields["stop"] = row["stop"]
    status = first_text(row, "exit_status", "finish_reason", "stop")
    return imported({}, task, told, form, submission=first_text(row, *PATCHES), status=status, **fields)


def _verdict(row: Row, task: str, model: str) -> Verdict:
    resolved = next((row[name] for name in ("resolved", "target", "reward") if row.get(name) is not None), None)
    verdict = verdict_of(task, model, resolved)
    told = {"reason": row.get("verdict"), "tampering": tuple(row.get("tampering") or ()), "grader": row.get("grader")}
    return verdict.model_copy(
        update={name: value for name, value in told.items() if isinstance(value, str | tuple) and value}
    )


def write_row(trajectory: Trajectory) -> dict[str, Any]:
    """One row with everything that a training row needs."""
    return {
        "trajectory_id": trajectory.id,
        "instance_id": trajectory.task,
        "repo": trajectory.repo,
        "license": trajectory.licence,
        "attempt": trajectory.attempt,
        "model": trajectory.model,
        "messages": [write_turn(message) for message in seen(trajectory)],
        "tools": trajectory.tools,
        "form": trajectory.form,
        "model_patch": trajectory.submission,
        "stop": trajectory.stop,
        "resolved": trajectory.verdict.resolved if graded(trajectory) else None,
        "verdict": trajectory.verdict.reason,
        "tampering": list(trajectory.verdict.tampering),
        "grader": trajectory.verdict.grader,
        "leaks": list(trajectory.leaks),
        "seconds": trajectory.seconds,
        **{name: getattr(trajectory, name) for name in KEPT},
    }


def write_smith_row(trajectory: Trajectory) -> dict[str, Any]:
    """A row as SWE-smith's `xml` split has it: roles and texts alone."""
    return {
        "messages": [text_turn(message) for message in seen(trajectory)],
        "instance_id": trajectory.task,
        "resolved": trajectory.verdict.resolved if graded(trajectory) else None,
        "model": trajectory.model,
        "traj_id": trajectory.id,
        "patch": trajectory.submission,
    }


def text_turn(message: Message) -> dict[str, str]:
    """A turn of words alone: thoughts and calls as tags, results of tools as the user's."""
    return {"role": "user" if message.role == "tool" else message.role, "content": xml_words(message)}


def graded(trajectory: Trajectory) -> bool:
    return trajectory.verdict.reason != "not-graded"
