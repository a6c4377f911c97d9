"""Runs of attempts: every one is accounted for, whatever fails, and graded in a container of its own."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import recipes
from agentdata.errors import RunError
from agentdata.records import FunctionCall, GoldPatch, Manifest, Message, Rejected, ToolCall, Trajectory
from agentdata.rollouts.endpoint import EndpointPolicy, Patience
from agentdata.rollouts.loop import Setting, run_attempt
from agentdata.rollouts.oracles import GoldPolicy, NullPolicy, ScriptedPolicy
from agentdata.rollouts.policy import Policy, PolicyGone, Reply
from agentdata.rollouts.run import Attempt, Crew, run_rollouts
from agentdata.shards import read_table
from sandboxes.docker import DockerSandbox
from sandboxes.engine import Engine
from sandboxes.errors import LimitExceeded
from tests import gradetoy
from tests.model_server import ModelServer
from tests.runs import finish, launch, wait_until
from tests.test_commands import write_tasks

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def toy(engine: Engine, base: str) -> str:
    """The image of the toy repository."""
    return gradetoy.image(engine, base)


def attempt_toy(
    run: Path, toy: str, make_policy: Callable[[Attempt], Policy], *overrides: str, copies: int = 1, attempts: int = 1
) -> Manifest:
    """Run attempts at the toy's task, or at several copies of it."""
    recipe = recipes.load_rollouts("environmental", [f"attempts={attempts}", *overrides])
    triples = []
    for number in range(copies):
        names = {"id": f"toy__calc-{number + 1}"}
        task, tests = gradetoy.task(toy).model_copy(update=names), gradetoy.task_tests().model_copy(update=names)
        triples.append((task, tests, GoldPatch(id=names["id"], patch=gradetoy.diff(dict(gradetoy.SOLVED)))))
    return run_rollouts(run, triples, recipe, make_policy, model="test", asked={}, crew=Crew(4, 2))


def trajectories(run: Path) -> list[Trajectory]:
    return list(read_table(run, "trajectories", Trajectory))


def bash(command: str) -> Reply:
    call = ToolCall(id="call", function=FunctionCall(name="bash", arguments=f'{{"command": "{command}"}}'))
    return Reply(content="", tool_calls=(call,), finish_reason="tool_calls")


def scripted(*turns: Reply) -> Callable[[Attempt], Policy]:
    return lambda attempt: ScriptedPolicy(turns)


def test_the_gold_policy_resolves_and_the_null_policy_does_not(tmp_path: Path, toy: str) -> None:
    scaffold = recipes.load_scaffold("editor")
    attempt_toy(tmp_path / "gold", toy, lambda attempt: GoldPolicy(attempt.gold.patch, scaffold))
    attempt_toy(tmp_path / "null", toy, lambda attempt: NullPolicy(scaffold))
    (gold,), (null,) = trajectories(tmp_path / "gold"), trajectories(tmp_path / "null")
    assert (gold.stop, gold.verdict.reason, gold.verdict.resolved) == ("submitted", "resolved", True)
    assert (null.stop, null.verdict.reason, null.submission) == ("submitted", "empty-patch", "")


