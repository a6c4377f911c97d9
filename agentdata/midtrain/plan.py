"""Tokenised units to a plan: which documents are packed how often, and which piece of them stands where in which row."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agentdata.errors import UsageError
from agentdata.midtrain.ledger import Account
from agentdata.midtrain.packing import Piece, fill_rows, split
from agentdata.midtrain.recipe import PackRecipe
from agentdata.midtrain.spool import read_array

PIECE = np.dtype(
    [
        ("start", "<u4"),
        ("tokens", "<u4"),
        ("unit", "<u4"),
        ("document", "<u4"),
        ("offset", "<u8"),
        ("source", "<u2"),
        ("reserved", "<u2"),
        ("first", "<u4"),
    ]
)
"""A stretch of a document in a row: its first token in the row and its length, unit and number of the document, its first
token among the unit's tokens, the place of its source in the recipe, and its first token in the document."""


@dataclass(frozen=True)
class PlannedUnit:
    """A tokenised unit, as its marker describes it."""

    name: str
    source: int
    kinds: tuple[str, ...]
    licences: tuple[str, ...]
    """Names that its lines refer to."""


@dataclass(frozen=True)
class Plan:
    """Where everything goes."""

    pieces: npt.NDArray[Any]
    """PIECE values, in the order of the rows."""
    first_pieces: npt.NDArray[np.uint64]
    """The first piece of each row, and at the end their number."""
    account: Account
    split_documents: int
    cuts_in_segments: int

    @property
    def rows(self) -> int:
        """Rows that are packed."""
        return len(self.first_pieces) - 1

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.pieces["tokens"].sum())


def make_plan(spool: Path, units: Sequence[PlannedUnit], recipe: PackRecipe) -> Plan:
    """Plan all rows. Raises UsageError where the sources hold no document."""
    lines = [read_array(spool, unit.name, "lines") for unit in units]
    number = np.repeat(np.arange(len(units), dtype=np.uint32), [len(one) for one in lines])
    if not len(number):
        raise UsageError("The sources hold no row that could be packed; why is told in the table `rejected`.")
    inner = np.concatenate([np.arange(len(one), dtype=np.uint32) for one in lines])
    tokens = np.concatenate([one["tokens"] for one in lines])
    source = np.array([unit.source for unit in units], np.uint16)[number]
    chosen = _ordered(_chosen(tokens, source, recipe), recipe.seed)
    account = _account(units, lines, recipe, number, chosen)
    pieces = _Pieces(spool, units, lines, recipe.row_length)
    stream = (piece for place in chosen for piece in pieces.of(int(number[place]), int(inner[place])))
    table, firsts = pieces.table(fill_rows(stream, recipe.row_length, recipe.window))
    return Plan(table, firsts, account, pieces.split, pieces.cut)


def epochs(tokens: Sequence[int], recipe: PackRecipe) -> list[float]:
    """How often each source is packed, from its repeat or, with weights, so that one of them reaches its repeat."""
    repeats = [source.repeat for source in recipe.sources]
    weights = [source.weight for source in recipe.sources]
    if not any(weights):
        return repeats
    whole = min(
        (count * repeat / weight for count, repeat, weight in zip(tokens, repeats, weights, strict=True)), default=0.0
    )
    return [weight * whole / count if count else 0.0 for count, weight in zip(tokens, weights, strict=True)]


def _chosen(
    tokens: npt.NDArray[np.uint64], source: npt.NDArray[np.uint16], recipe: PackRecipe
) -> npt.NDArray[np.uint64]:
    """Numbers of documents, each as often as it is packed."""
    counts = [int(tokens[source == place].sum()) for place in range(len(recipe.sources))]
    taken: list[npt.NDArray[Any]] = []
    for place, often in enumerate(epochs(counts, recipe)):
        documents = np.flatnonzero(source == place).astype(np.uint64)
        whole = int(often)
        taken += [documents] * whole
        if often > whole:
            shuffled = documents[np.argsort(mixed(documents, recipe.seed + 1 + place), kind="stable")]
            wanted = (often - whole) * counts[place]
            reached = np.cumsum(tokens[shuffled.astype(np.intp)])
            taken.append(np.sort(shuffled[: int(np.searchsorted(reached, wanted)) + 1]))
    return np.concatenate(taken)


