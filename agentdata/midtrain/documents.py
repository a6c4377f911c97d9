"""Rows to documents: ids, what of them is trained, the kind of every token, and where a document may be split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from agentdata.midtrain.encoding import Encoder, Ids
from agentdata.midtrain.recipe import Columns, MaskPolicy
from agentdata.midtrain.rendering import Rendered, Span, render_chat, render_text
from agentdata.midtrain.templates import Row, RowError, Template

MASKS = ("mask", "loss_mask", "assistant_masks", "labels")
"""Columns beside stored ids that say what is trained; labels do by not being -100."""
EncodedSpan = tuple[Ids, str, bool]
"""(ids, kind, whether trained)."""


@dataclass(frozen=True)
class Document:
    """One row as tokens. All arrays but `cuts` have one value for each token.

    The first token is never trained, since nothing stands before it.
    """

    ids: Ids
    train: npt.NDArray[np.bool_]
    kinds: npt.NDArray[np.uint8]
    """Places in the names that the maker of documents gave."""
    cuts: npt.NDArray[np.uint32]
    """Tokens before each border of segments or messages inside the document, ascending."""


@dataclass
class DocumentMaker:
    """Turns the rows of one source into documents; what its template and encoder cannot take raises RowError."""

    encoder: Encoder
    template: Template
    columns: Columns
    policy: MaskPolicy
    start: tuple[int, ...] = ()
    """Tokens before each text."""
    end: tuple[int, ...] = ()
    """Tokens after each text."""
    most_id: int = 2**32 - 1

    @cached_property
    def kinds(self) -> list[str]:
        """Names of the kinds met so far."""
        return []

    def make(self, row: Row) -> Document:
        """The document of one row. Raises RowError."""
        if row.get(self.columns.ids) is not None:
            return self._stored(row)
        try:
            if row.get(self.columns.messages) is not None:
                rendered = render_chat(row, self.columns.messages, self.template, self.policy)
                return self._join([*self._encoded(rendered), *self._around(self.end)])
            if row.get(self.columns.text) is not None:
                return self._text(render_text(row, self.columns.text, self.policy))
        except UnicodeEncodeError as error:
            raise RowError("not-unicode", f"a text holds half a character: {error.reason}") from error
        raise RowError("no-text", f"none of {', '.join(self.columns.names())} holds anything")

    def _text(self, rendered: Rendered) -> Document:
        pieces = list(self._encoded(rendered))
        if not any(len(ids) for ids, _, _ in pieces):
            raise RowError("empty", "no token")
        _, kind, train = pieces[-1]
        end = [(np.array(self.end, np.uint32), kind, train)] if self.end else []
        return self._join([*self._around(self.start), *pieces, *end])

    def _around(self, ids: tuple[int, ...]) -> list[EncodedSpan]:
        """What stands around a document and is not trained. The end of a conversation is not: its template has its own."""
        return [(np.array(ids, np.uint32), "context", self.policy == "all")] if ids else []

    def _encoded(self, rendered: Rendered) -> Iterator[EncodedSpan]:
        for span in rendered.spans:
            if not rendered.template:
                yield self.encoder.encode(span.text), span.kind, span.train
            elif not rendered.mark:
                yield self.encoder.encode(span.text, specials=True), span.kind, span.train
            else:
                yield self._marked(span, rendered.mark), span.kind, span.train

    def _marked(self, span: Span, mark: str) -> Ids:
        """A span whose content holds the texts of special tokens, made unlike them by a mark."""
        parts: list[Ids] = []
        place = 0
        for found in self.template.special.finditer(span.text):
            parts += [
                self.encoder.encode(span.text[place : found.start()].replace(mark, "")),
                self.encoder.encode(found[0], specials=True),
            ]
            place = found.end()
        return np.concatenate([*parts, self.encoder.encode(span.text[place:].replace(mark, ""))])

    def _join(self, pieces: Sequence[EncodedSpan]) -> Document:
        ids, kinds, trains = zip(*pieces, strict=True)
        lengths = np.array([len(one) for one in ids])
        if not lengths.sum():
            raise RowError("empty", "no token")
        ends = lengths.cumsum()
        train = np.repeat(np.array(trains, np.bool_), lengths)
        train[0] = False
        return Document(
            ids=np.concatenate(ids),
            train=train,
            kinds=np.repeat(np.array([self._code(kind) for kind in kinds], np.uint8), lengths),
            cuts=np.unique(ends[(ends > 0) & (ends < ends[-1])]).astype(np.uint32),
        )

    def _code(self, kind: str) -> int:
        if kind not in self.kinds:
            if len(self.kinds) == 256:
                raise RowError("too-many-kinds", f"{kind!r} is the 257th kind of segments")
            self.kinds.append(kind)
        return self.kinds.index(kind)

    def _stored(self, row: Row) -> Document:
        """A row of ids, as a server counted them, taken as it is."""
        values = np.asarray(row[self.columns.ids], np.int64)
        if not len(values):
            raise RowError("empty", "no token")
        if values.min() < 0 or values.max() > self.most_id:
            raise RowError(
                "foreign-ids", f"ids from {values.min()} to {values.max()}; the tokenizer ends at {self.most_id}"
            )
        train = self._stored_mask(row, len(values))
        borders = np.flatnonzero(np.diff(train)) + 1
        codes = np.array([self._code("context"), self._code("assistant")], np.uint8)
        kinds = codes[train.astype(np.intp)]
        if self.policy == "all":
            train = np.ones_like(train)
        train[0] = False
        return Document(ids=values.astype(np.uint32), train=train, kinds=kinds, cuts=borders.astype(np.uint32))

    def _stored_mask(self, row: Row, size: int) -> npt.NDArray[np.bool_]:
        name = next((name for name in (self.columns.mask, *MASKS) if name and row.get(name) is not None), "")
        if not name:
            return np.ones(size, np.bool_)
        mask = np.array(row[name])
        if mask.shape != (size,):
            raise RowError("bad-mask", f"{name} holds {mask.size} values for {size} tokens")
        return mask != -100 if name == "labels" else mask.astype(np.bool_)


def described(row: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, licence) of a row, `unknown` where it does not say."""
    return str(row.get("kind") or "unknown"), str(row.get("licence") or row.get("license") or "unknown")
