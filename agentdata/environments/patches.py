"""A unified diff to its files, and what each of them is to a grader: source, test, infrastructure or an escape.

A path is judged by every name that its block mentions (header, `---`, `+++`, renames, `Index:`), so that tools which
believe different lines cannot be played off against each other.
"""

import configparser
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from agentdata.harvest.filters import TEST_PATH

Change = Literal["added", "modified", "deleted", "renamed", "copied", "mode"]
Kind = Literal["source", "test", "infrastructure", "configuration", "plugin", "shadow", "symlink", "outside"]

HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
CONTROLS = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}
MENTIONS = ("--- ", "+++ ", "Index: ")
MOVES = ("rename from ", "rename to ", "copy from ", "copy to ")

INFRASTRUCTURE = re.compile(
    r"(?:^|/)(?:conftest\.py|\.?pytest\.(?:ini|toml)|tox\.(?:ini|toml)|noxfile\.py|(?:site|user)customize(?:\.py|/.*)"
    r"|[^/]+\.(?:pth|egg-link|start|pyc)|\.coveragerc|entry_points\.txt|[^/]+\.(?:egg-info|dist-info)/.*|pyvenv\.cfg)$"
)
"""Files that steer the test runner or the interpreter from wherever they stand."""
PLUGIN = re.compile(r"(?:^|/)(?:pytest_[^/]+|[^/]+_pytest_plugin)\.py$")
CONFIGURATION = re.compile(r"(?:^|/)(?:pyproject\.toml|setup\.cfg)$")
"""Files that steer the test runner and hold other things too."""
RUNNER_MODULES = (
    *("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli", "colorama"),
    *("attr", "attrs", "coverage", "xdist", "execnet", "hypothesis", "anyio"),
)
HIDING = frozenset(RUNNER_MODULES) | (sys.stdlib_module_names - {"test"})
"""Names of modules that the runner needs: a new module of such a name would be loaded in their place."""
MODULE_ROOT = re.compile(r"((?:(?:src|lib|python)/)?([^/.]+)(?:\.[\w-]+)?(?:\.(?:py|so)$|(?=/)))(?:/.*\.(?:py|so))?")
ENTRY_POINT = re.compile(r"^\+.*pytest11", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What a diff does to one file."""

    path: str
    """Where the file is afterwards; where it was, if it is deleted."""
    names: tuple[str, ...]
    """Every path that the block mentions, without the prefixes `a/` and `b/`."""
    change: Change
    text: str
    """The block of the diff, byte for byte."""
    binary: bool
    mode: str
    """New mode as git writes it, or nothing."""

    @property
    def added_text(self) -> str:
        """The lines that are added, without their marks."""
        return "".join(line[1:] for line in _lines(self.text) if line.startswith("+") and not line.startswith("+++ "))


def split(diff: str) -> tuple[FilePatch, ...]:
    """The files of a diff in its order. Text before the first file is dropped; never raises."""
    return tuple(patch for block in _blocks(diff) if (patch := _file_patch(block)) is not None)


def join(patches: Iterable[FilePatch]) -> str:
    """The diff of some files."""
    return "".join(patch.text if patch.text.endswith("\n") else patch.text + "\n" for patch in patches)


def paths(diff: str) -> tuple[str, ...]:
    """Every path that a diff mentions, each once, in order."""
    return tuple(dict.fromkeys(name for patch in split(diff) for name in patch.names))


def kind_of(patch: FilePatch) -> Kind:
    """What a file is to a grader; the worst of what its names say.

    outside         leads out of the tree, or into `.git`
    symlink         a link whose target leads out of the tree
    infrastructure  steers runner or interpreter: conftest.py, pytest.ini, tox.ini, sitecustomize.py, *.pth, entry points
    plugin          a module named like a plugin of pytest
    shadow          a new module that hides the standard library or a part of the test runner; `shadow_root` tells which
    configuration   pyproject.toml and setup.cfg, of which only some tables steer the runner
    test            a test file, or a helper or data in a folder of tests
    source          all else
    """
    if any(_is_outside(name) for name in patch.names):
        return "outside"
    if patch.mode == "120000" and _escapes(patch.path, patch.added_text.strip()):
        return "symlink"
    if any(INFRASTRUCTURE.search(name) for name in patch.names) or _names_entry_point(patch):
        return "infrastructure"
    if any(PLUGIN.search(name) for name in patch.names):
        return "plugin"
    if patch.change in ("added", "renamed", "copied") and shadow_root(patch.path):
        return "shadow"
    if any(CONFIGURATION.search(name) for name in patch.names):
        return "configuration"
    return "test" if any(TEST_PATH.search(name) for name in patch.names) else "source"


def shadow_root(path: str) -> str:
    """The module or package of a path that would hide another; empty if it hides none.

    If the base has that module already, the file is a part of the project, as in pytest's own repository.
    """
    match = MODULE_ROOT.fullmatch(path)
    return match[1] if match is not None and match[2] in HIDING else ""


def _names_entry_point(patch: FilePatch) -> bool:
    """Whether a plugin of pytest is declared where installing the project again would bring it to life."""
    return patch.path.endswith(("setup.py", "setup.cfg", "pyproject.toml")) and bool(ENTRY_POINT.search(patch.text))


def _is_outside(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith("/") or ".." in parts or any(part.lower() == ".git" for part in parts) or "\0" in name


def _escapes(path: str, target: str) -> bool:
    if target.startswith("/"):
        return True
    depth = path.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return ".git" in target.split("/")


# Reading


def _lines(text: str) -> list[str]:
    """Lines with their ends, which are line feeds alone, as git sees them."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _blocks(diff: str) -> Iterator[list[str]]:
    """The lines of each file. A hunk's lines are counted, so that a removed `-- x` is no header."""
    block: list[str] = []
    old = new = 0
    lines = _lines(diff)
    for index, line in enumerate(lines):
        if line.startswith("diff --git "):
            starts, old, new = True, 0, 0
        elif old > 0 or new > 0:
            starts = False
            old -= line[:1] in (" ", "-", "\n", "\r")
            new -= line[:1] in (" ", "+", "\n", "\r")
        else:
            following = lines[index + 1] if index + 1 < len(lines) else ""
            bare = line.startswith("--- ") and following.startswith("+++ ") and _has_names(block)
            starts = bare or (line.startswith("Index: ") and _has_names(block))
        if starts:
            if block:
                yield block
            block = []
        if match := HUNK.match(line) if old <= 0 and new <= 0 else None:
            old, new = int(match[1] or 1), int(match[2] or 1)
        block.append(line)
    if block:
        yield block


def _has_names(block: list[str]) -> bool:
    """Whether a block has its `---` line already, so that another one begins the next file."""
    return any(line.startswith("--- ") for line in block)


def _file_patch(block: list[str]) -> FilePatch | None:
    head = list(_head(block))
    mentioned = [name for line in head for name in _mentioned(line)]
    names = tuple(dict.fromkeys(name for name in mentioned if name))
    if not names:
        return None
    change = _change(head)
    return FilePatch(
        path=names[0] if change == "deleted" else _new_name(head) or names[-1],
        names=names,
        change=change,
        text="".join(block),
        binary=any(line.startswith(("GIT binary patch", "Binary files ")) for line in block),
        mode=next((line.split()[-1] for line in head if line.startswith(("new file mode ", "new mode "))), ""),
    )


def _head(block: list[str]) -> Iterator[str]:
    for line in block:
        if line.startswith(("@@ ", "GIT binary patch", "Binary files ")):
            return
        yield line.rstrip("\r\n")


def _mentioned(line: str) -> tuple[str, ...]:
    if line.startswith("diff --git "):
        return tuple(_stripped(name) for name in _header_names(line.removeprefix("diff --git ")))
    if line.startswith(MENTIONS):
        name = unquoted(line.split(" ", 1)[1].split("\t")[0] if '"' not in line else line.split(" ", 1)[1].strip())
        return () if name == "/dev/null" else (name if line.startswith("Index: ") else _stripped(name),)
    if line.startswith(MOVES):
        return (unquoted(line.split(" ", 2)[2]),)
    return ()


def _new_name(head: list[str]) -> str:
    for prefix in ("+++ ", "rename to ", "copy to ", "diff --git "):
        found = [_mentioned(line) for line in head if line.startswith(prefix)]
        if found and found[0]:
            return found[0][-1]
    return ""


def _change(head: list[str]) -> Change:
    for line in head:
        if line.startswith(("new file mode", "--- /dev/null")):
            return "added"
        if line.startswith(("deleted file mode", "+++ /dev/null")):
            return "deleted"
        if line.startswith("rename from"):
            return "renamed"
        if line.startswith("copy from"):
            return "copied"
    has_text = any(line.startswith(("--- ", "index ")) for line in head)
    return "modified" if has_text or not any(line.startswith("new mode") for line in head) else "mode"


def _header_names(text: str) -> tuple[str, ...]:
    """The two names of `diff --git`. Names with spaces are not quoted; then both are the same but for the prefix."""
    if text.startswith('"'):
        end = re.match(r'"(?:[^"\\]|\\.)*"', text)
        if end:
            return unquoted(end[0]), unquoted(text[end.end() :].strip())
    elif text.endswith('"') and ' "' in text:
        first, rest = text.split(' "', 1)
        return first, unquoted('"' + rest)
    middle = len(text) // 2
    if len(text) % 2 and text[middle] == " " and _stripped(text[:middle]) == _stripped(text[middle + 1 :]):
        return text[:middle], text[middle + 1 :]
    if match := re.fullmatch(r"(a/.*) (b/.*)", text):
        return match[1], match[2]
    return tuple(text.split(" "))


def _stripped(name: str) -> str:
    """A name without its first folder, as `-p1` has it."""
    return name.split("/", 1)[1] if "/" in name and not name.startswith("/") else name


def unquoted(name: str) -> str:
    """A name as git writes it, without quotes and escapes."""
    if len(name) < 2 or not (name.startswith('"') and name.endswith('"')):
        return name
    raw = name[1:-1].encode("utf-8", "surrogateescape")
    plain = ESCAPE.sub(lambda found: _unescaped(found[1]), raw)
    return plain.decode("utf-8", "surrogateescape")


def _unescaped(code: bytes) -> bytes:
    return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else CONTROLS.get(code, code)


# Configuration files of which only a part steers the tests


def with_test_tables_of(reference: str | None, submitted: str, name: str) -> str | None:
    """A submitted pyproject.toml or setup.cfg, with the tables that steer tests taken from the reference.

    Those are `tool.pytest` and `tool.coverage` in TOML, and `tool:pytest`, `pytest`, `coverage:*` and `aliases` in
    setup.cfg. The reference is None where there is no such file. None when the result cannot be proved by parsing it
    again: the whole reference is to be used then.
    """
    parse, header, steers = (
        (_parse_toml, re.compile(r"\s*\[+\s*([^\]]+?)\s*\]"), _steers_toml)
        if name.endswith(".toml")
        else (_parse_ini, re.compile(r"\[([^\]]+)\]"), _steers_ini)
    )
    ours, theirs = parse(reference or ""), parse(submitted)
    if ours is None or theirs is None:
        return None
    if ours[0] == theirs[0]:
        return submitted
    kept = _sections(submitted, header, steers, wanted=False)
    merged = (
        kept
        + ("" if kept.endswith("\n") or not kept else "\n")
        + _sections(reference or "", header, steers, wanted=True)
    )
    both = parse(merged)
    return merged if both is not None and both == (ours[0], theirs[1]) else None


def _steers_toml(table: str) -> bool:
    parts = [part.strip().strip("\"'") for part in table.split(".")]
    return parts[0] == "tool" and len(parts) > 1 and parts[1] in ("pytest", "coverage")


def _steers_ini(section: str) -> bool:
    return section in ("tool:pytest", "pytest", "aliases") or section.startswith("coverage:")


def _sections(text: str, header: re.Pattern[str], steers: Callable[[str], bool], *, wanted: bool) -> str:
    kept, inside = [], False
    for line in _lines(text):
        if match := header.match(line):
            inside = steers(match[1])
        if inside == wanted:
            kept.append(line)
    return "".join(kept)


def _parse_toml(text: str) -> tuple[object, object] | None:
    """The tables that steer tests, and all others."""
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    tools = tables.get("tool", {})
    if not isinstance(tools, dict):
        return None
    steering = {name: tools[name] for name in ("pytest", "coverage") if name in tools}
    rest = {name: table for name, table in tools.items() if name not in steering}
    return steering, {**{name: table for name, table in tables.items() if name != "tool"}, "tool": rest}


def _parse_ini(text: str) -> tuple[object, object] | None:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    steering = {name: table for name, table in sections.items() if _steers_ini(name)}
    return steering, {name: table for name, table in sections.items() if name not in steering}
