"""Files that tell tools what to install: requirements, tox.ini, noxfile.py, Pipfile, continuous integration."""

import ast
import posixpath
import re
import shlex
import tomllib
from collections.abc import Iterator

from agentdata.environments.declarations import Group, clean, kind_of, self_extras
from agentdata.environments.project_files import poetry_requirement, read_ini, table
from agentdata.environments.snapshot import Snapshot

REQUIREMENTS = ("*requirements*.txt", "*requirements*.in", "*requirements*.pip", "requirements/*", "requires/*")
DEEPEST = 2
UNUSUAL = re.compile(
    r"low|min|old|master|main|freeze|doc|lint|mypy|typ|style|py27|py34|py35|pypy|nightly|latest|py2\d|dev-?mode|upstream"
)


def requirement_groups(snapshot: Snapshot) -> list[Group]:
    """Every requirements file at the top or one folder deep; of a source and its compiled twin only the source."""
    paths = [path for path in snapshot.matching(*REQUIREMENTS) if path.count("/") < DEEPEST and _is_list(path)]
    chosen = dict.fromkeys(_source_of(snapshot, path) for path in paths if not UNUSUAL.search(path.rsplit("/")[-1]))
    return [read_requirements(snapshot, path) for path in chosen]


def _source_of(snapshot: Snapshot, path: str) -> str:
    """The file that a compiled one was made from, whose ranges fit more Pythons; else the path itself."""
    source = f"{path.removesuffix('.txt')}.in"
    return source if path.endswith(".txt") and source in snapshot.entries else path


def _is_list(path: str) -> bool:
    return path.endswith((".txt", ".in", ".pip")) and not path.startswith(("docs/", "doc/", "examples/"))


def read_requirements(snapshot: Snapshot, path: str, *, seen: frozenset[str] = frozenset()) -> Group:
    """A requirements file with those that it includes."""
    requirements: list[str] = []
    extras: list[str] = []
    constraints: list[str] = []
    for line in re.sub(r"\\\n", " ", snapshot.text(path)).splitlines():
        option = re.match(r"\s*(-r|--requirement|-c|--constraint|-e|--editable)[\s=]*(\S+)", line)
        word = option[2] if option else line.strip()
        if option and option[1] in ("-r", "--requirement", "-c", "--constraint"):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(path), word))
            if other not in seen and other != path:
                inner = read_requirements(snapshot, other, seen=seen | {path})
                constrains = option[1] in ("-c", "--constraint")
                (constraints if constrains else requirements).extend(inner.requirements)
                extras.extend(() if constrains else inner.extras)
                constraints.extend(inner.constraints)
        elif (own := self_extras(word)) is not None:
            extras.extend(own)
        elif requirement := clean(line):
            requirements.append(requirement)
    return Group(
        origin=path,
        kind="run" if path in ("requirements.txt", "requirements.in") else kind_of(path),
        requirements=tuple(dict.fromkeys(requirements)),
        extras=tuple(dict.fromkeys(extras)),
        constraints=tuple(dict.fromkeys(constraints)),
    )


def tox_groups(snapshot: Snapshot) -> list[Group]:
    """Dependencies of the test environments of tox.ini, of setup.cfg or of the INI text in pyproject.toml."""
    config = read_ini(snapshot, "tox.ini")
    groups = []
    for section in config.sections():
        if section != "testenv" and not (section.startswith("testenv:") and kind_of(section[8:]) == "test"):
            continue

        def value(key: str, section: str = section) -> str:
            refer = re.compile(r"\{\[([^\]]+)\](\w+)\}")
            found = config.get(section, key, fallback="") or ""
            return refer.sub(lambda it: config.get(it[1], it[2], fallback="") or "", found)

        lines = [line for item in value("deps").splitlines() if (line := _without_factor(item))]
        extras = [word for item in value("extras").splitlines() for word in _without_factor(item).split(",")]
        included = [
            word for item in value("dependency_groups").splitlines() for word in _without_factor(item).split(",")
        ]
        group = _from_words(snapshot, f"tox.ini [{section}]", lines)
        groups.append(
            group.model_copy(
                update={
                    "extras": (*group.extras, *(extra.strip() for extra in extras if extra.strip())),
                    "includes": tuple(f"group:{name.strip()}" for name in included if name.strip()),
                }
            )
        )
    return groups


