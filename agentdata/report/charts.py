"""Bars, columns and curves as SVG, their names and values beside them.

Everything is drawn for a width of 360 pixels, so that letters stay readable on a narrow page.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agentdata.drawing import line, picture, rect, text

WIDTH = 360
LETTER = 6.9
"""Pixels that a letter takes on average at the size of labels."""
ROW = 36
"""Pixels from one bar to the next: a line of words, and the bar below it."""
COLOURS = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its words."""

    name: str
    value: float
    label: str
    part: float | None = None
    """What of the value is drawn in colour, the rest being pale; all of it where there is none."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a histogram."""

    name: str
    """Where it begins, as the axis tells it."""
    value: float
    label: str
    title: str
    """What is said of it to whoever points at it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points, in the order of their first coordinate."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    """First coordinate, lowest and highest value: drawn pale behind the line."""


def bars(title: str, rows: Sequence[Bar], *, parts: tuple[str, str] | None = None) -> str:
    """A bar for each row, its name and label above it. parts: what coloured and pale parts are called."""
    most = max((row.value for row in rows), default=0) or 1
    top = 24 if parts else 4
    return picture(
        WIDTH,
        top + ROW * len(rows) + 2,
        title,
        "; ".join(f"{row.name}: {row.label}" for row in rows),
        [*(_legend(parts) if parts else ()), *(part for y, row in _rows(rows, top) for part in _bar(row, y, most))],
    )


def _rows(rows: Sequence[Bar], top: int) -> Iterator[tuple[int, Bar]]:
    return ((top + ROW * place, row) for place, row in enumerate(rows))


def _legend(parts: tuple[str, str]) -> Iterator[str]:
    second = 26 + LETTER * len(parts[0]) + 16
    for x, colour, name in ((0.0, "one", parts[0]), (second, "pale", parts[1])):
        yield rect(x, 3, 10, 10, colour)
        yield text(x + 15, 12, name, colour="soft")


def _bar(row: Bar, y: int, most: float) -> Iterator[str]:
    shown = shortened(row.name, int((WIDTH - LETTER * len(row.label) - 12) / LETTER))
    yield text(0, y + 13, shown, title=row.name if shown != row.name else "")
    yield text(WIDTH, y + 13, row.label, anchor="end", colour="soft")
    yield rect(0, y + 19, WIDTH, 9, "track")
    if row.part is not None:
        yield rect(0, y + 19, WIDTH * row.value / most, 9, "pale")
    yield rect(0, y + 19, WIDTH * (row.value if row.part is None else row.part) / most, 9, "one")


def columns(
    title: str, rows: Sequence[Column], *, marks: Sequence[tuple[float, str]] = (), end: str = "", height: int = 150
) -> str:
    """Columns side by side. marks: places, in columns from the left, with a word each. end: where the last one ends."""
    most = max((row.value for row in rows), default=0) or 1
    wide, top = WIDTH / max(1, len(rows)), 34
    parts = []
    for place, row in enumerate(rows):
        high = height * row.value / most
        parts.append(rect(place * wide + 0.5, top + height - high, max(1.0, wide - 1), high, "one", title=row.title))
    parts.append(line(0, top + height, WIDTH, top + height, "soft"))
    parts += _under(rows, wide, top + height + 16, end)
    parts += _marks(marks, wide, top, height)
    if not marks:
        parts += [
            _over(row, (place + 0.5) * wide, top + height * (1 - row.value / most) - 5) for place, row in _peaks(rows)
        ]
    return picture(WIDTH, top + height + 22, title, "; ".join(row.title for row in rows if row.value), parts)


def _peaks(rows: Sequence[Column]) -> list[tuple[int, Column]]:
    """Columns with their value above them: all where there is room, else the highest."""
    if len(rows) <= 8:
        return [(place, row) for place, row in enumerate(rows) if row.value]
    return [max(enumerate(rows), key=lambda pair: pair[1].value)]


def _over(row: Column, x: float, y: float) -> str:
    half = LETTER * len(row.label) / 2
    return text(min(max(x, half), WIDTH - half), y, row.label, anchor="middle", colour="soft")


def _under(rows: Sequence[Column], wide: float, y: float, end: str) -> Iterator[str]:
    """Names at the left edges, or below the middle where no end is given; as many as fit."""
    longest = max((len(row.name) for row in rows), default=1)
    # The first name is moved to the right, so as not to begin outside.
    each = max(1, math.ceil((1.5 * LETTER * longest + 8) / wide))
    for place, row in enumerate(rows):
        x = place * wide
        room = x + LETTER * (len(row.name) + len(end)) + 14 < WIDTH if end else True
        if place % each == 0 and room:
            middle = (x + wide / 2) if not end else x
            half = LETTER * len(row.name) / 2
            yield text(min(max(middle, half), WIDTH - half), y, row.name, anchor="middle", colour="soft")
    if end:
        yield text(WIDTH, y, end, anchor="end", colour="soft")


def _marks(marks: Sequence[tuple[float, str]], wide: float, top: int, height: int) -> Iterator[str]:
    for number, (place, word) in enumerate(marks):
        x, y = place * wide, 11 + 13 * (number % 2)
        yield line(x, y + 3, x, top + height, "two", dashed=True)
        right = x + LETTER * len(word) + 6 > WIDTH
        yield text(x - 4 if right else x + 4, y, word, anchor="end" if right else "start", colour="two")


def curves(
    title: str,
    lines: Sequence[Curve],
    *,
    form: Callable[[float], str],
    across: str = "step",
    form_across: Callable[[float], str] = "{:,.0f}".format,
    from_zero: bool = False,
    height: int = 190,
) -> str:
    """Curves with their names at their ends. form: how values are told; from_zero: whether the axis begins at zero."""
    lines = [one for one in lines if one.points]
    if not lines:
        return ""
    ys = [y for one in lines for _, y in one.points] + [y for one in lines for _, *pair in one.band for y in pair]
    marks = ticks(0.0 if from_zero else min(ys), max(ys))
    xs = [x for one in lines for x, _ in one.points]
    named = len(lines) > 1
    left = 8 + LETTER * max(len(form(mark)) for mark in marks)
    right = 14 + (LETTER * min(14, max(len(one.name) for one in lines)) if named else 0)
    frame = _Frame((min(xs), max(xs)), (marks[0], marks[-1]), left, 12, WIDTH - left - right, height)
    parts = [*_axes(frame, marks, form, across, form_across)]
    for number, one in enumerate(lines):
        parts += _curve(one, frame, COLOURS[number % len(COLOURS)])
    if named:
        parts += _names(lines, frame)
    told = "; ".join(f"{one.name}: from {form(one.points[0][1])} to {form(one.points[-1][1])}" for one in lines)
    return picture(WIDTH, height + 48, title, told, parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values lie on the picture."""

    across: tuple[float, float]
    up: tuple[float, float]
    left: float
    top: float
    width: float
    height: float

    def x(self, value: float) -> float:
        low, high = self.across
        return self.left + self.width * ((value - low) / (high - low) if high > low else 0.5)

    def y(self, value: float) -> float:
        low, high = self.up
        return self.top + self.height * (1 - (value - low) / ((high - low) or 1))


