"""A place in the endless order of rows to the row that stands there: computed, so that resuming is a number."""

import hashlib

import numpy as np
import numpy.typing as npt

from agentdata.midtrain.plan import mixed


class Order:
    """Every row once in each epoch, each epoch by another permutation: a function of seed, name, epoch and place."""

    def __init__(self, rows: int, seed: int, name: str) -> None:
        self.rows = rows
        self._name = f"{seed}/{name}"
        self._epoch = -1
        self._permutation: npt.NDArray[np.intp] = np.empty(0, np.intp)

    def at(self, place: int) -> int:
        """The number of the row at a place, from 0 without end."""
        epoch, inner = divmod(place, self.rows)
        if epoch != self._epoch:
            key = int.from_bytes(hashlib.sha256(f"{self._name}/{epoch}".encode()).digest()[:7], "big")
            self._permutation = np.argsort(mixed(np.arange(self.rows, dtype=np.uint64), key), kind="stable")
            self._epoch = epoch
        return int(self._permutation[inner])
