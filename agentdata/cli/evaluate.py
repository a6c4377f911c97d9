"""`agentdata evaluate`: a model, or predictions, measured on SWE-bench, and two such measurements compared."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from typer.core import TyperGroup

from agentdata.cli.rollouts import Endpoints, Requests, Workers
from agentdata.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from agentdata.environments.swebench_rows import Triple
    from agentdata.evaluate.report import Report
    from agentdata.evaluate.telling import Grid
    from agentdata.rollouts.recipe import RolloutRecipe
    from agentdata.rollouts.run import MakePolicy

Grader = Literal["official", "ours", "both"]


class _BenchmarkFirst(TyperGroup):
    """The word `run` may be left out: what is no command is a benchmark."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_BenchmarkFirst, help="Measure models on SWE-bench.", no_args_is_help=True)


@app.command("run")
def run(
    benchmark: str = typer.Argument(..., metavar="verified|lite|full|FILE|TASKS", help="Rows, or a run of tasks."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY=VALUE...]", help="Overrides of the recipe."),
    output: Path = typer.Option(
        ..., "--output", "-o", metavar="RUN", help="Directory of the run; the same command continues it."
    ),
    model: str = typer.Option("", "--model", "-m", help="Name that the endpoints serve; or gold or null, to check."),
    endpoints: list[str] = Endpoints,
    predictions: list[str] = typer.Option(
        [], "--predictions", "-p", metavar="FILE", help="Predictions, `gold` or `empty`, instead of a model; one a run."
    ),
    recipe: str = typer.Option("evaluate", "--recipe", help="Name or path of the recipe: the protocol."),
    runs: int = typer.Option(0, "--runs", min=0, help="Attempts at each task; 0 for the recipe's."),
    instances: list[str] = typer.Option([], "--instance", "-i", metavar="ID", help="This instance; may be repeated."),
    limit: int = typer.Option(0, "--limit", min=0, help="Only the first so many tasks; 0 for all."),
    image: str = typer.Option("", "--image", metavar="NAME", help="Local images by name, with {instance_id} in it."),
    pull: bool = typer.Option(True, "--pull/--no-pull", help="Whether to fetch images that are not here."),
    grader: Grader | None = typer.Option(
        None, "--grader", help="By default official for benchmarks, ours for own tasks.", show_default=False
    ),
    timeout: float = typer.Option(
        0.0, "--timeout", min=0, help="Seconds for the tests of one prediction; 0 for the recipe's, or 1800."
    ),
    price_in: float = typer.Option(0.0, "--price-in", min=0, help="Price of a million prompt tokens."),
    price_out: float = typer.Option(0.0, "--price-out", min=0, help="Price of a million sampled tokens."),
    workers: int = Workers,
    graders: int = typer.Option(2, "--graders", min=1, help="Predictions that are graded at once."),
    requests: int = Requests,
) -> None:
    """Evaluate on a benchmark and write predictions, verdicts and a report. The word `run` may be left out.

    Example: agentdata evaluate verified --model my-model --endpoint http://localhost:8000/v1 --runs 4 -o runs/verified
    """
    import recipes
    from agentdata.cli.runs import interruptible
    from agentdata.evaluate.report import Prices
    from agentdata.evaluate.run import TEST_SECONDS, Evaluation, evaluate
    from agentdata.rollouts.choosing import choose_policy

    overrides = [*([f"attempts={runs}"] if runs else []), *(overrides or [])]
    if overrides and not model:
        raise UsageError(f"{overrides[0]} is for attempts of a --model: predictions are graded as they are.")
    protocol = recipes.load_rollouts(recipe, overrides) if model else None
    evaluation = Evaluation(
        benchmark,
        instances=tuple(instances),
        limit=limit,
        image=image,
        pull=pull,
        predictions=tuple(predictions),
        model=model,
        protocol=protocol.model_dump_json(exclude={"attempts"}) if protocol else "",
        attempts=protocol.attempts if protocol else 1,
        grader=grader,
        test_seconds=timeout or (protocol.test_seconds if protocol else TEST_SECONDS),
        workers=graders,
        prices=Prices(prompt=price_in, completion=price_out),
    )
    evaluation.options()
    attempted = (output / "rollouts/manifest.json").is_file()
    with interruptible(output), ExitStack() as stack:
        roll_out = None
        if protocol and not attempted:
            make_policy = stack.enter_context(choose_policy(model, endpoints, protocol, requests=requests))
            roll_out = _roller(model, protocol, make_policy, workers=workers)
        report = evaluate(output, evaluation, roll_out, lambda sentence: print(sentence, file=sys.stderr))
    show(report)
    print(f"\n{output}: report.md, report.svg, report.json and, for each run, preds.json")


def _roller(
    model: str, protocol: "RolloutRecipe", make_policy: "MakePolicy", *, workers: int
) -> "Callable[[Sequence[Triple], Path], object]":
    """What makes the attempts. They are graded later, by whom the evaluation says."""
    from agentdata.rollouts.run import Crew, run_rollouts

    def roll_out(triples: "Sequence[Triple]", run: Path) -> object:
        crew = Crew(attempts=workers)
        return run_rollouts(run, triples, protocol, make_policy, model=model, asked={}, crew=crew, grading=False)

    return roll_out


@app.command("compare")
def compare(
    first: Path = typer.Argument(..., metavar="RUN_A", help="A finished evaluation."),
    second: Path = typer.Argument(..., metavar="RUN_B", help="Another one, over the same tasks."),
) -> None:
    """Say whether B resolves more than A, task by task, and what can and cannot be concluded.

    Example: agentdata evaluate compare runs/base runs/midtrained
    """
    from agentdata.evaluate.compare import compare as compare_reports
    from agentdata.evaluate.report import read_report
    from agentdata.evaluate.telling import comparison_text

    print(comparison_text(compare_reports(read_report(first), read_report(second), names=(str(first), str(second)))))


def show(report: "Report") -> None:
    """Print a report as tables."""
    from rich.console import Console

    from agentdata.evaluate import telling

    console = Console(highlight=False, soft_wrap=True)
    console.print(telling.headline(report), style="bold", markup=False)
    for grid in telling.grids(report):
        console.print(_table(grid))
    for remark in telling.remarks(report):
        console.print(remark, markup=False)


def _table(grid: "Grid") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for place, title in enumerate(grid.head):
        table.add_column(title, justify="left" if place == 0 else "right")
    for row in grid.rows:
        table.add_row(*row)
    return table
