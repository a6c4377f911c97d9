"""The processes of a training: who this one is, how a model is divided among them, what they add up.

Started alone it is one process; `torchrun` starts many and says so in the environment.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from agentdata.errors import RunError, UsageError, explain_os_error

STALL = timedelta(minutes=30)
"""How long the others are waited for before a process is taken to be gone."""

GRACE = 5.0
"""Seconds in which the first process's words come before anybody else's."""
GONE = ("Connection closed by peer", "Connection reset by peer", "NCCL", "Timed out", "Broken pipe")
"""What gloo and NCCL say of a process that does not answer any more."""


@dataclass(frozen=True)
class World:
    """All processes, seen from this one."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def add_up(self, values: list[float]) -> list[float]:
        """The sums of numbers over all processes."""
        if self.size == 1:
            return values
        # Counts of tokens pass what fp32 counts exactly.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    @contextmanager
    def in_turns(self, turns: int) -> Iterator[None]:
        """The processes of a machine do something in so many groups, one after the other."""
        mine = self.local_rank % turns
        for _ in range(mine):
            self.wait()
        yield
        for _ in range(turns - mine):
            self.wait()

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


def place() -> World:
    """This process's place, as torchrun tells it, or a world of one."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=local,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device=torch.device("cuda", local) if cuda else torch.device("cpu"),
    )


@contextmanager
def joined(world: World) -> Iterator[None]:
    """The processes can talk to one another. A world of one needs it too: checkpoints are written in the background."""
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
    if world.size > 1:
        dist.init_process_group(backend, timeout=STALL)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def said_once(world: World) -> Iterator[None]:
    """What goes wrong in all processes is said by the first, and that another one is gone is said as such.

    Raises RunError. torchrun ends all processes when one has ended with an error.
    """
    try:
        yield
    except KeyboardInterrupt:
        if world.first:
            raise
        raise SystemExit(130) from None
    except (UsageError, RunError):
        if not world.first:
            _leave_it_to_the_first()
        raise
    except OSError as error:
        raise explain_os_error(error, "training") from error
    except RuntimeError as error:
        words = " ".join(str(error).split())
        if world.size == 1 or not any(mark in words for mark in GONE):
            raise
        raise RunError(
            f"Another process of the training is gone ({words[-160:]}): look above or at its machine for why, and run the "
            "same command again; it goes on from the last checkpoint."
        ) from error


def _leave_it_to_the_first() -> None:
    """Wait to be ended by torchrun, without a word; go on where that does not happen."""
    try:
        time.sleep(GRACE)
    except KeyboardInterrupt:
        raise SystemExit(1) from None


def divide(model: nn.Module, layers: list[nn.Module], world: World, *, half: bool) -> None:
    """Divide weights, gradients and moments among the processes (FSDP2), layer by layer, and the rest together.

    half: compute in bf16 while weights and sums stay fp32. One process on a CPU keeps its model whole. Layers move to the
    device one by one, so that no device has to hold all of them.
    """
    if world.size == 1 and world.device.type == "cpu":
        return
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    )
    for part in (*layers, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)


def release(model: nn.Module) -> None:
    """Divide again what a forward pass without a backward one has left gathered: until then, parameters are not its own."""
    if isinstance(model, FSDPModule):
        model.reshard()
