"""Two evaluations to what can be said about their difference, task by task."""

from collections.abc import Iterator

from agentdata.errors import UsageError
from agentdata.evaluate.report import Report, task_rates
from agentdata.evaluate.statistics import Interval, difference_interval, sign_flip_test
from agentdata.records import Record

SIGNIFICANT = 0.05


class Comparison(Record):
    """Two models on the tasks that both were measured on; differences are second minus first."""

    first: str
    second: str
    tasks: int
    first_mean: float
    second_mean: float
    difference: float
    interval: Interval
    p: float
    """Of the paired test, two-sided."""
    test: str
    only_first: tuple[str, ...]
    """Tasks that some run of the first resolved, and none of the second."""
    only_second: tuple[str, ...]
    conclusion: str
    notes: tuple[str, ...]


def compare(first: Report, second: Report, *, names: tuple[str, str]) -> Comparison:
    """Compare over the common tasks; the method is told in `statistics`. `names` are used in the words.

    Raises UsageError when they have no task in common.
    """
    rates, others = task_rates(first.outcomes), task_rates(second.outcomes)
    common = [task for task in rates if task in others]
    if not common:
        raise UsageError(
            f"{names[0]} and {names[1]} have no task in common: compare runs of one benchmark "
            f"({first.benchmark} and {second.benchmark} were given)."
        )
    differences = [others[task] - rates[task] for task in common]
    difference = float(sum(differences) / len(common))
    interval, p = difference_interval(differences), sign_flip_test(differences)
    single = len(first.runs) == len(second.runs) == 1
    return Comparison(
        first=names[0],
        second=names[1],
        tasks=len(common),
        first_mean=float(sum(rates[task] for task in common) / len(common)),
        second_mean=float(sum(others[task] for task in common) / len(common)),
        difference=difference,
        interval=interval,
        p=p,
        test="exact McNemar" if single else "exact paired permutation (sign flips)",
        only_first=tuple(task for task in common if rates[task] > 0 and not others[task]),
        only_second=tuple(task for task in common if others[task] > 0 and not rates[task]),
        conclusion=conclude(names, len(common), difference, interval, p),
        notes=tuple(_notes(first, second, len(common))),
    )


def conclude(names: tuple[str, str], tasks: int, difference: float, interval: Interval, p: float) -> str:
    """What may be said, and what may not."""
    first, second = names
    points, chance = f"{100 * abs(difference):.1f} points", _share(p)
    span = f"from {100 * interval.low:+.1f} to {100 * interval.high:+.1f} points for {second} over {first}"
    if p < SIGNIFICANT:
        better, worse = (second, first) if difference > 0 else (first, second)
        return (
            f"{better} resolves more of tasks like these {tasks} than {worse}, by {points}: chance alone gives so much in "
            f"{chance} of all cases. How much more is less certain: {span}. Nothing is said of other kinds of tasks, or of "
            "another training run."
        )
    return (
        f"No difference is shown: chance alone gives {points} or more on these {tasks} tasks in {chance} of all cases. "
        f"Nor is it shown that both are equal: anything {span} fits what was seen. More tasks, or more runs of each, would "
        "tell more."
    )


def _share(p: float) -> str:
    return f"{100 * p:.2g}%" if p >= 0.0001 else "less than 0.01%"


def _notes(first: Report, second: Report, common: int) -> Iterator[str]:
    if (first.tasks, second.tasks) != (common, common):
        yield f"Only the {common} common tasks are compared, of {first.tasks} and {second.tasks}."
    if first.grader != second.grader:
        yield f"The graders differ: {first.grader} and {second.grader}; grade both alike before you conclude anything."
    if first.protocol != second.protocol:
        yield "The protocols differ (recipe, or predictions that were given): the difference is theirs too, not the models'."
    if len(first.runs) != len(second.runs):
        yield (
            f"There are {len(first.runs)} and {len(second.runs)} runs: the test takes both sides for interchangeable, "
            "which then holds only roughly."
        )
