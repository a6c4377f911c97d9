"""The name of a model to whoever acts under it: an endpoint for all attempts, or an oracle for each."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentdata.errors import UsageError
from agentdata.records import Trajectory
from agentdata.rollouts.endpoint import EndpointPolicy
from agentdata.rollouts.oracles import GoldPolicy, NullPolicy, ReplayPolicy
from agentdata.rollouts.recipe import RolloutRecipe
from agentdata.rollouts.run import Attempt, MakePolicy
from agentdata.shards import read_table

REPLAY = "replay:"


@contextmanager
def choose_policy(
    model: str, endpoints: Sequence[str], recipe: RolloutRecipe, *, requests: int
) -> Iterator[MakePolicy]:
    """`gold`, `null`, `replay:RUN`, or the name of a model that the endpoints serve, which is checked first.

    Leaving the block cuts requests that are still under way, so that a stop does not wait for them.
    requests: how many may be in flight at once. Raises UsageError, PolicyRefused, PolicyGone.
    """
    if model == "gold":
        yield lambda attempt: GoldPolicy(attempt.gold.patch, recipe.scaffold)
    elif model == "null":
        yield lambda _: NullPolicy(recipe.scaffold)
    elif model.startswith(REPLAY):
        yield _replaying(Path(model.removeprefix(REPLAY)))
    elif not endpoints:
        raise UsageError(
            f"Where is {model!r} served? Give --endpoint URL, as `agentdata serve` prints it; `gold` and `null` need none."
        )
    else:
        key = os.environ.get("OPENAI_API_KEY", "")
        with EndpointPolicy(model, endpoints, key=key, most_in_flight=requests) as policy:
            policy.check(tools=recipe.scaffold.form == "tool-calls")
            yield lambda _: policy


def _replaying(run: Path) -> MakePolicy:
    stored = {row.id: row for row in read_table(run, "trajectories", Trajectory)}

    def policy_of(attempt: Attempt) -> ReplayPolicy:
        if attempt.key not in stored:
            raise UsageError(f"{run} holds no attempt {attempt.key}: ask for the tasks and attempts that it has.")
        return ReplayPolicy(stored[attempt.key])

    return policy_of
