"""Sandboxes in containers of a Docker engine, or of Podman behind the same interface.

What the default limits cover, each with a test in `tests/test_sandbox_attacks.py`:
- network: none but loopback; no host interface, no name resolution, no engine socket
- privilege: commands run as uid 1000 without capabilities and cannot gain any; the container's first process belongs to
  root, also without capabilities, so that commands cannot end it
- processes, memory (no swap), CPU: limits of the kernel's control groups; memory that runs out is taken from commands
- time: whatever a command started is killed when it takes too long, also what left its process group or session
- output: cut inside the container
- disk: one file by the kernel's limit on file sizes, the sum by `DiskWatch`, which stops the container within about a
  second of passing the limit; `/dev/shm` by its size
- leftovers: a container ends with the process that opened it, whatever ends that process

What they do not cover: faults of the kernel and of the engine (use a virtual machine or gVisor where that matters), what
is written in the second before the watch notices, the number of files, contention for disk bandwidth and caches, and what
commands of one sandbox do to each other. With `network=True` commands reach whatever the host's bridge reaches.
"""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

from sandboxes.access import BuildAccess
from sandboxes.engine import FREE_SPACE, Engine
from sandboxes.errors import EngineError, ImageError, LimitExceeded, SandboxError, SandboxGone
from sandboxes.protocol import CommandResult, Limits
from sandboxes.session import ChannelClosed, Runner, ShellSession, await_ready, supervisor_command

START_SECONDS = 60.0
DYING_SECONDS = 3.0
"""How long the engine may still say that a container runs whose processes were killed."""
SHARED_MEMORY_BYTES = 64 << 20
STANDARD_ERROR = 2
KEEPER = ["cat"]
"""The container's first command: it ends when the connection that feeds it is closed, and the container with it."""


