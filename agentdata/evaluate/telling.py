"""Reports and comparisons as tables of words: for the terminal and for Markdown, from the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentdata.evaluate.compare import Comparison
from agentdata.evaluate.report import Report, RunFigures

MOST_LISTED = 20
PICTURE = "report.svg"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its head, and its rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(report: Report) -> str:
    """The figure, with what belongs to it."""
    runs = f"{len(report.runs)} run{'s' * (len(report.runs) > 1)}"
    low, high = f"{report.interval.low:.1%}", f"{report.interval.high:.1%}"
    return (
        f"{report.model} resolves {report.mean:.1%} of {report.benchmark} (95% interval {low} to {high}, "
        f"{report.interval.method}; {report.tasks} tasks, {runs}, graded by {report.grader})"
    )


def runs_grid(report: Report) -> Grid:
    """One row for each run: score, what was submitted, what it took. Columns that would be empty are left out."""
    head: tuple[str, ...] = ("run", "resolved", "rate", "empty patches")
    columns = [[_score(run) for run in report.runs]]
    if report.stops:
        head += ("steps (median)", "tokens in", "tokens out", "attempt hours", "of these policy")
        columns.append([_effort(run) for run in report.runs])
    if any(run.cost for run in report.runs):
        head += ("cost", "cost per resolved")
        columns.append([_cost(run) for run in report.runs])
    return Grid(head, tuple(tuple(cell for part in parts for cell in part) for parts in zip(*columns, strict=True)))


def _score(run: RunFigures) -> tuple[str, ...]:
    empty = f"{run.empty} ({run.empty / run.tasks:.1%})"
    return str(run.run), f"{run.resolved}/{run.tasks}", f"{run.rate:.1%}", empty


def _effort(run: RunFigures) -> tuple[str, ...]:
    steps = f"{run.steps:.1f} ({run.median_steps:.0f})"
    return steps, f"{run.prompt_tokens:,}", f"{run.completion_tokens:,}", f"{run.hours:.2f}", f"{run.policy_hours:.2f}"


def _cost(run: RunFigures) -> tuple[str, ...]:
    return f"{run.cost:,.2f}", f"{run.cost / run.resolved:,.2f}" if run.resolved else "-"


def ends_grid(report: Report) -> Grid:
    """How attempts stopped, and how many of them were resolved."""
    resolved = {one.name: one.count for one in report.stops_resolved}
    rows = tuple((stop.name, str(stop.count), str(resolved.get(stop.name, 0))) for stop in report.stops)
    return Grid(("stop reason", "attempts", "resolved"), rows)


def reasons_grid(report: Report) -> Grid:
    """What the grader gave as reasons."""
    return Grid(("verdict", "attempts"), tuple((reason.name, str(reason.count)) for reason in report.reasons))


def remarks(report: Report) -> list[str]:
    """What stands below the tables."""
    said = []
    if len(report.runs) > 1:
        said.append(f"{report.ever} tasks were resolved by some run, {report.always} by every run.")
    if report.second_grader:
        agreed = len(report.outcomes) - len(report.disagreements)
        said.append(f"{report.second_grader} agrees on {agreed} of {len(report.outcomes)} verdicts.")
        said += [
            f"{one.task}, run {one.run}: {one.first} and {one.second}{f' ({one.explained})' if one.explained else ''}."
            for one in report.disagreements[:MOST_LISTED]
        ]
    return [*said, *report.notes]


def report_markdown(report: Report) -> str:
    """The report as a Markdown file that shows the picture beside it."""
    grids = [runs_grid(report), *([ends_grid(report)] if report.stops else []), reasons_grid(report)]
    parts = [f"# {report.model} on {report.benchmark}", f"{headline(report)}.", f"![figures]({PICTURE})"]
    parts += [_markdown(grid) for grid in grids]
    left_out = [f"left out {one.id}: {one.reason}: {one.detail}" for one in report.left_out]
    parts.append("\n".join(f"- {remark}" for remark in [*remarks(report), *left_out]))
    return "\n\n".join(parts) + "\n"


def _markdown(grid: Grid) -> str:
    lines = [grid.head, tuple("---" for _ in grid.head), *grid.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def comparison_text(comparison: Comparison) -> str:
    """A comparison in lines."""
    interval = comparison.interval
    lines = [
        f"{comparison.first}: {comparison.first_mean:.1%}   {comparison.second}: {comparison.second_mean:.1%}   "
        f"over the same {comparison.tasks} tasks",
        f"difference {100 * comparison.difference:+.1f} points, 95% interval {100 * interval.low:+.1f} to "
        f"{100 * interval.high:+.1f} ({interval.method}), p = {comparison.p:.3g} ({comparison.test})",
        f"resolved only by {comparison.first}: {_listed(comparison.only_first)}",
        f"resolved only by {comparison.second}: {_listed(comparison.only_second)}",
        "",
        comparison.conclusion,
        *comparison.notes,
    ]
    return "\n".join(lines)


def _listed(tasks: Sequence[str]) -> str:
    more = f" and {len(tasks) - MOST_LISTED} more" if len(tasks) > MOST_LISTED else ""
    return f"{len(tasks)}{': ' if tasks else ''}{', '.join(tasks[:MOST_LISTED])}{more}"
