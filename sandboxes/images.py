"""Images: bases with a Python, from a registry or built from Debian's packages, and layers on top of them."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sandboxes.access import BuildAccess
from sandboxes.docker import DockerSandbox
from sandboxes.engine import Engine
from sandboxes.errors import ImageError, SandboxError
from sandboxes.owners import OWNER_LABEL
from sandboxes.protocol import CommandResult, Limits

SUITES = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"}
"""Python version to the Debian suite that has it."""
PACKAGES = [
    *("build-essential", "ca-certificates", "git", "libffi-dev", "locales", "netbase", "patch", "pkg-config", "procps"),
    *("python3", "python3-dev", "python3-venv", "tzdata", "unzip", "xz-utils"),
]
"""What test suites of pure-Python projects expect of a machine, beside Debian's essential packages."""
REGISTRY_VARIABLE = "AGENTDATA_BASE_IMAGE"
"""Environment variable with an image to pull instead, such as `mirror.example/python:{python}-bookworm`."""
USER, USER_ID = "agent", 1000
ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
SETUP = f"""\
set -e
ln -sf python3 /usr/bin/python
id -u {USER_ID} >/dev/null 2>&1 || useradd --create-home --uid {USER_ID} --shell /bin/bash {USER}
echo 'APT::Install-Recommends "false";' >/etc/apt/apt.conf.d/99no-recommends
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /var/log/*.log /var/log/apt /debootstrap
: >/etc/machine-id
rm -f /etc/resolv.conf /etc/hostname
"""
RECIPE_LABEL = "agentdata.recipe"
BOOTSTRAP_ATTEMPTS = 4
BUILD_LIMITS = Limits(network=True, user="0:0", processes=4096, memory_bytes=8 << 30, disk_bytes=20 << 30, cpus=64)


class BuildBox:
    """A container to make an image layer in: root, with network and with the host's access to package indexes.

    Use as a context manager: leaving it removes the container.
    """

    def __init__(self, engine: Engine, image: str, *, run: str = "", limits: Limits = BUILD_LIMITS) -> None:
        """Start from `image`. Raises ImageError when there is none, EngineError."""
        self._engine = engine
        self._run = run
        self._sandbox = DockerSandbox(engine, image, limits=limits, run=run, build=BuildAccess.of_host())

    def run(
        self, command: str, *, timeout: float = 1800, workdir: str = "", environment: dict[str, str] | None = None
    ) -> CommandResult:
        """Run a command as root; `environment` is not part of the image."""
        return self._sandbox.run(command, timeout=timeout, workdir=workdir, environment=environment)

    def read(self, path: str) -> bytes:
        """A file's content, as `Sandbox.read`."""
        return self._sandbox.read(path)

    def put(self, archive: bytes, path: str) -> None:
        """Unpack a tar archive in the folder `path`, which is made. Owners and modes are those of the archive."""
        made = self._sandbox.run('mkdir -p -- "$TARGET"', environment={"TARGET": path})
        if made.status:
            raise SandboxError(f"The folder {path} cannot be made in {self._sandbox.image}: {made.text.strip()}.")
        with self._engine.call(f"unpacking an archive in {path}") as api:
            api.put_archive(self._sandbox.id, path, archive)

    def commit(self, name: str, *, labels: dict[str, str] | None = None, changes: list[str] | None = None) -> str:
        """Make an image of the container's state; its id.

        `changes` are lines of a Dockerfile (ENV, WORKDIR, USER, CMD, LABEL). What is not changed is as in the image that
        this one started from.
        """
        repository, _, tag = name.rpartition(":")
        with self._engine.call(f"committing {name}", image=self._sandbox.image) as api:
            before = api.inspect_image(self._sandbox.image)["Config"] or {}
            # Containers inherit the labels of their image, whoever starts them: an owner would have them reaped.
            own = {**self._engine.labels(self._run), OWNER_LABEL: ""}
            lines = _restored(before) + _labels({**own, **(labels or {})}) + (changes or [])
            made = api.commit(
                self._sandbox.id, repository=repository or name, tag=tag if repository else None, changes=lines
            )
            return str(made["Id"])

    def close(self) -> None:
        """Remove the container."""
        self._sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _restored(before: dict[str, Any]) -> list[str]:
    """Undo what the container's own first process and user would leave in the image."""
    return [
        f"ENTRYPOINT {json.dumps(before.get('Entrypoint') or [])}",
        f"CMD {json.dumps(before.get('Cmd') or ['/bin/bash'])}",
        f"USER {before.get('User') or 'root'}",
    ]


