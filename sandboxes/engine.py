"""The connection to a Docker engine: its faults as sentences, its load, and who owns what."""

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sandboxes.disk import DiskWatch
from sandboxes.errors import EngineError, ImageError, LimitExceeded, SandboxError, SandboxGone
from sandboxes.owners import OWNER_LABEL, RUN_LABEL, is_dead, this_owner
from sandboxes.protocol import Limits

if TYPE_CHECKING:
    from sandboxes.docker import DockerSandbox

CALLS_AT_ONCE = 8
"""Calls to the engine that run at the same time; it gets slower, not faster, with more."""
CALL_SECONDS = 120
CONNECTIONS = 256
HTTP_NOT_FOUND = 404
DEFAULT_HOST = "unix:///var/run/docker.sock"
FREE_SPACE = "free some, as with `agentdata sandbox gc --max-disk 50GB`, and run the same command again"


class Engine:
    """A Docker engine. Removes containers whose owner is dead when it is opened, and its own when the process exits."""

    def __init__(self, host: str = "", *, calls_at_once: int = CALLS_AT_ONCE, reap: bool = True) -> None:
        """Connect to `host`, by default to `DOCKER_HOST` or Docker's usual socket. Raises EngineError."""
        self.host = host or os.environ.get("DOCKER_HOST", "") or DEFAULT_HOST
        self.client = _connect(self.host)
        """The client of the `docker` package."""
        self.api = self.client.api
        self._calls = threading.BoundedSemaphore(calls_at_once)
        self._live: set[DockerSandbox] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        with self.call("asking what it has") as api:
            about = api.info()
        self.cpus = float(about["NCPU"])
        self.root = str(about.get("DockerRootDir", ""))
        self.watch = DiskWatch(self)
        if reap:
            self.reap()
        _at_exit(self)

    def open(self, image: str, *, limits: Limits | None = None, run: str = "") -> "DockerSandbox":
        """Start a sandbox. Raises ImageError when there is no such image, EngineError."""
        from sandboxes.docker import DockerSandbox

        return DockerSandbox(self, image, limits=limits or Limits(), run=run)

    def labels(self, run: str) -> dict[str, str]:
        """What marks a container or an image as made by this process."""
        return {RUN_LABEL: run, OWNER_LABEL: this_owner()}

    @contextlib.contextmanager
    def call(self, doing: str, *, image: str = "") -> Iterator[Any]:
        """The low-level client, for a few calls. Faults become EngineError, ImageError for a missing `image`."""
        import docker.errors
        import requests

        self._require_open()
        with self._calls:
            try:
                yield self.api
            except docker.errors.APIError as error:
                if error.response is not None:
                    # An answer that was meant to become a stream keeps its connection.
                    error.response.close()
                raise _refused(doing, error, image) from error
            except (requests.exceptions.RequestException, docker.errors.DockerException, OSError) as error:
                raise _unreachable(self.host, error, doing) from error

    def images_have(self, name: str) -> bool:
        """Whether there is an image of that name."""
        try:
            with self.call(f"looking for {name}", image=name) as api:
                api.inspect_image(name)
        except ImageError:
            return False
        return True

    def pull(self, name: str) -> None:
        """Fetch an image from its registry. Raises ImageError when it cannot be had, EngineError when it may be later."""
        import docker.errors

        with self.call(f"pulling {name}", image=name) as api:
            try:
                said = [line["error"] for line in api.pull(name, stream=True, decode=True) if "error" in line]
            except docker.errors.APIError as error:
                if error.response is not None:
                    error.response.close()
                said = [_said(error)]
        if said and "toomanyrequests" in said[0]:
            raise EngineError(f"The registry of {name} refuses for now: {said[0]}. Log in with docker login, or wait.")
        if said:
            raise ImageError(f"{name} cannot be pulled: {said[0]}.")

    def remove(self, container: str) -> None:
        """Remove a container, running or not; nothing happens when it is gone. An engine that is gone took it along."""
        with contextlib.suppress(SandboxGone, EngineError), self.call("removing a container") as api:
            api.remove_container(container, force=True, v=True)

    def running(self, container: str) -> bool:
        """Whether a container runs."""
        try:
            with self.call("looking at a container") as api:
                return bool(api.inspect_container(container)["State"]["Running"])
        except SandboxGone:
            return False

    def containers(self) -> list[dict[str, Any]]:
        """Every container that some process made through this package, running or not."""
        with self.call("listing containers") as api:
            found: list[dict[str, Any]] = api.containers(all=True, filters={"label": OWNER_LABEL})
            return [box for box in found if box["Labels"][OWNER_LABEL]]

    def reap(self) -> list[str]:
        """Remove the containers of dead owners; their ids."""
        left = [box["Id"] for box in self.containers() if is_dead(box["Labels"][OWNER_LABEL])]
        for container in left:
            self.remove(container)
        return left

    def why_gone(self, container: str) -> SandboxGone:
        """What the engine's log of events says about the end of a container, to be told as part of a sentence."""
        try:
            with self.call("reading events") as api:
                now = time.time()
                stream = api.events(since=now - 3600, until=now, filters={"container": container}, decode=True)
                events = list(stream)
                # Read to its end, the stream still holds its connection.
                stream._response.close()
        except SandboxError:
            return SandboxGone("and the engine does not answer")
        actions = {event.get("Action", "") for event in events}
        if "oom" in actions and "kill" not in actions:
            return LimitExceeded("it ran out of memory (limit: Limits.memory_bytes)")
        if not actions & {"die", "kill", "destroy"}:
            return SandboxGone("the engine was restarted or somebody removed it")
        return SandboxGone("it was killed from outside")

    def adopt(self, sandbox: "DockerSandbox") -> None:
        """Remember a live sandbox: it is watched, and closed at exit."""
        with self._lock:
            self._require_open()
            self._live.add(sandbox)
        self.watch.begin()

    def disown(self, sandbox: "DockerSandbox") -> None:
        """Forget a sandbox that is closed."""
        with self._lock:
            self._live.discard(sandbox)

    def live(self) -> list["DockerSandbox"]:
        """The sandboxes that are open."""
        with self._lock:
            return list(self._live)

    def close_all(self) -> None:
        """Close every sandbox that is open."""
        for sandbox in self.live():
            sandbox.close()

    def close(self) -> None:
        """Close every sandbox and the connection. A forked child leaves those of its parent alone."""
        if os.getpid() != self._pid:
            return
        self.watch.end()
        self.close_all()
        with self._lock:
            self._closed = True
        self.close_all()
        self.client.close()

    def _require_open(self) -> None:
        """Threads that still work when the process is told to stop must not begin anything new."""
        if self._closed:
            raise EngineError(f"The connection to the Docker engine at {self.host} was closed: make another Engine.")


