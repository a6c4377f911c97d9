"""`agentdata trajectories`: attempts read from and written for other projects, made into training rows, reported."""

from pathlib import Path
from typing import Literal

import typer

Form = Literal["messages", "smith", "swe-agent", "mini-swe-agent", "openhands", "atif", "sharegpt"]

app = typer.Typer(help="Exchange trajectories and make training rows of them.", no_args_is_help=True)

Run = typer.Argument(..., metavar="RUN", help="Run of trajectories.")
Output = typer.Option(..., "--output", "-o", metavar="RUN", help="Directory of the run; the same command continues it.")


@app.command("import")
def import_(
    files: list[Path] = typer.Argument(
        ..., metavar="FILE...", help="Files or folders of SWE-agent, mini-swe-agent, OpenHands; rows of messages."
    ),
    output: Path = Output,
) -> None:
    """Read other projects' trajectories.

    Example: agentdata trajectories import runs/sweagent/*.traj -o runs/imported
    """
    from agentdata.cli.runs import interruptible, report
    from agentdata.rollouts.formats.run import import_trajectories

    with interruptible(output):
        manifest = import_trajectories(output, files)
    report(output, manifest, next_step=f"Next:  agentdata trajectories samples {output} -o SAMPLES")


@app.command("export")
def export(
    run: Path = Run,
    output: Path = typer.Option(
        ..., "--output", "-o", metavar="FILE", help=".jsonl; or a folder for swe-agent, mini-swe-agent and atif."
    ),
    form: Form = typer.Option("messages", "--form", help="The other project's form."),
) -> None:
    """Write trajectories in the form of another project, one row or file for each.

    Example: agentdata trajectories export runs/imported --form sharegpt -o trajectories.jsonl
    """
    from agentdata.records import Trajectory
    from agentdata.rollouts.formats.exchange import LOST, write_trajectories
    from agentdata.rollouts.views import TRAJECTORIES, shards_of
    from agentdata.shards import read_table

    shards_of(run)
    written = write_trajectories(output, read_table(run, TRAJECTORIES, Trajectory), form)
    print(f"{output}: {written.rows:,} trajectories")
    for lost in LOST[form]:
        print(f"  not held by {form}: {lost}")
    for rejected in written.rejected:
        print(f"  dropped {rejected.id}: {rejected.reason}: {rejected.detail}")


@app.command("samples")
def samples(
    run: Path = Run,
    output: Path = Output,
    recipe: str = typer.Option("environmental-view", "--recipe", help="Name or path of the view's recipe."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY=VALUE...]", help="Overrides of the recipe."),
) -> None:
    """Choose the attempts that train and make their rows, each choice counted.

    Example: agentdata trajectories samples runs/imported -o runs/samples outcomes=all
    """
    import recipes
    from agentdata.cli.runs import interruptible, report
    from agentdata.rollouts.views import make_samples

    with interruptible(output):
        manifest = make_samples(output, run, recipes.load_view(recipe, overrides or []))
    report(output, manifest)
    for count in manifest.tokens:
        print(f"  {count.count:,} tokens of {count.name}")


@app.command("report")
def report(run: Path = Run) -> None:
    """Say how attempts ended and which tasks never, sometimes and always are solved.

    Example: agentdata trajectories report runs/imported
    """
    from agentdata.records import Trajectory
    from agentdata.rollouts.report import report_lines
    from agentdata.rollouts.views import TRAJECTORIES, shards_of
    from agentdata.shards import read_table

    shards_of(run)
    for line in report_lines(read_table(run, TRAJECTORIES, Trajectory)):
        print(line)
