"""Tasks to the field's rows and directories, and back."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.environments.benchmark_commands import changed_tests
from agentdata.environments.eval_script import END, EXIT, START, build, command_of
from agentdata.environments.exchange import Form, read_tasks, write_rows
from agentdata.environments.log_parsers import FIRST_WORD, WHOLE_LINE, parse
from agentdata.environments.reversed_diffs import reverse_diff
from agentdata.environments.row_fields import RowError
from agentdata.environments.smith_rows import bug_patch
from agentdata.environments.swebench_rows import CLASSIC_COLUMNS, Triple, official_tests, to_version_5_row
from agentdata.errors import UsageError
from agentdata.records import GoldPatch, Rejected, Task, TaskTests
from tests.exchanged import FILE, Toy, make_toy

DIFF = """\
diff --git a/calc.py b/calc.py
index 1234567..89abcde 100644
--- a/calc.py
+++ b/calc.py
@@ -1,3 +1,3 @@ def add(a, b):
 x
-y
+z
\\ No newline at end of file
"""
TEST_DIFF = DIFF.replace("calc.py", "tests/test_calc.py")
CLASSIC: dict[str, Any] = {
    "repo": "pallets/flask",
    "instance_id": "pallets__flask-5014",
    "base_commit": "7ee9ceb71e868944a46e1ff00b506772a53a4f1d",
    "patch": DIFF,
    "test_patch": TEST_DIFF,
    "problem_statement": "Require a name\r\n",
    "hints_text": "",
    "created_at": "2023-03-04T18:36:21Z",
    "version": "2.3",
    "FAIL_TO_PASS": '["tests/test_calc.py::test_empty"]',
    "PASS_TO_PASS": '["tests/test_calc.py::test_slash[-/-/]"]',
    "environment_setup_commit": "182ce3dd15dfa3537391c3efaf9c3ff407d134d4",
    "difficulty": "<15 min fix",
}
CONFIG = {
    "python": "3.9",
    "install": "pip install -e .",
    "test_cmd": "pytest --no-header -rA",
    "log_parser": "parse_log_pytest",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A repository with a bug."""
    return make_toy(tmp_path_factory.mktemp("toy") / "repository")


