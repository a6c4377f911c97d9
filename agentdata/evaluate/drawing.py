"""The figures of a report as an SVG picture: resolved rate with its interval, and how attempts ended."""

from collections.abc import Iterator, Sequence
from html import escape

from agentdata.evaluate.report import Report
from agentdata.records import Count

WIDTH, LEFT, GAP = 1060, 150, 70
"""Pixels: of the picture, before the first panel, and between panels."""
PANEL = 270
ROW = 30
TOP = 84
INK, FAINT, PAPER = "#1f2933", "#c5ced6", "#ffffff"
RESOLVED, OTHER, MEAN = "#2a7f62", "#d9dfe4", "#b3541e"
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
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        _text(20, 28, title, size=17, weight="600"),
        _text(20, 48, subtitle, fill="#5f6c78"),
        *_rates(report),
        *_ends("How attempts ended" if report.stops else "Verdicts", ends, resolved),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _rates(report: Report) -> Iterator[str]:
    """Runs as bars, the mean as a point with its interval."""
    bottom = TOP + ROW * (len(report.runs) + 1)
    yield _text(LEFT, TOP - 12, "Resolved", weight="600")
    for percent in (0, 25, 50, 75, 100):
        x = LEFT + PANEL * percent / 100
        yield _line(x, TOP, x, bottom + 4, FAINT)
        yield _text(x, bottom + 20, f"{percent}%", anchor="middle", fill="#5f6c78")
    for place, run in enumerate(report.runs):
        y = float(TOP + ROW * place)
        yield _text(LEFT - 10, y + 19, f"run {run.run}", anchor="end")
        yield _bar(LEFT, y + 6, PANEL * run.rate, RESOLVED)
        yield _text(LEFT + PANEL + 8, y + 19, f"{run.resolved}/{run.tasks}")
    y = bottom - ROW / 2
    low, mean, high = (LEFT + PANEL * value for value in (report.interval.low, report.mean, report.interval.high))
    yield _text(LEFT - 10, y + 4, "mean, 95% interval", anchor="end")
    yield _line(low, y, high, y, MEAN, width=2)
    yield from (_line(x, y - 6, x, y + 6, MEAN, width=2) for x in (low, high))
    yield f'<circle cx="{mean:.1f}" cy="{y:.1f}" r="5" fill="{MEAN}"/>'
    span = f"{100 * report.interval.low:.1f} to {100 * report.interval.high:.1f}"
    yield _text(LEFT + PANEL + 8, y + 4, f"{report.mean:.1%} ({span})", weight="600")


def _ends(title: str, ends: Sequence[Count], resolved: Sequence[Count]) -> Iterator[str]:
    """One bar for each way to end, its resolved part dark."""
    most = max(end.count for end in ends)
    good = {one.name: one.count for one in resolved}
    panel = WIDTH - SECOND - 60
    yield _text(SECOND, TOP - 12, title, weight="600")
    for place, end in enumerate(ends):
        y, width = TOP + ROW * place, panel * end.count / most
        yield _text(SECOND - 10, y + 19, end.name, anchor="end")
        yield _bar(SECOND, y + 6, width, OTHER)
        yield _bar(SECOND, y + 6, width * good.get(end.name, 0) / end.count, RESOLVED)
        yield _text(SECOND + width + 8, y + 19, str(end.count))
    y = TOP + ROW * len(ends) + 16
    for x, colour, word in ((SECOND, RESOLVED, "resolved"), (SECOND + 90, OTHER, "not resolved")):
        yield f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 15, y + 10, word, fill="#5f6c78")


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: str = "400", fill: str = INK
) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{ROW - 12}" rx="2" fill="{colour}"/>'
