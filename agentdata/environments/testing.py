"""Run tests in a sandbox and read what became of each, without believing the code under test.

The code under test runs in the process that writes the report, so every report is checked against what that code
cannot know or reach. A run is `trusted` only if all of this holds:

- **The report** is a pipe in a folder of root's, of an unpredictable name, which did not exist before. Its reader runs
  as root beside the tests: the first report that is written is kept where the tests' user can neither read nor write,
  and a second writer (at exit, or a process that outlives the run) spoils the run.
- **Exit status** 1 for a report with failures, 0 for one without. No report, or another status, is no success.
- **Canaries** (`agentdata.environments.canaries`) in it came out as they must: of those that fail, each in its own way
  with its own message. They also fail if functions of the runner were replaced by code from the tree, or if it traces.
- **Files** that steer the tests (the tests themselves, conftest, configuration) are the same after the run as before.

This covers printed results, os._exit, sys.exit and other exits in imports, tests that did not run, deselection by
configuration or hooks, patched reports, outcomes, `raises` and `assert`, shadowed runners, rewritten reports, and
processes that live on. It does not cover code that is written against this grader and changes only chosen tests in
memory: that finds the function of one test and replaces it, returns objects that equal everything, or tells a real
test from a canary by reading the files. Nothing in the same process can rule that out; who trains on rewards should
read submissions that touch `sys.modules`, `gc`, `__eq__` or `inspect` for no reason.
"""

import base64
import gzip
import re
import secrets
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from agentdata.environments.canaries import Canary, find_deviation, make_canaries
from agentdata.environments.junit import Report, read_report
from agentdata.environments.submissions import put
from agentdata.errors import UsageError
from agentdata.records import TestStatus
from sandboxes.protocol import CommandResult, LimitExceeded, Sandbox

TREE = "/testbed"
ROOT = "0:0"
KILLED = 137
CLOSING_SECONDS = 60
"""For what surrounds the test command: preparing, and closing the report."""
PYTEST = re.compile(r"(?:^|[\s/;&])(?:pytest|py\.test)(?:\s|$)")
START = ">>>>> Start Test Output"
"""Where an evaluation script begins its tests."""
UNITTEST = re.compile(r"-m\s+unittest\b(?:\s+discover\b)?[^;&|]*")
STEERING = ("*conftest.py", "*pytest.ini", "*tox.ini", "*setup.cfg", "*pyproject.toml", "*.pth", "*sitecustomize.py")
OPTIONS = "-o junit_family=xunit1 --junitxml={report} --continue-on-collection-errors --maxfail=0"
"""One file that cannot be collected, or one failure, must not keep the canaries from running. The cache of pytest stays
on, since options such as `--ff` in a project's configuration need it."""


class TestRun(BaseModel):
    """One run of the test command."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    results: dict[str, TestStatus]
    """pytest node id to status; empty when no report was written. Canaries are left out."""
    command: CommandResult
    trusted: bool
    """Whether the report, the exit status and the canaries agree."""
    doubt: str = ""
    """Why the run is not trusted: `no-report: ...`, `exit-status: ...`, `canary: ...`, `files: ...`, `report: ...`,
    `time-limit`, `limit-exceeded` (the sandbox was ended for what it wrote or took), or `not-prepared`."""
    messages: dict[str, str] = {}
    """Why tests failed, by node id."""
    canaries: tuple[str, ...] = ()
    """Files of the grader's own tests."""
    preparation: CommandResult | None = None
    """How `prepare` ended."""


def run_tests(
    sandbox: Sandbox,
    test_command: str,
    names: tuple[str, ...],
    *,
    timeout: float = 1800,
    prepare: str = "",
    like: str = "",
    canaries: bool = True,
    tree: str = TREE,
    script: str = "",
) -> TestRun:
    """Run `test_command` on the given files or node ids in /testbed and read its JUnit XML report.

    `prepare` is a bash script that runs before, in the tree; if it fails, no test runs. `like` is a node id that the
    canaries are named after, for projects whose tests are not called `test...`. Without `canaries` a run is trusted
    on the report and the exit status alone: for projects that collect no tests but of their own kind. `timeout` is in
    seconds and for the test command.

    A `script` is run in place of the command. If it calls pytest, report and canaries reach it by PYTEST_ADDOPTS; if
    not, only its end is told, and the run is trusted as far as that goes.

    Raises SandboxError, and UsageError if the command runs neither pytest nor unittest.
    """
    watched = bool(PYTEST.search(script.rpartition(START)[2])) if script else is_pytest(test_command)
    try:
        if script and not watched:
            return _run_script_alone(sandbox, script, prepare, timeout, tree)
        planted = make_canaries(names, like, tree=tree, pytest=watched) if canaries else ()
        run = _Run(sandbox, script or test_command, names, planted, tree=tree, pytest=watched, is_script=bool(script))
        return _run_watched(run, prepare, timeout)
    except LimitExceeded as error:
        command = CommandResult(status=KILLED, output=str(error).encode(), seconds=0.0)
        return TestRun(results={}, command=command, trusted=False, doubt="limit-exceeded")


