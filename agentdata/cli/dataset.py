"""`agentdata dataset`: runs assembled into a dataset, two datasets compared, rows looked at."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

app = typer.Typer(help="Assemble datasets, compare them and look at them.", no_args_is_help=True)

OVERRIDE = re.compile(r"^[a-z_]+(?:\.[a-z_]+)*=")
MOST_WORKERS = 4
"""Shards that are written beside each other; each takes about 200 MB of memory."""


@app.command("build")
def build(
    arguments: list[str] = typer.Argument(
        ..., metavar="RUN... [KEY=VALUE...]", help="Finished runs, in an order to keep; then overrides of the recipe."
    ),
    output: Path = typer.Option(
        ..., "--output", "-o", metavar="DIR", help="Directory of the dataset; the same command continues it."
    ),
    recipe: str = typer.Option("dataset", "--recipe", help="Name or path of the recipe."),
    workers: int = typer.Option(
        0, "--workers", "-j", min=0, help="Shards written at once; 0 for one per core, up to 4."
    ),
) -> None:
    """Assemble runs into Parquet shards in the layout of the Hub, with a card that is computed from the rows.

    Example: agentdata dataset build runs/click runs/click-tasks -o datasets/click shard_bytes=100000000
    """
    import recipes
    from agentdata.cli.runs import interruptible, report
    from agentdata.datasets.build import build_dataset

    given = [argument for argument in arguments if OVERRIDE.match(argument) and not Path(argument).exists()]
    runs = [Path(argument) for argument in arguments if argument not in given]
    with interruptible(output):
        manifest = build_dataset(
            output,
            runs,
            recipes.load_dataset(recipe, given),
            command=_command(runs, given, output, recipe),
            workers=workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS),
        )
    report(
        output,
        manifest,
        next_step=f"Look:     agentdata dataset sample {output}\nPublish:  agentdata publish {output} OWNER/NAME",
    )


def _command(runs: Sequence[Path], overrides: Sequence[str], output: Path, recipe: str) -> str:
    """What builds the dataset again, wherever it lies."""
    given = ["--recipe", recipe] if recipe != "dataset" else []
    words = ["agentdata", "dataset", "build", *map(str, runs), "-o", output.name, *given, *overrides]
    return shlex.join(words)


@app.command("sample")
def sample(
    directory: Path = typer.Argument(..., metavar="DIR", help="Dataset that `agentdata dataset build` wrote."),
    count: int = typer.Option(5, "-n", min=1, help="Number of rows."),
    where: str = typer.Option("", "--where", metavar="CONDITION", help="Condition of SQL on the columns."),
    config: str = typer.Option("", "--config", help="Config; the first where none is named."),
    seed: int = typer.Option(0, "--seed", help="Another seed, other rows."),
    as_json: bool = typer.Option(False, "--json", help="Print each row as a line of JSON, whole."),
) -> None:
    """Print some rows of a dataset, chosen at random among those that fulfil a condition.

    Example: agentdata dataset sample datasets/click -n 3 --where "repo = 'pallets/click' and tokens < 4000"
    """
    import json

    from agentdata.datasets import look

    rows = look.sample(directory, config, where=where, count=count, seed=seed)
    for row in rows:
        print(json.dumps(row, ensure_ascii=False) if as_json else look.shown(row))
    if not rows:
        print("No row fulfils the condition.", file=sys.stderr)


@app.command("diff")
def diff(
    before: Path = typer.Argument(..., metavar="A", help="A dataset."),
    after: Path = typer.Argument(..., metavar="B", help="The dataset to compare with it."),
) -> None:
    """Say which rows, columns and licences differ between two datasets; exit status 1 where any do.

    Example: agentdata dataset diff datasets/click-old datasets/click
    """
    from agentdata.datasets.look import differences

    found = differences(before, after)
    for one in found:
        print(f"{one.config}: {one.rows[0]:,} rows and {one.rows[1]:,}: ", end="")
        print(f"{one.added:,} added, {one.removed:,} removed, {one.changed:,} changed" if one.any else "the same")
        for line in (*one.schema, *one.examples):
            print(f"  {line}")
        for licence, rows_before, rows_after in one.licences:
            print(f"  licence {licence or 'unknown'}: {rows_before:,} rows and {rows_after:,}")
    if any(one.any for one in found):
        raise typer.Exit(1)
