"""A JUnit XML report of pytest (family xunit1), or of our unittest runner, to what became of each test."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agentdata.records import TestStatus

SEVERITY: dict[TestStatus, int] = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}
ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
MESSAGE_CHARACTERS = 4000


@dataclass(frozen=True)
class Report:
    """What a report says."""

    results: dict[str, TestStatus] = field(default_factory=dict)
    """pytest node id to status. A file that could not be collected stands under its path, as an error."""
    messages: dict[str, str] = field(default_factory=dict)
    """Why a test failed, for those that did: the message, then the trace, cut to 4,000 characters."""


def read_report(content: bytes, files: Sequence[str]) -> Report | None:
    """Read a report. `files` are the paths that were run: they tell where in a dotted name the path ends.

    Two cases of one name count as the worse of both: an error at teardown is reported after the pass. An expected
    failure counts as a pass, an unexpected pass under `strict` as a failure. None when it is no report.
    """
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        return None
    try:
        root = ElementTree.fromstring(ILLEGAL.sub("", content.decode("utf-8", "replace")))  # noqa: S314
    except (ElementTree.ParseError, RecursionError):
        return None
    if root.tag not in ("testsuites", "testsuite"):
        return None
    known = _dotted(files)
    results: dict[str, TestStatus] = {}
    messages: dict[str, str] = {}
    for case in root.iter("testcase"):
        name, status = _node_id(case, known), _status(case)
        if SEVERITY[status] >= SEVERITY[results.get(name, "passed")]:
            results[name] = status
        if status in ("failed", "error"):
            messages[name] = (messages.get(name, "") + _message(case))[:MESSAGE_CHARACTERS]
    return Report(results, messages)


def _status(case: ElementTree.Element) -> TestStatus:
    if case.find("error") is not None:
        return "error"
    if case.find("failure") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is None or skipped.get("type") == "pytest.xfail":
        return "passed"
    return "skipped"


def _message(case: ElementTree.Element) -> str:
    parts = [part for tag in ("failure", "error") for part in case.iter(tag)]
    return "\n".join(f"{part.get('message', '')}\n{part.text or ''}".strip() for part in parts)


def _dotted(files: Iterable[str]) -> dict[str, str]:
    """Dotted name, as pytest writes it, to path. Also for each tail of a path: the root may be a folder of the tree."""
    known: dict[str, str] = {}
    for file in files:
        path = file.split("::", 1)[0]
        parts = path.removeprefix("./").split("/")
        for start in range(len(parts)):
            dotted = ".".join(parts[start:]).removesuffix(".py")
            if start == 0 or dotted not in known:
                known[dotted] = path
    return known


def _node_id(case: ElementTree.Element, known: dict[str, str]) -> str:
    """pytest replaces `/` and `::` by dots; the known files, or else the case's own file, say which was which."""
    classname, name = case.get("classname", ""), case.get("name", "")
    if not classname:
        return known.get(name) or _path_of(name, case.get("file", ""))
    parts = classname.split(".")
    for end in range(len(parts), 0, -1):
        if path := known.get(".".join(parts[:end])):
            return "::".join([path, *parts[end:], name])
    file = case.get("file", "")
    dotted = file.replace("/", ".").removesuffix(".py")
    if file and (classname + ".").startswith(dotted + "."):
        return "::".join([file, *classname[len(dotted) + 1 :].split("."), name]).replace("::::", "::")
    return f"{_path_of(classname, file)}::{name}"


def _path_of(dotted: str, file: str) -> str:
    """A path for a dotted name of which nothing is known; classes begin with a capital letter."""
    if file and file.replace("/", ".").removesuffix(".py") == dotted:
        return file
    parts = dotted.split(".")
    end = next((index for index, part in enumerate(parts) if index and part[:1].isupper()), len(parts))
    return "::".join(["/".join(parts[:end]) + ".py", *parts[end:]])
