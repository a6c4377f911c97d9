"""A training: stages in sequence, each finished or gone on with.

RUN/config.json                     what was asked for
RUN/metrics.jsonl                   every step, held-out loss and notice
RUN/stages/NAME/packed, held-out    rows, where the recipe names sources
RUN/stages/NAME/checkpoints         states that the stage goes on from
RUN/stages/NAME/model               the model after the stage, for Hugging Face and vLLM
"""

import time
from contextlib import nullcontext
from pathlib import Path

from agentdata import __version__
from agentdata.errors import RunError, UsageError
from agentdata.midtrain.packed import PackedRows
from agentdata.runs import locked, settle
from agentdata.training import checkpoints, isolation
from agentdata.training.batches import steps_of
from agentdata.training.estimates import check_memory, memory, shape_of, turns_of
from agentdata.training.loop import StageRun, train_stage
from agentdata.training.model import causal, empty_model, layers_of, load_model
from agentdata.training.parallel import World, divide, joined, place, said_once
from agentdata.training.prepare import (
    await_prepared,
    check_inputs,
    check_vocabulary,
    held_out_folder,
    packed_folder,
    prepare,
    stage_folder,
)
from agentdata.training.recipe import Stage, TrainingRecipe
from agentdata.training.saving import save
from agentdata.training.scoring import Scorer

FREE = {"micro_rows", "activation_checkpointing", "compile", "checkpoint_steps", "keep_checkpoints", "log", "verify"}
"""What may change when a training is gone on with: it moves no loss by more than rounding."""


def train(run: Path, recipe: TrainingRecipe, *, workers: int = 1) -> Path:
    """Train all stages, or go on where it was stopped; returns the directory of the last model.

    Under torchrun every process calls this. workers: processes for packing. Raises UsageError or RunError.
    """
    world, since = place(), time.time() - 60.0
    if recipe.stages[0].batch_rows < world.size:
        raise UsageError(
            f"batch_tokens holds {recipe.stages[0].batch_rows} rows and {world.size} processes would share them: raise it."
        )
    with locked(run, (1, 1)) if world.first else nullcontext(), said_once(world):
        if world.first:
            check_inputs(recipe)
            empty_model(recipe)
            options = recipe.model_dump(mode="json", exclude=FREE)
            settle(run, {"generator": f"agentdata {__version__}", "options": {"training": options}})
            prepare(run, recipe, workers=workers)
        else:
            await_prepared(run, since)
        with joined(world):
            world.wait()
            before = 0
            for stage in recipe.stages:
                rows = PackedRows(packed_folder(run, stage))
                if not (stage_folder(run, stage) / "model").is_dir():
                    _train_one(run, recipe, stage, world, rows, before)
                before += steps_of(stage, len(rows))
    return stage_folder(run, recipe.stages[-1]) / "model"


def _train_one(run: Path, recipe: TrainingRecipe, stage: Stage, world: World, rows: PackedRows, before: int) -> None:
    begin_from = _last_checkpoint(run, recipe, stage)
    half = recipe.precision == "bf16" or (recipe.precision == "auto" and world.device.type == "cuda")
    empty = empty_model(recipe)
    config, shape = causal(empty).config.get_text_config(), shape_of(empty)
    check_vocabulary(rows, config.vocab_size, getattr(config, "max_position_embeddings", 0) or 0, recipe.model)
    check_memory(memory(shape, stage, recipe, world, half=half), recipe, stage, world)
    with world.in_turns(turns_of(shape, world)):
        model = load_model(recipe, world.device)
        scorer, layers = Scorer(model), layers_of(model)
        if recipe.compile:
            for layer in layers:
                layer.compile()
        divide(scorer, layers, world, half=half)
    isolation.check(scorer, world, vocabulary=config.vocab_size, half=half)
    folder = held_out_folder(run, stage)
    one = StageRun(
        run=run,
        recipe=recipe,
        stage=stage,
        world=world,
        rows=rows,
        held_out=PackedRows(folder) if folder else None,
        scorer=scorer,
        shape=shape,
        half=half,
        before=before,
    )
    train_stage(
        one,
        begin_from=begin_from,
        keep_optimiser=stage.keep_optimiser,
    )
    save(stage_folder(run, stage) / "model", scorer, recipe, stage, rows.manifest, world)


def _last_checkpoint(run: Path, recipe: TrainingRecipe, stage: Stage) -> Path | None:
    """The end of the stage that this one begins from, where it has not begun itself. Raises RunError where it is gone."""
    earlier = recipe.before(stage)
    if earlier is None or checkpoints.newest(checkpoints.folder_of(run, stage.name)):
        return None
    found = checkpoints.newest(checkpoints.folder_of(run, earlier.name))
    steps = steps_of(earlier, len(PackedRows(packed_folder(run, earlier))))
    if found is None or checkpoints.step_of(found) != steps:
        raise RunError(
            f"Stage {stage.name!r} begins from the checkpoint after step {steps} of stage {earlier.name!r}, which is gone: "
            f"put it back, or remove {stage_folder(run, earlier) / 'model'} and run the same command again to train what "
            "is missing."
        )
    return found