def saved(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def only(path: Path) -> Triple:
    (found,) = read_tasks(path)
    assert not isinstance(found, Rejected), found
    return found


# Round trips

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NAME = st.from_regex(r"test_[a-z]{1,3}(\[[a-z ]{0,4}\])?", fullmatch=True).map(lambda name: f"tests/test_a.py::{name}")


@st.composite
def triples(draw: st.DrawFn) -> Triple:
    names = draw(st.lists(NAME, min_size=1, max_size=5, unique=True))
    cut = draw(st.integers(1, len(names)))
    task = Task(
        id=draw(st.from_regex(r"[a-z]{1,4}__[a-z]{1,4}-[0-9a-f]{1,6}", fullmatch=True)),
        repo="owner/na__me",
        environment=draw(TEXT),
        image="image:1",
        base_commit=draw(st.from_regex(r"[0-9a-f]{40}", fullmatch=True)),
        problem_statement=draw(TEXT),
        statement_source="tests",
        hints=draw(TEXT),
        source="mutation",
        mutations=tuple(draw(st.lists(TEXT, max_size=2))),
        created_at="2024-05-06T07:08:09Z",
        version=draw(TEXT),
        licence=draw(TEXT),
    )
    tests = TaskTests(
        id=task.id,
        test_patch=draw(st.sampled_from(["", TEST_DIFF])),
        test_files=("tests/test_a.py",),
        test_command="python -m pytest",
        fail_to_pass=tuple(names[:cut]),
        pass_to_pass=tuple(names[cut:]),
    )
    return task, tests, GoldPatch(id=task.id, patch=DIFF)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("form", ["swebench", "swebench5", "rebench", "smith"])
@settings(max_examples=15, deadline=None)
@given(triple=triples())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, form: Form, suffix: str, triple: Triple
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows{suffix}"
    written = write_rows(path, [triple], form)
    task, tests, gold = triple
    if written.rejected:
        (rejected,) = written.rejected
        assert rejected.reason == ("names-collide" if form != "smith" or not tests.test_patch else "has-test-patch")
        return
    assert only(path) == (task, official_tests(tests).kept, gold)


@pytest.mark.parametrize("form", ["swebench", "swebench5", "rebench"])
def test_a_foreign_row_goes_out_with_the_tests_it_came_with(tmp_path: Path, form: Form) -> None:
    (tmp_path / "in").mkdir()
    task, tests, gold = only(saved(tmp_path / "in" / "rows.jsonl", CLASSIC))
    triple = (task.model_copy(update={"image": "image:1"}), tests, gold)
    assert not write_rows(tmp_path / "rows.jsonl", [triple], form).rejected
    assert only(tmp_path / "rows.jsonl") == triple


# Import


def test_a_classic_row_runs_pytest_on_the_changed_tests(tmp_path: Path) -> None:
    task, tests, gold = only(saved(tmp_path / "rows.jsonl", CLASSIC))
    assert (task.id, task.source, task.created_at) == ("pallets__flask-5014", "benchmark", "2023-03-04T18:36:21Z")
    assert (tests.test_files, tests.test_command, tests.log_parser) == ((FILE,), "pytest -rA", "parse_log_flask")
    assert tests.pass_to_pass == ("tests/test_calc.py::test_slash[-/-/]",)
    assert command_of(tests.eval_script) == f"pytest -rA {FILE}"
    assert gold.patch == DIFF


@pytest.mark.parametrize(
    ("repo", "file", "command", "parser"),
    [
        (
            "django/django",
            "tests/a/b.py",
            "./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1 a.b",
            "django",
        ),
        ("sympy/sympy", "sympy/tests/test_a.py", "bin/test -C --verbose sympy/tests/test_a.py", "sympy"),
        ("astropy/astropy", "a/test_a.py", "--tb=no a/test_a.py", "astropy"),
        ("someone/else", "test_a.py", "pytest -rA test_a.py", "pytest"),
    ],
)
def test_each_repository_has_its_own_runner(tmp_path: Path, repo: str, file: str, command: str, parser: str) -> None:
    row = {**CLASSIC, "repo": repo, "test_patch": DIFF.replace("calc.py", file)}
    _, tests, _ = only(saved(tmp_path / "rows.jsonl", row))
    assert command_of(tests.eval_script).endswith(command)
    assert (tests.test_files, tests.log_parser) == ((file,), f"parse_log_{parser}")


def test_data_and_deleted_files_are_no_arguments_of_a_test_command() -> None:
    deleted = "diff --git a/tests/old.py b/tests/old.py\ndeleted file mode 100644\n--- a/tests/old.py\n+++ /dev/null\n"
    data = DIFF.replace("calc.py", "tests/data.json")
    assert changed_tests(TEST_DIFF + deleted + data) == (FILE,)


def test_a_version_5_row_keeps_its_script(tmp_path: Path) -> None:
    script = f"#!/bin/bash\nset -uxo pipefail\n: '{START}'\ntox -- tests\n: '{END}'\n"
    row = {
        **CLASSIC,
        "image": "x/y:1",
        "eval_script": script,
        "log_parser": "parse_log_flask",
        "eval_type": "pass_and_fail",
    }
    task, tests, _ = only(saved(tmp_path / "rows.jsonl", row))
    assert (task.image, tests.eval_script, tests.test_command) == ("x/y:1", script, "tox -- tests")


def test_a_rebench_row_brings_command_parser_and_image(tmp_path: Path) -> None:
    row = {
        **CLASSIC,
        "install_config": CONFIG,
        "docker_image": "rebench/x:1",
        "license_name": "MIT",
        "requirements": "a==1\n",
    }
    row["FAIL_TO_PASS"] = ["tests/test_calc.py::test_empty"]
    row["created_at"] = 1_677_954_981_000
    task, tests, _ = only(saved(tmp_path / "rows.jsonl", row))
    assert (task.image, task.licence, task.created_at) == ("rebench/x:1", "MIT", "2023-03-04T18:36:21+00:00")
    assert command_of(tests.eval_script) == f"pytest --no-header -rA {FILE}"


def test_a_smith_row_is_solved_by_the_reverse_of_its_patch(tmp_path: Path) -> None:
    row = {
        "instance_id": "oauthlib__oauthlib.1fd52536.func_basic__09vlzwgc",
        "repo": "swesmith/oauthlib__oauthlib.1fd52536",
        "patch": DIFF,
        "FAIL_TO_PASS": ["tests/test_calc.py::test_a", "tests/test_b.py::test_b"],
        "PASS_TO_PASS": ["tests/test_calc.py::test_c"],
        "image_name": "swesmith.x86_64.oauthlib_1776_oauthlib.1fd52536",
        "problem_statement": "",
    }
    task, tests, gold = only(saved(tmp_path / "rows.jsonl", row))
    assert (task.repo, task.base_commit) == ("oauthlib/oauthlib", "1fd52536")
    assert tests.test_files == (FILE, "tests/test_b.py")
    assert "-z\n\\ No newline at end of file\n+y\n" in gold.patch
    assert bug_patch(gold) == DIFF


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instance_id": None}, "missing-column"),
        ({"instance_id": "../../x"}, "unusable-id"),
        ({"repo": 7}, "not-text"),
        ({"patch": ""}, "missing-column"),
        ({"patch": "\ud800"}, "not-text"),
        ({"test_patch": "a\0b"}, "not-text"),
        ({"base_commit": "main; rm -rf /"}, "not-a-commit"),
        ({"FAIL_TO_PASS": "[]"}, "no-fail-to-pass"),
        ({"FAIL_TO_PASS": "['a']"}, "not-json"),
        ({"FAIL_TO_PASS": '{"a": 1}'}, "not-a-list"),
        ({"PASS_TO_PASS": [1]}, "not-a-list"),
        ({"test_patch": f"{TEST_DIFF}+: '{END}'\n"}, "marker-in-patch"),
        ({"install_config": {"test_cmd": ""}}, "no-test-command"),
        ({"install_config": "pytest"}, "not-json"),
        ({"created_at": 1e300}, "not-a-time"),
        ({"eval_script": "x", "image": "i", "log_parser": "p", "eval_type": "fail_only"}, "eval-type"),
        ({"agentdata": '{"task": {"unheard": 1}}'}, "other-version"),
        ({"agentdata": '{"task": 3}'}, "other-version"),
    ],
)
def test_a_malformed_row_has_one_reason_and_the_rest_goes_on(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    good = {**CLASSIC, "instance_id": "good__row-1"}
    bad, after = read_tasks(saved(tmp_path / "rows.jsonl", {**CLASSIC, **change}, good))
    assert isinstance(bad, Rejected)
    assert (bad.reason, bad.stage) == (reason, "import")
    assert not isinstance(after, Rejected)


def test_a_torn_line_and_a_second_row_of_one_id_are_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path / "rows.jsonl", CLASSIC, CLASSIC)
    path.write_text(path.read_text() + '{"instance_id": "x')
    assert [getattr(found, "reason", "") for found in read_tasks(path)] == ["", "duplicate-id", "not-json"]


