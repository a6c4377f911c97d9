"""`agentdata show`, `check` and `demo`: look at what was harvested, and prove it again."""

from pathlib import Path

import typer

Directory = typer.Argument(..., metavar="DIR", help="Directory that a harvest wrote.")


def show(
    directory: Path = Directory,
    sample: str = typer.Argument("", metavar="[ID]", help="Id of a sample or change, or its first digits."),
    rendering: str = typer.Option("", "--render", help="Which rendering to show."),
    plain: bool = typer.Option(False, "--plain", help="The bare text: no colours, no marks."),
) -> None:
    """Print a sample as a person would read it, trained and untrained parts in two colours.

    Example: agentdata show runs/click 3fa9
    """
    from agentdata.harvest.show import show_sample

    show_sample(directory, sample, rendering=rendering, plain=plain)


def check(
    directory: Path = Directory,
    share: float = typer.Option(0.05, "--share", min=0, max=1, help="Share of the proofs to establish again."),
) -> None:
    """Verify shards, schemas and a share of the proofs against the repositories.

    Example: agentdata check runs/click --share 1
    """
    from agentdata.harvest.check import check_run

    check_run(directory, share=share)


def demo(
    output: Path = typer.Option(Path("demo-run"), "--output", "-o", metavar="RUN", help="Directory of the run."),
) -> None:
    """Harvest a small history that is built on the spot, and show one sample.

    Example: agentdata demo -o /tmp/demo
    """
    from agentdata.cli.demo import run_demo

    run_demo(output)
