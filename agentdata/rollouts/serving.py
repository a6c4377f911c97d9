"""A model to an endpoint: a vLLM server as a process group of its own, watched, started again, and stopped whole.

vLLM is never imported. It may live in another interpreter than this one: `agentdata.rollouts.vllm_environment` finds it.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field

from agentdata.errors import RunError, explain_os_error
from agentdata.records import Record

READY_SECONDS = 1800.0
STOP_SECONDS = 20.0
WATCH_SECONDS = 2.0
SILENT_SECONDS = 300.0
"""A server that does not even say how it is for so long has hung."""
MOST_RESTARTS = 5
STEADY_SECONDS = 600.0
"""A server that was up for so long has made good for its earlier crashes."""
LAST_LINES = 15
CAUSE = re.compile(r"\b\w*(?:Error|Exception|error): .+")
LAUNCH = (
    "import ctypes, os, signal, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'vllm.entrypoints.openai.api_server', *sys.argv[1:]])\n"
)
"""Has the kernel end the server when the thread that started it ends in any way, and becomes the server: by its module,
since the console script of some builds does not find its own package."""


class ServerOptions(Record):
    """What to serve, and how. Empty and zero stand for vLLM's own defaults."""

    model: str
    """Name on the hub, or a folder."""
    name: str = ""
    """The name that requests give; the model where it is empty."""
    python: str
    """Interpreter that has vLLM."""
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """0 for a free one."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share each layer."""
    context: int = Field(default=0, ge=0)
    """Tokens of prompt and reply together."""
    tool_call_parser: str = ""
    """How the model writes calls, such as hermes, qwen3_coder, llama3_json; empty for a server without tool calls."""
    chat_template: str = ""
    """File with a template in place of the model's."""
    dtype: str = ""
    extra: tuple[str, ...] = ()
    """Further arguments, as vLLM takes them."""


def arguments(options: ServerOptions, port: int) -> list[str]:
    """vLLM's command line."""
    given = {
        "--model": options.model,
        "--served-model-name": options.name,
        "--host": options.host,
        "--port": str(port),
        "--tensor-parallel-size": str(options.tensor_parallel) if options.tensor_parallel > 1 else "",
        "--max-model-len": str(options.context or ""),
        "--dtype": options.dtype,
        "--chat-template": options.chat_template,
        "--tool-call-parser": options.tool_call_parser,
    }
    words = [word for name, value in given.items() if value for word in (name, value)]
    return [*words, *(["--enable-auto-tool-choice"] if options.tool_call_parser else []), *options.extra]


def _say_nothing(line: str) -> None:
    pass


class Server:
    """A running server. Leaving the block ends all of its processes."""

    def __init__(self, options: ServerOptions, log: Path | None = None) -> None:
        """Start it; what it prints is appended to `log`, else to `vllm-PORT.log` here. Raises RunError."""
        self.options = options
        self.port = _free_port(options.host, options.port)
        self.log = log or Path(f"vllm-{self.port}.log")
        self.restarts = 0
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The endpoint, as a policy takes it."""
        return f"http://{_reachable(self.options.host)}:{self.port}/v1"

    @property
    def pid(self) -> int:
        """The process that answers requests; its group holds the engines too."""
        return self._process.pid

    @property
    def model(self) -> str:
        """The name that requests give."""
        return self.options.name or self.options.model

    def wait_ready(self, *, seconds: float = READY_SECONDS, say: Callable[[str], None] = _say_nothing) -> None:
        """Wait until requests are answered; `say` gets a line about it now and then.

        Raises RunError with the log's last lines when the server ends first, or is not ready in time.
        """
        begun = said = time.monotonic()
        while self._health() != 200:
            now = time.monotonic()
            if (status := self._process.poll()) is not None:
                raise RunError(f"vLLM ended with status {status} before it was ready{self._end_of_log()}")
            if now - begun > seconds:
                raise RunError(f"vLLM is not ready after {seconds:.0f} s{self._end_of_log()}")
            if now - said >= 10:
                said = now
                say(f"waiting for vLLM, {now - begun:.0f} s: {_shorten(self._last_lines(1))}")
            time.sleep(0.2)

    def watch(self, *, say: Callable[[str], None] = _say_nothing) -> None:
        """Start the server again whenever it crashes or hangs, until too many restarts: then RunError is raised."""
        while True:
            begun = time.monotonic()
            fault = self._wait_for_fault()
            if time.monotonic() - begun >= STEADY_SECONDS:
                self.restarts = 0
            while fault:
                fault = self._restart(fault, say)

    def _wait_for_fault(self) -> str:
        heard = time.monotonic()
        while True:
            time.sleep(WATCH_SECONDS)
            if (status := self._process.poll()) is not None:
                return f"vLLM ended with status {status}"
            health = self._health()
            if health == 200:
                heard = time.monotonic()
            elif health == 503 or time.monotonic() - heard >= SILENT_SECONDS:
                return "vLLM does not answer any more"

    def _restart(self, fault: str, say: Callable[[str], None]) -> str:
        """Start the server anew, and say what went wrong with that one; empty when it answers."""
        if self.restarts == MOST_RESTARTS:
            raise RunError(f"{fault}, and was restarted {MOST_RESTARTS} times before{self._end_of_log()}")
        self.restarts += 1
        say(f"{fault}; restart {self.restarts} of {MOST_RESTARTS}, see {self.log}")
        self.stop()
        time.sleep(2.0 ** (self.restarts - 1) - 1)
        self._process = self._start()
        try:
            self.wait_ready(say=say)
        except RunError as error:
            return str(error).partition(" (")[0]
        say(f"vLLM answers again at {self.url}")
        return ""

    def stop(self) -> None:
        """End the server and its engines: by asking, and after a while by force."""
        try:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        finally:
            # The engines are processes of the same group, and outlive a server that was killed.
            _end_group(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {"VLLM_NO_USAGE_STATS": "1", **os.environ}
        command = [self.options.python, "-c", LAUNCH, *arguments(self.options, self.port)]
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, "ab") as log:
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
                )
        except OSError as error:
            raise explain_os_error(error, f"starting vLLM with {self.options.python}") from error

    def _health(self) -> int:
        """The status that the server gives of itself; 0 when it gives none."""
        connection = http.client.HTTPConnection(_reachable(self.options.host).strip("[]"), self.port, timeout=10)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _last_lines(self, count: int) -> list[str]:
        with open(self.log, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64_000))
            return log.read().decode(errors="replace").rstrip().splitlines()[-count:]

    def _end_of_log(self) -> str:
        """Its last lines, after the first error among many, which is mostly the cause."""
        lines = self._last_lines(400)
        cause = next((found.group() for line in lines if (found := CAUSE.search(line))), "")
        about = f" ({cause[:200]})" if cause else ""
        return f"{about}. The end of {self.log}:\n" + "\n".join(lines[-LAST_LINES:])


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # What was killed is gone a moment later; a server that starts again needs its memory and its port.
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def _free_port(host: str, port: int) -> int:
    """The port, or any for 0. A server that is there already must not be taken for the one that starts."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((host, port))
        except OSError as error:
            raise RunError(
                f"Cannot listen at {host}:{port} ({error.strerror}): choose another --port, or 0 for a free one."
            ) from error
        return int(free.getsockname()[1])


def _reachable(host: str) -> str:
    """A host to ask, where a server listens on all of them."""
    known = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104
    return known.get(host, f"[{host}]" if ":" in host else host)


def _shorten(lines: list[str]) -> str:
    return lines[0][:160] if lines else "nothing printed yet"
