"""The demo: the same history everywhere, every kind of landing, a proved sample of each change that is kept."""

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentdata.cli.demo import build
from agentdata.cli.main import app
from agentdata.harvest.check import check_run
from agentdata.records import Change, ChatSample, Landing, Rejected, TextSample, Trace
from agentdata.shards import read_table

HEAD = "cad96f32c5504bc89d6a5d9da423b482e27f2fb9"
NUMBERS = [3, 5, 7, 9, 10, 12, 13, 15, 16]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("demo") / "run"
    result = CliRunner().invoke(app, ["demo", "-o", str(run)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "| ▶ str_replace_editor" in result.stdout
    assert "agentdata" in result.stdout
    return run


def git(folder: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", f"--git-dir={folder / 'larder.git'}", *arguments], text=True).strip()


def test_the_history_has_the_same_names_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (tmp_path / ".gitconfig").write_text("[init]\n defaultBranch = trunk\n[commit]\n gpgSign = true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    build(tmp_path)
    assert git(tmp_path, "rev-parse", "main") == HEAD
    assert git(tmp_path, "fsck", "--strict") == ""


def test_every_kind_of_landing_is_met(run: Path) -> None:
    landings = list(read_table(run, "landings", Landing))
    assert {landing.kind for landing in landings} == {"merge", "squash", "rebase", "plain"}
    assert [landing.number for landing in landings if landing.number and not landing.duplicate_of] == [
        3,
        5,
        6,
        7,
        9,
        10,
        12,
        13,
        15,
        16,
    ]
    assert any(landing.reverts for landing in landings)
    changes = list(read_table(run, "changes", Change))
    assert {edit.status for change in changes for edit in change.edits} >= {"added", "modified", "renamed", "deleted"}
    assert {change.number: len(change.issues) for change in changes if change.issues} == {
        3: 1,
        5: 1,
        9: 1,
        12: 1,
        15: 1,
    }
    assert {change.licence for change in changes} == {"MIT"}


def test_each_kept_change_is_told_and_proved(run: Path) -> None:
    for rendering, record in (("markdown", TextSample), ("xml", TextSample), ("messages", ChatSample)):
        assert [sample.number for sample in read_table(run, rendering, record)] == NUMBERS
    assert {one.reason for one in read_table(run, "rejected", Rejected)} == {"plain-commit", "bot-author", "duplicate"}
    assert not any(trace.unparsed for trace in read_table(run, "traces", Trace))
    check_run(run, share=1)


def test_a_second_demo_finds_the_first(run: Path) -> None:
    manifest = (run / "manifest.json").read_bytes()
    result = CliRunner().invoke(app, ["demo", "-o", str(run)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Going on in" in result.stdout
    assert (run / "manifest.json").read_bytes() == manifest


def test_the_story_holds_together_at_its_head(run: Path) -> None:
    names = git(run.parent / "demo-repository", "ls-tree", "-r", "--name-only", "main").split()
    assert "larder/quantities.py" in names
    assert not {"larder/units.py", "larder/table.py"} & set(names)
    for name in names:
        if name.endswith(".py"):
            compile(git(run.parent / "demo-repository", "show", f"main:{name}"), name, "exec")