def _without_factor(line: str) -> str:
    """A line of tox without the condition before it; empty when the condition is not that of a usual test run."""
    found = re.match(r"\s*([\w.,{}!-]+):\s*(.*)$", line)
    if found is None or "://" in line.split("#")[0][: len(found[1]) + 3]:
        return line.strip().replace("{toxinidir}/", "")
    return "" if UNUSUAL.search(found[1]) else found[2].strip().replace("{toxinidir}/", "")


def nox_groups(snapshot: Snapshot) -> list[Group]:
    """What the test sessions of noxfile.py install."""
    try:
        module = ast.parse(snapshot.text("noxfile.py"))
    except (SyntaxError, ValueError, RecursionError):
        return []
    groups = []
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and kind_of(function.name) == "test":
            words = [word for node in ast.walk(function) for word in _installed(node)]
            groups.append(_from_words(snapshot, f"noxfile.py {function.name}", _joined(words)))
    return groups


def _installed(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "install":
        yield from (
            argument.value
            for argument in node.args
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        )


def _joined(words: list[str]) -> list[str]:
    """Options with their values as one line each."""
    lines: list[str] = []
    for word in words:
        if lines and lines[-1] in (
            "-r",
            "--requirement",
            "-c",
            "--constraint",
            "-e",
            "--editable",
            "--group",
            "--extra",
        ):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def pipfile_groups(snapshot: Snapshot) -> list[Group]:
    """Both tables of a Pipfile."""
    try:
        document: dict[str, object] = tomllib.loads(snapshot.text("Pipfile"))
    except tomllib.TOMLDecodeError:
        return []
    return [
        Group(
            origin=f"Pipfile [{name}]",
            kind="run" if name == "packages" else "develop",
            requirements=tuple(
                requirement
                for package, spec in table(document, name).items()
                if (requirement := clean(poetry_requirement(package, spec)))
            ),
        )
        for name in ("packages", "dev-packages")
    ]


def workflow_groups(snapshot: Snapshot) -> list[Group]:
    """What the jobs of continuous integration install on the way to pytest or unittest."""
    groups = []
    for path in snapshot.matching(".github/workflows/*.y*ml", ".travis.yml", ".circleci/config.yml", ".gitlab-ci.yml"):
        content = snapshot.text(path)
        if not re.search(r"pytest|unittest|\btest\b", content):
            continue
        lines = [line for command in _install_commands(content) for line in _joined(command)]
        if lines:
            groups.append(_from_words(snapshot, path, lines))
    return groups


def _install_commands(content: str) -> Iterator[list[str]]:
    for found in re.finditer(r"\bpip3? install\s+([^\n;&|]+)|\buv sync\s*([^\n;&|]*)", content):
        try:
            words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "$", found[1] or found[2] or ""), comments=True)
        except ValueError:
            continue
        if not any(word in ("--upgrade", "-U") and "pip" in words for word in words):
            yield [word for word in words if "$" not in word and "{" not in word]


def _from_words(snapshot: Snapshot, origin: str, lines: list[str]) -> Group:
    """Arguments of an installation as a group."""
    requirements: list[str] = []
    extras: list[str] = []
    includes: list[str] = []
    constraints: list[str] = []
    for line in lines:
        option = re.match(r"(-r|--requirement|-c|--constraint|-e|--editable|--group|--extra)[\s=]*(\S+)", line.strip())
        kind, word = (option[1], option[2]) if option else ("", line.strip())
        if kind in ("-r", "--requirement"):
            inner = read_requirements(snapshot, _source_of(snapshot, posixpath.normpath(word)))
            requirements += inner.requirements
            extras += inner.extras
            constraints += inner.constraints
        elif kind in ("-c", "--constraint"):
            constraints += read_requirements(snapshot, _source_of(snapshot, posixpath.normpath(word))).requirements
        elif kind == "--group":
            includes.append(f"group:{word}")
        elif kind == "--extra":
            extras.append(word)
        elif (own := self_extras(word)) is not None:
            extras += own
        elif not word.startswith("-") and (requirement := clean(word)):
            requirements.append(requirement)
    return Group(
        origin=origin,
        kind="test",
        requirements=tuple(dict.fromkeys(requirements)),
        extras=tuple(dict.fromkeys(extras)),
        includes=tuple(dict.fromkeys(includes)),
        constraints=tuple(dict.fromkeys(constraints)),
    )
