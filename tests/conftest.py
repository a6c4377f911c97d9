"""Fixtures that several files share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentdata.errors import UsageError
from agentdata.rollouts.serving import Server, ServerOptions
from sandboxes.engine import Engine
from sandboxes.errors import EngineError
from tests.histories import History

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def history(tmp_path: Path) -> History:
    """An empty repository."""
    return History(tmp_path / "repository")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine. Tests that need one are skipped where none answers, except in CI."""
    try:
        found = Engine()
    except EngineError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield found
    found.close()


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real vLLM server with a tiny random model. Tests that need it are skipped where it is not, except in CI."""
    from agentdata.rollouts.vllm_environment import find_python
    from tests.tiny_model import make_model

    try:
        python = find_python()
    except UsageError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("vllm")
    options = ServerOptions(
        model=str(make_model(folder / "tiny")),
        name="tiny",
        python=python,
        dtype="float32",
        tool_call_parser="hermes",
        # Compiling would take longer than all that the tests ask for.
        extra=("--enforce-eager", "--max-num-seqs", "16"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        server = Server(options, folder / "vllm.log")
    with server:
        server.wait_ready(seconds=600)
        yield server


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """An image with Python 3.11, bash, git and the user `agent`."""
    from sandboxes.images import base_image

    return base_image(engine, "3.11")


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """A real browser. Tests that need one are skipped where none is installed, except in CI."""
    from tests.chromium import start_chromium

    yield from start_chromium()