def _labels(labels: dict[str, str]) -> list[str]:
    return [f"LABEL {json.dumps(name)}={json.dumps(value)}" for name, value in labels.items()]


def base_image(engine: Engine, python: str) -> str:
    """The name of a base image with that Python (`3.11`); pulled or built when there is none yet.

    Raises ImageError when neither works.
    """
    pattern = os.environ.get(REGISTRY_VARIABLE, "")
    if pattern:
        return _pulled(engine, pattern.format(python=python))
    if python not in SUITES:
        raise ImageError(
            f"No base image for Python {python}: Debian has {', '.join(SUITES)};"
            f" for others set {REGISTRY_VARIABLE}, such as mirror.example/python:{{python}}."
        )
    name = _name(SUITES[python])
    if not engine.images_have(name):
        with _only_builder(name):
            if not engine.images_have(name):
                _build(engine, SUITES[python], name)
    return name


def _pulled(engine: Engine, name: str) -> str:
    if not engine.images_have(name):
        repository, _, tag = name.rpartition(":")
        with engine.call(f"pulling {name}", image=name) as api:
            api.pull(repository or name, tag=tag if repository else "latest")
    return name


def _name(suite: str) -> str:
    recipe = json.dumps([suite, PACKAGES, SETUP, ENVIRONMENT])
    return f"agentdata/base:{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def _only_builder(name: str) -> Iterator[None]:
    """Wait until no other process of this machine builds the image."""
    file = Path(tempfile.gettempdir()) / f"agentdata-{hashlib.sha256(name.encode()).hexdigest()[:12]}.lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(engine: Engine, suite: str, name: str) -> None:
    """Debian's packages to a directory, the directory to an image."""
    if not shutil.which("debootstrap"):
        raise ImageError(
            f"{name} cannot be built without debootstrap: apt-get install debootstrap, or set {REGISTRY_VARIABLE}."
        )
    if os.geteuid() != 0:
        raise ImageError(
            f"{name} can only be built as root, once: run this once with sudo, or set {REGISTRY_VARIABLE}."
        )
    began = time.monotonic()
    _say(f"Building {name} from Debian's packages; this takes a minute or two.")
    with tempfile.TemporaryDirectory(prefix="agentdata-base-") as directory:
        root = Path(directory) / "root"
        _bootstrap(suite, root)
        _import(engine, suite, name, root)
    _say(f"Built {name} in {time.monotonic() - began:.0f} s.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _bootstrap(suite: str, root: Path) -> None:
    """Fill the directory; a mirror that fails once is asked again for what is still missing."""
    fill = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root)]
    for left in reversed(range(BOOTSTRAP_ATTEMPTS)):
        said = _said_on_failure(fill)
        if not said:
            break
        if not left or "Couldn't download" not in said:
            raise ImageError(f"Debian {suite} could not be installed: {said}. {_ADVICE}")
    if said := _said_on_failure(["chroot", str(root), "/bin/sh", "-c", SETUP]):
        raise ImageError(f"Debian {suite} could not be set up: {said}. {_ADVICE}")


_ADVICE = f"Check the network and the proxy, or set {REGISTRY_VARIABLE}."


def _said_on_failure(command: list[str]) -> str:
    """The last lines of a command that failed; empty when it did not."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    )
    return " / ".join(done.stdout.strip().splitlines()[-3:]) or f"status {done.returncode}" if done.returncode else ""


def _import(engine: Engine, suite: str, name: str, root: Path) -> None:
    """Stream the directory to the engine, device files left out: containers get their own."""
    repository, _, tag = name.partition(":")
    labels = {**engine.labels(""), RECIPE_LABEL: suite}
    changes = [f"ENV {key}={value}" for key, value in ENVIRONMENT.items()]
    changes += ['CMD ["/bin/bash"]', *_labels(labels)]
    command = [
        "tar",
        "-C",
        str(root),
        "--numeric-owner",
        "--exclude=./dev/*",
        "--exclude=./proc/*",
        "--exclude=./sys/*",
    ]
    with (
        subprocess.Popen([*command, "-c", "."], stdout=subprocess.PIPE) as packing,
        engine.call(f"importing {name}") as api,
    ):
        assert packing.stdout
        answer = api.import_image_from_stream(_chunks(packing.stdout), repository=repository, tag=tag, changes=changes)
    if packing.returncode or "error" in str(answer).lower():
        raise ImageError(f"{name} could not be imported: {str(answer).strip() or 'tar failed'}.")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk
