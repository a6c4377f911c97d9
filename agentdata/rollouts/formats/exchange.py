"""Files of trajectories in the field's forms to records, and records to such files.

| form | read | written as |
|---|---|---|
| messages | rows with `messages` or `trajectory` (.jsonl, .json, .parquet) | rows |
| smith | the same | rows of SWE-smith, calls as tags |
| swe-agent | `.traj` | rows, or a file for each trajectory in a folder |
| mini-swe-agent | `.traj.json` | rows, or a file for each trajectory in a folder |
| openhands | `output.jsonl`, event histories (.json) | rows |
| atif | not read | rows, or a file for each trajectory in a folder |
| sharegpt | not read | rows |

What each form does not hold stands in its module and in `LOST`. What cannot be used becomes a Rejected with its reason,
and the rest goes on.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentdata.environments.row_fields import Row, RowError
from agentdata.environments.row_files import FormatError, read_rows, write_rows_file
from agentdata.errors import UsageError, explain_os_error
from agentdata.records import Rejected, Trajectory
from agentdata.rollouts.formats import atif, messages, mini_swe_agent, openhands, sharegpt, swe_agent
from agentdata.rollouts.formats.imported import ATTEMPT_UNKNOWN
from agentdata.shards import write_whole

Form = Literal["messages", "smith", "swe-agent", "mini-swe-agent", "openhands", "atif", "sharegpt"]
Write = Callable[[Trajectory], dict[str, Any]]
WRITE: dict[Form, Write] = {
    "messages": messages.write_row,
    "smith": messages.write_smith_row,
    "swe-agent": swe_agent.write_file,
    "mini-swe-agent": mini_swe_agent.write_file,
    "openhands": openhands.write_row,
    "atif": atif.write_file,
    "sharegpt": sharegpt.write_row,
}
LOST: dict[Form, tuple[str, ...]] = {
    "messages": messages.LOST,
    "smith": messages.SMITH_LOST,
    "swe-agent": swe_agent.LOST,
    "mini-swe-agent": mini_swe_agent.LOST,
    "openhands": openhands.LOST,
    "atif": atif.LOST,
    "sharegpt": sharegpt.LOST,
}
NAMES: dict[Form, str] = {
    "swe-agent": "{task}/{task}.traj",
    "mini-swe-agent": "{task}/{task}.traj.json",
    "atif": "{task}/trajectory.json",
}
"""Where each trajectory's file lies in a folder, as the project itself would put it."""
SINGLE = (".traj", ".traj.json")
KINDS = (*SINGLE, ".jsonl", ".json", ".parquet")
STAGE = "import"


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the trajectories that were to be written."""

    rows: int
    rejected: tuple[Rejected, ...] = ()


def find_files(given: Iterable[Path]) -> list[Path]:
    """Files as they are given; of folders the `.traj`, `.traj.json` and `output.jsonl` in them. Raises UsageError."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = [
                file for file in sorted(path.rglob("*")) if file.name.endswith(SINGLE) or file.name == "output.jsonl"
            ]
            if not inside:
                raise UsageError(f"{path} holds no .traj, .traj.json or output.jsonl: give a file or another folder.")
            found += inside
        elif not path.is_file():
            raise UsageError(f"{path} does not exist: give files or folders of trajectories.")
        elif not path.name.endswith(KINDS):
            raise UsageError(f"{path} is no file of trajectories: give {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
        else:
            found.append(path)
    return found


def read_trajectories(paths: Iterable[Path]) -> Iterator[Trajectory | Rejected]:
    """The trajectories of files, in their order, each with an id of its own.

    Attempts that a file does not number are counted by task from 0. Raises UsageError when a file of many rows cannot be
    read as a whole.
    """
    taken: set[str] = set()
    attempts: Counter[str] = Counter()
    for path in paths:
        for place, row in _rows(path):
            try:
                if isinstance(row, FormatError):
                    raise RowError(row.reason, row.detail)
                yield _numbered(from_row(row, _stem(path)), taken, attempts)
            except RowError as error:
                yield _rejected(row, f"{path.name}:{place}" if place else path.name, error)


def _stem(path: Path) -> str:
    """What a file of one trajectory is called after: its task."""
    name = next((path.name.removesuffix(end) for end in SINGLE if path.name.endswith(end)), path.stem)
    return path.parent.name if name in ("trajectory", "output") else name


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | FormatError]]:
    if path.suffix in (".jsonl", ".parquet"):
        yield from read_rows(path)
        return
    try:
        whole = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}. Give another file.") from error
    except (ValueError, RecursionError) as error:
        yield "", FormatError("not-json", " ".join(str(error).split())[:200])
        return
    if openhands.is_history(whole):
        yield "", {"history": whole}
    elif messages.is_conversation(whole):
        yield "", {"messages": whole, "instance_id": _stem(path)}
    elif isinstance(whole, dict):
        yield "", whole
    elif isinstance(whole, list):
        for number, row in enumerate(whole, 1):
            yield (
                str(number),
                row if isinstance(row, dict) else FormatError("not-a-row", f"{type(row).__name__}, no row"),
            )
    else:
        yield "", FormatError("not-a-row", f"{type(whole).__name__} where a trajectory was expected")


