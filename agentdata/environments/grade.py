"""A submission to a verdict, in a fresh sandbox, whatever the submission did to the tests."""

from collections.abc import Callable

from agentdata.records import Task, TaskTests, Verdict
from sandboxes.protocol import Sandbox

OpenSandbox = Callable[[str], Sandbox]
"""Image to a new sandbox."""


def grade(
    task: Task, tests: TaskTests, submission: str, *, gold: str, open_sandbox: OpenSandbox, timeout: float = 1800
) -> Verdict:
    """Grade a diff. `gold` is used only to see which test infrastructure the solution itself changes.

    Raises SandboxError when the sandbox failed: the verdict is then owed, not negative.
    """
    raise NotImplementedError
