"""The conversation with the supervisor in a sandbox, the same for containers and local processes.

A `Channel` carries bytes to and from one supervisor (`supervisor.pl`), which runs commands one at a time: in a shell
session, or each in a fresh shell. A round trip costs a fraction of a millisecond; opening a channel costs a process.
"""

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from sandboxes.errors import SandboxError
from sandboxes.protocol import CommandResult

GRACE_SECONDS = 15.0
"""What a supervisor gets beyond a command's time before it counts as stuck: it may need a while to kill a fork bomb."""
FILE_BYTES = 256 << 20
"""The most that is read of one file, so that a sandbox cannot fill the caller's memory."""
SUPERVISOR = (Path(__file__).parent / "supervisor.pl").read_text(encoding="utf-8")
TIMED_OUT = 124
KILLED = 137


class ChannelClosed(Exception):  # noqa: N818
    """The supervisor is gone: it, or the whole sandbox, was killed."""


class Channel(Protocol):
    """A supervisor's standard input and output."""

    def send(self, data: bytes) -> None:
        """Raises ChannelClosed."""
        ...

    def receive(self, seconds: float) -> bytes:
        """What has come, at least a byte. Raises ChannelClosed, TimeoutError."""
        ...

    def close(self) -> None: ...


class Answer(NamedTuple):
    """What a supervisor answered; its fields are described in `supervisor.pl`."""

    status: int
    timed_out: bool
    cut_bytes: int
    seconds: float
    lost: bool
    body: bytes

    def result(self, note: bytes = b"") -> CommandResult:
        """The answer as the end of a command."""
        return CommandResult(
            status=self.status,
            output=self.body + note,
            seconds=self.seconds,
            timed_out=self.timed_out,
            cut_bytes=self.cut_bytes,
        )


def supervisor_command(*, alone: bool) -> list[str]:
    """How a supervisor is started. `alone`: it may kill every process of its user."""
    return ["perl", "-e", SUPERVISOR, "1" if alone else ""]


def await_ready(channel: Channel, seconds: float) -> bytes:
    """Wait for the supervisor's first line; what came instead when it could not start. Raises TimeoutError."""
    data = b""
    try:
        while not data.endswith(b"ready\n") and len(data) < 4096:
            data += channel.receive(seconds)
    except ChannelClosed:
        return data.strip() or b"it ended at once"
    return b""


def ask(channel: Channel, operation: str, body: bytes, *, timeout: float, cap: int) -> Answer:
    """Send a request and wait for its answer. Raises ChannelClosed, TimeoutError when the supervisor is stuck."""
    channel.send(f"{operation} {len(body)} {timeout:.3f} {cap}\n".encode() + body)
    data = channel.receive(timeout + GRACE_SECONDS)
    while b"\n" not in data:
        data += channel.receive(GRACE_SECONDS)
    head, _, first = data.partition(b"\n")
    status, timed_out, cut, seconds, flag, length = head.split()
    parts, missing = [first], int(length) - len(first)
    while missing > 0:
        parts.append(channel.receive(GRACE_SECONDS))
        missing -= len(parts[-1])
    return Answer(int(status), timed_out == b"1", int(cut), float(seconds), flag == b"lost", b"".join(parts))


class Box(Protocol):
    """What sessions need of the sandbox they are in."""

    output_bytes: int

    def open_channel(self, workdir: str, user: str) -> Channel:
        """Start a supervisor. Raises SandboxError, SandboxGone."""
        ...

    def kill_all(self, user: str) -> None:
        """Kill what runs as `user` after its supervisor got stuck. Raises SandboxGone."""
        ...

    def require_alive(self) -> None:
        """Raises SandboxGone with the reason when the sandbox is gone."""
        ...

    def require_room(self, since: float) -> None:
        """Raises SandboxError when the machine's disk was full since then: a command that failed was not at fault."""
        ...


