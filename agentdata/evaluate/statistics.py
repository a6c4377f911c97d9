"""What outcomes say about the rate behind them, and about the difference of two.

Tasks are what is drawn from a larger population: a task's rate is the share of its attempts that resolved it, and
attempts at one task are never taken for independent tasks.

Interval: the percentile bootstrap over tasks (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
Tasks are drawn with replacement, as many as there are, 10,000 times from a seeded generator; the interval holds the
middle 95% of the means. Where all tasks are alike resampling sees no spread. Then the exact bound takes its place on the
share of tasks that none of n was one of (Clopper and Pearson, Biometrika 26, 1934): these may have any value.

Test: the sign-flip permutation test of paired differences (Fisher, The Design of Experiments, 1935, chapter 3), exact:
the share of the 2^n ways of swapping the two sides, task by task, whose difference is at least as large as the observed
one. With one attempt for each task and side it is the exact test of McNemar (Psychometrika 12, 1947): the binomial test
of the tasks that only one side resolves.
"""

import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from statistics import fmean

from agentdata.records import Record

LEVEL = 0.95
RESAMPLES = 10_000
SEED = 0
BOOTSTRAP = "percentile bootstrap over tasks"
EXACT = "exact bound, all tasks being alike"


class Interval(Record):
    """Where the value behind an estimate lies, at the level of 95%."""

    low: float
    high: float
    method: str


def rate_interval(rates: Sequence[Fraction]) -> Interval:
    """The interval of the mean rate of tasks. Raises ValueError without tasks."""
    return _exact(rates, 0.0) if len(set(rates)) == 1 else bootstrap(rates)


def difference_interval(differences: Sequence[Fraction]) -> Interval:
    """The interval of the mean difference of paired rates. Raises ValueError without tasks."""
    return _exact(differences, -1.0) if len(set(differences)) == 1 else bootstrap(differences)


def bootstrap(values: Sequence[Fraction], *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """The percentile interval of a mean. Raises ValueError without values."""
    if not values:
        raise ValueError("an interval needs at least one task")
    draw = random.Random(seed)
    numbers = [float(value) for value in values]
    means = sorted(fmean(draw.choices(numbers, k=len(numbers))) for _ in range(resamples))
    tail = (1 - LEVEL) / 2
    return Interval(low=_quantile(means, tail), high=_quantile(means, 1 - tail), method=BOOTSTRAP)


def sign_flip_test(differences: Sequence[Fraction]) -> float:
    """The two-sided p-value of paired differences, exact."""
    unit = lcm(*(difference.denominator for difference in differences))
    steps = [int(difference * unit) for difference in differences if difference]
    ways = Counter({0: 1})
    for step in steps:
        further: Counter[int] = Counter()
        for total, count in ways.items():
            further[total + step] += count
            further[total - step] += count
        ways = further
    observed = abs(sum(steps))
    extreme = sum(count for total, count in ways.items() if abs(total) >= observed)
    return float(Fraction(extreme, 2 ** len(steps)))


def _exact(values: Sequence[Fraction], lowest: float) -> Interval:
    """The interval of a mean of equal values, which may lie between `lowest` and 1."""
    value = float(values[0])
    most_others = 1 - ((1 - LEVEL) / 2) ** (1 / len(values))
    return Interval(low=value - most_others * (value - lowest), high=value + most_others * (1 - value), method=EXACT)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the neighbours, as in numpy."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
