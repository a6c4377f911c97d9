"""An evaluation from the name of a benchmark to its report, in steps that are each kept.

RUN/benchmark            run of the tasks with their images; what was left out is in its table `rejected`
RUN/rollouts             run of the attempts
RUN/run-N/preds.json     submissions of the Nth attempts in the official form, and preds.jsonl
RUN/run-N/official       what the official harness wrote; RUN/run-N/ours: run of our grader's verdicts
RUN/report.json          every figure and outcome; RUN/report.md and RUN/report.svg show them
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agentdata.environments.exchange import Written, write_rows
from agentdata.environments.grade import GRADER
from agentdata.environments.grading import grade_predictions, read_triples
from agentdata.environments.swebench_rows import Triple
from agentdata.errors import RunError, UsageError
from agentdata.evaluate import report as reports
from agentdata.evaluate.benchmark import identify, prepare, read_benchmark, require_template
from agentdata.evaluate.drawing import draw
from agentdata.evaluate.official import grade_officially, require_harness
from agentdata.evaluate.outcomes import Outcome, outcomes_of
from agentdata.evaluate.predictions import Submitted, by_run, given, write_predictions
from agentdata.evaluate.report import Prices, Report, make_report
from agentdata.evaluate.telling import PICTURE, report_markdown
from agentdata.journal import GENERATOR
from agentdata.records import Prediction, Rejected, Trajectory, Verdict
from agentdata.runs import locked, settle
from agentdata.shards import read_table, write_whole

Grader = Literal["official", "ours", "both"]
RollOut = Callable[[Sequence[Triple], Path], object]
"""Make the attempts at these tasks, as the table `trajectories` of a run in this directory, or finish that run."""
ROWS = "rows.jsonl"
TEST_SECONDS = 1800.0
NO_FORM = "no-official-form"
OURS = f"agentdata grader {GRADER}"


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated and how it is graded."""

    benchmark: str
    instances: tuple[str, ...] = ()
    limit: int = 0
    image: str = ""
    """Name of the images, with {instance_id}, instead of those of the rows."""
    pull: bool = True
    predictions: tuple[str, ...] = ()
    """A file for each run, or `gold` or `empty`, instead of attempts."""
    model: str = ""
    protocol: str = ""
    """JSON text of the recipe of the attempts."""
    grader: Grader | None = None
    """Without one: official for rows of a benchmark, ours for tasks that were made here."""
    test_seconds: float = TEST_SECONDS
    workers: int = 2
    """Tasks that are graded, or images that are pulled, at once."""
    prices: Prices = field(default_factory=Prices)

    def options(self) -> dict[str, object]:
        """What a run is continued only with. Raises UsageError for what cannot be asked."""
        require_template(self.image)
        if bool(self.model) == bool(self.predictions):
            raise UsageError("Give either a --model that works on the tasks, or --predictions that are to be graded.")
        return {
            "benchmark": self.benchmark,
            "identity": identify(self.benchmark),
            "instances": list(self.instances),
            "limit": self.limit,
            "image": self.image,
            "model": self.model,
            "protocol": self.protocol,
            "predictions": [_identify_predictions(source) for source in self.predictions],
        }


def evaluate(run: Path, evaluation: Evaluation, roll_out: RollOut | None, say: Callable[[str], None]) -> Report:
    """Evaluate, or go on with an evaluation that was stopped. `say` is given sentences on what is left out.

    `roll_out` is not needed where predictions are given, or all attempts are made already.

    Raises UsageError, RunError, SandboxError.
    """
    options = evaluation.options()
    ready = (run / "benchmark/manifest.json").is_file()
    rows = [] if ready else read_benchmark(evaluation.benchmark, evaluation.instances, evaluation.limit)
    with locked(run, (1, 1)):
        settle(run, {"generator": GENERATOR, "options": options})
        prepare(
            run / "benchmark",
            lambda: rows,
            image=evaluation.image,
            pull=evaluation.pull,
            workers=evaluation.workers,
        )
        left_out = list(read_table(run / "benchmark", "rejected", Rejected))
        for row in left_out:
            say(f"Left out {row.id}: {row.reason}: {row.detail}")
        triples = read_triples(run / "benchmark")
        graders = _graders(evaluation.grader, triples)
        runs = _submissions(run, evaluation, triples, roll_out, say)
        written = Written() if graders == [OURS] else write_rows(run / ROWS, triples)
        outcomes: list[Outcome] = []
        for number, submitted in runs.items():
            outcomes += _grade(run, number, submitted, triples, graders, written, evaluation)
        report = make_report(
            outcomes,
            benchmark=evaluation.benchmark,
            model=evaluation.model or runs[1][0].prediction.model_name_or_path or "unnamed",
            protocol=evaluation.protocol,
            left_out=left_out,
            prices=evaluation.prices,
            notes=_notes(written),
        )
        write_report(run, report)
    return report


