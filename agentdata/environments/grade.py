"""A submission to a verdict, in a fresh sandbox, whatever the submission did to the tests.

What is applied is told in `agentdata.environments.submissions`, why a run is believed in `agentdata.environments.testing`.
Resolved means: every fail-to-pass test passed, every pass-to-pass test passed or was skipped, in a run that is trusted.
A test that was not observed did not pass.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from agentdata.environments.evaluation import run_script
from agentdata.environments.submissions import DOES_NOT_APPLY, Plan, hidden_paths, make_plan, preparing
from agentdata.environments.testing import TestRun, run_tests
from agentdata.records import Task, TaskTests, TestResult, TestStatus, Verdict
from sandboxes.protocol import Sandbox

OpenSandbox = Callable[[str], Sandbox]
"""Image to a new sandbox."""

GRADER = "1"
LOG_CHARACTERS = 20_000


def grade(
    task: Task,
    tests: TaskTests,
    submission: str,
    *,
    gold: str,
    open_sandbox: OpenSandbox,
    timeout: float = 1800,
    model: str = "",
) -> Verdict:
    """Grade a diff. `gold` is used only to see which test infrastructure the solution itself changes.

    `timeout` is in seconds, for the tests. The reason is one of: resolved, tests-failed, empty-patch,
    patch-does-not-apply, tests-did-not-run, time-limit, limit-exceeded, forged-report. Tampering was undone before the
    tests ran, so that a verdict can be resolved with it. For a task with `eval_script` that script is run and its output
    read by `log_parser`; give such tasks a sandbox that keeps enough output.

    Raises SandboxError when the sandbox failed: the verdict is then owed, not negative.
    """
    began = time.monotonic()

    def verdict(
        reason: str, plan: Plan | None = None, run: TestRun | None = None, found: Sequence[str] = ()
    ) -> Verdict:
        results = run.results if run is not None else {}
        return Verdict(
            task=task.id,
            model=model,
            resolved=reason == "resolved",
            reason=reason,
            fail_to_pass=_results(tests.fail_to_pass, results),
            pass_to_pass=_results(tests.pass_to_pass, results),
            tampering=tuple(sorted({*(plan.tampering if plan else ()), *found})),
            exit_status=-1 if run is None or run.doubt == "not-prepared" else run.command.status,
            test_seconds=0.0 if run is None or run.doubt == "not-prepared" else run.command.seconds,
            seconds=time.monotonic() - began,
            log=_log(run)[-LOG_CHARACTERS:],
            grader=GRADER,
        )

    if not submission.strip():
        return verdict("empty-patch")
    with open_sandbox(task.image) as sandbox:
        plan = make_plan(sandbox, submission, tests.test_patch, gold)
        if not plan.readable:
            return verdict("patch-does-not-apply", plan)
        if plan.is_empty:
            return verdict("empty-patch", plan)
        run = run_prepared(sandbox, tests, plan, timeout)
    hidden = [f"hidden: {path}" for path in hidden_paths(plan, run.preparation.text if run.preparation else "")]
    return verdict("patch-does-not-apply" if hidden else _reason(tests, run), plan, run, hidden)


def run_prepared(sandbox: Sandbox, tests: TaskTests, plan: Plan, timeout: float) -> TestRun:
    """Apply a plan in a fresh sandbox and run a task's tests."""
    script = preparing(plan, tests.test_patch)
    if tests.eval_script:
        return run_script(sandbox, tests, prepare=script, timeout=timeout)
    return run_tests(
        sandbox,
        tests.test_command,
        tests.test_files,
        timeout=timeout,
        prepare=script,
        like=tests.fail_to_pass[0] if tests.fail_to_pass else "",
        canaries=tests.canaries,
    )


def _reason(tests: TaskTests, run: TestRun) -> str:
    if run.doubt == "not-prepared":
        return "patch-does-not-apply" if run.command.status == DOES_NOT_APPLY else "tests-did-not-run"
    if run.doubt:
        kind = run.doubt.split(":")[0]
        if kind in ("time-limit", "limit-exceeded"):
            return kind
        return "tests-did-not-run" if kind == "no-report" else "forged-report"
    fixed = all(run.results.get(name) == "passed" for name in tests.fail_to_pass)
    kept = all(run.results.get(name) in ("passed", "skipped") for name in tests.pass_to_pass)
    return "resolved" if fixed and kept and tests.fail_to_pass else "tests-failed"


def _results(names: Sequence[str], results: Mapping[str, TestStatus]) -> tuple[TestResult, ...]:
    return tuple(TestResult(name=name, status=results.get(name, "missing")) for name in names)


def _log(run: TestRun | None) -> str:
    if run is None:
        return ""
    notes = [f"[not trusted] {run.doubt}"] if run.doubt else []
    notes += [f"[canaries] {path} is the grader's own; some of its tests must fail" for path in run.canaries]
    return "\n".join([run.command.text, *notes])
