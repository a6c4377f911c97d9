"""Packed rows to the losses of their trained tokens."""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from agentdata.midtrain.packed import MASKED
from agentdata.training.model import causal

CHUNKED = 1 << 27
"""Logits from which on the loss is computed in pieces, so that they are never held all at once."""
MEASURED = 4096
"""Tokens whose logits are held at once where nothing is learnt."""


class Scorer(nn.Module):
    """A causal model whose forward pass gives losses: only trained tokens pass its head.

    own_head: take the head's weight alone, which is right where the model does nothing else to its logits;
    `isolation.check` finds out.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.own_head = True

    def forward(self, ids: Tensor, positions: Tensor, labels: Tensor, each: bool = False) -> Tensor:
        """Losses of the tokens whose label is not MASKED, in fp32: their sum, or each of them [trained].

        ids, positions, labels: [rows, tokens]; the label of a token is the id that follows it.
        """
        shown = labels != MASKED
        wanted = labels[shown]
        if not self.own_head:
            logits = self.model(input_ids=ids, position_ids=positions, use_cache=False).logits[shown]
            return F.cross_entropy(logits.float(), wanted, reduction="none" if each else "sum")
        whole = causal(self.model)
        hidden = whole.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[shown]
        head = whole.get_output_embeddings()
        if each:
            pieces = zip(torch.split(hidden, MEASURED), torch.split(wanted, MEASURED), strict=True)
            return torch.cat([F.cross_entropy(head(one).float(), right, reduction="none") for one, right in pieces])
        if hidden.shape[0] * head.weight.shape[0] >= CHUNKED:
            options = nn.LinearCrossEntropyOptions()
            return F.linear_cross_entropy(
                hidden, head.weight, wanted, linear_bias=head.bias, reduction="sum", options=options
            ).float()
        return F.cross_entropy(head(hidden).float(), wanted, reduction="sum")
