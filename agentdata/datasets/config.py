"""A config that is written, and what its rows and shards tell together with others."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from agentdata.datasets.facts import Facts, total
from agentdata.datasets.recipe import View
from agentdata.records import Shard


@dataclass(frozen=True)
class Config:
    """A config that is written, and what its rows tell."""

    view: View
    schema: pa.Schema
    shards: tuple[Shard, ...]
    splits: Mapping[str, Facts]
    """In the order train, validation, test; without empty ones."""
    duplicates: int
    """Rows that were left out because their id came before."""

    @cached_property
    def facts(self) -> Facts:
        """Over all splits."""
        return total(self.splits.values())

    @property
    def name(self) -> str:
        return self.view.config

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(shard.bytes for shard in self.shards)


def fingerprint(configs: Sequence[Config]) -> str:
    """Sixteen digits that the bytes of all shards decide."""
    digests = "".join(shard.sha256 for config in configs for shard in config.shards)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def summed(configs: Iterable[Config], column: str) -> Counter[str]:
    """Rows of all configs by the value of a column."""
    counts: Counter[str] = Counter()
    for config in configs:
        counts.update(config.facts.values.get(column, {}))
    return counts


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Values and counts, the most frequent first."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(str(value).replace("|", "\\|").split())
