"""The figures of a report as an SVG picture: resolved rate with its interval, and how attempts ended."""

from collections.abc import Iterator, Sequence

from agentdata.drawing import line, picture, rect, text
from agentdata.evaluate.report import Report
from agentdata.records import Count

WIDTH, LEFT, GAP = 1060, 150, 70
"""Pixels: of the picture, before the first panel, and between panels."""
PANEL = 270
ROW = 30
TOP = 84
SIZE = 13
"""Of letters."""
RESOLVED, OTHER, MEAN = "three", "pale", "two"
SECOND = LEFT + PANEL + GAP + 220
"""Where the second panel begins."""


def draw(report: Report) -> str:
    """The picture, as the text of an SVG file."""
    ends = report.stops or report.reasons
    resolved = report.stops_resolved if report.stops else [one for one in report.reasons if one.name == "resolved"]
    height = TOP + ROW * max(len(report.runs) + 1, len(ends)) + 60
    title = f"{report.model} on {report.benchmark}"
    subtitle = f"{report.tasks} tasks, {len(report.runs)} run{'s' * (len(report.runs) > 1)}, graded by {report.grader}"
    parts = [
        text(20, 28, title, size=17, bold=True),
        text(20, 48, subtitle, size=SIZE, colour="soft"),
        *_rates(report),
        *_ends("How attempts ended" if report.stops else "Verdicts", ends, resolved),
    ]
    told = f"{report.mean:.1%} resolved; " + "; ".join(f"{end.name}: {end.count}" for end in ends)
    return picture(WIDTH, height, title, told, parts, alone=True)


def _rates(report: Report) -> Iterator[str]:
    """Runs as bars, the mean as a point with its interval."""
    bottom = TOP + ROW * (len(report.runs) + 1)
    yield text(LEFT, TOP - 12, "Resolved", size=SIZE, bold=True)
    for percent in (0, 25, 50, 75, 100):
        x = LEFT + PANEL * percent / 100
        yield line(x, TOP, x, bottom + 4, "faint")
        yield text(x, bottom + 20, f"{percent}%", size=SIZE, anchor="middle", colour="soft")
    for place, run in enumerate(report.runs):
        y = float(TOP + ROW * place)
        yield text(LEFT - 10, y + 19, f"run {run.run}", size=SIZE, anchor="end")
        yield _bar(LEFT, y + 6, PANEL * run.rate, RESOLVED)
        yield text(LEFT + PANEL + 8, y + 19, f"{run.resolved}/{run.tasks}", size=SIZE)
    y = bottom - ROW / 2
    low, mean, high = (LEFT + PANEL * value for value in (report.interval.low, report.mean, report.interval.high))
    yield text(LEFT - 10, y + 4, "mean, 95% interval", size=SIZE, anchor="end")
    yield line(low, y, high, y, MEAN, width=2)
    yield from (line(x, y - 6, x, y + 6, MEAN, width=2) for x in (low, high))
    yield f'<circle cx="{mean:.1f}" cy="{y:.1f}" r="5" class="f-{MEAN}"/>'
    span = f"{100 * report.interval.low:.1f} to {100 * report.interval.high:.1f}"
    yield text(LEFT + PANEL + 8, y + 4, f"{report.mean:.1%} ({span})", size=SIZE, bold=True)


def _ends(title: str, ends: Sequence[Count], resolved: Sequence[Count]) -> Iterator[str]:
    """One bar for each way to end, its resolved part dark."""
    most = max(end.count for end in ends)
    good = {one.name: one.count for one in resolved}
    panel = WIDTH - SECOND - 60
    yield text(SECOND, TOP - 12, title, size=SIZE, bold=True)
    for place, end in enumerate(ends):
        y, width = TOP + ROW * place, panel * end.count / most
        yield text(SECOND - 10, y + 19, end.name, size=SIZE, anchor="end")
        yield _bar(SECOND, y + 6, width, OTHER)
        yield _bar(SECOND, y + 6, width * good.get(end.name, 0) / end.count, RESOLVED)
        yield text(SECOND + width + 8, y + 19, str(end.count), size=SIZE)
    y = TOP + ROW * len(ends) + 16
    for x, colour, word in ((SECOND, RESOLVED, "resolved"), (SECOND + 90, OTHER, "not resolved")):
        yield rect(x, y, 10, 10, colour)
        yield text(x + 15, y + 10, word, size=SIZE, colour="soft")


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return rect(x, y, width, ROW - 12, colour)
