"""`agentdata model`: models to begin with."""

from pathlib import Path

import typer

app = typer.Typer(help="Make models to begin with.", no_args_is_help=True)


@app.command("init")
def init(
    sources: list[str] = typer.Argument(
        ..., metavar="SOURCE...", help="Runs, datasets, files; PATH:RENDERING for one table of a run."
    ),
    output: Path = typer.Option(..., "--output", "-o", metavar="DIR", help="Directory of the model."),
    hidden_size: int = typer.Option(256, min=8, help="Width of the model."),
    layers: int = typer.Option(4, min=1, help="Layers."),
    head_size: int = typer.Option(64, min=8, help="Width of an attention head."),
    key_heads: int = typer.Option(2, min=1, help="Heads of keys and values."),
    vocabulary: int = typer.Option(4096, min=1, help="Most tokens of the tokenizer."),
    context: int = typer.Option(32768, min=8, help="Most positions of the model."),
    megabytes: int = typer.Option(64, min=1, help="Text that the tokenizer is trained on, spread over all sources."),
    split: str = typer.Option("train", help="Files of a directory that are read; '' for all."),
    seed: int = typer.Option(0, min=0, max=2**32 - 1, help="Seed of the weights."),
) -> None:
    """Train a tokenizer on samples, and draw a small model with random weights: the same sources, the same bytes.

    Example: agentdata model init runs/click -o models/small --hidden-size 384 --layers 6
    """
    from pydantic import ValidationError

    from agentdata.errors import UsageError, explain_os_error

    try:
        from agentdata.training.new_model import ModelShape, init_model
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'agentdata[train]'.") from error
    try:
        shape = ModelShape(
            hidden_size=hidden_size,
            layers=layers,
            head_size=head_size,
            key_heads=key_heads,
            vocabulary=vocabulary,
            context=context,
        )
    except ValidationError as error:
        raise UsageError(f"The sizes do not fit: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error
    if split not in ("", "train", "validation", "test"):
        raise UsageError(f"--split {split} is none: give train, validation, test, or '' for all files.")
    try:
        parameters = init_model(output, sources, shape, seed=seed, most_bytes=megabytes << 20, split=split)
    except OSError as error:
        raise explain_os_error(error, f"writing the model {output}") from error
    print(
        f"{output}: {parameters:,} parameters with random weights\n\nNext:  agentdata midtrain RECIPE model={output} -o RUN"
    )
