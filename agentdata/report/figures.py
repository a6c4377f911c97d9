"""Counts to figures: rankings, spreads, years and funnels, each drawn, told in a sentence, and tabled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agentdata.evaluate.telling import Grid
from agentdata.report.charts import Bar, Column, Curve, bars, columns, curves
from agentdata.report.distributions import Distribution
from agentdata.report.numbers import counted, share, short
from agentdata.report.page import Figure

MOST_BARS = 10
MOST_ROWS = 200
"""Rows of a table before those in its middle are summed up."""
TAIL_ROWS = 10
UNKNOWN = "unknown"
Form = Callable[[float], str]


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Names with their counts, the most frequent first."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))


def ranking(
    title: str,
    counts: Mapping[str, int],
    unit: str,
    *,
    words: str = "",
    parts: tuple[str, str, Mapping[str, int]] | None = None,
    others: Sequence[tuple[str, Mapping[str, int]]] = (),
    whole: int = 0,
    form: Form = short,
) -> Figure | None:
    """Names by how often they occur; None where there are none.

    parts: what of each count is drawn in colour and what is pale, and the coloured counts. others: further columns of
    the table. whole: what shares are of, where that is not the sum of the counts. form: how counts are told.
    """
    found = ranked(counts)
    if not found:
        return None
    of = whole or sum(counts.values())
    good = parts[2] if parts else {}
    shown = found if len(found) <= MOST_BARS + 1 else found[:MOST_BARS]
    drawn = [
        Bar(name or UNKNOWN, number, f"{form(good.get(name, 0))} of {form(number)}", good.get(name, 0))
        if parts
        else Bar(name or UNKNOWN, number, f"{form(number)} · {share(number, of)}")
        for name, number in shown
    ]
    if len(found) == 1:
        ((_, number),) = found
        every = "all " * (number == of > 1) + (counted(number, unit) if form is short else form(number))
        return Figure(title, f"{drawn[0].name}: {f'{drawn[0].label} {unit} {parts[0]}' if parts else every}.")
    rest = sum(number for _, number in found[len(shown) :])
    folds = f"The other {short(len(found) - len(shown))} have {share(rest, sum(counts.values()))} of the {unit}."
    more = [*([(parts[0], good)] if parts else []), *others]
    head = ("name", unit, *(name for name, _ in more), "share")
    rows = [(name or UNKNOWN, f"{number:,}", *_cells(name, more), share(number, of)) for name, number in found]
    told = f"{words} {folds if rest else ''}".strip()
    return Figure(title, told, bars(title, drawn, parts=parts[:2] if parts else None), Grid(head, tuple(folded(rows))))


def _cells(name: str, more: Sequence[tuple[str, Mapping[str, int]]]) -> Iterable[str]:
    return (f"{counts.get(name, 0):,}" for _, counts in more)


def folded(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Top and tail of a long table."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    middle = len(rows) - MOST_ROWS
    between = (f"… {middle:,} more …", *("" for _ in rows[0][1:]))
    return [*rows[: MOST_ROWS - TAIL_ROWS], between, *rows[-TAIL_ROWS:]]


def spread(
    title: str,
    counts: Mapping[Any, int],
    unit: str,
    *,
    form: Form = short,
    words: str = "",
    edges: Sequence[float] = (),
) -> Figure | None:
    """How values are spread; None where there are none. unit: what has such a value, as `samples`; edges: round
    numbers to begin bins at, where they are not those of counts."""
    if not counts:
        return None
    if len(counts) == 1:
        only = next(iter(counts))
        return Figure(title, f"{words} {form(only)} for all {short(counts[only])} {unit}.".strip())
    found = Distribution(counts, tuple(edges))
    bins = found.bins()
    told = {name: found.quantile(part) for name, part in (("median", 0.5), ("90%", 0.9))}
    drawn = [
        Column(form(one.low), one.count, short(one.count), f"{form(one.low)} to {form(one.high)}: {one.count:,} {unit}")
        for one in bins
    ]
    marks = [(found.place(value), f"{name} {form(value)}") for name, value in told.items()] if len(bins) > 2 else []
    sentence = (
        f"Median {form(told['median'])}, nine in ten up to {form(told['90%'])}, largest {form(found.values[-1])}, "
        f"mean {form(round(found.mean, 2))}."
    )
    grid = Grid(
        ("from", "to below", unit, "share"),
        tuple((form(one.low), form(one.high), f"{one.count:,}", share(one.count, found.rows)) for one in bins),
    )
    picture = columns(title, drawn, marks=marks, end=form(bins[-1].high))
    return Figure(title, f"{words} {sentence}".strip(), picture, grid)


def by_year(title: str, counts: Mapping[int, int], unit: str) -> Figure | None:
    """Counts by year, years without any included; None where there are none."""
    if not counts:
        return None
    drawn = [
        Column(str(year), counts.get(year, 0), short(counts.get(year, 0)), f"{year}: {counts.get(year, 0):,} {unit}")
        for year in _span(counts)
    ]
    rows = tuple((str(year), f"{counts[year]:,}", share(counts[year], sum(counts.values()))) for year in sorted(counts))
    return Figure(title, "", columns(title, drawn), Grid(("year", unit, "share"), rows))


def _span(counts: Mapping[int, int]) -> Iterable[int]:
    """All years from the first to the last, or those that occur where a history claims times of another age."""
    first, last = min(counts), max(counts)
    return range(first, last + 1) if last - first < 60 else sorted(counts)


def funnel(title: str, steps: Sequence[tuple[str, int]], *, words: str = "") -> Figure | None:
    """What is left from step to step, as shares of the first; None where nothing begins."""
    steps = [(name, number) for name, number in steps if number or name == steps[0][0]]
    if not steps or not steps[0][1]:
        return None
    first = steps[0][1]
    drawn = [Bar(name, number, f"{short(number)} · {share(number, first)}") for name, number in steps]
    rows = tuple((name, f"{number:,}", share(number, first)) for name, number in steps)
    return Figure(title, words, bars(title, drawn), Grid(("step", "count", f"share of {steps[0][0]}"), rows))


def trend(
    title: str,
    lines: Sequence[Curve],
    *,
    form: Form,
    words: str = "",
    across: str = "step",
    from_zero: bool = False,
    digits: Form | None = None,
) -> Figure | None:
    """Curves over steps; None where no curve has a point. digits: how the table tells values."""
    lines = [one for one in lines if one.points]
    if not lines:
        return None
    rows = [(one.name, f"{x:,.0f}", (digits or form)(y)) for one in lines for x, y in one.points]
    picture = curves(title, lines, form=form, across=across, from_zero=from_zero)
    return Figure(title, words, picture, Grid(("curve", across, "value"), tuple(folded(rows))))


def those(*figures: Figure | None) -> tuple[Figure, ...]:
    """The figures that there are."""
    return tuple(figure for figure in figures if figure is not None)
