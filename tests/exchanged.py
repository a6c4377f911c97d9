"""A small repository with a bug, its gold patch and test patch, as real files and as records."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from agentdata.environments.swebench_rows import Triple
from agentdata.records import GoldPatch, Task, TaskTests, TestCount

MODULE = "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return a * 2\n"
FIXED = MODULE.replace("a - b", "a + b")
TESTS = """import pytest
import calc


@pytest.mark.parametrize("value", [1, 2])
def test_double(value):
    assert calc.double(value) == 2 * value


@pytest.mark.parametrize("value", ["a b", "a c", "one - two"])
def test_words(value):
    assert value


@pytest.mark.xfail(reason="not yet - really")
def test_later():
    assert calc.double(1) == 3


def test_known_failure():
    assert False, "as ever - before and after"
"""
MORE_TESTS = f"""{TESTS}

def test_add():
    assert calc.add(1, 2) == 3


@pytest.mark.parametrize("value", ["x y"])
def test_add_words(value):
    assert calc.add(value, "") == value
"""
FILE = "tests/test_calc.py"
PASSING = tuple(
    f"{FILE}::{name}"
    for name in ("test_double[1]", "test_double[2]", "test_words[a b]", "test_words[a c]", "test_words[one - two]")
)


@dataclass(frozen=True)
class Toy:
    """The repository at its base, and the task."""

    root: Path
    triple: Triple


def make_toy(root: Path, image: str = "toy:1") -> Toy:
    """Write the repository and its task."""
    (root / "tests").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    _git(root, "init", "-q")
    patches = {name: _patch(root, name, before, after) for name, before, after in _files()}
    _git(root, "add", "-A")
    _git(root, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "base")
    task = Task(
        id="toy__calc-1",
        repo="toy/calc",
        environment="environment",
        image=image,
        base_commit="a" * 40,
        problem_statement="add subtracts\n\nIt should not.",
        statement_source="issue",
        source="change",
        created_at="2024-01-01T00:00:00Z",
        version="1",
    )
    before, after = f"{FILE}::test_known_failure", f"{FILE}::test_later"
    counts = [TestCount(name=name, runs=3, passed_before=3, passed_after=3) for name in (*PASSING, after)]
    tests = TaskTests(
        id=task.id,
        test_patch=patches[FILE],
        test_files=(FILE,),
        test_command="python -m pytest",
        fail_to_pass=(f"{FILE}::test_add", f"{FILE}::test_add_words[x y]"),
        pass_to_pass=(*PASSING, after),
        counts=(*counts, TestCount(name=before, runs=3, passed_before=0, passed_after=0)),
    )
    return Toy(root, (task, tests, GoldPatch(id=task.id, patch=patches["calc.py"])))


def _files() -> list[tuple[str, str, str]]:
    return [("calc.py", MODULE, FIXED), (FILE, TESTS, MORE_TESTS)]


def _patch(root: Path, name: str, before: str, after: str) -> str:
    """The diff of a file that is left as it was before."""
    (root / name).write_text(before)
    _git(root, "add", name)
    (root / name).write_text(after)
    patch = _git(root, "diff", name)
    (root / name).write_text(before)
    return patch


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout
