"""The scaffolds that come with the toolkit: what a policy sees changes only with the version."""

import hashlib
import json
from pathlib import Path

import pytest

import recipes
from agentdata.errors import UsageError

SEEN = {
    "bash-only": ("1", "f6296d02ab82"),
    "editor": ("1", "98fa410238e3"),
    "editor-xml": ("1", "35bfc44d9748"),
}
"""Version, and digest of everything that a policy sees. A new digest needs a new version."""


@pytest.mark.parametrize("name", recipes.scaffolds())
def test_another_prompt_is_another_version(name: str) -> None:
    scaffold = recipes.load_scaffold(name)
    digest = hashlib.sha256(scaffold.model_dump_json(exclude={"name", "version"}).encode()).hexdigest()[:12]
    assert (scaffold.version, digest) == SEEN[name]
    assert scaffold.name == name


def test_both_sides_share_one_set_of_tools() -> None:
    tools = recipes.load_scaffold("editor").tools
    assert recipes.load_harvest("contextual").tools == tools == recipes.load_scaffold("editor-xml").tools
    assert [tool["function"]["name"] for tool in json.loads(tools)] == ["bash", "str_replace_editor", "submit"]


def test_a_scaffold_may_be_a_file_with_prompts_beside_it(tmp_path: Path) -> None:
    text = (recipes.HERE / "scaffolds/editor.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(
        text.replace("prompts/system.md", "mine.md").replace("name: editor", "name: mine")
    )
    (tmp_path / "mine.md").write_text("Work.\n")
    mine = recipes.load_scaffold(str(tmp_path / "mine.yaml"))
    assert (mine.name, mine.system_prompt) == ("mine", "Work.")


def test_a_scaffold_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'editr'.*bash-only, editor, editor-xml"):
        recipes.load_scaffold("editr")


def test_a_scaffold_that_does_not_fit_says_where(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nversion: '1'\ntoolbox: hammer\nform: xml\n")
    with pytest.raises(UsageError, match="toolbox"):
        recipes.load_scaffold(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("tools", ["{", '{"a": 1}', '[{"function": {}}]'])
def test_tools_that_are_none_are_refused(tmp_path: Path, tools: str) -> None:
    text = (recipes.HERE / "scaffolds/editor.yaml").read_text().replace("prompts/tools.json", "mine.json")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "mine.json").write_text(tools)
    with pytest.raises(UsageError, match="tools"):
        recipes.load_scaffold(str(tmp_path / "mine.yaml"))
