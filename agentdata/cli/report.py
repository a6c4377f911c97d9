"""`agentdata report`: what a dataset, a run or a training holds, as one page."""

from pathlib import Path

import typer


def report(
    directory: Path = typer.Argument(
        ..., metavar="DIR|RUN", help="Dataset, packed rows, evaluation, training, or another run."
    ),
    output: Path = typer.Option(
        None, "--output", "-o", metavar="FILE.html", help="File to write; DIR/report.html where none is named."
    ),
) -> None:
    """Write one HTML file that tells what a dataset, a run or a training holds; it needs no network.

    Example: agentdata report runs/click -o click.html
    """
    from agentdata.report.make import write_report
    from agentdata.report.numbers import size

    path = write_report(directory, output)
    print(f"{path}: {size(path.stat().st_size)}")
