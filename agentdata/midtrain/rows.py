"""A plan to packed rows on disk, in shards that are finished or not begun."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from agentdata.errors import AgentdataError, explain_os_error
from agentdata.midtrain.packed import PackedFile, PackedShard, row_types
from agentdata.midtrain.plan import PIECE, Plan
from agentdata.midtrain.setting import Setting
from agentdata.midtrain.spool import ArrayFiles
from agentdata.progress import Progress
from agentdata.shards import marker_path, write_whole
from agentdata.stages import run_jobs


@dataclass(frozen=True)
class RowsJob:
    """Write one shard of packed rows."""

    setting: Setting
    name: str
    first: int
    last: int
    """First row, and the row behind the last."""
    units: tuple[str, ...]
    kind_places: tuple[tuple[int, ...], ...]
    """For each unit, the places of its kinds among all kinds."""


@dataclass(frozen=True)
class WrittenRows:
    """The shards of all rows, and what is in them."""

    shards: tuple[PackedShard, ...]
    counts: npt.NDArray[np.int64]
    """Tokens and trained tokens of each kind."""


def write_all_rows(
    setting: Setting, plan: Plan, units: Sequence[str], kind_places: Sequence[Sequence[int]], workers: int
) -> WrittenRows:
    """Write the shards that are not written yet.

    units: names of the tokenised units. kind_places: for each, the places of its kinds among all kinds.
    """
    _write_plan(setting, plan)
    size = max(1, setting.recipe.shard_tokens // setting.recipe.row_length)
    places = tuple(map(tuple, kind_places))
    jobs = [
        RowsJob(setting, f"{number:05}", first, min(first + size, plan.rows), tuple(units), places)
        for number, first in enumerate(range(0, plan.rows, size))
    ]
    owed = [job for job in jobs if not marker_path(setting.run, f"rows-{job.name}").is_file()]
    done = plan.rows - sum(job.last - job.first for job in owed)
    with Progress("packing", plan.rows, done=done, unit="rows") as progress:
        for rows in run_jobs(owed, write_rows, workers=min(workers, max(1, len(owed)))):
            progress.advance(rows)
    markers = [json.loads(marker_path(setting.run, f"rows-{job.name}").read_text()) for job in jobs]
    return WrittenRows(
        shards=tuple(PackedShard.model_validate(marker["shard"]) for marker in markers),
        counts=np.sum([marker["kinds"] for marker in markers], axis=0, dtype=np.int64),
    )


def _write_plan(setting: Setting, plan: Plan) -> None:
    with ArrayFiles(setting.spool, "plan", {"pieces": PIECE, "rows": "<u8"}) as arrays:
        arrays.write("pieces", plan.pieces)
        arrays.write("rows", plan.first_pieces)


def write_rows(job: RowsJob) -> int:
    """Write one shard of packed rows; returns how many."""
    try:
        return _write_shard(job)
    except AgentdataError:
        raise
    except OSError as error:
        raise explain_os_error(error, f"writing packed rows to {job.setting.run}") from error


def _write_shard(job: RowsJob) -> int:
    setting = job.setting
    spool = setting.spool
    bounds = np.fromfile(spool / "plan.rows", np.uint64)[job.first : job.last + 1].astype(np.int64)
    pieces = np.fromfile(
        spool / "plan.pieces", PIECE, count=int(bounds[-1] - bounds[0]), offset=int(bounds[0]) * PIECE.itemsize
    )
    bounds -= bounds[0]
    filler = _Filler(job)
    with ArrayFiles(setting.run / "rows", job.name, row_types(setting.id_type, setting.position_type)) as files:
        for begin, end in pairwise(bounds):
            for part, values in filler.fill(pieces[begin:end]).items():
                files.write(part, values)
        files.write("pieces", pieces)
        files.write("first", bounds)
    shard = PackedShard(
        name=job.name,
        rows=job.last - job.first,
        files=tuple(
            PackedFile(name=name, bytes=size, sha256=digest) for name, (size, digest) in sorted(files.digests().items())
        ),
    )
    marker = {"shard": shard.model_dump(), "kinds": filler.counts.tolist()}
    write_whole(marker_path(setting.run, f"rows-{job.name}"), json.dumps(marker) + "\n")
    return shard.rows


class _Filler:
    """Fills one row after another from the units' arrays."""

    def __init__(self, job: RowsJob) -> None:
        self._job = job
        self._spool = job.setting.spool
        size = job.setting.recipe.row_length
        self._arange = np.arange(size, dtype=np.uint32)
        self._places = [np.array(places, np.uint8) for places in job.kind_places]
        self._ids, self._positions = np.empty(size, np.uint32), np.empty(size, np.uint32)
        self._train, self._kinds = np.empty(size, np.bool_), np.empty(size, np.uint8)
        self.counts = np.zeros((256, 2), np.int64)
        """Tokens and trained tokens of each kind."""

    def fill(self, pieces: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """The arrays of one row; they are overwritten by the next."""
        place = 0
        for piece in pieces:
            size, unit = int(piece["tokens"]), int(piece["unit"])
            here = slice(place, place + size)
            self._ids[here] = self._read(unit, "ids", np.uint32, piece)
            self._train[here] = self._read(unit, "train", np.bool_, piece)
            self._kinds[here] = self._places[unit][self._read(unit, "kinds", np.uint8, piece)]
            self._positions[here] = self._arange[:size]
            self._train[place] = False
            place += size
        self._ids[place:] = self._job.setting.pad_id
        self._train[place:] = False
        self._kinds[place:] = 0
        self._positions[place:] = self._arange[: len(self._arange) - place]
        self.counts[:, 0] += np.bincount(self._kinds, minlength=256)
        self.counts[:, 1] += np.bincount(self._kinds[self._train], minlength=256)
        return {"ids": self._ids, "train": self._train, "kinds": self._kinds, "positions": self._positions}

    def _read(self, unit: int, part: str, kind: type[np.generic], piece: Any) -> npt.NDArray[Any]:
        # Read, not mapped: what is mapped counts as this process's memory for as long as it is cached.
        path = self._spool / f"{self._job.units[unit]}.{part}"
        offset = int(piece["offset"]) * np.dtype(kind).itemsize
        return np.fromfile(path, kind, count=int(piece["tokens"]), offset=offset)
