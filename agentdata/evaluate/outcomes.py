"""What became of each task in each run of a benchmark: effort and verdicts in one row."""

from collections.abc import Iterable, Mapping, Sequence

from agentdata.evaluate.predictions import Effort, Submitted
from agentdata.records import Record, Verdict

NO_PREDICTION = "no-prediction"


class Judgement(Record):
    """What one grader found, in short."""

    grader: str
    resolved: bool
    reason: str
    tampering: tuple[str, ...] = ()


class Outcome(Record):
    """One task in one run."""

    task: str
    run: int
    """Number of the run, from 1."""
    judgements: tuple[Judgement, ...]
    """Of each grader that was asked; the first one counts."""
    empty: bool
    """Whether nothing was submitted."""
    effort: Effort

    @property
    def resolved(self) -> bool:
        return self.judgements[0].resolved

    @property
    def reason(self) -> str:
        return self.judgements[0].reason


def outcomes_of(
    run: int, tasks: Sequence[str], submitted: Iterable[Submitted], verdicts: Mapping[str, Iterable[Verdict]]
) -> list[Outcome]:
    """One row for each task, in the order of tasks. A task for which there is no prediction is not resolved.

    `verdicts` are given by grader; the first grader counts.
    """
    known = {one.prediction.instance_id: one for one in submitted}
    found = {grader: {verdict.task: verdict for verdict in given} for grader, given in verdicts.items()}
    return [
        Outcome(
            task=task,
            run=run,
            judgements=tuple(_judgement(grader, given.get(task)) for grader, given in found.items()),
            empty=task not in known or not known[task].prediction.model_patch.strip(),
            effort=known[task].effort if task in known else Effort(),
        )
        for task in tasks
    ]


def _judgement(grader: str, verdict: Verdict | None) -> Judgement:
    if verdict is None:
        return Judgement(grader=grader, resolved=False, reason=NO_PREDICTION)
    return Judgement(grader=grader, resolved=verdict.resolved, reason=verdict.reason, tampering=verdict.tampering)
