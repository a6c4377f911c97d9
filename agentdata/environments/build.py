"""A commit to an environment that was seen to work: lock, images, smoke test, and a search for the future in it.

One attempt after another is made, in the order of `candidates`: for the Python that suits best the levels of
`locks.LEVELS`, then for the others; `newest`, which lifts the limit of the date, comes last of all. What is wrong with a
repository ends in `Rejected`, with the log of every attempt; what is wrong with this machine, the engine or the index is
raised (SandboxError, RunError, IndexUnreachableError) and says nothing about the repository.
"""

import hashlib
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agentdata.environments import images, locks
from agentdata.environments.declarations import name_of
from agentdata.environments.dependencies import RELEASED, Wishes, choose_pythons, find_wishes
from agentdata.environments.images import BuildError, Steps
from agentdata.environments.leaks import SearchError, find_leaks
from agentdata.environments.locks import Level, Lock, UnresolvableError
from agentdata.environments.plugins import MODULES, find_own_tests
from agentdata.environments.recipe import EnvironmentRecipe
from agentdata.environments.snapshot import Snapshot, nearest_version
from agentdata.errors import SourceError
from agentdata.harvest import git
from agentdata.records import BuildAttempt, Environment, Rejected
from sandboxes.engine import Engine
from sandboxes.images import BUILD_LIMITS, BuildBox, base_image

STAGE = "environments"
OFFLINE = BUILD_LIMITS.model_copy(update={"network": False})
SMOKE_FILES = 24
"""Test files that are collected to see whether an environment works."""
PATIENCE = 3
"""Locks at one Python that fail to be installed or to work before the next Python is tried."""
MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '(\w+)")
ORDER = (
    *("unresolvable", "no-python", "system-packages", "limit-exceeded", "hang"),
    *("install-failed", "import-failed", "collect-failed", "leak"),
)
"""Reasons of failed attempts; what stands later came further."""


@dataclass
class _Build:
    """What one environment is built from, and what was tried."""

    engine: Engine
    snapshot: Snapshot
    repo: str
    change_id: str
    wishes: Wishes
    recipe: EnvironmentRecipe
    run: str
    version: str
    attempts: list[BuildAttempt] = field(default_factory=list)
    undeclared: list[str] = field(default_factory=list)
    """Packages that are imported although nothing declares them."""

    @property
    def until(self) -> str:
        return self.recipe.until or self.wishes.until


def build_environment(
    engine: Engine,
    git_dir: Path,
    repo: str,
    commit: str,
    *,
    change_id: str = "",
    recipe: EnvironmentRecipe | None = None,
    run: str = "",
) -> tuple[Environment | Rejected, list[BuildAttempt]]:
    """Build the environment of a commit, or say why there is none; with every attempt that was made.

    Raises SandboxError, RunError and IndexUnreachableError: the environment is then owed.
    """
    attempts: list[BuildAttempt] = []
    try:
        with git.Repository(git_dir) as repository:
            snapshot = Snapshot(repository, commit)
            wishes, version = find_wishes(snapshot), nearest_version(git_dir, commit)
            build = _Build(
                engine, snapshot, repo, change_id, wishes, recipe or EnvironmentRecipe(), run, version, attempts
            )
            environment = _first_that_works(build)
    except SourceError as error:
        return Rejected(
            id=change_id or commit, repo=repo, stage=STAGE, reason=error.reason, detail=str(error)
        ), attempts
    if environment is not None:
        return environment, attempts
    reason, detail = _verdict(attempts)
    return Rejected(id=change_id or commit, repo=repo, stage=STAGE, reason=reason, detail=detail), attempts


def rebuild(engine: Engine, environment: Environment, *, run: str = "") -> Environment:
    """Build a stored environment again from its description alone: the same lock, the same tree.

    Raises BuildError where it cannot be built any more, and as `build_environment` does.
    """
    with git.Repository(Path(environment.git_dir)) as repository:
        snapshot = Snapshot(repository, environment.commit)
        recipe = EnvironmentRecipe(
            install=environment.install,
            test_command=environment.test_command,
            system_packages=environment.system_packages,
            until=environment.until,
        )
        builds = f" {BUILDS}" in environment.origin
        lock = Lock(python=environment.python, text=environment.lock, level="as-declared", builds=builds)
        wishes = find_wishes(snapshot)
        build = _Build(engine, snapshot, environment.repo, environment.change_id, wishes, recipe, run, "")
        built = _build_once(build, lock, [], search=False)
    return built.model_copy(update={"origin": environment.origin})


BUILDS = "with packages built from source"


def _verdict(attempts: Sequence[BuildAttempt]) -> tuple[str, str]:
    """The reason of the attempt that came furthest, and the end of its log."""
    if not attempts:
        return "no-python", "none of the available Pythons is permitted"
    furthest = max(attempts, key=lambda attempt: ORDER.index(attempt.reason) if attempt.reason in ORDER else -1)
    return furthest.reason, furthest.log[-1000:]


