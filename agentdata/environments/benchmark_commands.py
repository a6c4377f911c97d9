"""How SWE-bench runs the tests of its repositories, for rows that do not say it themselves.

Classic rows hold test names in the form that the repository's own runner prints and no command. Releases of `swebench`
before 5 carry one for each repository and version; later ones moved it into the rows. The table below holds the ones of
the repositories in SWE-bench; any other repository runs pytest.
"""

import importlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from agentdata.environments.log_parsers import FIRST_WORD
from agentdata.environments.patches import split

OWN_RUNNERS = {"pytest-dev/pytest"}
"""Repositories whose tests run by the code that they test: canaries would take that for a runner that was replaced."""
NOT_TESTS = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")
"""Ends of names that are no arguments of a test command in SWE-bench's convention."""
PYTEST = "pytest -rA"
DJANGO = "./tests/runtests.py --verbosity 2"
SYMPY = "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' bin/test -C --verbose"
COMMANDS = {
    "astropy/astropy": "pytest -rA -vv -o console_output_style=classic --tb=no",
    "django/django": f"{DJANGO} --settings=test_sqlite --parallel 1",
    "mwaskom/seaborn": "pytest --no-header -rA",
    # The original runs tox, whose environment is the outer one (`--current-env`): this is what it then calls.
    "sphinx-doc/sphinx": "pytest -rA --durations 25",
    "sympy/sympy": SYMPY,
}
PARSERS = {
    "astropy/astropy": "parse_log_astropy",
    "django/django": "parse_log_django",
    "matplotlib/matplotlib": "parse_log_matplotlib",
    "mwaskom/seaborn": "parse_log_seaborn",
    "pallets/flask": "parse_log_flask",
    "psf/requests": "parse_log_requests",
    "pydata/xarray": "parse_log_xarray",
    "pydicom/pydicom": "parse_log_pydicom",
    "pylint-dev/pylint": "parse_log_pylint",
    "scikit-learn/scikit-learn": "parse_log_scikit",
    "sphinx-doc/sphinx": "parse_log_sphinx",
    "sympy/sympy": "parse_log_sympy",
}
SETUP = {
    "django/django": ("export LANG=C.UTF-8 LC_ALL=C.UTF-8 PYTHONIOENCODING=utf8",),
}


@dataclass(frozen=True, slots=True)
class BenchmarkCommand:
    """How a repository's tests are run and read."""

    command: str
    """Without the names of tests."""
    parser: str
    setup: tuple[str, ...] = ()
    """Commands that come before."""


def benchmark_command(repo: str, version: str) -> BenchmarkCommand:
    """The command for a repository at a version, and the parser of what it prints."""
    command = _official_command(repo, version) or COMMANDS.get(repo, PYTEST)
    if repo == "django/django" and version == "1.9":
        command = DJANGO
    return BenchmarkCommand(command, PARSERS.get(repo, FIRST_WORD), SETUP.get(repo, ()))


def changed_tests(test_patch: str) -> tuple[str, ...]:
    """The files of a test patch that can be given to a test command, deleted ones left out."""
    files = [file for file in split(test_patch) if file.change != "deleted"]
    return tuple(dict.fromkeys(file.path for file in files if not file.path.endswith(NOT_TESTS)))


def with_tests(command: str, repo: str, files: Sequence[str]) -> str:
    """A command with the files to test, in the form that the repository's runner takes."""
    if repo == "django/django":
        files = [file.removesuffix(".py").removeprefix("tests/").replace("/", ".") for file in files]
    return " ".join([command, *map(shlex.quote, files)])


def _official_command(repo: str, version: str) -> str:
    """What an installed `swebench` before 5 says. Later ones say nothing, and importing them takes seconds."""
    try:
        if int(metadata.version("swebench").partition(".")[0]) >= 5:
            return ""
        specs = importlib.import_module("swebench.harness.constants").MAP_REPO_VERSION_TO_SPECS
    except (metadata.PackageNotFoundError, ImportError, AttributeError, ValueError):
        return ""
    return str(specs.get(repo, {}).get(version, {}).get("test_cmd", ""))
