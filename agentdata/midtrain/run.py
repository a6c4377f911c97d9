"""A packing: sources to tokenised units, all of them to a plan, the plan to packed rows.

Both tokenising and writing rows are done in units that are finished or not begun; the plan between them is computed again
whenever it is needed. Stopped at any moment, the same command gives the same bytes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentdata import __version__
from agentdata.errors import RunError, UsageError
from agentdata.midtrain.inputs import Unit, find_units
from agentdata.midtrain.ledger import Ledger, TokenKind
from agentdata.midtrain.packed import PADDING, PackManifest, read_pack_manifest
from agentdata.midtrain.plan import Plan, PlannedUnit, make_plan
from agentdata.midtrain.recipe import PackRecipe
from agentdata.midtrain.rows import WrittenRows, write_all_rows
from agentdata.midtrain.setting import Setting, make_setting, special_ids
from agentdata.midtrain.templates import make_template
from agentdata.midtrain.tokenise import MEGABYTE, tokenise
from agentdata.midtrain.tokenizer import TokenizerFiles, read_tokenizer
from agentdata.records import Count
from agentdata.runs import locked, settle
from agentdata.shards import marker_path, remove_unfinished, write_whole


def pack(output: Path, recipe: PackRecipe, *, workers: int = 1) -> PackManifest:
    """Pack the rows of a recipe into a directory, or finish what was begun there. Raises UsageError or RunError."""
    files = read_tokenizer(recipe.tokenizer, recipe.chat_template)
    units = [
        unit
        for number, source in enumerate(recipe.sources)
        for unit in find_units(source, number, recipe.unit_megabytes * MEGABYTE)
    ]
    around = special_ids(files, recipe)
    _check_template(files, recipe, units)
    with locked(output, (1, 1)):
        settle(output, _configuration(recipe, files, units))
        if not (output / "manifest.json").is_file():
            remove_unfinished(output)
            setting = make_setting(output, recipe, files, units, around)
            tokenise(setting, units, workers)
            _write_manifest(setting, files, units, workers)
        shutil.rmtree(output / "tokens", ignore_errors=True)
        return read_pack_manifest(output)


def _check_template(files: TokenizerFiles, recipe: PackRecipe, units: Sequence[Unit]) -> None:
    """Raise UsageError for conversations without a chat template, or one that is none, before any work is done."""
    for unit in units:
        if recipe.sources[unit.source].columns.messages in unit.columns:
            if not files.chat_template:
                raise UsageError(
                    f"{unit.path} holds conversations and the tokenizer {files.name!r} has no chat template: set "
                    "chat_template to a file."
                )
            make_template(files, recipe.template_variables, recipe.template_date).check()
            return


def _configuration(recipe: PackRecipe, files: TokenizerFiles, units: Sequence[Unit]) -> dict[str, object]:
    sizes = {str(unit.path): unit.path.stat().st_size for unit in units}
    return {
        "generator": f"agentdata {__version__}",
        "options": recipe.model_dump(mode="json"),
        "tokenizer": {"sha256": files.sha256, "settings": files.settings, "chat_template": files.chat_template},
        "inputs": [f"{path}: {size} bytes" for path, size in sizes.items()],
    }


def _write_manifest(setting: Setting, files: TokenizerFiles, units: Sequence[Unit], workers: int) -> None:
    """Plan and write the rows, and the manifest last."""
    run, recipe = setting.run, setting.recipe
    markers = [json.loads(marker_path(run, unit.name).read_text()) for unit in units]
    planned = [
        PlannedUnit(unit.name, unit.source, tuple(marker["kinds"]), tuple(marker["licences"]))
        for unit, marker in zip(units, markers, strict=True)
    ]
    plan = make_plan(setting.spool, planned, recipe)
    kinds = (PADDING, *sorted({kind for marker in markers for kind in marker["segments"]} - {PADDING}))
    if len(kinds) > 256:
        raise RunError(f"The sources have {len(kinds)} kinds of segments; packed rows can tell 256 apart.")
    places = [[kinds.index(kind) for kind in marker["segments"]] for marker in markers]
    written = write_all_rows(setting, plan, [unit.name for unit in units], places, workers)
    manifest = PackManifest(
        generator=f"agentdata {__version__}",
        configuration=recipe.model_dump_json(),
        rows=plan.rows,
        row_length=recipe.row_length,
        id_type=setting.id_type,
        position_type=setting.position_type,
        pad_id=setting.pad_id,
        end_id=setting.end[0] if setting.end else -1,
        vocabulary=setting.most_id + 1,
        kinds=kinds,
        sources=tuple(source.title for source in recipe.sources),
        shards=written.shards,
        ledger=_ledger(setting, files, plan, markers, written, kinds),
    )
    write_whole(run / "manifest.json", manifest.model_dump_json(indent=1) + "\n")


def _ledger(
    setting: Setting,
    files: TokenizerFiles,
    plan: Plan,
    markers: Sequence[dict[str, Any]],
    written: WrittenRows,
    kinds: Sequence[str],
) -> Ledger:
    rejected: Counter[str] = Counter()
    for marker in markers:
        rejected.update(marker["rejected"])
    choice, length = setting.choice, setting.recipe.row_length
    return Ledger(
        encoder="tiktoken" if choice.fast else f"tokenizers: {choice.reason}",
        tokenizer_sha256=files.sha256,
        lines=plan.account.lines(),
        kinds=tuple(
            TokenKind(kind=kind, tokens=int(written.counts[place][0]), trained=int(written.counts[place][1]))
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
