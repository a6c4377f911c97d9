"""A step's place in its stage to its learning rate."""

from collections.abc import Callable
from math import cos, pi, sqrt

from agentdata.training.recipe import Schedule


def rate_share(schedule: Schedule, step: int, steps: int) -> float:
    """The rate of a step (from 0, of `steps`) as a share of the peak: in (0, 1] unless the minimum is 0.

    The first step of a warm-up already moves: step s of w has (s + 1) / w. Decays reach `minimum` in the last step.
    """
    warm = round(schedule.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if schedule.kind == "constant":
        return 1.0
    begin = warm
    shape: str = schedule.kind
    if schedule.kind == "warmup-stable-decay":
        begin = max(warm, steps - round(schedule.decay * steps))
        shape = schedule.decay_shape
        if step < begin:
            return 1.0
    share = (
        (step - begin + 1) / (steps - begin) if schedule.kind == "warmup-stable-decay" else _share(step, begin, steps)
    )
    return schedule.minimum + (1 - schedule.minimum) * SHAPES[shape](share)


def _share(step: int, begin: int, steps: int) -> float:
    """0 in the first step after the warm-up, 1 in the last of all."""
    return (step - begin) / max(1, steps - 1 - begin)


SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: (1 + cos(pi * share)) / 2,
    "linear": lambda share: 1 - share,
    "sqrt": lambda share: 1 - sqrt(share),
}
"""What is left of the way from peak to minimum after a share of the decay. `sqrt`: arXiv 2405.18392."""
