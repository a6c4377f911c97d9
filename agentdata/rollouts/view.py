"""Which trajectories become training rows and how: the numbers of a view, as a record that recipes fill."""

from typing import Literal

from pydantic import Field, model_validator

from agentdata.records import Record, StopReason

EnvironmentalRendering = Literal["xml", "messages", "tokens"]
ErrorMask = Literal["none", "refused", "all"]


class ViewRecipe(Record):
    """Everything that decides which rows are made of a run of trajectories. Each choice is counted under its reason."""

    renderings: tuple[EnvironmentalRendering, ...] = ("messages",)
    outcomes: Literal["passing", "graded", "all"]
    """Attempts that are kept: those that resolved their task (failed), those that were graded (not-graded), or all."""
    repeat_passing: int = Field(ge=1)
    """How often an attempt that resolved its task occurs among the rows."""
    resolved_attempts: tuple[int, int] | None = None
    """Least and most resolved attempts of the tasks that are kept (out-of-band); null for all tasks."""
    stops: tuple[StopReason, ...]
    """Endings that are kept (stop-reason); empty keeps all."""
    drop_leaks: bool
    """Drop attempts that looked for what the environment must not hold (leak)."""
    drop_tampering: bool
    """Drop attempts that changed tests or what steers them (tampering)."""
    mask: Literal["all", "actions-only"]
    """What is trained: everything, or only the turns of the policy."""
    mask_errors: ErrorMask
    """Steps that are not trained on: none, those whose turn or call was refused, or all whose observation is an error."""
    most_tokens: int = Field(gt=0)
    """Longest row; longer ones are dropped per rendering (too-long)."""
    tokenizer: str = ""
    """Path of a tokenizer.json, a Hub id, or empty for the estimate of `bytes_per_token`."""
    bytes_per_token: float = Field(default=3.5, gt=0, allow_inf_nan=False)
    turn_start: str = "<|im_start|>{role}\n"
    """What stands before each turn of the `xml` text."""
    turn_end: str = "<|im_end|>"
    """What ends a turn of the `xml` text; it is trained with the turn."""
    turn_gap: str = "\n"
    """What stands between turns of the `xml` text."""

    @model_validator(mode="after")
    def _sensible(self) -> "ViewRecipe":
        if not self.renderings or len(set(self.renderings)) < len(self.renderings):
            raise ValueError("renderings: name at least one, and none twice")
        if self.resolved_attempts and self.resolved_attempts[0] > self.resolved_attempts[1]:
            raise ValueError("resolved_attempts: the least comes first")
        return self
