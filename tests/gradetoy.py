"""A toy repository with a bug, its tests and its solution, for the tests of testing, grading and sweeps."""

import hashlib
import importlib.util
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from agentdata.records import Task, TaskTests
from sandboxes.engine import Engine
from sandboxes.images import BuildBox

FILES = {
    "pyproject.toml": '[project]\nname = "calc"\n\n[tool.pytest.ini_options]\naddopts = "-q"\n',
    "calc/__init__.py": "",
    "calc/core.py": "def add(a, b):\n    return a - b\n\n\ndef subtract(a, b):\n    return a - b\n",
    "tests/conftest.py": "import pytest\n\n\n@pytest.fixture\ndef two():\n    return 2\n",
    "tests/test_core.py": (
        "import pytest\n\nfrom calc.core import subtract\n\n\n"
        '@pytest.mark.parametrize("n", [0, 5])\ndef test_subtract(two, n):\n    assert subtract(n, two) == n - 2\n\n\n'
        '@pytest.mark.skip(reason="later")\ndef test_later():\n    raise AssertionError\n'
    ),
}
SOLVED = {"calc/core.py": FILES["calc/core.py"].replace("a - b", "a + b", 1)}
NEW_TESTS = {
    "tests/test_core.py": FILES["tests/test_core.py"].replace("import subtract", "import add, subtract")
    + "\n\ndef test_add(two):\n    assert add(two, 3) == 5\n",
    "tests/test_more.py": (
        "from calc.core import add\n\n\nclass TestMore:\n    def test_zero(self):\n        assert add(0, 1) == 1\n"
    ),
}
FAIL_TO_PASS = ("tests/test_core.py::test_add", "tests/test_more.py::TestMore::test_zero")
PASS_TO_PASS = ("tests/test_core.py::test_subtract[0]", "tests/test_core.py::test_subtract[5]")


RUNNER = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
"""What pytest needs, all of it pure Python, taken from the environment that these tests run in."""
COMMIT = """
chown -R 1000:1000 /testbed && cd /testbed && git config --global safe.directory '*' && git init -q && git add -A
git -c user.name=x -c user.email=x@y commit -qm base && chown -R 1000:1000 .git
"""


def image(engine: Engine, base: str) -> str:
    """An image with the toy repository at /testbed, made once for each base."""
    digest = hashlib.sha256(json.dumps([base, RUNNER, version("pytest"), COMMIT, FILES]).encode()).hexdigest()[:12]
    name = f"agentdata-test/toy:{digest}"
    if not engine.images_have(name):
        with BuildBox(engine, base) as box:
            box.put(_archive({name: text.encode() for name, text in FILES.items()}), "/testbed")
            box.put(_archive(dict(_runner_files())), "/usr/lib/python3/dist-packages")
            done = box.run(COMMIT)
            assert done.status == 0, done.text
            box.commit(name, changes=["WORKDIR /testbed"])
    return name


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _runner_files() -> Iterator[tuple[str, bytes]]:
    for package in RUNNER:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        top = origin.parent.parent if origin.name == "__init__.py" else origin.parent
        for file in origin.parent.rglob("*.py") if origin.name == "__init__.py" else [origin]:
            yield str(file.relative_to(top)), file.read_bytes()


def diff(changes: dict[str, str | None]) -> str:
    """The diff, as git makes it, that gives files a new text, or deletes them (None), in the toy repository."""
    with tempfile.TemporaryDirectory() as folder:
        return _diff(Path(folder), changes)


def _diff(folder: Path, changes: dict[str, str | None]) -> str:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    for name, changed in changes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if changed is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(changed)
    git(folder, "add", "-A", "-f")
    return git(folder, "diff", "--cached", "--binary")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder."""
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def task(image: str) -> Task:
    """The toy's task."""
    return Task(
        id="toy__calc-1",
        repo="toy/calc",
        environment="",
        image=image,
        base_commit="HEAD",
        problem_statement="add subtracts",
        statement_source="tests",
        source="change",
        created_at="2024-01-01T00:00:00Z",
    )


def task_tests(command: str = "python -m pytest -rA") -> TaskTests:
    """What decides over the toy's task."""
    return TaskTests(
        id="toy__calc-1",
        test_patch=diff(dict(NEW_TESTS)),
        test_files=("tests/test_core.py", "tests/test_more.py"),
        test_command=command,
        fail_to_pass=FAIL_TO_PASS,
        pass_to_pass=PASS_TO_PASS,
    )
