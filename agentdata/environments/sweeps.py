"""A task's tests, run again and again without and with the gold patch, to what they tell of it.

Before means: the base, with the test patch and with gold's own changes to test infrastructure, exactly as the grader
prepares an empty submission. After means: the gold patch graded as a submission.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentdata.environments.grade import OpenSandbox, run_prepared
from agentdata.environments.submissions import make_plan
from agentdata.environments.testing import TestRun
from agentdata.records import TaskTests, TestCount

SWEEPS = 3


@dataclass(frozen=True, slots=True)
class Sweep:
    """What k runs before and k runs after the gold patch say."""

    reason: str
    """Why there is no task: `tests-did-not-run`, `time-limit`, `limit-exceeded`, `gold-does-not-apply`,
    `not-trusted`, `no-fail-to-pass`; empty if there is one."""
    detail: str
    """More about the reason, or what was wrong with the canaries where `canaries` is false."""
    fail_to_pass: tuple[str, ...] = ()
    """Failed or was missing in every run before, passed in every run after."""
    pass_to_pass: tuple[str, ...] = ()
    """Passed in every run."""
    flaky: tuple[str, ...] = ()
    """Outcome differed between equal runs."""
    counts: tuple[TestCount, ...] = ()
    messages: dict[str, str] = field(default_factory=dict)
    """Why each fail-to-pass test failed without the gold patch; a missing test has the message of its file."""
    canaries: bool = True
    """Whether canaries come out right in this project; for `TaskTests.canaries`."""
    seconds: float = 0.0
    """Running time of the test command, all runs together."""

    def tests(self, tests: TaskTests) -> TaskTests:
        """The record with what was measured."""
        return tests.model_copy(
            update={
                name: getattr(self, name) for name in ("fail_to_pass", "pass_to_pass", "flaky", "counts", "canaries")
            }
        )


def sweep(
    image: str,
    tests: TaskTests,
    gold: str,
    *,
    open_sandbox: OpenSandbox,
    k: int = SWEEPS,
    timeout: float = 1800,
    stop: Callable[[], bool] = lambda: False,
) -> Sweep:
    """Run the tests k times before and after, each in a fresh sandbox; `tests` gives patch, files and command.

    The first runs decide early: nothing more is run when gold fixes nothing. `timeout` (seconds) is for one run of the
    test command. `stop` is asked before each run; a stopped sweep has the reason `stopped`. Raises SandboxError.
    """
    seen: list[tuple[TestRun, TestRun]] = []
    canaries, remark = tests.canaries, ""
    while len(seen) < k:
        if stop():
            return Sweep("stopped", f"after {len(seen)} of {k} sweeps")
        asked = tests.model_copy(update={"canaries": canaries})
        after = _run(image, asked, gold, gold, open_sandbox, timeout)
        if after.doubt.startswith("canary: ") and canaries and not seen:
            canaries, remark = False, after.doubt
            continue
        before = _run(image, asked, "", gold, open_sandbox, timeout)
        seen.append((before, after))
        if reason := _refusal(before, after):
            return Sweep(reason, (after.doubt or before.doubt) + "\n" + after.command.text[-2000:])
        if not any(
            status == "passed" and before.results.get(name) != "passed" for name, status in after.results.items()
        ):
            return Sweep("no-fail-to-pass", f"{len(after.results)} tests ran with the gold patch")
    return _judge([before for before, _ in seen], [after for _, after in seen], canaries, remark)


def _run(
    image: str, tests: TaskTests, submission: str, gold: str, open_sandbox: OpenSandbox, timeout: float
) -> TestRun:
    with open_sandbox(image) as sandbox:
        return run_prepared(sandbox, tests, make_plan(sandbox, submission, tests.test_patch, gold), timeout)


def _refusal(before: TestRun, after: TestRun) -> str:
    if after.doubt == "not-prepared":
        return "gold-does-not-apply"
    for limit in ("time-limit", "limit-exceeded"):
        if limit in (before.doubt, after.doubt):
            return limit
    if after.doubt:
        return "tests-did-not-run" if after.doubt.startswith("no-report") else "not-trusted"
    return "not-trusted" if before.doubt and not before.doubt.startswith("no-report") else ""


def _judge(before: Sequence[TestRun], after: Sequence[TestRun], canaries: bool, remark: str) -> Sweep:
    names = sorted({name for run in (*before, *after) for name in run.results})
    counts = [
        TestCount(name=name, runs=len(before), passed_before=_passes(before, name), passed_after=_passes(after, name))
        for name in names
    ]
    k = len(before)
    flaky = tuple(
        name
        for name in names
        if any(len({run.results.get(name, "missing") for run in runs}) > 1 for runs in (before, after))
    )
    steady = [count for count in counts if count.name not in flaky and count.passed_after == k]
    fixed = tuple(count.name for count in steady if count.passed_before == 0)
    return Sweep(
        reason="" if fixed else "no-fail-to-pass",
        detail=remark if fixed else f"{len(flaky)} flaky tests",
        fail_to_pass=fixed,
        pass_to_pass=tuple(count.name for count in steady if count.passed_before == k),
        flaky=flaky,
        counts=tuple(counts),
        messages={name: _message(before[0], name) for name in fixed},
        canaries=canaries,
        seconds=sum(run.command.seconds for run in (*before, *after)),
    )


def _passes(runs: Sequence[TestRun], name: str) -> int:
    return sum(run.results.get(name) == "passed" for run in runs)


def _message(run: TestRun, name: str) -> str:
    return run.messages.get(name) or run.messages.get(name.split("::")[0], "")
