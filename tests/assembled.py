"""Small finished runs, made of records, for what is assembled from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import recipes
from agentdata.datasets.build import build_dataset
from agentdata.datasets.recipe import DatasetRecipe
from agentdata.records import (
    NO_PROOF,
    SCHEMA_VERSION,
    ChatSample,
    FunctionCall,
    GoldPatch,
    HarvestedSource,
    Manifest,
    Message,
    Record,
    Segment,
    Task,
    TaskTests,
    TextSample,
    ToolCall,
)
from agentdata.shards import UnitOutput, collect, counted

TOOLS = (
    '[{"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {"command": '
    '{"type": "string"}}}}}]'
)
REPOSITORIES = ("a/one", "b/two", "c/three", "d/four", "e/five", "f/six", "g/seven", "h/eight")
COUNTER = "estimate: UTF-8 bytes / 4"


def chat(identifier: str, repo: str, **changed: Any) -> ChatSample:
    """A conversation of five turns, 40 bytes of which the agent writes."""
    call = ToolCall(
        id="call_1", function=FunctionCall(name="bash", arguments=json.dumps({"command": f"cat {identifier}"}))
    )
    messages = (
        Message(role="system", content="You work.", train=True),
        Message(role="user", content=f"Fix {identifier}.", train=True),
        Message(role="assistant", content="I look.", tool_calls=(call,), train=True),
        Message(role="tool", content=f"{repo}\n" * 5, tool_call_id="call_1", train=True),
        Message(role="assistant", content="Done.", train=True),
    )
    return ChatSample(
        **{**common(identifier, repo), "rendering": "messages", "messages": messages, "tools": TOOLS, **changed}
    )


def text(identifier: str, repo: str, **changed: Any) -> TextSample:
    """A text of a read part and a thought."""
    segments = (Segment(kind="read", start=0, end=40, train=True), Segment(kind="think", start=40, end=60, train=True))
    return TextSample(
        **{
            **common(identifier, repo),
            "rendering": "markdown",
            "text": "r" * 40 + "t" * 20,
            "segments": segments,
            **changed,
        }
    )


def common(identifier: str, repo: str) -> dict[str, Any]:
    return {
        "id": identifier, "kind": "contextual", "repo": repo, "snapshot": "0" * 40, "licence": "MIT", "tier": "L1",
        "languages": ("python",), "policy": "direct", "tokens": 100, "trained_tokens": 100, "token_counter": COUNTER,
        "proof": NO_PROOF, "generator": "agentdata test", "landed_at": 1_600_000_000,
    }  # fmt: skip


def chats(repositories: Sequence[str] = REPOSITORIES, each: int = 6, *, prefix: str = "") -> list[ChatSample]:
    """Conversations, those of a repository one after another."""
    return [chat(f"{prefix}{repo[0]}{number}", repo) for repo in repositories for number in range(each)]


def task(identifier: str, repo: str) -> tuple[Task, TaskTests, GoldPatch]:
    """A task with its tests and its patch."""
    return (
        Task(
            id=identifier, repo=repo, environment="e", image="image", base_commit="1" * 40, problem_statement="It fails.",
            statement_source="issue", source="change", created_at="2024-05-06T07:08:09+00:00", licence="MIT",
        ),
        TaskTests(
            id=identifier, test_patch="", test_files=("t.py",), test_command="pytest",
            fail_to_pass=("t.py::t",), pass_to_pass=()
        ),
        GoldPatch(id=identifier, patch="diff"),
    )  # fmt: skip


def source(name: str) -> HarvestedSource:
    return HarvestedSource(
        name=name,
        location=f"/somewhere/{name}",
        git_dir="/somewhere",
        head="a" * 40,
        plain=True,
        split="train",
        landings=9,
    )


def write_run(
    run: Path,
    tables: Mapping[str, Sequence[Record]],
    *,
    rejections: Mapping[str, int] | None = None,
    recipe: Mapping[str, Any] | None = None,
    shard_rows: int = 10,
) -> Path:
    """A finished run with these rows, some in each shard."""
    units = []
    for name, rows in tables.items():
        for start in range(0, len(rows), shard_rows):
            units.append(f"{name}{start:05}")
            with UnitOutput(run, units[-1]) as output:
                for row in rows[start : start + shard_rows]:
                    output.write(name, row)
                output.counts.update({f"rejected/{key}": count for key, count in (rejections or {}).items()})
                rejections = {}
    found, counts = collect(run, units)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator="agentdata test",
        configuration=json.dumps({"generator": "agentdata test", "options": {}, "recipe": dict(recipe or {})}),
        tables=found,
        counts=(),
        rejections=counted(counts, "rejected/"),
        tokens=(),
    )
    (run / "manifest.json").write_text(manifest.model_dump_json())
    return run


def recipe(*overrides: str) -> DatasetRecipe:
    return recipes.load_dataset("dataset", overrides)


def build(output: Path, *runs: Path, overrides: Sequence[str] = ()) -> Manifest:
    """Assemble runs in this process."""
    return build_dataset(output, runs, recipe(*overrides), command="agentdata dataset build", workers=2)