def test_rows_are_read_from_parquet_with_real_lists(tmp_path: Path) -> None:
    row = {**CLASSIC, "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["b", "c"]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    _, tests, _ = only(tmp_path / "rows.parquet")
    assert (tests.fail_to_pass, tests.pass_to_pass) == (("a",), ("b", "c"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.parquet", "missing.jsonl"])
def test_a_file_that_holds_no_rows_is_a_usage_error(tmp_path: Path, name: str) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_text("{")
    with pytest.raises(UsageError):
        list(read_tasks(tmp_path / name))


# Export


def test_a_row_has_the_columns_of_the_field(toy: Toy) -> None:
    row = to_version_5_row(*toy.triple)
    assert set(CLASSIC_COLUMNS) | {"image", "eval_script", "log_parser", "eval_type"} | {"agentdata"} == set(row)
    assert json.loads(row["FAIL_TO_PASS"]) == [f"{FILE}::test_add", f"{FILE}::test_add_words[x y]"]


def test_names_that_the_official_log_cannot_tell_apart_are_left_out_and_reported(toy: Toy, tmp_path: Path) -> None:
    task, tests, gold = toy.triple
    alike = (f"{FILE}::test_words[a  b]", f"{FILE}::test_words[a b]")
    tests = tests.model_copy(update={"pass_to_pass": alike})
    assert write_rows(tmp_path / "rows.jsonl", [(task, tests, gold)]).dropped == {task.id: alike}


def test_a_test_that_runs_and_decides_nothing_can_take_a_name_away(toy: Toy) -> None:
    tests = toy.triple[1].model_copy(update={"flaky": (f"{FILE}::test_words[a  b]",)})
    assert official_tests(tests).dropped == (f"{FILE}::test_words[a b]",)


def test_the_parser_that_keeps_fail_to_pass_is_chosen(toy: Toy) -> None:
    names = (f"{FILE}::test[[3m a]", f"{FILE}::test[ a]")
    tests = toy.triple[1].model_copy(update={"fail_to_pass": names, "pass_to_pass": ()})
    official = official_tests(tests)
    assert (official.parser, official.fail_to_pass) == (FIRST_WORD, (f"{FILE}::test[[3m", f"{FILE}::test["))


def test_a_task_without_a_name_of_its_own_is_refused(toy: Toy, tmp_path: Path) -> None:
    task, tests, gold = toy.triple
    tests = tests.model_copy(update={"fail_to_pass": (f"{FILE}::t[ ]", f"{FILE}::t[  ]")})
    (rejected,) = write_rows(tmp_path / "rows.jsonl", [(task, tests, gold)]).rejected
    assert rejected.reason == "names-collide"
    assert (tmp_path / "rows.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("of_task", "of_tests", "reason"),
    [
        ({"image": ""}, {}, "no-image"),
        ({}, {"test_command": "python -m unittest"}, "not-pytest"),
        ({}, {"fail_to_pass": ()}, "no-fail-to-pass"),
        ({"id": "a/b"}, {}, "unusable-id"),
    ],
)
def test_what_the_harness_cannot_run_is_refused(
    toy: Toy, tmp_path: Path, of_task: dict[str, Any], of_tests: dict[str, Any], reason: str
) -> None:
    task, tests, gold = toy.triple
    triple = (task.model_copy(update=of_task), tests.model_copy(update=of_tests), gold)
    written = write_rows(tmp_path / "rows.jsonl", [triple, toy.triple])
    assert [rejected.reason for rejected in written.rejected] == [reason]
    assert written.rows == 1


def test_an_unfinished_export_leaves_the_old_file(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("old")

    def broken() -> Any:
        yield toy.triple
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, broken())
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == "old"


# The script


def run_script(toy: Toy, root: Path, *, gold: bool, tests: TaskTests | None = None) -> str:
    """What the official harness would log: the prediction applied, then the script, in a copy of the repository."""
    subprocess.run(["cp", "-r", str(toy.root), str(root)], check=True)
    if gold:
        subprocess.run(["git", "-C", str(root), "apply", "-"], input=toy.triple[2].patch, text=True, check=True)
    task, own, _ = toy.triple
    row = to_version_5_row(task, tests or own, toy.triple[2])
    script = row["eval_script"].replace("/testbed", str(root)).replace("python -m", f"{sys.executable} -m")
    home = root.with_name("home")
    home.mkdir()
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("gold", [True, False])
def test_the_script_shows_what_the_tests_found(toy: Toy, tmp_path: Path, gold: bool) -> None:
    log = run_script(toy, tmp_path / "tree", gold=gold)
    official = official_tests(toy.triple[1])
    assert (official.parser, official.dropped) == (WHOLE_LINE, ())
    results = parse(official.parser, log.split(START)[1].split(END)[0])
    assert [results[name] for name in official.fail_to_pass] == ["passed" if gold else "failed"] * 2
    assert {results[name] for name in official.pass_to_pass} == {"passed"}
    assert f"{EXIT}: 1" in log


def test_a_failing_teardown_and_an_unexpected_pass_are_seen(toy: Toy, tmp_path: Path) -> None:
    more = """\
diff --git a/tests/test_more.py b/tests/test_more.py
new file mode 100644
--- /dev/null
+++ b/tests/test_more.py
@@ -0,0 +1,11 @@
+import pytest
+
+@pytest.fixture
+def broken():
+    yield
+    raise ValueError("not - now")
+
+def test_torn(broken): pass
+
+@pytest.mark.xfail(reason="some - day")
+def test_early(): pass
"""
    files = ("tests/test_more.py",)
    tests = toy.triple[1].model_copy(update={"test_patch": more, "test_files": files})
    results = parse(WHOLE_LINE, run_script(toy, tmp_path / "tree", gold=False, tests=tests))
    assert results["tests/test_more.py::test_torn"] == "error"
    assert results["tests/test_more.py::test_early"] == "passed"


def test_the_script_leaves_the_tests_as_they_were(toy: Toy, tmp_path: Path) -> None:
    run_script(toy, tmp_path / "tree", gold=True)
    status = subprocess.run(
        ["git", "-C", tmp_path / "tree", "status", "-s", "-uno"], capture_output=True, text=True, check=True
    )
    assert status.stdout == " M calc.py\n"


def test_a_test_patch_that_does_not_apply_is_no_success(toy: Toy, tmp_path: Path) -> None:
    tests = toy.triple[1].model_copy(update={"test_patch": TEST_DIFF})
    assert ">>>>> Tests Errored" in run_script(toy, tmp_path / "tree", gold=True, tests=tests)


@pytest.mark.parametrize("gold", [True, False])
def test_the_official_harness_grades_the_log_as_it_should(toy: Toy, tmp_path: Path, gold: bool) -> None:
    pytest.importorskip("swebench", reason="the extra `swebench` is not installed")
    row = to_version_5_row(*toy.triple)
    (tmp_path / "row.json").write_text(json.dumps(row))
    (tmp_path / "log.txt").write_text(run_script(toy, tmp_path / "tree", gold=gold))
    # In a process of its own: the package imports much, and warns while it does.
    program = (
        "import json; from swebench.harness.utils import make_test_spec;"
        "from swebench.harness.grading import get_eval_report;"
        "row = json.load(open('row.json')); spec = make_test_spec(row);"
        "compile = __import__('subprocess').run(['bash', '-n'], input=spec.eval_script, text=True, check=True);"
        "found = get_eval_report(spec, {'instance_id': row['instance_id'], 'model_patch': 'x'}, 'log.txt', True);"
        "print(json.dumps([found[row['instance_id']]['resolved'], spec.eval_script]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    resolved, script = json.loads(done.stdout.splitlines()[-1])
    assert resolved is gold
    assert script.count("SWEBENCH_TEST_EXIT_CODE=$?") == 1


@given(patch=st.text(alphabet="ab\n+-EOF_ '\"$`\\\r", max_size=60))
@settings(max_examples=30, deadline=None)
def test_no_patch_breaks_out_of_the_script(patch: str) -> None:
    script = build("a" * 40, patch, ["a b.py", "-x.py", "$(touch x).py"], "true")
    assert subprocess.run(["bash", "-n"], input=script.encode(), check=False).returncode == 0
    assert command_of(script) == "true"


# Reversed diffs


@given(before=st.text("ab\n", max_size=12), after=st.text("ab\n", max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_reversed_diff_undoes_what_the_diff_does(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str
) -> None:
    root = tmp_path_factory.mktemp("diff")
    (root / "old").write_text(before)
    (root / "new").write_text(after)
    command = ["git", "diff", "--no-index", "old", "new"]
    text = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    diff = text.replace("a/old", "a/new")
    if not diff:
        return
    assert reverse_diff(reverse_diff(diff)) == diff
    subprocess.run(["git", "apply", "-"], input=reverse_diff(diff), cwd=root, text=True, check=True)
    assert (root / "new").read_text() == before


def test_files_that_come_go_move_and_change_mode_are_reversed(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in ("gone.py", "moved.py", "mode.sh", "sp ace.py"):
        (tmp_path / name).write_text(f"{name}\n" * 5)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "base"], check=True)
    (tmp_path / "gone.py").unlink()
    (tmp_path / "moved.py").rename(tmp_path / "mövèd to.py")
    (tmp_path / "mode.sh").chmod(0o755)
    (tmp_path / "sp ace.py").write_text("x\n")
    (tmp_path / "new.py").write_text("new")
    subprocess.run([*git, "add", "-A"], check=True)
    diff = subprocess.run([*git, "diff", "-M", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert reverse_diff(reverse_diff(diff)) == diff
    subprocess.run([*git, "apply", "--index", "-"], input=reverse_diff(diff), text=True, check=True)
    assert subprocess.run([*git, "status", "-s"], capture_output=True, text=True, check=True).stdout == ""


def test_what_no_text_can_undo_is_refused() -> None:
    with pytest.raises(RowError, match="not text"):
        reverse_diff("diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n")


# Harbor


def test_a_harbor_task_holds_everything(toy: Toy, tmp_path: Path) -> None:
    assert write_rows(tmp_path / "tasks", [toy.triple], "harbor").rows == 1
    root = tmp_path / "tasks" / toy.triple[0].id
    config = tomllib.loads((root / "task.toml").read_text())
    assert config["task"]["name"] == f"agentdata/{toy.triple[0].id}"
    assert config["environment"]["network_mode"] == "no-network"
    assert (root / "instruction.md").read_text() == "add subtracts\n\nIt should not.\n"
    assert (root / "environment/Dockerfile").read_text().startswith("FROM toy:1\n")
    assert (root / "tests/test.sh").stat().st_mode & 0o111
    assert (root / "solution/gold.patch").read_text() == toy.triple[2].patch


@pytest.mark.parametrize(("solved", "reward"), [(True, "1\n"), (False, "0\n")])
def test_a_harbor_verifier_rewards_the_solution_only(toy: Toy, tmp_path: Path, solved: bool, reward: str) -> None:
    write_rows(tmp_path / "tasks", [toy.triple], "harbor")
    root, tree, home = tmp_path / "tasks" / toy.triple[0].id, tmp_path / "tree", tmp_path / "home"
    home.mkdir()
    subprocess.run(["cp", "-r", str(toy.root), str(tree)], check=True)
    moves = {"/testbed": tree, "/tests/": f"{root}/tests/", "/solution": root / "solution", "/logs": tmp_path / "logs"}
    for file in (root / "tests/test.sh", root / "tests/check.py", root / "solution/solve.sh"):
        text = file.read_text()
        for old, new in moves.items():
            text = text.replace(old, str(new))
        file.write_text(text.replace("python ", f"{sys.executable} "))

    def run(name: str) -> None:
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        subprocess.run(["bash", str(root / name)], env=environment, capture_output=True, check=True)

    if solved:
        run("solution/solve.sh")
    run("tests/test.sh")
    assert (tmp_path / "logs/verifier/reward.txt").read_text() == reward


@given(triple=triples())
@settings(max_examples=20, deadline=None)
def test_any_text_of_a_task_is_toml(tmp_path_factory: pytest.TempPathFactory, triple: Triple) -> None:
    folder = tmp_path_factory.mktemp("harbor")
    write_rows(folder, [triple], "harbor")
    config = tomllib.loads((folder / triple[0].id / "task.toml").read_text())
    assert config["metadata"]["licence"] == triple[0].licence
