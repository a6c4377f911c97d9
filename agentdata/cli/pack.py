"""`agentdata pack`: samples to packed rows of tokens."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from agentdata.midtrain.ledger import Ledger

EXPORTS = ("parquet", "olmo-core", "torchtitan")
OVERRIDE = re.compile(r"^[a-z_]+(?:\.[a-z_]+)*=")


def pack(
    recipe: str = typer.Argument(..., metavar="RECIPE", help="Name or path of the recipe."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY=VALUE...]", help="Overrides of the recipe."),
    output: Path = typer.Option(..., "--output", "-o", metavar="DIR", help="Directory of the packed rows."),
    workers: int = typer.Option(0, "--workers", "-j", min=0, help="Processes; 0 for one per core."),
    export: list[str] = typer.Option([], "--export", help=f"Also write as {', '.join(EXPORTS)}; can be repeated."),
) -> None:
    """Tokenise samples with exact masks and pack them into rows of one length.

    Example: agentdata pack pack 'sources=[{path: runs/click, rendering: markdown}]' tokenizer=models/base -o packed/click
    """
    import os

    import recipes
    from agentdata.cli.runs import interruptible
    from agentdata.errors import UsageError
    from agentdata.midtrain.run import pack as pack_rows

    unknown = [name for name in export if name not in EXPORTS]
    if unknown:
        raise UsageError(f"--export {unknown[0]!r} is none of {', '.join(EXPORTS)}.")
    loaded = recipes.load_pack(recipe, overrides or [])
    with interruptible(output):
        manifest = pack_rows(output, loaded, workers=workers or len(os.sched_getaffinity(0)))
        report(output, manifest.ledger)
        if export:
            from agentdata.midtrain.export import export_rows

            for name in export:
                print(f"Written: {export_rows(output, name)}")


def report(output: Path, ledger: "Ledger") -> None:
    """Say what was packed."""
    print(
        f"{output}: {ledger.rows:,} rows of {ledger.row_length:,} tokens; {ledger.tokens:,} tokens, {ledger.trained:,} "
        f"trained, {ledger.padding_share:.2%} padding (encoder: {ledger.encoder})"
    )
    for line in ledger.lines:
        print(
            f"  {line.source}, {line.kind}, {line.licence}: {line.documents:,} documents, {line.packed_tokens:,} tokens, "
            f"{line.packed_trained:,} trained, {line.epochs:g} epochs"
        )
    for kind in ledger.kinds:
        print(f"  {kind.kind}: {kind.tokens:,} tokens, {kind.trained:,} trained")
    if ledger.split_documents:
        print(f"  split: {ledger.split_documents:,} documents, {ledger.cuts_in_segments:,} times inside a segment")
    for count in ledger.rejected:
        print(f"  dropped {count.count:,}: {count.name}")
