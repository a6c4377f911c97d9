"""Units of rows to units of tokens on disk, each finished or not begun."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdata.errors import AgentdataError, explain_os_error
from agentdata.midtrain.documents import DocumentMaker, described
from agentdata.midtrain.encoding import Encoder, make_encoder
from agentdata.midtrain.inputs import Unit, read_unit
from agentdata.midtrain.setting import Setting
from agentdata.midtrain.spool import ARRAYS, ArrayFiles, SpoolWriter
from agentdata.midtrain.templates import RowError, Template, make_template
from agentdata.midtrain.tokenizer import read_tokenizer
from agentdata.progress import Progress
from agentdata.records import Rejected
from agentdata.shards import ShardWriter, arrow_schema, marker_path, write_whole
from agentdata.stages import run_jobs

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class EncodeJob:
    """Tokenise one unit."""

    setting: Setting
    unit: Unit


def tokenise(setting: Setting, units: Sequence[Unit], workers: int) -> None:
    """Tokenise the units that are not tokenised yet."""
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
    with ArrayFiles(job.setting.spool, unit.name, ARRAYS) as files:
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


_TOOLS: list[tuple[Setting, Encoder, Template]] = []
"""What this process made last: all units of a packing have the same."""


def _tools(setting: Setting) -> tuple[Encoder, Template]:
    if not _TOOLS or _TOOLS[0][0] != setting:
        recipe = setting.recipe
        files = read_tokenizer(recipe.tokenizer, recipe.chat_template)
        template = make_template(files, recipe.template_variables, recipe.template_date)
        _TOOLS[:] = [(setting, make_encoder(files, setting.choice), template)]
    return _TOOLS[0][1:]


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
        writer = ShardWriter(run / "rejected" / f"part-{unit.name}.parquet", arrow_schema(Rejected))
        for row in rejected:
            writer.write(row)
        writer.finish()
        writer.publish()
