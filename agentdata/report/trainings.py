"""The metrics of a training to its page: losses, held-out losses by source and kind, rate, speed, memory, notices."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdata.errors import UsageError
from agentdata.evaluate.telling import Grid
from agentdata.midtrain.packed import read_pack_manifest
from agentdata.report import packs
from agentdata.report.figures import ranking, those, trend
from agentdata.report.numbers import duration, short, size
from agentdata.report.page import Figure, Page, Section, Tile
from agentdata.report.thinned import Thinned
from agentdata.training.metrics import read_metrics

METRICS = "metrics.jsonl"
ALL = "all"
"""The kind that stands for all tokens of a source."""
MOST_KINDS = 6
"""Curves in one figure."""
MOST_NOTICES = 200
MEASURES = ("loss", "rate", "gradient_norm", "tokens_per_second", "mfu", "memory")


@dataclass
class _Stage:
    """What was measured in a stage."""

    measures: dict[str, Thinned] = field(default_factory=lambda: {name: Thinned() for name in MEASURES})
    steps: int = 0
    tokens: int = 0
    trained: int = 0
    seconds: float = 0.0
    memory: float = 0.0
    first_loss: float = math.nan

    def add(self, event: dict[str, Any]) -> None:
        self.steps += 1
        self.tokens += event.get("tokens") or 0
        self.trained += event.get("trained") or 0
        self.seconds += event.get("seconds") or 0.0
        self.memory = max(self.memory, event.get("memory") or 0.0)
        self.first_loss = event["loss"] if self.steps == 1 else self.first_loss
        for name, measure in self.measures.items():
            measure.add(event["step"], event.get(name))


HeldOut = dict[str, dict[str, Thinned]]
"""Loss by source and kind."""


@dataclass
class _Events:
    """All that the metrics tell."""

    stages: dict[str, _Stage] = field(default_factory=dict)
    held_out: HeldOut = field(default_factory=dict)
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Held-out tokens by source and kind, as of the last measure."""
    notices: list[tuple[str, str, str, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, event: dict[str, Any]) -> None:
        stage = self.stages.setdefault(event["stage"], _Stage())
        match event["event"]:
            case "train":
                stage.add(event)
            case "held-out":
                source, kind = event["source"], event["kind"]
                self.held_out.setdefault(source, {}).setdefault(kind, Thinned()).add(event["step"], event["loss"])
                self.tokens[source, kind] = event["tokens"]
            case "notice":
                self.reasons[event["reason"]] += 1
                if len(self.notices) < MOST_NOTICES:
                    self.notices.append((f"{event['step']:,}", event["stage"], event["reason"], event["detail"]))


def page(run: Path) -> Page:
    """The page of a training, finished or not."""
    events, path = _Events(), run / METRICS
    for number, event in enumerate(read_metrics(path), 1):
        try:
            events.add(event)
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{path}, line {number}, is no event of a training ({error}): give a run of one."
            ) from error
    if not events.stages:
        raise UsageError(f"{path} holds no event of a training yet: wait for its first step.")
    sections = [_stages(events), _held_out(events), _effort(events), _notices(events), *_packed(run, events)]
    asked = json.loads((run / "config.json").read_text(encoding="utf-8")) if (run / "config.json").is_file() else {}
    return Page(
        run.resolve().name,
        "training",
        tuple(_tiles(events)),
        tuple(section for section in sections if section),
        str(asked.get("generator", "agentdata")),
        json.dumps(asked, indent=1, ensure_ascii=False) if asked else "",
    )


def _tiles(events: _Events) -> Iterator[Tile]:
    stages = list(events.stages.values())
    seconds, tokens = sum(one.seconds for one in stages), sum(one.tokens for one in stages)
    yield Tile("steps", short(sum(one.steps for one in stages)), f"in {len(stages)} stages" if len(stages) > 1 else "")
    yield Tile("tokens", short(tokens), f"{short(sum(one.trained for one in stages))} trained")
    yield Tile("time", duration(seconds), "in steps")
    if seconds:
        yield Tile("tokens per second", short(round(tokens / seconds, 1)), "mean")
    for source, kinds in events.held_out.items():
        if ALL in kinds and kinds[ALL].sums:
            yield Tile("held-out loss", f"{kinds[ALL].last:.3f}", source)
    yield Tile("notices", short(events.reasons.total()))


