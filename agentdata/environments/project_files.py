"""pyproject.toml and setup.cfg to what they declare, for every build backend that keeps its requirements there."""

import configparser
import re
import tomllib

from agentdata.environments.declarations import Declared, Group, cleaned, kind_of, self_extras
from agentdata.environments.snapshot import Snapshot

Table = dict[str, object]


def read_pyproject(snapshot: Snapshot) -> Declared:
    """What pyproject.toml declares; nothing when it is absent or is no TOML."""
    document = read_pyproject_table(snapshot)
    project, tool = table(document, "project"), table(document, "tool")
    poetry, flit = table(tool, "poetry"), table(tool, "flit", "metadata")
    groups = [
        *_standard(project),
        *_dependency_groups(table(document, "dependency-groups"), "[dependency-groups]"),
        *_dynamic(snapshot, table(tool, "setuptools", "dynamic")),
        *_poetry(poetry),
        *_flit(flit),
        *_hatch(table(tool, "hatch", "envs")),
        *_dependency_groups(table(tool, "pdm", "dev-dependencies"), "[tool.pdm.dev-dependencies]"),
        *_dependency_groups({"dev": table(tool, "uv").get("dev-dependencies", [])}, "[tool.uv]"),
        *_tox(table(tool, "tox")),
        Group(
            origin="pyproject.toml [build-system]",
            kind="build",
            requirements=cleaned(table(document, "build-system").get("requires")),
        ),
    ]
    python = table(poetry, "dependencies").get("python")
    return Declared(
        name=text(project.get("name") or poetry.get("name") or flit.get("dist-name") or flit.get("module")),
        requires_python=text(
            project.get("requires-python") or flit.get("requires-python") or (python and poetry_range(python))
        ),
        classifiers=strings(project.get("classifiers") or poetry.get("classifiers") or flit.get("classifiers")),
        groups=tuple(group for group in groups if group.requirements or group.extras or group.includes),
    )


def read_pyproject_table(snapshot: Snapshot, *keys: str) -> Table:
    """A table of pyproject.toml; empty when it is not there, or when the file is no TOML."""
    try:
        return table(tomllib.loads(snapshot.text("pyproject.toml")), *keys)
    except tomllib.TOMLDecodeError:
        return {}


def table(value: object, *keys: str) -> Table:
    """A table inside a table; empty when it is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list | tuple) else ()


def _standard(project: Table) -> list[Group]:
    run = Group(origin="pyproject.toml [project]", kind="run", requirements=cleaned(project.get("dependencies")))
    extras = table(project, "optional-dependencies").items()
    return [
        run,
        *(extra_group(f"pyproject.toml [project.optional-dependencies] {name}", name, it) for name, it in extras),
    ]


def extra_group(origin: str, name: str, lines: object) -> Group:
    """An extra as a group."""
    return Group(origin=origin, kind=kind_of(name), name=name, requirements=cleaned(lines))


def _dependency_groups(groups: Table, place: str) -> list[Group]:
    found = []
    for name, items in groups.items():
        listed = items if isinstance(items, list) else []
        included = [text(item.get("include-group")) for item in listed if isinstance(item, dict)]
        own = [extras for item in strings(listed) if (extras := self_extras(re.sub(r"^-e\s*(file://)?", "", item)))]
        found.append(
            Group(
                origin=f"pyproject.toml {place} {name}",
                kind=kind_of(name),
                name=f"group:{name}",
                requirements=cleaned(items),
                extras=tuple(extra for extras in own for extra in extras),
                includes=tuple(f"group:{other}" for other in included if other),
            )
        )
    return found


def _dynamic(snapshot: Snapshot, dynamic: Table) -> list[Group]:
    def lines(value: object) -> list[str]:
        named = value.get("file") if isinstance(value, dict) else None
        paths = [named] if isinstance(named, str) else strings(named)
        return [line for path in paths for line in snapshot.text(path).splitlines()]

    place = "pyproject.toml [tool.setuptools.dynamic]"
    groups = [Group(origin=place, kind="run", requirements=cleaned(lines(dynamic.get("dependencies"))))]
    for name, value in table(dynamic, "optional-dependencies").items():
        groups.append(extra_group(f"{place} {name}", name, lines(value)))
    return groups


def _flit(metadata: Table) -> list[Group]:
    extras = table(metadata, "requires-extra").items()
    place = "pyproject.toml [tool.flit.metadata]"
    run = Group(origin=place, kind="run", requirements=cleaned(metadata.get("requires")))
    return [run, *(extra_group(f"{place} requires-extra {name}", name, lines) for name, lines in extras)]


def _hatch(environments: Table) -> list[Group]:
    groups = []
    for name, environment in environments.items():
        if not isinstance(environment, dict):
            continue
        lines = [*strings(environment.get("dependencies")), *strings(environment.get("extra-dependencies"))]
        groups.append(
            Group(
                origin=f"pyproject.toml [tool.hatch.envs.{name}]",
                kind="test" if name == "hatch-test" else kind_of(name),
                requirements=cleaned(lines),
                extras=strings(environment.get("features")),
                includes=tuple(f"group:{other}" for other in strings(environment.get("dependency-groups"))),
            )
        )
    return groups


def _tox(tox: Table) -> list[Group]:
    groups = []
    environments = {"env_run_base": tox.get("env_run_base"), **table(tox, "env")}
    for name, environment in environments.items():
        if name == "env_run_base" or (isinstance(environment, dict) and kind_of(name) != "extra"):
            found = table({"it": environment}, "it")
            groups.append(
                Group(
                    origin=f"pyproject.toml [tool.tox.{name}]",
                    kind="test",
                    requirements=cleaned(found.get("deps")),
                    extras=strings(found.get("extras")),
                    includes=tuple(f"group:{other}" for other in strings(found.get("dependency_groups"))),
                )
            )
    return groups


# Poetry


def _poetry(poetry: Table) -> list[Group]:
    dependencies = table(poetry, "dependencies")
    wanted = {name: poetry_requirement(name, spec) for name, spec in dependencies.items() if name.lower() != "python"}
    always = [wanted[name] for name in wanted if not table(dependencies, name).get("optional")]
    groups = [Group(origin="pyproject.toml [tool.poetry.dependencies]", kind="run", requirements=cleaned(always))]
    for name, members in table(poetry, "extras").items():
        lines = [wanted.get(member, member) for member in strings(members)]
        groups.append(extra_group(f"pyproject.toml [tool.poetry.extras] {name}", name, lines))
    sections = {name: table(group, "dependencies") for name, group in table(poetry, "group").items()}
    for name, members in {**sections, "dev": sections.get("dev") or table(poetry, "dev-dependencies")}.items():
        lines = [poetry_requirement(member, spec) for member, spec in members.items()]
        origin = f"pyproject.toml [tool.poetry.group.{name}]"
        groups.append(Group(origin=origin, kind=kind_of(name), name=f"group:{name}", requirements=cleaned(lines)))
    return groups


def poetry_requirement(name: str, spec: object) -> str:
    """A dependency in poetry's words as a requirement; of several alternatives the last."""
    if isinstance(spec, list):
        spec = spec[-1] if spec else "*"
    if not isinstance(spec, dict):
        return name + poetry_range(spec)
    extras = strings(spec.get("extras"))
    marker = text(spec.get("markers"))
    return f"{name}{'[' + ','.join(extras) + ']' if extras else ''}{poetry_range(spec.get('version'))}" + (
        f" ; {marker}" if marker else ""
    )


