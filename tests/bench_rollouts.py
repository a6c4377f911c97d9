"""Rollouts of a scripted policy: ours beside mini-swe-agent's, same commands, same image, same workers, one run.

    python -m tests.bench_rollouts --mini PYTHON --image IMAGE --attempts 16 --commands 30 -j 2

PYTHON is an interpreter that has mini-swe-agent (`pip install mini-swe-agent` in an environment of its own). IMAGE is
that of a task, with a tree at /testbed. Prints actions per second of both, from the first sandbox to the last
submission, then ours with many attempts at once. Needs a Docker engine and its command line.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import recipes
from agentdata.records import Task
from agentdata.rollouts.loop import Setting, run_attempt
from agentdata.rollouts.oracles import ScriptedPolicy
from agentdata.rollouts.policy import Reply, Sampling
from agentdata.rollouts.scaffold import Budget
from sandboxes.engine import Engine

COMMANDS = (
    "git status --short | head -n 5",
    "ls",
    "grep -rn 'def ' --include='*.py' . | head -n 20",
    "head -n 40 README* | head -n 60",
    "find . -name '*.py' | wc -l",
    "echo changed >> notes.txt",
    "cat notes.txt",
)
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
MINI = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import logging
logging.disable(logging.CRITICAL)
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.models.test_models import DeterministicModel, make_output
import time
given = json.loads(sys.argv[1])
def attempt(number):
    outputs = [make_output("```bash\\n%s\\n```" % command, [{"command": command}]) for command in given["commands"]]
    environment = DockerEnvironment(image=given["image"], cwd="/testbed", run_args=["--rm", "--network=none"])
    agent = DefaultAgent(
        DeterministicModel(outputs=outputs, cost_per_call=0.0),
        environment,
        system_template="You work in a shell.",
        instance_template="{{task}}",
        cost_limit=0.0,
    )
    status = agent.run("Do it.")
    environment.cleanup()
    return len(agent.messages), status["exit_status"]
began = time.monotonic()
with ThreadPoolExecutor(given["workers"]) as pool:
    ended = list(pool.map(attempt, range(given["attempts"])))
seconds = time.monotonic() - began
assert all(status == "Submitted" for _, status in ended), ended
print(json.dumps({"seconds": seconds}))
"""


def script(commands: int) -> list[str]:
    """The commands of one attempt, the last of which submits."""
    return [COMMANDS[number % len(COMMANDS)] for number in range(commands - 1)] + [SUBMIT]


def ours(image: str, commands: list[str], attempts: int, workers: int) -> float:
    """Seconds for all attempts."""
    task = Task(
        id="bench__bench-1",
        repo="bench/bench",
        environment="",
        image=image,
        base_commit="",
        problem_statement="Do it.",
        statement_source="tests",
        source="change",
        created_at="",
    )
    turns = [Reply(content=f"```bash\n{command}\n```") for command in commands]
    with closing(Engine()) as engine:
        budget = Budget(repeats=0, steps=0)
        setting = Setting("scripted", recipes.load_scaffold("bash-only"), budget, Sampling(), engine.open)
        began = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            attempt = partial(_attempt, task, setting, turns)
            stops = list(pool.map(attempt, range(attempts)))
        seconds = time.monotonic() - began
    assert stops == [("submitted", len(commands))] * attempts, stops
    return seconds


def _attempt(task: Task, setting: Setting, turns: list[Reply], number: int) -> tuple[str, int]:
    trajectory = run_attempt(task, number, number, ScriptedPolicy(turns), setting)
    assert "notes.txt" in trajectory.submission, trajectory
    return trajectory.stop, len(trajectory.steps)


def mini(python: str, image: str, commands: list[str], attempts: int, workers: int) -> float:
    """Seconds that mini-swe-agent takes, without its start."""
    given = {"image": image, "commands": commands, "attempts": attempts, "workers": workers}
    done = subprocess.run([python, "-c", MINI, json.dumps(given)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--mini", default="", metavar="PYTHON")
    parser.add_argument("--attempts", type=int, default=16)
    parser.add_argument("--commands", type=int, default=30)
    parser.add_argument("--many", type=int, default=64, help="attempts at once in the last part")
    parser.add_argument("-j", "--workers", type=int, default=2)
    given = parser.parse_args()
    commands = script(given.commands)
    total = given.attempts * len(commands)
    own = total / ours(given.image, commands, given.attempts, given.workers)
    print(f"ours, {given.workers} at once: {own:,.1f} actions/s")
    if given.mini:
        other = total / mini(given.mini, given.image, commands, given.attempts, given.workers)
        print(
            f"mini-swe-agent, {given.workers} at once: {other:,.1f} actions/s; ours is {own / other:.1f} times as fast"
        )
    seconds = ours(given.image, commands, given.many, given.many)
    print(
        f"ours, {given.many} at once: {given.many * len(commands) / seconds:,.1f} actions/s, {seconds:.1f} s, all submitted"
    )


if __name__ == "__main__":
    main()
