"""Values with their counts to quantiles, and to bins with round borders."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from agentdata.report.charts import round_step

MOST_BINS = 24
UNEVEN = 12
"""How many times the median the largest value is where bins grow with the values."""
DIGITS = (1, 1.5, 2, 3, 5, 7)
"""Where bins that grow begin, in each power of ten."""


@dataclass(frozen=True, slots=True)
class Bin:
    """How many values are at least `low` and below `high`."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Distribution:
    """At least one value, none negative, with how often each occurs."""

    counts: Mapping[float, int]
    round_edges: tuple[float, ...] = ()
    """Where bins may begin; without any, at round numbers."""

    @cached_property
    def values(self) -> list[float]:
        """All that occur, in order."""
        return sorted(self.counts)

    @cached_property
    def rows(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @cached_property
    def total(self) -> float:
        """Their sum."""
        return math.fsum(value * count for value, count in self.counts.items())

    @property
    def mean(self) -> float:
        """Their mean."""
        return self.total / self.rows

    def quantile(self, part: float) -> float:
        """The smallest value that at least this part of all is not above."""
        left = part * self.rows
        for value in self.values:
            left -= self.counts[value]
            if left <= 1e-9:
                return value
        return self.values[-1]

    def bins(self) -> list[Bin]:
        """All values, in bins of one width, or growing ones where the largest is far from the median."""
        edges = self._edges()
        counts = [0] * (len(edges) - 1)
        for value, count in self.counts.items():
            counts[min(bisect_right(edges, value) - 1, len(counts) - 1)] += count
        return [Bin(low, high, count) for low, high, count in zip(edges, edges[1:], counts, strict=False)]

    @cached_property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(float(value).is_integer() for value in self.values)

    def _edges(self) -> list[float]:
        low, high = self.values[0], self.values[-1]
        first, last = (bisect_right(self.round_edges, value) for value in (low, high))
        if last - first > 2:
            return [*self.round_edges[max(0, first - 1) : last], self.round_edges[min(last, len(self.round_edges) - 1)]]
        if high > UNEVEN * max(self.quantile(0.5), 1) and high > MOST_BINS:
            return self._growing(low, high)
        width = round_step(max((high - low) / (MOST_BINS - 2), 1e-9)) if high > low else 1.0
        if self.whole:
            width = float(max(1, math.ceil(width)))
        first, last = math.floor(low / width), math.floor(high / width) + 1
        # What division rounds may lie just outside.
        first -= round(first * width, 9) > low
        last += round(last * width, 9) <= high
        return [round(number * width, 9) for number in range(first, last + 1)]

    def _growing(self, low: float, high: float) -> list[float]:
        begin = math.floor(math.log10(max(low, 1)))
        powers = range(begin, math.ceil(math.log10(high)) + 1)
        edges = [digit * 10.0**power for power in powers for digit in DIGITS]
        edges = [edge for edge in edges if edge.is_integer() or not self.whole]
        first = max(0, bisect_right(edges, low) - 1)
        last = bisect_right(edges, high)
        return ([0.0] if low < edges[first] else []) + edges[first : last + 1]

    def place(self, value: float) -> float:
        """Where a value lies among the bins, in bins from the left."""
        for number, one in enumerate(self.bins()):
            if value < one.high:
                # A whole number has a column, or a part of one, to itself.
                return number + (value - one.low + 0.5 * self.whole) / (one.high - one.low)
        return float(len(self.bins()))
