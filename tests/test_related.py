"""The tests that are about a source file: those named after it, then those that import it."""

from pathlib import Path

import pytest

from agentdata.environments.related import module_of, related_tests
from agentdata.environments.snapshot import Snapshot
from agentdata.harvest.git import Repository
from tests.histories import History

TEST = "def test_it():\n    pass\n"
FILES: dict[str, str | bytes | None] = {
    "src/shop/__init__.py": "",
    "src/shop/till.py": "x = 1\n",
    "src/shop/shelf.py": "x = 1\n",
    "src/shop/cellar.py": "x = 1\n",
    "tests/test_till.py": TEST,
    "tests/test_open.py": f"from shop import shelf, till\n\n\n{TEST}",
    "tests/test_close.py": f"import shop.till\n\n\n{TEST}",
    "tests/test_other.py": f"import shop.tillage\n\n\n{TEST}",
}


@pytest.mark.parametrize(
    ("path", "tests"),
    [
        ("src/shop/till.py", ("tests/test_till.py", "tests/test_close.py", "tests/test_open.py")),
        ("src/shop/shelf.py", ("tests/test_open.py",)),
        ("src/shop/cellar.py", ()),
    ],
)
def test_tests_about_a_file(history: History, path: str, tests: tuple[str, ...]) -> None:
    history.commit("base", FILES)
    with Repository(Path(history.path / ".git")) as repository:
        assert related_tests(Snapshot(repository, history.git("rev-parse", "HEAD")), path) == tests


@pytest.mark.parametrize(
    ("path", "module"), [("src/a/b.py", "a.b"), ("a/__init__.py", "a"), ("a.py", "a"), ("lib/a/__init__.py", "a")]
)
def test_the_module_of_a_file(path: str, module: str) -> None:
    assert module_of(path) == module
