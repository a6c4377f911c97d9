"""Reports to results, and canaries, from real runs of pytest and unittest in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from agentdata.environments import unittest_report
from agentdata.environments.canaries import Canary, find_deviation, make_canaries
from agentdata.environments.junit import Report, read_report
from agentdata.environments.testing import is_pytest
from agentdata.errors import UsageError

SUITE = """
import sys, unittest, pytest

@pytest.mark.parametrize("x", ["a/b", "a.b::c", "sp ace", "[br]", "\\x1b", "é", "<&>"])
def test_odd(x): pass

def test_fails(): assert 1 == 2
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.mark.xfail(strict=True)
def test_unexpected(): pass
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture
def broken(): raise OSError("no")
@pytest.fixture
def late():
    yield
    raise OSError("late")
def test_setup(broken): pass
def test_teardown(late): pass
class TestOuter:
    class TestInner:
        def test_deep(self): pass
class TestCase(unittest.TestCase):
    def test_unit(self): self.assertEqual(1, 1)
"""


def run_pytest(folder: Path, *arguments: str) -> tuple[int, Report]:
    report = folder / "report.xml"
    options = [
        "-o",
        "junit_family=xunit1",
        f"--junitxml={report}",
        "--continue-on-collection-errors",
        "-p",
        "no:hypothesispytest",
    ]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *arguments], cwd=folder, capture_output=True)
    found = read_report(report.read_bytes(), arguments)
    assert found is not None
    return done.returncode, found


def test_every_kind_of_outcome_has_its_status_and_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/test_suite.py").write_text(SUITE)
    file = "sub/test_suite.py"
    _, report = run_pytest(tmp_path, file)
    odd = {name for name in report.results if "test_odd" in name}
    assert len(odd) == 7
    assert {f"{file}::test_odd[a/b]", f"{file}::test_odd[a.b::c]", f"{file}::test_odd[sp ace]"} <= odd
    assert {name: status for name, status in report.results.items() if name not in odd} == {
        f"{file}::test_fails": "failed",
        f"{file}::test_expected": "passed",
        f"{file}::test_unexpected": "failed",
        f"{file}::test_skipped": "skipped",
        f"{file}::test_setup": "error",
        f"{file}::test_teardown": "error",
        f"{file}::TestOuter::TestInner::test_deep": "passed",
        f"{file}::TestCase::test_unit": "passed",
    }
    assert "assert 1 == 2" in report.messages[f"{file}::test_fails"]


def test_a_file_that_cannot_be_collected_stands_under_its_path(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nowhere\n")
    (tmp_path / "test_fine.py").write_text("def test_one(): pass\n")
    _, report = run_pytest(tmp_path, "test_broken.py", "test_fine.py")
    assert report.results == {"test_broken.py": "error", "test_fine.py::test_one": "passed"}
    assert "nowhere" in report.messages["test_broken.py"]


def test_doctests_have_names(tmp_path: Path) -> None:
    (tmp_path / "mod.py").write_text('def f():\n    """\n    >>> f()\n    1\n    """\n    return 1\n')
    _, report = run_pytest(tmp_path, "mod.py", "--doctest-modules")
    assert report.results == {"mod.py::mod.f": "passed"}


def test_two_cases_of_one_name_count_as_the_worse() -> None:
    case = '<testcase classname="test_a" name="test_x" file="test_a.py"'
    text = f"<testsuite>{case}><failure message='no'/></testcase>{case}/></testsuite>"
    report = read_report(text.encode(), ["test_a.py"])
    assert report is not None
    assert report.results == {"test_a.py::test_x": "failed"}


@pytest.mark.parametrize("text", ["", "no", "<html/>", "<testsuite>", '<!DOCTYPE a [<!ENTITY b "c">]><testsuite/>'])
def test_what_is_no_report_is_none(text: str) -> None:
    assert read_report(text.encode(), []) is None


def canary_run(folder: Path, canaries: tuple[Canary, ...], more: str = "") -> list[str]:
    (folder / "test_x.py").write_text(f"{more}\ndef test_a(): pass\n")
    for canary in canaries:
        (folder / canary.path).write_text(canary.text)
    status, report = run_pytest(folder, canaries[0].path, "test_x.py", canaries[1].path)
    assert status == 1
    return [find_deviation(canary, report) for canary in canaries]


def test_canaries_come_out_right_where_nobody_interferes(tmp_path: Path) -> None:
    canaries = make_canaries(["test_x.py"], "test_x.py::test_a", tree=str(tmp_path), pytest=True)
    assert canary_run(tmp_path, canaries) == ["", ""]


@pytest.mark.parametrize(
    "code",
    [
        "import _pytest.skipping\n_pytest.skipping.evaluate_skip_marks = lambda item: None\n",
        "import unittest.case\nunittest.case.TestCase.assertTrue = lambda *a: None\n",
        "import sys\nsys.setprofile(lambda *a: None)\n",
    ],
)
def test_canaries_tell_that_the_machinery_was_changed(tmp_path: Path, code: str) -> None:
    canaries = make_canaries(["test_x.py"], "test_x.py::test_a", tree=str(tmp_path), pytest=True)
    assert any(canary_run(tmp_path, canaries, code))


def test_our_unittest_runner_writes_what_we_read(tmp_path: Path) -> None:
    (tmp_path / "test_unit.py").write_text(
        "import unittest\n\nclass TestA(unittest.TestCase):\n"
        "    def test_ok(self): pass\n    def test_no(self): self.fail('why')\n    def test_error(self): raise OSError\n"
        "    @unittest.skip('later')\n    def test_skip(self): pass\n"
        "    @unittest.expectedFailure\n    def test_expected(self): self.fail()\n"
        "    def test_sub(self):\n        for n in (0, 1):\n            with self.subTest(n=n): self.assertEqual(n, 0)\n"
    )
    (tmp_path / "test_broken.py").write_text("import nowhere\n")
    report = tmp_path / "report.xml"
    files = ["test_unit.py", "test_broken.py"]
    command = [sys.executable, str(unittest_report.__file__), f"--junitxml={report}", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    found = read_report(report.read_bytes(), files)
    assert done.returncode == 1
    assert found is not None
    assert found.results == {
        "test_unit.py::TestA::test_ok": "passed",
        "test_unit.py::TestA::test_no": "failed",
        "test_unit.py::TestA::test_error": "error",
        "test_unit.py::TestA::test_skip": "skipped",
        "test_unit.py::TestA::test_expected": "passed",
        "test_unit.py::TestA::test_sub": "failed",
        "test_broken.py": "error",
    }


def test_a_command_that_runs_neither_is_refused() -> None:
    assert is_pytest("cd x && python -m pytest -q")
    assert not is_pytest("python -m unittest -v")
    with pytest.raises(UsageError, match="make check"):
        is_pytest("make check")
