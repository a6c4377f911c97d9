"""Which mutations make tasks, by what the tests said of them."""

from collections.abc import Iterable

import pytest

from agentdata import records
from agentdata.environments.mutations import Mutation, candidates
from agentdata.environments.selection import MutationOutcome, select
from agentdata.records import Rejected

SOURCE = b"def f(a, b):\n    return a + b\n\n\ndef g(a, b):\n    return a - b\n\n\ndef h(a, b):\n    return a * b\n"
MUTATIONS = list(candidates("m.py", SOURCE, seed=0))
IN_F = [mutation for mutation in MUTATIONS if mutation.symbol == "f"]
IN_G = [mutation for mutation in MUTATIONS if mutation.symbol == "g"]


def outcome(mutation: Mutation, results: str, *, log: str = "", repo: str = "a/b") -> MutationOutcome:
    """Tests t0, t1, ... by letters: broken, passing, failing before and after, unsteady with the mutation or without."""
    passed = {"b": (0, 3), "p": (3, 3), "f": (0, 0), "u": (1, 3), "w": (0, 2), "n": (3, 0)}
    counts = [
        records.TestCount(name=f"t{place}", runs=3, passed_before=passed[letter][0], passed_after=passed[letter][1])
        for place, letter in enumerate(results)
    ]
    return MutationOutcome(repo=repo, mutation=mutation, counts=tuple(counts), log=log)


def reasons(outcomes: Iterable[MutationOutcome], **options: float) -> list[str]:
    """Reason for each outcome, `kept` for those that are kept."""
    found = select(outcomes, **options)  # type: ignore[arg-type]
    return [one.reason if isinstance(one, Rejected) else "kept" for one in found]


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ("pb", "kept"),
        ("b", "kept"),
        ("bbbbbb", "kept"),
        ("pfnb", "kept"),
        ("pp", "equivalent"),
        ("pf", "equivalent"),
        ("pn", "equivalent"),
        ("pu", "flaky"),
        ("pw", "flaky"),
        ("ff", "nothing-passed"),
        ("", "tests-did-not-run"),
        ("b" * 19 + "p", "breaks-everything"),
        ("b" * 9 + "p" * 9, "kept"),
    ],
)
def test_an_outcome_is_judged_by_its_tests(results: str, reason: str) -> None:
    assert reasons([outcome(IN_F[0], results)]) == [reason]


def test_a_run_that_failed_is_no_outcome() -> None:
    (found,) = select([outcome(IN_F[0], "pb", log="collection stopped")])
    assert isinstance(found, Rejected)
    assert (found.reason, found.detail, found.id) == ("tests-did-not-run", "collection stopped", IN_F[0].id)


def test_the_same_tests_of_the_same_function_count_once() -> None:
    several = [outcome(IN_F[0], "pb"), outcome(IN_F[1], "pb"), outcome(IN_F[2], "bp"), outcome(IN_G[0], "pb")]
    assert reasons(several) == ["kept", "duplicate", "kept", "kept"]
    assert reasons([*several[:1], outcome(IN_F[1], "pb", repo="c/d")]) == ["kept", "kept"]


def test_one_that_was_dropped_stands_in_the_way_of_none() -> None:
    several = [outcome(IN_F[0], "pp"), outcome(IN_F[1], "pb")]
    assert reasons(several) == ["equivalent", "kept"]


def test_a_function_gives_no_more_than_is_wanted() -> None:
    several = [outcome(IN_F[0], "pbb"), outcome(IN_F[1], "bpb"), outcome(IN_G[0], "pbb")]
    assert reasons(several, most_per_symbol=1) == ["kept", "enough", "kept"]


def test_the_share_of_broken_tests_is_a_choice() -> None:
    assert reasons([outcome(IN_F[0], "b" * 20)], most_broken=1.0) == ["kept"]


def test_tests_are_told_apart() -> None:
    found = outcome(IN_F[0], "bpfuwn")
    assert (found.fail_to_pass, found.pass_to_pass, found.flaky) == (("t0",), ("t1",), ("t3", "t4"))