def poetry_range(spec: object) -> str:
    """Poetry's carets and tildes as PEP 440; of alternatives joined by `||` the last."""
    parts = [part.strip() for part in text(spec).split("||")[-1].split(",")]
    return ",".join(converted for part in parts if (converted := _poetry_part(part)))


def _poetry_part(part: str) -> str:
    found = re.match(r"([\^~]?)\s*v?(\d+(?:\.\d+)*)(\S*)$", part)
    if found is None:
        return "" if part in ("*", "") else part.replace(" ", "")
    sign, version, rest = found.groups()
    if not sign:
        return f"=={version}{rest}"
    numbers = [int(number) for number in version.split(".")]
    significant = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
    place = significant if sign == "^" else min(1, len(numbers) - 1)
    upper = [*numbers[:place], numbers[place] + 1]
    return f">={version}{rest},<{'.'.join(map(str, upper))}"


# setup.cfg


def read_setup_cfg(snapshot: Snapshot) -> Declared:
    """What setup.cfg declares, for setuptools and for pbr."""
    config = read_ini(snapshot, "setup.cfg")
    metadata = dict(config["metadata"]) if config.has_section("metadata") else {}
    options = dict(config["options"]) if config.has_section("options") else {}
    lines = _file_lines(snapshot, options.get("install_requires", ""))
    groups = [
        Group(origin="setup.cfg install_requires", kind="run", requirements=cleaned(lines)),
        Group(
            origin="setup.cfg tests_require", kind="test", requirements=cleaned(split(options.get("tests_require", "")))
        ),
        Group(
            origin="setup.cfg setup_requires",
            kind="build",
            requirements=cleaned(split(options.get("setup_requires", ""))),
        ),
    ]
    extras = dict(config["options.extras_require"]) if config.has_section("options.extras_require") else {}
    for name, value in extras.items():
        groups.append(extra_group(f"setup.cfg extras_require {name}", name, _file_lines(snapshot, value)))
    return Declared(
        name=metadata.get("name", "").strip(),
        requires_python=(options.get("python_requires") or metadata.get("requires-python", "")).strip(),
        classifiers=tuple(split(metadata.get("classifiers", metadata.get("classifier", "")))),
        groups=tuple(group for group in groups if group.requirements),
    )


def split(value: str) -> list[str]:
    """A list in an INI file: one item a line, or on one line between semicolons that are no markers."""
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    return [part.strip() for part in lines[0].split(";")] if len(lines) == 1 and "=" not in value else lines


def _file_lines(snapshot: Snapshot, value: str) -> list[str]:
    if value.strip().startswith("file:"):
        paths = value.strip().removeprefix("file:").replace("\n", ",").split(",")
        return [line for path in paths for line in snapshot.text(path.strip()).splitlines()]
    return split(value)


def read_ini(snapshot: Snapshot, path: str) -> configparser.ConfigParser:
    """An INI file; empty when it is absent or cannot be parsed."""
    config = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        config.read_string(snapshot.text(path))
    except configparser.Error:
        return configparser.ConfigParser(interpolation=None)
    return config
