"""A trajectory of another project to a record: what its row tells, and defaults for what it does not."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from agentdata.environments.row_fields import Row, RowError, usable
from agentdata.records import CallForm, Step, StopReason, Trajectory, Verdict
from agentdata.rollouts.formats.turns import Told

ATTEMPT_UNKNOWN = -1
OURS = "agentdata"
"""Key under which forms that take anything keep what they have no place for."""
REPO = re.compile(r"(?P<owner>[^/]+?)__(?P<name>[^/]+?)(?:-\d+|\.[0-9a-f]{7,40}(?:\..*)?)?")
"""`owner__name-number` of SWE-bench, `owner__name.commit.mutation` of SWE-smith."""
STOPS: dict[str, StopReason] = {
    "submit": "submitted",
    "submitted": "submitted",
    "finish": "submitted",
    "agentfinishaction": "submitted",
    "completed": "submitted",
    "resolved": "submitted",
    "limitsexceeded": "step-limit",
    "max_iterations": "step-limit",
    "timeexceeded": "time-limit",
    "exit_total_execution_time": "time-limit",
    "exit_command_timeout": "time-limit",
    "exit_cost": "token-budget",
    "exit_context": "context-limit",
    "contextwindowexceedederror": "context-limit",
    "exit_format": "format-errors",
    "repeatedformaterror": "format-errors",
    "stuck": "repeated-actions",
    "exit_api": "policy-gone",
    "exit_error": "policy-gone",
    "exit_environment_error": "sandbox-gone",
}
SUBMITS = ("submit", "finish")


def imported(
    row: Row, task: str, told: Told, form: CallForm, *, submission: str, status: str, **fields: Any
) -> Trajectory:
    """The record. What `row` keeps of ours under `agentdata` wins over defaults. Raises RowError."""
    prompt, steps = told
    values: dict[str, Any] = {**_defaults(task, steps, submission, status), **fields, **ours(row)}
    values |= {"prompt": prompt, "steps": steps, "submission": usable(submission, "submission")}
    values["form"] = form
    try:
        return Trajectory.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RowError("does-not-fit", f"{place}: {first['msg']} (got {str(first.get('input'))[:80]!r})") from error


def _defaults(task: str, steps: Sequence[Step], submission: str, status: str) -> dict[str, Any]:
    stop, detail = stop_of(status, steps, submission)
    return {
        "id": "",
        "task": task,
        "repo": repo_of(task),
        "base_commit": "",
        "licence": "",
        "attempt": ATTEMPT_UNKNOWN,
        "seed": 0,
        "model": "",
        "sampling": "{}",
        "scaffold": "",
        "scaffold_version": "",
        "tools": "",
        "stop": stop,
        "detail": detail,
        "verdict": verdict_of(task, "", None),
        "seconds": sum(step.seconds + sum(seen.seconds for seen in step.observations) for step in steps),
        "created_at": "",
        "generator": "",
    }


def ours(row: Row) -> dict[str, Any]:
    """What a part of a row keeps of ours."""
    found = row.get(OURS)
    return dict(found) if isinstance(found, Mapping) else {}


def keep(trajectory: Trajectory) -> dict[str, Any]:
    """What forms that take anything keep of ours: everything but the conversation and the submission."""
    return trajectory.model_dump(mode="json", exclude={"prompt", "steps", "submission"})


def repo_of(task: str) -> str:
    """`owner/name` as an instance id tells it; empty where it does not."""
    found = REPO.fullmatch(task)
    return f"{found['owner']}/{found['name']}" if found else ""


def stop_of(status: str, steps: Sequence[Step], submission: str) -> tuple[StopReason, str]:
    """Our word for an exit status, and theirs where ours does not tell it.

    `submitted (exit_cost)` of SWE-agent is an attempt that was ended, and whose tree was submitted for it.
    """
    inner = status.partition("(")[2].rstrip(") ") or status
    word = inner.strip().lower()
    if word in STOPS:
        return STOPS[word], "" if STOPS[word] == "submitted" else f"exit status {status}"
    calls = [call.function.name for step in steps[-1:] for call in step.tool_calls]
    done = any(name in SUBMITS for name in calls) or (bool(submission.strip()) and not status)
    return "submitted" if done else "step-limit", f"exit status {status or 'unknown'}"


def verdict_of(task: str, model: str, resolved: object) -> Verdict:
    """A verdict as a row's `resolved` tells it: true, false, 0, 1, or nothing for not graded."""
    if isinstance(resolved, bool | int | float) and resolved in (0, 1):
        return Verdict(
            task=task, model=model, resolved=bool(resolved), reason="resolved" if resolved else "tests-failed"
        )
    return Verdict(task=task, model=model, resolved=False, reason="not-graded")


def first_text(row: Row, *columns: str) -> str:
    """The first of some columns that holds text."""
    for column in columns:
        value = row.get(column)
        if isinstance(value, str) and value:
            return usable(value, column)
    return ""


def tools_text(value: object) -> str:
    """Schemas of tools as JSON text, given as that or as a list."""
    if isinstance(value, str) or value is None:
        return usable(value or "", "tools")
    if not isinstance(value, list | tuple):
        raise RowError("not-a-list", f"tools hold {type(value).__name__}, not a list")
    return json.dumps(value, ensure_ascii=False)
