"""Run the evaluation script of a SWE-bench row, and read its output as the official harness does, and more carefully.

Where the script runs pytest, our report and canaries are added through PYTEST_ADDOPTS, and a test counts as passed only
if log and report both say so. Elsewhere the log and the exit status that the script prints are all there is.
"""

import re
from collections.abc import Mapping, Sequence

from agentdata.environments.log_parsers import parse
from agentdata.environments.patches import paths
from agentdata.environments.testing import START, TestRun, run_tests
from agentdata.records import TaskTests, TestStatus
from sandboxes.protocol import CommandResult, Sandbox

END = ">>>>> End Test Output"
EXIT = re.compile(r">>>>> Test Exit Code: *(-?\d+)")
BROKEN = (">>>>> Patch Apply Failed", ">>>>> Reset Failed", ">>>>> Tests Errored", ">>>>> Tests Timed Out")


def run_script(sandbox: Sandbox, tests: TaskTests, *, prepare: str, timeout: float) -> TestRun:
    """Run `tests.eval_script` after `prepare`. Raises SandboxError.

    An expected test whose name was cut off within its parameters, as in many rows of SWE-bench Verified, takes the
    outcome of the tests that begin so, if they agree.
    """
    files = tuple(path for path in paths(tests.test_patch) if path.endswith(".py")) or tests.test_files
    run = run_tests(
        sandbox,
        tests.test_command,
        files,
        timeout=timeout,
        prepare=prepare,
        like=tests.fail_to_pass[0] if tests.fail_to_pass else "",
        canaries=tests.canaries,
        script=tests.eval_script,
    )
    if run.doubt in ("not-prepared", "limit-exceeded"):
        return run
    results, doubt = read_log(run.command, tests.log_parser)
    if not run.doubt:
        results = {name: _both(name, status, run.results) for name, status in results.items()}
    expected = (*tests.fail_to_pass, *tests.pass_to_pass)
    results = {**results, **_completed(expected, results)}
    doubt = run.doubt or doubt
    return run.model_copy(update={"results": results, "doubt": doubt, "trusted": not doubt})


def read_log(command: CommandResult, parser: str) -> tuple[dict[str, TestStatus], str]:
    """The results in the output of an evaluation script, and why they are not to be believed, if so."""
    text = command.text
    if command.timed_out:
        return {}, "time-limit"
    if START not in text or END not in text or any(mark in text for mark in BROKEN):
        return {}, "no-report: the evaluation script did not come to its tests, or not to their end"
    results = parse(parser, text.split(START)[1].split(END)[0]) or parse(parser, text)
    if not results:
        return {}, "no-report: no result of a test is in the output"
    status = EXIT.search(text)
    if status and int(status[1]) and not {"failed", "error"} & set(results.values()):
        return results, f"exit-status: {status[1]} does not fit a log without failures"
    return results, ""


def _both(name: str, status: TestStatus, report: Mapping[str, TestStatus]) -> TestStatus:
    """The log's outcome, unless the report knows the test and says that it did not pass."""
    other = report.get(name, status)
    return other if status == "passed" and other in ("failed", "error") else status


def _completed(expected: Sequence[str], results: Mapping[str, TestStatus]) -> dict[str, TestStatus]:
    found: dict[str, TestStatus] = {}
    for name in expected:
        if name not in results and name.count("[") > name.count("]"):
            statuses = {status for test, status in results.items() if test.startswith(name)}
            if len({status == "passed" for status in statuses}) == 1:
                found[name] = min(statuses)
    return found
