"""Images in layers: Python of the system, then everything of a lock, then the tree of one commit.

The second layer is shared by all environments of the same lock. The third holds /testbed: the files of the commit and a
repository that knows this commit alone, under its own name; it is cut off at its parents as a shallow clone is.
"""

import io
import re
import shlex
import tarfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from agentdata.environments.dependencies import Wishes
from agentdata.environments.locks import UNREACHABLE, WITHOUT_LIMIT, Lock, first_year, index_unreachable, uv_program
from agentdata.environments.snapshot import Snapshot, pack
from agentdata.errors import RunError
from agentdata.harvest import git
from sandboxes.engine import Engine
from sandboxes.images import BuildBox
from sandboxes.protocol import CommandResult, LimitExceeded

PATH = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHANGES = (f"ENV PATH={PATH}", "ENV VIRTUAL_ENV=/opt/venv", "WORKDIR /testbed")
KEPT_LOG = 20_000
TRIES = 3
PROFILE = (
    'case ":$PATH:" in *:/opt/venv/bin:*) ;; *) PATH="/opt/venv/bin:$PATH" ;; esac\nexport PATH VIRTUAL_ENV=/opt/venv\n'
)
CONDA = f"{PROFILE}conda() {{ :; }}\n"
"""What scripts of SWE-bench source before they say `conda activate testbed`."""
EXCLUDED = ("__pycache__/", "*.pyc", "*.egg-info/", ".pytest_cache/", ".hypothesis/")
PTH = (
    "import pathlib, sysconfig; root = pathlib.Path('/testbed'); "
    "folder = root / 'src' if (root / 'src').is_dir() else root / 'lib' if (root / 'lib').is_dir() else root; "
    "pathlib.Path(sysconfig.get_path('purelib'), 'testbed.pth').write_text(f'{folder}\\n')"
)
INSTALLS: tuple[tuple[str, ...], ...] = (
    ("python -m pip install --no-index --no-deps --no-build-isolation -e .",),
    ("python setup.py -q develop --no-deps",),
    (f'python -c "{PTH}"',),
)
"""Ways to make the project importable, in the order in which they are tried; the last suits what cannot be built."""
SETTLE = r"""
set -e
cd /testbed
find . -name __pycache__ -prune -exec rm -rf {} +
git checkout -q -- .
git ls-files -z --others --exclude-standard --directory --no-empty-directory | tr '\0' '\n' | sed 's#^#/#' >> .git/info/exclude
chown -R -h 1000:1000 .
rm -rf /root/.cache /home/agent/.cache
"""
_building: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class BuildError(Exception):
    """An attempt at an environment failed; `reason` is the short word that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Steps:
    """Commands in a box, each with its limit, all that they print kept as the log of the attempt."""

    def __init__(self, box: BuildBox, log: list[str], seconds: float) -> None:
        self.box = box
        self.log = log
        self.seconds = seconds

    def run(self, command: str) -> CommandResult:
        """Run a command that may fail. Raises BuildError when it hangs or takes too much, RunError when the disk is full."""
        try:
            done = self.box.run(command, timeout=self.seconds)
        except LimitExceeded as error:
            raise BuildError("limit-exceeded", str(error)) from error
        self.log.append(f"$ {command}\n{done.text[-KEPT_LOG:]}\n[{done.status}, {done.seconds:.1f} s]\n")
        if re.search(r"No space left on device|Disk quota exceeded", done.text):
            raise RunError(
                "No space left while building an environment. Free some space, as with `agentdata sandbox gc`, and run the "
                "same command again; what was built stays."
            )
        if done.timed_out:
            raise BuildError("hang", f"a step did not end within {self.seconds:.0f} seconds: {command[:200]}")
        return done

    def must(self, command: str, reason: str) -> CommandResult:
        """Run a command that has to work. Raises BuildError with the reason."""
        done = self.run(command)
        if done.status != 0:
            raise BuildError(reason, f"status {done.status}: {done.text[-600:].strip()}")
        return done

    def fetch(self, command: str, reason: str) -> CommandResult:
        """Run a command that needs the network. Raises IndexUnreachableError when it cannot have it three times."""
        for _ in range(TRIES):
            done = self.run(command)
            if done.status == 0:
                return done
            if not UNREACHABLE.search(done.text):
                raise BuildError(reason, f"status {done.status}: {done.text[-600:].strip()}")
        raise index_unreachable(done.text)


def lock_image_name(lock_id: str) -> str:
    """Name of the image that environments with this lock share."""
    return f"agentdata/lock:{lock_id}"


def lock_image(
    engine: Engine,
    base_image: str,
    lock: Lock,
    *,
    lock_id: str,
    until: str,
    system_packages: Sequence[str] = (),
    log: list[str],
    seconds: float,
    run: str = "",
) -> str:
    """The image with everything of a lock in /opt/venv; it is built once, also when many ask for it.

    Raises BuildError, IndexUnreachableError, RunError and SandboxError.
    """
    name = lock_image_name(lock_id)
    with _building[lock_id]:
        if engine.images_have(name):
            log.append(f"{name} is there\n")
            return name
        with BuildBox(engine, base_image, run=run) as box:
            steps = Steps(box, log, seconds)
            if system_packages:
                packages = " ".join(shlex.quote(package) for package in system_packages)
                steps.fetch(
                    "export DEBIAN_FRONTEND=noninteractive; apt-get update -q && "
                    f"apt-get install -qy --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*",
                    "system-packages",
                )
            put_uv(box)
            box.put(archive({"lock.txt": lock.text}), "/opt/agentdata")
            steps.must(f"/opt/agentdata/uv venv -q --no-project --python python{lock.python} /opt/venv", "no-python")
            steps.fetch(_install_lock(lock, until), "install-failed")
            steps.must("rm -rf /opt/agentdata /root/.cache /usr/share/python-wheels", "install-failed")
            box.put(archive({"etc/profile.d/agentdata.sh": PROFILE, "opt/miniconda3/bin/activate": CONDA}), "/")
            box.commit(name, labels={"agentdata.lock": lock_id}, changes=list(CHANGES))
    return name


def _install_lock(lock: Lock, until: str) -> str:
    words = ["/opt/agentdata/uv", "pip", "install", "--python", "/opt/venv/bin/python", "--no-deps", "--no-cache"]
    words += ["--compile-bytecode", "--link-mode", "copy", "-r", "/opt/agentdata/lock.txt"]
    if not lock.builds:
        words += ["--no-build"]
    elif until and lock.level != "newest":
        # What builds a package must run on this Python; what is pinned although it came later must be found.
        words += ["--exclude-newer", first_year(lock.python, until)]
        later = [package for package in lock.excused if package != "setuptools"]
        words += [f"--exclude-newer-package={package}={WITHOUT_LIMIT}" for package in later]
    return " ".join(words)


def put_uv(box: BuildBox) -> None:
    """Bring the resolver and installer into a box, at /opt/agentdata/uv."""
    box.put(archive({"uv": Path(uv_program()).read_bytes()}), "/opt/agentdata")


def archive(files: dict[str, str | bytes]) -> bytes:
    """A tar archive of files that everybody may read and run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            data = content.encode() if isinstance(content, str) else content
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def write_tree(steps: Steps, snapshot: Snapshot) -> None:
    """Put the commit at /testbed: its objects, one branch, the files, all owned by the agent."""
    object_format = git.run(snapshot.repository.git_dir, "rev-parse", "--show-object-format").decode().strip()
    steps.box.put(archive({"tree.pack": pack(snapshot)}), "/opt/agentdata")
    script = f"""
set -e
cd /testbed
git init -q --template= --object-format={object_format} .
git config core.logAllRefUpdates false
git index-pack --stdin < /opt/agentdata/tree.pack > /dev/null
echo {snapshot.commit} > .git/shallow
git symbolic-ref HEAD refs/heads/main
git update-ref refs/heads/main {snapshot.commit}
git reset -q --hard
git config --unset core.logAllRefUpdates
rm -rf .git/logs .git/ORIG_HEAD .git/hooks .git/branches
mkdir -p .git/info
printf '%s\\n' {" ".join(shlex.quote(pattern) for pattern in EXCLUDED)} > .git/info/exclude
"""
    steps.must("git config --system safe.directory '*' && mkdir -p /testbed && chown 1000:1000 /testbed", "tree-failed")
    steps.must(as_agent(script), "tree-failed")
    steps.must("rm -rf /opt/agentdata", "tree-failed")


