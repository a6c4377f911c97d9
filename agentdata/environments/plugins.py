"""Test plugins and libraries that a repository's tests need but may not declare: told by options, marks and imports."""

import re

from agentdata.environments.declarations import Group
from agentdata.environments.project_files import read_ini, read_pyproject_table
from agentdata.environments.snapshot import Snapshot

OPTIONS = {
    r"--cov\b|--no-cov\b|--cov-": "pytest-cov",
    r"(^|\s)(-n\s*\w|--numprocesses|--dist\b|--maxprocesses|--looponfail)|-p\s*xdist": "pytest-xdist",
    r"--timeout\b|^timeout\s*=|^timeout_method": "pytest-timeout",
    r"^asyncio_mode|--asyncio-mode|^asyncio_default": "pytest-asyncio",
    r"^trio_mode": "pytest-trio",
    r"--benchmark": "pytest-benchmark",
    r"--reruns": "pytest-rerunfailures",
    r"--randomly|-p\s*(no:)?randomly": "pytest-randomly",
    r"--random-order": "pytest-random-order",
    r"--mypy": "pytest-mypy-plugins",
    r"--flake8": "pytest-flake8",
    r"--black\b": "pytest-black",
    r"--isort\b": "pytest-isort",
    r"--pep8|^pep8": "pytest-pep8",
    r"^django_|DJANGO_SETTINGS_MODULE|--ds=|--reuse-db": "pytest-django",
    r"^env\s*=|^env_files": "pytest-env",
    r"^mock_|--mock": "pytest-mock",
    r"--doctest-plus|^doctest_plus": "pytest-doctestplus",
    r"--instafail": "pytest-instafail",
    r"--sugar|-p\s*sugar": "pytest-sugar",
    r"--disable-socket|--allow-hosts": "pytest-socket",
    r"--snapshot": "syrupy",
    r"--inline-snapshot": "inline-snapshot",
    r"--nbval": "nbval",
    r"--html": "pytest-html",
    r"--forked": "pytest-forked",
    r"--picked": "pytest-picked",
    r"--strict-config.*--examples|--sybil": "sybil",
    r"--hypothesis": "hypothesis",
    r"--regtest": "pytest-regtest",
}
USES = {
    r"\bmark\.asyncio\b": "pytest-asyncio",
    r"\bmark\.trio\b": "pytest-trio",
    r"\bmark\.anyio\b": "anyio",
    r"\bmark\.timeout\b": "pytest-timeout",
    r"\bmark\.flaky\b": "pytest-rerunfailures",
    r"\bmark\.django_db\b": "pytest-django",
    r"\bmark\.benchmark\b": "pytest-benchmark",
    r"\bmark\.freeze_time\b": "pytest-freezer",
    r"\bmark\.vcr\b": "pytest-vcr",
}
FIXTURES = {
    "mocker": "pytest-mock",
    "httpbin": "pytest-httpbin",
    "benchmark": "pytest-benchmark",
    "requests_mock": "requests-mock",
    "httpx_mock": "pytest-httpx",
    "aiohttp_client": "pytest-aiohttp",
    "httpserver": "pytest-httpserver",
    "subtests": "pytest-subtests",
    "freezer": "pytest-freezer",
    "data_regression": "pytest-regressions",
    "file_regression": "pytest-regressions",
    "class_mocker": "pytest-mock",
    "faker": "faker",
}
MODULES = {
    "mock": "mock",
    "hypothesis": "hypothesis",
    "six": "six",
    "freezegun": "freezegun",
    "time_machine": "time-machine",
    "responses": "responses",
    "respx": "respx",
    "parameterized": "parameterized",
    "yaml": "pyyaml",
    "dateutil": "python-dateutil",
    "pytz": "pytz",
    "simplejson": "simplejson",
    "trustme": "trustme",
    "dirty_equals": "dirty-equals",
    "faker": "faker",
    "testfixtures": "testfixtures",
    "nose": "nose",
    "pretend": "pretend",
    "cloudpickle": "cloudpickle",
    "syrupy": "syrupy",
    "approvaltests": "approvaltests",
    "sybil": "sybil",
    "pyfakefs": "pyfakefs",
    "pexpect": "pexpect",
    "webtest": "webtest",
    "ddt": "ddt",
    "psutil": "psutil",
    "trio": "trio",
    "attr": "attrs",
    "typing_extensions": "typing-extensions",
}
MOST_FILES = 600
INI_FILES = (("pytest.ini", "pytest"), (".pytest.ini", "pytest"), ("tox.ini", "pytest"), ("setup.cfg", "tool:pytest"))


