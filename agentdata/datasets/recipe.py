"""What a dataset is made of, as a record that recipes fill."""

from typing import Literal

from pydantic import Field, model_validator

from agentdata.records import Record

Kind = Literal["contextual", "environmental", "tasks"]
Mask = Literal["as-made", "all", "actions-only"]
Split = Literal["train", "validation", "test"]


class View(Record):
    """One config of the dataset: a table of the runs, and what of it."""

    config: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Name of the config and of its folder."""
    kind: Kind
    """What kind of run the table is taken from."""
    table: str
    """Table of the runs."""
    columns: tuple[str, ...] = ()
    """Columns to keep, in the order of the record; empty keeps all."""
    mask: Mask = "as-made"
    """What is trained: what the run says, everything, or only what the agent writes."""
    repeats: int = Field(default=1, ge=1)
    """How often each row occurs, in places next to each other; the id of a repetition ends in its number."""


class DatasetRecipe(Record):
    """Everything that decides the bytes of a dataset, apart from the runs."""

    title: str
    """Heading of the card."""
    description: str
    """First paragraph of the card."""
    authors: tuple[str, ...] = ()
    """Who is cited."""
    views: tuple[View, ...]
    """The configs; the first that has rows is the default one. A view whose table no run has is left out."""
    shard_bytes: int = Field(gt=0)
    """Size of a shard before compression, in bytes; the next repository or run may begin a new one earlier."""
    validation_share: float = Field(ge=0, lt=1)
    """Share of the repositories, by the hash of their name, that form the validation split."""
    test_share: float = Field(ge=0, lt=1)
    """Share of the repositories that form the test split."""

    @model_validator(mode="after")
    def _sensible(self) -> "DatasetRecipe":
        configs = [view.config for view in self.views]
        if not configs or len(set(configs)) < len(configs):
            raise ValueError("views: name at least one, and no config twice")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self
