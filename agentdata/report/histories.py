"""Landings, changes and traces to their figures: how a history became what can be told."""

from collections import Counter

import pyarrow.compute as pc

from agentdata.report.columns import Rows, column, count, flat, years
from agentdata.report.figures import by_year, ranking, spread, those
from agentdata.report.numbers import short
from agentdata.report.page import Section, Tile

LANDINGS = frozenset({"landed_parent", "duplicate_of"})
CHANGES = frozenset({"edits", "commits", "files"})
TRACES = frozenset({"events", "proof", "unparsed"})


def landings(rows: Rows) -> Section:
    """Where changes entered the histories."""
    kinds, when, commits, sizes = Counter[str](), Counter[int](), Counter[int](), Counter[int]()
    for batch in rows.batches("kind", "landed_at", "commits", "duplicate_of", "reverted_by"):
        count(kinds, column(batch, "kind"))
        count(when, years(column(batch, "landed_at")))
        count(commits, pc.list_value_length(batch.column("commits")))
        count(sizes, column(batch, "duplicate_of"))
    originals = {name: number for name, number in sizes.items() if name}
    clusters = Counter(number + 1 for number in originals.values())
    return Section(
        "Landings",
        f"{short(rows.count)} places where a change entered a history, before anything of it was read.",
        figures=those(
            ranking("Kinds of landings", kinds, "landings"),
            by_year("Years of landings", when, "landings"),
            spread("Commits per landing", commits, "landings"),
            spread(
                "Landings with the same patches", clusters, "clusters",
                words=f"{sum(originals.values()):,} landings repeat the patches of {len(originals):,} earlier ones.",
            ) if clusters else None,
        ),
    )  # fmt: skip


def changes(rows: Rows) -> Section:
    """What changes consist of."""
    kinds, when, commits, files = Counter[str](), Counter[int](), Counter[int](), Counter[int]()
    repositories, licences, roles, languages = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for batch in rows.batches(
        "repo", "kind", "licence", "landed_at", "commits.sha", "edits.status", "edits.role", "files.language"
    ):
        count(repositories, column(batch, "repo"))
        count(kinds, column(batch, "kind"))
        count(licences, column(batch, "licence"))
        count(when, years(column(batch, "landed_at")))
        count(commits, pc.list_value_length(batch.column("commits")))
        count(files, pc.list_value_length(batch.column("edits")))
        count(roles, flat(batch, "edits.role"))
        count(languages, flat(batch, "files.language"))
    return Section(
        "Changes",
        "What entered the histories, file by file.",
        tiles=(Tile("changes", short(rows.count)), Tile("repositories", short(len(repositories)))),
        figures=those(
            ranking("Repositories of changes", repositories, "changes"),
            by_year("Years of changes", when, "changes"),
            ranking("Kinds of changes", kinds, "changes"),
            spread("Files per change", files, "changes"),
            spread("Commits per change", commits, "changes"),
            ranking("Files by role", roles, "edits"),
            ranking("Languages of changed files", languages, "files"),
            ranking("Licences of changes", licences, "changes"),
        ),
    )


def traces(rows: Rows) -> Section:
    """What the told work consists of."""
    kinds, events, policies, unparsed = Counter[str](), Counter[int](), Counter[str](), 0
    for batch in rows.batches("policy", "events.kind", "unparsed"):
        count(policies, column(batch, "policy"))
        count(kinds, flat(batch, "events.kind"))
        count(events, pc.list_value_length(batch.column("events")))
        unparsed += sum(1 for length in pc.list_value_length(batch.column("unparsed")).to_pylist() if length)
    told = [f"{unparsed:,} traces tell files that the grammar of their language does not accept."] if unparsed else []
    return Section(
        "Traces",
        f"{short(rows.count)} changes told as the work of an agent, each with its proof.",
        figures=those(
            ranking("Events by kind", kinds, "events"),
            spread("Events per trace", events, "traces"),
            ranking("Policies of traces", policies, "traces") if len(policies) > 1 else None,
        ),
        remarks=tuple(told),
    )
