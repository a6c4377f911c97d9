"""Packed rows that are never trained on to the losses of each source, and of each kind in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from agentdata.midtrain.packed import MASKED, PackedRow, PackedRows
from agentdata.midtrain.recipe import MaskPolicy
from agentdata.training.batches import labels_of, make_micro
from agentdata.training.isolation import precision
from agentdata.training.parallel import World, release
from agentdata.training.scoring import Scorer


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss in nats for each token."""

    source: str
    kind: str
    """Kind of the tokens, or `all`."""
    loss: float
    tokens: int


def measure(
    scorer: Scorer, rows: PackedRows, world: World, *, mask: MaskPolicy, most: int, half: bool
) -> Iterator[HeldOutLoss]:
    """Losses over rows that are spread evenly over all, at most so many, the same each time."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)).tolist()
    kinds, sources = rows.manifest.kinds, rows.manifest.sources
    sums = np.zeros((len(sources), len(kinds), 2))
    training = scorer.training
    scorer.eval()
    with torch.no_grad(), precision(world, half):
        for first in range(0, len(chosen), world.size):
            place = first + world.rank
            # Every process passes as many rows, since the parts of a divided model are fetched from all of them.
            row = rows[chosen[min(place, len(chosen) - 1)]]
            labels = labels_of(row, mask)
            micro = make_micro([(row, labels)])
            losses = scorer(*(one.to(world.device) for one in (micro.ids, micro.positions, micro.labels)), each=True)
            if place < len(chosen):
                where = np.flatnonzero(labels != MASKED) + 1
                key = (_sources(row)[where], row.kinds[where])
                np.add.at(sums[..., 0], key, losses.double().cpu().numpy())
                np.add.at(sums[..., 1], key, 1)
    release(scorer)
    scorer.train(training)
    sums = np.array(world.add_up(sums.ravel().tolist())).reshape(sums.shape)
    for place, source in enumerate(sources):
        for name, (loss, count) in zip(("all", *kinds), (sums[place].sum(axis=0), *sums[place]), strict=True):
            if count:
                yield HeldOutLoss(source, name, float(loss / count), int(count))


def _sources(row: PackedRow) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The source of each token."""
    found = np.zeros(len(row.ids), np.int64)
    for piece in row.pieces:
        found[piece["start"] : piece["start"] + piece["tokens"]] = piece["source"]
    return found
