"""Trajectories and verdicts to their figures: pass rates, endings, effort, tools, time."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agentdata.evaluate.telling import Grid
from agentdata.report.columns import Rows, column, count, equal, flat, sums_of_lists
from agentdata.report.figures import folded, funnel, ranking, spread, those
from agentdata.report.numbers import TIMES, duration, share, short
from agentdata.report.page import Figure, Section, Tile

TRAJECTORIES = frozenset({"steps", "stop", "task", "repo", "seconds", "verdict"})
VERDICTS = frozenset({"task", "resolved", "reason", "test_seconds"})
NOT_GRADED = "not-graded"
LEAVES = (
    "task",
    "repo",
    "licence",
    "model",
    "scaffold",
    "stop",
    "seconds",
    "leaks",
    "verdict.resolved",
    "verdict.reason",
    "verdict.seconds",
    "verdict.tampering",
    "steps.prompt_tokens",
    "steps.completion_tokens",
    "steps.seconds",
    "steps.tool_calls.function.name",
    "steps.observations.status",
    "steps.observations.seconds",
)

GROUPS = ("task", "repo", "licence", "model", "scaffold", "stop", "verdict.reason")
"""Columns by whose values attempts are counted."""


@dataclass
class _Sums:
    """What is added up over trajectories."""

    by: dict[str, Counter[Any]] = field(default_factory=lambda: {name: Counter() for name in GROUPS})
    """Attempts by the value of a column."""
    resolved: dict[str, Counter[Any]] = field(default_factory=lambda: {name: Counter() for name in GROUPS})
    """Those of them that resolved their task."""
    graded: Counter[str] = field(default_factory=Counter)
    """Graded attempts by task."""
    steps: Counter[int] = field(default_factory=Counter)
    drawn: Counter[int] = field(default_factory=Counter)
    """Attempts by the tokens that the policy wrote."""
    read: Counter[int] = field(default_factory=Counter)
    """Attempts by the tokens of all their prompts."""
    seconds: Counter[float] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    leaks: Counter[str] = field(default_factory=Counter)
    tampering: Counter[str] = field(default_factory=Counter)
    time: Counter[str] = field(default_factory=Counter)
    """Time by what it was spent on."""


def trajectories(rows: Rows) -> Section:
    """Attempts of policies at tasks."""
    sums = _Sums()
    for batch in rows.batches(*LEAVES):
        _add(sums, batch)
    graded, resolved = sums.graded.total(), sums.resolved["task"].total()
    total = sum(value * number for value, number in sums.seconds.items())
    return Section(
        "Attempts",
        f"{short(rows.count)} attempts at {short(len(sums.by['task']))} tasks.",
        tiles=(
            Tile("attempts", short(rows.count), f"at {short(len(sums.by['task']))} tasks"),
            Tile("resolved", share(resolved, graded), f"{resolved:,} of {graded:,} graded"),
            Tile("tokens written", short(_total(sums.drawn)), f"{short(_total(sums.drawn) / rows.count)} per attempt"),
            Tile("tokens read", short(_total(sums.read)), "in all prompts"),
            Tile("time", duration(total), "of all attempts, one after the other"),
        ),
        figures=those(*_figures(sums, rows.count)),
        grids=(("Pass rate of each task", _tasks(sums)),),
        remarks=tuple(_remarks(sums)),
    )


def _add(sums: _Sums, batch: pa.RecordBatch) -> None:
    good = column(batch, "verdict.resolved")
    for name in GROUPS:
        values = column(batch, name)
        count(sums.by[name], values)
        count(sums.resolved[name], pc.filter(values, good))
    reasons = column(batch, "verdict.reason")
    graded: Any = pc.invert(equal(reasons, NOT_GRADED))
    count(sums.graded, pc.filter(column(batch, "task"), graded))
    steps = batch.column("steps")
    count(sums.steps, pc.list_value_length(steps))
    sums.drawn.update(sums_of_lists(steps, "completion_tokens"))
    sums.read.update(sums_of_lists(steps, "prompt_tokens"))
    count(sums.seconds, pc.round(batch.column("seconds"), 1))
    count(sums.tools, flat(batch, "steps.tool_calls.function.name"))
    count(sums.statuses, flat(batch, "steps.observations.status"))
    for counts, leaf in ((sums.leaks, "leaks"), (sums.tampering, "verdict.tampering")):
        texts = _flat_texts(column(batch, leaf))
        counts.update(text.partition(":")[0] for text in texts)
    for name, leaf in (
        ("policy", "steps.seconds"),
        ("tools", "steps.observations.seconds"),
        ("grading", "verdict.seconds"),
    ):
        sums.time[name] += pc.sum(flat(batch, leaf)).as_py() or 0


def _flat_texts(lists: Any) -> list[str]:
    found: list[str] = [] if lists is None else pc.list_flatten(lists).to_pylist()
    return found


def _figures(sums: _Sums, attempts: int) -> list[Figure | None]:
    parts = {name: ("resolved", "not resolved", sums.resolved[name]) for name in GROUPS}
    return [
        funnel(
            "From attempts to solutions",
            [
                ("attempts", attempts),
                ("graded", sums.graded.total()),
                ("resolved", sums.resolved["task"].total()),
            ],
        ),
        ranking("How attempts stopped", sums.by["stop"], "attempts", parts=parts["stop"]),
        ranking("Verdicts of attempts", sums.by["verdict.reason"], "attempts"),
        _bands(sums),
        ranking("Attempts by repository", sums.by["repo"], "attempts", parts=parts["repo"]),
        ranking("Attempts by licence", sums.by["licence"], "attempts", parts=parts["licence"]),
        ranking("Attempts by model", sums.by["model"], "attempts", parts=parts["model"]),
        ranking("Attempts by scaffold", sums.by["scaffold"], "attempts", parts=parts["scaffold"])
        if len(sums.by["scaffold"]) > 1
        else None,
        spread("Steps per attempt", sums.steps, "attempts"),
        spread("Tokens written per attempt", sums.drawn, "attempts"),
        spread("Tokens read per attempt", sums.read, "attempts", words="Over the prompts of all steps."),
        ranking("Calls of tools", sums.tools, "calls"),
        ranking("Exit status of calls", _statuses(sums.statuses), "calls"),
        spread("Time per attempt", sums.seconds, "attempts", form=duration, edges=TIMES),
        _times(sums.time),
        ranking("Commands that looked for what must not be there", sums.leaks, "commands"),
        ranking("Changes to what grades, undone", sums.tampering, "changes"),
    ]


def _total(counts: Mapping[int, int]) -> int:
    return sum(value * number for value, number in counts.items())


def _statuses(counts: Mapping[int, int]) -> dict[str, int]:
    return {"0 (went well)" if status == 0 else str(status): number for status, number in counts.items()}


def _bands(sums: _Sums) -> Figure | None:
    """Tasks by how often they were resolved."""
    bands = Counter[str]()
    for task, graded in sums.graded.items():
        good = sums.resolved["task"][task]
        bands["never" if not good else "always" if good == graded else "sometimes"] += 1
    return ranking("Tasks by how often they were resolved", bands, "tasks")


def _times(seconds: Mapping[str, float]) -> Figure | None:
    whole = {name: round(value) for name, value in seconds.items() if round(value)}
    return ranking("Time by what it was spent on", whole, "seconds", form=duration)


def _tasks(sums: _Sums) -> Grid:
    rows = [
        (task, f"{number:,}", f"{sums.resolved['task'][task]:,}", share(sums.resolved["task"][task], sums.graded[task]))
        for task, number in sorted(sums.by["task"].items())
    ]
    return Grid(("task", "attempts", "resolved", "rate"), tuple(folded(rows)))


def _remarks(sums: _Sums) -> list[str]:
    found = []
    if owed := sums.by["verdict.reason"][NOT_GRADED]:
        found.append(f"{owed:,} attempts are not graded; rates are of the graded ones.")
    return found


def verdicts(rows: Rows) -> Section:
    """What the grader found for submissions."""
    reasons, good, seconds, tampering = Counter[str](), 0, Counter[float](), Counter[str]()
    models, resolved = Counter[str](), Counter[str]()
    for batch in rows.batches("model", "resolved", "reason", "test_seconds", "tampering"):
        count(reasons, column(batch, "reason"))
        count(models, column(batch, "model"))
        count(resolved, pc.filter(column(batch, "model"), column(batch, "resolved")))
        good += pc.sum(column(batch, "resolved")).as_py() or 0
        count(seconds, pc.round(column(batch, "test_seconds"), 1))
        tampering.update(text.partition(":")[0] for text in _flat_texts(column(batch, "tampering")))
    return Section(
        "Verdicts",
        f"{good:,} of {rows.count:,} submissions resolve their task.",
        tiles=(Tile("resolved", share(good, rows.count), f"{good:,} of {rows.count:,}"),),
        figures=those(
            ranking("Reasons of verdicts", reasons, "submissions"),
            ranking("Submissions by model", models, "submissions", parts=("resolved", "not resolved", resolved)),
            spread("Time of the tests", seconds, "submissions", form=duration, edges=TIMES),
            ranking("Changes to what grades, undone", tampering, "changes"),
        ),
    )
