"""What the tools of a scaffold do in a sandbox, and what the policy sees of it."""

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recipes
from agentdata.records import FunctionCall, Observation, ToolCall
from agentdata.rollouts.file_editor import decoded
from agentdata.rollouts.toolbox import Toolbox, cut
from sandboxes.local import LocalSandbox

EDITOR = recipes.load_scaffold("editor")
BASH_ONLY = recipes.load_scaffold("bash-only")


@dataclass
class Box:
    """A toolbox over a folder."""

    sandbox: LocalSandbox
    tools: Toolbox

    def path(self, name: str) -> str:
        return str(self.sandbox.directory / name)

    def write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self.sandbox.write(name, content, mode=mode)

    def read(self, name: str) -> bytes:
        return (self.sandbox.directory / name).read_bytes()

    def bash(self, command: str) -> Observation:
        return self.call("bash", command=command)

    def edit(self, command: str, name: str, **arguments: object) -> Observation:
        return self.call("str_replace_editor", command=command, path=self.path(name), **arguments)

    def call(self, name: str, **arguments: object) -> Observation:
        return self.tools.run(ToolCall(id="call", function=FunctionCall(name=name, arguments=json.dumps(arguments))))


def boxed(scaffold: recipes.Scaffold, **changes: object) -> Iterator[Box]:
    with LocalSandbox() as sandbox:
        yield Box(sandbox, Toolbox(sandbox, scaffold.model_copy(update=changes), str(sandbox.directory)))


@pytest.fixture
def box() -> Iterator[Box]:
    yield from boxed(EDITOR, command_seconds=5, most_observation_characters=2000)


@pytest.fixture
def alone() -> Iterator[Box]:
    yield from boxed(BASH_ONLY, command_seconds=5, most_observation_characters=2000)


# bash


def test_the_shell_keeps_directory_and_variables(box: Box) -> None:
    box.bash("mkdir sub; cd sub; word=hello")
    seen = box.bash("basename $PWD; echo $word")
    assert (seen.content, seen.status, seen.tool_call_id) == ("sub\nhello\n", 0, "call")


def test_no_program_waits_for_a_reader(box: Box) -> None:
    assert box.bash("echo $PAGER $GIT_PAGER $LESS").content == "cat cat -R\n"


@pytest.mark.parametrize(
    ("command", "content"),
    [
        ("true", "Your command ran successfully and did not produce any output."),
        ("false", "Your command printed nothing; its exit status is 1."),
    ],
)
def test_silence_is_told(box: Box, command: str, content: str) -> None:
    assert box.bash(command).content == content


def test_a_command_that_takes_too_long_is_stopped_and_the_session_lives() -> None:
    for box in boxed(EDITOR, command_seconds=0.3):
        box.bash("word=hello")
        seen = box.bash("echo begun; sleep 60")
        assert seen.status == 124
        assert seen.content.startswith("begun\nThe command was stopped because it took more than 0.3 seconds.")
        assert box.bash("echo $word").content == "hello\n"


def test_a_long_output_keeps_head_and_tail(box: Box) -> None:
    seen = box.bash("seq 1 5000")
    assert seen.content.startswith("1\n2\n")
    assert seen.content.endswith("4999\n5000\n")
    assert seen.cut_characters == len("".join(f"{n}\n" for n in range(1, 5001))) - 2000
    assert f"<response clipped><NOTE>{seen.cut_characters} characters are left out here." in seen.content


def test_half_a_character_does_not_break_a_command(box: Box) -> None:
    assert box.bash("echo '\ud800'").content == "?\n"


@given(st.text("ab\n"), st.integers(1, 9))
def test_what_is_cut_is_counted(text: str, most: int) -> None:
    kept = cut(text, most)
    assert len(kept.head) + len(kept.tail) + kept.missing == len(text)
    assert text.startswith(kept.head)
    assert text.endswith(kept.tail)
    assert len(kept.head) + len(kept.tail) == min(most, len(text))


def test_an_observation_may_carry_a_mark() -> None:
    for box in boxed(recipes.load_scaffold("editor-xml")):
        assert box.bash("echo hello").content == "OBSERVATION:\nhello\n"


def test_submit_hands_in_without_running() -> None:
    for box in boxed(EDITOR):
        assert box.tools.is_submit(ToolCall(id="", function=FunctionCall(name="submit", arguments="{}")))
        assert not box.tools.is_submit(ToolCall(id="", function=FunctionCall(name="bash", arguments="{}")))


# bash-only


def test_each_command_has_a_shell_of_its_own(alone: Box) -> None:
    assert alone.bash("cd /; word=hello").content == "<returncode>0</returncode>\n<output>\n</output>"
    seen = alone.bash("echo $word; basename $PWD; false")
    folder = alone.sandbox.directory.name
    assert seen.content == f"<returncode>1</returncode>\n<output>\n\n{folder}\n</output>"
    assert seen.status == 1


