"""Locks from a resolver that runs for real, with an index of small wheels in a folder."""

import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentdata.environments.declarations import Group
from agentdata.environments.dependencies import Wishes
from agentdata.environments.locks import Lock, UnresolvableError, compile_here, lock_id, resolve, unpinned
from agentdata.errors import IndexUnreachableError


def wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """A wheel that holds metadata only."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        inside = f"{name}-{version}.dist-info"
        archive.writestr(f"{inside}/METADATA", metadata)
        archive.writestr(f"{inside}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{inside}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    for name, version, *requires in [
        ("pip", "23.0"),
        ("pytest", "7.4.0", "pluggy"),
        ("pluggy", "1.2.0"),
        ("one", "1.0"),
        ("one", "2.0"),
        ("two", "1.0", "one<2"),
        ("larder", "9.0"),
        ("plugin", "1.0", "larder"),
    ]:
        wheel(folder, name, version, *requires)
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    return folder


def wish(*tests: str, run: Sequence[str] = (), constraints: Sequence[str] = ()) -> Wishes:
    group = Group(origin="here", kind="test", requirements=tests)
    return Wishes(
        project="larder",
        modules=("larder",),
        run=tuple(run),
        build=(),
        tests=(group,),
        constraints=tuple(constraints),
        until="2023-07-01T00:00:00Z",
    )


def undated(arguments: Sequence[str], requirements: str, constraints: str) -> tuple[int, str, str]:
    """The resolver without the date: files in a folder have none."""
    words = list(arguments)
    while "--exclude-newer" in words:
        place = words.index("--exclude-newer")
        del words[place : place + 2]
    return compile_here([*words, "--no-index"], requirements, constraints)


def test_a_lock_names_every_package_with_its_version(index: Path) -> None:
    lock = resolve(wish("two"), "3.11", compile_lock=undated)
    assert lock.text == "one==1.0\npip==23.0\npluggy==1.2.0\npytest==7.4.0\ntwo==1.0\n"
    assert resolve(wish("two"), "3.11", compile_lock=undated) == lock


def test_the_project_itself_is_never_in_the_lock(index: Path) -> None:
    lock = resolve(wish("plugin"), "3.11", compile_lock=undated)
    assert "larder" not in lock.text
    assert "plugin==1.0" in lock.text


def test_what_cannot_be_resolved_goes_down_the_levels(index: Path) -> None:
    wishes = wish("two", "one==2.0", "absent")
    for level in ("as-declared", "unpinned"):
        with pytest.raises(UnresolvableError):
            resolve(wishes, "3.11", level=level, compile_lock=undated)
    lock = resolve(wishes, "3.11", level="resolvable", compile_lock=undated)
    assert lock.dropped == ("absent",)
    assert "one==1.0\n" in lock.text
    assert (
        resolve(wishes, "3.11", level="own", compile_lock=undated).text == "pip==23.0\npluggy==1.2.0\npytest==7.4.0\n"
    )


def test_constraints_hold_as_declared(index: Path) -> None:
    lock = resolve(wish("one", constraints=["one<2"]), "3.11", compile_lock=undated)
    assert "one==1.0\n" in lock.text


def test_requirements_of_a_recipe_are_added(index: Path) -> None:
    assert "two==1.0" in resolve(wish(), "3.11", compile_lock=undated, extra=["two"]).text


def test_a_package_that_came_later_is_excused_by_name(index: Path) -> None:
    asked: list[list[str]] = []

    def purged(arguments: Sequence[str], requirements: str, constraints: str) -> tuple[int, str, str]:
        asked.append(list(arguments))
        if not any(word.startswith("one=") for word in arguments):
            return 1, "", "hint: `one` was filtered by `exclude-newer` to only include packages uploaded before"
        return 0, "one==2.0\n", ""

    lock = resolve(wish("one"), "3.11", level="excused", compile_lock=purged)
    assert lock.excused == ("one",)
    assert "2023-07-01T00:00:00Z" in asked[0]
    with pytest.raises(UnresolvableError):
        resolve(wish("one"), "3.11", compile_lock=purged)


def test_an_index_that_does_not_answer_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("agentdata.environments.locks.WAIT", 0.01)
    with pytest.raises(IndexUnreachableError, match="does not answer"):
        resolve(wish("one"), "3.11")


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("a==1", "a"),
        ("a[x]>=1,<2", "a[x]>=1"),
        ("a ~= 2 ; python_version < '3'", "a ; python_version < '3'"),
        ("a", "a"),
    ],
)
def test_pins_are_taken_off(requirement: str, expected: str) -> None:
    assert unpinned(requirement) == expected


def test_the_name_of_a_lock_follows_what_it_installs_and_where() -> None:
    lock = Lock(python="3.11", text="one==1.0\n", level="own")
    name = lock_id(lock.python, "base", ["b", "a"], lock.text)
    assert name == lock_id(lock.python, "base", ["a", "b"], lock.text)
    assert len({name, lock_id("3.9", "base", ["a", "b"], lock.text), lock_id("3.11", "base", [], lock.text)}) == 3


def test_nothing_of_a_package_runs_on_this_machine(index: Path, tmp_path: Path) -> None:
    source = tmp_path / "trap-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    subprocess.run(["tar", "czf", str(index / "trap-1.0.tar.gz"), "trap-1.0"], cwd=tmp_path, check=True)
    with pytest.raises(UnresolvableError):
        resolve(wish("trap"), "3.11", compile_lock=undated)
    assert not (tmp_path / "sprung").exists()
