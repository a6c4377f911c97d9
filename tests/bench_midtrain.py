"""Seconds of a training step beside a bare torch loop, transformers.Trainer and TRL, in one run on the same packed rows.

    python -m tests.bench_midtrain RUN [--rendering markdown] [--hidden-size 512] [--layers 8] [--steps 12] [--mask all]

A small model with random weights is made, rows of RUN are packed, and each way trains them in a process of its own, in the
same batches. The bare loop is the least that trains: forward, cross-entropy, backward, clipping, AdamW. What is not
installed (TRL) is left out. The figure is the median of the steps but the first three, in CPU and wall seconds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from agentdata.midtrain.packed import MASKED, PackedRows
from agentdata.training.batches import Batches
from agentdata.training.metrics import read_metrics
from agentdata.training.new_model import ModelShape, init_model
from agentdata.training.parallel import place
from agentdata.training.prepare import packed_folder
from agentdata.training.recipe import Stage, TrainingRecipe
from agentdata.training.run import train
from tests.bench_harvest import Figures, measured

SKIPPED = 3


def recipe_of(values: dict[str, Any]) -> TrainingRecipe:
    """What all ways train."""
    stage = Stage.model_validate(
        {
            "name": "only",
            "sources": [{"path": values["run"], "rendering": values["rendering"], "split": ""}],
            "mask": values["mask"],
            "row_length": values["row_length"],
            "batch_tokens": values["row_length"] * values["rows"],
            "steps": values["steps"],
            "schedule": {"kind": "constant", "warmup": 0.0},
            "optimiser": {"rate": 1e-4},
        }
    )
    return TrainingRecipe(model=values["model"], stages=(stage,), checkpoint_steps=0, held_out_steps=0, verify=False)


def medians(walls: list[float], cpus: list[float], losses: list[float]) -> Figures:
    return {
        "step_wall": statistics.median(walls[SKIPPED:]),
        "step_cpu": statistics.median(cpus[SKIPPED:]),
        "loss": losses[-1],
        "first": losses[0],
    }


def steps_timed(take: Iterator[float]) -> Figures:
    """Wall and CPU seconds between the losses that an iterator gives."""
    walls, cpus, losses = [], [], []
    wall, cpu = time.perf_counter(), time.process_time()
    for loss in take:
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        losses.append(loss)
        wall, cpu = time.perf_counter(), time.process_time()
    return medians(walls, cpus, losses)


def bare(values: dict[str, Any]) -> Figures:
    """The least that trains."""
    from transformers import AutoModelForCausalLM

    recipe = recipe_of(values)
    stage = recipe.stages[0]
    model = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32, attn_implementation="sdpa").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batches = Batches(PackedRows(packed_folder(Path(values["out"]), stage)), stage, place(), seed=0, micro_rows=1)

    def take() -> Iterator[float]:
        for step in range(stage.steps):
            batch, total = batches.of_step(step), 0.0
            for micro in batch.micros:
                logits = model(input_ids=micro.ids, position_ids=micro.positions, use_cache=False).logits
                loss = F.cross_entropy(
                    logits.flatten(0, 1).float(), micro.labels.flatten(), ignore_index=MASKED, reduction="sum"
                )
                (loss / max(1, batch.trained)).backward()
                total += float(loss.detach()) / max(1, batch.trained)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            yield total

    return steps_timed(take())


def ours(values: dict[str, Any]) -> Figures:
    """`agentdata midtrain`, from what it writes itself; CPU seconds are between its lines."""
    from agentdata.training import loop

    cpus = [time.process_time()]
    tell = loop._Trainer._tell

    def timed(self: Any, *given: Any, **named: Any) -> None:
        tell(self, *given, **named)
        cpus.append(time.process_time())

    loop._Trainer._tell = timed  # type: ignore[method-assign]
    train(Path(values["out"]), recipe_of(values))
    told = [one for one in read_metrics(Path(values["out"]) / "metrics.jsonl") if one["event"] == "train"]
    between = [after - before for before, after in pairwise(cpus)]
    return medians([one["seconds"] for one in told], between, [one["loss"] for one in told])


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Packed rows in the order of our steps, as others take them."""

    def __init__(self, values: dict[str, Any], positions: bool) -> None:
        stage = recipe_of(values).stages[0]
        batches = Batches(PackedRows(packed_folder(Path(values["out"]), stage)), stage, place(), seed=0, micro_rows=1)
        self._micros = [micro for step in range(stage.steps) for micro in batches.of_step(step).micros]
        self._positions = positions

    def __len__(self) -> int:
        return len(self._micros)

    def __getitem__(self, at: int) -> dict[str, Any]:
        micro = self._micros[at]
        # Their labels are shifted by the model.
        labels = micro.labels[0].roll(1)
        labels[0] = MASKED
        row = {"input_ids": micro.ids[0].tolist(), "labels": labels.tolist()}
        return row | ({"position_ids": micro.positions[0].tolist()} if self._positions else {})


