"""Layers of images: what of a build box stays in them."""

import uuid
from collections.abc import Iterator

import pytest

from agentdata.environments.images import archive
from sandboxes.engine import Engine
from sandboxes.errors import ImageError
from sandboxes.images import BuildBox, base_image

pytestmark = pytest.mark.docker


@pytest.fixture
def name(engine: Engine) -> Iterator[str]:
    name = f"agentdata-test/layer:{uuid.uuid4().hex[:12]}"
    yield name
    if engine.images_have(name):
        engine.api.remove_image(name)


def test_files_are_kept_and_the_hosts_settings_are_not(
    engine: Engine, base: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://ada:secret@index.example/simple")
    with BuildBox(engine, base, run="layers") as box:
        assert "secret" in box.run("echo $PIP_INDEX_URL; echo kept > /opt/kept").text
        box.put(archive({"inner/file": "content"}), "/opt/put")
        box.commit(name, labels={"agentdata.lock": "one"}, changes=["ENV MORE=1", "WORKDIR /opt"])
    with engine.open(name) as sandbox:
        assert sandbox.run("pwd; cat kept put/inner/file; env").text.startswith("/opt\nkept\ncontent")
        assert "secret" not in sandbox.run("env; ls -A /dev/build-access 2>&1").text
    made, before = engine.api.inspect_image(name)["Config"], engine.api.inspect_image(base)["Config"]
    assert "MORE=1" in made["Env"]
    assert made["Labels"]["agentdata.lock"] == "one"
    assert made["Labels"]["agentdata.run"] == "layers"
    assert (made["Cmd"], made["Entrypoint"] or []) == (before["Cmd"], before["Entrypoint"] or [])
    assert "secret" not in str(engine.api.inspect_image(name))


def test_the_layer_of_a_second_box_does_not_hold_the_first(engine: Engine, base: str, name: str) -> None:
    with BuildBox(engine, base) as box:
        box.run("head -c 3000000 /dev/urandom > /opt/bulk && rm /opt/bulk")
        box.commit(name)
    sizes = [engine.api.inspect_image(image)["Size"] for image in (base, name)]
    assert sizes[1] - sizes[0] < 1_000_000


def test_a_box_ends_with_its_block(engine: Engine, base: str) -> None:
    with pytest.raises(KeyError), BuildBox(engine, base, run="ending"):
        raise KeyError
    assert not [box for box in engine.containers() if box["Labels"].get("agentdata.run") == "ending"]


def test_a_python_that_no_base_has_is_named_with_those_that_there_are(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENTDATA_BASE_IMAGE", raising=False)
    with pytest.raises(ImageError, match=r"No base image for Python 2\.7: Debian has 3\.9, 3\.11, 3\.13"):
        base_image(engine, "2.7")


def test_a_base_of_ones_own_is_taken(engine: Engine, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTDATA_BASE_IMAGE", base)
    assert base_image(engine, "3.10") == base
