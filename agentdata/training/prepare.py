"""A recipe's stages to packed rows that fit its model."""

import time
from pathlib import Path
from typing import Any

from agentdata.errors import RunError, UsageError
from agentdata.midtrain.inputs import find_files
from agentdata.midtrain.packed import PackedRows, damaged, read_pack_manifest
from agentdata.midtrain.recipe import MaskPolicy, PackRecipe, PackSource
from agentdata.midtrain.run import pack
from agentdata.midtrain.tokenizer import read_tokenizer
from agentdata.shards import write_whole
from agentdata.training.recipe import Stage, TrainingRecipe

WINDOW, UNIT_MEGABYTES, SHARD_TOKENS = 64, 32, 1 << 26
"""Open rows, input of a unit, and tokens of a file, as `agentdata pack` has them by default."""


def stage_folder(run: Path, stage: Stage) -> Path:
    """Where everything of a stage is."""
    return run / "stages" / stage.name


def packed_folder(run: Path, stage: Stage) -> Path:
    """Where the rows of a stage are."""
    return Path(stage.packed).expanduser() if stage.packed else stage_folder(run, stage) / "packed"


def held_out_folder(run: Path, stage: Stage) -> Path | None:
    """Where the rows are that a stage is measured on."""
    return stage_folder(run, stage) / "held-out" if stage.held_out else None


def check_inputs(recipe: TrainingRecipe) -> None:
    """Raise UsageError for a tokenizer, template or source that is not there, before a run is begun with its name."""
    read_tokenizer(recipe.model, recipe.chat_template)
    for source in recipe.sources:
        find_files(source)


def prepare(run: Path, recipe: TrainingRecipe, *, workers: int) -> None:
    """Pack what is not packed, and compare everything with its digests. Raises UsageError or RunError."""
    for stage in recipe.stages:
        if stage.sources:
            pack(packed_folder(run, stage), _packing(recipe, stage, stage.sources, stage.mask), workers=workers)
        if folder := held_out_folder(run, stage):
            pack(folder, _packing(recipe, stage, stage.held_out, stage.mask), workers=workers)
        for folder in filter(None, (packed_folder(run, stage), held_out_folder(run, stage))):
            check_fit(folder, recipe, stage)
            if recipe.verify:
                _verify(folder)
        if stage.mask == "trained-only" and not read_pack_manifest(packed_folder(run, stage)).ledger.trained:
            raise UsageError(
                f"Stage {stage.name!r} would train no token: its rows mark none. Set its mask to all, or choose other sources."
            )
    write_whole(run / "prepared", f"{time.time()}\n")


def await_prepared(run: Path, since: float) -> None:
    """Wait, in another process than the first, until that has prepared everything."""
    path = run / "prepared"
    while not (path.is_file() and float(path.read_text()) >= since):
        time.sleep(0.2)


def _packing(recipe: TrainingRecipe, stage: Stage, sources: tuple[PackSource, ...], mask: MaskPolicy) -> PackRecipe:
    values: dict[str, Any] = {
        "sources": sources,
        "tokenizer": recipe.model,
        "chat_template": recipe.chat_template,
        "template_variables": recipe.template_variables,
        "document_end": recipe.document_end,
        "mask": mask,
        "row_length": stage.row_length,
        "window": WINDOW,
        "seed": recipe.seed,
        "unit_megabytes": UNIT_MEGABYTES,
        "shard_tokens": max(SHARD_TOKENS, stage.row_length),
    }
    return PackRecipe(**values)


def check_fit(folder: Path, recipe: TrainingRecipe, stage: Stage) -> None:
    """Raise UsageError for rows of another length or tokenizer."""
    manifest = read_pack_manifest(folder)
    if manifest.row_length != stage.row_length:
        raise UsageError(
            f"The rows of {folder} have {manifest.row_length} tokens and stage {stage.name!r} asks for {stage.row_length}: "
            "set row_length to that, or pack again."
        )
    if manifest.ledger.tokenizer_sha256 != read_tokenizer(recipe.model).sha256:
        raise UsageError(
            f"The rows of {folder} were made with another tokenizer than that of {recipe.model}: pack them with it."
        )


def check_vocabulary(rows: PackedRows, vocabulary: int, longest: int, model: str) -> None:
    """Raise UsageError for rows that a model cannot read. longest: its most positions, 0 for any."""
    if rows.manifest.vocabulary > vocabulary:
        raise UsageError(
            f"The tokenizer has ids up to {rows.manifest.vocabulary - 1} and the model {model} an embedding of {vocabulary}: "
            "give the tokenizer that belongs to the model."
        )
    if longest and rows.manifest.row_length > longest:
        raise UsageError(
            f"The rows have {rows.manifest.row_length} tokens and the model {model} has positions for {longest}: lower "
            "row_length, or raise max_position_embeddings in its config.json where its positions allow it."
        )


def _verify(folder: Path) -> None:
    """Raise RunError for files that are not what was packed; files that were found whole are not read again."""
    seen = folder / "verified"
    mark = "".join(
        f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in sorted((folder / "rows").iterdir())
    )
    if seen.is_file() and seen.read_text() == mark:
        return
    for name in damaged(folder):
        raise RunError(
            f"{folder / name} is corrupt: its digest is not the manifest's. Pack {folder} again into a new directory; "
            "nothing of the training is lost."
        )
    write_whole(seen, mark)