@pytest.mark.parametrize(
    ("turns", "overrides", "stop"),
    [
        ([bash("ls")], ["budget.repeats=3"], "repeated-actions"),
        ([bash(f"echo {n}") for n in range(9)], ["budget.steps=3"], "step-limit"),
        ([bash("sleep 1")], ["budget.seconds=1", "budget.repeats=0"], "time-limit"),
        ([Reply(content="I think.")], ["budget.format_errors=3", "budget.repeats=0"], "format-errors"),
        ([bash("ls").model_copy(update={"completion_tokens": 60})], ["budget.tokens=100"], "token-budget"),
        ([bash("ls").model_copy(update={"prompt_tokens": 999})], ["budget.context_tokens=900"], "context-limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_attempt_ends_with_a_named_reason(
    tmp_path: Path, toy: str, turns: Sequence[Reply], overrides: Sequence[str], stop: str
) -> None:
    attempt_toy(tmp_path / "run", toy, scripted(*(list(turns) * 9)), *overrides)
    (row,) = trajectories(tmp_path / "run")
    assert row.stop == stop
    assert row.steps
    assert row.verdict.reason == "empty-patch"


def test_a_sandbox_that_commands_ruined_ends_the_attempt_and_counts(engine: Engine, toy: str) -> None:
    opened: list[DockerSandbox] = []

    class Ruin:
        def reply(self, messages: Sequence[Message], *given: object) -> Reply:
            if len(messages) > 3:
                opened[0].stop(LimitExceeded("it wrote more than it may"))
            return bash("echo hello")

    def opening(image: str) -> DockerSandbox:
        opened.append(engine.open(image))
        return opened[0]

    recipe = recipes.load_rollouts("environmental")
    setting = Setting("ruin", recipe.scaffold, recipe.budget, recipe.sampling, opening)
    row = run_attempt(gradetoy.task(toy), 0, 0, Ruin(), setting)
    assert (row.stop, row.submission) == ("sandbox-gone", "")
    assert "it wrote more than it may" in row.detail
    assert [len(step.observations) for step in row.steps] == [1, 0]


def test_a_task_without_its_image_is_refused_and_the_others_go_on(tmp_path: Path, toy: str) -> None:
    recipe = recipes.load_rollouts("environmental", ["attempts=1"])
    tests, gold = gradetoy.task_tests(), GoldPatch(id="toy__calc-1", patch="")
    missing = gradetoy.task("nobody/has:this").model_copy(update={"id": "toy__calc-0"})
    triples = [(missing, tests, gold), (gradetoy.task(toy), tests, gold)]
    run_rollouts(tmp_path / "run", triples, recipe, lambda _: NullPolicy(recipe.scaffold), model="null", asked={})
    (refused,) = read_table(tmp_path / "run", "rejected", Rejected)
    assert refused.reason == "no-image"
    assert "nobody/has:this" in refused.detail
    assert [row.task for row in trajectories(tmp_path / "run")] == ["toy__calc-1"]


def test_faults_of_the_server_cost_no_attempt(tmp_path: Path, toy: str) -> None:
    turns = {2: bash("sed -i s/a.-.b/a+b/ calc/core.py"), 4: bash("cat calc/core.py")}
    submit = Reply(content="", tool_calls=(ToolCall(id="s", function=FunctionCall(name="submit", arguments="{}")),))
    with ModelServer(lambda messages: turns.get(len(messages), submit), share=0.3, seed=4, hang_seconds=1) as server:
        patience = Patience(tries=20, seconds=60, least_wait=0.01, most_wait=0.1)
        with EndpointPolicy("tiny", [server.url], seconds=0.5, patience=patience) as policy:
            attempt_toy(tmp_path / "run", toy, lambda _: policy, copies=4, attempts=4)
        assert len(server.faulted) > 5
    rows = trajectories(tmp_path / "run")
    assert Counter(row.task for row in rows) == {f"toy__calc-{n}": 4 for n in range(1, 5)}
    assert {(row.stop, len(row.steps)) for row in rows} == {("submitted", 3)}


def test_an_attempt_whose_policy_is_gone_is_owed_and_made_later(tmp_path: Path, toy: str) -> None:
    class Gone:
        def reply(self, *given: object) -> Reply:
            raise PolicyGone("nobody answers", final=True)

    recipe = recipes.load_rollouts("environmental")
    with pytest.raises(RunError, match=r"2 of 2 attempts are owed.*nobody answers"):
        attempt_toy(tmp_path / "run", toy, lambda _: Gone(), attempts=2)
    attempt_toy(tmp_path / "run", toy, lambda _: NullPolicy(recipe.scaffold), attempts=2)
    assert [row.id for row in trajectories(tmp_path / "run")] == ["toy__calc-1/0", "toy__calc-1/1"]


def test_a_stop_does_not_wait_for_the_server(tmp_path: Path, toy: str) -> None:
    tasks = write_tasks(
        tmp_path / "tasks", gradetoy.task(toy), gradetoy.task_tests(), gradetoy.diff(dict(gradetoy.SOLVED))
    )
    with ModelServer(seconds=40) as server:
        command = ("harvest", "environmental", tasks, "-m", "tiny", "-e", server.url, "-o", tmp_path / "run")
        process = launch(*command, "scaffold=bash-only")
        assert wait_until(lambda: len(server.requests) == 4, 40)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        stopped = finish(process)
    assert stopped.status == 130
    assert time.monotonic() - began < 15
