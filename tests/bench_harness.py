"""The official SWE-bench harness beside our grader: same tasks, same predictions, same workers, one run.

    python -m tests.bench_harness TASKS --predictions gold,empty,blank -j 2

TASKS is a run of `agentdata tasks`, or a file of rows. Predictions are a file, or some of: `gold`; `empty`, which the
harness does not run at all; `blank`, which adds a file that nothing reads, so that the tests run on the unsolved tree.
Prints a line for each task and prediction, then for each of the two the wall-clock time, the tests' own running time,
and what a task costs beyond it. Needs the extra `swebench` and an engine that has the images.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agentdata.environments.exchange import read_tasks, write_rows
from agentdata.environments.grade import grade
from agentdata.environments.predictions import read_all_predictions
from agentdata.environments.swebench_rows import Triple, official_tests
from agentdata.records import GoldPatch, Rejected, Task, TaskTests
from agentdata.shards import read_table
from sandboxes.engine import Engine
from sandboxes.errors import SandboxError

BLANK = """\
diff --git a/blank-prediction.txt b/blank-prediction.txt
new file mode 100644
--- /dev/null
+++ b/blank-prediction.txt
@@ -0,0 +1 @@
+Nothing reads this.
"""
RUNTIME = re.compile(r"Test runtime: ([\d_.]+) seconds")
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})", re.MULTILINE)
ROWS = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one grader judged one prediction."""

    resolved: bool
    reason: str
    tampering: tuple[str, ...] = ()
    test_seconds: float = 0.0
    seconds: float = 0.0
    """From taking the prediction up to having the verdict."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One grader's outcomes for a set of predictions."""

    outcomes: Mapping[str, Outcome]
    wall_seconds: float

    @property
    def test_seconds(self) -> float:
        return sum(outcome.test_seconds for outcome in self.outcomes.values())

    @property
    def overhead(self) -> float:
        """Seconds beyond the tests' own, summed over the predictions whose tests ran."""
        ran = [outcome for outcome in self.outcomes.values() if outcome.test_seconds]
        return sum(outcome.seconds - outcome.test_seconds for outcome in ran)


def load(source: Path) -> Iterator[Triple]:
    """The tasks of a run or of a file of rows."""
    if source.is_dir():
        tests = {row.id: row for row in read_table(source, "tests", TaskTests)}
        gold = {row.id: row for row in read_table(source, "gold", GoldPatch)}
        for task in read_table(source, "tasks", Task):
            yield task, tests[task.id], gold[task.id]
        return
    for found in read_tasks(source):
        if isinstance(found, Rejected):
            print(f"left out {found.id}: {found.reason}: {found.detail}")
        else:
            yield found


def choose_predictions(wanted: str, triples: Sequence[Triple]) -> dict[str, dict[str, str]]:
    """Model to task to patch."""
    if Path(wanted).suffix in (".json", ".jsonl"):
        sets: dict[str, dict[str, str]] = {}
        known = {task.id for task, _, _ in triples}
        for row in read_all_predictions(Path(wanted)):
            if row.instance_id in known:
                sets.setdefault(row.model_name_or_path or "model", {})[row.instance_id] = row.model_patch
        return sets
    makers = {"gold": lambda gold: gold.patch, "empty": lambda gold: "", "blank": lambda gold: BLANK}
    return {name: {task.id: makers[name](gold) for task, _, gold in triples} for name in wanted.split(",")}


def run_official(folder: Path, model: str, patches: Mapping[str, str], workers: int, timeout: int) -> Measured:
    """Run `python -m swebench.harness.run_evaluation` as a user would, and read its report and logs."""
    predictions = folder / f"{model}.jsonl"
    rows = [{"instance_id": name, "model_name_or_path": model, "model_patch": patch} for name, patch in patches.items()]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = f"bench-{model}".replace("/", "-")
    command = [sys.executable, "-m", "swebench.harness.run_evaluation", "--dataset_name", ROWS, "--run_id", run]
    command += ["--predictions_path", predictions.name, "--max_workers", str(workers), "--timeout", str(timeout)]
    began = time.monotonic()
    with (folder / f"{model}.log").open("w") as log:
        done = subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False)
    wall = time.monotonic() - began
    if done.returncode:
        sys.exit((folder / f"{model}.log").read_text()[-4000:])
    report = json.loads((folder / f"{model.replace('/', '__')}.{run}.json").read_text())
    logs = folder / "logs/run_evaluation" / run / model.replace("/", "__")
    return Measured({name: _official_outcome(name, report, logs / name / "run_instance.log") for name in patches}, wall)


