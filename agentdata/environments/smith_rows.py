"""Tasks to SWE-smith rows and back. Their `patch` makes the bug: the gold patch is its reverse.

The image of such a row holds the tree without the bug. Who builds from it applies `bug_patch` first, so that the tree is
the task's; the tests are those of the tree, and no test patch comes with them.
"""

import json
import re
from typing import Any

from agentdata.environments import row_fields as fields
from agentdata.environments.log_parsers import FIRST_WORD
from agentdata.environments.reversed_diffs import reverse_diff
from agentdata.environments.row_fields import Row, RowError
from agentdata.environments.swebench_rows import OWN_COLUMN, Triple, official_tests, own_column, with_command, with_own
from agentdata.records import GoldPatch, Task, TaskTests

COLUMNS = (
    *("instance_id", "patch", "FAIL_TO_PASS", "PASS_TO_PASS", "image_name", "repo", "problem_statement"),
    *("base_commit", "created_at"),
)
COMMAND = "pytest -rA"
MIRROR = re.compile(r"(?:swesmith/)?(?P<owner>[^/]+?)__(?P<name>.+)\.(?P<commit>[0-9a-f]{6,40})")
"""Name of the copy of a repository that the bugs of one commit are kept in."""


def bug_patch(gold: GoldPatch) -> str:
    """The patch that makes the bug which `gold` repairs. Raises RowError."""
    return reverse_diff(gold.patch)


def to_smith_row(task: Task, tests: TaskTests, gold: GoldPatch) -> dict[str, Any]:
    """Raises RowError for a task with a test patch, for which these rows have no place."""
    if tests.test_patch.strip():
        raise RowError("has-test-patch", "a SWE-smith row has no place for the test patch of a task")
    official = official_tests(tests)
    return {
        "instance_id": fields.identifier({"instance_id": task.id}),
        "patch": bug_patch(gold),
        "FAIL_TO_PASS": list(official.fail_to_pass),
        "PASS_TO_PASS": list(official.pass_to_pass),
        "image_name": task.image,
        "repo": f"swesmith/{task.repo.replace('/', '__')}.{task.base_commit[:8]}",
        "problem_statement": task.problem_statement,
        "base_commit": task.base_commit,
        "created_at": task.created_at,
        OWN_COLUMN: _own_column(task, official.kept),
    }


def _own_column(task: Task, tests: TaskTests) -> str:
    """The mirror's name cannot say which underscores were in the owner's name, and there is no place for hints."""
    own = json.loads(own_column(task, tests))
    own["task"] |= {"repo": task.repo, "hints": task.hints, "version": task.version}
    return json.dumps(own)


def from_smith_row(row: Row) -> Triple:
    """Raises RowError."""
    identity = fields.identifier(row)
    repo, commit = _origin(row)
    gold = GoldPatch(id=identity, patch=reverse_diff(fields.text(row, "patch", required=True)))
    fail_to_pass = fields.names(row, "FAIL_TO_PASS")
    if not fail_to_pass:
        raise RowError("no-fail-to-pass", "FAIL_TO_PASS is empty: nothing would prove a solution")
    task = Task(
        id=identity,
        repo=repo,
        environment="",
        image=fields.text(row, "image_name", required=True),
        base_commit=commit,
        problem_statement=fields.text(row, "problem_statement"),
        statement_source="benchmark",
        source="benchmark",
        created_at=fields.moment(row, "created_at"),
    )
    tests = TaskTests(
        id=identity,
        test_patch="",
        test_files=tuple(dict.fromkeys(name.partition("::")[0] for name in fail_to_pass)),
        test_command=COMMAND,
        fail_to_pass=fail_to_pass,
        pass_to_pass=fields.names(row, "PASS_TO_PASS"),
    )
    return with_own(row, (task, with_command(task, tests, COMMAND, FIRST_WORD), gold))


def _origin(row: Row) -> tuple[str, str]:
    """Repository and commit that the mirror's name tells."""
    name = fields.text(row, "repo", required=True)
    match = MIRROR.fullmatch(name)
    if match is None:
        return name, fields.commit(row)
    commit = fields.text(row, "base_commit") or match["commit"]
    return f"{match['owner']}/{match['name']}", fields.commit({"base_commit": commit})
