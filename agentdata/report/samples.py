"""Training rows to what they hold: tokens, repositories, licences, languages, years, and outcomes of attempts."""

from collections import Counter
from typing import Any

from agentdata.report.columns import Rows, add_sums, column, count, flat, years
from agentdata.report.figures import by_year, ranking, spread, those
from agentdata.report.numbers import share, short, size
from agentdata.report.page import Section, Tile

VALUES = ("licence", "tier", "policy", "scaffold", "stop", "verdict", "token_counter", "generator")
"""Columns of which each value is counted."""
NEEDS = frozenset({"tokens", "trained_tokens"})


def samples(rows: Rows) -> Section:
    """A table of samples, whatever their rendering."""
    values: dict[str, Counter[Any]] = {name: Counter() for name in VALUES}
    tokens, trained, repositories, by_repository = Counter[int](), Counter[int](), Counter[str](), Counter[str]()
    languages, when, resolved, clusters = Counter[str](), Counter[int](), Counter[bool](), Counter[int]()
    for batch in rows.batches(
        *VALUES, "tokens", "trained_tokens", "repo", "languages", "landed_at", "resolved", "repetition"
    ):
        for name in VALUES:
            count(values[name], column(batch, name))
        count(tokens, column(batch, "tokens"))
        count(trained, column(batch, "trained_tokens"))
        count(repositories, column(batch, "repo"))
        add_sums(by_repository, column(batch, "repo"), column(batch, "tokens"))
        count(languages, flat(batch, "languages"))
        count(when, years(column(batch, "landed_at")))
        count(resolved, column(batch, "resolved"))
        count(clusters, column(batch, "repetition"))
    environmental = bool(values["stop"] and set(values["stop"]) != {""})
    return Section(
        f"Samples, {rows.name}",
        _words(rows, values["token_counter"]),
        tiles=tuple(_tiles(rows, tokens, trained, repositories)),
        figures=those(
            spread("Tokens per sample", tokens, "samples"),
            spread("Trained tokens per sample", trained, "samples") if trained != tokens else None,
            ranking("Repositories", repositories, "samples", others=[("tokens", by_repository)]),
            ranking("Licences", values["licence"], "samples"),
            ranking("Languages", languages, "samples", whole=rows.count, words="A sample may have several."),
            by_year("Years in which the changes landed", when, "samples"),
            ranking("Splits", rows.splits(), "samples") if len(rows.splits()) > 1 else None,
            ranking("Policies", values["policy"], "samples") if len(values["policy"]) > 1 or environmental else None,
            ranking("Tiers", values["tier"], "samples") if len(values["tier"]) > 1 else None,
            ranking("How attempts stopped", values["stop"], "samples") if environmental else None,
            ranking("Verdicts", values["verdict"], "samples") if environmental else None,
        ),
        remarks=tuple(_remarks(resolved, clusters, environmental)),
    )


def _words(rows: Rows, counters: Counter[str]) -> str:
    told = " and ".join(sorted(counters))
    return f"{short(rows.count)} samples in {size(rows.bytes)}." + (f" Tokens are counted by {told}." if told else "")


def _tiles(rows: Rows, tokens: Counter[int], trained: Counter[int], repositories: Counter[str]) -> list[Tile]:
    total, learnt = (sum(value * number for value, number in counts.items()) for counts in (tokens, trained))
    return [
        Tile("samples", short(rows.count)),
        Tile("tokens", short(total), f"{total:,}"),
        *([Tile("trained tokens", short(learnt), f"{share(learnt, total)} of all")] if trained else []),
        *([Tile("repositories", short(len(repositories)))] if repositories else []),
    ]


def _remarks(resolved: Counter[bool], repetitions: Counter[int], environmental: bool) -> list[str]:
    found = []
    if environmental and resolved:
        number = resolved[True]
        found.append(
            f"{number:,} samples ({share(number, resolved.total())}) are of attempts that resolved their task."
        )
    repeated = sum(number for repetition, number in repetitions.items() if repetition)
    if repeated:
        found.append(f"{repeated:,} samples are repetitions of others.")
    return found
