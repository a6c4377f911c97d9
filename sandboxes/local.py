"""Sandboxes without isolation: plain processes in a directory, for trusted demos and tests."""

import contextlib
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from sandboxes.errors import SandboxError, SandboxGone
from sandboxes.protocol import CommandResult, Limits
from sandboxes.session import ChannelClosed, Runner, ShellSession, await_ready, supervisor_command

CLOSE_SECONDS = 10.0


class LocalSandbox:
    """Runs commands as the caller, in a temporary directory or a given one.

    Covered: timeouts, the cap on output, and the end of all processes when it is closed. Not covered: everything else;
    commands can do whatever the caller can. Paths that leave the directory are refused by `read` and `write` only.
    """

    def __init__(self, directory: Path | None = None, *, limits: Limits | None = None) -> None:
        if sys.platform != "linux" or not shutil.which("perl") or not shutil.which("bash"):
            raise SandboxError("Local sandboxes need Linux with bash and perl: install them, or use Docker.")
        self._temporary = directory is None
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="sandbox-"))).resolve()
        self.output_bytes = (limits or Limits()).output_bytes
        self._runner = Runner(self)
        self._sessions: list[ShellSession] = []
        self._closed = False

    def session(self, *, workdir: str = "") -> ShellSession:
        """Open a shell session in `workdir`, seen from the sandbox's directory."""
        session = ShellSession(self, workdir)
        self._sessions.append(session)
        return session

    def run(
        self,
        command: str,
        *,
        timeout: float = 120,
        workdir: str = "",
        user: str = "",  # noqa: ARG002
        environment: dict[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in a fresh shell. `user` is ignored: there is only the caller."""
        return self._runner.run(command, timeout=timeout, workdir=workdir, user="", environment=environment or {})

    def read(self, path: str) -> bytes:
        """As in the protocol; PermissionError for a path that leads out of the directory."""
        return self._runner.read(self._inside(path))

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """As in the protocol; PermissionError for a path that leads out of the directory."""
        self._runner.write(self._inside(path), content, mode)

    def _inside(self, path: str) -> str:
        real = (self.directory / path).resolve()
        if not real.is_relative_to(self.directory):
            raise PermissionError(f"{path} leads out of the sandbox's directory {self.directory}.")
        return str(real)

    def open_channel(self, workdir: str, user: str) -> "PipeChannel":  # noqa: ARG002
        """Start a supervisor."""
        self.require_alive()
        channel = PipeChannel(self.directory / workdir)
        if failure := await_ready(channel, CLOSE_SECONDS):
            channel.close()
            raise SandboxError(f"No shell can be started: {failure.decode(errors='replace')}.")
        return channel

    def kill_all(self, user: str) -> None:
        """Nothing: the supervisor was killed with what it had started."""

    def require_alive(self) -> None:
        """Raises SandboxGone once the sandbox is closed."""
        if self._closed:
            raise SandboxGone("The sandbox was closed: open a new one.")

    def require_room(self, since: float) -> None:
        """Nothing: who runs commands here sees the disk."""

    def close(self) -> None:
        """End every process, and remove the directory if it is a temporary one."""
        self._closed = True
        for session in self._sessions:
            session.close()
        self._runner.close()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PipeChannel:
    """A supervisor that is a process of ours."""

    def __init__(self, workdir: Path) -> None:
        try:
            self._process = subprocess.Popen(
                supervisor_command(alone=False),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=workdir,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SandboxError(f"No shell can be started in {workdir}: {error}.") from error
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)

    def send(self, data: bytes) -> None:
        """Write all of it. Raises ChannelClosed."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._in, rest) :]
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, seconds: float) -> bytes:
        """What has come. Raises ChannelClosed, TimeoutError."""
        if not self._selector.select(seconds):
            raise TimeoutError
        data = os.read(self._out, 1 << 18)
        if not data:
            raise ChannelClosed
        return data

    def close(self) -> None:
        """Let the supervisor kill what it started, and end."""
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
