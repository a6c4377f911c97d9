"""Predictions to verdicts by the official harness (`swebench` 5), run as a process of its own.

It keeps a folder for each prediction, and what it has finished there it does not do again; so a stopped grading goes on
where it was. Its run, after which containers are named too, has a name that tells folders and predictions apart.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from agentdata.environments.evaluation import END
from agentdata.errors import RunError, UsageError, explain_os_error
from agentdata.progress import Progress
from agentdata.records import Prediction, TestResult, TestStatus, Verdict
from agentdata.shards import write_whole
from sandboxes.engine import Engine
from sandboxes.errors import SandboxError

GRADER_ERROR = "grader-error"
TRIES = 2
"""Calls of the harness: it drops what an engine's fault broke, and does it when it is called again."""
POLL_SECONDS = 1.0
OPEN_FILES = 4096
LOG_CHARACTERS = 4000
FAULTS = {">>>>> Patch Apply Failed": "patch-does-not-apply", "Test timed out after": "time-limit"}
"""What the log of a prediction without a report says, and the reason that it is."""


def require_harness() -> str:
    """Name and version of the installed harness. Raises UsageError when there is none of version 5 or later."""
    try:
        version = metadata.version("swebench")
    except metadata.PackageNotFoundError:
        version = ""
    if not version or int(version.partition(".")[0]) < 5:
        state = f"is of version {version}" if version else "is not installed"
        raise UsageError(
            f"The official harness {state}: pip install 'agentdata[swebench]', or grade with --grader ours."
        )
    return f"swebench {version}"


def grade_officially(
    folder: Path, rows: Path, predictions: Sequence[Prediction], *, timeout: float = 1800, workers: int = 2
) -> list[Verdict]:
    """Grade predictions of tasks that `rows`, a file of version-5 rows, holds; in their order.

    timeout: seconds of one run of the tests. The reason is one of: resolved, tests-failed, tests-did-not-run,
    empty-patch, patch-does-not-apply, time-limit, grader-error, the last where the harness itself failed twice.
    Everything of the harness is kept in `folder`. Raises UsageError, RunError.
    """
    grader = require_harness()
    work = _Work(folder.resolve(), rows.resolve(), predictions, grader)
    failure = ""
    for _ in range(TRIES):
        if not failure and work.done():
            break
        failure = work.call(timeout, workers)
    verdicts = work.verdicts()
    if failure and any(verdict.reason == GRADER_ERROR for verdict in verdicts):
        raise RunError(
            f"The official harness failed: {failure}. Its output is in {work.output}; what it finished is kept, and the "
            "same command goes on."
        )
    return verdicts