def find_test_files(snapshot: Snapshot) -> list[str]:
    """Files that pytest collects by its usual names."""
    return [path for path in snapshot.files if re.search(r"(^|/)(test_[^/]*|[^/]*_tests?|tests)\.py$", path)]


def find_own_tests(snapshot: Snapshot) -> list[str]:
    """Test files without those of examples and documentation, which need more than the project; of `testpaths` if set."""
    stated = re.search(r"^testpaths = (.*(?:\n(?![\w-]+ = ).*)*)", configuration(snapshot), re.MULTILINE)
    folders = re.findall(r"[\w./-]+", stated[1]) if stated else []
    files = [
        path for path in find_test_files(snapshot) if not re.match(r"(examples?|docs?|bench\w*|perf\w*|tools)/", path)
    ]
    within = [path for path in files if any(path == it or path.startswith(f"{it.strip('./')}/") for it in folders)]
    return within or files


def configuration(snapshot: Snapshot) -> str:
    """The options of pytest wherever they are kept, one `key = value` a line."""
    pairs = [
        (key, str(value)) for key, value in read_pyproject_table(snapshot, "tool", "pytest", "ini_options").items()
    ]
    pairs += [(key, str(value)) for key, value in read_pyproject_table(snapshot, "tool", "pytest").items()]
    for path, section in INI_FILES:
        config = read_ini(snapshot, path)
        if config.has_section(section):
            pairs += [(key, value or "") for key, value in config[section].items()]
    return "\n".join(f"{key} = {value}" for key, value in pairs)


def find_plugins(snapshot: Snapshot, modules: tuple[str, ...]) -> Group:
    """Plugins and libraries by how the tests are configured and what they use; `modules` are the project's own."""
    found = required_plugins(options := configuration(snapshot))
    found += [package for pattern, package in OPTIONS.items() if re.search(pattern, options, re.MULTILINE)]
    paths = [path for path in snapshot.files if path.endswith("conftest.py")] + find_test_files(snapshot)
    texts = [snapshot.text(path) for path in paths[:MOST_FILES]]
    whole = "\n".join(texts)
    found += [package for pattern, package in USES.items() if re.search(pattern, whole)]
    found += [package for fixture, package in FIXTURES.items() if _is_requested(fixture, whole)]
    imported = set(re.findall(r"^\s*(?:import|from)\s+([A-Za-z_]\w*)", whole, re.MULTILINE))
    imported |= set(re.findall(r"importorskip\(\s*['\"](\w+)", whole))
    found += [package for module, package in MODULES.items() if module in imported and module not in modules]
    return Group(origin="options and imports of the tests", kind="test", requirements=tuple(dict.fromkeys(found)))


def required_plugins(options: str) -> list[str]:
    """Plugins that the configuration itself requires."""
    found = re.search(r"^required_plugins = (.*(?:\n(?![\w-]+ = ).*)*)", options, re.MULTILINE)
    return re.findall(r"[\w.-]*[A-Za-z][\w.-]*", re.sub(r"[<>=!~]=?\s*[\w.*]+", " ", found[1])) if found else []


def _is_requested(fixture: str, source: str) -> bool:
    """Whether a test takes the fixture as an argument and nothing here defines it."""
    if not re.search(rf"def test\w*\([^)]*\b{fixture}\b", source):
        return False
    return not re.search(rf"def {fixture}\(|name=['\"]{fixture}['\"]", source)
