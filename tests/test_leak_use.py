"""Commands that look for what an environment must not hold, and those that only look like it."""

import json

import pytest

from agentdata.records import FunctionCall, Step, ToolCall
from agentdata.rollouts.leaks import leak_use, leaks_in


def kinds(command: str) -> list[str]:
    return [found.split(":")[0] for found in leak_use(command)]


@pytest.mark.parametrize(
    "command",
    [
        "git log --all --oneline",
        "cd /testbed && git --no-pager log --all -S 'def f' -- src",
        "git -C /testbed reflog",
        "git fsck --lost-found | head",
        "git fetch origin main",
        "git pull",
        "git show origin/main:setup.py",
        "git log HEAD..origin/master",
        "git diff upstream/main",
        "git branch -a",
        "git rev-list --all | wc -l",
        "git cat-file --batch-all-objects --batch-check",
        "cat .git/packed-refs",
        "ls -la .git/objects/pack",
        "git clone https://example.com/a/b /tmp/b",
        "for h in $(git rev-list --all); do git show $h; done",
    ],
)
def test_looking_for_later_history_is_flagged(command: str) -> None:
    assert kinds(command) == ["history"]


@pytest.mark.parametrize(
    "command",
    [
        "pip download click==8.2 --no-deps",
        "pip install -U click",
        "python -m pip install 'click>8'",
        "python3.11 -m pip index versions click",
        "uv pip install click",
        "cd /tmp && pip3 install --target . click",
        "npm view left-pad",
    ],
)
def test_asking_a_package_index_is_flagged(command: str) -> None:
    assert kinds(command) == ["index"]


@pytest.mark.parametrize(
    "command",
    ["curl -s https://example.com/fix.patch", "wget http://example.com", "gh pr view 3", "timeout 9 curl ftp://a"],
)
def test_reaching_for_the_network_is_flagged(command: str) -> None:
    assert kinds(command) == ["network"]


@pytest.mark.parametrize(
    "command",
    [
        "grep -r FAIL_TO_PASS /",
        "find / -name '*.patch' 2>/dev/null",
        "cat /eval.sh",
        "ls /var/tmp/base.*",
        "cat ../gold.patch",
    ],
)
def test_looking_for_the_grader_is_flagged(command: str) -> None:
    assert kinds(command) == ["grader"]


@pytest.mark.parametrize(
    "command",
    [
        "git log",
        "git log --oneline -5 -- src/click",
        "git log -p --follow a.py",
        "git diff",
        "git diff HEAD --stat",
        "git show HEAD",
        "git show HEAD~1:setup.py",
        "git status",
        "git stash && pytest; git stash pop",
        "git add --all",
        "git commit -am 'log --all'",
        "git branch",
        "git checkout -- .",
        "git blame -L 1,9 a.py",
        "git grep -n 'def main'",
        "git clone . /tmp/copy",
        "pip install -e .",
        "pip install --no-deps -e '.[test]'",
        "pip install ./",
        "pip list; pip show click; pip --version",
        "pip install --no-index dist/x.whl",
        "curl http://localhost:8000/",
        "echo 'git log --all'",
        "grep -rn 'pip install' docs",
        "python -c 'import subprocess; print(1)'",
        "pytest tests/test_requests.py -k test_patch",
        "find . -name '*.patch'",
        "find /testbed -name '*.diff'",
        "cat > notes.md <<'EOF'\ngit fetch && pip install click\nEOF",
        "npm test",
        "uv --version",
        "echo \"it's",
    ],
)
def test_ordinary_work_is_not_flagged(command: str) -> None:
    assert kinds(command) == []


def test_what_follows_a_here_document_is_read() -> None:
    assert kinds("cat > a <<EOF && git fetch\ntext\nEOF\ngit pull") == ["history"]


def test_a_command_may_be_of_several_kinds() -> None:
    assert kinds("git fetch; pip download click") == ["history", "index"]


def test_an_attempt_names_each_command_once() -> None:
    def step(name: str, arguments: str) -> Step:
        call = ToolCall(id="", function=FunctionCall(name=name, arguments=arguments))
        return Step(content="", tool_calls=(call, call))

    steps = [
        step("bash", json.dumps({"command": "git  fetch"})),
        step("str_replace_editor", json.dumps({"command": "view", "path": "git fetch"})),
        step("bash", "git pull"),
        step("bash", "[]"),
    ]
    assert leaks_in(steps) == ("history: git fetch", "history: git pull")