class DockerSandbox:
    """A container. Made by `open_sandbox`; what it covers is in the module's docstring."""

    def __init__(self, engine: Engine, image: str, *, limits: Limits, run: str = "", build: BuildAccess | None = None):
        self.engine = engine
        self.image = image
        self.limits = limits
        self.output_bytes = limits.output_bytes
        self.id = ""
        self._gone: SandboxGone | None = None
        self._build = build
        self._sessions: list[ShellSession] = []
        self._runner = Runner(self)
        self._lock = threading.Lock()
        self._closed = False
        self._keeper: Any = None
        try:
            self._start(run)
            engine.adopt(self)
        except BaseException:
            self.close()
            raise

    def _start(self, run: str) -> None:
        with self.engine.call(f"starting a container of {self.image}", image=self.image) as api:
            self.id = api.create_container(**self._configuration(run))["Id"]
            self._keeper = api.attach_socket(self.id, params={"stdin": 1, "stream": 1})
            api.start(self.id)

    def _configuration(self, run: str) -> dict[str, Any]:
        api, limits = self.engine.api, self.limits
        host: dict[str, Any] = {
            "network_mode": "bridge" if limits.network else "none",
            "mem_limit": limits.memory_bytes,
            "memswap_limit": limits.memory_bytes,
            "nano_cpus": int(min(limits.cpus, self.engine.cpus) * 1e9),
            "pids_limit": limits.processes,
            "shm_size": SHARED_MEMORY_BYTES,
            "init": True,
            "auto_remove": True,
            "log_config": {"Type": "none"},
            "ulimits": [
                {"Name": name, "Soft": most, "Hard": most} for name, most in (("fsize", limits.disk_bytes), ("core", 0))
            ],
        }
        if self._build is None:
            host |= {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
        else:
            host |= {"binds": self._build.binds, "network_mode": self._build.network_mode(limits)}
        return {
            "image": self.image,
            # An empty entrypoint takes away that of the image, and is not remembered in an image made of the container.
            "entrypoint": [""],
            "command": KEEPER,
            "user": "0:0",
            "stdin_open": True,
            "labels": self.engine.labels(run),
            "use_config_proxy": False,
            "host_config": api.create_host_config(**host),
        }

    def session(self, *, workdir: str = "") -> ShellSession:
        """Open a shell session, in the image's directory unless `workdir` is given."""
        session = ShellSession(self, workdir)
        self._sessions.append(session)
        return session

    def run(
        self,
        command: str,
        *,
        timeout: float = 120,
        workdir: str = "",
        user: str = "",
        environment: dict[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in a fresh shell. What it leaves running goes on until the sandbox is closed."""
        variables = (self._build.environment if self._build else {}) | (environment or {})
        return self._runner.run(command, timeout=timeout, workdir=workdir, user=user, environment=variables)

    def read(self, path: str) -> bytes:
        """As in the protocol, with the rights of the sandbox's user, so a link leads nowhere that commands cannot go."""
        return self._runner.read(path)

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """As in the protocol, with the rights of the sandbox's user."""
        self._runner.write(path, content, mode)

    def open_channel(self, workdir: str, user: str) -> "ExecChannel":
        """Start a supervisor in the container."""
        if self._closed:
            raise SandboxGone("The sandbox was closed: open a new one.")
        try:
            with self.engine.call(f"starting a shell in a container of {self.image}") as api:
                alone = self._build is None
                command = supervisor_command(alone=alone)
                made = api.exec_create(
                    self.id, command, stdin=True, user=user or self.limits.user, workdir=workdir or None
                )
                channel = ExecChannel(api.exec_start(made["Id"], socket=True))
        except SandboxError:
            self.require_alive(DYING_SECONDS)
            raise
        try:
            failure = await_ready(channel, START_SECONDS)
        except TimeoutError:
            failure = b"it did not answer"
        if failure:
            failure = channel.complaint or failure
            channel.close()
            self.require_alive(DYING_SECONDS)
            raise ImageError(
                f"No shell starts in {self.image}, which needs bash and perl: {failure.decode(errors='replace')}."
            )
        return channel

    def kill_all(self, user: str) -> None:
        """Kill everything that runs as `user`; the container too, when that does not work."""
        with contextlib.suppress(SandboxError), self.engine.call("killing the processes of a sandbox") as api:
            made = api.exec_create(self.id, ["sh", "-c", "kill -KILL -1"], user=user or self.limits.user)
            api.exec_start(made["Id"])
            if api.exec_inspect(made["Id"])["ExitCode"] in (0, 137):
                return
        self.stop(SandboxGone("its processes could not be killed"))

    def stop(self, reason: SandboxGone) -> None:
        """Kill the container; whoever uses it gets an error like `reason`."""
        self._gone = self._gone or reason
        with contextlib.suppress(SandboxError), self.engine.call("stopping a container") as api:
            api.kill(self.id)

    def require_alive(self, seconds: float = 0.0) -> None:
        """Raises SandboxGone with the reason when the container does not run any more, or ends in so many seconds."""
        if self._closed:
            raise SandboxGone("The sandbox was closed: open a new one.")
        until = time.monotonic() + seconds
        while self._gone is None and self.engine.running(self.id):
            if time.monotonic() >= until:
                return
            time.sleep(0.1)
        reason = self._gone or self.engine.why_gone(self.id)
        remedy = "Raise the limit" if isinstance(reason, LimitExceeded) else "Start again in a new one"
        raise type(reason)(f"The sandbox of {self.image} is gone, {reason}. {remedy}.")

    def require_room(self, since: float) -> None:
        """Raises EngineError when the engine's disk was full since then."""
        if self.engine.watch.was_full(since):
            raise EngineError(f"The disk of the Docker engine was full: {FREE_SPACE}.")

    def close(self) -> None:
        """Remove the container. Safe to call twice, and from another thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.engine.disown(self)
        for session in self._sessions:
            session.close()
        self._runner.close()
        if self.id:
            self.engine.remove(self.id)
        if self._keeper is not None:
            close_stream(self._keeper)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ExecChannel:
    """A supervisor behind the hijacked connection of one `exec`, whose output comes in frames (stream, length, bytes)."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._socket = getattr(stream, "_sock", stream)
        self._buffer = bytearray()
        self.complaint = b""
        """What the supervisor, or the engine in its place, last said on standard error."""

    def send(self, data: bytes) -> None:
        """Raises ChannelClosed."""
        try:
            self._socket.settimeout(START_SECONDS)
            self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, seconds: float) -> bytes:
        """The content of the next frame of standard output. Raises ChannelClosed, TimeoutError."""
        while True:
            self._fill(8, seconds)
            kind, length = self._buffer[0], int.from_bytes(self._buffer[4:8], "big")
            self._fill(8 + length, seconds)
            content = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if kind == STANDARD_ERROR:
                self.complaint = content[-1000:]
            elif content:
                return content

    def _fill(self, length: int, seconds: float) -> None:
        while len(self._buffer) < length:
            try:
                self._socket.settimeout(seconds)
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosed from error
            if not data:
                raise ChannelClosed
            self._buffer += data

    def close(self) -> None:
        """Close the connection; the supervisor then kills what it started."""
        close_stream(self._stream)


def close_stream(stream: Any) -> None:
    """Close a hijacked connection and the response that it came out of, which keeps the socket open otherwise."""
    connection = getattr(stream, "_sock", stream)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    response = getattr(stream, "_response", None)
    for part in (response, stream, connection):
        if part is not None:
            with contextlib.suppress(OSError):
                part.close()
