"""The numbers of a run of rollouts, as a record that recipes fill."""

from pydantic import Field

from agentdata.records import Record
from agentdata.rollouts.policy import Sampling
from agentdata.rollouts.scaffold import Budget, Scaffold


class RolloutRecipe(Record):
    """What every attempt of a run is given. Keys of `recipes/environmental.yaml`."""

    scaffold: Scaffold
    """In a recipe its name or path."""
    attempts: int = Field(default=4, ge=1)
    """Attempts at each task."""
    seed: int = Field(default=0, ge=0)
    """The seed of the first attempt at each task; the others count on from it."""
    sampling: Sampling = Sampling()
    budget: Budget = Budget()
    test_seconds: float = Field(default=900, gt=0)
    """What one run of a task's tests may take when an attempt is graded."""
