"""`agentdata harvest environmental`: policies at work on tasks, kept as graded trajectories."""

import sys
from pathlib import Path

import typer

Model = typer.Option(
    ..., "--model", "-m", help="Name that the endpoints serve; or gold, null, replay:RUN, which need none."
)
Endpoints = typer.Option(
    [],
    "--endpoint",
    "-e",
    metavar="URL",
    help="OpenAI-compatible server, as http://host:8000/v1; several are balanced.",
)
Workers = typer.Option(8, "--workers", "-j", min=1, help="Attempts at once, each in a sandbox.")
Graders = typer.Option(2, "--graders", min=1, help="Attempts that are graded at once.")
Requests = typer.Option(64, "--requests", min=1, help="Requests to the endpoints at once.")


def environmental(
    tasks: Path = typer.Argument(..., metavar="TASKS", help="Run of tasks."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY=VALUE...]", help="Overrides of the recipe."),
    output: Path = typer.Option(
        ..., "--output", "-o", metavar="RUN", help="Directory of the run; the same command continues it."
    ),
    model: str = Model,
    endpoints: list[str] = Endpoints,
    recipe: str = typer.Option("environmental", "--recipe", help="Name or path of the recipe."),
    instances: list[str] = typer.Option([], "--instance", "-i", metavar="ID", help="This task alone; may be repeated."),
    attempts: int = typer.Option(0, "--attempts", min=0, help="Attempts at each task; 0 for the recipe's."),
    workers: int = Workers,
    graders: int = Graders,
    requests: int = Requests,
) -> None:
    """Let a policy work on tasks with real tools in sandboxes, and keep what it did, graded.

    Example: agentdata harvest environmental runs/click-tasks --model gold -o runs/click-gold attempts=1
    """
    import recipes
    from agentdata.cli.runs import interruptible, report
    from agentdata.environments.grading import read_triples
    from agentdata.rollouts.choosing import choose_policy
    from agentdata.rollouts.run import Crew, run_rollouts

    chosen = recipes.load_rollouts(recipe, [*([f"attempts={attempts}"] if attempts else []), *(overrides or [])])
    triples = read_triples(tasks, instances)
    with interruptible(output), choose_policy(model, endpoints, chosen, requests=requests) as make_policy:
        manifest = run_rollouts(
            output,
            triples,
            chosen,
            make_policy,
            model=model,
            asked={"tasks": str(tasks), "instances": list(instances)},
            crew=Crew(workers, graders),
        )
    for row in refused(output):
        print(f"agentdata: {row}", file=sys.stderr)
    report(output, manifest, next_step=f"Next:  agentdata trajectories report {output}")


def refused(run: Path) -> list[str]:
    """One sentence for each task of a run that was not attempted."""
    from agentdata.records import Rejected
    from agentdata.shards import read_table

    return [f"{row.id}: {row.detail}." for row in read_table(run, "rejected", Rejected)]
