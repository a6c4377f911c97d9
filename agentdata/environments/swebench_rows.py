"""Tasks to SWE-bench rows and back: the classic 13 columns, and those of version 5, which the official harness runs.

A row of ours has one more column, `agentdata`, which the harness does not read: what the other columns cannot hold, so
that reading the row again gives the same records, with the same tests as the harness grades.
"""

import json
from typing import Any

from pydantic import ValidationError

from agentdata.environments import row_fields as fields
from agentdata.environments.benchmark_commands import OWN_RUNNERS, benchmark_command, changed_tests, with_tests
from agentdata.environments.eval_script import build, command_of, official_command
from agentdata.environments.official_names import OfficialTests, name_officially
from agentdata.environments.row_fields import Row, RowError
from agentdata.records import GoldPatch, Task, TaskTests

Triple = tuple[Task, TaskTests, GoldPatch]

CLASSIC_COLUMNS = (
    *("repo", "instance_id", "base_commit", "patch", "test_patch", "problem_statement", "hints_text", "created_at"),
    *("version", "FAIL_TO_PASS", "PASS_TO_PASS", "environment_setup_commit", "difficulty"),
)
VERSION_5_COLUMNS = (*CLASSIC_COLUMNS, "image", "eval_script", "log_parser", "eval_type")
OWN_COLUMN = "agentdata"
EVAL_TYPE = "pass_and_fail"


# Writing


def official_tests(tests: TaskTests) -> OfficialTests:
    """What the official harness can grade of a task's tests. Imported tests have official names already.

    Raises RowError.
    """
    if not tests.fail_to_pass:
        raise RowError("no-fail-to-pass", "the task has no test that must turn to pass")
    if tests.log_parser:
        return OfficialTests(tests.log_parser, tests.fail_to_pass, tests.pass_to_pass, tests)
    official_command(tests)
    return name_officially(tests)


def to_classic_row(task: Task, tests: TaskTests, gold: GoldPatch) -> dict[str, Any]:
    """The classic columns and ours. Raises RowError."""
    official = official_tests(tests)
    return {
        "repo": task.repo,
        "instance_id": fields.identifier({"instance_id": task.id}),
        "base_commit": task.base_commit,
        "patch": gold.patch,
        "test_patch": tests.test_patch,
        "problem_statement": task.problem_statement,
        "hints_text": task.hints,
        "created_at": task.created_at,
        "version": task.version,
        "FAIL_TO_PASS": json.dumps(official.fail_to_pass),
        "PASS_TO_PASS": json.dumps(official.pass_to_pass),
        "environment_setup_commit": task.base_commit,
        "difficulty": "",
        OWN_COLUMN: own_column(task, official.kept),
    }


def to_version_5_row(task: Task, tests: TaskTests, gold: GoldPatch) -> dict[str, Any]:
    """A row that `python -m swebench.harness.run_evaluation` runs. Raises RowError."""
    if not task.image:
        raise RowError("no-image", "the task names no image to run in")
    row = to_classic_row(task, tests, gold)
    row |= {
        "image": task.image,
        "eval_script": evaluation(task, tests),
        "log_parser": official_tests(tests).parser,
        "eval_type": EVAL_TYPE,
    }
    return row


def evaluation(task: Task, tests: TaskTests) -> str:
    """The script that grades a task: its own, or one that is built from its test command. Raises RowError."""
    if tests.eval_script:
        return tests.eval_script
    return build(task.base_commit, tests.test_patch, tests.test_files, official_command(tests))


def own_column(task: Task, tests: TaskTests) -> str:
    """The records without what the other columns hold."""
    own_task = task.model_dump(
        exclude={"id", "repo", "base_commit", "problem_statement", "hints", "created_at", "version"}
    )
    return json.dumps({"task": own_task, "tests": tests.model_dump(exclude={"id", "test_patch"})})


# Reading


def from_version_5_row(row: Row) -> Triple:
    """Raises RowError."""
    task, tests, gold = read_columns(row)
    script = fields.text(row, "eval_script", required=True)
    if fields.text(row, "eval_type") not in ("", EVAL_TYPE):
        raise RowError("eval-type", f"only rows of eval_type {EVAL_TYPE} can be graded: {row['eval_type']!r}")
    task = task.model_copy(update={"image": fields.text(row, "image", required=True)})
    tests = tests.model_copy(
        update={
            "test_files": changed_tests(tests.test_patch),
            "test_command": command_of(script),
            "eval_script": script,
            "log_parser": fields.text(row, "log_parser", required=True),
        }
    )
    return with_own(row, (task, tests, gold))


def from_classic_row(row: Row) -> Triple:
    """A row whose test command is the benchmark's for its repository and version. Raises RowError."""
    task, tests, gold = read_columns(row)
    known = benchmark_command(task.repo, task.version)
    tests = with_command(task, tests, known.command, known.parser, setup=known.setup)
    return with_own(row, (task, tests, gold))


def with_command(task: Task, tests: TaskTests, command: str, parser: str, *, setup: tuple[str, ...] = ()) -> TaskTests:
    """Foreign tests with a command, and the script that runs it on the changed test files. Raises RowError."""
    files = tests.test_files or changed_tests(tests.test_patch)
    full = with_tests(command, task.repo, files)
    script = build(task.base_commit, tests.test_patch, files, full, setup=setup)
    update = {"test_files": files, "test_command": command, "eval_script": script, "log_parser": parser}
    return tests.model_copy(update=update)


def read_columns(row: Row) -> Triple:
    identity = fields.identifier(row)
    task = Task(
        id=identity,
        repo=fields.text(row, "repo", required=True),
        environment="",
        image=fields.text(row, "image"),
        base_commit=fields.commit(row),
        problem_statement=fields.text(row, "problem_statement"),
        statement_source="benchmark",
        hints=fields.text(row, "hints_text"),
        source="benchmark",
        created_at=fields.moment(row, "created_at"),
        version=fields.text(row, "version"),
    )
    tests = TaskTests(
        id=identity,
        test_patch=fields.text(row, "test_patch"),
        test_files=(),
        test_command="",
        fail_to_pass=fields.names(row, "FAIL_TO_PASS"),
        pass_to_pass=fields.names(row, "PASS_TO_PASS"),
        canaries=task.repo.lower() not in OWN_RUNNERS,
    )
    if not tests.fail_to_pass:
        raise RowError("no-fail-to-pass", "FAIL_TO_PASS is empty: nothing would prove a solution")
    return task, tests, GoldPatch(id=identity, patch=fields.text(row, "patch", required=True))


def with_own(row: Row, triple: Triple) -> Triple:
    """The records as they were before they became this row, if it is one of ours."""
    own = fields.mapping(row, OWN_COLUMN)
    if not own:
        return triple
    task, tests, gold = triple
    # A row may have been given another name of the image since.
    image = {"image": task.image} if task.image else {}
    try:
        return (
            Task.model_validate({**task.model_dump(), **own.get("task", {}), **image}),
            TaskTests.model_validate({**tests.model_dump(), **own.get("tests", {})}),
            gold,
        )
    except (ValidationError, TypeError) as error:
        raise RowError(
            "other-version", f"{OWN_COLUMN} is of another version: {' '.join(str(error).split())[:200]}"
        ) from error
