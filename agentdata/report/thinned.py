"""A measure that is taken at each of many steps to a curve of few points."""

import math
from dataclasses import dataclass, field
from typing import Any

from agentdata.report.charts import Curve

MOST_POINTS = 240
"""Points of a curve; where there are more steps, a point stands for the mean of several."""


@dataclass
class Thinned:
    """A measure over steps, in at most MOST_POINTS means, however many come."""

    width: int = 1
    """Steps that a mean is of."""
    sums: dict[int, list[float]] = field(default_factory=dict)
    """By place: steps, their sum, their count, lowest, highest."""

    def add(self, step: int, value: Any) -> None:
        """Count a value; what is none, or not finite, is left out."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return
        self._put(step // self.width, [step, value, 1, value, value])
        while len(self.sums) > MOST_POINTS:
            self._halve()

    def _put(self, place: int, new: list[float]) -> None:
        old = self.sums.get(place)
        self.sums[place] = (
            new
            if old is None
            else [*(a + b for a, b in zip(old[:3], new[:3], strict=True)), min(old[3], new[3]), max(old[4], new[4])]
        )

    def _halve(self) -> None:
        old, self.sums, self.width = self.sums, {}, 2 * self.width
        for place, sums in old.items():
            self._put(place // 2, sums)

    def thinned_to(self, width: int) -> "Thinned":
        """Itself, with means of at least so many steps."""
        while self.width < width:
            self._halve()
        return self

    def curve(self, name: str) -> Curve:
        """Means, with the lowest and highest behind them where they are means of several."""
        told = [sums for _, sums in sorted(self.sums.items())]
        points = [(steps / number, total / number) for steps, total, number, _, _ in told]
        band = [(steps / number, low, high) for steps, _, number, low, high in told] if self.width > 1 else []
        return Curve(name, points, band)

    @property
    def last(self) -> float:
        """The last mean."""
        _, total, number, _, _ = self.sums[max(self.sums)]
        return total / number
