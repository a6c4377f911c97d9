"""Environments, tasks and what grades them to their figures."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agentdata.report.columns import Rows, column, count, equal, flat
from agentdata.report.figures import by_year, ranking, spread, those
from agentdata.report.numbers import TIMES, duration, share, short, size
from agentdata.report.page import Section, Tile

ENVIRONMENTS = frozenset({"lock_id", "image_id"})
BUILDS = frozenset({"origin", "reason", "log", "seconds"})
TASKS = frozenset({"problem_statement", "statement_source"})
TESTS = frozenset({"fail_to_pass", "pass_to_pass", "test_patch"})
GOLD = frozenset({"id", "patch"})


def _counters(rows: Rows, *names: str) -> dict[str, Counter[Any]]:
    found: dict[str, Counter[Any]] = {name: Counter() for name in names}
    for batch in rows.batches(*names):
        for name in names:
            count(found[name], column(batch, name))
    return found


def environments(rows: Rows) -> Section:
    """Where the code of commits runs."""
    found = _counters(rows, "repo", "python", "origin", "lock_id", "test_command", "base_image")
    return Section(
        "Environments",
        "Where the code of commits runs.",
        tiles=(
            Tile("environments", short(rows.count)),
            Tile("sets of packages", short(len(found["lock_id"])), "each an image that environments share"),
        ),
        figures=those(
            ranking("Repositories of environments", found["repo"], "environments"),
            ranking("Pythons", found["python"], "environments"),
            ranking("Where requirements were read", found["origin"], "environments"),
            ranking("Test commands", found["test_command"], "environments"),
        ),
    )


def builds(rows: Rows) -> Section:
    """What was tried to build environments."""
    reasons, seconds, origins, good = Counter[str](), Counter[float](), Counter[str](), Counter[str]()
    for batch in rows.batches("reason", "origin", "seconds"):
        count(reasons, column(batch, "reason"))
        count(seconds, pc.round(column(batch, "seconds"), 1))
        count(origins, column(batch, "origin"))
        count(good, pc.filter(column(batch, "origin"), equal(column(batch, "reason"), "")))
    total = sum(value * number for value, number in seconds.items())
    return Section(
        "Builds",
        f"{short(rows.count)} builds were tried, {share(reasons[''], rows.count)} worked, in {duration(total)} all together.",
        figures=those(
            ranking("How builds ended", {name or "worked": number for name, number in reasons.items()}, "builds"),
            spread("Time per build", seconds, "builds", form=duration, edges=TIMES),
            ranking("What was tried", origins, "builds", parts=("worked", "failed", good)),
        ),
    )


def tasks(rows: Rows) -> Section:
    """The problems to solve."""
    repositories, sources, statements, licences = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    mutations, lengths, when = Counter[str](), Counter[int](), Counter[int]()
    for batch in rows.batches(
        "repo", "source", "statement_source", "licence", "created_at", "problem_statement", "mutations"
    ):
        count(repositories, column(batch, "repo"))
        count(sources, column(batch, "source"))
        count(statements, column(batch, "statement_source"))
        count(licences, column(batch, "licence"))
        count(mutations, flat(batch, "mutations"))
        count(lengths, _lengths(column(batch, "problem_statement")))
        count(when, _years_of_texts(column(batch, "created_at")))
    return Section(
        "Tasks",
        "Problems to solve, each with its environment.",
        tiles=(Tile("tasks", short(rows.count)), Tile("repositories", short(len(repositories)))),
        figures=those(
            ranking("Repositories of tasks", repositories, "tasks"),
            ranking("Where problem statements come from", statements, "tasks"),
            ranking("What makes the problem", sources, "tasks") if len(sources) > 1 else None,
            ranking("Kinds of mistakes", mutations, "tasks", whole=rows.count),
            spread("Characters of the problem statement", lengths, "tasks"),
            by_year("Years of tasks", when, "tasks"),
            ranking("Licences of tasks", licences, "tasks"),
        ),
    )


def _lengths(texts: Any) -> Any:
    """Characters of texts; None where there are none."""
    return None if texts is None else pc.utf8_length(texts)


def _years_of_texts(texts: Any) -> Any:
    """Years of ISO 8601 times; those that are none are left out."""
    if texts is None:
        return None
    heads = pc.utf8_slice_codeunits(texts, 0, 4)
    return pc.cast(pc.filter(heads, pc.match_substring_regex(heads, "^[0-9]{4}$")), pa.int64())


def tests(rows: Rows) -> Section:
    """The tests that decide over tasks."""
    leaves = {"fail_to_pass": Counter[int](), "pass_to_pass": Counter[int](), "flaky": Counter[int]()}
    for batch in rows.batches(*leaves):
        for leaf, counts in leaves.items():
            if (lists := column(batch, leaf)) is not None:
                count(counts, pc.list_value_length(lists))
    flaky = sum(number for value, number in leaves["flaky"].items() if value)
    return Section(
        "Tests",
        f"{flaky:,} of {rows.count:,} tasks have tests that are set aside as flaky.",
        figures=those(
            spread("Tests that must turn from failing to passing", leaves["fail_to_pass"], "tasks"),
            spread("Tests that must still pass", leaves["pass_to_pass"], "tasks"),
            spread("Flaky tests", leaves["flaky"], "tasks") if flaky else None,
        ),
    )


def gold(rows: Rows) -> Section:
    """The known solutions."""
    lengths = Counter[int]()
    for batch in rows.batches("patch"):
        count(lengths, pc.binary_length(column(batch, "patch")))
    return Section(
        "Known solutions",
        "The patches that prove the tasks.",
        figures=those(spread("Bytes of the known solution", lengths, "tasks", form=size)),
    )
