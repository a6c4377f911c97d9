"""A trained model to a directory that Hugging Face and vLLM load: weights, tokenizer, chat template, card."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from agentdata import __version__
from agentdata.midtrain.packed import PackManifest, read_pack_manifest
from agentdata.midtrain.tokenizer import read_tokenizer
from agentdata.training.metrics import read_metrics
from agentdata.training.model import add_adapter
from agentdata.training.parallel import World
from agentdata.training.prepare import packed_folder
from agentdata.training.recipe import Stage, TrainingRecipe
from agentdata.training.scoring import Scorer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
PREFIX = "model."
"""What the names of weights begin with in a Scorer."""


def save(
    folder: Path, scorer: Scorer, recipe: TrainingRecipe, stage: Stage, manifest: PackManifest, world: World
) -> None:
    """Write the model of a stage. With an adapter, the whole model with it merged in, and the adapter beside it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=bool(recipe.adapter))
    weights = {
        name.removeprefix(PREFIX): value for name, value in get_model_state_dict(scorer, options=options).items()
    }
    if world.first:
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if recipe.adapter:
            _save_adapted(unfinished, weights, recipe)
        else:
            _save_whole(unfinished, weights, recipe)
        _copy_tokenizer(unfinished, recipe)
        _save_generation(unfinished, recipe, manifest)
        (unfinished / "README.md").write_text(card(recipe, stage, folder.parents[2]))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    world.wait()


def _save_whole(folder: Path, weights: dict[str, torch.Tensor], recipe: TrainingRecipe) -> None:
    config = AutoConfig.from_pretrained(recipe.model)
    kind = getattr(config, "dtype", None) or torch.float32
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=kind)
    tied = (
        set(getattr(empty, "_tied_weights_keys", None) or ()) if config.get_text_config().tie_word_embeddings else set()
    )
    kept = {
        name: value.to(kind) if value.is_floating_point() else value
        for name, value in weights.items()
        if name not in tied
    }
    empty.save_pretrained(folder, state_dict=kept)


def _save_adapted(folder: Path, weights: dict[str, torch.Tensor], recipe: TrainingRecipe) -> None:
    config = AutoConfig.from_pretrained(recipe.model)
    if recipe.weights == "random":
        torch.manual_seed(recipe.seed)
        plain: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    else:
        plain = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32)
    assert recipe.adapter is not None
    adapted: Any = add_adapter(plain, recipe.adapter)
    adapted.load_state_dict(weights, strict=False)
    adapted.save_pretrained(folder / "adapter")
    merged = adapted.merge_and_unload()
    merged.to(getattr(config, "dtype", None) or torch.float32).save_pretrained(folder)


def _copy_tokenizer(folder: Path, recipe: TrainingRecipe) -> None:
    source = read_tokenizer(recipe.model).path.parent
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if recipe.chat_template:
        shutil.copyfile(Path(recipe.chat_template).expanduser(), folder / "chat_template.jinja")


def _save_generation(folder: Path, recipe: TrainingRecipe, manifest: PackManifest) -> None:
    """How to generate: the base model's way, or at least where to stop."""
    try:
        GenerationConfig.from_pretrained(recipe.model).save_pretrained(folder)
    except OSError:
        end = manifest.end_id if manifest.end_id >= 0 else None
        GenerationConfig(eos_token_id=end, pad_token_id=manifest.pad_id).save_pretrained(folder)


def card(recipe: TrainingRecipe, stage: Stage, run: Path) -> str:
    """The model card: computed from the recipe, the ledgers of the stages that led here, and what was measured."""
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [agentdata, mid-training]"]
    if recipe.weights == "pretrained" and "/" in recipe.model and not Path(recipe.model).exists():
        head.append(f"base_model: {recipe.model}")
    metrics = list(read_metrics(run / "metrics.jsonl"))
    lines = [
        *head,
        "---",
        f"# {Path(recipe.model).name}, trained in stage {stage.name}",
        "",
        f"Made by agentdata {__version__} from `{recipe.model}` ({recipe.weights} weights"
        + (f", {recipe.adapter.kind} of rank {recipe.adapter.rank}, merged" if recipe.adapter else "")
        + ").",
        "",
        *(line for one in recipe.lineage(stage) for line in _stage(one, run, metrics)),
        "## Recipe",
        "",
        "```json",
        json.dumps(recipe.model_dump(mode="json"), indent=1),
        "```",
        "",
    ]
    return "\n".join(lines)


def _stage(stage: Stage, run: Path, metrics: list[dict[str, Any]]) -> list[str]:
    """What a stage was, what it could read, what it did read, and how its held-out losses moved."""
    ledger = read_pack_manifest(packed_folder(run, stage)).ledger
    steps = [one for one in metrics if one["event"] == "train" and one["stage"] == stage.name]
    tokens, trained = (sum(one[key] for one in steps) for key in ("tokens", "trained"))
    licences = sorted({line.licence or "unknown" for line in ledger.lines})
    return [
        f"## Stage {stage.name}",
        "",
        f"{_told(stage)}. It read {tokens:,} tokens and was trained on {trained:,} of them in {len(steps):,} steps, out of "
        f"{ledger.tokens:,} packed tokens ({ledger.trained:,} to be trained) in {ledger.rows:,} rows:",
        "",
        "| source | kind | licence | documents | tokens | trained | repeats |",
        "|---|---|---|---:|---:|---:|---:|",
        *(
            f"| {_cell(line.source)} | {_cell(line.kind)} | {_cell(line.licence)} | {line.documents:,} | "
            f"{line.packed_tokens:,} | {line.packed_trained:,} | {line.epochs:g} |"
            for line in ledger.lines
        ),
        "",
        f"Licences of the sources: {', '.join(licences)}.",
        "",
        *_losses(metrics, stage),
    ]


def _told(stage: Stage) -> str:
    length = f"{stage.steps:,} steps" if stage.steps else f"{stage.epochs:g} epochs, in steps"
    return (
        f"{length} of {stage.batch_tokens:,} tokens in rows of {stage.row_length:,}, {stage.schedule.kind} "
        f"from {stage.optimiser.rate:g}, mask {stage.mask}"
    )


def _losses(metrics: list[dict[str, Any]], stage: Stage) -> list[str]:
    found = [one for one in metrics if one["event"] == "held-out" and one["stage"] == stage.name]
    if not found:
        return []
    first = {(one["source"], one["kind"]): one["loss"] for one in reversed(found)}
    last = {(one["source"], one["kind"]): one for one in found}
    rows = [
        f"| {_cell(source)} | {_cell(kind)} | {first[source, kind]:.4f} | {one['loss']:.4f} | {one['tokens']:,} |"
        for (source, kind), one in last.items()
    ]
    title = ["| held-out source | kind | before | after | tokens |", "|---|---|---:|---:|---:|"]
    return [*title, *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
