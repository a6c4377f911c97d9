"""Diffs to their files, and what each of them is to a grader."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentdata.environments import patches
from agentdata.environments.patches import kind_of, split
from tests.histories import History

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\x00", exclude_categories=("Cs",)), min_size=1, max_size=8
)
PATHS = (
    st.lists(NAMES, min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: not {".", "..", ".git"} & {part.lower() for part in path.split("/")})
)
LINES = st.lists(
    st.sampled_from(
        ["a", "", "-- a/x", "++ b/x", "diff --git a/x b/x", "@@ -1 +1 @@", "+++ b/y", "tail\r", " x", "\\ No"]
    ),
    max_size=12,
)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "core.autocrlf=false", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.decode(
        "utf-8", "surrogateescape"
    )


def diff_of(folder: Path, before: dict[str, bytes], after: dict[str, bytes]) -> str:
    git(folder, "init", "-q")
    for files in (before, after):
        for path in folder.rglob("*"):
            if path.is_file() and ".git" not in path.relative_to(folder).parts:
                path.unlink()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        git(folder, "add", "-A", "-f")
        if files is before:
            git(folder, "commit", "-qm", "before", "--allow-empty")
    return git(folder, "diff", "--cached", "--binary", "-M")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(PATHS, st.tuples(LINES, LINES), min_size=1, max_size=4))
def test_the_files_of_a_diff_are_those_that_git_names(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[list[str], list[str]]]
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    try:
        before = {f"d/{name}": "\n".join(old).encode() for name, (old, _) in files.items()}
        after = {f"d/{name}": "\n".join(new).encode() for name, (_, new) in files.items()}
        diff = diff_of(folder, before, after)
    except OSError:
        return
    named = git(folder, "diff", "--cached", "--name-only", "-z").split("\0")[:-1]
    assert [patch.path for patch in split(diff)] == named
    assert patches.join(split(diff)) == diff


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300) | LINES.map("\n".join))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert len(patches.join(split(text))) <= len(text) + text.count("\n") + 1


def test_binary_renamed_deleted_and_mode_changes_are_told_apart(tmp_path: Path) -> None:
    body = b"line\n" * 50
    diff = diff_of(
        tmp_path,
        {"gone.py": b"x\n", "old name.py": body, "image.bin": b"\0\1", "stay.py": b"1\n"},
        {"new name.py": body + b"end\n", "image.bin": b"\0\2\3", "stay.py": b"2\n", "fresh é\t.py": b"y\r\n"},
    )
    found = {patch.path: (patch.change, patch.binary) for patch in split(diff)}
    assert found == {
        "fresh é\t.py": ("added", False),
        "gone.py": ("deleted", False),
        "image.bin": ("modified", True),
        "new name.py": ("renamed", False),
        "stay.py": ("modified", False),
    }
    renamed = next(patch for patch in split(diff) if patch.change == "renamed")
    assert set(renamed.names) == {"old name.py", "new name.py"}


def test_a_change_of_mode_alone_is_a_change(history: History) -> None:
    diff = "diff --git a/run.py b/run.py\nold mode 100644\nnew mode 100755\n"
    assert [(patch.path, patch.change, patch.mode) for patch in split(diff)] == [("run.py", "mode", "100755")]


def test_a_diff_without_git_headers_is_read() -> None:
    hunk = "@@ -1 +1 @@\n-a\n+b\n"
    diff = f"--- a/x.py\t2024-01-01\n+++ b/x.py\t2024-01-01\n{hunk}--- a/conftest.py\n+++ b/conftest.py\n{hunk}"
    assert [patch.path for patch in split(diff)] == ["x.py", "conftest.py"]


def test_names_that_disagree_are_judged_by_the_worst() -> None:
    diff = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/conftest.py\n@@ -1 +1 @@\n-a\n+b\n"
    assert [kind_of(patch) for patch in split(diff)] == ["infrastructure"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("src/pkg/core.py", "source"),
        ("tests/test_core.py", "test"),
        ("tests/data/x.json", "test"),
        ("conftest.py", "infrastructure"),
        ("src/pkg/conftest.py", "infrastructure"),
        ("tests/pytest.ini", "infrastructure"),
        ("tox.ini", "infrastructure"),
        ("noxfile.py", "infrastructure"),
        ("sitecustomize.py", "infrastructure"),
        ("src/usercustomize/__init__.py", "infrastructure"),
        ("evil.pth", "infrastructure"),
        ("pkg.egg-info/entry_points.txt", "infrastructure"),
        ("evil-1.0.dist-info/METADATA", "infrastructure"),
        (".coveragerc", "infrastructure"),
        ("pytest_evil.py", "plugin"),
        ("pytest.py", "shadow"),
        ("_pytest/__init__.py", "shadow"),
        ("src/unittest/case.py", "shadow"),
        ("pkg/json.py", "source"),
        ("pyproject.toml", "configuration"),
        ("setup.cfg", "configuration"),
        ("../outside.py", "outside"),
        ("a/../../outside.py", "outside"),
        (".git/hooks/post-checkout", "outside"),
        ("/etc/passwd", "outside"),
    ],
)
def test_a_new_file_is_judged_by_its_path(path: str, kind: str) -> None:
    diff = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    assert [kind_of(patch) for patch in split(diff)] == [kind]


@pytest.mark.parametrize(
    ("target", "kind"),
    [("/etc", "symlink"), ("../../x", "symlink"), ("../other", "source"), ("../.git/config", "symlink")],
)
def test_a_link_is_judged_by_its_target(target: str, kind: str) -> None:
    diff = (
        "diff --git a/pkg/link b/pkg/link\nnew file mode 120000\n--- /dev/null\n+++ b/pkg/link\n"
        f"@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
    )
    assert [kind_of(patch) for patch in split(diff)] == [kind]


def test_an_entry_point_of_pytest_is_infrastructure() -> None:
    diff = "--- a/setup.cfg\n+++ b/setup.cfg\n@@ -1 +1,3 @@\n x\n+[options.entry_points]\n+pytest11 = evil = evil\n"
    assert [kind_of(patch) for patch in split(diff)] == ["infrastructure"]


BASE = '[project]\nname = "x"\n\n[tool.pytest.ini_options]\naddopts = "-q"\n\n[tool.ruff]\nline-length = 1\n'


def test_the_tables_of_tests_are_the_references_and_the_rest_is_submitted() -> None:
    submitted = BASE.replace('"-q"', '"-k nothing"').replace('"x"', '"y"')
    merged = patches.with_test_tables_of(BASE, submitted, "pyproject.toml")
    assert merged is not None
    assert '"-q"' in merged
    assert '"y"' in merged
    assert "nothing" not in merged


def test_a_file_that_leaves_the_tests_alone_stays_as_it_is() -> None:
    submitted = BASE.replace('"x"', '"y"')
    assert patches.with_test_tables_of(BASE, submitted, "pyproject.toml") == submitted


@pytest.mark.parametrize(
    "submitted",
    [
        'tool = {pytest = {ini_options = {addopts = "-k no"}}}\n',
        "[broken",
        '[tool]\npytest.ini_options = {addopts = "-k no"}\n',
    ],
)
def test_what_cannot_be_taken_apart_is_not_used(submitted: str) -> None:
    assert patches.with_test_tables_of(BASE, submitted, "pyproject.toml") is None


def test_setup_cfg_is_taken_apart_too() -> None:
    base = "[metadata]\nname = x\n\n[tool:pytest]\naddopts = -q\n"
    submitted = base.replace("-q", "-k no").replace("= x", "= y")
    merged = patches.with_test_tables_of(base, submitted, "setup.cfg")
    assert merged == "[metadata]\nname = y\n\n[tool:pytest]\naddopts = -q\n"
