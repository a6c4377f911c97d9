"""Outcomes to the figures of an evaluation, as a record that is kept as report.json."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import fmean, median

from pydantic import Field

from agentdata.errors import UsageError
from agentdata.evaluate.outcomes import NO_PREDICTION, Outcome
from agentdata.evaluate.statistics import Interval, rate_interval
from agentdata.records import Count, Record, Rejected
from agentdata.shards import counted

FILE = "report.json"
FEW_TASKS = 100
"""Below so many tasks an interval is wide enough to be worth a word."""


class Prices(Record):
    """What a million tokens cost, in any currency; 0 where that is not known."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)


class RunFigures(Record):
    """One run of a benchmark."""

    run: int
    tasks: int
    resolved: int
    empty: int
    """Tasks for which nothing was submitted."""
    steps: float
    """Mean of the attempts."""
    median_steps: float
    prompt_tokens: int
    completion_tokens: int
    hours: float
    """Of all attempts one after the other, whatever ran beside one another."""
    policy_hours: float
    cost: float
    """In the currency of the prices; 0 where none were given."""

    @property
    def rate(self) -> float:
        return self.resolved / self.tasks


class Disagreement(Record):
    """A task that two graders judged differently."""

    task: str
    run: int
    first: str
    second: str
    explained: str
    """What of the submission explains it: the tampering that one grader undid."""


class Report(Record):
    """An evaluation: who was measured on what, by whom, with which result."""

    benchmark: str
    model: str
    grader: str
    """Who decided; what a second grader said is in `disagreements`."""
    second_grader: str
    protocol: str
    """JSON text of the recipe of the attempts; empty where predictions were given."""
    tasks: int
    left_out: tuple[Rejected, ...]
    """Chosen tasks that were not evaluated, and why."""
    runs: tuple[RunFigures, ...]
    mean: float
    """Mean rate of the tasks, each with its rate over the runs."""
    interval: Interval
    always: int
    """Tasks that every run resolved."""
    ever: int
    """Tasks that some run resolved."""
    stops: tuple[Count, ...]
    stops_resolved: tuple[Count, ...]
    """How often an attempt that stopped so was resolved."""
    reasons: tuple[Count, ...]
    disagreements: tuple[Disagreement, ...]
    notes: tuple[str, ...]
    """What a reader has to know before quoting the figures."""
    outcomes: tuple[Outcome, ...]


def task_rates(outcomes: Iterable[Outcome]) -> dict[str, Fraction]:
    """The share of its runs in which each task was resolved."""
    found: dict[str, list[bool]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.task, []).append(outcome.resolved)
    return {task: Fraction(sum(resolved), len(resolved)) for task, resolved in found.items()}


def make_report(
    outcomes: Sequence[Outcome],
    *,
    benchmark: str,
    model: str,
    protocol: str = "",
    left_out: Sequence[Rejected] = (),
    prices: Prices | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """All figures of at least one outcome, every run over the same tasks. The method is told in `statistics`."""
    rates = task_rates(outcomes)
    numbers = sorted({outcome.run for outcome in outcomes})
    graders = [judgement.grader for judgement in outcomes[0].judgements]
    stops = Counter(outcome.effort.stop for outcome in outcomes if outcome.effort.stop)
    stops_resolved = Counter(outcome.effort.stop for outcome in outcomes if outcome.effort.stop and outcome.resolved)
    reasons = Counter(outcome.reason for outcome in outcomes)
    return Report(
        benchmark=benchmark,
        model=model,
        grader=graders[0],
        second_grader=graders[1] if len(graders) > 1 else "",
        protocol=protocol,
        tasks=len(rates),
        left_out=tuple(left_out),
        runs=tuple(_figures(number, outcomes, prices or Prices()) for number in numbers),
        mean=float(sum(rates.values()) / len(rates)),
        interval=rate_interval(tuple(rates.values())),
        always=sum(rate == 1 for rate in rates.values()),
        ever=sum(rate > 0 for rate in rates.values()),
        stops=counted(stops, ""),
        stops_resolved=counted(stops_resolved, ""),
        reasons=counted(reasons, ""),
        disagreements=tuple(disagreements(outcomes)),
        notes=(*notes, *_notes(rates, left_out, reasons)),
        outcomes=tuple(outcomes),
    )


def _figures(run: int, outcomes: Iterable[Outcome], prices: Prices) -> RunFigures:
    own = [outcome for outcome in outcomes if outcome.run == run]
    prompt, completion = sum(one.effort.prompt_tokens for one in own), sum(one.effort.completion_tokens for one in own)
    return RunFigures(
        run=run,
        tasks=len(own),
        resolved=sum(one.resolved for one in own),
        empty=sum(one.empty for one in own),
        steps=fmean(one.effort.steps for one in own),
        median_steps=median(one.effort.steps for one in own),
        prompt_tokens=prompt,
        completion_tokens=completion,
        hours=sum(one.effort.seconds for one in own) / 3600,
        policy_hours=sum(one.effort.policy_seconds for one in own) / 3600,
        cost=(prompt * prices.prompt + completion * prices.completion) / 1e6,
    )


def disagreements(outcomes: Iterable[Outcome]) -> Iterable[Disagreement]:
    """Where a second grader says otherwise than the first."""
    for outcome in outcomes:
        for other in outcome.judgements[1:]:
            if other.resolved != outcome.resolved:
                tampering = [*outcome.judgements[0].tampering, *other.tampering]
                yield Disagreement(
                    task=outcome.task,
                    run=outcome.run,
                    first=outcome.reason,
                    second=other.reason,
                    explained=", ".join(tampering),
                )


def _notes(rates: Mapping[str, Fraction], left_out: Sequence[Rejected], reasons: Mapping[str, int]) -> Iterable[str]:
    tasks = len(rates)
    if left_out:
        lowest = float(sum(rates.values()) / (tasks + len(left_out)))
        yield (
            f"{len(left_out)} of {tasks + len(left_out)} chosen tasks were left out, such as {left_out[0].id} "
            f"({left_out[0].reason}); counted as not resolved they make the rate {lowest:.1%}."
        )
    if reasons.get("grader-error"):
        yield (
            f"{reasons['grader-error']} attempts could not be graded (grader-error) and count as not resolved: run the "
            "same command again to grade them."
        )
    if reasons.get(NO_PREDICTION):
        yield f"{reasons[NO_PREDICTION]} tasks have no prediction and count as not resolved."
    if tasks < FEW_TASKS:
        yield f"{tasks} tasks are few: the interval says how little their rate tells of others."


def read_report(run: Path) -> Report:
    """The report of a finished evaluation. Raises UsageError."""
    path = run / FILE
    if not path.is_file():
        raise UsageError(f"{run} holds no {FILE}: give the directory of a finished `agentdata evaluate`.")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValueError as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not a report of this version of agentdata: {words}") from error
