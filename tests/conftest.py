"""Fixtures that several files share."""

from pathlib import Path

import pytest

from tests.histories import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    """An empty repository."""
    return History(tmp_path / "repository")
