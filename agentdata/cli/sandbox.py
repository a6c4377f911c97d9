"""`agentdata sandbox`: what containers and images there are, and their removal."""

import time
from typing import TYPE_CHECKING

import typer

from agentdata.errors import UsageError

if TYPE_CHECKING:
    from sandboxes.hygiene import Image

app = typer.Typer(help="List and remove the containers and images that runs leave.", no_args_is_help=True)


@app.command("ps")
def list_boxes() -> None:
    """List containers, and whether the process that made each still lives.

    Example: agentdata sandbox ps
    """
    from rich.console import Console
    from rich.table import Table

    from sandboxes.engine import Engine
    from sandboxes.hygiene import boxes, disk_bytes, images

    engine = Engine()
    table = Table("container", "image", "run", "owner", "state", "age", box=None)
    for box in boxes(engine):
        owner = "dead" if box.dead else box.owner.split("|")[0] + " " + box.owner.split("|")[-2]
        table.add_row(box.id[:12], box.image, box.run or "-", owner, box.state, _age(box.made))
    console = Console()
    console.print(table)
    kept = images(engine)
    console.print(
        f"{table.row_count} containers, {len(kept)} images; the engine uses {disk_bytes(engine) / 1e9:.1f} GB."
    )
    engine.close()


@app.command("prune")
def prune(
    everything: bool = typer.Option(False, "--all", help="Also those whose owner lives, or cannot be known."),
) -> None:
    """Remove containers whose owner is dead.

    Example: agentdata sandbox prune
    """
    from sandboxes.engine import Engine
    from sandboxes.hygiene import boxes
    from sandboxes.hygiene import prune as remove

    engine = Engine(reap=False)
    removed = remove(engine, everything=everything)
    print(f"Removed {len(removed)} containers; {len(boxes(engine))} are left.")
    engine.close()


@app.command("gc")
def collect(
    max_disk: str = typer.Option(..., "--max-disk", metavar="SIZE", help="What the engine may keep, such as 50GB."),
) -> None:
    """Remove the oldest images that are not in use, until the engine's disk use is small enough.

    Example: agentdata sandbox gc --max-disk 50GB
    """
    from sandboxes.engine import Engine
    from sandboxes.hygiene import collect as remove
    from sandboxes.hygiene import disk_bytes, parse_bytes

    try:
        most = parse_bytes(max_disk)
    except ValueError as error:
        raise UsageError(str(error)) from error
    engine = Engine()
    removed = remove(engine, most_bytes=most)
    left = disk_bytes(engine)
    print(f"Removed {_names(removed)}; the engine uses {left / 1e9:.1f} GB.")
    if left > most:
        print("What is left is in use, or was made by others: see `agentdata sandbox ps` and `docker images`.")
    engine.close()


def _names(images: "list[Image]") -> str:
    names = [name for image in images for name in image.names or (image.id[7:19],)]
    return ", ".join(names) if names else "nothing"


def _age(made: int) -> str:
    minutes = (time.time() - made) / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
