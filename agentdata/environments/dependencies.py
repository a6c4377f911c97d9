"""What a repository wishes to have installed at a commit, and on which Python, read without running anything of it."""

import re
from collections.abc import Callable, Iterable, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from agentdata.environments import tool_files
from agentdata.environments.declarations import Declared, Group, name_of
from agentdata.environments.plugins import find_plugins
from agentdata.environments.project_files import read_pyproject, read_pyproject_table, read_setup_cfg
from agentdata.environments.setup_script import read_setup_script
from agentdata.environments.snapshot import Snapshot
from agentdata.records import Record

RELEASED = {"3.9": "2020-10-05", "3.11": "2022-10-24", "3.13": "2024-10-07"}
"""Pythons of the base images, oldest first, and when each came out."""
NOT_A_PACKAGE = re.compile(
    r"^(tests?|testing|docs?|examples?|bench(marks?)?|scripts?|tools?|bin|build|ci|release|ext)$"
)
PLAIN_TEST = re.compile(r"tests?|testing")
LINTERS = re.compile(
    r"^(flake8.*|autoflake|black|types-.*|data-science-types|trio-typing|ruff|isort|pylint|mypy|pyright|pre-commit.*|tox.*|nox|twine|build|sphinx.*|furo|myst-parser|mkdocs.*"
    r"|mkautodoc|towncrier|bump2version|bumpversion|check-manifest|pyupgrade|codecov|coveralls|doctr|travis.*|pip|setuptools|wheel|uv|hatch"
    r"|poetry|flit|zest-releaser|releases|invoke|gha-update|readme-renderer|interrogate|bandit|safety|prek|ty|pyrefly)$"
)


class Wishes(Record):
    """What a repository says at one commit."""

    project: str
    """Name of the distribution; empty when the repository does not tell it."""
    modules: tuple[str, ...]
    """Top-level modules of the project, the most likely first."""
    run: tuple[str, ...]
    """What the project itself requires."""
    build: tuple[str, ...]
    """What its build requires."""
    tests: tuple[Group, ...]
    """What its tests require, the most trustworthy source first; self-references are resolved."""
    constraints: tuple[str, ...] = ()
    requires_python: str = ""
    classified: tuple[str, ...] = ()
    """Pythons named by classifiers, as `3.11`."""
    until: str
    """ISO 8601 time of the commit."""

    @property
    def origin(self) -> str:
        """Where the requirements of the tests were read."""
        return ", ".join(group.origin for group in self.tests)


def find_wishes(snapshot: Snapshot) -> Wishes:
    """Read everything that declares requirements. Raises SourceError where the repository cannot be read."""
    declared = [read_pyproject(snapshot), read_setup_cfg(snapshot), read_setup_script(snapshot)]
    modules = find_modules(snapshot, project := next((one.name for one in declared if one.name), ""))
    project = project or (modules[0] if len(modules) == 1 else "")
    groups = [group for one in declared for group in one.groups]
    known = {group.name: group for group in reversed(groups) if group.name}
    tools = [*tool_files.requirement_groups(snapshot), *tool_files.tox_groups(snapshot)]
    run = _merged(group.requirements for group in groups if group.kind == "run")
    if not run and not any(one.groups for one in declared):
        run = _merged(group.requirements for group in tools if group.kind == "run")
    tests = [_resolved(group, known, project) for group in _chosen(snapshot, groups, tools)]
    plugins = find_plugins(snapshot, modules)
    return Wishes(
        project=project,
        modules=modules,
        run=_without(run, project),
        build=_build(snapshot, groups, project),
        tests=tuple(group for group in [*_distinct(tests, project), plugins] if group.requirements),
        constraints=_merged(group.constraints for group in tests),
        requires_python=next((one.requires_python for one in declared if one.requires_python), ""),
        classified=_classified(declared),
        until=snapshot.until,
    )


def _chosen(snapshot: Snapshot, groups: Sequence[Group], tools: Sequence[Group]) -> list[Group]:
    """Groups for tests; where none of them has pytest, also those for development and of continuous integration."""
    tested = [group for group in groups if group.kind == "test"]
    plain = [group for group in tested if PLAIN_TEST.fullmatch(group.name.removeprefix("group:"))]
    named = plain + [group for group in tested if not group.name] if plain else tested
    chosen = named + [group for group in tools if group.kind == "test"]
    known = {group.name: group for group in groups if group.name}
    later: tuple[Callable[[], list[Group]], ...] = (
        lambda: tool_files.nox_groups(snapshot),
        lambda: [group for group in [*groups, *tools] if group.kind == "develop"],
        lambda: [group for group in tools if group.kind == "run"],
        lambda: tool_files.pipfile_groups(snapshot),
        lambda: tool_files.workflow_groups(snapshot),
    )
    for more in later:
        if any(name_of(it) == "pytest" for group in chosen for it in _resolved(group, known, "").requirements):
            break
        chosen += [_without_linters(group) for group in more()]
    return chosen


def _without_linters(group: Group) -> Group:
    kept = tuple(it for it in group.requirements if not LINTERS.match(name_of(it)))
    return group.model_copy(update={"requirements": kept})


