"""Wishes to a lock: every package with its version, as the index stood on the day of the commit.

The resolver reads metadata only and builds nothing on this machine; where that does not suffice it is run in a box. What
cannot be resolved as declared is tried again in the order of `LEVELS`, and the lock says at which level it was found.
"""

import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from agentdata.environments.declarations import name_of
from agentdata.environments.dependencies import RELEASED, Wishes
from agentdata.errors import IndexUnreachableError, OwedError, UsageError
from agentdata.records import Record

Level = Literal["as-declared", "excused", "unpinned", "resolvable", "newer-tests", "own", "newest"]
LEVELS: dict[Level, str] = {
    "as-declared": "everything that is declared",
    "excused": "everything; of packages without a version of that time, one from later",
    "unpinned": "the requirements of tests and build without their exact versions",
    "resolvable": "those requirements of the tests that can be resolved together",
    "newer-tests": "as before, with what the tests require from the first year of this Python, where older fail",
    "own": "what the project itself requires, its build, and pytest",
    "newest": "what can be resolved without the limit of the date",
}
TOOLS = ("pip", "pytest")
RUNNER = (
    *(
        "pytest",
        "pluggy",
        "py",
        "iniconfig",
        "packaging",
        "pyparsing",
        "tomli",
        "exceptiongroup",
        "more-itertools",
        "wcwidth",
    ),
    *(
        "importlib-metadata",
        "zipp",
        "attrs",
        "six",
        "pygments",
        "typing-extensions",
    ),
)
WITHOUT_LIMIT = "2200-01-01T00:00:00Z"
SETUPTOOLS_AS_ASKED = "2019-02-06"
"""Before this day there was no setuptools as new as what the installer asks for to build a project that names none."""
GONE = re.compile(r"`([\w.-]+)` was filtered by `exclude-newer`|no versions of ([\w.-]+)")
SECONDS = 300.0
TRIES = 3
WAIT = 1.0
"""Seconds before an index that does not answer is asked again; twice as many each time."""
UNREACHABLE = re.compile(
    r"error sending request|dns error|Could not connect|client error \(Connect\)|operation timed out|Connection re(set|fused)"
    r"|HTTP status (server|client) error \((5\d\d|429)|tcp connect error|Network is unreachable|name resolution"
    r"|Connectivity is disabled",
    re.IGNORECASE,
)
NEEDS_BUILD = re.compile(
    r"no usable wheels|building source distributions is disabled|have no wheels|has no wheels|requires building|--no-build",
    re.IGNORECASE,
)


class Lock(Record):
    """What is installed, on which Python."""

    python: str
    text: str
    """`name==version` lines, sorted."""
    level: Level
    builds: bool = False
    """Whether a package has no wheel and is built from its source."""
    dropped: tuple[str, ...] = ()
    """Requirements of the tests that were left out."""
    excused: tuple[str, ...] = ()
    """Packages that may be newer than the date."""


class UnresolvableError(Exception):
    """No set of versions satisfies the requirements; the text is the resolver's."""


Compile = Callable[[Sequence[str], str, str], tuple[int, str, str]]
"""Arguments after `uv`, requirements and constraints to exit status, output and messages. `@constraints@` among the
arguments stands for the path of a file with the constraints."""


def uv_program() -> str:
    """Path of uv. Raises UsageError when it is not installed."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise UsageError("uv is not installed: run `pip install uv`, which comes with agentdata[docker].") from error


def compile_here(arguments: Sequence[str], requirements: str, constraints: str) -> tuple[int, str, str]:
    """Run the resolver on this machine, with builds forbidden: nothing of a package is executed."""
    with tempfile.TemporaryDirectory(prefix="agentdata-lock-") as folder:
        limits = Path(folder, "constraints.txt")
        limits.write_text(constraints, encoding="utf-8")
        given = [str(limits) if word == "@constraints@" else word for word in arguments]
        try:
            done = subprocess.run(
                [uv_program(), *given, "--no-build", "--python", sys.executable, "--no-python-downloads"],
                input=requirements,
                capture_output=True,
                text=True,
                cwd=folder,
                env={**os.environ, "NO_COLOR": "1"},
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return 124, "", f"the resolver did not end within {SECONDS:.0f} seconds"
    if done.returncode < 0:
        raise OwedError(f"The resolver was ended by signal {-done.returncode}, as when memory runs out.")
    return done.returncode, done.stdout, done.stderr


def resolve(
    wishes: Wishes,
    python: str,
    until: str = "",
    *,
    level: Level = "as-declared",
    compile_lock: Compile = compile_here,
    extra: Sequence[str] = (),
) -> Lock:
    """A lock at one level. `until` is an ISO 8601 time, that of the commit by default; `extra` come from a recipe.

    Raises UnresolvableError, and IndexUnreachableError when the index does not answer three times.
    """
    solver = _Solver(wishes, python, "" if level == "newest" else until or wishes.until, compile_lock)
    if compile_lock is not compile_here and (until or wishes.until) < SETUPTOOLS_AS_ASKED:
        solver.excuse(["setuptools"], until=first_year(python, until or wishes.until))
    solver.excuses = level not in ("as-declared", "newest")
    own = [*wishes.run, *wishes.build, *TOOLS, *extra]
    tests = [requirement for group in wishes.tests for requirement in group.requirements]
    dropped: list[str] = []
    if level in ("as-declared", "excused"):
        text = solver.solve([*own, *tests], wishes.constraints)
    elif level == "own":
        text, dropped = solver.solve(own), tests
    else:
        build = {name_of(requirement) for requirement in wishes.build}
        own = [unpinned(it) if name_of(it) in build and it not in wishes.run else it for it in own]
        tests = [unpinned(requirement) for requirement in tests]
        if level == "newer-tests":
            required = [name_of(requirement) for requirement in tests]
            solver.excuse(dict.fromkeys([*RUNNER, *required]), until=first_year(python, until or wishes.until))
        text, dropped = (solver.solve([*own, *tests]), []) if level == "unpinned" else solver.solve_most(own, tests)
    return Lock(
        python=python,
        text=text,
        level=level,
        builds=compile_lock is not compile_here,
        dropped=tuple(dropped),
        excused=tuple(solver.excused),
    )


def first_year(python: str, until: str) -> str:
    """The end of a Python's first year, or the date itself where that is later."""
    released = RELEASED.get(python, "")
    return max(until, f"{int(released[:4]) + 1}{released[4:]}T00:00:00Z") if released else until


