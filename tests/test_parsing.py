"""Turns to calls, in each form, and what a policy is told of a turn that cannot be read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import recipes
from agentdata.records import FunctionCall, ToolCall
from agentdata.rollouts.parsing import FormatError, read_calls, written
from agentdata.rollouts.policy import Reply

EDITOR = recipes.load_scaffold("editor")
XML = recipes.load_scaffold("editor-xml")
FENCED = recipes.load_scaffold("bash-only")
LS = "<function=bash>\n<parameter=command>ls</parameter>\n</function>"


def native(*calls: tuple[str, str], ids: tuple[str, ...] = ("a", "b", "c")) -> Reply:
    made = [
        ToolCall(id=one, function=FunctionCall(name=call[0], arguments=call[1]))
        for one, call in zip(ids, calls, strict=False)
    ]
    return Reply(content="", tool_calls=tuple(made), finish_reason="tool_calls")


def refusal(scaffold: recipes.Scaffold, reply: Reply) -> str:
    with pytest.raises(FormatError) as error:
        read_calls(scaffold, reply, 0)
    return str(error.value)


def commands(scaffold: recipes.Scaffold, content: str, finish_reason: str = "stop") -> list[str]:
    calls = read_calls(scaffold, Reply(content=content, finish_reason=finish_reason), 0)
    return [json.loads(call.function.arguments)["command"] for call in calls]


def test_calls_of_the_server_keep_their_ids_and_arguments() -> None:
    reply = native(("bash", '{"command": "ls"}'), ("submit", ""))
    first, second = read_calls(EDITOR, reply, 3)
    assert (first.id, first.function.arguments) == ("a", '{"command": "ls"}')
    assert (second.id, second.function.arguments) == ("b", "{}")


def test_calls_with_no_id_or_the_same_one_get_ids_of_their_own() -> None:
    reply = native(*[("bash", '{"command": "ls"}')] * 3, ids=("", "same", "same"))
    assert [call.id for call in read_calls(EDITOR, reply, 3)] == ["call_0004", "call_0004_2", "call_0004_3"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("bash", '{"command": "ls"', "are not JSON"),
        ("bash", '["ls"]', "not a JSON object"),
        ("bash", "{}", "bash needs the argument 'command'"),
        ("bash", '{"command": null}', "must be of type string, not null"),
        ("bash", '{"command": ["ls"]}', "must be of type string"),
        ("bash", '{"command": "ls", "timeout": 3}', "takes no argument 'timeout'"),
        ("execute", "{}", "there is no tool 'execute', only bash, str_replace_editor, submit"),
        ("str_replace_editor", '{"command": "open", "path": "/a"}', "must be one of view"),
        ("str_replace_editor", '{"command": "insert", "path": "/a", "insert_line": "3"}', "must be of type integer"),
        ("str_replace_editor", '{"command": "insert", "path": "/a", "insert_line": true}', "must be of type integer"),
        ("str_replace_editor", '{"command": "view", "path": "/a", "view_range": [1, "x"]}', "must be of type integer"),
    ],
)
def test_a_call_that_does_not_fit_is_explained(name: str, arguments: str, said: str) -> None:
    assert said in refusal(EDITOR, native((name, arguments)))


def test_an_optional_argument_may_be_null() -> None:
    arguments = '{"command": "view", "path": "/a", "view_range": null}'
    assert read_calls(EDITOR, native(("str_replace_editor", arguments)), 0)


def test_one_bad_call_refuses_the_whole_turn() -> None:
    assert "needs the argument" in refusal(EDITOR, native(("bash", '{"command": "ls"}'), ("bash", "{}")))


def test_a_turn_without_a_call_is_told_how_to_make_one() -> None:
    said = refusal(EDITOR, Reply(content="I think."))
    assert "it calls no tool" in said
    assert "submit" in said


@pytest.mark.parametrize("scaffold", [EDITOR, XML, FENCED], ids=lambda scaffold: scaffold.name)
def test_a_turn_that_was_cut_off_is_told_so(scaffold: recipes.Scaffold) -> None:
    assert "cut off" in refusal(scaffold, Reply(content="I think and think", finish_reason="length"))


def test_a_call_in_the_text_gets_an_id_by_its_turn() -> None:
    (call,) = read_calls(XML, Reply(content=f"Look.\n\n{LS}"), 11)
    assert call.id == "call_0012"
    assert call.function == FunctionCall(name="bash", arguments='{"command": "ls"}')


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (f"{LS}\nThat was it.", "ls"),
        ("<function=bash><parameter=command>ls</parameter></function>", "ls"),
        ("<tool_call>\n<function=bash>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>", "ls"),
        ("<function=bash>\n<parameter=command>\n  a\n\n</parameter>\n</function>", "  a\n"),
        (LS.removesuffix("</function>"), "ls"),
        (LS.removesuffix("\n</function>"), "ls"),
        ("<function=bash>\n<parameter=command>grep '</parameter>' a</parameter>\n</function>", "grep '</parameter>' a"),
        ("<function=bash>\n<parameter=command>grep '</function>' a</parameter>\n</function>", "grep '</function>' a"),
        (f"<think>I could {LS} or so.</think>\n{LS.replace('ls', 'pwd')}", "pwd"),
    ],
)
def test_a_call_is_found_in_the_text(content: str, command: str) -> None:
    assert commands(XML, content) == [command]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("I think.", "it calls no tool"),
        (f"{LS}\n{LS}", "calls 2 functions"),
        ("<function=bash>\n<parameter=command>ls", "is not complete"),
        ("<function=bash>\nls\n</function>", "is not complete"),
        ("<function=bash>\n</function>", "needs the argument 'command'"),
        (LS.replace("=bash", "=run"), "there is no tool 'run'"),
        (
            "<function=str_replace_editor>\n<parameter=command>view</parameter>\n<parameter=path>/a</parameter>\n"
            "<parameter=view_range>1-5</parameter>\n</function>",
            "view_range must be of type array",
        ),
    ],
)
def test_a_text_that_calls_nothing_well_is_explained(content: str, said: str) -> None:
    assert said in refusal(XML, Reply(content=content))


def test_a_call_whose_end_was_cut_off_is_not_run() -> None:
    content = LS.removesuffix("</function>")
    assert "is not complete" in refusal(XML, Reply(content=content, finish_reason="length"))


@pytest.mark.parametrize(
    ("content", "command"),
    [
        ("THOUGHT: look.\n\n```bash\nls -a\n```", "ls -a"),
        ("```bash\nls\n```\nThat is all.", "ls"),
        ("```mswea_bash_command\nls\n```", "ls"),
        ("```python\nprint()\n```\n```bash\nls\n```", "ls"),
        ("```bash\ncat <<'EOF'\n+```\n ```\nEOF\n```", "cat <<'EOF'\n+```\n ```\nEOF"),
        ("<think>```bash\nrm -r .\n```</think>```bash\nls\n```", "ls"),
    ],
)
def test_the_one_block_is_the_command(content: str, command: str) -> None:
    assert commands(FENCED, content.replace("</think>", "</think>\n")) == [command]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ls", "it calls no tool"),
        ("```python\nprint()\n```", "it calls no tool"),
        ("```bash\nls\n```\n```bash\npwd\n```", "has 2 blocks"),
        ("```bash\nls", "it calls no tool"),
    ],
)
def test_not_exactly_one_block_is_explained(content: str, said: str) -> None:
    said_all = refusal(FENCED, Reply(content=content))
    assert said in said_all
    assert "exactly ONE command" in said_all


TEXTS = st.text("ab\n <>&/\"'\\", max_size=12).filter(lambda text: "<" not in text or ">" not in text)


@given(TEXTS, TEXTS, st.integers(0, 99))
def test_what_is_written_as_text_is_read_back(old: str, new: str, line: int) -> None:
    arguments = {"command": "insert", "path": "/a b", "old_str": old, "new_str": new, "insert_line": line}
    call = FunctionCall(name="str_replace_editor", arguments=json.dumps(arguments, ensure_ascii=False))
    (read,) = read_calls(XML, Reply(content=f"I edit.\n\n{written(XML, call)}"), 0)
    assert json.loads(read.function.arguments) == arguments
