"""A sample as a person would read it."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from agentdata.errors import UsageError
from agentdata.records import ChatSample, Manifest, Sample, TextSample
from agentdata.shards import read_manifest, read_rows

RENDERINGS: dict[str, type[Sample]] = {"markdown": TextSample, "xml": TextSample, "messages": ChatSample}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
TRAINED, UNTRAINED = "green", "bright_black"


def show_sample(run: Path, wanted: str = "", *, rendering: str = "", plain: bool = False) -> None:
    """Print the first sample of a run, or the first whose id, change or task begins with `wanted`. Raises UsageError."""
    from rich.console import Console
    from rich.text import Text

    sample = find_sample(run, wanted, rendering)
    colours = sys.stdout.isatty() and not plain
    console = Console(no_color=not colours, highlight=False, soft_wrap=True)
    console.print(Text(f"{sample.repo} · {sample.rendering} · sample {sample.id} · {_origin(sample)}", style="bold"))
    console.print(
        f"{sample.tokens:,} tokens ({sample.token_counter}), {sample.trained_tokens:,} trained · licence "
        f"{sample.licence or 'unknown'} · {_established(sample)}"
    )
    if colours:
        console.print(Text("trained", style=TRAINED) + Text(" · ") + Text("not trained", style=UNTRAINED) + "\n")
        for text, train in parts(sample):
            console.print(Text(visible(text), style=TRAINED if train else UNTRAINED), end="")
    elif plain:
        print()
        for text, _ in parts(sample):
            print(visible(text), end="")
    else:
        print("| trained\n")
        for line in marked(sample):
            print(visible(line))
    console.print()


def _origin(sample: Sample) -> str:
    environmental = sample.kind == "environmental"
    return f"task {sample.task}, attempt {sample.attempt}" if environmental else f"change {sample.change_id}"


def _established(sample: Sample) -> str:
    """What the proof of a contextual sample or the verdict of an environmental one says."""
    if sample.kind == "environmental":
        return f"{sample.stop}, {sample.verdict}"
    return f"{len(sample.proof.files)} files, {sample.proof.edits} edits, {sample.proof.reads} reads proved"


def visible(text: str) -> str:
    """A text whose control characters are written out: what a repository holds does not steer the terminal."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def marked(sample: Sample) -> Iterator[str]:
    """The lines of a sample, with a bar beside each that holds something trained."""
    line, trains = "", False
    for text, train in parts(sample):
        *whole, rest = text.split("\n")
        for part in whole:
            yield f"{'|' if trains or train else ' '} {line}{part}".rstrip()
            line, trains = "", False
        line, trains = line + rest, trains or (train and rest != "")
    if line:
        yield f"{'|' if trains else ' '} {line}"


def parts(sample: Sample) -> Iterator[tuple[str, bool]]:
    """The stretches of a sample, each with whether it is trained."""
    if isinstance(sample, TextSample):
        for segment in sample.segments:
            yield sample.text[segment.start : segment.end], segment.train
    elif isinstance(sample, ChatSample):
        for message in sample.messages:
            yield f"── {message.role} ──\n", False
            if message.content:
                yield message.content.rstrip("\n") + "\n", message.train
            for call in message.tool_calls:
                yield _spoken(call.function.name, call.function.arguments), message.train


def _spoken(name: str, arguments: str) -> str:
    """A tool call with its texts on lines of their own."""
    lines = [f"▶ {name}\n"]
    for key, value in json.loads(arguments).items():
        text = value if isinstance(value, str) else json.dumps(value)
        lines.append(f"  {key}:\n{text}\n" if "\n" in text else f"  {key}: {text}\n")
    return "".join(lines)


def find_sample(run: Path, wanted: str, rendering: str = "") -> Sample:
    """The first sample whose id, change or task begins with `wanted`. Raises UsageError when there is none."""
    manifest = read_manifest(run)
    there = [table.name for table in manifest.tables if table.name in RENDERINGS]
    chosen = [rendering] if rendering else sorted(there, key=list(RENDERINGS).index)
    for name in chosen:
        if name not in there:
            raise UsageError(f"{run} has no samples rendered as {name!r}; it has {', '.join(there) or 'none'}.")
        for sample in _rows(run, manifest, name):
            if any(known.startswith(wanted) for known in (sample.id, sample.change_id, sample.task)):
                return sample
    raise UsageError(f"{run} has no sample {wanted!r}." if wanted else f"{run} holds no samples.")


def _rows(run: Path, manifest: Manifest, name: str) -> Iterator[Sample]:
    for table in manifest.tables:
        if table.name == name:
            for shard in table.shards:
                yield from read_rows(run / shard.path, RENDERINGS[name])
