"""Packed rows on disk: written once, then mapped into memory and read by number.

DIR/rows/NNNNN.ids         ids, one row after another (uint16 or uint32, little endian)
DIR/rows/NNNNN.train       whether a token is trained on (one byte each)
DIR/rows/NNNNN.kinds       kind of each token, a place in the manifest's kinds
DIR/rows/NNNNN.positions   position of each token in its piece of a document; padding counts by itself
DIR/rows/NNNNN.pieces      the pieces of all rows: where they stand and what they come from
DIR/rows/NNNNN.first       the first piece of each row, and at the end their number
DIR/manifest.json          written last: types, names, shards with digests, ledger
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from agentdata.errors import RunError, UsageError
from agentdata.midtrain.ledger import Ledger
from agentdata.midtrain.plan import PIECE
from agentdata.records import Record

PADDING = "padding"
"""The kind of what only fills a row; its place is always 0."""
MASKED = -100
"""Label of a token without a loss."""


class PackedFile(Record):
    """One file of a shard."""

    name: str
    bytes: int
    sha256: str


class PackedShard(Record):
    """Rows that are stored together."""

    name: str
    rows: int
    files: tuple[PackedFile, ...]


class PackManifest(Record):
    """What a finished packing holds."""

    generator: str
    configuration: str
    """JSON text of the recipe."""
    rows: int
    row_length: int
    id_type: str
    position_type: str
    """Types of the values, as numpy writes them."""
    pad_id: int
    end_id: int
    """Token after each document; -1 for none."""
    vocabulary: int
    """One more than the largest id of the tokenizer."""
    kinds: tuple[str, ...]
    sources: tuple[str, ...]
    """Names that the places in the rows stand for."""
    shards: tuple[PackedShard, ...]
    ledger: Ledger

    def types(self) -> dict[str, Any]:
        """The type of the values of each of a shard's files."""
        return row_types(self.id_type, self.position_type)


def row_types(id_type: str, position_type: str) -> dict[str, Any]:
    """The type of the values of each of a shard's files."""
    return {
        "ids": id_type,
        "train": "?",
        "kinds": "u1",
        "positions": position_type,
        "pieces": PIECE,
        "first": "<u4",
    }


@dataclass(frozen=True)
class PackedRow:
    """One row. The arrays are views of the files: nothing is copied, and they cannot be written."""

    ids: npt.NDArray[Any]
    train: npt.NDArray[np.bool_]
    kinds: npt.NDArray[np.uint8]
    positions: npt.NDArray[Any]
    """From 0 in each piece."""
    pieces: npt.NDArray[Any]
    """`plan.PIECE` values: start and tokens of each document's piece in this row, its source, where it comes from."""

    @cached_property
    def tokens(self) -> int:
        """Tokens before the padding."""
        return int(self.pieces["tokens"].sum())

    @property
    def starts(self) -> npt.NDArray[np.int32]:
        """Ends of the pieces as attention over packed documents wants them (`cu_seqlens`): 0, ..., the row's length."""
        ends = [*self.pieces["start"].tolist(), *{self.tokens, len(self.ids)}]
        return np.array(sorted(set(ends)), np.int32)

    @property
    def documents(self) -> npt.NDArray[np.int32]:
        """Number of each token's piece in this row; padding has the last."""
        return (np.cumsum(self.positions == 0) - 1).astype(np.int32)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The ids where they are trained, else MASKED; not shifted. The first token of a piece has no context: never."""
        shown = self.train & (self.positions > 0)
        return np.where(shown, self.ids.astype(np.int64), MASKED)


class PackedRows(Sequence[PackedRow]):
    """The rows of a finished packing, by number, in constant time. Can be sent to other processes."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = read_pack_manifest(self.folder)
        self._ends = list(accumulate(shard.rows for shard in self.manifest.shards))
        self._mapped: dict[int, dict[str, npt.NDArray[Any]]] = {}

    def __len__(self) -> int:
        return self.manifest.rows

    @overload
    def __getitem__(self, row: int) -> PackedRow: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[PackedRow]: ...
    def __getitem__(self, row: int | slice) -> PackedRow | Sequence[PackedRow]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        number = row + len(self) if row < 0 else row
        if not 0 <= number < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        place = bisect_right(self._ends, number)
        inner = number - (self._ends[place - 1] if place else 0)
        arrays = self._mapped.get(place) or self._map(place)
        begin, end = arrays["first"][inner : inner + 2].tolist()
        return PackedRow(
            ids=arrays["ids"][inner],
            train=arrays["train"][inner],
            kinds=arrays["kinds"][inner],
            positions=arrays["positions"][inner],
            pieces=arrays["pieces"][begin:end],
        )

    def _map(self, place: int) -> dict[str, npt.NDArray[Any]]:
        shard = self.manifest.shards[place]
        arrays: dict[str, npt.NDArray[Any]] = {}
        for part, kind in self.manifest.types().items():
            path = self.folder / "rows" / f"{shard.name}.{part}"
            try:
                values = np.memmap(path, kind, mode="r").view(np.ndarray)
            except (OSError, ValueError) as error:
                raise RunError(f"{path} cannot be read: {error}. Pack again into a new directory.") from error
            flat = part in ("pieces", "first")
            arrays[part] = values if flat else values.reshape(shard.rows, self.manifest.row_length)
        self._mapped[place] = arrays
        return arrays

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]


def read_pack_manifest(folder: Path) -> PackManifest:
    """The manifest of a finished packing. Raises UsageError."""
    path = folder / "manifest.json"
    if not path.is_file():
        if (folder / "config.json").is_file():
            raise UsageError(f"{folder} is not finished: run the `agentdata pack` that began it again.")
        raise UsageError(f"{folder} holds no packed rows: give the directory that `agentdata pack` wrote with -o.")
    try:
        return PackManifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not a manifest of packed rows of this version: {words}") from error


def damaged(folder: Path) -> Iterator[str]:
    """Names of the files that are not what the manifest says."""
    for shard in read_pack_manifest(folder).shards:
        for file in shard.files:
            path = folder / "rows" / file.name
            try:
                with open(path, "rb") as opened:
                    whole = hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
            except OSError:
                whole = False
            if not whole:
                yield f"rows/{file.name}"
