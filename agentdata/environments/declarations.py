"""What a file of a repository declares: groups of requirements, each with where it was read."""

import re
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from agentdata.records import Record

Kind = Literal["run", "build", "test", "develop", "extra"]
TEST_NAME = re.compile(r"(^|[-_./])(unit|py)?tests?(ing|s)?($|[-_./])|(^|[-_])ci($|[-_])|pytest", re.IGNORECASE)
DEVELOP_NAME = re.compile(r"^(dev|develop|development|devel|all|full|default)$|(^|[-_/])dev([-_.]|$)", re.IGNORECASE)
OTHER_NAME = re.compile(r"doc|lint|typ(e|ing)|mypy|format|style|bench|release|publish|random|pre-commit", re.IGNORECASE)


class Group(Record):
    """Requirements that belong together."""

    origin: str
    """File and place, as `pyproject.toml [dependency-groups] tests`."""
    kind: Kind
    name: str = ""
    """Name of the extra or dependency group; empty elsewhere."""
    requirements: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    """Extras of the project itself that are part of it."""
    includes: tuple[str, ...] = ()
    """Names of other groups that are part of it."""
    constraints: tuple[str, ...] = ()


class Declared(Record):
    """What one file says about the project."""

    name: str = ""
    requires_python: str = ""
    classifiers: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()


def kind_of(name: str) -> Kind:
    """Whether a group, extra, environment or file of this name serves tests, development or something else."""
    if OTHER_NAME.search(name):
        return "extra"
    if TEST_NAME.search(name):
        return "test"
    return "develop" if DEVELOP_NAME.search(name) else "extra"


def clean(line: str) -> str:
    """A requirement in its plain form; one from a URL by its name; empty for what is none."""
    text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0]
    text = re.split(r"\s--?[a-z]", text, maxsplit=1)[0].strip().rstrip("\\").strip()
    named = re.match(r"(?:-e\s+)?(?:git\+|https?:|ssh:)\S*#(?:\S*&)?egg=([\w.\-\[\],]+)", line.strip())
    if named:
        text = named[1]
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return ""
    requirement.url = None
    return str(requirement)


def cleaned(lines: object) -> tuple[str, ...]:
    """The requirements among lines: a list of strings, or one string of several lines."""
    if isinstance(lines, str):
        lines = lines.splitlines()
    found = [clean(line) for line in lines if isinstance(line, str)] if isinstance(lines, list | tuple) else []
    return tuple(dict.fromkeys(requirement for requirement in found if requirement))


def name_of(requirement: str) -> str:
    """The canonical name of the package that a requirement asks for."""
    return canonicalize_name(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def self_extras(reference: str) -> tuple[str, ...] | None:
    """Extras in a reference to the project itself, as `.[tests]`; None for another requirement."""
    found = re.fullmatch(r"\.?/?\.?(?:\[([^\]]*)\])?", reference.strip().strip("'\""))
    if found is None or not reference.strip().startswith("."):
        return None
    return tuple(extra.strip() for extra in (found[1] or "").split(",") if extra.strip())
