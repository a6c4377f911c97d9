"""ShareGPT rows, as LLaMA-Factory and axolotl read them (written only).

Turns alternate between `human` and `gpt`, after one of `system`: calls and thoughts stand as tags in the text, results
of tools are the human's, and turns of one side that follow each other are one, with an empty line between them.

Not held: which observation belongs to which call, where a step has several; and everything that `messages` does not.
"""

from typing import Any

from agentdata.records import Trajectory
from agentdata.rollouts.formats.messages import LOST as MESSAGES_LOST
from agentdata.rollouts.formats.messages import graded, text_turn
from agentdata.rollouts.samples import seen

LOST = (*MESSAGES_LOST, "which result belongs to which call, where one turn has several", "commit, seed and sampling")
SIDES = {"system": "system", "user": "human", "assistant": "gpt"}


def write_row(trajectory: Trajectory) -> dict[str, Any]:
    """One row."""
    turns: list[dict[str, str]] = []
    for message in seen(trajectory):
        told = text_turn(message)
        side = SIDES[told["role"]]
        if turns and turns[-1]["from"] == side:
            turns[-1]["value"] += f"\n\n{told['content']}"
        else:
            turns.append({"from": side, "value": told["content"]})
    return {
        "conversations": turns,
        "id": trajectory.id,
        "instance_id": trajectory.task,
        "repo": trajectory.repo,
        "license": trajectory.licence,
        "model": trajectory.model,
        "model_patch": trajectory.submission,
        "resolved": trajectory.verdict.resolved if graded(trajectory) else None,
    }