def test_a_command_of_its_own_that_takes_too_long_is_an_exception() -> None:
    for box in boxed(BASH_ONLY, command_seconds=0.3):
        seen = box.bash("echo begun; sleep 60")
        assert seen.content.startswith("<exception>The command was stopped because it took more than 0.3 seconds.")
        assert seen.content.endswith("</exception>\n<returncode>-1</returncode>\n<output>\nbegun\n</output>")


def test_a_long_output_is_shown_in_two_parts(alone: Box) -> None:
    seen = alone.bash("seq 1 5000")
    assert f"<elided_chars>\n{seen.cut_characters} characters elided\n</elided_chars>" in seen.content
    assert "<output_head>\n1\n2\n" in seen.content
    assert seen.content.endswith("4999\n5000\n\n</output_tail>")


@pytest.mark.parametrize(
    ("command", "handed_in"),
    [
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", True),
        ("cd / && echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo diff", True),
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; false", False),
        ("echo done; echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", False),
        ("echo 'echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT'", False),
    ],
)
def test_a_line_hands_in(alone: Box, command: str, handed_in: bool) -> None:
    alone.bash(command)
    assert alone.tools.handed_in is handed_in


# str_replace_editor


def test_view_prints_a_file_with_numbers(box: Box) -> None:
    box.write("a.py", b"x = 1\n\n\ty = 2\n")
    path = box.path("a.py")
    assert box.edit("view", "a.py").content == (
        f"Here's the result of running `cat -n` on {path}:\n     1\tx = 1\n     2\t\n     3\t\ty = 2\n     4\t\n"
    )
    seen = box.edit("view", "a.py", view_range=[3, -1])
    assert seen.content.split("\n")[1:] == ["     3\t\ty = 2", "     4\t", ""]


def test_view_lists_a_directory_two_levels_deep(box: Box) -> None:
    for name in ("b/c/d.py", "b/e.py", ".hidden/f.py", "a.py", "b/.g"):
        box.write(name, b"")
    root = box.path("")
    assert box.edit("view", "").content == (
        f"Here's the files and directories up to 2 levels deep in {root}, excluding hidden items:\n"
        f"{root}\n{root}/a.py\n{root}/b\n{root}/b/c\n{root}/b/e.py\n\n"
    )


@pytest.mark.parametrize(
    ("view_range", "said"),
    [
        ([1], "It should be a list of two integers."),
        ([0, 2], "Its first element `0` should be within the range of lines of the file: [1, 3]"),
        ([4, 5], "Its first element `4` should be within the range of lines of the file: [1, 3]"),
        ([1, 9], "Its second element `9` should be smaller than the number of lines in the file: `3`"),
        ([2, 1], "Its second element `1` should be larger or equal than its first `2`"),
    ],
)
def test_a_range_that_is_none_is_refused(box: Box, view_range: list[int], said: str) -> None:
    box.write("a", b"1\n2\n")
    seen = box.edit("view", "a", view_range=view_range)
    assert seen.content.startswith("Invalid `view_range`")
    assert seen.content.endswith(said)
    assert seen.status == 1


def test_create_writes_a_new_file_and_its_folders(box: Box) -> None:
    seen = box.edit("create", "new/a.py", file_text="x = 1\n")
    assert seen.content == f"File created successfully at: {box.path('new/a.py')}"
    assert box.read("new/a.py") == b"x = 1\n"
    again = box.edit("create", "new/a.py", file_text="")
    assert again.content.startswith("File already exists at:")
    assert box.edit("create", "new", file_text="").content.startswith("File already exists at:")
    assert box.read("new/a.py") == b"x = 1\n"


def test_str_replace_shows_what_it_did(box: Box) -> None:
    box.write("a", b"one\ntwo\nthree\n")
    path = box.path("a")
    assert box.edit("str_replace", "a", old_str="two", new_str="2\n2").content == (
        f"The file {path} has been edited. Here's the result of running `cat -n` on a snippet of {path}:\n"
        "     1\tone\n     2\t2\n     3\t2\n     4\tthree\n     5\t\n"
        "Review the changes and make sure they are as expected. Edit the file again if necessary."
    )
    box.edit("str_replace", "a", old_str="2\n2\n")
    assert box.read("a") == b"one\nthree\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("four", "4", "No replacement was performed, old_str `four` did not appear verbatim in"),
        ("", "4", "No replacement was performed, old_str `` did not appear verbatim in"),
        ("t", "4", "No replacement was performed. Multiple occurrences of old_str `t` in lines [2, 3]."),
        ("two", "two", "No replacement was performed, old_str `two` is the same as new_str `two`."),
    ],
)
def test_a_replacement_that_is_not_clear_is_refused(box: Box, old: str, new: str, said: str) -> None:
    box.write("a", b"one\ntwo\nthree\n")
    seen = box.edit("str_replace", "a", old_str=old, new_str=new)
    assert seen.content.startswith(said)
    assert seen.status == 1
    assert box.read("a") == b"one\ntwo\nthree\n"


