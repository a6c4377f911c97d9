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
import re
import secrets
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from agentdata.environments.canaries import Canary, find_deviation, make_canary
from agentdata.environments.junit import Report, read_report
from agentdata.errors import UsageError
from agentdata.records import TestStatus
from sandboxes.protocol import CommandResult, Sandbox

TREE = "/testbed"
ROOT = "0:0"
CLOSING_SECONDS = 60
"""For what surrounds the test command: preparing, and closing the report."""
PYTEST = re.compile(r"(?:^|[\s/;&])(?:pytest|py\.test)(?:\s|$)")
UNITTEST = re.compile(r"-m\s+unittest\b(?:\s+discover\b)?[^;&|]*")
FUNCTION = re.compile(r"::(\w+?)(?:\[|$)")
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
    `time-limit`, or `not-prepared`."""
    messages: dict[str, str] = {}
    """Why tests failed, by node id."""
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
) -> TestRun:
    """Run `test_command` on the given files or node ids in /testbed and read its JUnit XML report.

    `prepare` is a bash script that runs before, in the tree; if it fails, no test runs. `like` is a node id that the
    canaries are named after, for projects whose tests are not called `test...`. Without `canaries` a run is trusted
    on the report and the exit status alone: for projects that collect no tests but of their own kind. `timeout` is in
    seconds and for the test command. Raises SandboxError, and UsageError if the command runs neither pytest nor
    unittest.
    """
    run = _Run(sandbox, test_command, names, _canaries(test_command, names, like, tree) if canaries else (), tree)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(sandbox.run, run.reading, timeout=timeout + 3 * CLOSING_SECONDS, user=ROOT)
        try:
            preparation = run.prepare(prepare)
            command = preparation if preparation.status else run.test(timeout)
        finally:
            after = run.close()
        rest = reader.result()
    before = _digests(preparation.text)
    if preparation.status:
        return TestRun(results={}, command=command, trusted=False, doubt="not-prepared", preparation=preparation)
    report = read_report(run.report(), (*names, *(canary.path for canary in run.canaries)))
    doubt = _doubt(report, command, run.canaries)
    if not doubt and rest.text.strip() != run.end:
        doubt = "report: it was written a second time"
    if not doubt and (not before or before != _digests(after.text)):
        doubt = f"files: {_first_change(before, _digests(after.text))} changed while the tests ran"
    return _test_run(report or Report(), command, run.canaries, doubt, preparation)


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
        preparation=preparation,
    )


def _doubt(report: Report | None, command: CommandResult, canaries: Sequence[Canary]) -> str:
    if command.timed_out:
        return "time-limit"
    if report is None:
        return f"no-report: the test command ended with status {command.status} and without a report"
    for canary in canaries:
        if deviation := find_deviation(canary, report):
            return f"canary: {deviation}"
    failed = any(status in ("failed", "error") for status in report.results.values())
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


def _canaries(test_command: str, names: Sequence[str], like: str, tree: str) -> tuple[Canary, ...]:
    if not names:
        return ()
    match = FUNCTION.search(like)
    function = match[1] if match else "test_more"
    pytest = is_pytest(test_command)
    files = [name.split("::")[0] for name in (names[0], names[-1])]
    return tuple(make_canary(file, function, tree=tree, pytest=pytest) for file in files)


class _Run:
    """The places and scripts of one run in a sandbox."""

    def __init__(
        self, sandbox: Sandbox, test_command: str, names: Sequence[str], canaries: tuple[Canary, ...], tree: str
    ) -> None:
        self.sandbox, self.canaries, self.tree = sandbox, canaries, tree
        self.box = f"/tmp/{secrets.token_hex(12)}"  # noqa: S108  (a folder in the sandbox)
        self.end = secrets.token_hex(12)
        self.pytest = is_pytest(test_command)
        self.names = names
        self.guarded: tuple[str, ...] = ()
        report = f"{self.box}/report"
        around = (*(canary.path for canary in canaries[:1]), *names, *(canary.path for canary in canaries[1:]))
        start = test_command if self.pytest else UNITTEST.sub(f"{self.box}.py --junitxml={report}", test_command)
        options = f" {OPTIONS.format(report=report)}" if self.pytest else ""
        self.command = f"{start}{options} {shlex.join(around)}"

    @property
    def reading(self) -> str:
        """Root's part beside the tests: make the pipe, keep the first report, and show what came after it."""
        return (
            f"umask 077; mkdir -m 755 {self.box} && mkfifo -m 622 {self.box}/report || exit 9\n"
            f"cat {self.box}/report > {self.box}/first\n"
            f'if [ "$(head -c 24 {self.box}/first)" = {self.end} ]; then echo {self.end}\n'
            f"else head -c 1000 {self.box}/report; fi"
        )

    def prepare(self, script: str) -> CommandResult:
        """Run a script in the tree, put the canaries there, and digest what steers the tests."""
        unittest = Path(__file__).with_name("unittest_report.py").read_bytes()
        parts = [f"cd {self.tree} || exit 9", f"(\n{script}\n) || exit $?"]
        parts += [_put(canary.path, canary.text.encode()) for canary in self.canaries]
        parts += [] if self.pytest else [_put(f"{self.box}.py", unittest)]
        parts += ["echo == digests", self._digesting(f"$(git ls-files -- {shlex.join(STEERING)} 2>/dev/null)")]
        parts += [_until(f"[ -p {self.box}/report ]"), f"[ -p {self.box}/report ]"]
        self.sandbox.write(f"{self.box}.sh", "\n".join(parts).encode("utf-8", "surrogateescape"))
        result = self.sandbox.run(f"bash {self.box}.sh", timeout=CLOSING_SECONDS)
        self.guarded = tuple(sorted(_digests(result.text)))
        return result

    def test(self, timeout: float) -> CommandResult:
        """Run the test command."""
        return self.sandbox.run(self.command, timeout=timeout, workdir=self.tree)

    def close(self) -> CommandResult:
        """End the report, whoever still writes, and digest again, as root."""
        pipe = f"{self.box}/report"
        ending = f"{_until(f'[ -p {pipe} ]')}\ntimeout 5 bash -c 'printf %s {self.end} > {pipe}'"
        digesting = self._digesting(shlex.join(self.guarded)) if self.guarded else ""
        return self.sandbox.run(
            f"{ending}\ncd {self.tree}\necho == digests\n{digesting}", timeout=CLOSING_SECONDS, user=ROOT
        )

    def _digesting(self, files: str) -> str:
        own = [*(name.split("::")[0] for name in self.names), *(canary.path for canary in self.canaries)]
        return f'for it in {shlex.join(own)} {files}; do [ -f "$it" ] && sha256sum -- "$it"; done 2>&1; :'

    def report(self) -> bytes:
        """The first report; what ended it, if there was none."""
        try:
            return self.sandbox.read(f"{self.box}/first").removesuffix(self.end.encode())
        except FileNotFoundError:
            return b""


def _until(condition: str) -> str:
    return f"for _ in $(seq 500); do {condition} && break; sleep 0.01; done"


def _put(path: str, content: bytes) -> str:
    """Shell that writes a file in the tree, and fails where something is in the way."""
    place = shlex.quote(path)
    folder = shlex.quote(str(PurePosixPath(path).parent))
    return f"mkdir -p {folder} && base64 -d > {place} <<'END' || exit 9\n{base64.encodebytes(content).decode()}END"


def _digests(output: str) -> dict[str, str]:
    """Path to digest, as sha256sum prints them."""
    lines = output.partition("== digests\n")[2].splitlines()
    return {line[66:]: line[:64] for line in lines if re.match(r"[0-9a-f]{64}  ", line)}


def _first_change(before: dict[str, str], after: dict[str, str]) -> str:
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return changed[0] if changed else "nothing could be digested, or something"
