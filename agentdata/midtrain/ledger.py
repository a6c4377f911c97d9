"""What was packed: tokens by source, kind and licence, what of them is trained, and how often they came."""

from collections import Counter

from agentdata.records import Count, Record


class LedgerLine(Record):
    """The documents of one source, kind and licence."""

    source: str
    kind: str
    """Kind of the rows: contextual, environmental, or unknown."""
    licence: str
    """SPDX expression, or unknown."""
    documents: int
    """Documents that were read."""
    tokens: int
    trained: int
    packed_documents: int
    """How many times one of them was packed."""
    packed_tokens: int
    packed_trained: int
    epochs: float
    """Packed tokens for each token."""


class TokenKind(Record):
    """Packed tokens of one kind of segment or message."""

    kind: str
    tokens: int
    trained: int


class Ledger(Record):
    """The account of a packing."""

    encoder: str
    """`tiktoken`, or `tokenizers` and why."""
    tokenizer_sha256: str
    lines: tuple[LedgerLine, ...]
    kinds: tuple[TokenKind, ...]
    rejected: tuple[Count, ...]
    """`source/reason` of each row that did not become a document."""
    rows: int
    row_length: int
    padding: int
    """Tokens that only fill rows."""
    split_documents: int
    """Packed documents that are longer than a row and were split."""
    cuts_in_segments: int
    """Splits inside a segment or message, because it alone is longer than half a row."""

    @property
    def tokens(self) -> int:
        """Packed tokens."""
        return sum(line.packed_tokens for line in self.lines)

    @property
    def trained(self) -> int:
        """Packed tokens that are trained."""
        return sum(line.packed_trained for line in self.lines)

    @property
    def padding_share(self) -> float:
        """Padding for each token of the rows."""
        return self.padding / max(1, self.rows * self.row_length)


Key = tuple[str, str, str]
"""(source, kind, licence)."""
COLUMNS = ("documents", "tokens", "trained", "packed_documents", "packed_tokens", "packed_trained")


class Account:
    """Sums that become the lines of a ledger."""

    def __init__(self) -> None:
        self._sums: dict[Key, Counter[str]] = {}

    def add(self, key: Key, column: str, count: int) -> None:
        """Add to one of COLUMNS."""
        self._sums.setdefault(key, Counter())[column] += count

    def lines(self) -> tuple[LedgerLine, ...]:
        """The lines in the order of their keys."""
        return tuple(
            LedgerLine(
                source=source,
                kind=kind,
                licence=licence,
                **{column: sums[column] for column in COLUMNS},
                epochs=round(sums["packed_tokens"] / max(1, sums["tokens"]), 6),
            )
            for (source, kind, licence), sums in sorted(self._sums.items())
        )