def write_report(run: Path, report: Report) -> None:
    """Write the record, its picture and its text."""
    write_whole(run / reports.FILE, report.model_dump_json(indent=1) + "\n")
    write_whole(run / PICTURE, draw(report))
    write_whole(run / "report.md", report_markdown(report))


def _identify_predictions(source: str) -> str:
    if source in ("gold", "empty"):
        return source
    try:
        return f"{source} sha256:{hashlib.sha256(Path(source).read_bytes()).hexdigest()}"
    except OSError as error:
        raise UsageError(
            f"There are no predictions {source!r} ({error.strerror}): give a .json or .jsonl file, gold, or empty."
        ) from error


def _graders(wanted: Grader | None, triples: Sequence[Triple]) -> list[str]:
    """The graders' names, the one that counts first. Raises UsageError when the harness is wanted and is not there."""
    foreign = all(task.source == "benchmark" for task, _, _ in triples)
    chosen = wanted or ("official" if foreign else "ours")
    official = [] if chosen == "ours" else [require_harness()]
    return [*official, *([] if chosen == "official" else [OURS])]


def _submissions(
    run: Path,
    evaluation: Evaluation,
    triples: Sequence[Triple],
    roll_out: RollOut | None,
    say: Callable[[str], None],
) -> dict[int, list[Submitted]]:
    """What is graded, by run."""
    if evaluation.predictions:
        return {number: given(source, triples, say) for number, source in enumerate(evaluation.predictions, 1)}
    if roll_out is not None:
        roll_out(triples, run / "rollouts")
    runs = by_run(read_table(run / "rollouts", "trajectories", Trajectory))
    if not runs:
        raise RunError(f"No attempt was made: the table `rejected` of {run / 'rollouts'} says why.")
    return runs


def _grade(
    run: Path,
    number: int,
    submitted: Sequence[Submitted],
    triples: Sequence[Triple],
    graders: Sequence[str],
    written: Written,
    evaluation: Evaluation,
) -> list[Outcome]:
    """The outcomes of one run, by every grader."""
    folder = run / f"run-{number}"
    predictions = [one.prediction for one in submitted]
    file = write_predictions(folder, predictions)
    verdicts: dict[str, Sequence[Verdict]] = {}
    for grader in graders:
        if grader == OURS:
            verdicts[grader] = _by_us(folder / "ours", run / "benchmark", file, evaluation)
        else:
            verdicts[grader] = _officially(folder / "official", run / ROWS, written, predictions, evaluation)
    return outcomes_of(number, [task.id for task, _, _ in triples], submitted, verdicts)


def _by_us(run: Path, tasks: Path, predictions: Path, evaluation: Evaluation) -> list[Verdict]:
    if not (run / "manifest.json").is_file():
        grade_predictions(
            run,
            tasks.resolve(),
            str(predictions.resolve()),
            timeout=evaluation.test_seconds,
            workers=evaluation.workers,
        )
    return list(read_table(run, "verdicts", Verdict))


def _officially(
    folder: Path, rows: Path, written: Written, predictions: Sequence[Prediction], evaluation: Evaluation
) -> list[Verdict]:
    """What the harness finds; a task that has no row of its form cannot be graded by it."""
    refused = {row.id: row for row in written.rejected}
    usable = [prediction for prediction in predictions if prediction.instance_id not in refused]
    found = grade_officially(folder, rows, usable, timeout=evaluation.test_seconds, workers=evaluation.workers)
    return [*found, *(Verdict(task=row.id, resolved=False, reason=NO_FORM, log=row.detail) for row in refused.values())]


def _notes(written: Written) -> list[str]:
    notes = [f"{row.id} cannot be graded by the official harness: {row.detail}." for row in written.rejected]
    if written.dropped:
        tests = sum(len(names) for names in written.dropped.values())
        notes.append(
            f"{tests} tests of {len(written.dropped)} tasks have no name of their own in official logs; the official "
            "harness decides without them."
        )
    return notes