def _at_exit(engine: Engine) -> None:
    """Close the engine at exit if it still lives then."""
    reference = weakref.ref(engine)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)


def _connect(host: str) -> Any:
    try:
        import docker
        import docker.errors
    except ImportError:
        raise EngineError("The package docker is not installed: pip install 'agentdata[docker]'.") from None
    import requests

    try:
        client = docker.from_env(
            version="auto",
            timeout=CALL_SECONDS,
            max_pool_size=CONNECTIONS,
            environment={**os.environ, "DOCKER_HOST": host},
        )
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise _unreachable(host, error, "connecting") from error
    return client


def _unreachable(host: str, error: Exception, doing: str) -> EngineError:
    text = str(error)
    if "PermissionError" in text or "Permission denied" in text:
        return EngineError(
            f"The Docker engine at {host} does not permit you: add yourself to the group docker"
            " (sudo usermod -aG docker $USER, then log in again), or run as root."
        )
    if "timed out" in text.lower():
        return EngineError(f"The Docker engine at {host} took more than {CALL_SECONDS} s while {doing}: see its log.")
    return EngineError(
        f"No Docker engine answers at {host} ({doing}): start it (systemctl start docker, or dockerd as root),"
        " or set DOCKER_HOST."
    )


def _refused(doing: str, error: Any, image: str) -> SandboxError:
    text = _said(error)
    if error.status_code == HTTP_NOT_FOUND:
        if image and "image" in text.lower():
            return ImageError(f"There is no image {image}: pull it, or build it again ({text}).")
        return SandboxGone(f"The container is gone while {doing}: {text}. Start again in a new one.")
    if "no space left" in text:
        return EngineError(f"The Docker engine has no space left while {doing}: {FREE_SPACE}.")
    return EngineError(f"The Docker engine refused while {doing}: {text}.")


def _said(error: Any) -> str:
    return str(getattr(error, "explanation", None) or error).strip().rstrip(".")
