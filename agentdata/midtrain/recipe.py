"""The numbers of a packing, as a record."""

from datetime import date
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from agentdata.records import Record

MaskPolicy = Literal["all", "trained-only"]


class Columns(Record):
    """Which columns of a source hold what."""

    text: str = "text"
    messages: str = "messages"
    ids: str = "input_ids"
    mask: str = ""
    """Column beside stored ids that says what is trained; empty for the usual names."""

    def names(self) -> tuple[str, ...]:
        """The columns of which a row must have one."""
        return self.text, self.messages, self.ids


class PackSource(Record):
    """Rows that are packed."""

    path: str = Field(min_length=1)
    """Run, directory of a dataset, file, or glob of .parquet and .jsonl files."""
    name: str = ""
    """Name in the ledger; empty for the path."""
    rendering: str = ""
    """Table or configuration of a directory: markdown, xml, messages, ...; empty for all files below it."""
    split: Literal["train", "validation", "test", ""] = "train"
    """Files of a directory whose names begin with it; all where none does, or where it is empty."""
    repeat: float = Field(default=1.0, gt=0, le=1000)
    """How often each document is packed; the fraction takes a part of them, chosen by the seed. With `weight`, at most."""
    weight: float = Field(default=0.0, ge=0, le=1e6)
    """Share of the tokens among all weights; 0 everywhere to take what the repeats give."""
    mask: MaskPolicy | Literal[""] = ""
    """The policy of this source; empty for the recipe's."""
    columns: Columns = Columns()

    @property
    def title(self) -> str:
        """What the ledger calls it."""
        return self.name or (f"{self.path}:{self.rendering}" if self.rendering else self.path)


class PackRecipe(Record):
    """What is packed, and how."""

    sources: tuple[PackSource, ...] = Field(min_length=1, max_length=65535)
    tokenizer: str = Field(min_length=1)
    """tokenizer.json, directory that holds one, or Hub id."""
    chat_template: str = ""
    """File of a template that takes the place of the tokenizer's own."""
    template_variables: dict[str, Any] = Field(default_factory=dict)
    """Further variables of the template, such as enable_thinking."""
    template_date: date | None = None
    """The day that the template is told, for templates that ask for one."""
    mask: MaskPolicy = "trained-only"
    """`trained-only` follows the rows' own marks; without any, all of a text and the assistant's turns are trained."""
    document_end: str = "auto"
    """Token after each text and conversation: `auto` for the tokenizer's eos_token, `none`, or an added token's text."""
    row_length: int = Field(ge=8, le=2**24)
    """Tokens of a row."""
    window: int = Field(ge=1, le=65536)
    """Rows that are open at once: the more, the less padding."""
    seed: int = Field(ge=0, lt=2**63)
    """Decides the order of the documents, and which are taken where a repeat has a fraction."""
    unit_megabytes: int = Field(ge=1, le=65536)
    """Input of one unit of work."""
    shard_tokens: int = Field(ge=1024, le=2**32)
    """Tokens of one file of packed rows, at most, but for a single row that is longer."""

    @field_validator("sources")
    @classmethod
    def _weights_are_for_all(cls, sources: tuple[PackSource, ...]) -> tuple[PackSource, ...]:
        if len({source.weight > 0 for source in sources}) > 1:
            raise ValueError("give a weight to every source or to none")
        return sources

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        titles = [source.title for source in self.sources]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two sources are called {title!r}: give them a `name`")
        return self
