"""A name to a causal model of Hugging Face, ready to be trained."""

from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, logging

from agentdata.errors import UsageError
from agentdata.training.recipe import Adapter, TrainingRecipe


def attention_of(recipe: TrainingRecipe, device: torch.device) -> str:
    """The attention that keeps packed documents apart here."""
    if recipe.attention != "auto":
        return recipe.attention
    if device.type == "cpu":
        return "sdpa"
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else "flex_attention"


def empty_model(recipe: TrainingRecipe) -> nn.Module:
    """The model with an adapter as it is trained, without numbers: what it costs is known before it is loaded."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(read_config(recipe), dtype=torch.float32)
        return add_adapter(model, recipe.adapter) if recipe.adapter else model


def read_config(recipe: TrainingRecipe) -> Any:
    """The configuration of the recipe's model. Raises UsageError."""
    try:
        config = AutoConfig.from_pretrained(recipe.model)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(recipe, error) from error
    # The attention over packed documents is told apart by positions only while nothing is cached.
    config.use_cache = False
    return config


def load_model(recipe: TrainingRecipe, device: torch.device) -> nn.Module:
    """The model in fp32, in the memory of the host. device: where it will be trained. Raises UsageError."""
    logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": attention_of(recipe, device)}
    config = read_config(recipe)
    try:
        if recipe.weights == "random":
            torch.manual_seed(recipe.seed)
            model: nn.Module = AutoModelForCausalLM.from_config(config, **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(recipe.model, config=config, **options)
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise _not_loaded(recipe, error) from error
    if recipe.adapter:
        model = add_adapter(model, recipe.adapter)
    if recipe.activation_checkpointing:
        causal(model).activation_checkpointing_enable()
    return model.train()


def _not_loaded(recipe: TrainingRecipe, error: Exception) -> UsageError:
    words = " ".join(str(error).split())[:300]
    return UsageError(f"The model {recipe.model!r} cannot be loaded: {words}")


def add_adapter(model: nn.Module, adapter: Adapter) -> nn.Module:
    """Low-rank additions beside weights that stay as they are: LoRA, DoRA (2402.09353), rsLoRA (2312.03732)."""
    from peft import LoraConfig, get_peft_model

    targets: Any = "all-linear" if adapter.targets == ("all-linear",) else list(adapter.targets)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.kind == "rslora",
        task_type="CAUSAL_LM",
    )
    try:
        adapted: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"The adapter does not fit the model: {' '.join(str(error).split())[:300]}") from error
    return adapted


def causal(model: nn.Module) -> Any:
    """The causal model itself, without what an adapter wraps around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder layers: the modules of the classes that the model says must not be divided, else the longest list."""
    kinds = set(getattr(causal(model), "_no_split_modules", None) or ())
    found = [module for module in model.modules() if type(module).__name__ in kinds]
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return found or list(max(lists, key=lambda one: len(one), default=[]))
