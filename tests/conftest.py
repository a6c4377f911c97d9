"""Fixtures that several files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.engine import Engine
from sandboxes.errors import EngineError
from tests.histories import History


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
def base(engine: Engine) -> str:
    """An image with Python 3.11, bash, git and the user `agent`."""
    from sandboxes.images import base_image

    return base_image(engine, "3.11")
