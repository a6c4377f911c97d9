"""Environments of small real projects, built in real containers from locks that need little of the index."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentdata.environments.build import build_environment, candidates, rebuild
from agentdata.environments.dependencies import Wishes
from agentdata.environments.images import archive
from agentdata.environments.recipe import EnvironmentRecipe
from agentdata.records import Environment, Rejected
from sandboxes.engine import Engine
from sandboxes.images import BuildBox
from sandboxes.protocol import Limits
from tests.histories import History

pytestmark = pytest.mark.docker
PROJECT = '[project]\nname = "larder"\nversion = "1.0"\n[build-system]\nrequires = ["setuptools>=64"]\n'
TEST = "import larder\n\n\ndef test_it():\n    assert larder.stock() == 1\n"
FILES: dict[str, str | bytes | None] = {
    "pyproject.toml": PROJECT,
    "src/larder/__init__.py": "def stock():\n    return 1\n",
    "tests/test_it.py": TEST,
    ".gitattributes": "tests export-ignore\n*.txt export-subst\n",
    "note.txt": "$Format:%H$\n",
}
PYTHON = "3.11"
RECIPE = EnvironmentRecipe(python=PYTHON, until="2023-07-01T00:00:00Z", step_seconds=300)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def larder(tmp_path_factory: pytest.TempPathFactory) -> History:
    history = History(tmp_path_factory.mktemp("builds") / "repository")
    history.commit("base", FILES)
    history.commit("later", {"src/larder/__init__.py": "def stock():\n    return 2\n"})
    return history


def build(
    engine: Engine, history: History, commit: str = "HEAD~1", recipe: EnvironmentRecipe = RECIPE
) -> tuple[Environment | Rejected, list[str]]:
    built, attempts = build_environment(
        engine, history.path / ".git", "ada/larder", history.git("rev-parse", commit), recipe=recipe
    )
    return built, [attempt.reason for attempt in attempts]


@pytest.fixture(scope="module")
def environment(engine: Engine, larder: History) -> Environment:
    built, reasons = build(engine, larder)
    assert isinstance(built, Environment), built
    assert reasons == [""]
    return built


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
@pytest.mark.parametrize("shell", ["bash -c", "bash -lc", "sh -c"])
def test_python_is_that_of_the_environment_in_every_shell(
    engine: Engine, environment: Environment, user: str, shell: str
) -> None:
    with engine.open(environment.image, limits=Limits(user=user)) as sandbox:
        done = sandbox.run(
            f"cd /testbed && {shell} 'command -v python && python -m pytest -q -p no:cacheprovider tests'"
        )
    assert done.text.startswith("/opt/venv/bin/python\n")
    assert done.status == 0, done.text


def test_the_repository_is_one_commit_under_its_own_name(engine: Engine, environment: Environment) -> None:
    with engine.open(environment.image) as sandbox:
        done = sandbox.run(
            "cd /testbed && git rev-list --all && git status --porcelain && cat note.txt && stat -c %U ."
        )
    assert done.text.split("\n") == [environment.commit, "$Format:%H$", "agent", ""]


def test_root_applies_patches_and_checks_out_as_the_official_harness_does(
    engine: Engine, environment: Environment
) -> None:
    patch = "--- a/note.txt\n+++ b/note.txt\n@@ -1 +1 @@\n-$Format:%H$\n+changed\n"
    with BuildBox(engine, environment.image) as box:  # Its root may do everything, as in the harness's own containers.
        box.put(archive({"it.diff": patch}), "/root")
        script = f"""