def _run_watched(run: "_Run", prepare: str, timeout: float) -> TestRun:
    sandbox, planted = run.sandbox, run.canaries
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(sandbox.run, run.reading, timeout=timeout + 3 * CLOSING_SECONDS, user=ROOT)
        try:
            preparation = run.prepare(prepare)
            command = preparation if preparation.status else run.test(timeout)
        finally:
            after = run.close()
        rest = reader.result()
    if preparation.status:
        return TestRun(results={}, command=command, trusted=False, doubt="not-prepared", preparation=preparation)
    content, alone = run.read(rest.text)
    report = read_report(content, (*run.names, *(canary.path for canary in planted)))
    doubt = _doubt(report, command, planted) or ("" if run.is_script else _exit_doubt(report, command))
    if not doubt and not alone:
        doubt = "report: it was written a second time"
    if not doubt and (changed := _first_change(run.digests(preparation), run.digests(after))):
        doubt = f"files: {changed} while the tests ran"
    return _test_run(report or Report(), command, planted, doubt, preparation)


def _run_script_alone(sandbox: Sandbox, script: str, prepare: str, timeout: float, tree: str) -> TestRun:
    place = f"/tmp/{secrets.token_hex(12)}"  # noqa: S108  (in the sandbox)
    sandbox.write(f"{place}.sh", f"cd {tree} || exit 9\n{prepare}".encode("utf-8", "surrogateescape"))
    sandbox.write(f"{place}-script.sh", script.encode())
    preparation = sandbox.run(f"bash {place}.sh", timeout=CLOSING_SECONDS)
    if preparation.status:
        return TestRun(results={}, command=preparation, trusted=False, doubt="not-prepared", preparation=preparation)
    command = sandbox.run(f"bash {place}-script.sh", timeout=timeout, workdir=tree)
    doubt = "time-limit" if command.timed_out else ""
    return TestRun(results={}, command=command, trusted=not doubt, doubt=doubt, preparation=preparation)


def _test_run(
    report: Report, command: CommandResult, canaries: Sequence[Canary], doubt: str, preparation: CommandResult
) -> TestRun:
    ours = {canary.path for canary in canaries}
    return TestRun(
        results={name: status for name, status in report.results.items() if name.split("::")[0] not in ours},
        command=command,
        trusted=not doubt,
        doubt=doubt,
        messages={name: text for name, text in report.messages.items() if name.split("::")[0] not in ours},
        canaries=tuple(sorted(ours)),
        preparation=preparation,
    )


def _doubt(report: Report | None, command: CommandResult, canaries: Sequence[Canary]) -> str:
    if command.timed_out:
        return "time-limit"
    if report is None:
        return f"no-report: the test command ended with status {command.status} and without a report"
    if canaries and "passed" not in report.results.values():
        return (
            f"no-report: no test passed, not even the grader's own; the test command ended with status {command.status}"
        )
    for canary in canaries:
        if deviation := find_deviation(canary, report):
            return f"canary: {deviation}"
    return ""


def _exit_doubt(report: Report | None, command: CommandResult) -> str:
    failed = report is not None and {"failed", "error"} & set(report.results.values())
    if command.status != (1 if failed else 0):
        return f"exit-status: {command.status} does not fit a report {'with' if failed else 'without'} failures"
    return ""


def is_pytest(test_command: str) -> bool:
    """Whether a command runs pytest. Raises UsageError if it runs unittest neither."""
    if PYTEST.search(test_command):
        return True
    if UNITTEST.search(test_command):
        return False
    raise UsageError(
        f"The test command {test_command!r} runs neither pytest nor `-m unittest`. Give one that does, or a task with an"
        " evaluation script and a log parser."
    )


