"""The check at the start of every training: documents in a row do not see each other, and losses are the model's own.

A leak is silent otherwise: losses look better than they are, since a document is helped by what stands before it.
"""

import torch

from agentdata.errors import RunError
from agentdata.midtrain.packed import MASKED
from agentdata.training.parallel import World, release
from agentdata.training.scoring import Scorer

DOCUMENT = 24
"""Tokens of each of the two documents of the check."""
MOST_LEAK = 0.01
"""Share of the effect inside of a document from which on an effect across documents is a leak."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def check(scorer: Scorer, world: World, *, vocabulary: int, half: bool) -> float:
    """Settle `own_head`, and raise RunError where documents of a row see each other. Returns the leak found.

    Two rows are alike but for the first token of their first document. Losses in the rest of that document must differ,
    or the check would see nothing; losses in the second document must not.
    """
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 2 * DOCUMENT), generator=draw)
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % vocabulary
    training = scorer.training
    scorer.eval()
    with torch.no_grad(), precision(world, half):
        whole, changed = _losses(scorer, world, ids), _losses(scorer, world, other)
        scorer.own_head = False
        models_own = _losses(scorer, world, ids)
    scorer.own_head = torch.allclose(whole, models_own, rtol=ROUNDING[torch.bfloat16 if half else torch.float32])
    release(scorer)
    scorer.train(training)
    moved = (whole - changed).abs()
    inside, across = float(moved[1 : DOCUMENT - 1].max()), float(moved[DOCUMENT - 1 :].max())
    if not inside > 0:
        raise RunError(
            "The model's losses do not depend on what stands before a token: it cannot be checked or trained."
        )
    if across > MOST_LEAK * inside:
        raise RunError(
            f"Documents that share a row see each other in this model (a change in the first moves losses in the second by "
            f"{across:.2g}, in itself by {inside:.2g}): choose another `attention`, or rows that hold one document."
        )
    return across


def _losses(scorer: Scorer, world: World, ids: torch.Tensor) -> torch.Tensor:
    """Losses of the second to the last token of each document: [2 * (DOCUMENT - 1)]."""
    positions = torch.arange(DOCUMENT).repeat(2)[None]
    labels = ids.roll(-1, dims=1)
    labels[0, DOCUMENT - 1 :: DOCUMENT] = MASKED
    found: torch.Tensor = scorer(*(one.to(world.device) for one in (ids, positions, labels)), each=True)
    return found.float().cpu()


def precision(world: World, half: bool) -> torch.autocast:
    """Activations in bf16 where the model is not divided and so does not cast by itself."""
    return torch.autocast(world.device.type, torch.bfloat16, enabled=half and world.device.type == "cpu")
