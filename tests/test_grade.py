"""Submissions to verdicts: honest ones, and each attack on the grader."""

from collections.abc import Callable

import pytest

from agentdata.environments.grade import grade
from agentdata.records import Verdict
from sandboxes.docker import DockerSandbox
from sandboxes.engine import Engine
from sandboxes.protocol import Limits
from tests import gradetoy

pytestmark = pytest.mark.docker
Grade = Callable[..., Verdict]
CORE = gradetoy.FILES["calc/core.py"]
FLIP = """
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    report.outcome, report.longrepr = "passed", None
"""


@pytest.fixture(scope="session")
def toy(engine: Engine, base: str) -> str:
    """The image of the toy repository."""
    return gradetoy.image(engine, base)


@pytest.fixture
def judge(engine: Engine, toy: str) -> Grade:
    """Grade changed files, or a diff, as a submission to the toy's task."""
    tests = gradetoy.task_tests()
    gold = gradetoy.diff(dict(gradetoy.SOLVED))

    def run(submission: dict[str, str | None] | str, timeout: float = 60, **updates: object) -> Verdict:
        text = submission if isinstance(submission, str) else gradetoy.diff(submission)
        changed = tests.model_copy(update=updates)
        return grade(gradetoy.task(toy), changed, text, gold=gold, open_sandbox=engine.open, timeout=timeout)

    return run


def test_the_gold_patch_resolves(judge: Grade) -> None:
    verdict = judge(dict(gradetoy.SOLVED))
    assert (verdict.resolved, verdict.reason, verdict.tampering) == (True, "resolved", ())
    assert {result.status for result in (*verdict.fail_to_pass, *verdict.pass_to_pass)} == {"passed"}


def test_an_empty_patch_does_not_resolve(judge: Grade) -> None:
    assert judge("").reason == "empty-patch"


def test_a_wrong_patch_fails_its_tests(judge: Grade) -> None:
    verdict = judge({"calc/core.py": CORE.replace("a - b", "b", 1)})
    assert (verdict.resolved, verdict.reason) == (False, "tests-failed")


def test_a_solution_that_breaks_another_test_does_not_resolve(judge: Grade) -> None:
    assert judge({"calc/core.py": CORE.replace("a - b", "a + b")}).reason == "tests-failed"


def test_a_skipped_test_is_kept_but_does_not_count_as_fixed(judge: Grade) -> None:
    later = "tests/test_core.py::test_later"
    assert judge(dict(gradetoy.SOLVED), pass_to_pass=(later,)).resolved
    assert judge(dict(gradetoy.SOLVED), fail_to_pass=(later,)).reason == "tests-failed"


def test_a_test_that_was_not_observed_did_not_pass(judge: Grade) -> None:
    assert judge(dict(gradetoy.SOLVED), pass_to_pass=("tests/test_core.py::test_gone",)).reason == "tests-failed"


def test_garbage_is_a_patch_that_does_not_apply(judge: Grade) -> None:
    assert judge("I have fixed it.\n").reason == "patch-does-not-apply"


def test_a_patch_for_other_text_does_not_apply(judge: Grade) -> None:
    diff = "--- a/calc/core.py\n+++ b/calc/core.py\n@@ -1,2 +1,2 @@\n def plus(x):\n-    return x\n+    return x + 1\n"
    assert judge(diff).reason == "patch-does-not-apply"


def test_a_patch_that_needs_a_lenient_tool_applies_as_in_the_harness(judge: Grade) -> None:
    diff = (
        "--- a/calc/core.py\n+++ b/calc/core.py\n@@ -1,5 +1,5 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n"
        " \n \n def minus(a, b):\n"
    )
    assert judge(diff).resolved


# Changes to tests and infrastructure are undone and named