def unpinned(requirement: str) -> str:
    """A requirement without its exact version or upper bound; lower bounds, extras and markers stay."""
    wish, separator, marker = requirement.partition(";")
    name, versions = re.match(r"([\w.-]+(?:\[[^\]]*\])?)(.*)", wish.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    kept = [part.strip() for part in versions.split(",") if part.strip().startswith(">")]
    return name + ",".join(kept) + (f" ;{marker}" if separator else "")


def index_unreachable(messages: str) -> IndexUnreachableError:
    """The error for a tool that said it cannot reach the index."""
    place = re.search(r"https?://[^\s/)]+", re.sub(r"//[^/@\s]*@", "//", messages))
    cause = " ".join(messages.split()).rpartition("cause: ")[2].rpartition("Caused by: ")[2][-200:]
    return IndexUnreachableError(
        f"The package index {place[0] + ' ' if place else ''}does not answer: {cause}. Check the network and the "
        "settings of the index.",
        final=True,
    )


class _Solver:
    """The resolver with what stays the same from one question to the next."""

    def __init__(self, wishes: Wishes, python: str, until: str, compile_lock: Compile) -> None:
        self.project = name_of(wishes.project)
        self.compile = compile_lock
        self.excuses = False
        self.excused: list[str] = []
        self.arguments = [
            *("pip", "compile", "-", "--quiet", "--no-header", "--no-annotate", "--python-version", python),
            *("--python-platform", f"{platform.machine().replace('arm64', 'aarch64')}-manylinux_2_31"),
            *(("--exclude-newer", until) if until else ()),
            *(("--no-emit-package", self.project) if self.project else ()),
        ]

    def excuse(self, packages: Iterable[str], *, until: str = WITHOUT_LIMIT) -> None:
        """Move the limit of the date for packages."""
        for package in packages:
            self.excused.append(package)
            self.arguments += ["--exclude-newer-package", f"{package}={until}"]

    def solve(self, requirements: Iterable[str], constraints: Sequence[str] = ()) -> str:
        """Lines of a lock. Raises UnresolvableError and IndexUnreachableError."""
        asked = "".join(f"{it}\n" for it in dict.fromkeys(requirements) if name_of(it) != self.project)
        limits = "".join(f"{it}\n" for it in constraints if "[" not in it)
        while True:
            try:
                return self._solve(asked, limits)
            except UnresolvableError as error:
                named = {name for found in GONE.findall(str(error)) for name in found if name} - set(self.excused)
                wheels_lack = self.compile is compile_here and NEEDS_BUILD.search(str(error))
                if not self.excuses or not named or wheels_lack:
                    raise
                self.excuse(sorted(named))

    def _solve(self, asked: str, limits: str) -> str:
        arguments = [*self.arguments, *(("--constraint", "@constraints@") if limits else ())]
        messages = ""
        for attempt in range(TRIES):
            status, output, messages = self.compile(arguments, asked, limits)
            if status == 0:
                return "".join(sorted(f"{line}\n" for line in output.splitlines() if re.match(r"[\w.-]+==", line)))
            if not UNREACHABLE.search(messages):
                raise UnresolvableError(messages.strip() or f"the resolver ended with status {status}")
            time.sleep(WAIT * 2**attempt)
        raise index_unreachable(messages)

    def solve_most(self, own: list[str], tests: list[str]) -> tuple[str, list[str]]:
        """A lock with as many requirements of the tests as fit, halving what does not; and what was left out."""
        text = self.solve(own)
        kept: list[str] = []
        dropped: list[str] = []
        parts = [tests] if tests else []
        while parts:
            part = parts.pop(0)
            try:
                text = self.solve([*own, *kept, *part])
                kept += part
            except UnresolvableError:
                middle = len(part) // 2
                if middle:
                    parts[:0] = [part[:middle], part[middle:]]
                else:
                    dropped += part
        return text, dropped


def lock_id(python: str, base_image: str, system_packages: Sequence[str], lock: str) -> str:
    """Content address of what environments with the same dependencies share: 16 hexadecimal digits."""
    facts = "\0".join([python, base_image, " ".join(sorted(system_packages)), lock])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
