"""A run of trajectories to what a person wants to know of it before training on it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from agentdata.records import TaskTally, Trajectory
from agentdata.rollouts.views import tally

MOST_NAMED = 20
"""Tasks of one kind that are named."""


def report_lines(trajectories: Iterable[Trajectory]) -> Iterator[str]:
    """Attempts, endings, verdicts, tokens, and how often tasks were solved, with those that never or always were."""
    counts: Counter[str] = Counter()
    tallies = tally(_counting(trajectories, counts))
    yield f"{counts['attempts']:,} attempts at {len(tallies):,} tasks, {counts['resolved']:,} resolved"
    for name in ("steps", "sampled tokens", "leaking", "tampering"):
        yield f"  {counts[name]:,} {name}"
    for prefix in ("stops/", "verdicts/"):
        for name, count in counts.most_common():
            if name.startswith(prefix):
                yield f"  {count:,} {name}"
    yield from band_lines(tallies)


def _counting(trajectories: Iterable[Trajectory], counts: Counter[str]) -> Iterator[Trajectory]:
    for trajectory in trajectories:
        counts["attempts"] += 1
        counts["resolved"] += trajectory.verdict.resolved
        counts["steps"] += len(trajectory.steps)
        counts["sampled tokens"] += sum(step.completion_tokens for step in trajectory.steps)
        counts["leaking"] += bool(trajectory.leaks)
        counts["tampering"] += bool(trajectory.verdict.tampering)
        counts[f"stops/{trajectory.stop}"] += 1
        counts[f"verdicts/{trajectory.verdict.reason}"] += 1
        yield trajectory


def band_lines(tallies: Sequence[TaskTally]) -> Iterator[str]:
    """How many tasks were solved how often, and the names of those that never or always were."""
    bands = Counter((one.resolved, one.attempts) for one in tallies if one.attempts)
    for (resolved, attempts), count in sorted(bands.items()):
        yield f"  {count:,} tasks solved in {resolved} of {attempts}"
    for band in ("never", "always", "ungraded"):
        names = [one.task for one in tallies if one.band == band]
        if names:
            more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
            yield f"{band}: {', '.join(names[:MOST_NAMED])}{more}"
