"""The state of a training on disk: written in the background, complete or not there, read by any number of processes.

RUN/stages/NAME/checkpoints/step-NNNNNNNN/   torch.distributed.checkpoint's files, and state.json with the step
"""

import json
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from agentdata.errors import RunError, UsageError, explain_os_error
from agentdata.training.estimates import sized
from agentdata.training.parallel import World

STATE = "state.json"
SPARE = 1.1
"""Free space that a checkpoint needs, in its own size."""


def folder_of(run: Path, stage: str) -> Path:
    """Where a stage's checkpoints are."""
    return run / "stages" / stage / "checkpoints"


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint."""
    found = sorted(path for path in folder.glob("step-????????") if (path / STATE).is_file())
    return found[-1] if found else None


def step_of(checkpoint: Path) -> int:
    """Steps of the stage that were done when it was made."""
    return int(checkpoint.name.removeprefix("step-"))


class Checkpoints:
    """Writes a stage's checkpoints: one at a time, while training goes on."""

    def __init__(self, run: Path, stage: str, world: World, *, keep: int) -> None:
        self._folder = folder_of(run, stage)
        self._world, self._keep = world, keep
        self._pending: tuple[Any, int] | None = None
        self._bytes = 0
        # Written in a thread: what the processes say to one another there must not mix with what the steps say.
        self._group = dist.new_group(backend="gloo")

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, told: dict[str, Any]) -> None:
        """Begin to write the state after a step. told: what state.json holds beside it. Raises RunError."""
        self.finish()
        path = self._folder / f"step-{step:08}.partial"
        state = state_of(model, optimiser)
        self._make_room(state)
        if self._world.first:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            (path / STATE).write_text(json.dumps({"step": step, **told}) + "\n")
        self._world.wait()
        try:
            future: Future[Any] = dcp.async_save(state, checkpoint_id=path, process_group=self._group)
        except OSError as error:
            raise explain_os_error(error, f"writing the checkpoint {path}") from error
        self._pending = (future, step)

    def poll(self) -> None:
        """Put the pending checkpoint under its name if it is whole by now."""
        if self._pending and self._pending[0].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the pending checkpoint and put it under its name. Raises RunError."""
        if not self._pending:
            return
        (future, step), self._pending = self._pending, None
        path = self._folder / f"step-{step:08}"
        try:
            future.result()
            if self._world.first:
                path.with_name(f"{path.name}.partial").rename(path)
                self._remove_old()
        except OSError as error:
            raise explain_os_error(error, f"writing the checkpoint {path}") from error
        # The second is what torch.distributed raises for a process that could not write; it is no Exception.
        except (Exception, CheckpointException) as error:
            words = str(error).strip().splitlines()[-1][-200:]
            raise RunError(
                f"The checkpoint {path} could not be written: {words}. The one before it is kept: free some space and run "
                "the same command again."
            ) from error

    def _make_room(self, state: dict[str, Any]) -> None:
        self._bytes = self._bytes or sum(value.numel() * value.element_size() for value in _tensors(state))
        free = shutil.disk_usage(self._folder.parents[2]).free
        if free < SPARE * self._bytes:
            raise RunError(
                f"A checkpoint takes {sized(self._bytes)} and {self._folder.parents[2]} has {sized(free)} free: "
                "free some space, or lower keep_checkpoints, and run the same command again; it goes on from the last one."
            )

    def _remove_old(self) -> None:
        for path in sorted(self._folder.glob("step-????????"))[: -self._keep]:
            shutil.rmtree(path, ignore_errors=True)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, dict):
        return [found for inner in value.values() for found in _tensors(inner)]
    return [value] if isinstance(value, torch.Tensor) else []


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """What is stored: by names that do not depend on how the model is divided. What is never trained is left out."""
    options = StateDictOptions(ignore_frozen_params=True)
    weights, moments = get_state_dict(model, optimiser, options=options)
    return {"model": weights, "optimiser": moments}


def restore(checkpoint: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, moments: bool = True) -> None:
    """Put a stored state into a model, and with `moments` into its optimiser. Raises RunError or UsageError."""
    options = StateDictOptions(ignore_frozen_params=True)
    state = state_of(model, optimiser) if moments else {"model": get_model_state_dict(model, options=options)}
    try:
        dcp.load(state, checkpoint_id=checkpoint)
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        words = " ".join(str(first).split())[:200] or type(first).__name__
        if isinstance(first, RuntimeError | KeyError | ValueError) and "checkpoint" in words.lower():
            raise UsageError(f"{checkpoint} is of another model or adapter: {words}. Train into another -o.") from error
        raise RunError(f"{checkpoint} cannot be read: {words}. Remove it to go on from the one before.") from error
    lenient = StateDictOptions(ignore_frozen_params=True, strict=False)
    set_model_state_dict(model, state["model"], options=lenient)
    if moments:
        # A checkpoint holds its stage's rate, betas and decay beside the moments: this stage's own stay.
        own = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
        set_optimizer_state_dict(model, optimiser, state["optimiser"], options=lenient)
        for group, values in zip(optimiser.param_groups, own, strict=True):
            group.update(values)
