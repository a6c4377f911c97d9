"""What a loop left on disk to a report in Markdown."""

import json
from collections.abc import Iterator
from pathlib import Path

from agentdata.records import Trajectory
from agentdata.shards import read_table
from agentdata.training.metrics import read_metrics


def write_report(out: Path) -> str:
    """The report, also written to OUT/report.md."""
    text = "\n".join(
        [*_steps(out / "steps.jsonl"), "", *_losses(out / "trained/metrics.jsonl"), "", *_attempts(out)]
    ).rstrip()
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


def _steps(path: Path) -> Iterator[str]:
    yield from ("| step | seconds |", "|---|---:|")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        yield f"| {row['result'].partition('/manifest')[0]} | {row['seconds']:,.0f} |"
    yield f"| all | {sum(row['seconds'] for row in rows):,.0f} |"


def _losses(path: Path) -> Iterator[str]:
    yield from ("| stage | held-out repository | loss before | along it | after |", "|---|---|---:|---|---:|")
    found: dict[tuple[str, str], list[float]] = {}
    for event in read_metrics(path):
        if event["event"] == "held-out" and event["kind"] == "all":
            found.setdefault((event["stage"], event["source"]), []).append(event["loss"])
    for (stage, source), losses in found.items():
        along = ", ".join(f"{loss:.3f}" for loss in losses[1:-1])
        yield f"| {stage} | {source} | {losses[0]:.3f} | {along} | {losses[-1]:.3f} |"


def _attempts(out: Path) -> Iterator[str]:
    if not (out / "attempts/manifest.json").is_file():
        return
    yield from ("| attempt | stop | steps | tokens | calls | resolved |", "|---|---|---:|---:|---:|---|")
    for one in read_table(out / "attempts", "trajectories", Trajectory):
        tokens = sum(len(step.token_ids) for step in one.steps)
        calls = sum(len(step.tool_calls) for step in one.steps)
        yield f"| {one.id} | {one.stop} | {len(one.steps)} | {tokens:,} | {calls} | {'yes' if one.verdict.resolved else 'no'} |"