def _resolved(group: Group, known: dict[str, Group], project: str, seen: frozenset[str] = frozenset()) -> Group:
    """A group with what its extras and included groups require in place of their names."""
    requirements, names = list(group.requirements), [*group.extras, *group.includes]
    for requirement in group.requirements:
        if project and name_of(requirement) == name_of(project):
            requirements.remove(requirement)
            extras = re.search(r"\[([^\]]*)\]", requirement)
            names += [extra.strip() for extra in extras[1].split(",")] if extras else []
    for name in names:
        if name in known and name not in seen:
            requirements += _resolved(known[name], known, project, seen | {name}).requirements
    return group.model_copy(update={"requirements": tuple(dict.fromkeys(requirements)), "extras": (), "includes": ()})


def _distinct(groups: Iterable[Group], project: str) -> list[Group]:
    """Groups without what an earlier one has already."""
    seen: set[str] = set()
    kept = []
    for group in groups:
        fresh = tuple(it for it in _without(group.requirements, project) if name_of(it) not in seen)
        seen |= {name_of(it) for it in fresh}
        kept.append(group.model_copy(update={"requirements": fresh}))
    return kept


def _merged(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(requirement for part in parts for requirement in part))


def _without(requirements: tuple[str, ...], project: str) -> tuple[str, ...]:
    return tuple(it for it in requirements if not project or name_of(it) != name_of(project))


def _build(snapshot: Snapshot, groups: Sequence[Group], project: str) -> tuple[str, ...]:
    """Requirements of the build; setuptools and wheel where nothing else is said."""
    stated = _merged(group.requirements for group in groups if group.kind == "build")
    backend = str(read_pyproject_table(snapshot, "build-system").get("build-backend", "setuptools"))
    implied = ("setuptools", "wheel") if backend.startswith("setuptools") else ()
    editable = ("editables",) if backend.startswith(("hatchling", "pdm")) else ()
    names = {name_of(requirement) for requirement in stated}
    return _without((*stated, *(it for it in (*implied, *editable) if it not in names)), project)


def _classified(declared: Sequence[Declared]) -> tuple[str, ...]:
    found = [
        re.fullmatch(r"\s*Programming Language :: Python :: (3\.\d+)\s*", it)
        for one in declared
        for it in one.classifiers
    ]
    return tuple(dict.fromkeys(match[1] for match in found if match))


def find_modules(snapshot: Snapshot, project: str) -> tuple[str, ...]:
    """Top-level modules at the root, in `src` or in `lib`; the one named like the project first."""
    found: list[str] = []
    for path in snapshot.files:
        inside = re.fullmatch(r"(?:src/|lib/)?([A-Za-z_]\w*)/__init__\.pyi?", path)
        alone = re.fullmatch(r"(?:src/|lib/)([A-Za-z_]\w*)\.py", path)
        named = re.fullmatch(r"([A-Za-z_]\w*)\.py", path)
        if inside and not NOT_A_PACKAGE.match(inside[1]):
            found.append(inside[1])
        elif alone:
            found.append(alone[1])
        elif named and name_of(named[1]) == name_of(project):
            found.append(named[1])
    wanted = re.sub(r"[^a-z0-9]", "", project.lower())

    def distance(module: str) -> tuple[int, str]:
        plain = re.sub(r"[^a-z0-9]", "", module.lower())
        return (0 if plain == wanted else 1 if plain and (plain in wanted or wanted in plain) else 2), module

    return tuple(sorted(dict.fromkeys(found), key=distance))


def choose_pythons(wishes: Wishes, available: Sequence[str] = tuple(RELEASED)) -> tuple[str, ...]:
    """The Pythons to try, best first: the newest that existed and that the project names; then older, then newer ones.

    Empty when the project forbids all of them by a lower bound. An upper bound only orders them: it often says no more
    than what was tested. Without a fitting one, the oldest that is allowed comes first.
    """
    allowed = [python for python in available if _permits(wishes.requires_python, python)]
    named = [python for python in allowed if python in wishes.classified] if wishes.classified else allowed
    in_time = [python for python in named if RELEASED.get(python, "") <= wishes.until]
    first = in_time[-1:] or named[:1] or allowed[:1]
    older = [python for python in reversed(allowed) if first and Version(python) < Version(first[0])]
    newer = [python for python in allowed if first and Version(python) > Version(first[0])]
    return tuple(first + older + newer)


def _permits(requires_python: str, python: str) -> bool:
    """Whether the lower bounds and exclusions of a range permit a Python."""
    parts = [re.sub(r"\s", "", part) for part in requires_python.split(",")]
    kept = ",".join(
        part for part in parts if part and not part.startswith(("<", "~=")) and not re.match(r"={2,3}[^*]*$", part)
    )
    try:
        # The base images carry late patch releases, so that `>=3.9.2` is permitted by 3.9.
        return Version(f"{python}.99") in SpecifierSet(kept)
    except (InvalidSpecifier, InvalidVersion):
        return True
