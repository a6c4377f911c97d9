"""The numbers of a training, as a record: a model, and stages in sequence."""

import re
from itertools import chain
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from agentdata.midtrain.recipe import MaskPolicy, PackSource
from agentdata.records import Record

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class Schedule(Record):
    """Learning rate over the steps of a stage, as shares of its peak and of its steps."""

    kind: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises to its peak."""
    decay: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which warmup-stable-decay falls."""
    decay_shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """How warmup-stable-decay falls; `sqrt` is 1 - sqrt of the share."""
    minimum: float = Field(default=0.1, ge=0, le=1)
    """Where the rate ends, as a share of the peak."""


class Optimiser(Record):
    """AdamW."""

    rate: float = Field(gt=0, lt=10)
    """Peak of the learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    """Of matrices; vectors (norms, biases) have none."""
    clip: float = Field(default=1.0, ge=0)
    """Norm that gradients are scaled down to; 0 for any."""


class Adapter(Record):
    """Train low-rank additions and leave the weights as they are."""

    kind: Literal["lora", "dora", "rslora"]
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("all-linear",)
    """Endings of the names of modules, or `all-linear` for every linear one but the head."""


class Stage(Record):
    """Training on one mixture."""

    name: str
    after: str = ""
    """Stage whose model it begins from; empty for the one before it, the recipe's model for the first."""
    keep_optimiser: bool = False
    """Go on with the optimiser's moments of that stage, as a decay after a stable stage does."""
    sources: tuple[PackSource, ...] = ()
    """What is trained on, as `agentdata pack` takes it."""
    packed: str = ""
    """Directory that `agentdata pack` wrote with this model's tokenizer, instead of sources."""
    held_out: tuple[PackSource, ...] = ()
    """What the loss is measured on, never trained on."""
    mask: MaskPolicy = "trained-only"
    """`all` trains every token, `trained-only` those that the rows mark."""
    row_length: int = Field(ge=8, le=2**24)
    """Tokens of a row; documents in it do not see each other."""
    batch_tokens: int = Field(ge=8)
    """Tokens of a step over all processes, a multiple of row_length."""
    epochs: float = Field(default=1.0, ge=0, le=1000)
    """How often the rows are trained; the fraction takes the first of the order."""
    steps: int = Field(default=0, ge=0)
    """Steps of the stage; 0 for what the epochs give."""
    schedule: Schedule
    optimiser: Optimiser

    @property
    def batch_rows(self) -> int:
        """Rows of a step over all processes."""
        return self.batch_tokens // self.row_length

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not NAME.match(name):
            raise ValueError("a stage's name is made of letters, digits, dots, dashes and underscores")
        return name

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if bool(self.sources) == bool(self.packed):
            raise ValueError(f"stage {self.name!r} needs either sources or packed")
        if self.batch_tokens % self.row_length:
            raise ValueError(f"batch_tokens {self.batch_tokens} is no multiple of row_length {self.row_length}")
        if not self.epochs and not self.steps:
            raise ValueError(f"stage {self.name!r} has neither epochs nor steps")
        return self


class TrainingRecipe(Record):
    """A model and what it goes through."""

    model: str = Field(min_length=1)
    """Directory or Hub id of a causal model of Hugging Face."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` takes the model's configuration and tokenizer alone."""
    chat_template: str = ""
    """File of a template that takes the place of the tokenizer's own."""
    template_variables: dict[str, Any] = Field(default_factory=dict)
    document_end: str = "auto"
    """Token after each document, as in packing."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    adapter: Adapter | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the order of rows, random weights and dropout."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of activations; weights, moments and sums are fp32. `auto` is bf16 on a GPU and fp32 on a CPU."""
    attention: Literal["auto", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"] = "auto"
    """`auto`: a flash kernel on a GPU where one is installed, else flex_attention; sdpa on a CPU."""
    micro_rows: int = Field(default=1, ge=1)
    """Rows that a process holds activations of at once."""
    activation_checkpointing: bool = False
    """Compute each layer again in the backward pass: a third more work, a fraction of the memory."""
    compile: bool = False
    """Compile each layer with torch.compile."""
    checkpoint_steps: int = Field(default=500, ge=0)
    """Steps between two checkpoints; 0 for those at the ends of stages alone."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints of a stage that are kept besides the last."""
    held_out_steps: int = Field(default=500, ge=0)
    """Steps between two measurements; 0 for those at begin and end of each stage alone."""
    held_out_rows: int = Field(default=256, ge=1)
    """Most rows of a held-out set that are measured, the same each time."""
    log: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""
    verify: bool = True
    """Compare packed rows with their digests before they are trained on."""

    @model_validator(mode="after")
    def _stages_follow(self) -> Self:
        seen: list[str] = []
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are called {stage.name!r}")
            if stage.after and stage.after not in seen:
                raise ValueError(f"stage {stage.name!r} comes after {stage.after!r}, which is no stage before it")
            seen.append(stage.name)
        return self

    def before(self, stage: Stage) -> Stage | None:
        """The stage that another begins from."""
        names = [one.name for one in self.stages]
        place = names.index(stage.after) if stage.after else names.index(stage.name) - 1
        return self.stages[place] if place >= 0 else None

    def lineage(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages that a stage's model went through, itself at the end."""
        earlier = self.before(stage)
        return (*self.lineage(earlier), stage) if earlier else (stage,)

    @property
    def sources(self) -> tuple[PackSource, ...]:
        """Everything that is read."""
        return tuple(chain.from_iterable((*stage.sources, *stage.held_out) for stage in self.stages))
