"""Whatever is planted in an environment and does not belong to its commit is found."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentdata.environments.images import Steps, write_tree
from agentdata.environments.leaks import SearchError, find_leaks
from agentdata.environments.snapshot import Snapshot
from agentdata.harvest import git
from sandboxes.engine import Engine
from sandboxes.images import BuildBox, base_image
from tests.histories import History

pytestmark = pytest.mark.docker
AS_GIT = "cd /testbed && export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b && "
SITE = "/opt/venv/lib/python3.11/site-packages"
PLANTS = {
    "a later commit on the branch": "echo 1 > new && git add new && git commit -qm later",
    "a loose object": "echo later | git hash-object -w --stdin",
    "a loose object that nothing names, packed": (
        "echo later | git hash-object -w --stdin | git pack-objects -q .git/objects/pack/pack && git prune-packed"
    ),
    "a promisor pack": "for it in .git/objects/pack/*.pack; do touch ${it%.pack}.promisor; done",
    "a pack without its index": "touch .git/objects/pack/pack-1234567890123456789012345678901234567890.pack",
    "objects of another repository": (
        "git init -q /srv/other && echo later | git -C /srv/other hash-object -w --stdin && "
        "echo /srv/other/.git/objects > .git/objects/info/alternates"
    ),
    "a reflog": "mkdir -p .git/logs && echo 0 1 later > .git/logs/HEAD",
    "a tag": "git -c tag.gpgSign=false tag -am later v2",
    "a light tag": "git tag v2",
    "a stash": "echo 1 >> one.py && git stash -q",
    "a remote": "git remote add origin https://host.invalid/larder",
    "a remote branch": "git update-ref refs/remotes/origin/main HEAD",
    "ORIG_HEAD": "git rev-parse HEAD > .git/ORIG_HEAD",
    "FETCH_HEAD": "git rev-parse HEAD > .git/FETCH_HEAD",
    "grafts": "git rev-parse HEAD > .git/info/grafts",
    "a second boundary": "echo 1234567890123456789012345678901234567890 >> .git/shallow",
    "a replacement": "git replace $(git rev-parse HEAD:one.py) $(echo later | git hash-object -w --stdin)",
    "a hook": "mkdir -p .git/hooks && touch .git/hooks/post-checkout",
    "another repository": "git init -q /srv/other",
    "a bare repository": "git init -q --bare /srv/bare",
    "a bundle": "git bundle create -q /srv/it.bundle HEAD",
    "pip's cache": "mkdir -p /root/.cache/pip/http && touch /root/.cache/pip/http/it",
    "uv's cache of the agent": "mkdir -p /home/agent/.cache/uv && touch /home/agent/.cache/uv/it",
    "a wheel": "touch /srv/larder-9.0-py3-none-any.whl",
    "an installed later version": f"mkdir -p {SITE}/larder-9.0.dist-info",
    "an installed later version for the system": "mkdir -p /usr/lib/python3/dist-packages/Larder-9.0.egg-info",
    "the code without metadata": f"mkdir -p {SITE}/larder && touch {SITE}/larder/__init__.py",
    "the code vendored in a tool": f"mkdir -p {SITE}/tool/_vendor/larder && touch {SITE}/tool/_vendor/larder/__init__.py",
}


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    history = History(tmp_path_factory.mktemp("leaks") / "repository")
    history.commit("before", {"one.py": "x = 0\n"})
    commit = history.commit("base", {"one.py": "x = 1\n", "larder/__init__.py": ""})
    history.commit("after", {"one.py": "x = 2\n"})
    return history.path / ".git", commit


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def snapshot(commit: tuple[Path, str]) -> Iterator[Snapshot]:
    with git.Repository(commit[0]) as repository:
        yield Snapshot(repository, commit[1])


@pytest.fixture(scope="module")
def image(engine: Engine, snapshot: Snapshot) -> str:
    with BuildBox(engine, base_image(engine, "3.11")) as box:
        box.run("rm -rf /usr/share/python-wheels")
        write_tree(Steps(box, [], 60), snapshot)
        return box.commit("agentdata-test/leaks:base")


@pytest.fixture
def box(engine: Engine, image: str) -> Iterator[BuildBox]:
    with BuildBox(engine, image) as box:
        yield box


def leaks(box: BuildBox, snapshot: Snapshot, *, dated: bool = False) -> list[str]:
    return find_leaks(box, snapshot, project="larder", modules=("larder",), dated=dated)


def test_a_fresh_tree_has_none_and_git_works_in_it(box: BuildBox, snapshot: Snapshot) -> None:
    assert leaks(box, snapshot) == []
    shown = box.run("cd /testbed && git status --porcelain && git log --format=%H && git fsck --strict")
    assert (shown.status, shown.text.split()[0]) == (0, snapshot.commit)
    assert box.run("cd /testbed && git checkout -q $(git rev-parse HEAD) -- one.py && git diff --exit-code").status == 0


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_leak_is_found(box: BuildBox, snapshot: Snapshot, plant: str) -> None:
    planted = box.run(AS_GIT + PLANTS[plant])
    assert planted.status == 0, planted.text
    assert leaks(box, snapshot)


def test_what_is_vendored_in_a_dated_package_is_of_the_past(box: BuildBox, snapshot: Snapshot) -> None:
    box.run(f"mkdir -p {SITE}/pip/_vendor/larder && touch {SITE}/pip/_vendor/larder/__init__.py")
    assert leaks(box, snapshot, dated=True) == []
    assert leaks(box, snapshot)


def test_the_editable_installation_is_the_project_and_no_leak(box: BuildBox, snapshot: Snapshot) -> None:
    box.run(f"mkdir -p {SITE}/larder-1.0.dist-info /testbed/larder.egg-info")
    box.run(f'echo \'{{"url": "file:///testbed"}}\' > {SITE}/larder-1.0.dist-info/direct_url.json')
    assert leaks(box, snapshot) == []


def test_a_search_that_did_not_end_is_no_answer(box: BuildBox, snapshot: Snapshot) -> None:
    box.run("rm -rf /testbed")
    with pytest.raises(SearchError):
        leaks(box, snapshot)
