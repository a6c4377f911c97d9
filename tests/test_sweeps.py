"""Tests run again and again, without and with gold, to what they tell."""

import pytest

from agentdata.environments.sweeps import sweep
from sandboxes.engine import Engine
from tests import gradetoy

pytestmark = pytest.mark.docker


def test_tests_are_sorted_by_what_they_did_before_and_after(engine: Engine, base: str) -> None:
    found = sweep(
        gradetoy.image(engine, base),
        gradetoy.task_tests(),
        gradetoy.diff(dict(gradetoy.SOLVED)),
        open_sandbox=engine.open,
        k=2,
    )
    assert found.reason == ""
    assert set(found.fail_to_pass) == set(gradetoy.FAIL_TO_PASS)
    assert "tests/test_core.py::test_subtract[0]" in found.pass_to_pass
    assert found.canaries
    assert "assert -1 == 5" in found.messages["tests/test_core.py::test_add"]


def test_a_gold_patch_that_fixes_nothing_makes_no_task(engine: Engine, base: str) -> None:
    idle = gradetoy.diff({"calc/more.py": "x = 1\n"})
    found = sweep(gradetoy.image(engine, base), gradetoy.task_tests(), idle, open_sandbox=engine.open, k=2)
    assert found.reason == "no-fail-to-pass"


def test_a_test_whose_outcome_differs_between_equal_runs_decides_nothing(engine: Engine, base: str) -> None:
    tests = gradetoy.task_tests()
    counter = "import time\n\n\ndef test_flaky():\n    assert int(time.time_ns() / 1000) % 2\n"
    patch = gradetoy.diff({**gradetoy.NEW_TESTS, "tests/test_flaky.py": counter})
    tests = tests.model_copy(update={"test_patch": patch, "test_files": (*tests.test_files, "tests/test_flaky.py")})
    gold = gradetoy.diff(dict(gradetoy.SOLVED))
    found = sweep(gradetoy.image(engine, base), tests, gold, open_sandbox=engine.open, k=3)
    flaky = "tests/test_flaky.py::test_flaky"
    counts = {count.name: count for count in found.counts}[flaky]
    steady = {counts.passed_before, counts.passed_after} <= {0, 3}
    assert (flaky in found.flaky) == (not steady)
