"""`agentdata demo`: a small history, built on the spot, to a run and one sample on the terminal."""

import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import IO

from agentdata.errors import RunError, UsageError
from agentdata.records import Record

FOLDER = "demo-repository"
"""Stands beside the run and holds the repository and the texts of its pull requests."""
MAINLINE = "refs/heads/main"
SECONDS_BETWEEN_COMMITS = 10 * 60 * 60
OVERRIDES = ("exploration.policy=explore", "renderings=[markdown,xml,messages]", "mask=actions-only")
SHOWN = 5
"""Number of the pull request whose sample is shown."""

Files = dict[str, str]


class Written(Record):
    """A file that a commit writes whole."""

    path: str
    text: str


class Renamed(Record):
    """A file that a commit moves."""

    path: str
    to: str


class Replaced(Record):
    """A text that a commit replaces; it occurs once."""

    path: str
    old: str
    new: str


class Step(Record):
    """One commit of the story."""

    label: str
    ref: str = MAINLINE
    after: str = ""
    """Label of the parent where it is not the tip of `ref`."""
    merges: str = ""
    """Label of the second parent."""
    like: tuple[str, ...] = ()
    """Commits whose edits this one makes: those of the branch that it squashes or merges."""
    again: str = ""
    """Commit that this one repeats elsewhere, as a rebase or cherry-pick does; `message` is added to its own."""
    author: str = ""
    message: str = ""
    write: tuple[Written, ...] = ()
    rename: tuple[Renamed, ...] = ()
    replace: tuple[Replaced, ...] = ()
    delete: tuple[str, ...] = ()


class Story(Record):
    """A history to build."""

    repository: str
    """`owner/name`."""
    began: int
    """Time of the first commit, seconds since the epoch."""
    steps: tuple[Step, ...]

    @cached_property
    def step(self) -> dict[str, Step]:
        return {step.label: step for step in self.steps}

    def edit(self, label: str, files: Files) -> None:
        """Do to `files` what the commit does."""
        step = self.step[label]
        for other in (*step.like, *filter(None, [step.again])):
            self.edit(other, files)
        files.update({one.path: one.text for one in step.write})
        for renamed in step.rename:
            files[renamed.to] = files.pop(renamed.path)
        for one in step.replace:
            if files[one.path].count(one.old) != 1:
                raise ValueError(f"{label}: {one.old!r} does not occur once in {one.path}")
            files[one.path] = files[one.path].replace(one.old, one.new)
        for path in step.delete:
            del files[path]


def run_demo(output: Path) -> None:
    """Build the history beside `output`, harvest it into `output`, and show one sample. Raises UsageError, RunError."""
    import recipes
    from agentdata.cli.harvest import report
    from agentdata.harvest.run import HarvestOptions, harvest
    from agentdata.harvest.show import show_sample
    from agentdata.records import ChatSample, RepoSource
    from agentdata.shards import read_table

    if shutil.which("git") is None:
        raise UsageError("The demo needs git 2.34 or newer on the PATH: install git.")
    folder = output.absolute().parent / FOLDER
    repository, pulls = build(folder)
    begun = (output / "config.json").exists()
    print(f"{'Going on in' if begun else 'Harvesting into'} {output}: the history of {repository}")
    options = HarvestOptions(stage="contextual", pulls=str(pulls))
    recipe = recipes.load_harvest("contextual", OVERRIDES)
    report(output, harvest(output, [RepoSource(name="", location=str(repository))], recipe, options))
    sample = next(row for row in read_table(output, "messages", ChatSample) if row.number == SHOWN)
    print(f"\nPull request {SHOWN}, told as the work of an agent:\n")
    show_sample(output, sample.id, rendering="messages")
    command = "agentdata" if shutil.which("agentdata") else sys.argv[0]
    print(
        f"Prove it again:      {command} check {output} --share 1\n"
        f"Another layout:      {command} show {output} {sample.change_id} --render markdown\n"
        f"Your own repository: {command} harvest contextual PATH -o RUN --policy explore --render markdown,messages"
    )


def build(folder: Path) -> tuple[Path, Path]:
    """The repository of the story, and the file with the texts of its pull requests; built unless they are there."""
    import yaml

    import recipes

    told = recipes.HERE / "demo"
    story = Story.model_validate(yaml.safe_load((told / "larder.yaml").read_text(encoding="utf-8")))
    repository, pulls = folder / "larder.git", folder / "pulls.jsonl"
    unfinished = folder / "larder.git.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(told / "pulls.jsonl", pulls)
        if not repository.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            build_repository(unfinished, story)
            unfinished.replace(repository)
    except OSError as error:
        raise UsageError(f"Cannot write the demo's repository: {error}. Choose another place with -o.") from error
    return repository, pulls


def build_repository(path: Path, story: Story) -> dict[str, str]:
    """Write the story as a bare repository; returns the name of each step, the same everywhere. Raises RunError."""
    from agentdata.harvest import git

    def run(*arguments: str) -> None:
        done = subprocess.run(["git", *arguments], capture_output=True, env=git.environment())
        if done.returncode != 0:
            raise git.failure(path, done.stderr)

    run("init", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main", str(path))
    run(f"--git-dir={path}", "config", "remote.origin.url", f"https://forge.example/{story.repository}.git")
    importer = subprocess.Popen(
        ["git", f"--git-dir={path}", "fast-import", "--quiet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=git.environment(),
    )
    assert importer.stdin
    assert importer.stdout
    with importer:
        names = _import(story, importer.stdin, importer.stdout)
    if importer.returncode != 0:
        raise RunError(f"git fast-import ended with status {importer.returncode} while it wrote {path}: see above.")
    return names


def _import(story: Story, stream: IO[bytes], answers: IO[bytes]) -> dict[str, str]:
    """Send each step to `git fast-import`, and ask for the name that it got."""
    marks = {step.label: f":{place}" for place, step in enumerate(story.steps, 1)}
    names: dict[str, str] = {}
    trees: dict[str, Files] = {}
    tips: dict[str, str] = {}
    times = {step.label: story.began + place * SECONDS_BETWEEN_COMMITS for place, step in enumerate(story.steps)}
    for step in story.steps:
        parent = step.after or tips.get(step.ref, "")
        files = dict(trees.get(parent, {}))
        story.edit(step.label, files)
        first = story.step[step.again] if step.again else step
        message = first.message + (f"\n{step.message}" if step.again and step.message else "")
        for label, name in names.items():
            message = message.replace(f"{{{label}}}", name)
        lines = [
            f"commit {step.ref}\nmark {marks[step.label]}",
            f"author {first.author} {times[first.label]} +0000",
            f"committer {first.author} {times[step.label]} +0000",
            _data(message),
            *(f"from {marks[parent]}" for _ in range(bool(parent))),
            *(f"merge {marks[step.merges]}" for _ in range(bool(step.merges))),
            "deleteall",
            *(f"M 100644 inline {path}\n{_data(text)}" for path, text in sorted(files.items())),
            f"get-mark {marks[step.label]}\n",
        ]
        stream.write("\n".join(lines).encode())
        stream.flush()
        names[step.label] = answers.readline().decode().strip()
        trees[step.label], tips[step.ref] = files, step.label
    return names


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"
