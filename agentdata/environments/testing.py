"""Run tests in a sandbox and read what became of each: JUnit XML, and the text that SWE-bench's parsers read."""

from pydantic import BaseModel, ConfigDict

from agentdata.records import TestStatus
from sandboxes.protocol import CommandResult, Sandbox


class TestRun(BaseModel):
    """One run of the test command."""

    model_config = ConfigDict(frozen=True)

    results: dict[str, TestStatus]
    """pytest node id to status; empty when no report was written."""
    command: CommandResult
    trusted: bool
    """Whether the report, the exit status and the canaries agree."""


def run_tests(sandbox: Sandbox, test_command: str, names: tuple[str, ...], *, timeout: float = 1800) -> TestRun:
    """Run `test_command` on the given files or node ids in /testbed and read its JUnit XML report."""
    raise NotImplementedError
