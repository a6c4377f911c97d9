"""A run of trajectories to a run of training rows: which attempts train, how often, and what of them.

RUN/xml, RUN/messages, RUN/tokens   rows by rendering
RUN/tallies                         how often each task was solved
RUN/rejected                        attempts that became no row, and why
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from agentdata.errors import UsageError, explain_os_error
from agentdata.journal import GENERATOR
from agentdata.progress import Progress
from agentdata.records import SCHEMA_VERSION, Manifest, Rejected, Shard, TaskTally, Trajectory
from agentdata.rollouts.samples import Renderer
from agentdata.rollouts.view import ViewRecipe
from agentdata.runs import locked, settle
from agentdata.shards import (
    UnitOutput,
    collect,
    counted,
    marker_path,
    read_manifest,
    read_rows,
    remove_unfinished,
    write_whole,
)
from agentdata.tokens import token_counter

NOT_GRADED = "not-graded"
TRAJECTORIES = "trajectories"
STAGE = "views"
TALLIES = "tallies"


# Choosing


def tally(trajectories: Iterable[Trajectory]) -> list[TaskTally]:
    """How often each task was solved, in the order in which tasks occur."""
    found: dict[str, TaskTally] = {}
    for trajectory in trajectories:
        before = found.get(trajectory.task) or TaskTally(
            task=trajectory.task, repo=trajectory.repo, attempts=0, resolved=0, ungraded=0, band="ungraded"
        )
        graded = trajectory.verdict.reason != NOT_GRADED
        found[trajectory.task] = before.model_copy(
            update={
                "attempts": before.attempts + graded,
                "resolved": before.resolved + trajectory.verdict.resolved,
                "ungraded": before.ungraded + (not graded),
            }
        )
    return [_banded(one) for one in found.values()]


def _banded(one: TaskTally) -> TaskTally:
    if not one.attempts:
        return one
    band = "never" if not one.resolved else "always" if one.resolved == one.attempts else "sometimes"
    return one.model_copy(update={"band": band})


def judge(view: ViewRecipe, trajectory: Trajectory, resolved: int) -> Rejected | None:
    """Why an attempt becomes no row, or None. `resolved` is how many attempts at its task resolved it."""
    for reason, detail in _objections(view, trajectory, resolved):
        return Rejected(id=trajectory.id, repo=trajectory.repo, stage=STAGE, reason=reason, detail=detail)
    return None


def _objections(view: ViewRecipe, trajectory: Trajectory, resolved: int) -> Iterator[tuple[str, str]]:
    verdict, band = trajectory.verdict, view.resolved_attempts
    if view.outcomes != "all" and verdict.reason == NOT_GRADED:
        yield NOT_GRADED, "no grader has spoken"
    if view.outcomes == "passing" and not verdict.resolved:
        yield "failed", verdict.reason
    if band and not band[0] <= resolved <= band[1]:
        yield "out-of-band", f"{resolved} attempts resolved the task"
    if view.stops and trajectory.stop not in view.stops:
        yield "stop-reason", trajectory.stop
    if view.drop_leaks and trajectory.leaks:
        yield "leak", trajectory.leaks[0]
    if view.drop_tampering and verdict.tampering:
        yield "tampering", verdict.tampering[0]


# The run


def make_samples(run: Path, source: Path, view: ViewRecipe) -> Manifest:
    """Make the rows of a view into the directory `run`, a shard at a time; the same call continues.

    Raises UsageError, RunError.
    """
    shards = shards_of(source)
    with locked(run, (1, 1)):
        digests = [shard.sha256 for shard in shards]
        settle(
            run,
            {"generator": GENERATOR, "options": {"source": str(source), "shards": digests, "view": view.model_dump()}},
        )
        if (run / "manifest.json").is_file():
            return read_manifest(run)
        remove_unfinished(run)
        tallies = tally(_read(source, shards))
        resolved = {one.task: one.resolved for one in tallies}
        renderer = Renderer(view, *token_counter(view.tokenizer, view.bytes_per_token))
        total = sum(shard.rows for shard in shards)
        with Progress("choosing", total, unit="attempts") as progress:
            for number, shard in enumerate(shards):
                if not marker_path(run, _unit(number)).exists():
                    _make_unit(run, _unit(number), _read(source, [shard]), renderer, resolved)
                progress.advance(shard.rows)
        _write_unit(run, TALLIES, lambda output: _write_tallies(output, tallies))
        return _finish(run, [*map(_unit, range(len(shards))), TALLIES])


def _unit(number: int) -> str:
    return f"{number:05}"


def shards_of(source: Path) -> Sequence[Shard]:
    """The shards of a run's trajectories. Raises UsageError where there are none."""
    table = next((table for table in read_manifest(source).tables if table.name == TRAJECTORIES), None)
    if table is None:
        raise UsageError(
            f"{source} holds no trajectories: give a run of `agentdata harvest environmental` or of an import."
        )
    return table.shards