def _first_that_works(build: _Build) -> Environment | None:
    deadline = time.monotonic() + build.recipe.build_seconds
    seen: set[tuple[str, str]] = set()
    failures: dict[str, int] = {}
    for python, level in candidates(build.wishes, build.recipe):
        if failures.get(python, 0) >= PATIENCE or sum(failures.values()) >= build.recipe.most_attempts:
            continue
        if time.monotonic() > deadline:
            break
        found = _attempt(build, python, level, seen)
        while isinstance(found, str) and (missing := _undeclared(build, found)):
            build.undeclared.append(missing)
            found = _attempt(build, python, level, seen)
        if isinstance(found, Environment):
            return found
        failures[python] = failures.get(python, 0) + (found not in ("", "unresolvable"))
    return None


def _attempt(build: _Build, python: str, level: Level, seen: set[tuple[str, str]]) -> Environment | str:
    """Try one lock and record what became of it: an environment, or the reason; empty if it was tried before."""
    log: list[str] = []
    started = time.monotonic()
    reason, environment, lock = "", None, None
    try:
        lock = _lock(build, python, level, log)
        if (python, lock.text) in seen:
            return ""
        seen.add((python, lock.text))
        environment = _build_once(build, lock, log)
    except UnresolvableError as error:
        reason = "unresolvable"
        log.append(str(error))
    except BuildError as error:
        reason = error.reason
        log.append(f"{error.reason}: {error}\n")
    _record(build, python, level, lock, reason, log, time.monotonic() - started)
    return environment or reason


def _undeclared(build: _Build, reason: str) -> str:
    """The package of a module that the last attempt could not import, if it is one of the known `MODULES`.

    Many projects import what other packages of their author's environment brought along. Names are not guessed: a
    repository would choose what is installed.
    """
    if reason not in ("import-failed", "collect-failed"):
        return ""
    packages = (MODULES.get(module, "") for module in map(str, MISSING_MODULE.findall(build.attempts[-1].log)))
    return next((package for package in packages if package and package not in build.undeclared), "")


def candidates(wishes: Wishes, recipe: EnvironmentRecipe) -> Iterator[tuple[str, Level]]:
    """Pythons and levels in the order in which they are tried."""
    pythons = (recipe.python,) if recipe.python else choose_pythons(wishes, tuple(RELEASED))
    yield from ((python, level) for python in pythons for level in _levels(wishes, python, recipe))
    if not recipe.lock and not recipe.until:
        yield from ((python, "newest") for python in pythons)


def _levels(wishes: Wishes, python: str, recipe: EnvironmentRecipe) -> list[Level]:
    if recipe.lock:
        return ["as-declared"]
    levels: list[Level] = [level for level in locks.LEVELS if level != "newest"]
    if wishes.until < RELEASED.get(python, ""):
        # What tests are run with seldom works on a Python that came after it.
        levels.remove("newer-tests")
        levels.insert(1, "newer-tests")
    return levels


def _record(
    build: _Build, python: str, level: Level, lock: Lock | None, reason: str, log: list[str], seconds: float
) -> None:
    origin = _origin(build, lock) if lock else f"Python {python}; {level}"
    build.attempts.append(
        BuildAttempt(
            id=f"{build.change_id or build.snapshot.commit}-{len(build.attempts) + 1}",
            repo=build.repo,
            commit=build.snapshot.commit,
            origin=origin,
            reason=reason,
            log="".join(log),
            seconds=round(seconds, 3),
        )
    )


def _origin(build: _Build, lock: Lock) -> str:
    parts = [f"Python {lock.python}", f"{lock.level}: {locks.LEVELS[lock.level]}"]
    parts += [f"read from {build.wishes.origin}"] if build.wishes.origin else []
    parts += [f"without {', '.join(lock.dropped)}"] if lock.dropped else []
    parts += [f"not bound to the date: {', '.join(lock.excused)}"] if lock.excused else []
    parts += [f"with {', '.join(build.undeclared)}, imported but not declared"] if build.undeclared else []
    parts += [BUILDS] if lock.builds else []
    return "; ".join(parts)


# Locks


def _lock(build: _Build, python: str, level: Level, log: list[str]) -> Lock:
    """Resolve, on this machine from metadata, and in a box where packages have to be built to know what they need."""
    recipe = build.recipe
    if recipe.lock:
        return Lock(python=python, text=recipe.lock, level="as-declared", builds=True)
    wishes = _narrowed(build.wishes, recipe.without)
    log.append(f"resolve for Python {python} as of {build.until}: {level}\n")
    resolve = partial(
        locks.resolve, wishes, python, build.until, level=level, extra=(*recipe.requirements, *build.undeclared)
    )
    try:
        return resolve()
    except UnresolvableError as error:
        if not locks.NEEDS_BUILD.search(str(error)):
            raise
        log.append(f"{error}\nagain, in a box where packages may be built\n")
    with BuildBox(build.engine, base_image(build.engine, python), run=build.run) as box:
        images.put_uv(box)
        return resolve(compile_lock=partial(_compile_in_box, box))