def _ordered(chosen: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.intp]:
    """A shuffled order that depends on the seed alone; copies of a document come apart by their number."""
    places = np.arange(len(chosen), dtype=np.uint64)
    return chosen[np.argsort(mixed(places, seed), kind="stable")].astype(np.intp)


def mixed(numbers: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """SplitMix64 of numbers and a seed (Steele, Lea and Flood 2014), the same on every machine and with every library."""
    state = (np.uint64(seed) + numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_numbers: npt.NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed_numbers


def _account(
    units: Sequence[PlannedUnit],
    lines: Sequence[npt.NDArray[Any]],
    recipe: PackRecipe,
    number: npt.NDArray[np.uint32],
    chosen: npt.NDArray[np.intp],
) -> Account:
    account = Account()
    often = np.bincount(chosen, minlength=len(number))
    ends = np.cumsum([len(one) for one in lines])
    for unit, rows, copies in zip(units, lines, np.split(often, ends[:-1]), strict=True):
        names = rows["kind"].astype(np.intp) * len(unit.licences) + rows["licence"]
        for name in np.unique(names):
            where = names == name
            kind, licence = divmod(int(name), len(unit.licences))
            key = (recipe.sources[unit.source].title, unit.kinds[kind], unit.licences[licence])
            for column, counts in _sums(rows[where], copies[where]):
                account.add(key, column, counts)
    return account


def _sums(rows: npt.NDArray[Any], copies: npt.NDArray[np.intp]) -> Iterator[tuple[str, int]]:
    yield "documents", len(rows)
    yield "packed_documents", int(copies.sum())
    for column in ("tokens", "trained"):
        counts = rows[column].astype(np.int64)
        yield column, int(counts.sum())
        yield f"packed_{column}", int((counts * copies).sum())


class _Pieces:
    """Documents as pieces that fit into a row, noted column by column."""

    def __init__(
        self, spool: Path, units: Sequence[PlannedUnit], lines: Sequence[npt.NDArray[Any]], row_length: int
    ) -> None:
        self._spool, self._units, self._lines, self._row_length = spool, units, lines, row_length
        self._columns = {name: array("Q") for name in ("tokens", "unit", "document", "offset", "first")}
        self.split = self.cut = 0

    def of(self, unit: int, document: int) -> Iterator[Piece]:
        """The pieces of a document."""
        line = self._lines[unit][document]
        offset, tokens = int(line["offset"]), int(line["tokens"])
        for first, length in self._stretches(unit, document, tokens):
            number = len(self._columns["tokens"])
            for name, value in zip(self._columns, (length, unit, document, offset + first, first), strict=True):
                self._columns[name].append(value)
            yield number, length

    def _stretches(self, unit: int, document: int, tokens: int) -> Iterator[tuple[int, int]]:
        if tokens <= self._row_length:
            yield 0, tokens
            return
        begin = int(self._lines[unit][document - 1]["cuts"]) if document else 0
        end = int(self._lines[unit][document]["cuts"])
        cuts = read_array(self._spool, self._units[unit].name, "cuts")[begin:end].tolist()
        known = {0, *cuts}
        self.split += 1
        for first, length in split(tokens, cuts, self._row_length):
            self.cut += first not in known
            yield first, length

    def table(self, rows: Iterable[Sequence[int]]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint64]]:
        """All pieces in the order of the rows, and the first piece of each row."""
        order, ends = array("Q"), array("Q", [0])
        for row in rows:
            order.extend(row)
            ends.append(len(order))
        places, firsts = np.frombuffer(order, np.uint64).astype(np.intp), np.frombuffer(ends, np.uint64).copy()
        pieces = np.zeros(len(places), PIECE)
        for name, values in self._columns.items():
            pieces[name] = np.frombuffer(values, np.uint64)[places]
        pieces["source"] = np.array([unit.source for unit in self._units], np.uint16)[pieces["unit"]]
        begins = np.cumsum(pieces["tokens"], dtype=np.uint64) - pieces["tokens"]
        pieces["start"] = begins - np.repeat(begins[firsts[:-1].astype(np.intp)], np.diff(firsts).astype(np.intp))
        return pieces, firsts
