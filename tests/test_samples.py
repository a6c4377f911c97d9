"""Trajectories as samples: what was seen, what is trained, and which attempts become rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import recipes
from agentdata.errors import UsageError
from agentdata.records import ChatSample, Rejected, Sample, TaskTally, TextSample, TokenSample, Trajectory
from agentdata.rollouts.report import report_lines
from agentdata.rollouts.samples import Renderer, join_tokens, masked_steps, seen
from agentdata.rollouts.view import EnvironmentalRendering, ViewRecipe
from agentdata.rollouts.views import judge, make_samples, tally
from agentdata.shards import arrow_schema, read_table
from agentdata.tokens import count_message
from tests.rollouts import any_attempt, attempt, save, step, with_tokens
from tests.runs import agentdata, contents, reasons, table


def view(**changes: Any) -> ViewRecipe:
    return ViewRecipe.model_validate({**recipes.load_view("environmental-view").model_dump(), **changes})


def rendered(rendering: EnvironmentalRendering, trajectory: Trajectory, **changes: Any) -> Sample:
    sample = Renderer(view(**changes), len, "characters").render(rendering, trajectory)
    assert isinstance(sample, Sample), sample
    return sample


def refused(rendering: EnvironmentalRendering, trajectory: Trajectory, **changes: Any) -> Rejected:
    rejected = Renderer(view(**changes), len, "characters").render(rendering, trajectory)
    assert isinstance(rejected, Rejected)
    return rejected


# Renderings


@settings(max_examples=50, deadline=None)
@given(trajectory=any_attempt())
def test_messages_are_what_was_seen_and_the_policy_trains(trajectory: Trajectory) -> None:
    sample = rendered("messages", trajectory)
    assert isinstance(sample, ChatSample)
    bare = [message.model_copy(update={"train": False}) for message in seen(trajectory)]
    assert [message.model_copy(update={"train": False}) for message in sample.messages] == bare
    assert all(message.train == (message.role == "assistant") for message in sample.messages)
    assert sample.tokens == sum(count_message(message, len) for message in sample.messages)


@settings(max_examples=50, deadline=None)
@given(trajectory=any_attempt())
def test_the_segments_of_a_text_tile_it(trajectory: Trajectory) -> None:
    sample = rendered("xml", trajectory)
    assert isinstance(sample, TextSample)
    places = [0, *(segment.end for segment in sample.segments)]
    assert places == [*(segment.start for segment in sample.segments), len(sample.text)]
    assert sample.trained_tokens == sum(one.end - one.start for one in sample.segments if one.kind == "assistant")


def test_xml_is_the_reference_layout() -> None:
    sample = rendered("xml", attempt())
    assert isinstance(sample, TextSample)
    assert sample.text == (
        "<|im_start|>system\nYou are a software engineer.<|im_end|>\n"
        "<|im_start|>user\nadd subtracts <it> should not<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nLook first.\n</think>\n\nLet me run ls.\n\n"
        "<function=bash>\n<parameter=command>ls</parameter>\n</function><|im_end|>\n"
        "<|im_start|>user\ncalc.py\n<|im_end|>\n"
        "<|im_start|>assistant\nLet me run python calc.py.\n\n"
        "<function=bash>\n<parameter=command>python calc.py</parameter>\n</function><|im_end|>\n"
        "<|im_start|>user\nTraceback\n<|im_end|>\n"
        "<|im_start|>assistant\nDone.\n\n<function=submit>\n</function><|im_end|>\n"
    )


def test_everything_is_trained_where_the_recipe_says_so() -> None:
    for rendering in ("messages", "xml"):
        sample = rendered(rendering, attempt(), mask="all")
        assert sample.trained_tokens == sample.tokens


def test_steps_that_failed_are_masked_on_request() -> None:
    steps = [
        step(1, "ls", ""),
        step(2, "pytest", "1 failed", status=1),
        step(3, "pyhton", "not found", status=127),
        step(4, "x", "no call").model_copy(update={"tool_calls": ()}),
    ]
    seen_without_call = steps[3].observations[0].model_copy(update={"tool_call_id": ""})
    steps[3] = steps[3].model_copy(update={"observations": (seen_without_call,)})
    trajectory = attempt(steps=steps)
    assert masked_steps(trajectory, "none") == set()
    assert masked_steps(trajectory, "refused") == {2, 3}
    assert masked_steps(trajectory, "all") == {1, 2, 3}
    sample = rendered("messages", trajectory, mask_errors="refused")
    assert isinstance(sample, ChatSample)
    assert [one.train for one in sample.messages if one.role == "assistant"] == [True, True, False, False]


def test_what_no_conversation_holds_is_refused() -> None:
    steps = [step(1, "ls", "a"), step(2, "ls", "b").model_copy(update={"elided": 1})]
    assert refused("messages", attempt(steps=steps)).reason == "observations-elided"
    assert refused("messages", attempt(), most_tokens=10).reason == "too-long"


# Tokens


def test_exactly_the_sampled_tokens_are_trained() -> None:
    steps = with_tokens([step(1, "ls", "a"), step(2, "false", "b", status=1), step(3, "ls", "c")])
    sample = rendered("tokens", attempt(steps=steps))
    assert isinstance(sample, TokenSample)
    drawn = [token for token, train in zip(sample.input_ids, sample.mask, strict=True) if train]
    assert drawn == [token for one in steps for token in one.token_ids]
    assert sample.input_ids == (*steps[-1].prompt_token_ids, *steps[-1].token_ids)
    assert (sample.tokens, sample.trained_tokens) == (21, 12)
    masked = rendered("tokens", attempt(steps=steps), mask_errors="all")
    assert masked.trained_tokens == 8


def test_prompts_that_are_kept_without_what_came_before_give_the_same_tokens() -> None:
    whole = with_tokens([step(1, "ls", "a"), step(2, "ls", "b"), step(3, "ls", "c")])
    known = 0
    short = []
    for one in whole:
        continues = {"continues": bool(known), "prompt_token_ids": one.prompt_token_ids[known:]}
        short.append(one.model_copy(update=continues))
        known = len(one.prompt_token_ids) + len(one.token_ids)
    assert join_tokens(attempt(steps=short), set()) == join_tokens(attempt(steps=whole), set())


def test_tokens_that_drift_are_refused() -> None:
    steps = [step(1, "ls", "a"), step(2, "ls", "b")]
    drifted = refused("tokens", attempt(steps=with_tokens(steps, drift=True)))
    assert (drifted.reason, drifted.detail) == (
        "tokens-drift",
        "the prompt of step 2 leaves what came before at token 1 of 7",
    )
    shorter = with_tokens(steps)
    shorter = (shorter[0], shorter[1].model_copy(update={"prompt_token_ids": shorter[0].prompt_token_ids}))
    assert refused("tokens", attempt(steps=shorter)).reason == "tokens-drift"
    assert refused("tokens", attempt(steps=steps)).reason == "no-token-ids"


# Views


def test_tasks_are_tallied() -> None:
    attempts = [attempt("a", 0), attempt("a", 1, resolved=False), attempt("a", 2, resolved=None)]
    attempts += [attempt("b", 0), attempt("c", 0, resolved=False), attempt("d", 0, resolved=None)]
    found = {one.task: one for one in tally(attempts)}
    assert found["a"] == TaskTally(task="a", repo="toy/calc", attempts=2, resolved=1, ungraded=1, band="sometimes")
    assert [found[task].band for task in "bcd"] == ["always", "never", "ungraded"]
    lines = list(report_lines(attempts))
    assert lines[0] == "6 attempts at 4 tasks, 2 resolved"
    assert {"  1 tasks solved in 1 of 2", "never: c", "always: b", "ungraded: d"} <= set(lines)


@pytest.mark.parametrize(
    ("trajectory", "changes", "reason"),
    [
        (attempt(), {}, ""),
        (attempt(resolved=False), {}, ""),
        (attempt(resolved=False), {"outcomes": "passing"}, "failed"),
        (attempt(resolved=None), {}, "not-graded"),
        (attempt(resolved=None), {"outcomes": "all"}, ""),
        (attempt(), {"resolved_attempts": (1, 2)}, "out-of-band"),
        (attempt(stop="step-limit"), {"stops": ("submitted",)}, "stop-reason"),
        (attempt(leaks=("history: git log",)), {}, "leak"),
        (attempt(leaks=("history: git log",)), {"drop_leaks": False}, ""),
        (attempt(tampering=("conftest: conftest.py",)), {}, "tampering"),
    ],
)
def test_a_view_says_why_an_attempt_becomes_no_row(
    trajectory: Trajectory, changes: dict[str, Any], reason: str
) -> None:
    rejected = judge(view(**changes), trajectory, resolved=3)
    assert (rejected.reason if rejected else "") == reason


def test_rows_of_both_sides_share_their_columns() -> None:
    sample = rendered("messages", attempt())
    assert arrow_schema(type(sample)).names[: len(Sample.model_fields)] == list(Sample.model_fields)
    assert (sample.kind, sample.task, sample.stop, sample.resolved) == (
        "environmental",
        "toy__calc-1",
        "submitted",
        True,
    )


def test_a_run_of_samples_counts_every_choice(tmp_path: Path) -> None:
    attempts = [
        attempt("a", 0, steps=with_tokens([step(1, "ls", "a")])),
        attempt("a", 1, resolved=False),
        attempt("b", 0, leaks=("history: git log",)),
        attempt("b", 1, resolved=None),
        attempt("c", 0, resolved=False, stop="step-limit"),
    ]
    source = save(tmp_path / "source", *attempts)
    chosen = view(renderings=("messages", "xml", "tokens"))
    manifest = make_samples(tmp_path / "run", source, chosen)
    counts = {count.name: count.count for count in manifest.counts}
    assert (counts["attempts"], counts["kept"], counts["samples/messages"], counts["samples/tokens"]) == (5, 3, 5, 3)
    rows = list(read_table(tmp_path / "run", "messages", ChatSample))
    assert [(row.task, row.attempt, row.repetition) for row in rows] == [
        ("a", 0, 0),
        ("a", 0, 1),
        ("a", 0, 2),
        ("a", 1, 0),
        ("c", 0, 0),
    ]
    assert len({row.id for row in rows}) == 5
    assert reasons(tmp_path / "run") == {"views/leak": 1, "views/not-graded": 1, "tokens/no-token-ids": 2}
    assert {f"{count.name}": count.count for count in manifest.rejections} == reasons(tmp_path / "run")
    assert [row["band"] for row in table(tmp_path / "run", "tallies")] == ["sometimes", "always", "never"]
    assert {count.name for count in manifest.tokens} >= {"messages", "messages/trained", "xml", "tokens"}


def test_a_stopped_run_of_samples_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    source = save(tmp_path / "source", *(attempt("a", number) for number in range(5)))
    make_samples(tmp_path / "whole", source, view())
    make_samples(tmp_path / "stopped", source, view())
    (tmp_path / "stopped/manifest.json").unlink()
    (tmp_path / "stopped/units/00001.json").unlink()
    (tmp_path / "stopped/messages/part-00001.parquet").unlink()
    make_samples(tmp_path / "stopped", source, view())
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    with pytest.raises(UsageError, match="begun with another configuration"):
        make_samples(tmp_path / "whole", source, view(repeat_passing=1))


def test_a_recipe_that_makes_no_sense_is_refused() -> None:
    for override in ("renderings=[]", "resolved_attempts=[2, 1]", "repeat_passing=0", "stops=[tired]"):
        with pytest.raises(UsageError, match="does not fit"):
            recipes.load_view("environmental-view", [override])


# The commands


def test_the_commands_lead_from_files_to_rows(tmp_path: Path) -> None:
    source = save(tmp_path / "source", attempt("a"), attempt("a", 1, resolved=False), attempt("b", resolved=False))
    done = agentdata("trajectories", "export", source, "--form", "mini-swe-agent", "-o", tmp_path / "mini")
    done.succeeds()
    assert "3 trajectories" in done.out
    assert "not held by mini-swe-agent: costs" in done.out
    (tmp_path / "mini/broken.traj").write_text("{")
    done = agentdata("trajectories", "import", tmp_path / "mini", "-o", tmp_path / "run")
    done.succeeds()
    assert "3 trajectories" in done.out
    assert "dropped 1: import/not-json" in done.out
    done = agentdata("trajectories", "report", tmp_path / "run")
    done.succeeds()
    assert "never: b" in done.out
    done = agentdata("trajectories", "samples", tmp_path / "run", "-o", tmp_path / "rows", "outcomes=passing")
    done.succeeds()
    assert "dropped 2: views/failed" in done.out
    assert [row["repetition"] for row in table(tmp_path / "rows", "xml")] == [0, 1, 2]


def test_the_commands_say_what_is_wrong(tmp_path: Path) -> None:
    source = save(tmp_path / "source", attempt())
    agentdata("trajectories", "import", tmp_path / "none", "-o", tmp_path / "x").explains("does not exist", status=2)
    agentdata("trajectories", "report", tmp_path / "none").explains("holds no manifest.json", status=2)
    agentdata("trajectories", "export", source, "-o", tmp_path / "x.csv").explains("cannot hold messages", status=2)
    arguments = ("trajectories", "samples", source, "-o", tmp_path / "x")
    agentdata(*arguments, "most_token=3").explains("overrides nothing", status=2)
    (source / "manifest.json").write_text(
        json.dumps({**json.loads((source / "manifest.json").read_text()), "tables": []})
    )
    agentdata(*arguments).explains("holds no trajectories", status=2)