class _Run:
    """The places and scripts of one run in a sandbox."""

    def __init__(
        self,
        sandbox: Sandbox,
        command: str,
        names: Sequence[str],
        canaries: Sequence[Canary],
        *,
        tree: str,
        pytest: bool,
        is_script: bool,
    ) -> None:
        self.sandbox, self.names, self.canaries, self.tree = sandbox, names, canaries, tree
        self.is_script = is_script
        self.box = f"/tmp/{secrets.token_hex(12)}"  # noqa: S108  (a folder in the sandbox)
        self.end = secrets.token_hex(12)
        self.guarded: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}
        self.shipped: dict[str, bytes] = {}
        report = f"{self.box}/report"
        planted = [canary.path for canary in canaries]
        around = shlex.join([*planted[:1], *names, *planted[1:]])
        if is_script:
            self.shipped = {f"{self.box}-script.sh": command.encode()}
            self.environment = {"PYTEST_ADDOPTS": f"{OPTIONS.format(report=report)} {shlex.join(planted)}"}
            self.command = f"bash {self.box}-script.sh"
        elif pytest:
            self.command = f"{command} {OPTIONS.format(report=report)} {around}"
        else:
            self.shipped = {f"{self.box}.py": Path(__file__).with_name("unittest_report.py").read_bytes()}
            self.command = f"{UNITTEST.sub(f'{self.box}.py --junitxml={report}', command)} {around}"

    @property
    def reading(self) -> str:
        """Root's part beside the tests: make the pipe, keep the first report, and print what came after it, and it."""
        return (
            f"umask 077; mkdir -m 755 {self.box} && mkfifo -m 622 {self.box}/report || exit 9\n"
            f"cd {self.box}; cat report > first; again={self.end}\n"
            f'until [ -e done ]; do head -c 1000 report > rest; [ "$(cat rest)" = {self.end} ] || again=again; done\n'
            "echo == rest; echo $again\n"
            "echo == report; gzip -c first | base64"
        )

    def read(self, output: str) -> tuple[bytes, bool]:
        """The first report in what the reader printed, without what ended it, and whether nothing was written after."""
        rest, _, report = output.partition("== rest\n")[2].partition("== report\n")
        try:
            content = gzip.decompress(base64.b64decode(report))
        except (ValueError, EOFError, OSError):
            return b"", False
        return content.removesuffix(self.end.encode()), rest.strip() == self.end

    def prepare(self, script: str) -> CommandResult:
        """Run a script in the tree, put the canaries there, and digest what steers the tests."""
        parts = [f"cd {self.tree} || exit 9", f"(\n:\n{script}\n) || exit $?"]
        parts += [put(canary.path, canary.text.encode()) for canary in self.canaries]
        parts += [put(path, content) for path, content in self.shipped.items()]
        parts += ["echo == digests", self._digesting(f"$(git ls-files -- {shlex.join(STEERING)} 2>/dev/null)")]
        parts += [_until(f"[ -p {self.box}/report ]"), f"[ -p {self.box}/report ]"]
        self.sandbox.write(f"{self.box}.sh", "\n".join(parts).encode("utf-8", "surrogateescape"))
        result = self.sandbox.run(f"bash {self.box}.sh", timeout=CLOSING_SECONDS)
        # A script writes the files of the test patch itself, and takes them back at its end.
        own = {name.split("::")[0] for name in self.names} if self.is_script else set()
        self.guarded = tuple(sorted(_digests(result.text).keys() - own))
        return result

    def test(self, timeout: float) -> CommandResult:
        """Run the test command."""
        return self.sandbox.run(self.command, timeout=timeout, workdir=self.tree, environment=self.environment)

    def close(self) -> CommandResult:
        """End the report, whoever still writes, and digest again, as root."""
        pipe = f"{self.box}/report"
        ending = f"{_until(f'[ -p {pipe} ]')}; touch {self.box}/done\ntimeout 5 bash -c 'printf %s {self.end} > {pipe}'"
        digesting = self._digesting(shlex.join(self.guarded)) if self.guarded else ""
        return self.sandbox.run(
            f"{ending}\ncd {self.tree}\necho == digests\n{digesting}", timeout=CLOSING_SECONDS, user=ROOT
        )

    def digests(self, result: CommandResult) -> dict[str, str]:
        """Path to digest of the guarded files, as a script of ours printed them."""
        return {path: digest for path, digest in _digests(result.text).items() if path in self.guarded}

    def _digesting(self, files: str) -> str:
        own = [*(name.split("::")[0] for name in self.names), *(canary.path for canary in self.canaries)]
        return f"sha256sum -- {shlex.join(own)} {files} 2>/dev/null; :"


def _until(condition: str) -> str:
    return f"for _ in $(seq 500); do {condition} && break; sleep 0.01; done"


def _digests(output: str) -> dict[str, str]:
    """Path to digest, as sha256sum prints them."""
    lines = output.partition("== digests\n")[2].splitlines()
    return {line[66:]: line[:64] for line in lines if re.match(r"[0-9a-f]{64}  ", line)}


def _first_change(before: dict[str, str], after: dict[str, str]) -> str:
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return f"{changed[0]} changed" if changed else "" if before else "nothing could be digested"
