"""`agentdata midtrain`: packed rows or samples to trained models."""

from pathlib import Path

import typer


def midtrain(
    recipe: str = typer.Argument(..., metavar="RECIPE", help="Name or path of the recipe."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY=VALUE...]", help="Overrides of the recipe."),
    output: Path = typer.Option(..., "--output", "-o", metavar="RUN", help="Directory of the training."),
    workers: int = typer.Option(0, "--workers", "-j", min=0, help="Processes for packing; 0 for one per core."),
) -> None:
    """Train a causal model of Hugging Face on samples, in stages; stopped at any moment, the same command goes on.

    On several GPUs or machines: torchrun --nproc-per-node 8 -m agentdata midtrain RECIPE -o RUN

    Example: agentdata midtrain my-recipe.yaml model=Qwen/Qwen2.5-Coder-0.5B -o runs/trained
    """
    import os

    import recipes
    from agentdata.cli.runs import interruptible
    from agentdata.errors import UsageError

    loaded = recipes.load_training(recipe, overrides or [])
    try:
        from agentdata.training.run import train
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'agentdata[train]'.") from error
    with interruptible(output):
        model = train(output, loaded, workers=workers or len(os.sched_getaffinity(0)))
    if os.environ.get("RANK", "0") == "0":
        print(f"{model}: trained\n\nServe:   agentdata serve {model}\nCurves:  agentdata report {output}")