def _stages(events: _Events) -> Section:
    rows = tuple(
        (
            name,
            f"{one.steps:,}",
            f"{one.tokens:,}",
            f"{one.trained:,}",
            duration(one.seconds),
            f"{one.first_loss:.4f}",
            f"{one.measures['loss'].last:.4f}" if one.measures["loss"].sums else "-",
            size(one.memory),
        )
        for name, one in events.stages.items()
    )
    head = ("stage", "steps", "tokens", "trained", "time", "first loss", "last loss", "memory, at most")
    wide = max((one.measures["loss"].width for one in events.stages.values()), default=1)
    thinned = f"Each point is the mean of {wide} steps, with the lowest and highest behind it." if wide > 1 else ""
    return Section(
        "Loss",
        "In nats for each trained token.",
        figures=those(
            _measured(events, "Loss in training", "loss", words=thinned, digits="{:.4f}".format),
            *(
                trend(
                    f"Held-out loss, {_brief(source, events.held_out)}",
                    [kinds[ALL].curve(ALL)],
                    form=_loss,
                    digits="{:.4f}".format,
                )
                for source, kinds in events.held_out.items()
                if ALL in kinds
            ),
        ),
        grids=(("Stages", Grid(head, rows)),),
    )


def _brief(source: str, others: Iterable[str]) -> str:
    """The last part of a source's path, where that tells it apart."""
    name = source.rpartition("/")[2]
    return name if [other.rpartition("/")[2] for other in others].count(name) == 1 else source


def _loss(value: float) -> str:
    return f"{value:.3g}"


def _rate(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _measured(events: _Events, title: str, measure: str, *, form: Any = _loss, **more: Any) -> Figure | None:
    """A measure of every stage as a curve of its own."""
    wide = max(one.measures[measure].width for one in events.stages.values())
    lines = [one.measures[measure].thinned_to(wide).curve(name) for name, one in events.stages.items()]
    return trend(title, lines, form=form, digits=more.pop("digits", "{:.4g}".format), **more)


def _held_out(events: _Events) -> Section | None:
    """Losses by kind, and a table of the first and last ones."""
    figures = [
        trend(
            f"Held-out loss by kind, {_brief(source, events.held_out)}",
            [kinds[kind].curve(kind) for kind in _largest(events, source)],
            form=_loss,
            digits="{:.4f}".format,
            words=f"The {MOST_KINDS} kinds with the most tokens." if len(kinds) > MOST_KINDS + 1 else "",
        )
        for source, kinds in events.held_out.items()
        if set(kinds) - {ALL}
    ]
    rows = tuple(
        (source, kind, f"{events.tokens[source, kind]:,}", *_first_and_last(measure))
        for source, kinds in events.held_out.items()
        for kind, measure in kinds.items()
        if measure.sums
    )
    head = ("source", "kind", "tokens", "first", "last", "change")
    words = "Rows that are never trained on, measured before, between and after."
    return (
        Section("Held out", words, figures=those(*figures), grids=(("First and last", Grid(head, rows)),))
        if rows
        else None
    )


def _largest(events: _Events, source: str) -> list[str]:
    kinds = [kind for kind in events.held_out[source] if kind != ALL]
    return sorted(kinds, key=lambda kind: (-events.tokens[source, kind], kind))[:MOST_KINDS]


def _first_and_last(measure: Thinned) -> tuple[str, str, str]:
    points = measure.curve("").points
    first, last = points[0][1], points[-1][1]
    return f"{first:.4f}", f"{last:.4f}", f"{last - first:+.4f}"


def _effort(events: _Events) -> Section:
    return Section(
        "Steps",
        figures=those(
            _measured(events, "Learning rate", "rate", form=_rate, from_zero=True),
            _measured(events, "Tokens per second", "tokens_per_second", form=short, from_zero=True),
            _measured(events, "Norm of the gradients", "gradient_norm", form=short, from_zero=True),
            _measured(events, "Memory", "memory", form=size, digits=size, from_zero=True),
            _measured(events, "Share of the device's peak (MFU)", "mfu", form="{:.0%}".format, from_zero=True),
        ),
    )


def _notices(events: _Events) -> Section | None:
    if not events.reasons:
        return None
    more = events.reasons.total() - len(events.notices)
    return Section(
        "Notices",
        "What was unusual.",
        figures=those(ranking("Notices by reason", events.reasons, "notices")),
        grids=(("Notices", Grid(("step", "stage", "reason", "detail"), tuple(events.notices))),),
        remarks=(f"And {more:,} more.",) if more else (),
    )


def _packed(run: Path, events: _Events) -> Iterator[Section]:
    """What each stage was trained on, where it was packed for it."""
    for name in events.stages:
        folder = run / "stages" / name / "packed"
        # A name from a file of metrics is not to lead out of the run.
        if folder.resolve().is_relative_to(run.resolve()) and (folder / "manifest.json").is_file():
            yield packs.section(read_pack_manifest(folder).ledger, f"What {name} was trained on")
