"""The doctor says of each thing whether it works, and what to do where it does not."""

from pathlib import Path

import pytest

from agentdata.cli import doctor
from sandboxes.engine import Engine
from tests.runs import agentdata

NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "200"}


def test_every_check_is_told_and_what_fails_has_a_remedy(tmp_path: Path) -> None:
    done = agentdata("doctor", environment={**NOWHERE, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    done.succeeds()
    for name in doctor.CHECKS:
        assert f" {name} " in done.out
    assert "systemctl start docker" in done.out
    assert "http://127.0.0.1:9: " in done.out


def test_square_brackets_of_a_remedy_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        doctor, "CHECKS", {"vLLM": lambda: doctor.Finding(False, "[gone]", "pip install 'agentdata[vllm]'")}
    )
    doctor.doctor()
    shown = capsys.readouterr().out
    assert "[gone]" in shown
    assert "pip install 'agentdata[vllm]'" in shown


@pytest.mark.docker
def test_an_engine_that_answers_is_described_and_its_own_disk_measured(engine: Engine) -> None:
    found = doctor.CHECKS["Docker engine"]()
    assert found.works
    assert engine.host in found.state
    if Path(engine.root).is_dir():
        assert engine.root in doctor.CHECKS["disk"]().state


def test_an_address_of_a_hub_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "ftp://hub.example")
    assert doctor.CHECKS["hub"]() == doctor.Finding(False, "ftp://hub.example", "HF_ENDPOINT must begin with https://")