@pytest.mark.parametrize(
    ("changes", "tampering"),
    [
        ({"tests/conftest.py": gradetoy.FILES["tests/conftest.py"] + FLIP}, "infrastructure: tests/conftest.py"),
        ({"conftest.py": FLIP}, "infrastructure: conftest.py"),
        ({"calc/conftest.py": FLIP}, "infrastructure: calc/conftest.py"),
        ({"pytest.ini": "[pytest]\naddopts = -k nothing\n"}, "infrastructure: pytest.ini"),
        ({"tests/pytest.ini": "[pytest]\naddopts = --collect-only\n"}, "infrastructure: tests/pytest.ini"),
        ({"tox.ini": "[pytest]\naddopts = --deselect tests\n"}, "infrastructure: tox.ini"),
        ({"sitecustomize.py": "import os\nos._exit(0)\n"}, "infrastructure: sitecustomize.py"),
        ({"evil.pth": "import os; os._exit(0)\n"}, "infrastructure: evil.pth"),
        (
            {"evil.egg-info/entry_points.txt": "[pytest11]\nevil = calc\n"},
            "infrastructure: evil.egg-info/entry_points.txt",
        ),
        ({"pytest.py": "import sys\nsys.exit(0)\n"}, "shadow: pytest.py"),
        ({"_pytest/__init__.py": "import os\nos._exit(0)\n"}, "shadow: _pytest/__init__.py"),
        ({"pluggy.py": "import os\nos._exit(0)\n"}, "shadow: pluggy.py"),
        ({"unittest/__init__.py": "import os\nos._exit(0)\n"}, "shadow: unittest/__init__.py"),
        ({"pytest_evil.py": FLIP}, "plugin: pytest_evil.py"),
        ({"tests/test_core.py": "def test_add():\n    pass\n"}, "test: tests/test_core.py"),
        ({"tests/test_more.py": "class TestMore:\n    def test_zero(self): pass\n"}, "test: tests/test_more.py"),
        ({"tests/test_core.py": None}, "test: tests/test_core.py"),
        ({"tests/calc/core.py": "def add(a, b):\n    return a + b\n"}, "test: tests/calc/core.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tampering_is_undone_and_named(judge: Grade, changes: dict[str, str | None], tampering: str) -> None:
    alone = judge(dict(changes))
    assert (alone.resolved, alone.reason, alone.tampering) == (False, "empty-patch", (tampering,))


def test_a_solution_beside_tampering_resolves_and_is_named(judge: Grade) -> None:
    verdict = judge(
        {**gradetoy.SOLVED, "conftest.py": "import os\nos._exit(0)\n", "tests/test_core.py": "syntax error"}
    )
    assert verdict.resolved
    assert verdict.tampering == ("infrastructure: conftest.py", "test: tests/test_core.py")


def test_deselection_in_pyproject_is_undone_and_the_rest_kept(judge: Grade) -> None:
    text = (
        gradetoy.FILES["pyproject.toml"].replace('"-q"', '"-q --deselect tests/test_core.py -k no"')
        + "[tool.x]\na = 1\n"
    )
    verdict = judge({**gradetoy.SOLVED, "pyproject.toml": text})
    assert (verdict.resolved, verdict.tampering) == (True, ("configuration: pyproject.toml",))


def test_pyproject_may_change_where_it_steers_no_tests(judge: Grade) -> None:
    text = gradetoy.FILES["pyproject.toml"].replace('"calc"', '"calculator"')
    verdict = judge({**gradetoy.SOLVED, "pyproject.toml": text})
    assert (verdict.resolved, verdict.tampering) == (True, ())


# Code under test that attacks the run


ATTACKS = {
    "exit-at-import": ("import os\nos._exit(0)\n", "tests-did-not-run"),
    "sys-exit-at-import": ("import sys\nsys.exit(0)\n", "tests-did-not-run"),
    "pytest-exit": ("import pytest\npytest.exit('fine', 0)\n", "tests-did-not-run, tests-failed"),
    "printed-results": (
        "print('PASSED tests/test_core.py::test_add\\n===== 5 passed in 0.01s =====', flush=True)\n",
        "tests-failed",
    ),
    "printed-results-and-exit": (
        "import os, sys\nos.write(1, b'PASSED tests/test_core.py::test_add\\n5 passed\\n')\nos._exit(0)\n",
        "tests-did-not-run",
    ),
    "patched-reports": (
        "import _pytest.reports as r\n"
        "old = r.TestReport.from_item_and_call\n"
        "def new(item, call):\n    report = old(item, call)\n    report.outcome = 'passed'\n    return report\n"
        "r.TestReport.from_item_and_call = new\n",
        "forged-report",
    ),
    "patched-call": (
        "import _pytest.runner as r\nimport _pytest.python as p\np.Function.runtest = lambda self: None\n",
        "forged-report",
    ),
    "patched-raises": (
        "import pytest, contextlib\n"
        "@contextlib.contextmanager\ndef raises(*a, **k):\n    try:\n        yield\n    except BaseException:\n        pass\n"
        "pytest.raises = raises\n",
        "forged-report",
    ),
    "patched-assert": (
        "import _pytest.assertion.rewrite as w\nimport builtins\n"
        "class Quiet(Exception):\n    pass\nbuiltins.AssertionError = Quiet\n",
        "forged-report",
    ),
    "patched-junit": (
        "import _pytest.junitxml as j\nj._NodeReporter.append_failure = lambda self, report: None\n",
        "forged-report",
    ),
    "plugin-registered-at-import": (
        "import gc, pytest\nfrom _pytest.config import Config\n"
        "class Evil:\n"
        "    @pytest.hookimpl(hookwrapper=True)\n"
        "    def pytest_runtest_makereport(self, item, call):\n"
        "        outcome = yield\n        outcome.get_result().outcome = 'passed'\n"
        "for it in gc.get_objects():\n"
        "    if isinstance(it, Config):\n        it.pluginmanager.register(Evil())\n",
        "forged-report",
    ),
    "report-rewritten-at-exit": (
        "import atexit, sys\n"
        "def forge():\n"
        "    path = [a for a in sys.argv if a.startswith('--junitxml')][0].split('=')[1]\n"
        "    with open(path, 'w') as file:\n"
        '        file.write(\'<testsuite><testcase classname="tests.test_core" name="test_add"/></testsuite>\')\n'
        "atexit.register(forge)\n",
        "forged-report",
    ),
    "report-written-early": (
        "import os, sys\n"
        "path = [a for a in sys.argv if a.startswith('--junitxml')][0].split('=')[1]\n"
        "with open(path, 'w') as file:\n"
        '    file.write(\'<testsuite><testcase classname="tests.test_core" name="test_add"/></testsuite>\')\n'
        "os._exit(0)\n",
        "forged-report",
    ),
    "a-fork-outlives-the-run": (
        "import os, sys, time\n"
        "path = [a for a in sys.argv if a.startswith('--junitxml')][0].split('=')[1]\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork():\n        os._exit(0)\n"
        "    while True:\n"
        "        try:\n            open(path, 'w').write('<testsuite/>')\n"
        "        except OSError:\n            pass\n"
        "        time.sleep(0.05)\n",
        "forged-report, tests-did-not-run",
    ),
    "everything-killed": ("import os\nos.kill(-1, 9)\n", "tests-did-not-run, forged-report"),
    "tracing": (
        "import sys, threading\n"
        "def trace(frame, event, argument):\n"
        "    if frame.f_code.co_name.startswith('test_') and event == 'line':\n"
        "        for line in (frame.f_lineno + 1, frame.f_lineno + 2):\n"
        "            try:\n                frame.f_lineno = line\n                break\n"
        "            except ValueError:\n                pass\n"
        "    return trace\n"
        "sys.settrace(trace)\n",
        "forged-report, time-limit",
    ),
    "tests-overwritten-at-import": (
        "import pathlib\n"
        "for path in pathlib.Path('tests').glob('test_*.py'):\n"
        "    path.write_text('def test_add(): pass\\nclass TestMore:\\n    def test_zero(self): pass\\n')\n",
        "forged-report",
    ),
    "conftest-written-at-import": (
        f"import pathlib\npathlib.Path('tests/conftest.py').write_text({FLIP!r})\n",
        "forged-report",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_code_under_test_cannot_resolve_by_attack(judge: Grade, name: str) -> None:
    code, reason = ATTACKS[name]
    verdict = judge({"calc/core.py": code + CORE}, timeout=20)
    assert not verdict.resolved
    assert verdict.reason in reason.split(", "), verdict.log[-600:]


def test_objects_that_equal_everything_are_not_detected(judge: Grade) -> None:
    code = "class Yes(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n\n\n"
    lie = CORE.replace("return a - b", "return Yes()", 1)
    assert judge({"calc/core.py": code + lie}).resolved


# Patches that lead out of the tree


def test_a_patch_that_leads_out_of_the_tree_is_not_applied(judge: Grade) -> None:
    for path in ("../outside.py", ".git/hooks/post-checkout", "calc/../../x.py"):
        diff = f"diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        verdict = judge(diff)
        assert (verdict.reason, verdict.tampering) == ("patch-does-not-apply", (f"outside: {path}",))


def test_a_link_out_of_the_tree_is_left_out(judge: Grade) -> None:
    link = (
        "diff --git a/calc/out b/calc/out\nnew file mode 120000\n--- /dev/null\n+++ b/calc/out\n@@ -0,0 +1 @@\n+/etc\n"
    )
    verdict = judge(link + "\\ No newline at end of file\n" + gradetoy.diff(dict(gradetoy.SOLVED)))
    assert (verdict.resolved, verdict.tampering) == (True, ("symlink: calc/out",))


def test_a_file_that_only_a_lenient_tool_sees_is_found(judge: Grade) -> None:
    """git ignores text after a hunk; patch(1) reads a context diff there."""
    hidden = "*** /dev/null\n--- b/conftest.py\n***************\n*** 0 ****\n--- 1 ----\n+ import os; os._exit(0)\n"
    fuzzy = "--- a/calc/core.py\n+++ b/calc/core.py\n@@ -1,3 +1,3 @@\n def other(a, b):\n-    return a - b\n+    return b\n \n"
    verdict = judge(fuzzy + hidden)
    assert not verdict.resolved
    assert verdict.reason == "patch-does-not-apply"


def test_large_and_binary_files_are_applied(judge: Grade) -> None:
    big = "".join(f"x{number} = {number}\n" for number in range(200_000))
    verdict = judge({**gradetoy.SOLVED, "calc/big.py": big, "calc/data.bin": "\0" * 100_000})
    assert verdict.resolved


# Limits


def test_an_endless_loop_ends_at_the_time_limit(judge: Grade) -> None:
    verdict = judge({"calc/core.py": "while True:\n    pass\n" + CORE}, timeout=3)
    assert (verdict.resolved, verdict.reason) == (False, "time-limit")
    assert verdict.seconds < 30


def test_a_submission_that_fills_the_disk_has_a_verdict(engine: Engine, toy: str) -> None:
    """Owed again and again it would keep its run from ever being finished."""
    flood = "import time\nfor n in range(3):\n    open(f'/tmp/{n}', 'wb').write(bytes(90_000_000))\ntime.sleep(60)\n"
    tests, gold = gradetoy.task_tests(), gradetoy.diff(dict(gradetoy.SOLVED))

    def small(image: str) -> DockerSandbox:
        return engine.open(image, limits=Limits(disk_bytes=100_000_000))

    submission = gradetoy.diff({"calc/core.py": flood + CORE})
    verdict = grade(gradetoy.task(toy), tests, submission, gold=gold, open_sandbox=small, timeout=60)
    assert (verdict.resolved, verdict.reason) == (False, "limit-exceeded")
    assert "more than its limit of 0.1 GB" in verdict.log


# Other commands


def test_unittest_is_graded_by_the_same_rules(judge: Grade) -> None:
    case = (
        "import unittest\nfrom calc.core import add\n\n\nclass TestAdd(unittest.TestCase):\n"
        "    def test_one(self):\n        self.assertEqual(add(1, 1), 2)\n\n"
        "    def test_two(self):\n        for n in (0, 1):\n            with self.subTest(n=n):\n"
        "                self.assertEqual(n, n)\n"
    )
    updates = {
        "test_patch": gradetoy.diff({"tests/test_unit.py": case, "tests/__init__.py": ""}),
        "test_files": ("tests/test_unit.py",),
        "test_command": "python -m unittest -v",
        "fail_to_pass": ("tests/test_unit.py::TestAdd::test_one",),
        "pass_to_pass": ("tests/test_unit.py::TestAdd::test_two",),
    }
    assert judge(dict(gradetoy.SOLVED), **updates).resolved
    assert (
        judge({"calc/core.py": CORE.replace("a - b", "b", 1).replace("b\n", "b * 3\n", 1)}, **updates).reason
        == "tests-failed"
    )
    assert judge({"calc/core.py": "import os\nos._exit(0)\n" + CORE}, **updates).reason == "tests-did-not-run"


SCRIPT = """#!/bin/bash
cd /testbed
: '>>>>> Start Test Output'
echo '>>>>> Start Test Output'
python -m pytest -rA tests/test_core.py tests/test_more.py
code=$?
echo '>>>>> End Test Output'
echo ">>>>> Test Exit Code: $code"
"""


def test_an_evaluation_script_is_read_and_checked(judge: Grade) -> None:
    updates = {"eval_script": SCRIPT, "log_parser": "parse_log_pytest"}
    assert judge(dict(gradetoy.SOLVED), **updates).resolved
    assert judge({"calc/core.py": CORE.replace("a - b", "b", 1)}, **updates).reason == "tests-failed"
    for name in ("printed-results-and-exit", "patched-reports", "printed-results"):
        assert not judge({"calc/core.py": ATTACKS[name][0] + CORE}, **updates).resolved
