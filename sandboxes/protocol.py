"""What every sandbox can do, whatever runs it; how sandboxes fail is in `sandboxes.errors`."""

from types import TracebackType
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict

from sandboxes.errors import EngineError, ImageError, LimitExceeded, SandboxError, SandboxGone

__all__ = [
    "CommandResult",
    "EngineError",
    "ImageError",
    "LimitExceeded",
    "Limits",
    "Sandbox",
    "SandboxError",
    "SandboxGone",
    "Session",
]


class Limits(BaseModel):
    """What a sandbox may use. The defaults are those for an agent or a test run that is not trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    network: bool = False
    """Whether the network can be reached. Off while an agent works and while tests run."""
    memory_bytes: int = 4 << 30
    processes: int = 512
    cpus: float = 2.0
    disk_bytes: int = 8 << 30
    """What may be written before the sandbox is stopped."""
    output_bytes: int = 1 << 20
    """What is kept of the output of one command: its head and its tail."""
    user: str = "1000:1000"
    """Who runs the commands; `0:0` for builds."""


class CommandResult(BaseModel):
    """How a command ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    status: int
    """Exit status; 128 + N for signal N, 124 when `timed_out`."""
    output: bytes
    """Standard output and error as they came, at most `Limits.output_bytes`; a mark stands where the middle was cut."""
    seconds: float
    timed_out: bool = False
    cut_bytes: int = 0
    """Bytes that were cut out of the output."""

    @property
    def text(self) -> str:
        """The output as text; what is not UTF-8 is replaced."""
        return self.output.decode("utf-8", "replace")


class Session(Protocol):
    """A shell that keeps directory, variables and functions from one command to the next."""

    def run(self, command: str, *, timeout: float = 120) -> CommandResult:
        """Run a command, several lines if need be. After a timeout (seconds) its processes are gone and the shell lives.

        Raises SandboxGone.
        """
        ...

    def close(self) -> None: ...


class Sandbox(Protocol):
    """A place to run commands. Use as a context manager: leaving it removes everything."""

    def session(self, *, workdir: str = "") -> Session:
        """Open a shell session."""
        ...

    def run(
        self,
        command: str,
        *,
        timeout: float = 120,
        workdir: str = "",
        user: str = "",
        environment: dict[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in a fresh shell. `user` overrides that of the limits."""
        ...

    def read(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError, IsADirectoryError."""
        ...

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file, making its folders; it belongs to the sandbox's user. A mode of 0 keeps that of a file that is there."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
