"""Packed rows to the tensors of each step, read ahead in a thread, in an order that is a function of the step."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agentdata.midtrain.packed import MASKED, PackedRow, PackedRows
from agentdata.midtrain.recipe import MaskPolicy
from agentdata.training.order import Order
from agentdata.training.parallel import World
from agentdata.training.recipe import Stage

AHEAD = 2
"""Steps that are read before they are needed."""


@dataclass(frozen=True)
class Micro:
    """Rows that pass the model at once; each tensor is int64 [rows, tokens]."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    """The id that follows, or MASKED."""


@dataclass(frozen=True)
class Batch:
    """What one process trains on in one step."""

    micros: tuple[Micro, ...]
    """As many in every process; rows that only fill them have no label."""
    tokens: int
    """Tokens that are no padding, over all processes."""
    trained: int
    """Labels over all processes."""
    attended: int
    """Pairs of tokens that attention looks at, over all processes: n * (n + 1) / 2 for each piece of n tokens."""
    waited: float = 0.0
    """Seconds that the step waited for it."""


def labels_of(row: PackedRow, mask: MaskPolicy) -> npt.NDArray[np.int64]:
    """The next id of the same piece where the policy trains it, else MASKED; [tokens]."""
    shown = (row.kinds > 0) if mask == "all" else row.train
    labels = np.full(len(row.ids), MASKED, np.int64)
    following = shown[1:] & (row.positions[1:] > 0)
    labels[:-1][following] = row.ids[1:][following]
    return labels


def steps_of(stage: Stage, rows: int) -> int:
    """Steps of a stage over so many packed rows: each epoch's last rows fill up with the next one's first."""
    return stage.steps or max(1, round(stage.epochs * rows / stage.batch_rows))


class Batches:
    """The batches of a stage for one process, from any step on."""

    def __init__(self, rows: PackedRows, stage: Stage, world: World, *, seed: int, micro_rows: int) -> None:
        self._rows, self._stage, self._world, self._micro = rows, stage, world, micro_rows
        self._order = Order(len(rows), seed, stage.name)

    def from_step(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of the steps in [first, last)."""
        with ThreadPoolExecutor(1) as reader:
            waiting = [reader.submit(self.of_step, step) for step in range(first, min(first + AHEAD, last))]
            for step in range(first, last):
                began = time.monotonic()
                batch = waiting.pop(0).result()
                waited = time.monotonic() - began
                if step + AHEAD < last:
                    waiting.append(reader.submit(self.of_step, step + AHEAD))
                yield Batch(batch.micros, batch.tokens, batch.trained, batch.attended, waited)

    def of_step(self, step: int) -> Batch:
        """The batch of a step, from 0."""
        size, world = self._stage.batch_rows, self._world
        rows = [self._rows[self._order.at(step * size + place)] for place in range(size)]
        labels = [labels_of(row, self._stage.mask) for row in rows]
        sizes = np.concatenate([row.pieces["tokens"] for row in rows]).astype(np.int64)
        own = list(zip(rows, labels, strict=True))[world.rank :: world.size]
        each = -(-size // world.size)
        return Batch(
            micros=tuple(self._micros(own, each)),
            tokens=int(sizes.sum()),
            trained=int(sum((one != MASKED).sum() for one in labels)),
            attended=int((sizes * (sizes + 1) // 2).sum()),
        )

    def _micros(self, own: list[tuple[PackedRow, npt.NDArray[np.int64]]], each: int) -> Iterator[Micro]:
        for first in range(0, each, self._micro):
            part = own[first : first + self._micro]
            yield make_micro(part or [(self._rows[0], np.full(self._stage.row_length, MASKED, np.int64))])


def make_micro(rows: list[tuple[PackedRow, npt.NDArray[np.int64]]]) -> Micro:
    """Rows and their labels as tensors."""
    return Micro(
        ids=torch.from_numpy(np.stack([row.ids for row, _ in rows]).astype(np.int64)),
        positions=torch.from_numpy(np.stack([row.positions for row, _ in rows]).astype(np.int64)),
        labels=torch.from_numpy(np.stack([labels for _, labels in rows])),
    )