def _arguments(values: dict[str, Any], kind: Callable[..., Any], **more: Any) -> Any:
    return kind(
        output_dir=str(Path(values["out"]) / kind.__name__),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=values["rows"],
        max_steps=values["steps"],
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.1,
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        **more,
    )


def _train(trainer: Any) -> Figures:
    from transformers import TrainerCallback

    wall, cpu, walls, cpus = [time.perf_counter()], [time.process_time()], [], []

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            walls.append(time.perf_counter() - wall[0])
            cpus.append(time.process_time() - cpu[0])
            wall[0], cpu[0] = time.perf_counter(), time.process_time()

    trainer.add_callback(Clock())
    trainer.train()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    return medians(walls, cpus, losses)


def hugging_face(values: dict[str, Any]) -> Figures:
    """transformers.Trainer."""
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator

    model = AutoModelForCausalLM.from_pretrained(values["model"], dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    arguments = _arguments(values, TrainingArguments, remove_unused_columns=False)
    return _train(Trainer(model, arguments, data_collator=default_data_collator, train_dataset=_Rows(values, True)))


def trl(values: dict[str, Any]) -> Figures:
    """TRL's SFTTrainer on the same rows as tokens, which it does not isolate on a CPU."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(values["model"], dtype=torch.float32, attn_implementation="sdpa")
    rows = _Rows(values, False)
    arguments = _arguments(values, SFTConfig, bf16=False, max_length=None, gradient_checkpointing=False)
    data = Dataset.from_list([rows[at] for at in range(len(rows))])
    tokenizer = AutoTokenizer.from_pretrained(values["model"])
    return _train(SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer))


WAYS: dict[str, tuple[Callable[[dict[str, Any]], Figures], str]] = {
    "ours": (ours, "torch"),
    "bare": (bare, "torch"),
    "Trainer": (hugging_face, "accelerate"),
    "TRL": (trl, "trl"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--rendering", default="markdown")
    parser.add_argument("--mask", default="all", choices=["all", "trained-only"])
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--row-length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2, help="How often each way is run, in turn.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        values = {**vars(given), "model": f"{folder}/model"}
        shape = ModelShape(hidden_size=given.hidden_size, layers=given.layers, vocabulary=given.vocabulary)
        sources = [f"{given.run}:{given.rendering}"]
        count = init_model(Path(folder) / "model", sources, shape, seed=0, most_bytes=1 << 24, split="")
        print(
            f"{count:,} parameters, {given.rows} rows of {given.row_length} tokens, mask {given.mask}", file=sys.stderr
        )
        found: dict[str, list[Figures]] = {}
        for turn in range(given.rounds):
            for name, (way, package) in WAYS.items():
                if find_spec(package):
                    # Ours packs the rows that the others read.
                    out = f"{folder}/ours-{turn}"
                    found.setdefault(name, []).append(measured(way, {**values, "out": out}))
    floor = min(one["step_wall"] for one in found["bare"])
    print("| way | step, wall s | step, CPU s | of the bare loop | peak MB | first loss | last loss |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, rounds in found.items():
        best = min(rounds, key=lambda one: one["step_wall"])
        seconds = f"{best['step_wall']:.3f} | {best['step_cpu']:.3f} | {best['step_wall'] / floor:.3f}"
        print(f"| {name} | {seconds} | {best['mb']:,.0f} | {best['first']:.4f} | {best['loss']:.4f} |")


if __name__ == "__main__":
    main()