def test_insert_shows_what_it_did(box: Box) -> None:
    box.write("a", b"one\ntwo\n")
    assert box.edit("insert", "a", insert_line=1, new_str="new").content == (
        f"The file {box.path('a')} has been edited. Here's the result of running `cat -n` on a snippet of the edited file:\n"
        "     1\tone\n     2\tnew\n     3\ttwo\n     4\t\n"
        "Review the changes and make sure they are as expected (correct indentation, no duplicate lines, etc). "
        "Edit the file again if necessary."
    )
    assert box.read("a") == b"one\nnew\ntwo\n"
    assert box.edit("insert", "a", insert_line=9, new_str="x").content == (
        "Invalid `insert_line` parameter: 9. It should be within the range of lines of the file: [0, 4]"
    )


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("create", {}, "Parameter `file_text` is required for command: create"),
        ("str_replace", {}, "Parameter `old_str` is required for command: str_replace"),
        ("insert", {"new_str": "x"}, "Parameter `insert_line` is required for command: insert"),
        ("insert", {"insert_line": 1}, "Parameter `new_str` is required for command: insert"),
    ],
)
def test_a_missing_argument_is_named(box: Box, command: str, arguments: dict[str, object], said: str) -> None:
    box.write("a", b"one\n")
    assert box.edit(command, "b" if command == "create" else "a", **arguments).content == said


def test_paths_that_cannot_be_edited_are_refused(box: Box) -> None:
    box.write("folder/a", b"")
    assert box.edit("view", "b").content.endswith("b does not exist. Please provide a valid path.")
    assert box.edit("view", "folder/a/b").content.endswith("does not exist. Please provide a valid path.")
    assert "only the `view` command" in box.edit("insert", "folder", insert_line=0, new_str="x").content
    relative = box.call("str_replace_editor", command="view", path="a.py")
    assert relative.content.endswith("it should start with `/`. Maybe you meant /testbed/a.py?")
    box.bash("mkfifo pipe")
    assert box.edit("view", "pipe").content.startswith("Ran into Invalid argument while trying to read")


def test_undo_takes_back_the_last_edit_of_a_file(box: Box) -> None:
    box.write("a", b"one\r\n")
    assert box.edit("undo_edit", "a").content == f"No edit history found for {box.path('a')}."
    box.edit("str_replace", "a", old_str="one", new_str="two")
    box.edit("str_replace", "a", old_str="two", new_str="three")
    assert box.edit("undo_edit", "a").content.startswith(f"Last edit to {box.path('a')} undone successfully. Here's")
    assert box.read("a") == b"two\r\n"


def test_an_edit_keeps_the_mode(box: Box) -> None:
    box.write("run.sh", b"echo one\n", mode=0o755)
    box.edit("str_replace", "run.sh", old_str="one", new_str="two")
    assert stat.S_IMODE((box.sandbox.directory / "run.sh").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        (b"caf\xe9 = 1\nb = 2", "b = 2", "b = 3", b"caf\xe9 = 1\nb = 3"),
        (b"a\r\nb\r\nc\r\n", "a\nb", "x\ny", b"x\r\ny\r\nc\r\n"),
        (b"a\r\nb\r\nc\r\n", "a\r\nb", "x\r\ny", b"x\r\ny\r\nc\r\n"),
        (b"a\r\nb\nc\r\n", "b\n", "x\n", b"a\r\nx\nc\r\n"),
        (b"\xef\xbb\xbfa\n", "a", "b", b"\xef\xbb\xbfb\n"),
        (b"a\rb\x0cc\x85d\n", "d", "e", b"a\rb\x0cc\x85e\n"),
        (b"a\x00b\xff\xfe", "b", "c", b"a\x00c\xff\xfe"),
    ],
)
def test_an_edit_changes_no_byte_that_it_does_not_name(
    box: Box, before: bytes, old: str, new: str, after: bytes
) -> None:
    box.write("a", before)
    assert box.edit("str_replace", "a", old_str=old, new_str=new).status == 0
    assert box.read("a") == after


def test_what_an_encoding_does_not_have_is_refused(box: Box) -> None:
    box.write("a", b"caf\xe9\n")
    seen = box.edit("str_replace", "a", old_str="caf", new_str="\u2603")
    assert seen.content.startswith("Ran into 'latin-1' codec can't encode")
    assert box.read("a") == b"caf\xe9\n"


@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"a", b"\xe9"])).map(b"".join))
def test_every_file_is_a_text_and_back(content: bytes) -> None:
    file = decoded(content)
    assert file.encoded(file.text) == content


@given(st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_insertion_keeps_all_other_bytes(box: Box, before: bytes, after: bytes, new: bytes) -> None:
    content = before.replace(b"\n", b"") + b"\n" + after
    file = decoded(content)
    text = new.replace(b"\n", b"").decode("latin-1").replace("\r", "") if file.encoding == "latin-1" else "x"
    box.write("a", content)
    box.edit("insert", "a", insert_line=1, new_str=text)
    at = len(before.replace(b"\n", b"")) + 1
    line = (text + file.line_end).encode(file.encoding)
    assert box.read("a") == content[:at] + line + content[at:]
