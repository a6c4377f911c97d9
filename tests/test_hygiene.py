"""What runs leave on an engine is listed and removed, and nothing that is somebody else's."""

import uuid
from collections.abc import Iterator

import pytest

from sandboxes.engine import Engine
from sandboxes.hygiene import Image, boxes, disk_bytes, images, parse_bytes, prune
from sandboxes.hygiene import collect as collect_images
from sandboxes.images import BuildBox
from sandboxes.owners import OWNER_LABEL, this_owner


@pytest.mark.parametrize(
    ("text", "size"), [("50GB", 50 * 10**9), ("800M", 800 * 10**6), ("1.5 TiB", 15 * 10**11), ("12", 12), ("0b", 0)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "1.2.3G", "five", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 50GB"):
        parse_bytes(text)


@pytest.fixture
def made(engine: Engine, base: str) -> Iterator[str]:
    """An image of this package that nobody needs."""
    name = f"agentdata-test/hygiene:{uuid.uuid4().hex[:12]}"
    with BuildBox(engine, base, run="hygiene") as box:
        box.commit(name)
    yield name
    if engine.images_have(name):
        engine.api.remove_image(name)


def listed(engine: Engine, name: str) -> Image | None:
    return next((image for image in images(engine) if name in image.names), None)


@pytest.mark.docker
def test_images_are_listed_with_their_run_and_whether_they_are_used(engine: Engine, made: str) -> None:
    image = listed(engine, made)
    assert image is not None
    assert (image.run, image.used) == ("hygiene", False)
    with engine.open(made):
        used = listed(engine, made)
        assert used is not None
        assert used.used


@pytest.mark.docker
def test_nothing_is_collected_while_there_is_room(engine: Engine, made: str) -> None:
    assert collect_images(engine, most_bytes=disk_bytes(engine) + 10**12) == []
    assert engine.images_have(made)


@pytest.mark.docker
def test_containers_of_dead_owners_are_pruned_and_those_of_the_living_are_not(engine: Engine, base: str) -> None:
    host, boot, space, pid, _ = this_owner().split("|")
    dead = "|".join((host, boot, space, pid, "1"))
    left = engine.api.create_container(base, ["true"], labels={OWNER_LABEL: dead})["Id"]
    with engine.open(base, run="pruning") as box:
        assert {found.run for found in boxes(engine) if found.id == box.id} == {"pruning"}
        assert left in [gone.id for gone in prune(engine)]
        assert box.run("true").status == 0
    assert left not in [found.id for found in boxes(engine)]
