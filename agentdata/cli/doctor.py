"""`agentdata doctor`: what works on this machine, and what to do about the rest."""

import importlib.util
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FREE_BYTES_WANTED = 50 * 10**9
CHECK_SECONDS = 10.0


class Finding(NamedTuple):
    """What was found out about one thing."""

    works: bool
    state: str
    remedy: str = ""


def doctor() -> None:
    """Say what works here (git, engine, disk, GPU, vLLM, hub, debootstrap, uv), and what to do about the rest.

    Example: agentdata doctor
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "what", "state", "what to do", box=None)
    for name, check in CHECKS.items():
        found = check()
        table.add_row(
            "[green]ok[/]" if found.works else "[red]no[/]",
            name,
            escape(found.state),
            "" if found.works else escape(found.remedy),
        )
    Console().print(table)


def _git() -> Finding:
    version = _first_line("git", "version").removeprefix("git version ")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return Finding(numbers >= (2, 34), version or "not found", "install git 2.34 or newer")


def _engine() -> Finding:
    from sandboxes.engine import Engine
    from sandboxes.errors import SandboxError

    try:
        engine = Engine()
        with engine.call("asking for its version") as api:
            version = api.version()
        boxes = len(engine.containers())
        engine.close()
    except SandboxError as error:
        return Finding(False, "cannot be used", str(error))
    return Finding(True, f"{version['Version']} at {engine.host}, {engine.cpus:.0f} CPUs, {boxes} containers of ours")


def _disk() -> Finding:
    place = _engine_root()
    free = shutil.disk_usage(place).free
    return Finding(
        free >= FREE_BYTES_WANTED,
        f"{free / 1e9:.0f} GB free at {place}",
        f"have {FREE_BYTES_WANTED / 1e9:.0f} GB free for images: agentdata sandbox gc --max-disk 50GB",
    )


def _engine_root() -> Path:
    """Where the engine keeps its images, if that is on this machine."""
    from sandboxes.engine import Engine
    from sandboxes.errors import SandboxError

    try:
        engine = Engine(reap=False)
        root = Path(engine.root)
        engine.close()
    except SandboxError:
        root = Path("/var/lib/docker")
    return root if root.is_dir() else Path.cwd()


def _gpu() -> Finding:
    names = _first_line("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return Finding(bool(names), names or "none", "only training and a local vLLM need one; rent it, or use an endpoint")


def _vllm() -> Finding:
    if importlib.util.find_spec("vllm"):
        from importlib.metadata import version

        return Finding(True, version("vllm"))
    return Finding(False, "not installed", "pip install 'agentdata[vllm]' on a machine with a GPU, or use an endpoint")


def _hub() -> Finding:
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not host.startswith(("https://", "http://")):
        return Finding(False, host, "HF_ENDPOINT must begin with https://")
    try:
        urllib.request.urlopen(f"{host}/api/models?limit=1", timeout=CHECK_SECONDS).close()  # noqa: S310
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(
            False, f"{host}: {reason}", "check network and proxy, set HF_ENDPOINT to a mirror, or work offline"
        )
    signed = os.environ.get("HF_TOKEN") or (Path.home() / ".cache/huggingface/token").is_file()
    return Finding(True, f"{host}, {'with' if signed else 'without'} a token")


def _debootstrap() -> Finding:
    found = shutil.which("debootstrap")
    return Finding(
        bool(found),
        found or "not found",
        "apt-get install debootstrap, or set AGENTDATA_BASE_IMAGE to images of a registry",
    )


def _uv() -> Finding:
    version = _first_line("uv", "--version")
    if not version and importlib.util.find_spec("uv"):
        version = "installed as a package"
    return Finding(bool(version), version or "not found", "pip install uv")


def _first_line(*command: str) -> str:
    """The first line that a program prints; empty when it is not there or fails."""
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


CHECKS: dict[str, Callable[[], Finding]] = {
    "git": _git,
    "Docker engine": _engine,
    "disk": _disk,
    "debootstrap": _debootstrap,
    "uv": _uv,
    "GPU": _gpu,
    "vLLM": _vllm,
    "hub": _hub,
}
