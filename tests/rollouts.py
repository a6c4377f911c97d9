"""Made trajectories: small ones by hand, and any that hypothesis can think of."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from hypothesis import strategies as st

from agentdata.records import (
    SCHEMA_VERSION,
    CallForm,
    FunctionCall,
    Manifest,
    Message,
    Observation,
    Step,
    StopReason,
    ToolCall,
    Trajectory,
    Verdict,
)
from agentdata.rollouts.samples import xml_call
from agentdata.shards import UnitOutput, collect, write_whole

BASH = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}
PATCH = "diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n@@ -1 +1 @@\n-a - b\n+a + b\n"


def call(identity: str, name: str = "bash", **arguments: object) -> ToolCall:
    """A call with its arguments as JSON text."""
    return ToolCall(id=identity, function=FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False)))


def step(number: int, command: str, output: str, *, status: int = 0, reasoning: str = "") -> Step:
    """A turn that runs one command."""
    made = call(f"call_{number:04}", command=command)
    seen = Observation(tool_call_id=made.id, content=output, status=status, seconds=0.5)
    return Step(
        content=f"Let me run {command}.",
        reasoning_content=reasoning,
        tool_calls=(made,),
        observations=(seen,),
        finish_reason="tool_calls",
        prompt_tokens=10 * number,
        completion_tokens=5,
        seconds=1.5,
    )


def with_tokens(steps: Iterable[Step], *, drift: bool = False) -> tuple[Step, ...]:
    """The steps with tokens: each whole prompt is everything before it and three more."""
    known: list[int] = []
    made = []
    for number, one in enumerate(steps):
        prompt = [*known, *range(100 * number, 100 * number + 3)]
        prompt = [999, *prompt[1:]] if drift and number else prompt
        drawn = tuple(range(100 * number + 50, 100 * number + 54))
        made.append(one.model_copy(update={"prompt_token_ids": tuple(prompt), "token_ids": drawn}))
        known = [*prompt, *drawn]
    return tuple(made)


def attempt(
    task: str = "toy__calc-1",
    number: int = 0,
    *,
    resolved: bool | None = True,
    steps: Iterable[Step] = (),
    stop: StopReason = "submitted",
    form: CallForm = "tool-calls",
    leaks: tuple[str, ...] = (),
    tampering: tuple[str, ...] = (),
) -> Trajectory:
    """An attempt; by default it looks, fails a command, edits and submits. `resolved` None is not graded."""
    reason = "not-graded" if resolved is None else "resolved" if resolved else "tests-failed"
    submit = Step(content="Done.", tool_calls=(call("call_0003", "submit"),), finish_reason="tool_calls")
    given = tuple(steps) or (
        step(1, "ls", "calc.py\n", reasoning="Look first."),
        step(2, "python calc.py", "Traceback\n", status=1),
        submit,
    )
    return Trajectory(
        id=f"{task}/{number}",
        task=task,
        repo="toy/calc",
        base_commit="a" * 40,
        licence="MIT",
        attempt=number,
        seed=number,
        model="tiny",
        sampling='{"temperature":0.7}',
        scaffold="editor",
        scaffold_version="1",
        form=form,
        tools=json.dumps([BASH]),
        prompt=(
            Message(role="system", content="You are a software engineer.", train=False),
            Message(role="user", content="add subtracts <it> should not", train=False),
        ),
        steps=given,
        stop=stop,
        submission=PATCH,
        leaks=leaks,
        verdict=Verdict(task=task, model="tiny", resolved=bool(resolved), reason=reason, tampering=tampering),
        seconds=12.5,
        created_at="2026-01-02T03:04:05+00:00",
        generator="agentdata 0",
    )


def save(run: Path, *trajectories: Trajectory) -> Path:
    """A finished run that holds the trajectories, two in each shard."""
    units = []
    for first in range(0, len(trajectories), 2):
        units.append(f"{first:05}")
        with UnitOutput(run, units[-1]) as output:
            for trajectory in trajectories[first : first + 2]:
                output.write("trajectories", trajectory)
    tables, _ = collect(run, units)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator="agentdata 0",
        configuration="{}",
        tables=tables,
        counts=(),
        rejections=(),
        tokens=(),
    )
    write_whole(run / "config.json", json.dumps({"generator": "agentdata 0", "options": {}}))
    write_whole(run / "manifest.json", manifest.model_dump_json())
    return run


# Any trajectory

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
ARGUMENTS = st.one_of(
    st.dictionaries(TEXT, TEXT, max_size=2).map(json.dumps), st.just('{ "command" : "ls" }'), st.just("{oops")
)
NAMES = st.sampled_from(["bash", "str_replace_editor", "submit", "other.tool"])


@st.composite
def any_step(draw: st.DrawFn, number: int) -> Step:
    """A turn with native calls: any number of them, answered in order, or one that could not be read."""
    names = draw(st.lists(NAMES, max_size=3))
    calls = tuple(
        ToolCall(id=f"call_{number}_{place}", function=FunctionCall(name=name, arguments=draw(ARGUMENTS)))
        for place, name in enumerate(names)
    )
    answered = draw(st.integers(0, len(calls)))
    seen = tuple(
        Observation(tool_call_id=made.id, content=draw(TEXT), status=draw(st.integers(0, 3)))
        for made in calls[:answered]
    )
    if draw(st.booleans()):
        seen = (*seen, Observation(tool_call_id="", content=draw(TEXT), status=1))
    return Step(
        content=draw(TEXT),
        reasoning_content=draw(TEXT),
        tool_calls=calls,
        observations=seen,
        completion_tokens=draw(st.integers(0, 9)),
        token_ids=tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
    )


def fenced_call(function: FunctionCall) -> str:
    """A call as mini-swe-agent's text form has it."""
    return f"```bash\n{json.loads(function.arguments)['command']}\n```"


@st.composite
def any_text_step(draw: st.DrawFn, number: int, write: Callable[[FunctionCall], str]) -> Step:
    """A turn whose call stands in its text, as the parser reads it."""
    command = draw(st.text("abc <>&\"'=/.\n", max_size=20).map(lambda text: f"x{text}y"))
    made = ToolCall(id=f"any-{number}", function=FunctionCall(name="bash", arguments=json.dumps({"command": command})))
    words = draw(st.text("abc .\n", max_size=20))
    seen = Observation(tool_call_id=made.id, content=draw(TEXT), status=draw(st.integers(0, 3)))
    return Step(content=f"{words}\n{write(made.function)}", tool_calls=(made,), observations=(seen,))


@st.composite
def any_attempt(draw: st.DrawFn) -> Trajectory:
    """An attempt with at least one step."""
    form: CallForm = draw(st.sampled_from(["tool-calls", "xml", "fenced"]))
    write = {"tool-calls": None, "xml": xml_call, "fenced": fenced_call}[form]
    numbers = range(draw(st.integers(1, 4)))
    steps = [draw(any_text_step(number, write) if write else any_step(number)) for number in numbers]
    if form == "tool-calls" and not any(one.tool_calls for one in steps):
        steps.append(step(9, "ls", "calc.py\n"))
    resolved = draw(st.sampled_from([True, False, None]))
    stop: StopReason = draw(st.sampled_from(["submitted", "step-limit", "context-limit", "policy-gone"]))
    made = attempt(
        steps=steps, form=form, resolved=resolved, stop=stop, leaks=draw(st.sampled_from([(), ("history: git log",)]))
    )
    return made.model_copy(update={"submission": draw(TEXT)})
