"""The diff that an attempt hands in: it makes the same tree from the base, whatever was done to the repository."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.environments.patches import split
from agentdata.rollouts import submission
from agentdata.rollouts.submission import Baseline
from sandboxes.engine import Engine
from sandboxes.errors import LimitExceeded
from sandboxes.local import LocalSandbox
from sandboxes.protocol import Limits
from tests import gradetoy
from tests.histories import History, numbered

BASE: dict[str, str | bytes | None] = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "long.py": numbered("f", 20),
    "latin.txt": b"caf\xe9\n",
    "data.bin": bytes(range(256)),
    "run.sh": "echo\n",
    ".gitignore": "*.log\nsecret/\n!keep.log\n",
    "sub/.gitignore": "local\n",
    "sub/a.py": "a = 1\n",
    "tracked.log": "is tracked\n",
}


@dataclass
class Tree:
    """A repository in a sandbox, recorded, and a copy of it to apply diffs to."""

    sandbox: LocalSandbox
    copy: Path
    baseline: Baseline

    def run(self, command: str) -> None:
        done = self.sandbox.run(command, workdir="testbed", environment={"GIT_CONFIG_GLOBAL": "/dev/null"})
        assert done.status == 0, done.text

    def diff(self) -> str:
        return self.baseline.diff()

    def paths(self) -> list[str]:
        return sorted(file.path for file in split(self.diff()))


def planted(folder: Path, files: dict[str, str | bytes | None] = BASE) -> Iterator[Tree]:
    with LocalSandbox(folder) as sandbox:
        history = History(folder / "testbed")
        history.write(files)
        if "run.sh" in files:
            (folder / "testbed/run.sh").chmod(0o755)
        history.git("add", "-f", *files)
        history.commit("Begin")
        shutil.copytree(folder / "testbed", folder / "copy", symlinks=True)
        (folder / "records").mkdir()
        yield Tree(sandbox, folder / "copy", record(sandbox, folder))


def record(sandbox: LocalSandbox, folder: Path) -> Baseline:
    return Baseline(sandbox, str(folder / "testbed"), place=str(folder / "records"))


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    yield from planted(tmp_path)


def apply(diff: str, copy: Path) -> None:
    done = subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=copy, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + diff


def contents(root: Path) -> dict[str, tuple[str, bytes]]:
    """Every file outside of .git: what git keeps of its mode, and its content."""
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != ".git"]
        for path in (Path(folder, name) for name in [*files, *(f for f in folders if Path(folder, f).is_symlink())]):
            name = str(path.relative_to(root))
            if path.is_symlink():
                found[name] = ("link", os.fsencode(path.readlink()))
            elif path.is_file():
                found[name] = ("run" if path.stat().st_mode & 0o100 else "file", path.read_bytes())
    return found


def test_no_change_is_no_diff(tree: Tree) -> None:
    tree.run("touch calc.py; mv sub other; mv other sub")
    assert tree.diff() == ""


def test_edits_new_files_deletions_renames_and_modes_are_kept(tree: Tree) -> None:
    tree.run(
        "echo 'x = 1' >> calc.py; mv long.py 'moved to.py'; sed -i s/f_3/g_3/ 'moved to.py'; rm sub/a.py; chmod -x run.sh;"
        " mkdir new; printf 'no end' > new/file; chmod +x new/file; printf '\\0\\1' >> data.bin; ln -s calc.py link; :> empty"
    )
    diff = tree.diff()
    for line in (
        "rename from long.py",
        "rename to moved to.py",
        "old mode 100755",
        "new file mode 100755",
        "deleted file",
    ):
        assert line in diff
    assert "GIT binary patch" in diff
    apply(diff, tree.copy)
    assert contents(tree.copy) == contents(tree.sandbox.directory / "testbed")


def test_a_file_that_is_not_utf8_is_a_binary_patch_beside_texts(tree: Tree) -> None:
    tree.run("printf 'th\\351\\n' >> latin.txt; echo 'x = 1' >> calc.py; printf 'a\\r\\nb\\r' > ends.txt")
    files = {file.path: file for file in split(tree.diff())}
    assert {name: file.binary for name, file in files.items()} == {
        "calc.py": False,
        "ends.txt": False,
        "latin.txt": True,
    }
    apply(tree.diff(), tree.copy)
    assert contents(tree.copy) == contents(tree.sandbox.directory / "testbed")


def test_products_and_what_the_base_ignores_are_left_out(tree: Tree) -> None:
    tree.run(
        "mkdir -p __pycache__ sub/__pycache__ .pytest_cache a.egg-info build/lib node_modules/x secret .git/info;"
        " touch __pycache__/a.pyc sub/b.pyc .pytest_cache/x a.egg-info/PKG-INFO build/lib/calc.py node_modules/x/y.js"
        " secret/key new.log keep.log sub/local .coverage .coverage.host.1; echo more >> tracked.log; touch sub/build"
    )
    assert tree.paths() == ["keep.log", "sub/build", "tracked.log"]


def test_a_folder_that_the_base_tracks_is_no_product(tmp_path: Path) -> None:
    for tree in planted(tmp_path, {"build/a.py": "", "x.egg-info/PKG-INFO": "", "src/build/b.py": ""}):
        tree.run(
            "touch build/new.py dist x.egg-info/new; echo 1 > x.egg-info/PKG-INFO; mkdir dist2; touch src/build/c.py"
        )
        assert tree.paths() == ["build/new.py", "dist", "src/build/c.py", "x.egg-info/PKG-INFO"]


HIDING = {
    "commits": "git add -A && git -c user.name=a -c user.email=a@b commit -qm Hidden",
    "no repository": "rm -rf .git",
    "a broken repository": "rm -rf .git/objects; echo nonsense > .git/HEAD; echo '[' > .git/config; : > .git/index",
    "a repository that is a file": "rm -rf .git; echo 'gitdir: /nowhere' > .git",
    "other flags": "git update-index --assume-unchanged calc.py; git update-index --skip-worktree calc.py",
    "exclusion": "echo '*' >> .git/info/exclude; git config core.excludesFile /dev/stdin",
    "a repository inside": "mkdir sub/in; git init -q sub/in; cd sub; git init -q .; git add a.py;"
    " git -c user.name=a -c user.email=a@b commit -qm In",
    "a work tree elsewhere": "git config core.worktree /; git config core.bare true; git config core.fileMode false",
    "times": "touch -r long.py calc.py sub/b.py",
    "closed files": "chmod 0 calc.py sub/b.py",
    "a closed folder": "chmod 0 sub",
}


@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING.keys())
def test_nothing_done_to_the_repository_hides_a_change(tree: Tree, hiding: str) -> None:
    tree.run(f"sed -i s/-/+/ calc.py; echo 'b = 1' > sub/b.py; {hiding}")
    assert tree.paths() == ["calc.py", "sub/b.py"]


def test_ignore_rules_of_the_policy_count_as_edits_only(tree: Tree) -> None:
    tree.run("echo '*' > .gitignore; echo new > new.py; echo '!new.log' > sub/.gitignore; touch sub/new.log")
    assert tree.paths() == [".gitignore", "new.py", "sub/.gitignore"]


def test_attributes_neither_run_nor_change_anything(tree: Tree) -> None:
    driver = "touch /tmp/ran-$$ ran; cat"
    tree.run(
        f"git config filter.x.clean '{driver}'; git config filter.x.process '{driver}'; git config diff.x.textconv '{driver}';"
        f" git config diff.x.command '{driver}'; git config core.fsmonitor '{driver}'; mkdir -p .git/hooks;"
        " printf '#!/bin/sh\\ntouch ran\\n' > .git/hooks/post-index-change; chmod +x .git/hooks/*;"
        " echo '* filter=x diff=x text eol=crlf ident working-tree-encoding=UTF-16' > .gitattributes;"
        " printf 'a\\r\\n$Id$\\n' > ends.txt"
    )
    apply(tree.diff(), tree.copy)
    assert contents(tree.copy) == contents(tree.sandbox.directory / "testbed")
    assert not (tree.sandbox.directory / "testbed/ran").exists()


def test_files_and_folders_may_change_places(tree: Tree) -> None:
    tree.run(
        "rm calc.py; mkdir calc.py; echo 1 > calc.py/__init__.py; rm -r sub; echo 2 > sub; rm data.bin; mkfifo data.bin;"
        " mkdir -p away/x; mv long.py away/x; ln -s away link; rm run.sh; ln -s link/x/long.py run.sh"
    )
    apply(tree.diff(), tree.copy)
    assert contents(tree.copy) == contents(tree.sandbox.directory / "testbed")


def test_a_folder_behind_a_link_is_gone(tree: Tree) -> None:
    tree.run("mkdir /tmp/$$; mv sub /tmp/$$/sub; ln -s /tmp/$$/sub sub; echo 1 > sub/a.py; rm -r /tmp/$$")
    assert [(file.path, file.change, file.mode) for file in split(tree.diff())] == [
        ("sub", "added", "120000"),
        ("sub/.gitignore", "deleted", ""),
        ("sub/a.py", "deleted", ""),
    ]


def test_folders_that_change_places_are_seen(tree: Tree) -> None:
    tree.run("mkdir d e; echo 1 > d/a; echo 2 > e/a")
    later = record(tree.sandbox, tree.sandbox.directory)
    tree.run("mv d t; mv e d; mv t e")
    assert sorted(file.path for file in split(later.diff())) == ["d/a", "e/a"]


def test_a_file_too_large_is_left_out(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MOST_FILE_BYTES", 5000)
    tree.run("head -c 9999 /dev/zero > core; head -c 9999 /dev/zero > calc.py; echo 1 > small")
    assert tree.paths() == ["small"]


def test_what_was_there_before_is_not_the_policys(tmp_path: Path) -> None:
    for tree in planted(tmp_path):
        tree.run("echo 'x = 1' >> calc.py; echo 1 > untracked.py; rm run.sh; git update-index --chmod=+x sub/a.py")
        later = record(tree.sandbox, tmp_path)
        assert later.diff() == ""
        tree.run("echo 2 > untracked.py; echo 'x = 2' >> calc.py")
        assert sorted(file.path for file in split(later.diff())) == ["calc.py", "untracked.py"]


def test_a_tree_without_a_repository_is_recorded(tmp_path: Path) -> None:
    for tree in planted(tmp_path):
        tree.run("rm -rf .git")
        later = record(tree.sandbox, tmp_path)
        tree.run("sed -i s/-/+/ calc.py; touch new.py")
        assert sorted(file.path for file in split(later.diff())) == ["calc.py", "new.py"]


def test_a_submodule_of_the_base_is_a_folder(tmp_path: Path) -> None:
    for tree in planted(tmp_path):
        tree.run("git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),module; mkdir -p module")
        tree.run("git -c user.name=a -c user.email=a@b commit -qm Module")
        later = record(tree.sandbox, tmp_path)
        tree.run("echo 1 > module/a.py")
        assert [file.path for file in split(later.diff())] == ["module/a.py"]


def test_records_are_cleared_away(tree: Tree) -> None:
    tree.diff()
    tree.diff()
    assert len([*(tree.sandbox.directory / "records").iterdir()]) == 1


NAMES = st.sampled_from(["a", "b.py", "c d", "ä", 'q"uo\\te', "tab\there", "d/a", "d/e/f", "g/h", "-n", "line\nend"])
CONTENTS = st.binary(max_size=30) | st.sampled_from([b"", b"a\nb\nc\n" * 20, b"a\r\nb\r\n", b"caf\xe9\n", b"x\0y\n"])
FILES = st.tuples(st.sampled_from(["file", "run", "link"]), CONTENTS)
TREES = st.dictionaries(NAMES, FILES, max_size=6)


def put(root: Path, files: dict[str, tuple[str, bytes]]) -> None:
    for path in root.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, (kind, content) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            path.symlink_to(content.replace(b"\0", b"").decode("utf-8", "ignore") or "x")
        else:
            path.write_bytes(content)
            path.chmod(0o755 if kind == "run" else 0o644)


@given(TREES, TREES)
@settings(max_examples=15, deadline=None)
def test_the_diff_makes_the_tree_from_the_base(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, tuple[str, bytes]], after: dict[str, tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("trees")
    with LocalSandbox(folder) as sandbox:
        history = History(folder / "testbed")
        put(history.path, before)
        history.commit("Begin")
        shutil.copytree(history.path, folder / "copy", symlinks=True)
        (folder / "records").mkdir()
        baseline = record(sandbox, folder)
        put(history.path, after)
        diff = baseline.diff()
        if diff:
            apply(diff, folder / "copy")
        assert contents(folder / "copy") == contents(history.path)


@pytest.fixture
def in_container(engine: Engine, base: str) -> Iterator[Callable[[str], str]]:
    """Runs commands as the policy would, at /testbed, and gives the names in the diff."""
    with engine.open(gradetoy.image(engine, base)) as sandbox:
        baseline = Baseline(sandbox)

        def attempt(command: str) -> str:
            done = sandbox.run(f"base=$(echo /var/tmp/base.*); {command}", workdir="/testbed")
            assert done.status == 0, done.text
            return " ".join(sorted(file.path for file in split(baseline.diff())))

        yield attempt


@pytest.mark.docker
def test_a_policys_private_files_are_read_with_its_own_rights(in_container: Callable[[str], str]) -> None:
    assert (
        in_container("umask 077; echo 2 > b; mkdir c; echo 3 > c/d; chmod 0 calc; echo 4 > e; chmod 0 c e") == "b c/d e"
    )


@pytest.mark.docker
def test_the_record_cannot_be_changed_by_the_policy(in_container: Callable[[str], str]) -> None:
    spoil = "rm -rf $base; echo > $base/git/index; mv $base /tmp/x; ln -sfn /tmp $base; chmod -R 777 $base"
    assert in_container(f"for one in 1; do {spoil}; done 2> /dev/null; echo 2 > b; true") == "b"


@pytest.mark.docker
def test_programs_of_the_policy_are_not_run(in_container: Callable[[str], str]) -> None:
    write = "printf '#!/bin/sh\\ntouch /tmp/ran\\n'"
    plant = f"mkdir bin; for name in git find cp bash; do {write} > bin/$name; done; chmod +x bin/*"
    found = in_container(
        f"{plant}; echo 'touch /tmp/ran' > ~/.bashrc; git config --global core.fsmonitor 'touch /tmp/ran'"
    )
    assert found == "bin/bash bin/cp bin/find bin/git"
    assert in_container("test ! -e /tmp/ran").startswith("bin/bash")


@pytest.mark.docker
def test_what_the_image_has_beside_the_commit_is_recorded(engine: Engine, base: str) -> None:
    with engine.open(gradetoy.image(engine, base)) as sandbox:
        sandbox.run(
            "echo '*.log' > .gitignore; echo 1 > a; echo 1 > b.log; echo '#' >> calc/core.py", workdir="/testbed"
        )
        baseline = Baseline(sandbox)
        assert baseline.diff() == ""
        sandbox.run("echo 2 > a; echo 2 > b.log; echo 2 > c.log", workdir="/testbed")
        assert sorted(file.path for file in split(baseline.diff())) == ["a", "b.log", "c.log"]


@pytest.mark.docker
def test_a_policy_that_leaves_no_room_exceeded_a_limit(engine: Engine, base: str) -> None:
    with engine.open(gradetoy.image(engine, base), limits=Limits(processes=40)) as sandbox:
        baseline = Baseline(sandbox)
        sandbox.run("for n in $(seq 60); do sleep 600 & done 2> /dev/null", workdir="/testbed")
        with pytest.raises(LimitExceeded, match="cannot be recorded"):
            baseline.diff()


@pytest.mark.docker
def test_a_policy_that_changes_the_records_as_they_are_made_is_at_fault(engine: Engine, base: str) -> None:
    with engine.open(gradetoy.image(engine, base)) as sandbox:
        baseline = Baseline(sandbox)
        sandbox.run("(while :; do rm -rf /var/tmp/work.*; done) > /dev/null 2>&1 &", workdir="/testbed")
        with pytest.raises(LimitExceeded):
            baseline.diff()
