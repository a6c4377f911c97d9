"""A model and its rows to the memory that they will take and the work that a step is."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agentdata.errors import RunError
from agentdata.training.model import causal, layers_of
from agentdata.training.parallel import World
from agentdata.training.recipe import Stage, TrainingRecipe
from agentdata.training.scoring import CHUNKED

PEAKS = {
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}
"""Dense bf16 floating-point operations a second of accelerators, from their makers' data sheets."""
LAYER_NUMBERS = 17
"""Numbers kept for the backward pass for each token, layer and unit of width (Korthikanti et al. 2022: 34 bytes in bf16)."""
HOST_SHARE = 0.5
"""Share of the host's free memory that models may take while they are loaded."""
SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Shape:
    """What the costs of a model are computed from."""

    parameters: int
    trained: int
    multiplied: int
    """Parameters that each token is multiplied with: all but the embedding, and the head also where it is tied to it."""
    layers: int
    width: int
    heads_width: int
    """Width of all query heads together."""
    vocabulary: int


def shape_of(model: nn.Module) -> Shape:
    """Read the numbers of a model that is not divided yet."""
    whole = causal(model)
    config: Any = whole.config.get_text_config()
    parameters = sum(one.numel() for one in model.parameters())
    embedding = whole.get_input_embeddings().weight.numel()
    tied = bool(getattr(config, "tie_word_embeddings", False))
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    width = int(config.hidden_size)
    return Shape(
        parameters=parameters,
        trained=sum(one.numel() for one in model.parameters() if one.requires_grad),
        multiplied=parameters - (0 if tied else embedding),
        layers=len(layers_of(model)),
        width=width,
        heads_width=heads * int(getattr(config, "head_dim", None) or (width // max(1, heads))),
        vocabulary=int(config.vocab_size),
    )


def work(shape: Shape, tokens: int, attended: int) -> float:
    """Floating-point operations of a step: 6 N for each token, 12 L H Q for each pair that attention looks at.

    PaLM (arXiv 2204.02311), appendix B, with the pairs counted exactly: documents are causal and do not see each other.
    Where only additions are trained, 4 N: no gradient of the other weights is computed.
    """
    each = 6 if shape.trained == shape.parameters else 4
    return float(each * shape.multiplied * tokens + 12 * shape.layers * shape.heads_width * attended)


def peak(device: torch.device) -> float | None:
    """Operations a second that the accelerator's maker names, or None."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for key, value in PEAKS.items() if key in name), None)


def memory(shape: Shape, stage: Stage, recipe: TrainingRecipe, world: World, *, half: bool) -> dict[str, float]:
    """Bytes that one process will hold, by what they are. Upper bounds but for activations, which are an estimate."""
    tokens = recipe.micro_rows * stage.row_length
    number = 2 if half else 4
    layer = LAYER_NUMBERS * number * tokens * shape.width
    logits = 3 * 4 * min(tokens * shape.vocabulary, CHUNKED)
    mask = tokens * stage.row_length if world.device.type == "cpu" else 0
    kept = (
        (2 * number * tokens * shape.width * shape.layers + layer)
        if recipe.activation_checkpointing
        else layer * shape.layers
    )
    return {
        "weights": 4 * shape.parameters / world.size,
        "gradients": 4 * shape.trained / world.size,
        "moments": 8 * shape.trained / world.size,
        "activations": float(kept + logits + mask),
    }


def check_memory(needed: dict[str, float], recipe: TrainingRecipe, stage: Stage, world: World) -> None:
    """Raise RunError where it will not fit, with what to change."""
    have = available(world)
    total = sum(needed.values())
    if total <= have:
        return
    parts = ", ".join(f"{name} {sized(size)}" for name, size in needed.items())
    remedies = [
        "set activation_checkpointing" if not recipe.activation_checkpointing else "",
        f"lower micro_rows ({recipe.micro_rows})"
        if recipe.micro_rows > 1
        else f"lower row_length ({stage.row_length})",
        "train an adapter" if not recipe.adapter else "",
        "start more processes with torchrun",
    ]
    raise RunError(
        f"Stage {stage.name!r} needs about {sized(total)} in each process ({parts}) and {sized(have)} are free: "
        f"{', '.join(one for one in remedies if one)}."
    )


def turns_of(shape: Shape, world: World) -> int:
    """Groups in which a machine's processes load the model, so that the whole ones fit beside each other."""
    return min(world.local_size, 1 + int(world.local_size * 4 * shape.parameters / (HOST_SHARE * host_memory())))


def available(world: World) -> float:
    """Bytes that a process may take."""
    if world.device.type == "cuda":
        return float(torch.cuda.mem_get_info(world.device)[0])
    return host_memory() / world.local_size


def host_memory() -> float:
    """Free bytes of this machine or container."""
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(float(free), _group_limit())


def _group_limit() -> float:
    """The memory limit of a container, if any."""
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            text = file.read().strip()
        return float("inf") if text == "max" else float(text)
    except (OSError, ValueError):
        return float("inf")


def used(world: World) -> int:
    """Most bytes that this process held."""
    if world.device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(world.device))
    with open(f"/proc/{os.getpid()}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def sized(size: float) -> str:
    """Bytes in words."""
    scale, unit = next(((scale, unit) for scale, unit in SIZES if size >= scale), SIZES[-1])
    return f"{size / scale:,.1f} {unit}"