def _official_outcome(name: str, report: Mapping[str, Sequence[str]], log: Path) -> Outcome:
    kinds = ("resolved", "unresolved", "error", "empty_patch")
    reason = next((kind for kind in kinds if name in report[f"{kind}_ids"]), "missing")
    if not log.is_file():
        return Outcome(reason == "resolved", reason)
    text = log.read_text()
    runtime, stamps = RUNTIME.search(text), [datetime.fromisoformat(stamp) for stamp in STAMP.findall(text)]
    return Outcome(
        reason == "resolved",
        reason,
        test_seconds=float(runtime[1].replace("_", "")) if runtime else 0.0,
        seconds=(stamps[-1] - stamps[0]).total_seconds() if stamps else 0.0,
    )


def run_ours(triples: Sequence[Triple], patches: Mapping[str, str], workers: int, timeout: int) -> Measured:
    """Grade with as many threads as the harness has workers. The tests are those that the rows could hold."""
    engine = Engine()

    def judge(triple: Triple) -> tuple[str, Outcome]:
        task, tests, gold = triple
        kept = official_tests(tests).kept
        try:
            found = grade(task, kept, patches[task.id], gold=gold.patch, open_sandbox=engine.open, timeout=timeout)
        except SandboxError as error:
            return task.id, Outcome(False, f"owed: {error}")
        return task.id, Outcome(found.resolved, found.reason, found.tampering, found.test_seconds, found.seconds)

    began = time.monotonic()
    try:
        with ThreadPoolExecutor(workers) as pool:
            outcomes = dict(pool.map(judge, [triple for triple in triples if triple[0].id in patches]))
    finally:
        engine.close()
    return Measured(outcomes, time.monotonic() - began)


def compare(model: str, official: Measured, ours: Measured) -> int:
    """Print the comparison of a set of predictions; the number of disagreements that no tampering explains."""
    apart = 0
    for name, theirs in official.outcomes.items():
        own = ours.outcomes[name]
        agrees = theirs.resolved == own.resolved
        apart += not agrees and not own.tampering
        note = "agree" if agrees else "tampering" if own.tampering else "DIFFER"
        print(
            f"{model:<10} {name:<40} official {theirs.reason:<11} {theirs.seconds:7.2f} s"
            f"   ours {own.reason:<18} {own.seconds:7.2f} s   {note}"
        )
    for grader, measured in (("official", official), ("ours", ours)):
        ran = sum(1 for outcome in measured.outcomes.values() if outcome.test_seconds)
        print(
            f"{model:<10} {grader:<8} {len(measured.outcomes)} predictions, {ran} with tests run:"
            f" wall {measured.wall_seconds:.1f} s, tests {measured.test_seconds:.1f} s,"
            f" beyond them {measured.overhead / max(ran, 1):.2f} s each"
        )
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--predictions", default="gold,empty,blank")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=0, help="only so many tasks")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for the tests of one prediction")
    parser.add_argument("-o", "--output", type=Path, help="folder for rows, logs and reports; else a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        everything = list(load(options.tasks))[: options.limit or None]
        written = write_rows(folder / ROWS, everything)
        for rejected in written.rejected:
            print(f"left out {rejected.id}: {rejected.reason}: {rejected.detail}")
        for task, dropped in written.dropped.items():
            print(f"{task}: {len(dropped)} tests have no name of their own in the official log")
        refused = {rejected.id for rejected in written.rejected}
        triples = [triple for triple in everything if triple[0].id not in refused]
        apart, official_wall, own_wall = 0, 0.0, 0.0
        for model, patches in choose_predictions(options.predictions, triples).items():
            official = run_official(folder, model, patches, options.workers, options.timeout)
            ours = run_ours(triples, patches, options.workers, options.timeout)
            apart += compare(model, official, ours)
            official_wall, own_wall = official_wall + official.wall_seconds, own_wall + ours.wall_seconds
    print(f"{len(triples)} tasks, {apart} disagreements; official {official_wall:.1f} s, ours {own_wall:.1f} s in all")
    sys.exit(1 if apart else 0)


if __name__ == "__main__":
    main()
