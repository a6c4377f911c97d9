"""A packing: sources to tokenised units, all of them to a plan, the plan to packed rows.

Both tokenising and writing rows are done in units that are finished or not begun; the plan between them is computed again
whenever it is needed. Stopped at any moment, the same command gives the same bytes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agentdata import __version__
from agentdata.errors import AgentdataError, RunError, UsageError, explain_os_error
from agentdata.midtrain.documents import DocumentMaker, described
from agentdata.midtrain.encoding import Choice, PlainEncoder, choose, make_encoder
from agentdata.midtrain.inputs import Unit, find_units, read_unit
from agentdata.midtrain.ledger import Ledger, TokenKind
from agentdata.midtrain.packed import (
    PADDING,
    PackedFile,
    PackedShard,
    PackManifest,
    read_pack_manifest,
    row_types,
)
from agentdata.midtrain.plan import PIECE, Plan, PlannedUnit, make_plan
from agentdata.midtrain.recipe import PackRecipe
from agentdata.midtrain.rendering import RowError, make_template
from agentdata.midtrain.spool import ARRAYS, ArrayFiles, SpoolWriter
from agentdata.midtrain.tokenizer import TokenizerFiles, read_tokenizer
from agentdata.progress import Progress
from agentdata.records import Count, Rejected
from agentdata.runs import locked, settle
from agentdata.shards import ShardWriter, marker_path, remove_unfinished, write_whole
from agentdata.stages import run_jobs

PROVED_ROWS = 32
PROVED_UNITS = 8
"""Rows of each of so many units on which the encoder is compared with the tokenizer."""
SpecialIds = tuple[int, ...]
SPOOL = "tokens"
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Setting:
    """What every unit of a packing is made with."""

    run: Path
    recipe: PackRecipe
    choice: Choice
    start: SpecialIds
    end: SpecialIds
    """Tokens before and after a text."""
    pad_id: int
    most_id: int


@dataclass(frozen=True)
class EncodeJob:
    """Tokenise one unit."""

    setting: Setting
    unit: Unit


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


def pack(output: Path, recipe: PackRecipe, *, workers: int = 1) -> PackManifest:
    """Pack the rows of a recipe into a directory, or finish what was begun there. Raises UsageError or RunError."""
    files = read_tokenizer(recipe.tokenizer, recipe.chat_template)
    units = [
        unit
        for number, source in enumerate(recipe.sources)
        for unit in find_units(source, number, recipe.unit_megabytes * MEGABYTE)
    ]
    around = _special_ids(files, recipe)
    _check_template(files, recipe, units)
    with locked(output, (1, 1)):
        settle(output, _configuration(recipe, files, units))
        if not (output / "manifest.json").is_file():
            remove_unfinished(output)
            setting = _setting(output, recipe, files, units, around)
            _tokenise(setting, units, workers)
            _write_rows(setting, files, units, workers)
        shutil.rmtree(output / SPOOL, ignore_errors=True)
        return read_pack_manifest(output)


def _check_template(files: TokenizerFiles, recipe: PackRecipe, units: Sequence[Unit]) -> None:
    """Raise UsageError for conversations without a chat template, or one that is none, before any work is done."""
    template = make_template(files, recipe.template_variables)
    for unit in units:
        columns = recipe.sources[unit.source].columns
        if unit.first == 0 and columns.messages in next(read_unit(unit, columns), {}):
            if not template.source:
                raise UsageError(
                    f"{unit.path} holds conversations and the tokenizer {files.name!r} has no chat template: set "
                    "chat_template to a file."
                )
            template.check()


def _configuration(recipe: PackRecipe, files: TokenizerFiles, units: Sequence[Unit]) -> dict[str, object]:
    sizes = {str(unit.path): unit.path.stat().st_size for unit in units}
    return {
        "generator": f"agentdata {__version__}",
        "options": recipe.model_dump(mode="json"),
        "tokenizer": {"sha256": files.sha256, "settings": files.settings, "chat_template": files.chat_template},
        "inputs": [f"{path}: {size} bytes" for path, size in sizes.items()],
    }


def _setting(
    output: Path,
    recipe: PackRecipe,
    files: TokenizerFiles,
    units: Sequence[Unit],
    around: tuple[SpecialIds, SpecialIds],
) -> Setting:
    pad = files.special("pad_token") or files.special("eos_token")
    vocabulary = [*files.definition["model"].get("vocab", {}).values(), *(token.id for token in files.added)]
    return Setting(
        run=output,
        recipe=recipe,
        choice=_choice(output, recipe, files, units),
        start=around[0],
        end=around[1],
        pad_id=files.id_of(pad) if pad else 0,
        most_id=max(vocabulary),
    )


def _choice(output: Path, recipe: PackRecipe, files: TokenizerFiles, units: Sequence[Unit]) -> Choice:
    """The encoder, chosen once for each packing."""
    path = output / "encoder.json"
    if path.is_file():
        return Choice(**json.loads(path.read_text()))
    choice = choose(files, _some_texts(recipe, units))
    write_whole(path, json.dumps(vars(choice)) + "\n")
    return choice


def _some_texts(recipe: PackRecipe, units: Sequence[Unit]) -> Iterator[str]:
    for unit in units[:: max(1, len(units) // PROVED_UNITS)]:
        # A unit that cannot be read is told of when it is its turn, and those before it are finished.
        with suppress(RunError):
            for row in islice(read_unit(unit, recipe.sources[unit.source].columns), PROVED_ROWS):
                for value in row.values():
                    yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.isascii() or value.encode("utf-8", "replace").decode() == value:
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _special_ids(files: TokenizerFiles, recipe: PackRecipe) -> tuple[SpecialIds, SpecialIds]:
    """The tokens before and after a text: what the tokenizer puts before one, and the recipe's document end."""
    start = PlainEncoder(files).before
    if recipe.document_end == "none":
        return start, ()
    text = files.special("eos_token") if recipe.document_end == "auto" else recipe.document_end
    if not text:
        raise UsageError(
            f"The tokenizer {files.name!r} names no eos_token to end documents with: set document_end to the text of an "
            "added token, or to none."
        )
    end = files.id_of(text)
    return tuple(one for one in start if one != end), (end,)


