"""Tasks to SWE-rebench rows and back: classic columns, an image, and how to install and test in `install_config`."""

from collections.abc import Mapping
from typing import Any

from agentdata.environments import row_fields as fields
from agentdata.environments.log_parsers import FIRST_WORD
from agentdata.environments.row_fields import Row, RowError
from agentdata.environments.swebench_rows import (
    CLASSIC_COLUMNS,
    Triple,
    official_tests,
    read_columns,
    to_classic_row,
    with_command,
    with_own,
)
from agentdata.records import Environment, GoldPatch, Task, TaskTests

COLUMNS = (*CLASSIC_COLUMNS[:-1], "requirements", "environment", "docker_image", "license_name")
CONFIG_COLUMNS = ("python", "install", "packages", "test_cmd", "log_parser")
IMAGE_COLUMNS = ("docker_image", "image_name", "image")


def to_rebench_row(
    task: Task, tests: TaskTests, gold: GoldPatch, environments: Mapping[str, Environment]
) -> dict[str, Any]:
    """Raises RowError."""
    row = to_classic_row(task, tests, gold)
    del row["difficulty"]
    environment = environments.get(task.environment)
    row |= {
        "requirements": environment.lock if environment else "",
        "environment": "",
        "docker_image": task.image,
        "license_name": task.licence,
        "install_config": {
            "python": environment.python if environment else "",
            "install": " && ".join(environment.install) if environment else "",
            "packages": "requirements.txt",
            "test_cmd": tests.test_command,
            "log_parser": official_tests(tests).parser,
        },
    }
    return row


def from_rebench_row(row: Row) -> Triple:
    """Raises RowError."""
    task, tests, gold = read_columns(row)
    config = fields.mapping(row, "install_config")
    command = _command(config.get("test_cmd"))
    image = next((value for column in IMAGE_COLUMNS if (value := fields.text(row, column))), "")
    task = task.model_copy(update={"image": image, "licence": fields.text(row, "license_name")})
    tests = with_command(task, tests, command, fields.text(config, "log_parser") or FIRST_WORD)
    return with_own(row, (task, tests, gold))


def _command(value: object) -> str:
    """One command, or several of which the last one runs the tests. Raises RowError."""
    parts = value if isinstance(value, list | tuple) else [value]
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise RowError("no-test-command", f"install_config names no test command: {str(value)[:80]}")
    return " && ".join(fields.usable(str(part), "test_cmd") for part in parts)
