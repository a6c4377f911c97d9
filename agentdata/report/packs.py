"""The ledger of a packing to its page."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from agentdata.midtrain.ledger import Ledger, LedgerLine
from agentdata.midtrain.packed import PackManifest
from agentdata.report.figures import ranking, those
from agentdata.report.numbers import share, short
from agentdata.report.page import Figure, Page, Section, Tile

TRAINED = ("trained", "only read")


def page(folder: Path, manifest: PackManifest) -> Page:
    """The page of packed rows."""
    ledger = manifest.ledger
    return Page(
        folder.resolve().name,
        "packed rows",
        (
            Tile("rows", short(ledger.rows), f"of {ledger.row_length:,} tokens"),
            *token_tiles(ledger),
            Tile("padding", share(ledger.padding, ledger.rows * ledger.row_length), f"{ledger.padding:,} tokens"),
            Tile("documents", short(sum(line.packed_documents for line in ledger.lines)), "as often as they came"),
        ),
        (section(ledger, "What was packed"),),
        manifest.generator,
        json.dumps(json.loads(manifest.configuration), indent=1, ensure_ascii=False),
    )


def token_tiles(ledger: Ledger) -> tuple[Tile, ...]:
    """Tokens, and what of them is trained."""
    trained = Tile("trained tokens", short(ledger.trained), f"{share(ledger.trained, ledger.tokens)} of all")
    return (Tile("tokens", short(ledger.tokens), f"{ledger.tokens:,}"), trained)


def section(ledger: Ledger, title: str) -> Section:
    """Tokens by what they are of."""
    kinds = {kind.kind: kind.tokens for kind in ledger.kinds}
    learnt = {kind.kind: kind.trained for kind in ledger.kinds}
    remarks = [f"Tokens are made by {ledger.encoder}."]
    if ledger.split_documents:
        remarks.append(
            f"{ledger.split_documents:,} documents are longer than a row and were split, {ledger.cuts_in_segments:,} times "
            "inside a segment."
        )
    return Section(
        title,
        f"{short(ledger.tokens)} tokens in {short(ledger.rows)} rows, {share(ledger.trained, ledger.tokens)} of them trained.",
        figures=those(
            _tokens_by("Tokens by source", ledger.lines, lambda line: line.source),
            ranking("Tokens by kind of text", kinds, "tokens", parts=(*TRAINED, learnt)),
            _tokens_by("Tokens by licence", ledger.lines, lambda line: line.licence),
            _tokens_by("Tokens by kind of row", ledger.lines, lambda line: line.kind),
            ranking("Rows that became no document", {one.name: one.count for one in ledger.rejected}, "rows"),
        ),
        remarks=tuple(remarks),
    )


def _tokens_by(title: str, lines: Sequence[LedgerLine], key: Callable[[LedgerLine], str]) -> Figure | None:
    packed, trained, documents, read = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for line in lines:
        packed[key(line)] += line.packed_tokens
        trained[key(line)] += line.packed_trained
        documents[key(line)] += line.packed_documents
        read[key(line)] += line.tokens
    others = [("documents", documents), ("tokens read once", read)]
    return ranking(title, packed, "tokens", parts=(*TRAINED, trained), others=others)
