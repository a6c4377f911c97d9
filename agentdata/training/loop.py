"""One stage: rows to a trained model, from wherever it was stopped."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from agentdata.midtrain.packed import PackedRows
from agentdata.progress import Progress
from agentdata.training import checkpoints, estimates
from agentdata.training.batches import Batch, Batches, steps_of
from agentdata.training.checkpoints import Checkpoints
from agentdata.training.estimates import Shape
from agentdata.training.held_out import measure
from agentdata.training.isolation import precision
from agentdata.training.metrics import Metrics, Watch
from agentdata.training.parallel import World
from agentdata.training.recipe import Optimiser, Stage, TrainingRecipe
from agentdata.training.schedule import rate_share
from agentdata.training.scoring import Scorer


@dataclass(frozen=True)
class StageRun:
    """What a stage is trained with."""

    run: Path
    recipe: TrainingRecipe
    stage: Stage
    world: World
    rows: PackedRows
    held_out: PackedRows | None
    scorer: Scorer
    shape: Shape
    half: bool
    before: int
    """Steps of the stages before it."""

    @property
    def steps(self) -> int:
        """Steps of this stage."""
        return steps_of(self.stage, len(self.rows))


def make_optimiser(model: nn.Module, options: Optimiser) -> torch.optim.AdamW:
    """AdamW over what is trained; what has one dimension is not decayed."""
    trained = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=options.rate, betas=options.betas, eps=options.epsilon, fused=True)


def train_stage(one: StageRun, *, begin_from: Path | None, keep_optimiser: bool) -> None:
    """Train a stage to its end and leave its last checkpoint. begin_from: the last checkpoint of the stage before."""
    recipe, stage, world = one.recipe, one.stage, one.world
    optimiser = make_optimiser(one.scorer, stage.optimiser)
    done = 0
    if resumed := checkpoints.newest(checkpoints.folder_of(one.run, stage.name)):
        checkpoints.restore(resumed, one.scorer, optimiser)
        done = checkpoints.step_of(resumed)
    elif begin_from:
        checkpoints.restore(begin_from, one.scorer, optimiser, moments=keep_optimiser)
    writer = Checkpoints(one.run, stage.name, world, keep=recipe.keep_checkpoints)
    metrics = Metrics(
        one.run / "metrics.jsonl" if world.first else None,
        stage=stage.name,
        done=one.before + done if resumed else -1,
        trackers=recipe.log,
        name=one.run.name,
    )
    if not resumed:
        _measure(one, metrics, 0)
    batches = Batches(one.rows, stage, world, seed=recipe.seed, micro_rows=recipe.micro_rows)
    trainer = _Trainer(one, optimiser, metrics)
    title = f"training {stage.name}" if world.first else ""
    with Progress(title, one.steps if world.first else 0, done=done, unit="steps", status=trainer.status) as progress:
        for step, batch in enumerate(batches.from_step(done, one.steps), done + 1):
            trainer.step(step, batch)
            if world.first:
                progress.advance(1)
            last = step == one.steps
            if last or (recipe.held_out_steps and step % recipe.held_out_steps == 0):
                _measure(one, metrics, step)
            if last or (recipe.checkpoint_steps and step % recipe.checkpoint_steps == 0):
                writer.save(one.scorer, optimiser, step, {"stage": stage.name, "ranks": world.size})
            elif world.first:
                writer.poll()
    writer.finish()
    world.wait()


def _measure(one: StageRun, metrics: Metrics, step: int) -> None:
    if one.held_out is None:
        return
    found = measure(
        one.scorer, one.held_out, one.world, mask=one.stage.mask, most=one.recipe.held_out_rows, half=one.half
    )
    for loss in found:
        metrics.add("held-out", one.stage.name, one.before + step, **vars(loss))


class _Trainer:
    """Takes steps, and tells what they were."""

    def __init__(self, one: StageRun, optimiser: torch.optim.Optimizer, metrics: Metrics) -> None:
        self._one, self._optimiser, self._metrics = one, optimiser, metrics
        self._watch = Watch()
        self._told = ""
        self._peak = estimates.peak(one.world.device)

    def status(self) -> str:
        """The last step in short."""
        return self._told

    def step(self, step: int, batch: Batch) -> None:
        """Take one step, from 1. Raises RunError where losses are not finite again and again."""
        one, began = self._one, time.monotonic()
        rate = one.stage.optimiser.rate * rate_share(one.stage.schedule, step - 1, one.steps)
        # What is random in a step is a function of the step, so that a resumed training draws the same.
        torch.manual_seed(one.recipe.seed + 1_000_003 * (one.before + step) + one.world.rank)
        loss = self._backward(batch) / max(1, batch.trained)
        norm = self._clip()
        if math.isfinite(loss) and math.isfinite(norm):
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        seconds = time.monotonic() - began + batch.waited
        self._tell(step, batch, loss=loss, gradient_norm=norm, rate=rate, seconds=seconds)

    def _backward(self, batch: Batch) -> float:
        """Gradients of the mean loss of all trained tokens of the step; returns the sum of their losses."""
        one, total = self._one, 0.0
        share = one.world.size / max(1, batch.trained)
        for micro in batch.micros:
            tensors = (
                each.to(one.world.device, non_blocking=True) for each in (micro.ids, micro.positions, micro.labels)
            )
            with precision(one.world, one.half):
                part = one.scorer(*tensors)
            # Gradients are averaged over the processes, so each one's share is taken as many times as there are.
            (part * share).backward()
            total += float(part.detach())
        return one.world.add_up([total])[0]

    def _clip(self) -> float:
        limit = self._one.stage.optimiser.clip or math.inf
        trained = [each for each in self._one.scorer.parameters() if each.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _tell(self, step: int, batch: Batch, *, loss: float, gradient_norm: float, rate: float, seconds: float) -> None:
        one = self._one
        work = estimates.work(one.shape, batch.tokens, batch.attended)
        values = {
            "loss": loss,
            "tokens": batch.tokens,
            "trained": batch.trained,
            "rate": rate,
            "gradient_norm": gradient_norm,
            "seconds": round(seconds, 6),
            "tokens_per_second": round(batch.tokens / seconds, 1),
            "mfu": round(work / seconds / (self._peak * one.world.size), 4) if self._peak else None,
            "memory": estimates.used(one.world),
        }
        place = one.before + step
        self._metrics.add("train", one.stage.name, place, **values)
        self._told = f"loss {loss:.4f}, {batch.tokens / seconds:,.0f} tokens/s"
        for reason, detail in self._watch.look(loss, seconds, batch.waited, norm=gradient_norm):
            self._metrics.add("notice", one.stage.name, place, reason=reason, detail=detail)
            if one.world.first:
                print(f"{one.stage.name}, step {step}: {reason}: {detail}")
