"""A run or a dataset to its page: how much came of what, what was left out, then table by table."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agentdata.records import Manifest
from agentdata.report import attempts, executables, histories, samples
from agentdata.report.columns import Rows
from agentdata.report.figures import funnel, ranking, those
from agentdata.report.numbers import counted, short, size
from agentdata.report.page import Page, Section, Tile

SECTIONS: tuple[tuple[frozenset[str], Callable[[Rows], Section]], ...] = (
    (samples.NEEDS, samples.samples),
    (attempts.TRAJECTORIES, attempts.trajectories),
    (attempts.VERDICTS, attempts.verdicts),
    (executables.TASKS, executables.tasks),
    (executables.TESTS, executables.tests),
    (executables.GOLD, executables.gold),
    (executables.ENVIRONMENTS, executables.environments),
    (executables.BUILDS, executables.builds),
    (histories.CHANGES, histories.changes),
    (histories.TRACES, histories.traces),
    (histories.LANDINGS, histories.landings),
)
"""Which columns make a table what it is, in the order of the page; a table is told by the first that fits."""
FLOW = ("landings", "changes", "traces")
"""Tables in the order in which one comes of the other."""
KINDS = (
    ("trajectories", "environmental run"),
    ("verdicts", "grading run"),
    ("tasks", "task run"),
    ("attempts", "environment run"),
    ("landings", "contextual run"),
)
"""Tables that only some runs have."""


def page(run: Path, manifest: Manifest) -> Page:
    """The page of a finished run or dataset."""
    tables = [Rows(run, table) for table in manifest.tables if table.rows and table.name != "rejected"]
    told = sorted((_place(rows), number) for number, rows in enumerate(tables))
    sections = [SECTIONS[place][1](tables[number]) for place, number in told if place < len(SECTIONS)]
    tiles = tuple(_tiles(manifest))
    if len(sections) == 1:
        tiles, sections = sections[0].tiles, [replace(sections[0], tiles=())]
    return Page(
        run.resolve().name,
        kind_of(manifest),
        tiles,
        tuple(section for section in (_flow(manifest), *sections, _files(manifest)) if section),
        manifest.generator,
        _readable(manifest.configuration),
    )


def _place(rows: Rows) -> int:
    """The first of SECTIONS that fits a table."""
    return next((place for place, (needs, _) in enumerate(SECTIONS) if needs <= rows.columns), len(SECTIONS))


def kind_of(manifest: Manifest) -> str:
    """What wrote it."""
    found = json.loads(manifest.configuration or "{}")
    options = found.get("options", {}) if isinstance(found, dict) else {}
    if isinstance(options, dict) and "runs" in options:
        return "dataset"
    names = {table.name for table in manifest.tables}
    return next((kind for name, kind in KINDS if name in names), "run of samples")


def _readable(configuration: str) -> str:
    try:
        return json.dumps(json.loads(configuration), indent=1, ensure_ascii=False)
    except ValueError:
        return configuration


def _tiles(manifest: Manifest) -> Iterator[Tile]:
    for table in sorted(manifest.tables, key=lambda table: FLOW.index(table.name) if table.name in FLOW else len(FLOW)):
        if table.name not in ("rejected", "sources"):
            yield Tile(table.name, short(table.rows), size(sum(shard.bytes for shard in table.shards)))
    for count in manifest.tokens:
        if "/" not in count.name:
            yield Tile(f"tokens, {count.name}", short(count.count))


def _flow(manifest: Manifest) -> Section | None:
    """How much came of what, and why the rest did not."""
    reasons = {count.name: count.count for count in manifest.rejections}
    figures = those(
        funnel("From step to step", _steps(manifest)),
        ranking("Left out, by stage and reason", reasons, "rows"),
    )
    others = {count.name: count.count for count in manifest.counts if count.name.startswith("redacted/")}
    remarks = tuple(f"{number:,} {name.removeprefix('redacted/')} were taken out." for name, number in others.items())
    return Section("What came of it", figures=figures, remarks=remarks) if figures else None


def _steps(manifest: Manifest) -> Sequence[tuple[str, int]]:
    """Names and counts from the first step to the last."""
    counts = {count.name: count.count for count in manifest.counts}
    tables = {table.name: table.rows for table in manifest.tables}
    if "landings" in tables:
        samples_of = [
            (f"samples, {name[8:]}", number) for name, number in counts.items() if name.startswith("samples/")
        ]
        steps = [(name, counts.get(name, tables.get(name, 0))) for name in ("landings", "changes", "traces")]
        return [*steps, *sorted(samples_of)]
    for table, before in (("tasks", "environments"), ("environments", "changes")):
        if table in tables and kind_of(manifest) in ("task run", "environment run"):
            left_out = sum(one.count for one in manifest.rejections if one.name.startswith(f"{table}/"))
            return [(f"{before} that were tried", tables[table] + left_out), (table, tables[table])]
    return [("nothing", 0)]


def _files(manifest: Manifest) -> Section | None:
    """Where the bytes are."""
    sizes = {table.name: sum(shard.bytes for shard in table.shards) for table in manifest.tables}
    rows = {table.name: table.rows for table in manifest.tables}
    shards = {table.name: len(table.shards) for table in manifest.tables}
    figure = ranking("Bytes by table", sizes, "bytes", form=size, others=[("rows", rows), ("files", shards)])
    return Section(
        "Files", f"{size(sum(sizes.values()))} in {counted(sum(shards.values()), 'files')}.", figures=those(figure)
    )
