"""A server's processes: started, watched, started again, ended. What they serve is another test's."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from agentdata.errors import RunError, UsageError
from agentdata.rollouts import serving, vllm_environment
from agentdata.rollouts.serving import Server, ServerOptions, arguments
from tests.vllm_double import make_double


@pytest.fixture(autouse=True)
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(make_double(tmp_path / "double")))
    monkeypatch.setattr(serving, "WATCH_SECONDS", 0.05)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "vllm.log"


def options(log: Path, **others: object) -> ServerOptions:
    return ServerOptions.model_validate({"model": str(log.with_name("starts")), "python": sys.executable, **others})


def engines(log: Path) -> list[int]:
    return [int(pid) for pid in re.findall(r"engine (\d+)", log.read_text())]


def lives(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def crash(server: Server) -> None:
    with suppress(OSError, urllib.error.URLError):
        urllib.request.urlopen(server.url.removesuffix("/v1") + "/crash", timeout=5).close()


def watched(server: Server) -> list[str]:
    """What is said while the server is watched in a thread, the last error too."""
    said: list[str] = []

    def watch() -> None:
        try:
            server.watch(say=said.append)
        except RunError as error:
            said.append(str(error))

    server.wait_ready(seconds=20)
    threading.Thread(target=watch, daemon=True).start()
    return said


def wait_for(said: list[str], words: str) -> str:
    for _ in range(600):
        for line in list(said):
            if words in line:
                return line
        time.sleep(0.05)
    raise AssertionError(said)


def test_a_server_is_ready_and_leaves_no_process(log: Path) -> None:
    with Server(options(log), log) as server:
        server.wait_ready(seconds=20)
        urllib.request.urlopen(server.url.replace("/v1", "/health"), timeout=5).close()
        (engine,) = engines(log)
        assert lives(engine)
    assert not lives(engine)


def test_options_become_vllm_s() -> None:
    plain = ServerOptions(model="m", python="python")
    full = plain.model_copy(
        update={
            "name": "n", "tensor_parallel": 2, "context": 4096, "tool_call_parser": "hermes", "dtype": "bfloat16",
            "chat_template": "t.jinja", "extra": ("--enforce-eager",),
        }
    )  # fmt: skip
    assert arguments(plain, 80) == ["--model", "m", "--host", "127.0.0.1", "--port", "80"]
    assert " ".join(arguments(full, 80)) == (
        "--model m --served-model-name n --host 127.0.0.1 --port 80 --tensor-parallel-size 2 --max-model-len 4096 "
        "--dtype bfloat16 --chat-template t.jinja --tool-call-parser hermes --enable-auto-tool-choice --enforce-eager"
    )


def test_a_server_that_does_not_start_shows_why(log: Path) -> None:
    with Server(options(log, dtype="broken"), log) as server, pytest.raises(RunError) as failed:
        server.wait_ready(seconds=20)
    assert re.match(
        r"vLLM ended with status 3 before it was ready \(ValueError: no such type\)\. The end of .*:\n(.|\n)*no such type",
        str(failed.value),
    )
    assert not lives(*engines(log))


def test_a_server_that_crashes_is_started_again_at_the_same_place(log: Path) -> None:
    with Server(options(log), log) as server:
        said = watched(server)
        crash(server)
        assert wait_for(said, "answers again").endswith(server.url)
        old, new = engines(log)
        assert not lives(old)
        assert lives(new)
        assert wait_for(said, "restart 1 of 5").startswith("vLLM ended with status 7; ")


def test_a_restart_that_fails_is_followed_by_another(log: Path) -> None:
    with Server(options(log, dtype="once-broken"), log) as server:
        said = watched(server)
        crash(server)
        wait_for(said, "answers again")
        assert wait_for(said, "restart 2 of 5").startswith("vLLM ended with status 3 before it was ready; ")


def test_restarts_are_bounded(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_RESTARTS", 1)
    with Server(options(log), log) as server:
        said = watched(server)
        crash(server)
        wait_for(said, "answers again")
        crash(server)
        wait_for(said, "vLLM ended with status 7, and was restarted 1 times before")


def test_a_server_ends_with_whoever_started_it(log: Path) -> None:
    code = (
        "import sys, time, pathlib; from agentdata.rollouts.serving import *; "
        f"s = Server(ServerOptions(model={str(log.with_name('starts'))!r}, python=sys.executable), pathlib.Path({str(log)!r}));"
        "s.wait_ready(); print(s.pid, flush=True); time.sleep(60)"
    )
    root = str(Path(__file__).parent.parent)
    path = {**os.environ, "PYTHONPATH": os.pathsep.join((root, os.environ["PYTHONPATH"]))}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=path) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        starter.kill()
    for _ in range(100):
        if not lives(server):
            break
        time.sleep(0.05)
    assert not lives(server)
    # The real engines end when their server does; this one knows nothing of servers.
    os.kill(engines(log)[0], signal.SIGKILL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_the_endpoint_and_ends_on_a_signal(log: Path, sent: signal.Signals) -> None:
    command = [
        sys.executable, "-c", "from agentdata.cli.main import main; main()", "serve", str(log.with_name("starts")),
        "--port", "0", "--log", str(log), "--python", sys.executable, "--", "--enforce-eager",
    ]  # fmt: skip
    root = str(Path(__file__).parent.parent)
    path = {**os.environ, "PYTHONPATH": os.pathsep.join((root, os.environ["PYTHONPATH"]))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=path) as running:
        assert running.stdout is not None
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1\n", running.stdout.readline())
        running.send_signal(sent)
        _, words = running.communicate(timeout=30)
    assert running.returncode == 0
    assert words.endswith("vLLM is stopped.\n")
    assert "--enforce-eager" in log.read_text()
    assert not lives(*engines(log))


def test_a_port_that_is_taken_is_refused(log: Path) -> None:
    with Server(options(log), log) as server:
        server.wait_ready(seconds=20)
        with pytest.raises(RunError, match="choose another --port"):
            Server(options(log, port=server.port), log)


def test_an_interpreter_without_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vllm_environment.find_python(sys.executable) == sys.executable
    monkeypatch.delenv("PYTHONPATH")
    for python in (sys.executable, "no-such-python"):
        with pytest.raises(UsageError, match=r"--python .* is no interpreter with vLLM"):
            vllm_environment.find_python(python)


def test_where_vllm_is_nowhere_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTDATA_VLLM", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="run `agentdata serve --install`"):
        vllm_environment.find_python()


def test_an_environment_that_is_ready_is_found_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTDATA_VLLM", str(tmp_path))
    monkeypatch.setattr(vllm_environment, "GPU_REQUIREMENTS", vllm_environment.CPU_REQUIREMENTS)
    (tmp_path / ".ready").write_text(repr(vllm_environment.CPU_REQUIREMENTS))
    assert vllm_environment.find_python() == vllm_environment.install(tmp_path) == str(tmp_path / "bin" / "python")