def _read(source: Path, shards: Iterable[Shard]) -> Iterator[Trajectory]:
    for shard in shards:
        yield from read_rows(source / shard.path, Trajectory)


def _make_unit(
    run: Path, unit: str, trajectories: Iterable[Trajectory], renderer: Renderer, resolved: dict[str, int]
) -> None:
    def write(output: UnitOutput) -> None:
        for trajectory in trajectories:
            output.counts["attempts"] += 1
            rejected = judge(renderer.view, trajectory, resolved[trajectory.task])
            if rejected:
                _reject(output, rejected)
            else:
                _keep(output, trajectory, renderer)

    _write_unit(run, unit, write)


def _write_unit(run: Path, unit: str, write: Callable[[UnitOutput], None]) -> None:
    try:
        with UnitOutput(run, unit) as output:
            write(output)
    except OSError as error:
        raise explain_os_error(error, f"writing {run}") from error


def _reject(output: UnitOutput, rejected: Rejected) -> None:
    output.write("rejected", rejected)
    output.counts[f"rejected/{rejected.stage}/{rejected.reason}"] += 1


def _keep(output: UnitOutput, trajectory: Trajectory, renderer: Renderer) -> None:
    view = renderer.view
    output.counts["kept"] += 1
    output.counts[f"kept/{'passing' if trajectory.verdict.resolved else 'failing'}"] += 1
    for rendering in view.renderings:
        sample = renderer.render(rendering, trajectory)
        if isinstance(sample, Rejected):
            _reject(output, sample)
            continue
        for repetition in range(view.repeat_passing if trajectory.verdict.resolved else 1):
            again = {"id": f"{sample.id}-{repetition}", "repetition": repetition} if repetition else {}
            output.write(rendering, sample.model_copy(update=again))
            output.counts[f"samples/{rendering}"] += 1
            output.counts[f"samples/{rendering}/repeated"] += bool(repetition)
            output.counts[f"tokens/{rendering}"] += sample.tokens
            output.counts[f"tokens/{rendering}/trained"] += sample.trained_tokens


def _write_tallies(output: UnitOutput, tallies: Iterable[TaskTally]) -> None:
    for one in tallies:
        output.write(TALLIES, one)
        output.counts["tasks"] += 1
        output.counts[f"tasks/{one.band}"] += 1


def _finish(run: Path, units: list[str]) -> Manifest:
    tables, counts = collect(run, units)
    shown = [
        count for count in counted(counts, "") if not count.name.startswith(("rejected/", "tokens/")) and count.count
    ]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator=GENERATOR,
        configuration=(run / "config.json").read_text(encoding="utf-8"),
        tables=tables,
        counts=tuple(shown),
        rejections=counted(counts, "rejected/"),
        tokens=counted(counts, "tokens/"),
    )
    write_whole(run / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest
