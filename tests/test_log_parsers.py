"""What a test run printed, read as the official harness reads it."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.environments import log_parsers
from agentdata.environments.log_parsers import FIRST_WORD, STATUSES, WHOLE_LINE, parse
from agentdata.errors import UsageError

OURS = sorted(log_parsers.FIRST_WORD_NAMES | log_parsers.OPTION_NAMES | log_parsers.WHOLE_LINE_NAMES)
WORDS = st.one_of(
    st.sampled_from(
        [*STATUSES, "PASSEDX", "[1]", "[100%]", "-", " - ", "a::t[/x/y]", "a::t[//h/y]", "\x1b[32m", "[31m"]
    ),
    st.text(alphabet="ab:[]/*-. \t\x1b\x0cé", max_size=6),
)
LINES = st.lists(WORDS, max_size=6).map(" ".join)
LOGS = st.lists(LINES, max_size=8).map("\n".join)


@pytest.fixture(scope="module")
def registry() -> dict[str, Callable[[str, object], dict[str, str]]]:
    """The parsers of the installed package."""
    pytest.importorskip("swebench", reason="the extra `swebench` is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dict(log_parsers.official_parsers())
    if not found:
        pytest.skip("this release of swebench keeps its parsers elsewhere")
    return found


def test_a_summary_names_tests_and_what_became_of_them() -> None:
    log = "PASSED a.py::test_a\nFAILED a.py::test_b - assert 1 == 2\nERROR a.py::test_c\nXFAIL a.py::test_d - later\nnoise"
    assert parse(FIRST_WORD, log) == {
        "a.py::test_a": "passed",
        "a.py::test_b": "failed",
        "a.py::test_c": "error",
        "a.py::test_d": "passed",
    }


def test_a_name_with_spaces_is_cut_by_one_parser_and_kept_by_the_other() -> None:
    log = "PASSED a.py::test[one two]"
    assert list(parse(FIRST_WORD, log)) == ["a.py::test[one"]
    assert list(parse(WHOLE_LINE, log)) == ["a.py::test[one two]"]


def test_the_count_of_skipped_tests_is_no_test() -> None:
    assert parse(FIRST_WORD, "SKIPPED [3] a.py:7: not here") == {}


def test_colours_do_not_hide_results() -> None:
    assert parse(WHOLE_LINE, "\x1b[32mPASSED\x1b[0m a.py::test") == {"a.py::test": "passed"}


def test_an_unknown_parser_is_named_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"'parse_log_nothing'.*agentdata\[swebench\]"):
        parse("parse_log_nothing", "")


def test_every_parser_of_pytest_in_the_registry_is_known(registry: dict[str, object]) -> None:
    assert set(OURS) <= set(registry)


@pytest.mark.parametrize("parser", OURS)
@settings(deadline=None)
@given(log=LOGS)
def test_ours_read_what_the_official_ones_read(
    registry: dict[str, Callable[[str, object], dict[str, str]]], parser: str, log: str
) -> None:
    official = {name: STATUSES[word] for name, word in registry[parser](log, None).items() if word in STATUSES}
    assert parse(parser, log) == official


def test_ours_read_a_real_run_as_the_official_ones_do(
    registry: dict[str, Callable[[str, object], dict[str, str]]], tmp_path: Path
) -> None:
    (tmp_path / "test_real.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('v', ['', 'a b', 'é', '/tmp/x', 'a - b', '[10m'])\n"
        "def test_p(v): assert v != 'a b'\n"
        "@pytest.mark.skip(reason='no')\n"
        "def test_s(): pass\n"
        "@pytest.mark.xfail(reason='r - s')\n"
        "def test_x(): assert 0\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError('b - c')\n"
        "def test_e(broken): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--rootdir=.", "-c", "/dev/null"]
    log = subprocess.run([*command, "test_real.py"], cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for parser in (FIRST_WORD, WHOLE_LINE):
        results = parse(parser, log)
        assert len(results) >= 7
        assert results == {name: STATUSES[word] for name, word in registry[parser](log, None).items()}


def test_other_parsers_are_called_in_the_package(registry: dict[str, object]) -> None:
    assert parse("parse_log_sympy", "test_sparse_matrix ok\ntest_trace F\n") == {
        "test_sparse_matrix": "passed",
        "test_trace": "failed",
    }