set -e
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
git apply --verbose /root/it.diff
git checkout {environment.commit} note.txt
git status --porcelain
python -m pytest -q -p no:cacheprovider tests
"""
        done = box.run(script)
    assert done.status == 0, done.text


def test_a_rebuild_gives_the_same_lock_and_the_same_files(engine: Engine, environment: Environment) -> None:
    again = rebuild(engine, environment)
    assert again.model_copy(update={"image_id": ""}) == environment.model_copy(update={"image_id": ""})
    assert listing(engine, again.image_id) == listing(engine, environment.image_id)


def listing(engine: Engine, image: str) -> str:
    command = (
        "find /testbed /opt/venv -type f ! -name '*.pyc' ! -path '*/.git/index' ! -name RECORD ! -name direct_url.json "
        "-exec sha256sum {} + | sort"
    )
    with engine.open(image, limits=Limits(user="0:0")) as sandbox:
        return sandbox.run(command).text


def test_a_second_commit_shares_the_lock_and_adds_little(
    engine: Engine, larder: History, environment: Environment
) -> None:
    other, _ = build(engine, larder, "HEAD")
    assert isinstance(other, Environment)
    assert (other.lock_id, other.image != environment.image) == (environment.lock_id, True)
    sizes = [
        int(
            subprocess.run(
                ["docker", "image", "inspect", "-f", "{{.Size}}", name], capture_output=True, check=True
            ).stdout
        )
        for name in (other.image, f"agentdata/lock:{other.lock_id}")
    ]
    assert sizes[0] - sizes[1] < 2_000_000


def test_a_project_that_cannot_be_resolved_is_rejected_with_its_log(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "repository")
    history.commit(
        "base", {**FILES, "pyproject.toml": PROJECT.replace("[build", 'dependencies = ["click==0"]\n[build')}
    )
    built, reasons = build(engine, history, "HEAD")
    assert isinstance(built, Rejected)
    assert (built.reason, set(reasons)) == ("unresolvable", {"unresolvable"})
    assert "click" in built.detail


def test_a_module_that_does_not_import_is_rejected(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "repository")
    history.commit("base", {**FILES, "src/larder/__init__.py": "import nowhere\n"})
    recipe = RECIPE.model_copy(update={"most_attempts": 1})
    built, reasons = build(engine, history, "HEAD", recipe)
    assert isinstance(built, Rejected)
    assert built.reason == "import-failed"
    assert reasons == ["import-failed"]


def test_a_package_that_is_imported_and_not_declared_is_installed(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "repository")
    history.commit("base", {**FILES, "src/larder/__init__.py": "import pytz\n"})
    built, reasons = build(engine, history, "HEAD", RECIPE)
    assert isinstance(built, Environment)
    assert "with pytz, imported but not declared" in built.origin
    assert "pytz==" in built.lock
    assert reasons == ["import-failed", ""]


def test_an_installation_that_hangs_is_ended(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "repository")
    history.commit("base", FILES)
    recipe = RECIPE.model_copy(update={"install": ("sleep 600",), "step_seconds": 20, "most_attempts": 1})
    built, reasons = build(engine, history, "HEAD", recipe)
    assert isinstance(built, Rejected)
    assert reasons == ["hang"]


def test_a_repository_without_tests_is_rejected(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "repository")
    files = {key: value for key, value in FILES.items() if key != "tests/test_it.py"}
    history.commit("base", files)
    built, _ = build(engine, history, "HEAD", RECIPE.model_copy(update={"most_attempts": 1}))
    assert isinstance(built, Rejected)
    assert built.reason == "no-tests"


def test_no_python_is_a_reason() -> None:
    wishes = Wishes(project="", modules=(), run=(), build=(), tests=(), requires_python=">=3.99", until="2023-01-01")
    assert list(candidates(wishes, EnvironmentRecipe())) == []


def test_lifting_the_date_comes_last_and_a_recipe_lays_down() -> None:
    wishes = Wishes(project="", modules=(), run=(), build=(), tests=(), requires_python=">=3.10", until="2023-01-01")
    order = list(candidates(wishes, EnvironmentRecipe()))
    assert order[0] == ("3.11", "as-declared")
    assert [level for _, level in order[-2:]] == ["newest", "newest"]
    assert list(candidates(wishes, EnvironmentRecipe(python="3.9", lock="one==1\n"))) == [("3.9", "as-declared")]