def _compile_in_box(
    box: BuildBox, arguments: Sequence[str], requirements: str, constraints: str
) -> tuple[int, str, str]:
    folder = "/opt/agentdata"
    box.put(images.archive({"requirements.in": requirements, "constraints.txt": constraints}), folder)
    given = [f"{folder}/constraints.txt" if word == "@constraints@" else word for word in arguments]
    given = [f"{folder}/requirements.in" if word == "-" else word for word in given]
    words = shlex.join([f"{folder}/uv", *given])
    done = box.run(
        f"cd / && {words} -o {folder}/lock.txt > {folder}/messages 2>&1; echo $? > {folder}/status; "
        f"cat {folder}/status {folder}/lock.txt; echo '== messages'; cat {folder}/messages; rm -f {folder}/lock.txt",
        timeout=locks.SECONDS,
    )
    status, _, rest = done.text.partition("\n")
    lock, _, messages = rest.partition("== messages\n")
    return (int(status) if status.isdigit() else 124), lock, messages or done.text


def _narrowed(wishes: Wishes, without: Sequence[str]) -> Wishes:
    """Wishes without some packages."""
    names = {name_of(package) for package in without}

    def kept(requirements: Sequence[str]) -> tuple[str, ...]:
        return tuple(it for it in requirements if name_of(it) not in names)

    tests = tuple(group.model_copy(update={"requirements": kept(group.requirements)}) for group in wishes.tests)
    return wishes.model_copy(update={"run": kept(wishes.run), "build": kept(wishes.build), "tests": tests})


# Images


def _build_once(build: _Build, lock: Lock, log: list[str], *, search: bool = True) -> Environment:
    """Images of one lock, tried. Raises BuildError and what concerns the machine."""
    recipe = build.recipe
    base = base_image(build.engine, lock.python)
    lock_id = locks.lock_id(lock.python, base, recipe.system_packages, lock.text)
    parent = images.lock_image(
        build.engine,
        base,
        lock,
        lock_id=lock_id,
        until=build.until,
        system_packages=recipe.system_packages,
        log=log,
        seconds=recipe.step_seconds,
        run=build.run,
    )
    with BuildBox(build.engine, parent, run=build.run, limits=OFFLINE) as box:
        steps = Steps(box, log, recipe.step_seconds)
        images.write_tree(steps, build.snapshot)
        install = images.install_project(
            steps, build.snapshot, build.wishes, version=build.version, install=recipe.install
        )
        if search:
            _smoke(steps, build.snapshot, recipe.test_command)
            _search(box, build, lock)
        identity = environment_id(build.repo, build.snapshot.commit, lock_id, install, recipe.test_command)
        name = f"agentdata/environment:{identity}"
        image_id = box.commit(
            name, labels={"agentdata.environment": identity, "agentdata.lock": lock_id}, changes=list(images.CHANGES)
        )
    return Environment(
        id=identity,
        repo=build.repo,
        git_dir=str(build.snapshot.repository.git_dir),
        commit=build.snapshot.commit,
        change_id=build.change_id,
        python=lock.python,
        base_image=base,
        system_packages=recipe.system_packages,
        lock=lock.text,
        lock_id=lock_id,
        until=build.until,
        origin=_origin(build, lock),
        install=install,
        test_command=recipe.test_command,
        image=name,
        image_id=image_id,
    )


def environment_id(repo: str, commit: str, lock_id: str, install: Sequence[str], test_command: str) -> str:
    """Content address of an environment: 16 hexadecimal digits."""
    facts = "\0".join([repo, commit, lock_id, *install, test_command])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _smoke(steps: Steps, snapshot: Snapshot, test_command: str) -> None:
    """Collect tests of some files. Raises BuildError when most of the files cannot be collected."""
    files = [path for path in find_own_tests(snapshot) if "'" not in path]
    if not files:
        raise BuildError("no-tests", "the repository has no file that pytest would collect")
    stride = max(1, len(files) // SMOKE_FILES)
    chosen = files[::stride][:SMOKE_FILES]
    done = steps.run(images.as_agent(f"{test_command} --collect-only -q -p no:cacheprovider {shlex.join(chosen)} 2>&1"))
    counts = re.findall(r"(?:^|\s)(\d+)(?:/\d+)? (?:tests?|items?)\b", done.text)
    found = max((int(count) for count in counts), default=0) or len(
        re.findall(r"^\S+\.py(?:::|: \d)", done.text, re.MULTILINE)
    )
    broken = set(re.findall(r"^_*\s*ERROR (?:collecting )?(\S+\.py)", done.text, re.MULTILINE))
    if not found or len(broken) > len(chosen) / 2:
        raise BuildError("collect-failed", f"{len(broken)} of {len(chosen)} files fail: {done.text[-1500:]}")
    steps.must(images.as_agent('test -z "$(git status --porcelain)"'), "tree-failed")


def _search(box: BuildBox, build: _Build, lock: Lock) -> None:
    wishes = build.wishes
    dated = lock.level != "newest" and not lock.excused
    try:
        leaks = find_leaks(box, build.snapshot, project=wishes.project, modules=wishes.modules, dated=dated)
    except SearchError as error:
        raise BuildError("leak", str(error)) from error
    if leaks:
        raise BuildError("leak", "; ".join(leaks[:20]))
