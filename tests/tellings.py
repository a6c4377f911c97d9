"""Histories told: landings, changes and traces of a small repository, and the real tools to compare them with."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import recipes
from agentdata.harvest.changes import ChangeReader
from agentdata.harvest.explore import Explorer
from agentdata.harvest.git import Repository
from agentdata.harvest.landings import find_landings
from agentdata.harvest.narrate import Narrator
from agentdata.harvest.pulls import PullTexts
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.harvest.sources import find_git_dir
from agentdata.harvest.trees import Trees
from agentdata.records import Change, Event, Landing, Rejected, RepoSource, Trace

State = Mapping[str, tuple[str, bytes]]
"""Path to (mode, content)."""


@dataclass
class Told:
    """What a history gave, oldest first."""

    landings: list[Landing]
    changes: list[Change] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        return [rejected.reason for rejected in self.rejected]


def recipe(*overrides: str) -> HarvestRecipe:
    """The built-in recipe without its excluded repositories, so that small histories meet no filter by accident."""
    return recipes.load_harvest("contextual", ["filters.excluded_repositories=[]", *overrides])


def tell(
    path: Path,
    *overrides: str,
    head: str = "HEAD",
    plain: bool = True,
    licence: str = "",
    pulls: PullTexts | None = None,
    last: int = 0,
) -> Told:
    """Harvest a repository in this process. `last` takes the newest landings only."""
    chosen = recipe(*overrides)
    git_dir = find_git_dir(path)
    landings = find_landings(git_dir, output(git_dir, "git", "rev-parse", head))
    told = Told(landings[-last:])
    with Repository(git_dir) as repository:
        trees = Trees(repository)
        source = RepoSource(name="owner/name", location=str(path), licence=licence)
        narrator = Narrator(Explorer(trees, chosen), chosen)
        for change in ChangeReader(repository, trees, source, chosen, pulls=pulls).read(told.landings, plain=plain):
            if isinstance(change, Rejected):
                told.rejected.append(change)
                continue
            told.changes.append(change)
            trace = narrator.tell(change)
            if isinstance(trace, Rejected):
                told.rejected.append(trace)
            else:
                told.traces.append(trace)
    return told


def output(directory: Path, *command: str) -> str:
    """What a command prints in a directory, where no configuration of the user's is read."""
    return output_bytes(directory, *command).decode().strip()


def output_bytes(directory: Path, *command: str) -> bytes:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(command, cwd=directory, capture_output=True, env=environment, check=False)
    if done.returncode > 1 or (done.returncode == 1 and command[:2] != ("git", "diff")):
        raise RuntimeError(f"{command} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout


def edits(trace: Trace) -> list[Event]:
    """The edits of a trace."""
    return [event for event in trace.events if event.kind == "edit"]


def kinds(events: Sequence[Event]) -> list[str]:
    """The kinds of edits, in order."""
    return [event.edit for event in events if event.kind == "edit"]


def replay(trace: Trace, state: State) -> dict[str, tuple[str, bytes]]:
    """Follow a trace over files in memory, in bytes and by other means than the harvest's own."""
    files = dict(state)
    for event in trace.events:
        old, new = event.old.encode(event.encoding), event.new.encode(event.encoding)
        if event.kind == "read":
            lines = files[event.path][1].split(b"\n")
            shown = lines[event.start - 1 : event.end] if event.start else lines
            assert b"\n".join(shown) == event.text.encode(event.encoding)
        elif event.edit == "create":
            assert event.path not in files
            files[event.path] = (event.mode, new)
        elif event.edit == "delete":
            del files[event.path]
        elif event.edit == "rename":
            assert event.new_path not in files
            files[event.new_path] = files.pop(event.path)
        elif event.edit == "chmod":
            files[event.path] = (event.mode, files[event.path][1])
        elif event.edit == "insert":
            mode, content = files[event.path]
            lines = content.split(b"\n")
            lines[event.line : event.line] = new.split(b"\n")
            files[event.path] = (mode, b"\n".join(lines))
        elif event.edit == "str_replace":
            mode, content = files[event.path]
            assert sum(content.startswith(old, place) for place in range(len(content))) == 1
            files[event.path] = (mode, content.replace(old, new))
        if event.kind == "edit":
            assert not any(one.startswith(other + "/") for one in files for other in files)
    return files


def acted(trace: Trace, repository: Path, directory: Path) -> str:
    """Act a trace in a real checkout, with a real shell; returns the name of the tree that results.

    Listings, searches and reads must print there what the trace says.
    """
    output(repository, "git", "worktree", "add", "-q", "--detach", str(directory), trace.proof.snapshot)
    for event in trace.events:
        path = directory / event.path
        if event.command:
            printed = output_bytes(directory, "sh", "-c", event.command).decode(errors="replace")
            assert printed == (event.text if event.kind != "edit" else "")
        elif event.kind == "read":
            lines = path.read_bytes().decode(event.encoding).split("\n")
            assert "\n".join(lines[event.start - 1 : event.end] if event.start else lines) == event.text
        elif event.edit == "create":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(event.new.encode(event.encoding))
        elif event.edit == "insert":
            lines = path.read_bytes().decode(event.encoding).split("\n")
            lines[event.line : event.line] = event.new.split("\n")
            path.write_bytes("\n".join(lines).encode(event.encoding))
        elif event.edit == "str_replace":
            before, found, after = path.read_bytes().decode(event.encoding).partition(event.old)
            assert found
            path.write_bytes((before + event.new + after).encode(event.encoding))
    output(directory, "git", "add", "-A")
    return output(directory, "git", "write-tree")
