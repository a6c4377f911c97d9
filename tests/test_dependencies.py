"""What a repository says about its dependencies, in every way of saying it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentdata.environments.declarations import clean, kind_of
from agentdata.environments.dependencies import Wishes, choose_pythons, find_wishes
from agentdata.environments.project_files import poetry_requirement
from agentdata.environments.snapshot import Snapshot, nearest_version, object_ids, pack
from agentdata.harvest import git
from tests.histories import History

Files = dict[str, str | bytes | None]


@pytest.fixture
def read(history: History) -> Iterator["Reader"]:
    reader = Reader(history)
    yield reader
    for repository in reader.repositories:
        repository.close()


class Reader:
    """Commits files and reads what they wish."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.repositories: list[git.Repository] = []

    def snapshot(self, files: Files) -> Snapshot:
        commit = self.history.commit("files", files)
        self.repositories.append(git.Repository(self.history.path / ".git"))
        return Snapshot(self.repositories[-1], commit)

    def __call__(self, files: Files) -> Wishes:
        return find_wishes(self.snapshot(files))


def wished(wishes: Wishes) -> set[str]:
    return {requirement for group in wishes.tests for requirement in group.requirements}


def test_a_standard_project_with_an_extra_for_tests(read: Reader) -> None:
    text = """
[build-system]
requires = ["flit_core >=3.2,<4"]
build-backend = "flit_core.buildapi"
[project]
name = "larder"
requires-python = ">=3.9"
classifiers = ["Programming Language :: Python :: 3.9", "Programming Language :: Python :: 3.11"]
dependencies = ["click>=8", "idna ; python_version < '3.12'"]
[project.optional-dependencies]
tests = ["pytest", "hypothesis"]
docs = ["sphinx"]
"""
    wishes = read({"pyproject.toml": text, "src/larder/__init__.py": ""})
    assert (wishes.project, wishes.modules, wishes.requires_python) == ("larder", ("larder",), ">=3.9")
    assert wishes.run == ("click>=8", 'idna; python_version < "3.12"')
    assert wishes.build == ("flit_core<4,>=3.2",)
    assert wished(wishes) == {"pytest", "hypothesis"}
    assert wishes.classified == ("3.9", "3.11")
    assert "[project.optional-dependencies] tests" in wishes.origin


def test_dependency_groups_include_each_other_and_the_project_itself(read: Reader) -> None:
    text = """
[project]
name = "larder"
[project.optional-dependencies]
socks = ["PySocks"]
[dependency-groups]
base = ["pytest>=8"]
tests = [{include-group = "base"}, "larder[socks]", "trustme"]
tests-random = ["pytest-randomly"]
"""
    assert wished(read({"pyproject.toml": text})) == {"pytest>=8", "PySocks", "trustme"}


def test_a_circle_of_groups_ends(read: Reader) -> None:
    text = '[dependency-groups]\ntests = ["pytest", {include-group = "test-a"}]\ntest-a = [{include-group = "tests"}, "six"]\n'
    assert wished(read({"pyproject.toml": text})) == {"pytest", "six"}


def test_poetry(read: Reader) -> None:
    text = """
[tool.poetry]
name = "larder"
[tool.poetry.dependencies]
python = "^3.9"
click = "^8.1"
rich = {version = "~13.2", optional = true}
[tool.poetry.extras]
pretty = ["rich"]
[tool.poetry.group.test.dependencies]
pytest = "^7"
mock = {version = "*", markers = "python_version < '3.10'"}
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""
    wishes = read({"pyproject.toml": text})
    assert wishes.run == ("click<9,>=8.1",)
    assert wishes.requires_python == ">=3.9,<4"
    assert wished(wishes) == {"pytest<8,>=7", 'mock; python_version < "3.10"'}
    assert wishes.build == ("poetry-core",)


@pytest.mark.parametrize(
    ("spec", "requirement"),
    [
        ("^0.2.3", "a>=0.2.3,<0.3"),
        ("^0.0.3", "a>=0.0.3,<0.0.4"),
        ("~1.2.3", "a>=1.2.3,<1.3"),
        ("~1", "a>=1,<2"),
        ("1.2.*", "a==1.2.*"),
        ("*", "a"),
        (">=1,<2", "a>=1,<2"),
        ("^1 || ^2", "a>=2,<3"),
        ({"git": "x"}, "a"),
    ],
)
def test_poetry_ranges(spec: object, requirement: str) -> None:
    assert poetry_requirement("a", spec) == requirement


def test_flit_before_the_standard(read: Reader) -> None:
    text = """
[tool.flit.metadata]
module = "larder"
requires = ["idna"]
requires-python = ">=3.6"
[tool.flit.metadata.requires-extra]
test = ["pytest"]
"""
    wishes = read({"pyproject.toml": text})
    assert (wishes.project, wishes.run, wished(wishes)) == ("larder", ("idna",), {"pytest"})


def test_hatch_pdm_and_uv_have_tables_of_their_own(read: Reader) -> None:
    text = """
