"""A recipe and a tokenizer to what every unit of a packing is made with."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from agentdata.errors import RunError, UsageError
from agentdata.midtrain.encoding import Choice, PlainEncoder, choose
from agentdata.midtrain.inputs import Unit, read_unit
from agentdata.midtrain.recipe import PackRecipe
from agentdata.midtrain.tokenizer import TokenizerFiles
from agentdata.shards import write_whole

PROVED_ROWS = 32
PROVED_UNITS = 8
"""Rows of each of so many units on which the encoder is compared with the tokenizer."""
SpecialIds = tuple[int, ...]


@dataclass(frozen=True)
class Setting:
    """What every unit of a packing is made with."""

    run: Path
    recipe: PackRecipe
    choice: Choice
    tokenizer_digest: str
    start: SpecialIds
    end: SpecialIds
    """Tokens before and after a text."""
    pad_id: int
    most_id: int
    """The largest id of the tokenizer."""

    @property
    def spool(self) -> Path:
        """Where tokenised units wait to be packed."""
        return self.run / "tokens"

    @property
    def id_type(self) -> str:
        """The type of stored ids."""
        return "<u2" if self.most_id < 1 << 16 else "<u4"

    @property
    def position_type(self) -> str:
        """The type of stored positions."""
        return "<u2" if self.recipe.row_length <= 1 << 16 else "<u4"


def make_setting(
    output: Path,
    recipe: PackRecipe,
    files: TokenizerFiles,
    units: Sequence[Unit],
    around: tuple[SpecialIds, SpecialIds],
) -> Setting:
    pad = files.special("pad_token") or files.special("eos_token")
    return Setting(
        run=output,
        recipe=recipe,
        choice=_choice(output, recipe, files, units),
        tokenizer_digest=files.digest,
        start=around[0],
        end=around[1],
        pad_id=files.id_of(pad) if pad else 0,
        most_id=files.most_id,
    )


def _choice(output: Path, recipe: PackRecipe, files: TokenizerFiles, units: Sequence[Unit]) -> Choice:
    """The encoder, chosen once for each packing."""
    path = output / "encoder.json"
    if path.is_file():
        told = json.loads(path.read_text())
        return Choice(told["fast"], told["reason"], tuple((first, last) for first, last in told["differing"]))
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


def special_ids(files: TokenizerFiles, recipe: PackRecipe) -> tuple[SpecialIds, SpecialIds]:
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
