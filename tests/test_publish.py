"""Datasets to a Hub that speaks the real client's protocol, with the faults that a network and an owner have."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import _http

from agentdata.datasets.publish import publish
from agentdata.errors import AgentdataError, RunError, UsageError
from tests.assembled import build, chats, write_run
from tests.hub_server import TOKEN, Fault, File, Hub
from tests.runs import finish, launch

NAME = "owner/name"
# The client's own way to send a file is deprecated by the library that it sends it with.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SMALL = ("shard_bytes=4000", "validation_share=0")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    yield hub
    hub.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", {"messages": chats()})


@pytest.fixture
def dataset(tmp_path: Path, run: Path) -> Path:
    build(tmp_path / "dataset", run, overrides=SMALL)
    return tmp_path / "dataset"


def local(dataset: Path) -> dict[str, bytes]:
    """What is published of a dataset."""
    paths = [*dataset.glob("*/*.parquet"), dataset / "README.md", dataset / "manifest.json"]
    return {str(path.relative_to(dataset)): path.read_bytes() for path in paths}


def remote(hub: Hub, branch: str = "main") -> dict[str, bytes]:
    return {path: content for path, content in hub.files(NAME, branch).items() if path != ".gitattributes"}


def test_a_dataset_is_published_whole(hub: Hub, dataset: Path) -> None:
    done = publish(dataset, NAME, private=True)
    assert remote(hub) == local(dataset)
    assert hub.repos[NAME].private
    assert done.commit == hub.repos[NAME].branches["main"]
    assert done.url == f"{hub.url}/datasets/{NAME}"


def test_publishing_again_does_nothing(hub: Hub, dataset: Path) -> None:
    publish(dataset, NAME)
    hub.requests.clear()
    assert not publish(dataset, NAME).changes
    assert not [line for line in hub.requests if "PUT" in line or "/commit/" in line]


def test_a_dry_run_sends_nothing(hub: Hub, dataset: Path) -> None:
    planned = publish(dataset, NAME, dry_run=True)
    assert len(planned.changes.upload) == len(local(dataset))
    assert not hub.repos
    publish(dataset, NAME)
    assert not publish(dataset, NAME, dry_run=True).changes


def test_new_shards_alone_are_sent(hub: Hub, dataset: Path, tmp_path: Path, run: Path) -> None:
    publish(dataset, NAME)
    more = write_run(tmp_path / "more", {"messages": chats(prefix="new-")})
    build(tmp_path / "bigger", run, more, overrides=SMALL)
    hub.requests.clear()
    done = publish(tmp_path / "bigger", NAME)
    assert remote(hub) == local(tmp_path / "bigger")
    before, after = (
        {content for path, content in local(one).items() if path.endswith(".parquet")}
        for one in (dataset, tmp_path / "bigger")
    )
    assert len(hub.uploads()) == len(after - before)
    assert len(done.changes.copy) >= len(before) - 1  # names tell how many shards there are
    assert done.changes.delete


def test_nobody_sees_half_a_dataset(hub: Hub, dataset: Path) -> None:
    publish(dataset, NAME)
    assert len(hub.repos[NAME].commits) == 2  # the empty one and ours


def test_what_was_not_written_by_us_stays(hub: Hub, dataset: Path, tmp_path: Path) -> None:
    publish(dataset, NAME)
    repo = hub.repos[NAME]
    shard = next(path for path in hub.files(NAME) if path.endswith(".parquet"))
    theirs = {"notes.md": File(b"mine", large=False), shard: File(b"changed by somebody", large=True)}
    repo.commit("main", {**repo.at("main")[1], **theirs})  # type: ignore[index]
    smaller = write_run(tmp_path / "smaller", {"messages": chats(["a/one"])})
    build(tmp_path / "other", smaller, overrides=["validation_share=0"])
    publish(tmp_path / "other", NAME)
    left = remote(hub)
    assert left.pop("notes.md") == b"mine"
    assert left.pop(shard) == b"changed by somebody"
    assert left == local(tmp_path / "other")


def test_a_file_of_somebody_else_is_not_overwritten(hub: Hub, dataset: Path) -> None:
    huggingface_hub.HfApi().create_repo(NAME, repo_type="dataset")
    repo = hub.repos[NAME]
    repo.commit("main", {"README.md": File(b"# Another dataset", large=False)})
    with pytest.raises(UsageError, match=r"has a README\.md that agentdata did not write"):
        publish(dataset, NAME)
    assert hub.files(NAME) == {"README.md": b"# Another dataset"}


def test_a_branch_is_made(hub: Hub, dataset: Path) -> None:
    publish(dataset, NAME, revision="v1")
    publish(dataset, NAME, revision="v1")
    assert remote(hub, "v1") == local(dataset)
    assert not remote(hub)


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", "/large/", 0),
        Fault("PUT", "/large/", 503, times=2),
        Fault("POST", "/objects/batch", 429),
        Fault("POST", "/preupload/", 500),
    ],
    ids=lambda fault: f"{fault.path.strip('/')}-{fault.status}",
)
def test_a_passing_fault_is_overcome(hub: Hub, dataset: Path, fault: Fault) -> None:
    hub.faults.append(fault)
    publish(dataset, NAME)
    assert remote(hub) == local(dataset)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("PUT", "/large/", 0, times=99, after=2), RunError, "cannot be reached"),
        (Fault("PUT", "/large/", 503, times=99, after=2), RunError, "status 503"),
        (Fault("POST", "/objects/batch", 429, times=99), RunError, "slow down"),
        (Fault("POST", "/repos/create", 500, times=99), RunError, "status 500"),
        (Fault("POST", "/commit/", 403, times=99, message="no write access"), UsageError, "may not write"),
        (Fault("POST", "/commit/", 409, times=99, message="conflict"), RunError, "changed by somebody else"),
        (Fault("POST", "/commit/", 0, times=99), RunError, "cannot be reached"),
        (
            Fault("POST", "/objects/batch", 403, times=99, message="Private repository storage limit reached"),
            RunError,
            "full",
        ),
        (Fault("POST", "/objects/batch", 402, times=99, message="Payment required"), RunError, "full"),
    ],
    ids=lambda value: f"{value.path.strip('/')}-{value.status}" if isinstance(value, Fault) else "",
)
def test_a_lasting_fault_is_told_and_the_same_call_goes_on(
    hub: Hub, dataset: Path, fault: Fault, kind: type[AgentdataError], words: str
) -> None:
    hub.faults.append(fault)
    with pytest.raises(kind, match=words) as told:
        publish(dataset, NAME)
    assert "the same command goes on" in str(told.value)
    sent = hub.uploads()
    hub.faults.clear()
    publish(dataset, NAME)
    assert remote(hub) == local(dataset)
    assert len(hub.uploads()) == len(set(hub.uploads())), f"sent twice, first {sent}"


def test_a_commit_whose_answer_is_lost_is_found_again(hub: Hub, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object, **__: object) -> None:
        raise ConnectionError("cut")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.hf_api.CommitInfo", lose)
        patch.setattr("tests.hub_server.Handler._json", lost_after_commit(hub))
        with pytest.raises(RunError):
            publish(dataset, NAME)
    assert not publish(dataset, NAME).changes


def lost_after_commit(hub: Hub) -> object:
    from tests.hub_server import Handler

    real = Handler._json

    def answer(self: Handler, value: object, status: int = 200, **headers: str) -> None:
        if isinstance(value, dict) and "commitOid" in value:
            self.close_connection = True
            self.connection.close()
            return
        real(self, value, status, **headers)

    return answer


def test_what_arrived_otherwise_is_noticed(hub: Hub, dataset: Path) -> None:
    shard = next(path for path in local(dataset) if path.endswith(".parquet"))

    def corrupt() -> None:
        for digest in hub.large:
            if hub.large[digest] == (dataset / shard).read_bytes():
                hub.large[digest] = b"something else"

    hub.on_commit = corrupt
    with pytest.raises(RunError, match=shard):
        publish(dataset, NAME)


def test_somebody_publishes_meanwhile(hub: Hub, dataset: Path) -> None:
    def meanwhile() -> None:
        hub.on_commit = lambda: None
        repo = hub.repos[NAME]
        repo.commit("main", {**repo.at("main")[1], "theirs.md": File(b"new", large=False)})  # type: ignore[index]

    hub.on_commit = meanwhile
    with pytest.raises(RunError, match="changed by somebody else meanwhile"):
        publish(dataset, NAME)
    publish(dataset, NAME)
    assert remote(hub) == {**local(dataset), "theirs.md": b"new"}


def test_without_a_token(hub: Hub, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="hf auth login"):
        publish(dataset, NAME)


def test_with_an_expired_token(hub: Hub, dataset: Path) -> None:
    hub.tokens.clear()
    with pytest.raises(UsageError, match="expired"):
        publish(dataset, NAME)


def test_to_an_owner_without_rights(hub: Hub, dataset: Path) -> None:
    with pytest.raises(UsageError, match="another owner"):
        publish(dataset, "somebody/name")


def test_without_a_network(hub: Hub, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match="cannot be reached"):
        publish(dataset, NAME)


def test_with_a_name_that_is_none(hub: Hub, dataset: Path) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        publish(dataset, "one/two/three")


def test_a_dataset_that_is_not_whole(hub: Hub, dataset: Path) -> None:
    next(dataset.glob("*/*.parquet")).unlink()
    with pytest.raises(UsageError, match="build the dataset again"):
        publish(dataset, NAME)
    assert not hub.requests


@pytest.fixture
def home(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Environment of a command that speaks Xet to the Hub."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}


def test_xet_sends_what_is_new_alone(hub: Hub, dataset: Path, tmp_path: Path, run: Path, home: dict[str, str]) -> None:
    finish(launch("publish", dataset, NAME, environment=home)).succeeds()
    assert remote(hub) == local(dataset)
    assert hub.xorbs
    assert not hub.uploads()
    before = set(hub.xorbs)
    more = write_run(tmp_path / "more", {"messages": chats(prefix="new-")})
    build(tmp_path / "bigger", run, more, overrides=SMALL)
    finish(launch("publish", tmp_path / "bigger", NAME, environment=home)).succeeds()
    assert remote(hub) == local(tmp_path / "bigger")
    sent = sum(len(xorb) for name, xorb in hub.xorbs.items() if name not in before)
    assert sent < 0.7 * sum(len(content) for content in local(tmp_path / "bigger").values())


def test_xet_goes_on_after_a_fault(hub: Hub, dataset: Path, home: dict[str, str]) -> None:
    hub.faults.append(Fault("POST", "/v1/xorbs/", 403, times=99, message="no rights"))
    finish(launch("publish", dataset, NAME, environment=home)).explains("may not write", "the same command goes on")
    hub.faults.clear()
    finish(launch("publish", dataset, NAME, environment=home)).succeeds()
    assert remote(hub) == local(dataset)


LOAD = """
import datasets
loaded = datasets.load_dataset("owner/name", "contextual-messages", split="train")
streamed = datasets.load_dataset("owner/name", "contextual-messages", split="train", streaming=True)
assert list(loaded["id"]) == [row["id"] for row in streamed]
assert loaded[0]["messages"][2]["tool_calls"][0]["function"]["arguments"]["command"].startswith("cat ")
print(len(loaded))
"""


def test_the_command_publishes_and_datasets_reads_back(hub: Hub, dataset: Path, home: dict[str, str]) -> None:
    done = finish(launch("publish", dataset, NAME, environment=home))
    done.succeeds()
    assert "Every file is there with its size and digest" in done.out
    again = finish(launch("publish", dataset, NAME, environment=home))
    assert "nothing to do" in again.out
    read = subprocess.run(
        [sys.executable, "-c", LOAD], env=os.environ | home, capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    assert read.stdout.split()[-1] == "48"
