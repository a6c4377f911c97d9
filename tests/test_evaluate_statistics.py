"""Intervals and tests against values that are known from books, from closed forms, or by counting."""

from fractions import Fraction
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.evaluate.statistics import bootstrap, difference_interval, rate_interval, sign_flip_test

ZEA_MAYS = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)
"""Darwin's fifteen pairs of maize, whose permutations Fisher counted in The Design of Experiments."""


def fractions(*values: int | Fraction) -> list[Fraction]:
    return [Fraction(value) for value in values]


def test_the_sign_flip_test_counts_as_fisher_did() -> None:
    assert sign_flip_test(fractions(*ZEA_MAYS)) == 1726 / 2**15


@pytest.mark.parametrize(("only_first", "only_second"), [(1, 9), (0, 5), (6, 6), (3, 12)])
def test_single_runs_give_the_exact_test_of_mcnemar(only_first: int, only_second: int) -> None:
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    binomial = min(1.0, 2 * sum(comb(discordant, k) for k in range(fewer + 1)) / 2**discordant)
    differences = fractions(*[-1] * only_first, *[1] * only_second, *[0] * 40)
    assert sign_flip_test(differences) == pytest.approx(binomial, abs=1e-12)


@given(st.lists(st.fractions(-1, 1, max_denominator=4), min_size=1, max_size=9))
@settings(max_examples=60)
def test_the_sign_flip_test_is_the_share_of_all_swaps(differences: list[Fraction]) -> None:
    sums = [abs(sum(sign * one for sign, one in zip(signs, differences, strict=True))) for signs in _signs(differences)]
    assert sign_flip_test(differences) == pytest.approx(sum(one >= abs(sum(differences)) for one in sums) / len(sums))


def _signs(differences: list[Fraction]) -> list[tuple[int, ...]]:
    return list(product((1, -1), repeat=len(differences)))


def test_the_bootstrap_of_a_rate_has_the_quantiles_of_the_binomial_distribution() -> None:
    found = rate_interval(fractions(*[1] * 40, *[0] * 60))
    assert (found.low, found.high) == pytest.approx((0.31, 0.50), abs=0.0101)


def test_the_bootstrap_of_five_hundred_tasks_is_near_the_normal_interval() -> None:
    found = rate_interval(fractions(*[1] * 200, *[0] * 300))
    half = 1.96 * (0.4 * 0.6 / 500) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.004)


def test_a_bootstrap_is_the_same_each_time() -> None:
    values = fractions(0, 1, Fraction(1, 4), Fraction(1, 2))
    assert bootstrap(values) == bootstrap(values)


def test_where_all_tasks_are_alike_the_interval_is_exact() -> None:
    solved, unsolved = rate_interval(fractions(*[1] * 10)), rate_interval(fractions(*[0] * 10))
    assert (solved.low, solved.high) == pytest.approx((0.69150, 1.0), abs=1e-5)
    assert (unsolved.low, unsolved.high) == pytest.approx((0.0, 0.30850), abs=1e-5)


def test_no_difference_on_a_few_tasks_leaves_room_on_both_sides() -> None:
    found = difference_interval(fractions(0, 0, 0))
    assert (found.low, found.high) == pytest.approx((-0.7076, 0.7076), abs=1e-4)


def test_an_interval_needs_tasks() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        rate_interval([])