class ShellSession:
    """A shell that keeps directory, variables and functions. Implements `sandboxes.protocol.Session`."""

    def __init__(self, box: Box, workdir: str) -> None:
        self._box = box
        self._workdir = workdir
        self._channel: Channel | None = box.open_channel(workdir, "")
        self._lock = threading.Lock()
        self._closed = False

    def run(self, command: str, *, timeout: float = 120) -> CommandResult:
        """Run a command. When it ends or hangs the shell, the shell goes on as it was before the command.

        Raises SandboxGone when the sandbox died, SandboxError when the session was closed.
        """
        with self._lock:
            if self._closed:
                raise SandboxError("The session is closed: open another one with Sandbox.session().")
            channel = self._channel or self._box.open_channel(self._workdir, "")
            self._channel = channel
            body = shell_text(command)
            began = time.monotonic()
            try:
                answer = ask(channel, "S", body, timeout=timeout, cap=self._box.output_bytes)
            except (ChannelClosed, TimeoutError) as error:
                self._channel = None
                lost, self._channel = _supervisor_lost(self._box, channel, error, self._workdir, "", timeout)
                return lost
            if answer.status:
                self._box.require_room(began)
            return answer.result(_LOST if answer.lost else b"")

    def close(self) -> None:
        """End the shell and everything that was started from it."""
        with self._lock:
            self._closed = True
            if self._channel is not None:
                self._channel.close()
            self._channel = None


_LOST = b"\n[the shell was lost and a new one started: variables and functions are gone]\n"


def _supervisor_lost(
    box: Box, channel: Channel, error: Exception, workdir: str, user: str, timeout: float
) -> tuple[CommandResult, Channel]:
    """What a command comes to that killed or stopped its own supervisor, and a new supervisor.

    Only a new one proves that it was not the sandbox that died. Raises SandboxGone when it was.
    """
    channel.close()
    if isinstance(error, TimeoutError):
        box.kill_all(user)
        result = CommandResult(status=TIMED_OUT, output=_LOST, seconds=timeout, timed_out=True)
    else:
        result = CommandResult(status=KILLED, output=_LOST, seconds=0.0)
    return result, box.open_channel(workdir, user)


class Runner:
    """Runs commands in fresh shells, and reads and writes files, over channels that are kept for the next use."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._idle: list[tuple[str, Channel]] = []
        self._lock = threading.Lock()

    def run(
        self, command: str, *, timeout: float, workdir: str, user: str, environment: dict[str, str]
    ) -> CommandResult:
        """As `Sandbox.run`."""
        variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
        body = os.fsencode(workdir) + b"\0" + variables + b"\0" + shell_text(command)
        channel = self._take(user)
        began = time.monotonic()
        try:
            answer = ask(channel, "F", body, timeout=timeout, cap=self._box.output_bytes)
        except (ChannelClosed, TimeoutError) as error:
            lost, channel = _supervisor_lost(self._box, channel, error, "", user, timeout)
            self._give_back(user, channel)
            return lost
        except BaseException:
            channel.close()
            raise
        self._give_back(user, channel)
        if answer.status:
            self._box.require_room(began)
        return answer.result()

    def read(self, path: str) -> bytes:
        """As `Sandbox.read`; also raises OSError for what is not a plain file or larger than FILE_BYTES."""
        return self._file("R", path, os.fsencode(path))

    def write(self, path: str, content: bytes, mode: int) -> None:
        """As `Sandbox.write`."""
        self._file("W", path, os.fsencode(path) + f"\0{mode:o}\0".encode() + content)

    def _file(self, operation: str, path: str, body: bytes) -> bytes:
        channel = self._take("")
        try:
            answer = ask(channel, operation, body, timeout=120, cap=FILE_BYTES)
        except (ChannelClosed, TimeoutError) as error:
            channel.close()
            self._box.require_alive()
            raise SandboxError(
                f"{path} could not be reached: the sandbox's supervisor was killed. Try again."
            ) from error
        except BaseException:
            channel.close()
            raise
        self._give_back("", channel)
        if answer.status:
            raise OSError(answer.status, os.strerror(answer.status), path)
        return answer.body

    def _take(self, user: str) -> Channel:
        with self._lock:
            for place, (owner, channel) in enumerate(self._idle):
                if owner == user:
                    del self._idle[place]
                    return channel
        return self._box.open_channel("", user)

    def _give_back(self, user: str, channel: Channel) -> None:
        with self._lock:
            self._idle.append((user, channel))

    def close(self) -> None:
        """Close the channels that are not in use."""
        with self._lock:
            for _, channel in self._idle:
                channel.close()
            self._idle.clear()


def shell_text(command: str) -> bytes:
    """A command as bash reads it: without NUL bytes, which it ignores."""
    return command.encode("utf-8", "surrogateescape").replace(b"\0", b"")
