"""`agentdata environments`: commits to Docker images in which their tests run."""

from pathlib import Path

import typer

app = typer.Typer(help="Build Docker environments, without a language model.", no_args_is_help=True)

Workers = typer.Option(2, "--workers", "-j", min=1, help="Environments that are built at once.")


@app.command("build")
def build(
    sources: list[str] = typer.Argument(..., metavar="RUN|REPO...", help="Harvested runs, clones, mirrors or URLs."),
    output: Path = typer.Option(..., "--output", "-o", metavar="RUN", help="Directory of the run."),
    limit: int = typer.Option(0, "--limit", min=0, help="Newest test-touching changes of each repository; 0 for all."),
    recipe: str = typer.Option("environments", "--recipe", help="Name or path of the recipe."),
    workers: int = Workers,
) -> None:
    """Build an environment for each change of a harvested run that touches tests, and for the head of a repository.

    Example: agentdata environments build runs/click --limit 20 -o runs/click-environments
    """
    import recipes
    from agentdata.cli.runs import interruptible, report
    from agentdata.environments.run import build_environments

    with interruptible(output):
        manifest = build_environments(output, sources, recipes.load_environments(recipe), limit=limit, workers=workers)
    report(output, manifest, next_step=f"Next:  agentdata tasks derive {output} -o TASKS")
