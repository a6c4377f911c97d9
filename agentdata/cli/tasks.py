"""`agentdata tasks`: executable problems, derived, made by mutation, imported, exported and graded."""

from pathlib import Path
from typing import Literal

import typer

Form = Literal["swebench", "swebench5", "rebench", "smith", "harbor"]

app = typer.Typer(help="Make executable tasks and grade submissions.", no_args_is_help=True)

Output = typer.Option(..., "--output", "-o", metavar="RUN", help="Directory of the run; the same command continues it.")
Workers = typer.Option(2, "--workers", "-j", min=1, help="Sandboxes that run at once.")
Timeout = typer.Option(900.0, "--timeout", min=1, help="Seconds that one run of the tests may take.")
Instances = typer.Option([], "--instance", "-i", metavar="ID", help="This task alone; may be given several times.")
RecipeName = typer.Option("environments", "--recipe", help="Name or path of the recipe for builds.")
Sweeps = typer.Option(3, "--sweeps", min=1, help="Runs without and with the solution, each in a fresh container.")


@app.command("derive")
def derive(
    environments: Path = typer.Argument(..., metavar="ENVIRONMENTS", help="Run of `agentdata environments build`."),
    output: Path = Output,
    sweeps: int = Sweeps,
    timeout: float = Timeout,
    workers: int = Workers,
) -> None:
    """Prove which changes are tasks: their tests fail before them and pass after them, each time.

    Example: agentdata tasks derive runs/click-environments -o runs/click-tasks
    """
    from agentdata.cli.runs import interruptible, report
    from agentdata.environments.derive import derive_tasks

    with interruptible(output):
        manifest = derive_tasks(output, environments, sweeps=sweeps, timeout=timeout, workers=workers)
    report(output, manifest, next_step=f"Next:  agentdata tasks export {output} -o tasks.jsonl")


@app.command("mutate")
def mutate(
    sources: list[str] = typer.Argument(..., metavar="ENVIRONMENTS|REPO", help="Run of environments, or a repository."),
    output: Path = Output,
    limit: int = typer.Option(
        20, "--limit", min=1, help="Source files of each repository to make bugs in, and landed changes to undo."
    ),
    most: int = typer.Option(8, "--most", min=1, help="Candidates tried in each file."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of the choice of files and mutations."),
    sweeps: int = Sweeps,
    timeout: float = Timeout,
    recipe: str = RecipeName,
    workers: int = Workers,
) -> None:
    """Make bugs in working code and keep those that break tests which passed.

    Example: agentdata tasks mutate ~/src/click -o runs/click-bugs
    """
    import recipes
    from agentdata.cli.runs import interruptible, report
    from agentdata.environments.mutate import MutateOptions, mutate_tasks

    with interruptible(output):
        options = MutateOptions(limit, most, seed, sweeps, timeout)
        manifest = mutate_tasks(output, sources, options, recipes.load_environments(recipe), workers=workers)
    report(output, manifest, next_step=f"Next:  agentdata tasks export {output} -o tasks.jsonl")


@app.command("grade")
def grade(
    tasks: Path = typer.Argument(..., metavar="TASKS", help="Run of tasks."),
    predictions: str = typer.Option(
        ..., "--predictions", "-p", metavar="FILE", help="Predictions, or `gold` or `empty`."
    ),
    output: Path = Output,
    instances: list[str] = Instances,
    timeout: float = Timeout,
    workers: int = Workers,
) -> None:
    """Grade submissions, each in a fresh container, whatever it did to the tests.

    Example: agentdata tasks grade runs/click-tasks --predictions gold -o runs/click-gold
    """
    from agentdata.cli.runs import interruptible, report
    from agentdata.environments.grading import grade_predictions

    with interruptible(output):
        manifest = grade_predictions(output, tasks, predictions, instances=instances, timeout=timeout, workers=workers)
    report(output, manifest)


@app.command("export")
def export(
    tasks: Path = typer.Argument(..., metavar="TASKS", help="Run of tasks."),
    output: Path = typer.Option(
        ..., "--output", "-o", metavar="FILE", help=".jsonl, .json or .parquet; a folder for harbor."
    ),
    form: Form = typer.Option("swebench5", "--form", help="The other project's form."),
    instances: list[str] = Instances,
) -> None:
    """Write tasks in the form of another project.

    Example: agentdata tasks export runs/click-tasks -o tasks.jsonl
    """
    from agentdata.environments.grading import export_tasks

    written = export_tasks(tasks, output, form, instances)
    print(f"{output}: {written.rows} tasks")
    for task, tests in written.dropped.items():
        print(f"  {task} without {len(tests)} tests that official parsers cannot tell apart")
    for rejected in written.rejected:
        print(f"  dropped {rejected.id}: {rejected.reason}: {rejected.detail}")


@app.command("import")
def import_(
    rows: Path = typer.Argument(..., metavar="FILE", help="Rows of SWE-bench, SWE-rebench or SWE-smith."),
    output: Path = Output,
    repositories: str = typer.Option("", "--repositories", metavar="DIR|@LIST", help="Clones to build images from."),
    instances: list[str] = Instances,
    recipe: str = RecipeName,
    workers: int = Workers,
) -> None:
    """Read another project's rows as tasks; with --repositories their environments are built here.

    Example: agentdata tasks import verified.jsonl --repositories mirrors -o runs/verified
    """
    import recipes
    from agentdata.cli.runs import interruptible, report
    from agentdata.environments.importing import import_tasks

    with interruptible(output):
        manifest = import_tasks(
            output, rows, repositories, recipes.load_environments(recipe), instances=instances, workers=workers
        )
    report(output, manifest, next_step=f"Next:  agentdata tasks grade {output} --predictions gold -o GRADES")
