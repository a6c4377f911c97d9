"""What containers and images of this package there are, and the removal of what nobody needs."""

import contextlib
import re
from typing import NamedTuple

from sandboxes.engine import Engine
from sandboxes.errors import SandboxError
from sandboxes.owners import OWNER_LABEL, RUN_LABEL, is_dead

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Box(NamedTuple):
    """A container that some process made."""

    id: str
    image: str
    run: str
    owner: str
    state: str
    made: int
    """Seconds since 1970."""

    @property
    def dead(self) -> bool:
        """Whether its owner is known to have ended."""
        return is_dead(self.owner)


class Image(NamedTuple):
    """An image that some process made."""

    id: str
    names: tuple[str, ...]
    run: str
    made: int
    """Seconds since 1970."""
    bytes: int
    """Size with the layers that it shares with others."""
    used: bool
    """Whether a container is made of it."""


def boxes(engine: Engine) -> list[Box]:
    """Every container of this package, oldest first."""
    found = [
        Box(
            id=item["Id"],
            image=item["Image"],
            run=item["Labels"].get(RUN_LABEL, ""),
            owner=item["Labels"][OWNER_LABEL],
            state=item["State"],
            made=item["Created"],
        )
        for item in engine.containers()
    ]
    return sorted(found, key=lambda box: box.made)


def images(engine: Engine) -> list[Image]:
    """Every image of this package, oldest first."""
    with engine.call("listing images") as api:
        used = {item["ImageID"] for item in api.containers(all=True)}
        found = api.images(filters={"label": OWNER_LABEL})
    return sorted((_image(item, used) for item in found), key=lambda image: image.made)


def _image(item: dict[str, object], used: set[str]) -> Image:
    labels, tags = item.get("Labels") or {}, item.get("RepoTags") or []
    assert isinstance(labels, dict)
    assert isinstance(tags, list)
    return Image(
        id=str(item["Id"]),
        names=tuple(name for name in tags if name != "<none>:<none>"),
        run=str(labels.get(RUN_LABEL, "")),
        made=int(str(item["Created"])),
        bytes=int(str(item["Size"])),
        used=item["Id"] in used,
    )


def prune(engine: Engine, *, everything: bool = False) -> list[Box]:
    """Remove the containers of dead owners, or of all. Returns what was removed."""
    gone = [box for box in boxes(engine) if everything or box.dead]
    for box in gone:
        engine.remove(box.id)
    return gone


def disk_bytes(engine: Engine) -> int:
    """What all of the engine's images and containers take on its disk, shared layers counted once."""
    with engine.call("measuring its disk") as api:
        usage = api.df()
    return int(usage.get("LayersSize") or 0) + sum(item.get("SizeRw") or 0 for item in usage.get("Containers") or ())


def collect(engine: Engine, *, most_bytes: int) -> list[Image]:
    """Remove this package's images, oldest first, until the engine's disk use is at most `most_bytes`.

    Images that a container uses, or that other images are built on, stay. Images of others are not touched.
    """
    removed: list[Image] = []
    progress = True
    while progress and disk_bytes(engine) > most_bytes:
        progress = False
        for image in images(engine):
            if not image.used and _remove(engine, image):
                removed.append(image)
                progress = True
                if disk_bytes(engine) <= most_bytes:
                    break
    return removed


def _remove(engine: Engine, image: Image) -> bool:
    """Whether the image could be removed: not while others are built on it."""
    with contextlib.suppress(SandboxError), engine.call("removing an image") as api:
        for name in image.names or (image.id,):
            api.remove_image(name)
        return True
    return False


def parse_bytes(text: str) -> int:
    """`50GB`, `800M`, `1.5 TB` in bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d+\.?\d*)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is not a size: write it like 50GB.")
    return int(float(found[1]) * UNITS[found[2].upper()])
