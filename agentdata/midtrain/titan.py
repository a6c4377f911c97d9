# mypy: disable-error-code="import-not-found,misc"
"""Packed rows as a data loader of torchtitan 0.3, in an order that is computed from seed and epoch: resuming is a number."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchtitan.components.dataloader import BaseDataLoader

from agentdata.midtrain.packed import PackedRow, PackedRows
from agentdata.midtrain.plan import mixed

IGNORED = -100


class PackedDataLoader(BaseDataLoader):
    """Batches of packed rows for one data-parallel rank, without end: {input, positions} and labels, [rows, tokens] each.

    Labels are shifted: the label of a token is the next one of the same document, or IGNORED where that is not trained.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        folder: str = ""
        """Directory that `agentdata pack` wrote."""
        seed: int = 0

    def __init__(
        self, config: Config, *, dp_world_size: int, dp_rank: int, seq_len: int, local_batch_size: int, **_: Any
    ) -> None:
        self._rows = PackedRows(config.folder)
        length = self._rows.manifest.row_length
        if seq_len != length:
            raise ValueError(
                f"training.seq_len is {seq_len} and the rows of {config.folder} have {length}: set it to that."
            )
        self._seed, self._size = config.seed, local_batch_size
        self._ranks, self._rank = dp_world_size, dp_rank
        self._batch = 0
        self._order: tuple[int, npt.NDArray[np.intp]] = (-1, np.empty(0, np.intp))

    def _number(self, place: int) -> int:
        """The row at a place of the endless order."""
        epoch, inner = divmod(place, len(self._rows))
        if self._order[0] != epoch:
            self._order = epoch, np.argsort(mixed(np.arange(len(self._rows), dtype=np.uint64), self._seed + epoch))
        return int(self._order[1][inner])

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        while True:
            first = (self._batch * self._ranks + self._rank) * self._size
            rows = [self._rows[self._number(first + inner)] for inner in range(self._size)]
            self._batch += 1
            ids = torch.from_numpy(np.stack([row.ids for row in rows]).astype(np.int64))
            positions = torch.from_numpy(np.stack([row.positions for row in rows]).astype(np.int64))
            yield {"input": ids, "positions": positions}, torch.from_numpy(np.stack([_shifted(row) for row in rows]))

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self._batch, "ranks": self._ranks, "size": self._size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, on any number of ranks whose batches divide what was read."""
        if not state:
            return
        read = state["batch"] * state["ranks"] * state["size"]
        self._batch, left = divmod(read, self._ranks * self._size)
        if left:
            raise ValueError(
                f"{read} rows were read, which {self._ranks} ranks of {self._size} rows cannot go on from."
            )


def _shifted(row: PackedRow) -> npt.NDArray[np.int64]:
    return np.append(row.labels[1:], IGNORED)
