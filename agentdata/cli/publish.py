"""`agentdata publish`: a dataset to the Hub."""

from pathlib import Path

import typer


def publish(
    directory: Path = typer.Argument(..., metavar="DIR", help="Dataset that `agentdata dataset build` wrote."),
    repo: str = typer.Argument(..., metavar="OWNER/NAME", help="Dataset at the Hub; it is made where there is none."),
    private: bool = typer.Option(False, "--private", help="Make the dataset private, where it is made."),
    revision: str = typer.Option("main", "--revision", help="Branch to publish to; it is made where there is none."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be sent."),
) -> None:
    """Publish a dataset: what is there already is not sent again, and what was cut off goes on.

    Example: agentdata publish datasets/click me/click-trajectories --dry-run
    """
    from agentdata.cli.runs import interruptible
    from agentdata.datasets.publish import publish as publish_dataset

    with interruptible(directory):
        done = publish_dataset(directory, repo, private=private, revision=revision, dry_run=dry_run)
    changes = done.changes
    told = f"{len(changes.upload):,} files ({changes.bytes:,} bytes) to send" if dry_run else ""
    if not changes:
        print(f"{done.url} holds this dataset already: nothing to do.")
        return
    told = told or f"{len(changes.upload):,} files ({changes.bytes:,} bytes) sent"
    print(f"{done.url}: {told}, {len(changes.copy):,} renamed there, {len(changes.delete):,} removed there")
    if not dry_run:
        print(f"Every file is there with its size and digest, at commit {done.commit}.")
        print(f'\nLoad:  datasets.load_dataset("{repo}")')