# Tokenising


def _tokenise(setting: Setting, units: Sequence[Unit], workers: int) -> None:
    owed = [unit for unit in units if not marker_path(setting.run, unit.name).is_file()]
    total = sum(unit.bytes for unit in units) // MEGABYTE
    done = total - sum(unit.bytes for unit in owed) // MEGABYTE
    with Progress("tokenising", total, done=done, unit="MB") as progress:
        jobs = [EncodeJob(setting, unit) for unit in owed]
        for unit, tokens in run_jobs(jobs, encode_unit, workers=min(workers, max(1, len(jobs)))):
            progress.advance(unit.bytes // MEGABYTE, tokens=tokens)


def encode_unit(job: EncodeJob) -> tuple[Unit, int]:
    """Tokenise a unit; returns it with its tokens."""
    run, unit = job.setting.run, job.unit
    try:
        return unit, _encode_unit(job)
    except AgentdataError:
        raise
    except OSError as error:
        raise explain_os_error(error, f"writing tokens of {unit.path} to {run}") from error


def _encode_unit(job: EncodeJob) -> int:
    run, unit = job.setting.run, job.unit
    maker = _maker(job)
    source = job.setting.recipe.sources[unit.source]
    rejected: list[Rejected] = []
    tokens = 0
    with ArrayFiles(run / SPOOL, unit.name, ARRAYS) as files:
        spool = SpoolWriter(files)
        for number, row in enumerate(read_unit(unit, source.columns)):
            try:
                document = maker.make(row)
            except RowError as error:
                rejected.append(_rejected(row, unit, number, error))
                continue
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                rejected.append(_rejected(row, unit, number, RowError("bad-shape", words)))
                continue
            spool.write(document, *described(row))
            tokens += len(document.ids)
        spool.close()
    _write_rejected(run, unit, rejected)
    reasons = Counter(f"{source.title}/{one.reason}" for one in rejected)
    marker = {"kinds": spool.names["kind"], "licences": spool.names["licence"], "segments": maker.kinds}
    write_whole(marker_path(run, unit.name), json.dumps({**marker, "rejected": reasons, "tokens": tokens}) + "\n")
    return tokens


def _maker(job: EncodeJob) -> DocumentMaker:
    """The maker for one unit; the encoder and template behind it are made once in each process."""
    setting, source = job.setting, job.setting.recipe.sources[job.unit.source]
    encoder, template = _tools(setting)
    return DocumentMaker(
        encoder=encoder,
        template=template,
        columns=source.columns,
        policy=source.mask or setting.recipe.mask,
        start=setting.start,
        end=setting.end,
        most_id=setting.most_id,
    )


_TOOLS: dict[Path, Any] = {}


def _tools(setting: Setting) -> Any:
    if setting.run not in _TOOLS:
        recipe = setting.recipe
        files = read_tokenizer(recipe.tokenizer, recipe.chat_template)
        template = make_template(files, recipe.template_variables)
        _TOOLS[setting.run] = make_encoder(files, setting.choice), template
    return _TOOLS[setting.run]


def _rejected(row: dict[str, Any], unit: Unit, number: int, error: RowError) -> Rejected:
    return Rejected(
        id=str(row.get("id") or f"{unit.path.name}:{unit.first}+{number}"),
        repo=str(row.get("repo") or ""),
        stage="pack",
        reason=error.reason,
        detail=str(error),
    )


def _write_rejected(run: Path, unit: Unit, rejected: Sequence[Rejected]) -> None:
    if rejected:
        writer = ShardWriter(run / "rejected" / f"part-{unit.name}.parquet", Rejected)
        for row in rejected:
            writer.write(row)
        writer.finish()
        writer.publish()


# Packed rows


def _write_rows(setting: Setting, files: TokenizerFiles, units: Sequence[Unit], workers: int) -> None:
    run, recipe = setting.run, setting.recipe
    markers = [json.loads(marker_path(run, unit.name).read_text()) for unit in units]
    planned = [
        PlannedUnit(unit.name, unit.source, tuple(marker["kinds"]), tuple(marker["licences"]))
        for unit, marker in zip(units, markers, strict=True)
    ]
    plan = make_plan(run / SPOOL, planned, recipe)
    with ArrayFiles(run / SPOOL, "plan", {"pieces": PIECE, "rows": "<u8"}) as arrays:
        arrays.write("pieces", plan.pieces)
        arrays.write("rows", plan.first_pieces)
    kinds = (PADDING, *sorted({kind for marker in markers for kind in marker["segments"]} - {PADDING}))
    if len(kinds) > 256:
        raise RunError(f"The sources have {len(kinds)} kinds of segments; packed rows can tell 256 apart.")
    jobs = list(_row_jobs(setting, plan, units, [marker["segments"] for marker in markers], kinds))
    shards = _run_row_jobs(setting, jobs, plan, workers)
    ledger = _ledger(setting, files, plan, markers, shards, kinds)
    manifest = PackManifest(
        generator=f"agentdata {__version__}",
        configuration=recipe.model_dump_json(),
        rows=plan.rows,
        row_length=recipe.row_length,
        id_type=_id_type(setting),
        position_type=_position_type(recipe),
        pad_id=setting.pad_id,
        end_id=setting.end[0] if setting.end else -1,
        vocabulary=setting.most_id + 1,
        kinds=kinds,
        sources=tuple(source.title for source in recipe.sources),
        shards=tuple(shard for shard, _ in shards),
        ledger=ledger,
    )
    write_whole(run / "manifest.json", manifest.model_dump_json(indent=1) + "\n")


def _id_type(setting: Setting) -> str:
    return "<u2" if setting.most_id < 1 << 16 else "<u4"


def _position_type(recipe: PackRecipe) -> str:
    return "<u2" if recipe.row_length <= 1 << 16 else "<u4"


def _row_jobs(
    setting: Setting, plan: Plan, units: Sequence[Unit], segments: Sequence[Sequence[str]], kinds: Sequence[str]
) -> Iterator[RowsJob]:
    size = max(1, setting.recipe.shard_tokens // setting.recipe.row_length)
    names = tuple(unit.name for unit in units)
    places = tuple(tuple(kinds.index(kind) for kind in known) for known in segments)
    for number, first in enumerate(range(0, plan.rows, size)):
        yield RowsJob(setting, f"{number:05}", first, min(first + size, plan.rows), names, places)


def _run_row_jobs(
    setting: Setting, jobs: Sequence[RowsJob], plan: Plan, workers: int
) -> list[tuple[PackedShard, list[list[int]]]]:
    owed = [job for job in jobs if not marker_path(setting.run, f"rows-{job.name}").is_file()]
    done = plan.rows - sum(job.last - job.first for job in owed)
    with Progress("packing", plan.rows, done=done, unit="rows") as progress:
        for rows in run_jobs(owed, write_rows, workers=min(workers, max(1, len(owed)))):
            progress.advance(rows, tokens=rows * setting.recipe.row_length)
    found = [json.loads(marker_path(setting.run, f"rows-{job.name}").read_text()) for job in jobs]
    return [(PackedShard.model_validate(marker["shard"]), marker["kinds"]) for marker in found]


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
    spool = setting.run / SPOOL
    bounds = np.fromfile(spool / "plan.rows", np.uint64)[job.first : job.last + 1].astype(np.int64)
    pieces = np.fromfile(
        spool / "plan.pieces", PIECE, count=int(bounds[-1] - bounds[0]), offset=int(bounds[0]) * PIECE.itemsize
    )
    bounds -= bounds[0]
    filler = _Filler(job)
    with ArrayFiles(
        setting.run / "rows", job.name, row_types(_id_type(setting), _position_type(setting.recipe))
    ) as files:
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
        self._spool = job.setting.run / SPOOL
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


def _ledger(
    setting: Setting,
    files: TokenizerFiles,
    plan: Plan,
    markers: Sequence[dict[str, Any]],
    shards: Sequence[tuple[PackedShard, list[list[int]]]],
    kinds: Sequence[str],
) -> Ledger:
    counts = np.sum([kinds_of for _, kinds_of in shards], axis=0)
    rejected: Counter[str] = Counter()
    for marker in markers:
        rejected.update(marker["rejected"])
    choice, length = setting.choice, setting.recipe.row_length
    return Ledger(
        encoder="tiktoken" if choice.fast else f"tokenizers: {choice.reason}",
        tokenizer_sha256=files.sha256,
        lines=plan.account.lines(),
        kinds=tuple(
            TokenKind(kind=kind, tokens=int(counts[place][0]), trained=int(counts[place][1]))
            for place, kind in enumerate(kinds)
            if place
        ),
        rejected=tuple(Count(name=name, count=count) for name, count in sorted(rejected.items())),
        rows=plan.rows,
        row_length=length,
        padding=plan.rows * length - plan.tokens,
        split_documents=plan.split_documents,
        cuts_in_segments=plan.cuts_in_segments,
    )
