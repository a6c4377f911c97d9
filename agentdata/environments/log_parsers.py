"""What a test run printed to what became of each test, under the names that SWE-bench's parsers give.

The parsers for pytest's short summary (`-rA`), which most rows need, are written here, and tests hold them to the results
of the originals: those come with an import of seconds that reads `.env` files. All others are called in the `swebench`
package itself, when it is installed.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from agentdata.errors import UsageError
from agentdata.records import TestStatus

FIRST_WORD = "parse_log_pytest"
"""Cuts a name at the first space; knows expected failures that carry a reason."""
WHOLE_LINE = "parse_log_pytest_v2"
"""Keeps spaces within a name and takes colours off; loses expected failures that carry a reason."""

STATUSES: dict[str, TestStatus] = {
    "FAILED": "failed",
    "PASSED": "passed",
    "SKIPPED": "skipped",
    "ERROR": "error",
    "XFAIL": "passed",
}
"""The official harness counts an expected failure as a pass."""
WORDS = tuple(STATUSES)
FIRST_WORD_NAMES = frozenset(
    f"parse_log_{name}"
    for name in ("pytest", "astroid", "flask", "marshmallow", "pvlib", "pyvista", "sqlfluff", "xarray")
)
OPTION_NAMES = frozenset(f"parse_log_{name}" for name in ("pytest_options", "pydicom", "requests", "pylint"))
WHOLE_LINE_NAMES = frozenset(f"parse_log_{name}" for name in ("pytest_v2", "astropy", "scikit", "sphinx"))
SKIP_COUNT = re.compile(r"\[\d+\]")
COLOUR = re.compile(r"\[\d+m")
CONTROLS = dict.fromkeys(range(1, 32))
OPTION = re.compile(r"(.*?)\[(.*)\]")


def parse(parser: str, text: str) -> dict[str, TestStatus]:
    """The tests that a log reports, read by the parser of that name in SWE-bench's registry.

    Raises UsageError for a name that is not known here.
    """
    own = own_parser(parser)
    if own is not None:
        return own(text)
    official = official_parsers().get(parser)
    if official is None:
        raise UsageError(
            f"The log parser {parser!r} is not known here: install agentdata[swebench], or give the row a parser of pytest."
        )
    found = official(text, None)
    return {name: STATUSES[status] for name, status in found.items() if status in STATUSES}


def is_pytest_parser(parser: str) -> bool:
    """Whether a parser reads pytest's short summary."""
    return own_parser(parser) is not None


def official_name(parser: str, node_id: str) -> str:
    """The name under which a parser reports a passing test; empty when it does not report it at all."""
    found = list(parse(parser, f"PASSED {node_id}"))
    return found[0] if len(found) == 1 else ""


def own_parser(parser: str) -> Callable[[str], dict[str, TestStatus]] | None:
    """Our parser of that name, or None."""
    if parser in FIRST_WORD_NAMES:
        return _parse_first_words
    if parser in OPTION_NAMES:
        return _parse_options
    return _parse_whole_lines if parser in WHOLE_LINE_NAMES else None


@cache
def official_parsers() -> Mapping[str, Callable[[str, Any], dict[str, str]]]:
    """SWE-bench's registry, or nothing where the package is not installed."""
    if importlib.util.find_spec("swebench") is None:
        return {}
    try:
        registry = importlib.import_module("swebench.harness.log_parsers").PARSER_REGISTRY
    except (ImportError, AttributeError):
        # Releases before 5 keep their parsers by repository, and these take other arguments.
        return {}
    return dict(registry)


def _parse_first_words(text: str) -> dict[str, TestStatus]:
    results: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.startswith(WORDS):
            continue
        words = (line.replace(" - ", " ") if line.startswith("FAILED") else line).split()
        if len(words) > 1 and not _counts_skips(words):
            results[words[1]] = words[0]
    return _known(results)


def _parse_options(text: str) -> dict[str, TestStatus]:
    """A parameter that is an absolute path is named by its last part, since folders differ between machines."""
    results: dict[str, TestStatus] = {}
    for name, status in _parse_first_words(text).items():
        match = OPTION.search(name)
        if match is None:
            results[name] = status
            continue
        main, option = match.groups()
        if option.startswith("/") and not option.startswith("//") and "*" not in option:
            option = "/" + option.split("/")[-1]
        results[f"{main}[{option}]"] = status
    return results


def _parse_whole_lines(text: str) -> dict[str, TestStatus]:
    results: dict[str, str] = {}
    for raw in text.split("\n"):
        line = COLOUR.sub("", raw).translate(CONTROLS)
        if line.startswith(WORDS):
            words = (line.split(" - ", 1)[0] if line.startswith("FAILED") else line).split()
            if len(words) > 1 and not _counts_skips(words):
                results[" ".join(words[1:])] = words[0]
        elif line.endswith(WORDS):
            words = line.split()
            if len(words) > 1:
                results[" ".join(words[:-1])] = words[-1]
    return _known(results)


def _known(results: Mapping[str, str]) -> dict[str, TestStatus]:
    """A line such as `PASSEDX name` begins like a status and has none; what it names has no result."""
    return {name: STATUSES[word] for name, word in results.items() if word in STATUSES}


def _counts_skips(words: list[str]) -> bool:
    return words[0] == "SKIPPED" and SKIP_COUNT.fullmatch(words[1]) is not None