def from_row(row: Row, name: str) -> Trajectory:
    """The record of one row, its form told by its columns; `name` is the file's. Raises RowError."""
    if swe_agent.is_row(row):
        return swe_agent.read_row(row, name)
    if mini_swe_agent.is_row(row):
        return mini_swe_agent.read_row(row, name)
    if openhands.is_row(row):
        return openhands.read_row(row, name)
    if messages.is_row(row):
        return messages.read_row(row)
    raise RowError("unknown-form", f"no known form has the columns {', '.join(sorted(map(str, row))[:12]) or 'none'}")


def _numbered(trajectory: Trajectory, taken: set[str], attempts: Counter[str]) -> Trajectory:
    number = trajectory.attempt
    if number == ATTEMPT_UNKNOWN:
        while f"{trajectory.task}/{attempts[trajectory.task]}" in taken:
            attempts[trajectory.task] += 1
        number = attempts[trajectory.task]
    identity = f"{trajectory.task}/{number}"
    if identity in taken:
        raise RowError("duplicate-id", f"another row is attempt {number} at {trajectory.task}")
    taken.add(identity)
    return trajectory.model_copy(update={"id": identity, "attempt": number})


def _rejected(row: Row | FormatError, place: str, error: RowError) -> Rejected:
    known: Row = {} if isinstance(row, FormatError) else row
    named, repo = known.get("instance_id"), known.get("repo")
    return Rejected(
        id=_storable(named if isinstance(named, str) and named.strip() else place),
        repo=_storable(repo) if isinstance(repo, str) else "",
        stage=STAGE,
        reason=error.reason,
        detail=_storable(f"{place}: {error}"),
    )


def _storable(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def write_trajectories(path: Path, trajectories: Iterable[Trajectory], form: Form) -> Written:
    """Write trajectories as rows of a .jsonl, or as files in a folder for the forms that have them.

    Raises UsageError for an output that the form cannot have, RunError.
    """
    if path.suffix != ".jsonl" and (form not in NAMES or path.suffix):
        folder = ", or a folder" if form in NAMES else ""
        raise UsageError(f"{path} cannot hold {form}: give a name that ends in .jsonl{folder}.")
    rejected: list[Rejected] = []
    rows = _made(trajectories, WRITE[form], rejected)
    if path.suffix == ".jsonl":
        return Written(write_rows_file(path, (row for _, row in rows)), tuple(rejected))
    written = 0
    seen: set[str] = set()
    for trajectory, row in rows:
        name = trajectory.task if trajectory.task not in seen else f"{trajectory.task}__{trajectory.attempt}"
        seen.add(trajectory.task)
        _write_file(path / NAMES[form].format(task=name), row)
        written += 1
    return Written(written, tuple(rejected))


def _made(
    trajectories: Iterable[Trajectory], write: Write, rejected: list[Rejected]
) -> Iterator[tuple[Trajectory, dict[str, Any]]]:
    for trajectory in trajectories:
        try:
            yield trajectory, write(trajectory)
        except RowError as error:
            rejected.append(
                Rejected(id=trajectory.id, repo=trajectory.repo, stage="export", reason=error.reason, detail=str(error))
            )


def _write_file(path: Path, row: dict[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(row, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise explain_os_error(error, f"writing {path}") from error