def _axes(
    frame: _Frame,
    marks: Sequence[float],
    form: Callable[[float], str],
    across: str,
    form_across: Callable[[float], str],
) -> Iterator[str]:
    for mark in marks:
        yield line(frame.left, frame.y(mark), frame.left + frame.width, frame.y(mark), "faint")
        yield text(frame.left - 6, frame.y(mark) + 4, form(mark), anchor="end", colour="soft")
    bottom = frame.top + frame.height
    low, high = frame.across
    for mark in [low, high] if high > low else [low]:
        anchor = "middle" if high == low else "start" if mark == low else "end"
        yield text(frame.x(mark), bottom + 17, form_across(mark), anchor=anchor, colour="soft")
    yield text(frame.left + frame.width / 2, bottom + 32, across, anchor="middle", colour="soft")


def _curve(one: Curve, frame: _Frame, colour: str) -> Iterator[str]:
    if one.band:
        there = [f"{frame.x(x):.1f} {frame.y(high):.1f}" for x, _, high in one.band]
        back = [f"{frame.x(x):.1f} {frame.y(low):.1f}" for x, low, _ in reversed(one.band)]
        yield f'<path class="f-{colour}" opacity="0.18" d="M{"L".join([*there, *back])}Z"/>'
    if len(one.points) > 1:
        path = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in one.points)
        yield f'<path class="l-{colour}" stroke-width="1.8" stroke-linejoin="round" d="M{path}"/>'
    if len(one.points) <= 12:
        for x, y in one.points:
            yield f'<circle class="f-{colour}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.6"/>'


def _names(lines: Sequence[Curve], frame: _Frame) -> Iterator[str]:
    """Names beside the ends of their curves, pushed apart where they would lie over one another."""
    ends = sorted((frame.y(one.points[-1][1]), number) for number, one in enumerate(lines))
    places = [y for y, _ in ends]
    for place in range(1, len(places)):
        places[place] = max(places[place], places[place - 1] + 13)
    excess = max(0.0, places[-1] - (frame.top + frame.height + 4))
    for y, (_, number) in zip(places, ends, strict=True):
        name = shortened(lines[number].name, 14)
        title = lines[number].name if name != lines[number].name else ""
        x, y, anchor = frame.left + frame.width + 6, y - excess + 4, "start"
        end = frame.x(lines[number].points[-1][0])
        if end < x - 18:  # A curve that ends before the others is named above its end.
            x, y, anchor = end, _highest(lines[number], frame, end - LETTER * len(name)) - 6, "end"
        yield text(x, y, name, anchor=anchor, colour=COLOURS[number % len(COLOURS)], title=title)


def _highest(one: Curve, frame: _Frame, left: float) -> float:
    """Where a curve and its band are highest on the picture, from a place to the end."""
    values = [(x, y) for x, y in one.points] + [(x, high) for x, _, high in one.band]
    return min(frame.y(y) for x, y in values if frame.x(x) >= left)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values, from at most `low` to at least `high`, evenly apart."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-290):
        high = low + (abs(low) if abs(low) > 1e-9 else 1)
    step = round_step((high - low) / (most - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 2.5, 5, 10) if power * digit >= least * (1 - 1e-9))


def shortened(words: str, most: int) -> str:
    """At most so many letters, the middle left out."""
    if len(words) <= most:
        return words
    kept = max(2, most - 1)
    return f"{words[: kept - kept // 2]}…{words[len(words) - kept // 2 :]}"
