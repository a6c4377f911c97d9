"""The report of an evaluation to its page: rates, how attempts ended, what they took."""

import json
from collections import Counter
from pathlib import Path

from agentdata.evaluate.report import Report
from agentdata.evaluate.telling import Grid, effort_grid, headline, remarks, score_grid
from agentdata.report.figures import folded, ranking, spread, those
from agentdata.report.numbers import TIMES, duration, share, short
from agentdata.report.page import Figure, Page, Section, Tile

PARTS = ("resolved", "not resolved")


def page(run: Path, report: Report) -> Page:
    """The page of a finished evaluation."""
    return Page(
        run.resolve().name,
        "evaluation",
        (
            Tile(
                "resolved",
                f"{report.mean:.1%}",
                f"95% interval {report.interval.low:.1%} to {report.interval.high:.1%}",
            ),
            Tile("tasks", short(report.tasks), report.benchmark),
            Tile("runs", short(len(report.runs))),
            *_effort(report),
        ),
        (_scores(report), _attempts(report)),
        "agentdata evaluate",
        json.dumps(json.loads(report.protocol or "{}"), indent=1, ensure_ascii=False) if report.protocol else "",
    )


def _effort(report: Report) -> list[Tile]:
    hours, cost = sum(run.hours for run in report.runs), sum(run.cost for run in report.runs)
    tokens = sum(run.completion_tokens for run in report.runs)
    found = [Tile("time", duration(3600 * hours), "of all attempts, one after the other")] if hours else []
    found += [Tile("tokens written", short(tokens))] if tokens else []
    return [*found, *([Tile("cost", f"{cost:,.2f}", "in the currency of the prices")] if cost else [])]


def _scores(report: Report) -> Section:
    runs = {f"run {run.run}": run.tasks for run in report.runs}
    resolved = {f"run {run.run}": run.resolved for run in report.runs}
    return Section(
        "Result",
        f"{headline(report)}.",
        figures=those(ranking("Resolved by run", runs, "tasks", parts=(*PARTS, resolved)), _by_times(report)),
        grids=(("Runs", score_grid(report)),),
        remarks=tuple(remarks(report)),
    )


def _by_times(report: Report) -> Figure | None:
    bands = {
        "in every run": report.always,
        "in some": report.ever - report.always,
        "never": report.tasks - report.ever,
    }
    return ranking("Tasks by how often they were resolved", {name: n for name, n in bands.items() if n}, "tasks")


def _attempts(report: Report) -> Section:
    efforts = [one.effort for one in report.outcomes if one.effort.stop]
    stops = {one.name: one.count for one in report.stops}
    good = {one.name: one.count for one in report.stops_resolved}
    return Section(
        "Attempts",
        figures=those(
            ranking("How attempts stopped", stops, "attempts", parts=(*PARTS, good)),
            ranking("Verdicts", {one.name: one.count for one in report.reasons}, "attempts"),
            spread("Steps per attempt", Counter(one.steps for one in efforts), "attempts"),
            spread("Tokens written per attempt", Counter(one.completion_tokens for one in efforts), "attempts"),
            spread(
                "Time per attempt",
                Counter(round(one.seconds, 1) for one in efforts),
                "attempts",
                form=duration,
                edges=TIMES,
            ),
            ranking("Tasks left out, by reason", Counter(one.reason for one in report.left_out), "tasks"),
        ),
        grids=(*([("Effort of each run", effort_grid(report))] if efforts else []), ("Tasks", _tasks(report))),
    )


def _tasks(report: Report) -> Grid:
    runs, resolved = Counter[str](), Counter[str]()
    for one in report.outcomes:
        runs[one.task] += 1
        resolved[one.task] += one.resolved
    rows = [
        (task, f"{runs[task]:,}", f"{resolved[task]:,}", share(resolved[task], runs[task])) for task in sorted(runs)
    ]
    return Grid(("task", "runs", "resolved", "rate"), tuple(folded(rows)))