[project]
name = "larder"
[tool.hatch.envs.test]
dependencies = ["coverage"]
features = ["all"]
[tool.pdm.dev-dependencies]
test = ["pytest"]
[project.optional-dependencies]
all = ["rich"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
    wishes = read({"pyproject.toml": text})
    assert wished(wishes) == {"coverage", "rich", "pytest"}
    assert wishes.build == ("hatchling", "editables")
    assert wished(read({"pyproject.toml": '[tool.uv]\ndev-dependencies = ["pytest", "ruff"]\n'})) == {"pytest"}


def test_setuptools_reads_files_that_pyproject_names(read: Reader) -> None:
    text = '[project]\nname = "larder"\n[tool.setuptools.dynamic]\ndependencies = {file = ["deps.txt"]}\n'
    assert read({"pyproject.toml": text, "deps.txt": "click # comment\n"}).run == ("click",)


SETUP = """
import os
from setuptools import setup
HERE = os.path.dirname(__file__)
base = ["click>=7"]
tests = ["pytest", "six"]
tests.append("mock")
extras = {"tests": tests, ":python_version < '3.8'": ["typing"]}
extras["dev"] = extras["tests"] + ["tox"]
VERSION = "1.2"
if os.environ.get("X"):
    base += ["other"]
setup(
    name="larder",
    install_requires=base + ["idna>=%s" % VERSION],
    extras_require=extras,
    python_requires=">=3.6",
    classifiers=["Programming Language :: Python :: 3.9"],
    tests_require=open("requirements-test.txt").read().splitlines(),
)
"""


def test_setup_py_is_read_and_not_run(read: Reader) -> None:
    files: Files = {"setup.py": SETUP, "requirements-test.txt": "-r more.txt\npytest-mock\n", "more.txt": "trustme\n"}
    wishes = read(files)
    assert wishes.project == "larder"
    assert wishes.run == ("click>=7", "other", "idna>=1.2", "typing; python_version < '3.8'".replace("'", '"'))
    assert wished(wishes) == {"pytest", "six", "mock", "pytest-mock", "trustme"}
    assert wishes.build == ("setuptools", "wheel")


@pytest.mark.parametrize("text", ["setup(", "x = 1", "from setuptools import setup\nsetup(**f())\n", "\0"])
def test_a_setup_py_that_says_nothing(read: Reader, text: str) -> None:
    assert read({"setup.py": text}).run == ()


def test_setup_cfg(read: Reader) -> None:
    text = """
[metadata]
name = larder
classifiers =
    Programming Language :: Python :: 3.11
[options]
python_requires = >=3.8
install_requires =
    click
    idna; python_version < "4"
[options.extras_require]
testing =
    pytest
[tool:pytest]
addopts = --cov=larder -n 2
"""
    wishes = read({"setup.cfg": text})
    assert wishes.run == ("click", 'idna; python_version < "4"')
    assert wished(wishes) == {"pytest", "pytest-cov", "pytest-xdist"}


def test_requirements_files_tox_and_the_source_of_a_compiled_file(read: Reader) -> None:
    tox = """
[testenv]
extras = socks
deps =
    -r requirements/tests.txt
    py39: six
    lowest: click==7.0
    {[base]deps}
[base]
deps = trustme
[testenv:docs]
deps = sphinx
"""
    project = '[project]\nname = "larder"\n[project.optional-dependencies]\nsocks = ["PySocks"]\n'
    files: Files = {
        "tox.ini": tox,
        "pyproject.toml": project,
        "requirements/tests.in": "pytest\n-c limits.txt\n",
        "requirements/tests.txt": "pytest==7.0.0\n",
        "requirements/limits.txt": "attrs<22\n",
        "requirements/tests-min.in": "click==1.0\n",
    }
    wishes = read(files)
    assert wished(wishes) == {"pytest", "six", "trustme", "PySocks"}
    assert wishes.constraints == ("attrs<22",)


def test_requirements_that_include_each_other_end(read: Reader) -> None:
    files: Files = {"requirements-test.txt": "-r a.txt\npytest\n", "a.txt": "-r requirements-test.txt\nsix\n"}
    assert wished(read(files)) == {"six", "pytest"}


def test_nox_and_pipfile_are_asked_when_pytest_is_nowhere_else(read: Reader) -> None:
    nox = 'def tests(session):\n    session.install("-r", "deps.txt", "pytest")\n    session.install(".[x]")\n'
    assert wished(read({"noxfile.py": nox, "deps.txt": "six\n"})) == {"six", "pytest"}
    pipfile = '[packages]\nclick = "*"\n[dev-packages]\npytest = "==7.*"\n'
    assert wished(read({"noxfile.py": None, "deps.txt": None, "Pipfile": pipfile})) == {"click", "pytest==7.*"}


def test_continuous_integration_is_the_last_resort(read: Reader) -> None:
    workflow = """
jobs:
  test:
    steps:
      - run: pip install --upgrade pip
      - run: |
          pip install -e '.[extra]' pytest "six>=1.10"  # comment
          pip install ${{ matrix.more }} flake8
      - run: pytest
"""
    project = '[project]\nname = "larder"\n[project.optional-dependencies]\nextra = ["idna"]\n'
    wishes = read({".github/workflows/test.yml": workflow, "pyproject.toml": project})
    assert wished(wishes) == {"pytest", "six>=1.10", "idna"}


def test_plugins_are_told_by_options_marks_fixtures_and_imports(read: Reader) -> None:
    test = """
import mock
import pytest
from freezegun import freeze_time

@pytest.mark.asyncio
async def test_it(mocker, httpbin): ...
"""
    project = '[tool.pytest.ini_options]\naddopts = ["--timeout=3"]\nrequired_plugins = ["pytest-sugar>=1.0"]\n'
    conftest = "import pytest\n\n@pytest.fixture\ndef httpbin(): ...\n"
    wishes = read({"tests/test_it.py": test, "pyproject.toml": project, "tests/conftest.py": conftest})
    assert wished(wishes) == {"mock", "freezegun", "pytest-asyncio", "pytest-mock", "pytest-timeout", "pytest-sugar"}


def test_the_project_is_never_among_its_own_requirements(read: Reader) -> None:
    text = '[project]\nname = "six"\ndependencies = ["Six>1"]\n[dependency-groups]\ntest = ["six", "pytest"]\n'
    wishes = read({"pyproject.toml": text, "six.py": "", "test_six.py": "import six\n"})
    assert wishes.run == ()
    assert wished(wishes) == {"pytest"}


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("click >= 7  # why", "click>=7"),
        ("click==7 --hash=sha256:00 \\", "click==7"),
        ("--index-url x", ""),
        ("", ""),
        ("git+https://host/x.git#egg=name", "name"),
        ("name @ https://host/x.zip", "name"),
        ("./local", ""),
        ("a b", ""),
    ],
)
def test_a_line_of_a_requirements_file(line: str, requirement: str) -> None:
    assert clean(line) == requirement


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tests", "test"),
        ("requirements/testing.txt", "test"),
        ("dev", "develop"),
        ("requirements-dev.txt", "develop"),
        ("docs", "extra"),
        ("latest", "extra"),
        ("typing", "extra"),
        ("contest", "extra"),
    ],
)
def test_names_of_groups(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("requires", "classified", "until", "pythons"),
    [
        (">=3.8", (), "2023-06-01", ("3.11", "3.9", "3.13")),
        (">=3.8", ("3.8", "3.9"), "2023-06-01", ("3.9", "3.11", "3.13")),
        (">=3.10", (), "2026-01-01", ("3.13", "3.11")),
        ("", ("3.5", "3.6"), "2017-01-01", ("3.9", "3.11", "3.13")),
        (">=2.7, !=3.0.*", (), "2019-01-01", ("3.9", "3.11", "3.13")),
        (">=3.8,<3.10", (), "2025-01-01", ("3.13", "3.11", "3.9")),
        (">=3.14", (), "2026-01-01", ()),
        ("not a range", (), "2021-01-01", ("3.9", "3.11", "3.13")),
    ],
)
def test_the_python_fits_range_classifiers_and_date(
    requires: str, classified: tuple[str, ...], until: str, pythons: tuple[str, ...]
) -> None:
    wishes = Wishes(
        project="", modules=(), run=(), build=(), tests=(), requires_python=requires, classified=classified, until=until
    )
    assert choose_pythons(wishes) == pythons


def test_the_version_is_that_of_the_nearest_tag_before(history: History) -> None:
    history.commit("one", {"a": "1"})
    assert nearest_version(history.path / ".git", history.head()) == "0.0.0"
    history.git("tag", "v1.2.3")
    between = history.commit("two", {"a": "2"})
    history.commit("three", {"a": "3"})
    history.git("tag", "rel_2_0")
    assert nearest_version(history.path / ".git", between) == "1.2.3"


def test_the_pack_holds_the_objects_of_one_commit_only(history: History, tmp_path: Path) -> None:
    history.commit("one", {"a": "1", "d/b": "2"})
    commit = history.commit("two", {"a": "3"})
    history.commit("three", {"a": "4"})
    with git.Repository(history.path / ".git") as repository:
        snapshot = Snapshot(repository, commit)
        content, expected = pack(snapshot), object_ids(snapshot)
    assert len(expected) == 5
    other = History(tmp_path / "other")
    (tmp_path / "it.pack").write_bytes(content)
    other.git("index-pack", "--stdin", stdin=content)
    assert set(other.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()) == expected
