"""Files of trajectories to a run of them, in shards of some hundred rows: RUN/trajectories and RUN/rejected."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from agentdata.errors import explain_os_error
from agentdata.journal import GENERATOR
from agentdata.progress import Progress
from agentdata.records import SCHEMA_VERSION, Manifest, Rejected, Trajectory
from agentdata.rollouts.formats.exchange import find_files, read_trajectories
from agentdata.runs import locked, settle
from agentdata.shards import UnitOutput, collect, counted, read_manifest, remove_unfinished, write_whole

UNIT_ROWS = 512


def import_trajectories(run: Path, given: Sequence[Path]) -> Manifest:
    """Read files into the directory `run`. A stopped import begins again. Raises UsageError, RunError."""
    files = find_files(given)
    with locked(run, (1, 1)):
        settle(run, {"generator": GENERATOR, "options": {"files": [str(file) for file in files]}})
        if (run / "manifest.json").is_file():
            return read_manifest(run)
        remove_unfinished(run)
        units: list[str] = []
        with Progress("importing", len(files), unit="files") as progress:
            rows = read_trajectories(_told(files, progress))
            for first in rows:
                units.append(f"{len(units):05}")
                _write_unit(run, units[-1], chain([first], islice(rows, UNIT_ROWS - 1)))
        return _finish(run, units)


def _told(files: Sequence[Path], progress: Progress) -> Iterator[Path]:
    """The files, each counted when the next is asked for."""
    for file in files:
        yield file
        progress.advance(1)


def _write_unit(run: Path, unit: str, rows: Iterator[Trajectory | Rejected]) -> None:
    try:
        with UnitOutput(run, unit) as output:
            for row in rows:
                if isinstance(row, Rejected):
                    output.write("rejected", row)
                    output.counts[f"rejected/{row.stage}/{row.reason}"] += 1
                    continue
                output.write("trajectories", row)
                output.counts["trajectories"] += 1
                output.counts["steps"] += len(row.steps)
                output.counts[f"stops/{row.stop}"] += 1
                output.counts[f"verdicts/{row.verdict.reason}"] += 1
    except OSError as error:
        raise explain_os_error(error, f"writing {run}") from error


def _finish(run: Path, units: list[str]) -> Manifest:
    tables, counts = collect(run, units)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator=GENERATOR,
        configuration=(run / "config.json").read_text(encoding="utf-8"),
        tables=tables,
        counts=tuple(count for count in counted(counts, "") if not count.name.startswith("rejected/")),
        rejections=counted(counts, "rejected/"),
        tokens=(),
    )
    write_whole(run / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest
