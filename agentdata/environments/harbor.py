"""Tasks to Harbor task directories: task.toml, instruction.md, environment/, tests/, solution/.

The verifier runs in the agent's container, as Harbor does by default: the tests are restored first, and each test is
looked up under its whole node id in what pytest prints, so that no name is cut and none is lost.
"""

import json
import shlex
from pathlib import Path

from agentdata.environments import row_fields as fields
from agentdata.environments.eval_script import pytest_command
from agentdata.environments.log_parsers import is_pytest_parser
from agentdata.environments.patches import split
from agentdata.environments.row_fields import RowError
from agentdata.records import GoldPatch, Task, TaskTests
from agentdata.shards import write_whole

SCHEMA_VERSION = "1.4"
VERIFIER_SECONDS = 1800.0
AGENT_SECONDS = 3600.0
BUILD_SECONDS = 1800.0
EXPECTED = "expected.json"

TEST_SCRIPT = """\
#!/bin/bash
# Restores the tests, runs them, and writes 1 or 0 to /logs/verifier/reward.txt.
cd /testbed || exit 1
mkdir -p /logs/verifier
echo 0 > /logs/verifier/reward.txt
git config --global --add safe.directory /testbed
for file in {files}; do git checkout -q HEAD -- "$file" || rm -f -- "$file"; done
if [ -s /tests/test.patch ]; then git apply --whitespace=nowarn /tests/test.patch || exit 1; fi
{command} > /logs/verifier/test_output.txt 2>&1
status=$?
cat /logs/verifier/test_output.txt
python /tests/check.py "$status" > /logs/verifier/reward.txt
"""

CHECK_SCRIPT = '''\
"""Prints 1 if every expected test passed according to pytest's short summary, else 0."""
import io
import json
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
with io.open(os.path.join(here, "expected.json"), encoding="utf-8") as file:
    expected = json.load(file)
with io.open("/logs/verifier/test_output.txt", encoding="utf-8", errors="replace") as file:
    lines = file.read().split("\\n")
wanted = set(expected)
outcome = {}
for line in lines:
    word, _, rest = line.partition(" ")
    if word not in ("PASSED", "XFAIL", "FAILED", "ERROR"):
        continue
    # A reason may follow after a dash, and a name may hold one: the longest name that is expected counts.
    name = rest
    while name not in wanted and " - " in name:
        name = name.rpartition(" - ")[0]
    if name not in wanted:
        name = (rest.split() or [""])[0]
    if name in wanted:
        outcome[name] = word
passed = all(outcome.get(name) in ("PASSED", "XFAIL") for name in wanted)
print(1 if passed and wanted and sys.argv[1] in ("0", "1") else 0)
'''

SOLVE_SCRIPT = """\
#!/bin/bash
set -e
cd /testbed
git config --global --add safe.directory /testbed
git apply --whitespace=nowarn /solution/gold.patch
"""


def write_harbor_task(folder: Path, task: Task, tests: TaskTests, gold: GoldPatch) -> Path:
    """Write the directory of a task into `folder`, under the task's id, and return it. Raises RowError."""
    for name, content in _files(task, tests, gold).items():
        path = folder / task.id / name
        write_whole(path, content)
        if name.endswith(".sh"):
            path.chmod(0o755)
    return folder / task.id


def _files(task: Task, tests: TaskTests, gold: GoldPatch) -> dict[str, str]:
    fields.identifier({"instance_id": task.id})
    if not task.image:
        raise RowError("no-image", "the task names no image to run in")
    if not tests.fail_to_pass:
        raise RowError("no-fail-to-pass", "the task has no test that must turn to pass")
    if tests.log_parser and not is_pytest_parser(tests.log_parser):
        raise RowError("not-pytest", f"the check in a Harbor task reads pytest, not what {tests.log_parser} reads")
    restored = dict.fromkeys([name for file in split(tests.test_patch) for name in file.names])
    restored.update(dict.fromkeys(name.partition("::")[0] for name in tests.test_files))
    return {
        "task.toml": _config(task),
        "instruction.md": task.problem_statement.rstrip() + "\n",
        "environment/Dockerfile": f"FROM {task.image}\nWORKDIR /testbed\n",
        "tests/test.sh": TEST_SCRIPT.format(files=shlex.join(restored), command=pytest_command(tests)),
        "tests/check.py": CHECK_SCRIPT,
        f"tests/{EXPECTED}": json.dumps([*tests.fail_to_pass, *tests.pass_to_pass], indent=1) + "\n",
        "tests/test.patch": tests.test_patch,
        "solution/solve.sh": SOLVE_SCRIPT,
        "solution/gold.patch": gold.patch,
    }


def _config(task: Task) -> str:
    """task.toml. The network is off: nothing of the future may be read while the task is solved."""
    facts = {
        "repo": task.repo,
        "base_commit": task.base_commit,
        "created_at": task.created_at,
        "source": task.source,
        "licence": task.licence,
        "mutations": list(task.mutations),
    }
    # JSON's texts and lists of texts are also TOML's, once what TOML forbids is escaped.
    metadata = "\n".join(f"{name} = {_toml(value)}" for name, value in facts.items())
    return f"""\
schema_version = "{SCHEMA_VERSION}"

[task]
name = {_toml("agentdata/" + task.id.replace("+", "-"))}
description = {_toml(task.problem_statement.strip().partition(chr(10))[0][:200])}

[metadata]
{metadata}

[verifier]
timeout_sec = {VERIFIER_SECONDS}
user = "root"

[agent]
timeout_sec = {AGENT_SECONDS}

[environment]
build_timeout_sec = {BUILD_SECONDS}
network_mode = "no-network"
workdir = "/testbed"
"""


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