class _Work:
    """One run of the harness: its folder, its name, and what it left there."""

    def __init__(self, folder: Path, rows: Path, predictions: Sequence[Prediction], grader: str) -> None:
        self.folder = folder
        self.rows = rows
        self.predictions = predictions
        self.grader = grader
        self.output = folder / "harness.log"
        texts = [_token(folder), *(prediction.model_dump_json() for prediction in predictions)]
        self.name = f"agentdata-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]}"

    def call(self, timeout: float, workers: int) -> str:
        """Let the harness grade what it has no report of; why it failed as a whole, if so. Raises RunError."""
        for prediction, verdict in zip(self.predictions, self.verdicts(), strict=True):
            if verdict.reason == GRADER_ERROR:
                # The harness takes any report for a finished one, also of tests that a fault cut off.
                (self._logs(prediction) / "report.json").unlink(missing_ok=True)
        given = self.folder / f"{self.name}.jsonl"
        write_whole(given, "".join(f"{one.model_dump_json()}\n" for one in self.predictions))
        limit = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        command = [sys.executable, "-m", "swebench.harness.run_evaluation", "--dataset_name", str(self.rows)]
        command += ["--predictions_path", given.name, "--run_id", self.name, "--timeout", str(round(timeout))]
        command += ["--max_workers", str(workers), "--open_file_limit", str(limit)]
        with self._alone() as lock, self._no_container_left() as engine:
            return self._watch(command, lock, engine)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """A lock that the harness inherits: one whose caller was killed still grades here."""
        with open(self.folder / ".lock-harness", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"The official harness of an earlier call still grades in {self.folder}: wait for it, then run the "
                    "same command again."
                ) from error
            yield lock.fileno()

    @contextlib.contextmanager
    def _no_container_left(self) -> Iterator[Engine]:
        """Remove what this or an earlier call left of the containers of this run."""
        with contextlib.closing(Engine()) as engine:

            def clear() -> None:
                with engine.call("listing containers") as api:
                    left = api.containers(all=True, filters={"name": self.name})
                for container in left:
                    engine.remove(container["Id"])

            clear()
            try:
                yield engine
            finally:
                clear()

    def _watch(self, command: Sequence[str], lock: int, engine: Engine) -> str:
        """Run the harness to its end, showing how far it is; the last line of one that fails."""
        given = sum(bool(prediction.model_patch) for prediction in self.predictions)
        done = self._reported()
        with (
            self.output.open("w") as log,
            Progress("official grading", given, done=len(done), unit="predictions") as bar,
        ):
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, pass_fds=[lock], start_new_session=True
            )
            try:
                while process.poll() is None:
                    time.sleep(POLL_SECONDS)
                    done, before = self._reported(), done
                    bar.advance(len(done - before))
                    self._release(engine, done - before)
            finally:
                _end(process)
        if not process.returncode:
            return ""
        lines = self.output.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"status {process.returncode}"

    def _release(self, engine: Engine, instances: Iterable[str]) -> None:
        """Kill the containers of what is reported: the harness would give each 15 s to stop by itself."""
        for instance in instances:
            with contextlib.suppress(SandboxError), engine.call("stopping what is graded") as api:
                api.kill(f"sweb.eval.{instance.lower()}.{self.name}")

    def _logs(self, prediction: Prediction) -> Path:
        model = prediction.model_name_or_path.replace("/", "__")
        return self.folder / "logs/run_evaluation" / self.name / model / prediction.instance_id

    def _reported(self) -> set[str]:
        return {one.instance_id for one in self.predictions if (self._logs(one) / "report.json").is_file()}

    def done(self) -> bool:
        """Whether the harness came to its end, and decided on everything."""
        asked = any(prediction.model_patch for prediction in self.predictions)
        ended = any(self.folder.glob(f"*.{self.name}.json")) or not asked
        return ended and all(verdict.reason != GRADER_ERROR for verdict in self.verdicts())

    def verdicts(self) -> list[Verdict]:
        """What the harness found out up to now; the rest is a grader error."""
        return [self._verdict(prediction) for prediction in self.predictions]

    def _verdict(self, prediction: Prediction) -> Verdict:
        logs = self._logs(prediction)
        report = _report(logs / "report.json", prediction.instance_id)
        if not prediction.model_patch:
            reason = "empty-patch"
        elif report:
            reason = _reason(report, logs / "test_output.txt")
        else:
            reason = _fault(logs / "run_instance.log")
        statuses = report.get("tests_status", {})
        return Verdict(
            task=prediction.instance_id,
            model=prediction.model_name_or_path,
            resolved=reason == "resolved",
            reason=reason,
            fail_to_pass=_results(statuses.get("FAIL_TO_PASS", {})),
            pass_to_pass=_results(statuses.get("PASS_TO_PASS", {})),
            log=_text(logs / ("test_output.txt" if report else "run_instance.log"))[-LOG_CHARACTERS:],
            grader=self.grader,
        )


def _report(path: Path, name: str) -> dict[str, Any]:
    """The harness's report on one prediction; empty when it has none, or was stopped while it wrote it."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))[name]
    except (FileNotFoundError, ValueError, KeyError):
        return {}
    return report


def _token(folder: Path) -> str:
    """What tells this folder from any other, also after it was moved. Raises RunError."""
    path = folder / "token"
    try:
        if not path.is_file():
            write_whole(path, uuid4().hex)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise explain_os_error(error, f"writing {path}") from error


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a harness that still runs: what it reported is kept, and its containers are removed after it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(report: dict[str, Any], output: Path) -> str:
    """Where a script did not come to its end its container was lost, which says nothing about the prediction."""
    if report["resolved"]:
        return "resolved"
    if report["patch_successfully_applied"]:
        return "tests-failed"
    return "tests-did-not-run" if END in _text(output) else GRADER_ERROR


def _fault(log: Path) -> str:
    return next((reason for mark, reason in FAULTS.items() if mark in _text(log)), GRADER_ERROR)


def _results(outcomes: dict[str, list[str]]) -> tuple[TestResult, ...]:
    kinds: tuple[tuple[str, TestStatus], ...] = (("success", "passed"), ("failure", "failed"))
    return tuple(TestResult(name=name, status=status) for kind, status in kinds for name in outcomes.get(kind, ()))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