def as_agent(script: str) -> str:
    """A command of root that runs a script as the agent, in /testbed."""
    return f"cd /testbed && runuser -u agent -- env HOME=/home/agent PYTHONDONTWRITEBYTECODE=1 bash -c {shlex.quote(script)}"


def version_exports(version: str) -> str:
    """Tell the tools that derive a project's version from git which one it is."""
    names = (
        "SETUPTOOLS_SCM_PRETEND_VERSION",
        "PBR_VERSION",
        "PDM_BUILD_SCM_VERSION",
        "POETRY_DYNAMIC_VERSIONING_BYPASS",
    )
    return f"export {' '.join(f'{name}={version}' for name in (*names, 'UV_DYNAMIC_VERSIONING_BYPASS'))}"


def install_project(
    steps: Steps, snapshot: Snapshot, wishes: Wishes, *, version: str, install: Sequence[str]
) -> tuple[str, ...]:
    """Make the project importable by the commands given, or by the first of the usual ways that works; they are returned.

    Afterwards `git status` in /testbed shows nothing. Raises BuildError.
    """
    buildable = bool({"pyproject.toml", "setup.py", "setup.cfg"} & snapshot.entries.keys())
    ways = [tuple(install)] if install else [(version_exports(version), *way) for way in INSTALLS]
    if not install and not buildable:
        ways = ways[-1:]
    elif not install and "setup.py" not in snapshot.entries:
        ways = [ways[0], ways[-1]]
    last = BuildError("install-failed", "there is no way to install it")
    for way in ways:
        try:
            steps.must("cd /testbed && export PYTHONDONTWRITEBYTECODE=1\n" + " &&\n".join(way), "install-failed")
            check_imports(steps, wishes)
            settle(steps)
            return way
        except BuildError as error:
            if error.reason == "hang":
                raise
            last = error
            steps.run("cd /testbed && git clean -qdfx && git checkout -q -- .")
    raise last


def check_imports(steps: Steps, wishes: Wishes) -> None:
    """Import the project's main module, from outside its tree. Raises BuildError."""
    if wishes.modules:
        code = f"import {wishes.modules[0]} as it; print(getattr(it, '__file__', None))"
        steps.must(f"cd / && PYTHONDONTWRITEBYTECODE=1 python -W ignore -c {shlex.quote(code)}", "import-failed")


def settle(steps: Steps) -> None:
    """Hand the tree to the agent and hide what the installation left in it from git."""
    steps.must(SETTLE, "tree-failed")
    steps.must(as_agent('git update-index -q --refresh; test -z "$(git status --porcelain)"'), "tree-failed")
