"""Run the command line as its users do, and look at the runs that it leaves."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.histories import History, numbered

ROOT = Path(__file__).parent.parent
# A shell starts background jobs, and so what they start, with Ctrl-C ignored.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = (sys.executable, "-c", f"{HEED}; from agentdata.cli.main import main; main()")


@dataclass(frozen=True)
class Finished:
    """How a command ended. A negative status is a signal's number."""

    status: int
    out: str
    err: str
    peak_megabytes: int = 0

    def explains(self, *words: str, status: int | None = None) -> None:
        """Assert a failure that is told in plain words: no traceback, and each of `words` in what is said."""
        self.has_no_traceback()
        assert self.status != 0, self
        if status is not None:
            assert self.status == status, self
        assert self.err.strip(), self
        for word in words:
            assert word in self.err, f"{word!r} is not said in {self.err!r}"

    def succeeds(self) -> None:
        self.has_no_traceback()
        assert self.status == 0, self

    def has_no_traceback(self) -> None:
        assert "Traceback" not in self.err, self.err


def agentdata(
    *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None, seconds: int = 60
) -> Finished:
    """Run a command in a forked copy of this process, which saves the imports; otherwise like `launch`."""
    # Imported before forking, so that it is imported once.
    from agentdata.cli.main import main

    for module in ("check", "run", "show"):
        import_module(f"agentdata.harvest.{module}")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(main, [str(argument) for argument in arguments], out.fileno(), err.fileno(), cwd, environment or {})
        deadline = time.monotonic() + seconds
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise TimeoutError(f"agentdata {arguments} took more than {seconds} s")
            time.sleep(0.01)
        return Finished(os.waitstatus_to_exitcode(ended[1]), _text(out), _text(err))


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def _become(
    main: Callable[[], None], arguments: list[str], out: int, err: int, cwd: Path | None, environment: Mapping[str, str]
) -> None:
    """The life of a forked command: it never returns to the test."""
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(
            os.fdopen(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.simplefilter("ignore")
        os.environ.update(environment)
        if cwd is not None:
            os.chdir(cwd)
        sys.argv = ["agentdata", *arguments]
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                status = status or 120
        os._exit(status)


def launch(
    *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start a command as a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 60) -> Finished:
    """Wait for a launched command."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Finished(process.returncode, out, err)


def measured(*arguments: str | Path, seconds: float = 100) -> Finished:
    """Run a command in a process of its own and note the memory of the largest process in it."""
    inner = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", inner, *COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    *out, peak = done.stdout.splitlines()
    unit = 1024 if sys.platform == "linux" else 1 << 20
    return Finished(done.returncode, "\n".join(out), done.stderr, int(peak) // unit)


def contents(run: Path) -> dict[str, str]:
    """Digest of every file of a run but its locks."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def table(run: Path, name: str) -> list[dict[str, Any]]:
    """All rows of a table, in the order of the shards' names."""
    rows: list[dict[str, Any]] = []
    for path in sorted((run / name).glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            rows += file.read().to_pylist()
    return rows


def reasons(run: Path) -> dict[str, int]:
    """How often each `stage/reason` occurs among the rejected rows."""
    counts: dict[str, int] = {}
    for row in table(run, "rejected"):
        key = f"{row['stage']}/{row['reason']}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def processes_mentioning(word: str) -> list[int]:
    """Processes whose command line or environment mentions a word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                seen = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if word.encode() in seen and not dead:
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def small_history(path: Path, commits: int = 6, *, name: str = "a") -> History:
    """A repository with one Python file and a few plain commits that change it."""
    history = History(path)
    history.commit("Begin", {f"{name}.py": numbered(name, 4), "README.md": "# Small\n"})
    for number in range(1, commits):
        history.commit(
            f"Return {number} more from {name}_0", {f"{name}.py": numbered(name, 4).replace("+ 0", f"+ {number}00")}
        )
    return history
