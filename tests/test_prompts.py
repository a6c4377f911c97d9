"""The conversation, for the model and for the sample."""

import pytest

import recipes
from agentdata.records import FunctionCall, Message, Observation, Step, Task, ToolCall
from agentdata.rollouts.prompts import conversation, described, opening

TASK = Task(
    id="a__b-1",
    repo="a/b",
    environment="",
    image="image",
    base_commit="",
    problem_statement="The {workdir} is {hints}.",
    statement_source="issue",
    source="change",
    created_at="",
)
PROMPT = (Message(role="system", content="Work.", train=False), Message(role="user", content="Fix it.", train=False))


def step(number: int, *, answered: bool = True) -> Step:
    call = ToolCall(id=f"call_{number:04}", function=FunctionCall(name="bash", arguments='{"command": "ls"}'))
    seen = Observation(tool_call_id=call.id if answered else "", content=f"output {number}")
    return Step(content=f"turn {number}", reasoning_content="hm", tool_calls=(call,), observations=(seen,))


@pytest.mark.parametrize("name", recipes.scaffolds())
def test_the_opening_holds_the_problem_as_it_is(name: str) -> None:
    system, user = opening(recipes.load_scaffold(name), TASK)
    assert (system.role, user.role) == ("system", "user")
    assert "The {workdir} is {hints}." in user.content
    assert "/testbed" in user.content
    assert "{tools}" not in system.content


def test_a_text_form_is_told_of_every_tool_and_argument() -> None:
    (system, _) = opening(recipes.load_scaffold("editor-xml"), TASK)
    for word in (
        "### bash",
        "### str_replace_editor",
        "### submit",
        "- command (string, required",
        "- view_range (array of",
    ):
        assert word in system.content


def test_tools_without_parameters_say_so() -> None:
    assert described('[{"function": {"name": "submit"}}]').endswith("No parameters.")


def test_calls_of_the_server_are_answered_by_tools() -> None:
    said = conversation(recipes.load_scaffold("editor"), PROMPT, [step(1), step(2)])
    assert [message.role for message in said] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert said[2].tool_calls[0].id == said[3].tool_call_id == "call_0001"
    assert (said[2].train, said[3].train, said[2].reasoning_content) == (True, False, "hm")


@pytest.mark.parametrize("name", ["editor-xml", "bash-only"])
def test_calls_in_the_text_are_answered_by_the_user(name: str) -> None:
    said = conversation(recipes.load_scaffold(name), PROMPT, [step(1)])
    assert [message.role for message in said] == ["system", "user", "assistant", "user"]
    assert said[2].tool_calls == ()


def test_a_turn_that_could_not_be_read_is_corrected_by_the_user() -> None:
    said = conversation(recipes.load_scaffold("editor"), PROMPT, [step(1, answered=False), step(2)])
    assert [message.role for message in said[2:]] == ["assistant", "user", "assistant", "tool"]
    assert said[2].tool_calls == ()


@pytest.mark.parametrize("name", recipes.scaffolds())
def test_the_conversation_only_grows(name: str) -> None:
    scaffold = recipes.load_scaffold(name)
    steps = [step(1), step(2, answered=False), step(3)]
    whole = conversation(scaffold, PROMPT, steps)
    for count in range(len(steps)):
        part = conversation(scaffold, PROMPT, steps[:count])
        assert whole[: len(part)] == part


def test_the_oldest_observations_may_be_left_out() -> None:
    said = conversation(recipes.load_scaffold("editor"), PROMPT, [step(1), step(2)], elided=1)
    assert "left out" in said[3].content
    assert said[5].content == "output 2"
