"""A task's tests to the script that SWE-bench's harness runs, and back from such a script to its test command.

The harness (version 5) applies the prediction at /testbed as root, runs the script with bash, reads the results between
two markers, and takes the exit status of the command just before the second. The script uses one stream for everything:
on two, what is printed last may arrive after the marker that closes it.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable

from agentdata.environments.patches import split
from agentdata.environments.row_fields import RowError
from agentdata.records import TaskTests

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
EXIT = ">>>>> Test Exit Code"
ERRORED = ">>>>> Tests Errored"
PYTEST = re.compile(r"(?:^|[\s/;&])(?:pytest|py\.test)(?=\s|$)")
PYTEST_OPTIONS = "-rA --color=no --continue-on-collection-errors --maxfail=0"
"""A file that cannot be collected must not keep the other tests from running: they are graded one by one."""
SUMMARY_FILTER = "sed -E '/^(XFAIL|XPASS|ERROR) /s/ - .*//; s/^XPASS /PASSED /'"
"""Takes reasons off a summary, where the parser that keeps whole names would take them for a part of the name. A test
that fails in its teardown would count as passed, and an expected failure as missing. `pipefail` keeps pytest's status."""
STRIPPED = ("#!/bin/bash", "set -uxo pipefail")
"""Lines that the harness takes out wherever they stand."""

HEAD = """\
#!/bin/bash
set -uxo pipefail
exec 2>&1
if [ -f /opt/miniconda3/bin/activate ]; then source /opt/miniconda3/bin/activate; conda activate testbed; fi
cd /testbed
git config --global --add safe.directory /testbed
base=$(git rev-parse --verify --quiet {commit} || git rev-parse HEAD)
restore_tests() {{ for file in "$@"; do git checkout -q "$base" -- "$file" || rm -f -- "$file"; done; }}
"""


def build(base_commit: str, test_patch: str, files: Iterable[str], command: str, *, setup: Iterable[str] = ()) -> str:
    """The script that restores `files`, applies the test patch, runs `command`, and restores the files again.

    An image of ours holds one commit under another name than `base_commit`, so HEAD stands in where that is unknown.
    Raises RowError when the patch holds lines that the harness would take for its own.
    """
    names = dict.fromkeys([name for file in split(test_patch) for name in file.names])
    names.update(dict.fromkeys(file.partition("::")[0] for file in files))
    restore = shlex.join(["restore_tests", *names])
    lines = [HEAD.format(commit=shlex.quote(base_commit + "^{commit}")).rstrip("\n"), *setup, restore]
    if test_patch.strip():
        lines.append(_apply(test_patch))
    lines += [
        f": '{START}'",
        command,
        # The harness takes the status of the line before the marker: ours is printed too, for who runs the script alone.
        "test_status=$?",
        "(exit $test_status)",
        f": '{END}'",
        f'echo "{EXIT}: $test_status"',
        restore,
    ]
    return "\n".join(lines) + "\n"


def _apply(patch: str) -> str:
    lines = patch.split("\n")
    if found := next(
        (mark for mark in (START, END, *STRIPPED) if mark in lines or (mark[0] == ">" and mark in patch)), ""
    ):
        raise RowError(
            "marker-in-patch", f"the test patch holds {found!r}, which the official harness takes for its own"
        )
    delimiter = f"EOF_{hashlib.sha256(patch.encode()).hexdigest()[:12]}"
    if delimiter in lines:
        raise RowError("marker-in-patch", f"the test patch holds its own delimiter {delimiter}")
    body = patch if patch.endswith("\n") else patch + "\n"
    return f"git apply -v --whitespace=nowarn - <<'{delimiter}' || echo '{ERRORED}'\n{body}{delimiter}"


def pytest_command(tests: TaskTests) -> str:
    """The test command of a task with a summary of all results. Raises RowError if it is no pytest."""
    if PYTEST.search(tests.test_command) is None:
        raise RowError("not-pytest", f"no official parser reads what {tests.test_command!r} prints")
    return f"{tests.test_command} {PYTEST_OPTIONS} {shlex.join(tests.test_files)}".strip()


def official_command(tests: TaskTests) -> str:
    """The same, with the summary as the official parsers need it. Raises RowError."""
    return f"{pytest_command(tests)} | {SUMMARY_FILTER}"


def command_of(script: str) -> str:
    """The test command in a script of the harness's form; empty when it has not got that form."""
    _, start, rest = script.partition(START)
    inside, end, _ = rest.partition(END)
    if not start or not end:
        return ""
    lines = [
        line for line in inside.split("\n")[1:-1] if not line.startswith(("test_status=$?", "(exit ", "SWEBENCH_"))
    ]
    return "\n".join(lines).strip()
