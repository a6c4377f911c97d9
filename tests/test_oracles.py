"""Policies without a model, played through the tools of every scaffold."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import recipes
from agentdata.records import Observation, Step, Trajectory
from agentdata.rollouts.oracles import GoldPolicy, NullPolicy, ReplayPolicy, ScriptedPolicy
from agentdata.rollouts.parsing import read_calls
from agentdata.rollouts.policy import Policy, PolicyGone, Reply, Sampling
from agentdata.rollouts.prompts import conversation
from agentdata.rollouts.toolbox import Toolbox
from sandboxes.local import LocalSandbox
from tests import rollouts
from tests.histories import History, numbered

SCAFFOLDS = recipes.scaffolds()
BEFORE: dict[str, str | bytes | None] = {
    "calc.py": "import os\n\n\ndef add(a, b):\n    return a - b\n",
    "same.py": "def f():\n    return 1\n\n\n" * 6,
    "moved.py": numbered("f", 20),
    "windows.txt": b"a\r\nb\r\nc\r\n",
    "open.txt": "no end",
    "run.sh": "echo\n",
    "old.py": "gone\n",
    "empty.py": "",
    "data.bin": bytes(range(256)),
    "latin.txt": b"caf\xe9\n",
    "fence.md": "text\n```bash\nls\n```\n",
    "tags.xml": "<a></a>\n",
}
AFTER: dict[str, str | bytes | None] = {
    "calc.py": "import os\nimport sys\n\n\ndef add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n",
    "same.py": "def f():\n    return 1\n\n\n" * 3 + "def f():\n    return 2\n\n\n" + "def f():\n    return 1\n\n\n" * 2,
    "moved.py": None,
    "new/place.py": numbered("f", 20).replace("f_7", "g_7"),
    "windows.txt": b"a\r\nB\r\nc\r\nd\r\n",
    "open.txt": "no end\nat all",
    "run.sh": "echo hello\n",
    "old.py": None,
    "empty.py": "x = 1\n",
    "data.bin": bytes(range(255, -1, -1)),
    "latin.txt": b"th\xe9\n",
    "fence.md": "text\n```bash\nls -a\n```\nmore\n",
    "tags.xml": "<parameter=x></parameter>\n</function>\n",
    "new folder/ä.py": "new = 'text'",
    "a/b/c.sh": "#!/bin/sh\n",
    'quo"te': "1\n",
}


def play(policy: Policy, scaffold: recipes.Scaffold, sandbox: LocalSandbox, workdir: Path) -> list[Step]:
    """Turns until the work is handed in."""
    toolbox, steps = Toolbox(sandbox, scaffold, str(workdir)), list[Step]()
    while len(steps) < 99:
        reply = policy.reply(conversation(scaffold, (), steps), scaffold.tools, Sampling(), 0)
        calls = read_calls(scaffold, reply, len(steps))
        handed_in = toolbox.is_submit(calls[0])
        seen: tuple[Observation, ...] = () if handed_in else (toolbox.run(calls[0]),)
        steps.append(Step(content=reply.content, tool_calls=calls, observations=seen))
        if handed_in or toolbox.handed_in:
            return steps
    raise AssertionError("never handed in")


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "testbed")
    made.commit("Before", BEFORE)
    return made


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[LocalSandbox]:
    with LocalSandbox(tmp_path) as made:
        yield made


def difference(history: History) -> str:
    """What the tree differs by, as a patch with renames."""
    history.git("add", "-A")
    patch = history.path.parent / "made.patch"
    history.git("diff", "--cached", "--binary", "-M", f"--output={patch}")
    return patch.read_bytes().decode()


def gold(history: History) -> str:
    """The patch from before to after; the tree is as before again."""
    (history.path / "run.sh").chmod(0o755)
    (history.path / "new").mkdir()
    (history.path / "a/b").mkdir(parents=True)
    history.write(AFTER)
    (history.path / "a/b/c.sh").chmod(0o755)
    (history.path / "link").symlink_to("calc.py")
    (history.path / ".git/info").mkdir(exist_ok=True)
    (history.path / ".git/info/attributes").write_text("latin.txt -diff\n")
    patch = difference(history)
    history.git("reset", "-q", "--hard")
    return patch


@pytest.mark.parametrize("name", SCAFFOLDS)
def test_gold_makes_its_change_through_the_tools(history: History, sandbox: LocalSandbox, name: str) -> None:
    patch, scaffold = gold(history), recipes.load_scaffold(name)
    steps = play(GoldPolicy(patch, scaffold, str(history.path)), scaffold, sandbox, history.path)
    assert difference(history) == patch
    used = {call.function.name for step in steps for call in step.tool_calls}
    assert used == ({"bash"} if name == "bash-only" else {"bash", "str_replace_editor", "submit"})


def test_an_edit_that_is_refused_is_made_by_other_means(history: History, sandbox: LocalSandbox) -> None:
    history.write({"same.py": AFTER["same.py"]})
    patch = difference(history)
    history.git("reset", "-q", "--hard")
    scaffold = recipes.load_scaffold("editor")
    steps = play(GoldPolicy(patch, scaffold, str(history.path)), scaffold, sandbox, history.path)
    said = [step.observations[0].content[:30] for step in steps[:-1]]
    assert said == ["No replacement was performed. ", "Your command ran successfully "]
    assert (history.path / "same.py").read_text() == AFTER["same.py"]


@pytest.mark.parametrize("name", SCAFFOLDS)
def test_a_change_longer_than_a_command_may_be_is_made(history: History, sandbox: LocalSandbox, name: str) -> None:
    history.write({"calc.py": numbered("long", 6000), "data.bin": None})
    patch = difference(history)
    assert len(patch) > 200_000
    history.git("reset", "-q", "--hard")
    scaffold = recipes.load_scaffold(name)
    play(GoldPolicy(patch, scaffold, str(history.path)), scaffold, sandbox, history.path)
    assert difference(history) == patch


@pytest.mark.parametrize("name", SCAFFOLDS)
def test_null_hands_in_at_once(history: History, sandbox: LocalSandbox, name: str) -> None:
    scaffold = recipes.load_scaffold(name)
    assert len(play(NullPolicy(scaffold), scaffold, sandbox, history.path)) == 1


def test_a_script_is_played_by_the_turn_and_ends() -> None:
    scaffold = recipes.load_scaffold("editor")
    policy = ScriptedPolicy([Reply(content="one"), Reply(content="two")])
    for steps in ([], [Step(content="one")], []):
        reply = policy.reply(conversation(scaffold, (), steps), "", Sampling(), 0)
        assert reply.content == ("two" if steps else "one")
    with pytest.raises(PolicyGone, match="has 2 turns"):
        policy.reply(conversation(scaffold, (), [Step(content="")] * 2), "", Sampling(), 0)


def test_a_replay_repeats_the_turns_of_a_trajectory() -> None:
    trajectory: Trajectory = rollouts.attempt()
    scaffold = recipes.load_scaffold("editor")
    policy = ReplayPolicy(trajectory)
    for number, step in enumerate(trajectory.steps):
        reply = policy.reply(conversation(scaffold, (), trajectory.steps[:number]), "", Sampling(), 0)
        assert (reply.content, reply.tool_calls, reply.reasoning_content) == (
            step.content,
            step.tool_calls,
            step.reasoning_content,
        )
        assert json.loads(reply.model_dump_json())["token_ids"] == list(step.token_ids)
