"""Trajectories in other projects' forms, and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from agentdata.cli import trajectories
from agentdata.errors import UsageError
from agentdata.records import Rejected, Trajectory
from agentdata.rollouts.formats import atif, mini_swe_agent, openhands, sharegpt, swe_agent
from agentdata.rollouts.formats.exchange import LOST, NAMES, WRITE, Form, find_files, from_row, read_trajectories
from agentdata.rollouts.formats.exchange import write_trajectories as write
from agentdata.rollouts.formats.messages import write_row, write_smith_row
from agentdata.rollouts.prompts import readable
from agentdata.rollouts.samples import seen
from tests.rollouts import PATCH, any_attempt, attempt, call, step

WHOLE: dict[str, Callable[[Trajectory], dict[str, Any]]] = {
    "swe-agent": swe_agent.write_file,
    "mini-swe-agent": mini_swe_agent.write_file,
    "openhands": openhands.write_row,
}
"""Forms that keep everything."""


def read(path: Path) -> list[Trajectory]:
    found = list(read_trajectories([path]))
    return [one for one in found if not isinstance(one, Rejected)]


def refused(*rows: object, path: Path) -> list[tuple[str, str]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [(one.id, one.reason) for one in read_trajectories([path]) if isinstance(one, Rejected)]


def saved(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def plain(row: object) -> Any:
    """As it is after a way through a file."""
    return json.loads(json.dumps(row, ensure_ascii=False))


def functions(trajectory: Trajectory) -> list[list[Any]]:
    return [[made.function for made in one.tool_calls] for one in trajectory.steps]


# Round trips


@pytest.mark.parametrize("form", WHOLE)
@settings(max_examples=60, deadline=None)
@given(trajectory=any_attempt())
def test_a_form_that_takes_anything_gives_back_the_very_record(form: str, trajectory: Trajectory) -> None:
    assert from_row(plain(WHOLE[form](trajectory)), "name") == trajectory


@settings(max_examples=60, deadline=None)
@given(trajectory=any_attempt())
def test_rows_of_messages_give_back_the_conversation(trajectory: Trajectory) -> None:
    found = from_row(plain(write_row(trajectory)), "name")
    assert seen(found) == seen(trajectory)
    for one, calls, kept in zip(trajectory.steps, functions(trajectory), functions(found), strict=True):
        assert kept == (calls if readable(one) else [])
    lost = {"steps", "id", "verdict"}
    assert found.model_dump(exclude=lost) == trajectory.model_dump(exclude=lost)
    assert (found.verdict.resolved, found.verdict.reason) == (trajectory.verdict.resolved, trajectory.verdict.reason)


@settings(max_examples=40, deadline=None)
@given(trajectory=any_attempt())
def test_rows_of_smith_keep_words_order_and_submission(trajectory: Trajectory) -> None:
    row = plain(write_smith_row(trajectory))
    found = from_row(row, "name")
    assert found.submission == trajectory.submission
    assert len(found.steps) == len(trajectory.steps)
    for before, after in zip(trajectory.steps, found.steps, strict=True):
        assert before.content in after.content
        assert [one.content for one in before.observations] == [one.content for one in after.observations]
    assert {turn["role"] for turn in row["messages"]} <= {"system", "user", "assistant"}


def test_a_call_in_text_is_read_as_it_was_made() -> None:
    found = from_row(plain(write_smith_row(attempt())), "name")
    assert found.form == "xml"
    assert [one.tool_calls[0].function for one in found.steps] == [
        one.tool_calls[0].function for one in attempt().steps
    ]


@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_has_as_many_rows_as_there_are_trajectories(form: Form, tmp_path: Path) -> None:
    attempts = [attempt(number=number) for number in range(3)] + [attempt("toy__calc-2", steps=[step(1, "ls", "")])]
    assert write(tmp_path / "rows.jsonl", attempts, form).rows == 4
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 4
    if form in NAMES:
        assert write(tmp_path / "folder", attempts, form).rows == 4
        assert len([path for path in (tmp_path / "folder").rglob("*") if path.is_file()]) == 4
    if form not in ("atif", "sharegpt"):
        assert [one.task for one in read(tmp_path / "rows.jsonl")] == [one.task for one in attempts]
    assert LOST[form]


def test_a_folder_of_files_is_read_like_the_run_it_came_from(tmp_path: Path) -> None:
    attempts = [attempt(number=0), attempt(number=1), attempt("toy__calc-2")]
    for form in ("swe-agent", "mini-swe-agent"):
        write(tmp_path / form, attempts, form)
        assert sorted(read_trajectories(find_files([tmp_path / form])), key=lambda one: one.id) == attempts


# What others write


def test_a_traj_of_swe_agent_is_read(tmp_path: Path) -> None:
    history = [
        {"role": "system", "content": "Solve.", "agent": "main", "message_type": "system_prompt"},
        {"role": "user", "content": "Demo", "is_demo": True},
        {"role": "assistant", "content": "shown", "is_demo": True, "action": "ls", "thought": "shown"},
        {"role": "user", "content": [{"type": "text", "text": "The issue"}]},
        {
            "role": "assistant",
            "content": "Look.",
            "thought": "Look.",
            "action": "ls",
            "tool_calls": [
                {
                    "index": 1,
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "bash", "arguments": '{"command": "ls"}'},
                }
            ],
        },
        {"role": "tool", "content": [{"type": "text", "text": "OBSERVATION:\na"}], "tool_call_ids": ["t1"]},
    ]
    entries = [{"action": "ls", "observation": "a", "response": "Look.", "thought": "Look.", "execution_time": 0.25}]
    info = {"exit_status": "submitted (exit_cost)", "submission": PATCH, "swe_agent_version": "1.1.0"}
    config = json.dumps({"agent": {"model": {"name": "gpt"}}})
    traj = {"environment": "main", "trajectory": entries, "history": history, "info": info, "replay_config": config}
    (found,) = read(saved(tmp_path / "owner__name-7.traj", traj))
    assert (found.id, found.repo, found.model, found.stop) == ("owner__name-7/0", "owner/name", "gpt", "token-budget")
    assert [message.role for message in found.prompt] == ["system", "user", "assistant", "user"]
    assert found.steps[0].observations[0].model_dump() == {
        "tool_call_id": "t1",
        "content": "OBSERVATION:\na",
        "status": 0,
        "seconds": 0.25,
        "cut_characters": 0,
    }
    assert found.verdict.reason == "not-graded"


def test_version_1_of_mini_swe_agent_is_read(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "s", "timestamp": 1},
        {"role": "user", "content": "task"},
        {"role": "assistant", "content": "THOUGHT: look\n\n```bash\nls -la\n```", "extra": {"response": {}}},
        {"role": "user", "content": "<returncode>0</returncode>\n<output>\na</output>"},
        {"role": "user", "content": PATCH},
    ]
    info = {
        "exit_status": "Submitted",
        "submission": PATCH,
        "mini_version": "1.17.3",
        "config": {"model": {"model_name": "m"}},
    }
    traj = {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1"}
    (found,) = read(saved(tmp_path / "owner__name-7/owner__name-7.traj.json", traj))
    assert (found.task, found.form, found.stop, found.model) == ("owner__name-7", "fenced", "submitted", "m")
    assert [made.function.arguments for made in found.steps[0].tool_calls] == ['{"command": "ls -la"}']
    assert len(found.steps[0].observations) == 1
    assert found.submission == PATCH


def test_version_2_of_mini_swe_agent_tells_exit_statuses_and_usage(tmp_path: Path) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "bash", "arguments": '{"command": "false"}'}}]
    response = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}, "choices": [{"finish_reason": "tool_calls"}]}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "task"},
        {"role": "assistant", "content": None, "tool_calls": calls, "extra": {"response": response, "actions": []}},
        {"role": "tool", "tool_call_id": "c", "content": "<returncode>1</returncode>", "extra": {"returncode": 1}},
        {"role": "user", "content": "No tool calls found", "extra": {"interrupt_type": "FormatError"}},
        {"role": "exit", "content": "LimitsExceeded", "extra": {"exit_status": "LimitsExceeded", "submission": ""}},
    ]
    info = {"exit_status": "LimitsExceeded", "submission": ""}
    traj = {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1", "instance_id": "o__n-1"}
    (found,) = read(saved(tmp_path / "o__n-1.traj.json", traj))
    assert (found.stop, found.steps[0].prompt_tokens, found.steps[0].finish_reason) == ("step-limit", 7, "tool_calls")
    assert [(one.tool_call_id, one.status) for one in found.steps[0].observations] == [("c", 1), ("", 0)]


def test_events_of_openhands_before_version_1_are_read(tmp_path: Path) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "execute_bash", "arguments": '{"command": "ls"}'}}
    reply = {"id": "r1", "choices": [{"message": {"role": "assistant", "content": "Look.", "tool_calls": [made]}}]}
    metadata = {
        "function_name": "execute_bash",
        "tool_call_id": "c1",
        "model_response": reply,
        "total_calls_in_response": 1,
    }
    history = [
        {"id": 0, "source": "agent", "action": "system", "args": {"content": "s", "tools": []}},
        {"id": 1, "source": "user", "action": "message", "args": {"content": "task"}},
        {"id": 2, "source": "user", "action": "recall", "args": {"query": "task"}},
        {"id": 3, "observation": "recall", "content": "Added workspace context", "extras": {}},
        {"id": 4, "source": "agent", "action": "run", "args": {"command": "ls"}, "tool_call_metadata": metadata},
        {
            "id": 5,
            "cause": 4,
            "observation": "run",
            "content": "a",
            "extras": {"metadata": {"exit_code": 2, "working_dir": "/w"}},
            "tool_call_metadata": metadata,
        },
        {"id": 6, "source": "agent", "action": "think", "args": {"thought": "hm"}},
        {"id": 7, "cause": 6, "observation": "think", "content": "logged", "extras": {}},
        {"id": 8, "source": "agent", "action": "message", "args": {"content": "Which one?"}},
        {"id": 9, "source": "user", "action": "message", "args": {"content": "Go on."}},
        {"id": 10, "source": "agent", "action": "finish", "args": {"final_thought": "done", "thought": ""}},
    ]
    row = {
        "instance_id": "o__n-1",
        "test_result": {"git_patch": PATCH},
        "metadata": {"llm_config": {"model": "m"}, "agent_class": "CodeActAgent"},
        "history": history,
        "instance": {"repo": "o/n", "base_commit": "b" * 40},
    }
    path = tmp_path / "output.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (found,) = read(path)
    assert (found.repo, found.base_commit, found.model, found.stop) == ("o/n", "b" * 40, "m", "submitted")
    assert [message.content for message in found.prompt] == ["s", "task"]
    assert [[made.function.name for made in one.tool_calls] for one in found.steps] == [
        ["execute_bash"],
        ["think"],
        [],
        ["finish"],
    ]
    first = found.steps[0].observations[0]
    assert first.content == "a\n[Current working directory: /w]\n[Command finished with exit code 2]"
    assert first.status == 2
    assert [one.content for one in found.steps[2].observations] == ["Go on."]
    (alone,) = read(saved(tmp_path / "o__n-2.json", history))
    assert alone.steps == found.steps
    assert alone.task == "o__n-2"


def test_observations_that_openhands_forgot_are_counted() -> None:
    row = openhands.write_row(attempt())
    row["history"].insert(-1, {"kind": "Condensation", "forgotten_event_ids": ["a", "b"], "source": "environment"})
    del row["instance"]
    assert [one.elided for one in from_row(row, "t").steps] == [0, 0, 2]


def test_rows_of_other_datasets_are_read(tmp_path: Path) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "execute_bash", "arguments": '{"command": "ls"}'}}]
    turns = [
        {"role": "system", "content": "s", "tool_calls": None},
        {"role": "user", "content": "task", "tool_calls": None},
        {"role": "assistant", "content": "go", "tool_calls": calls},
        {"role": "tool", "content": "a", "name": "execute_bash", "tool_call_id": "c", "tool_calls": None},
    ]
    rebench = {
        "trajectory_id": "x",
        "instance_id": "o__n-1",
        "repo": "o/n",
        "trajectory": turns,
        "tools": [{"type": "function"}],
    }
    rebench |= {"model_patch": PATCH, "exit_status": "submit", "resolved": 1}
    pq.write_table(pa.Table.from_pylist([rebench]), tmp_path / "rebench.parquet")
    nebius = {
        "instance_id": "o__n-2",
        "model_name": "llama",
        "target": False,
        "trajectory": [
            {"role": "system", "system_prompt": "s", "text": None},
            {"role": "user", "text": "task"},
            {"role": "ai", "text": "Look.\n```\nls\n```"},
        ],
        "exit_status": "exit_context",
        "generated_patch": PATCH,
    }
    davinci = {
        "instance_id": "o__n-3",
        "messages": [
            {"role": "user", "content": "task"},
            {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": calls},
            {"role": "tool", "content": "a", "tool_call_id": "c"},
        ],
    }
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (nebius, davinci)))
    found = list(read_trajectories([tmp_path / "rebench.parquet", tmp_path / "rows.jsonl"]))
    one, two, three = (row for row in found if isinstance(row, Trajectory))
    assert (one.stop, one.verdict.reason, json.loads(one.tools)) == ("submitted", "resolved", [{"type": "function"}])
    assert (two.stop, two.verdict.reason, two.form, two.model) == ("context-limit", "tests-failed", "fenced", "llama")
    assert two.prompt[0].content == "s"
    assert three.steps[0].reasoning_content == "hm"


def test_attempts_that_are_not_numbered_are_counted(tmp_path: Path) -> None:
    rows = [{**write_smith_row(attempt()), "traj_id": "x"}] * 2 + [write_row(attempt(number=5))] * 2
    path = tmp_path / "rows.jsonl"
    assert refused(*rows, path=path) == [("toy__calc-1", "duplicate-id")]
    assert [one.id for one in read(path)] == ["toy__calc-1/0", "toy__calc-1/1", "toy__calc-1/5"]


def test_bad_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    good = write_row(attempt())
    turn = good["messages"][-1]
    bad: list[object] = [
        {},
        {"messages": []},
        {"messages": [{"role": "user", "content": "x"}], "instance_id": "a"},
        {**good, "instance_id": ""},
        {**good, "messages": [*good["messages"], {"role": "robot", "content": ""}]},
        {**good, "messages": [*good["messages"], {**turn, "content": [{"type": "image_url"}]}]},
        {**good, "messages": [*good["messages"], {**turn, "tool_calls": [{"id": "x"}]}]},
        {**good, "messages": [*good["messages"], {**turn, "content": "\0"}]},
        {**good, "seconds": "long"},
        [],
    ]
    found = [reason for _, reason in refused(*bad, good, path=tmp_path / "rows.jsonl")]
    assert found == [
        "unknown-form",
        "no-messages",
        "no-steps",
        "missing-column",
        "unknown-role",
        "not-text",
        "not-a-call",
        "not-text",
        "does-not-fit",
        "not-a-row",
    ]
    assert len(read(tmp_path / "rows.jsonl")) == 1
    (broken,) = read_trajectories([saved(tmp_path / "x.traj", None)])
    assert isinstance(broken, Rejected)


def test_what_cannot_be_read_or_written_at_all_is_said(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.traj", "does not exist"), (tmp_path, "holds no .traj")):
        with pytest.raises(UsageError, match=words):
            find_files([path])
    with pytest.raises(UsageError, match=r"cannot hold sharegpt: give a name that ends in \.jsonl\."):
        write(tmp_path / "folder", [attempt()], "sharegpt")
    empty = attempt().model_copy(update={"steps": ()})
    assert write(tmp_path / "x.jsonl", [empty, attempt()], "swe-agent").rejected[0].reason == "no-steps"


# The forms themselves


def test_sharegpt_turns_alternate() -> None:
    two = step(1, "ls", "a").model_copy(update={"tool_calls": (call("a", command="ls"), call("b", command="pwd"))})
    turns = sharegpt.write_row(attempt(steps=[two, step(2, "pwd", "/")]))["conversations"]
    assert [turn["from"] for turn in turns] == ["system", "human", "gpt", "human", "gpt", "human"]
    assert "<function=bash>\n<parameter=command>pwd</parameter>\n</function>" in turns[2]["value"]


def test_a_traj_holds_what_smith_reads_of_it() -> None:
    traj = swe_agent.write_file(attempt())
    query = traj["trajectory"][-1]["query"]
    assert [turn["role"] for turn in query] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert [entry["action"] for entry in traj["trajectory"]] == ["ls", "python calc.py", "submit"]


def check_atif(document: dict[str, Any]) -> None:
    """The rules of the format that its own models check."""
    assert document["schema_version"] == "ATIF-v1.7"
    assert [one["step_id"] for one in document["steps"]] == list(range(1, len(document["steps"]) + 1))
    for one in document["steps"]:
        assert isinstance(one["message"], str)
        assert one["source"] in ("system", "user", "agent")
        if one["source"] != "agent":
            assert not one.keys() & {"tool_calls", "metrics", "reasoning_content", "model_name"}
        ids = {made["tool_call_id"] for made in one.get("tool_calls", [])}
        assert all(isinstance(made["arguments"], dict) for made in one.get("tool_calls", []))
        for result in one.get("observation", {}).get("results", []):
            assert result.get("source_call_id") is None or result["source_call_id"] in ids


@settings(max_examples=60, deadline=None)
@given(trajectory=any_attempt())
def test_atif_keeps_its_rules(trajectory: Trajectory) -> None:
    document = plain(atif.write_file(trajectory))
    check_atif(document)
    steps = [one for one in document["steps"] if one["source"] == "agent"]
    assert [one["message"] for one in steps] == [one.content for one in trajectory.steps]
    results = [one["content"] for part in steps for one in part.get("observation", {}).get("results", [])]
    assert results == [seen.content for one in trajectory.steps for seen in one.observations]
    assert document["extra"]["submission"] == trajectory.submission


# The projects' own loaders, where they are installed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trajectory=any_attempt())
def test_harbor_accepts_atif(trajectory: Trajectory) -> None:
    models = pytest.importorskip("harbor.models.trajectories")
    loaded = models.Trajectory.model_validate(plain(atif.write_file(trajectory)))
    assert plain(loaded.to_json_dict()) == plain(atif.write_file(trajectory))


def test_mini_swe_agent_pages_through_a_file() -> None:
    inspector = pytest.importorskip("minisweagent.run.utilities.inspector")
    shown = pytest.importorskip("minisweagent.models.utils.content_string")
    written = plain(mini_swe_agent.write_file(attempt()))
    pages = inspector._messages_to_steps(written["messages"])
    assert len(pages) == 1 + len(attempt().steps)
    assert "python calc.py" in shown.get_content_string(pages[2][0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trajectory=any_attempt())
def test_openhands_loads_the_events_and_sees_the_same_conversation(trajectory: Trajectory) -> None:
    event = pytest.importorskip("openhands.sdk.event", exc_type=ImportError)
    events = [event.Event.model_validate(one) for one in plain(openhands.write_row(trajectory))["history"]]
    messages = event.LLMConvertibleEvent.events_to_messages(events)
    assert [message.role for message in messages] == [message.role for message in seen(trajectory)]
    told = ["".join(part.text for part in message.content) for message in messages]
    assert told == [message.content for message in seen(trajectory)]
    again = {"history": [one.model_dump(mode="json") for one in events], "instance_id": trajectory.task}
    assert seen(from_row(again, "")) == seen(trajectory)


def test_the_command_offers_every_form() -> None:
    assert get_args(trajectories.Form) == get_args(Form) == tuple(WRITE)
