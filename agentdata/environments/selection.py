"""Mutations with what the tests said of them to the ones that make tasks: they break something, and nothing else did so."""

import hashlib
from collections.abc import Iterable, Iterator

from agentdata.environments.mutations import Mutation
from agentdata.records import Record, Rejected, TestCount

STAGE = "selection"
FEW = 10
"""Below so many tests it says nothing that most of them break."""


class MutationOutcome(Record):
    """A mutation and how often each test passed with it and without it."""

    repo: str
    mutation: Mutation
    counts: tuple[TestCount, ...]
    """`passed_before` counts the runs with the mutation, `passed_after` those of the original code."""
    log: str = ""
    """Why the tests could not be run; empty when they were."""

    @property
    def fail_to_pass(self) -> tuple[str, ...]:
        """Tests that the mutation breaks: they passed in every run without it and in none with it."""
        return tuple(one.name for one in self.counts if one.passed_after == one.runs > 0 == one.passed_before)

    @property
    def pass_to_pass(self) -> tuple[str, ...]:
        """Tests that passed in every run."""
        return tuple(one.name for one in self.counts if one.passed_after == one.runs == one.passed_before > 0)

    @property
    def flaky(self) -> tuple[str, ...]:
        """Tests whose outcome differed between equal runs."""
        return tuple(
            one.name
            for one in self.counts
            if 0 < one.passed_after < one.runs or (one.passed_after and 0 < one.passed_before < one.runs)
        )


def select(
    outcomes: Iterable[MutationOutcome], *, most_broken: float = 0.9, most_per_symbol: int = 0
) -> Iterator[MutationOutcome | Rejected]:
    """Keep the mutations that make tasks, in the order in which they come; memory grows with what is kept.

    Rejected: `tests-did-not-run`, `nothing-passed` (without the mutation), `flaky` (breaks tests only in some runs),
    `equivalent` (breaks no test), `breaks-everything` (more than the share `most_broken` of ten or more tests, as a
    module that cannot be imported does), `duplicate` (same function, same broken tests as one that was kept),
    `enough` (`most_per_symbol` of the function were kept; 0 is no limit).
    """
    seen: dict[bytes, str] = {}
    kept: dict[tuple[str, str, str], int] = {}
    for outcome in outcomes:
        mutation = outcome.mutation
        symbol, key = (outcome.repo, mutation.path, mutation.symbol), _identity(outcome)
        reason, detail = judge(outcome, most_broken)
        if not reason and key in seen:
            reason, detail = "duplicate", f"breaks the same tests as {seen[key]}"
        if not reason and 0 < most_per_symbol <= kept.get(symbol, 0):
            reason, detail = "enough", f"{most_per_symbol} of {mutation.symbol or mutation.path} are kept"
        if reason:
            yield Rejected(id=mutation.id, repo=outcome.repo, stage=STAGE, reason=reason, detail=detail)
            continue
        seen[key] = mutation.id
        kept[symbol] = kept.get(symbol, 0) + 1
        yield outcome


def judge(outcome: MutationOutcome, most_broken: float) -> tuple[str, str]:
    """Reason and detail why an outcome by itself makes no task; two empty strings when it makes one."""
    broken, whole = len(outcome.fail_to_pass), len(outcome.pass_to_pass)
    if outcome.log or not outcome.counts:
        return "tests-did-not-run", outcome.log or "no test was observed"
    if not any(one.passed_after for one in outcome.counts):
        return "nothing-passed", f"{len(outcome.counts)} tests, none passes on the original code"
    if not broken:
        return ("flaky", ", ".join(outcome.flaky[:5])) if outcome.flaky else ("equivalent", f"{whole} tests pass")
    if broken + whole >= FEW and broken > most_broken * (broken + whole):
        return "breaks-everything", f"{broken} of {broken + whole} tests"
    return "", ""


def _identity(outcome: MutationOutcome) -> bytes:
    words = (outcome.repo, outcome.mutation.path, outcome.mutation.symbol, *sorted(outcome.fail_to_pass))
    return hashlib.sha256("\0".join(words).encode()).digest()
