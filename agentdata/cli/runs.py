"""`agentdata runs`, and what the commands that write runs have in common: how they stop, what they say at the end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from agentdata.records import Manifest

app = typer.Typer(help="Look after runs.", no_args_is_help=True)


@app.command("status")
def status(run: Path = typer.Argument(..., metavar="RUN", help="Directory of a run.")) -> None:
    """Say how far a run is, also while another process works on it.

    Example: agentdata runs status runs/click-rollouts
    """
    from agentdata.errors import UsageError
    from agentdata.journal import STATUS
    from agentdata.runs import is_written
    from agentdata.shards import read_manifest

    if (run / "manifest.json").is_file():
        report(run, read_manifest(run))
        return
    if not (run / "config.json").is_file():
        raise UsageError(f"{run} holds no run: give a directory that a command wrote with -o.")
    print(f"{run}: {'running' if is_written(run) else 'stopped; the same command goes on'}")
    if (run / STATUS).is_file():
        print(f"  {(run / STATUS).read_text(encoding='utf-8').strip()}")


@contextmanager
def interruptible(run: Path) -> Iterator[None]:
    """Turn Ctrl-C into one sentence and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nStopped. What is finished is kept; the same command goes on in {run}.", file=sys.stderr)
        raise typer.Exit(130) from None


def report(run: Path, manifest: "Manifest", *, next_step: str = "") -> None:
    """Say what a run holds, what was dropped and why, and what to do next."""
    shown = ", ".join(f"{count.count:,} {count.name}" for count in manifest.counts if "/" not in count.name)
    print(f"{run}: {shown or 'nothing'}")
    for count in manifest.counts:
        if "/" in count.name:
            print(f"  {count.count:,} {count.name}")
    for count in manifest.rejections:
        print(f"  dropped {count.count:,}: {count.name}")
    if not shown:
        print(f"Nothing came of it: {run}/rejected says why, row by row.")
    elif next_step:
        print(f"\n{next_step}")
