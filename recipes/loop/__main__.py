"""Repositories to a model that was trained on some of them, measured on others, and sent to work on tasks of one.

OUT/seen, OUT/unseen/NAME           samples, harvested
OUT/model                           a small model with random weights
OUT/midtrain.yaml, OUT/trained      its training, with losses on the unseen repositories
OUT/environments, OUT/tasks         tasks from the newest changes of one seen repository
OUT/attempts                        what the trained model did about them, graded
OUT/*/report.html                   pages of both
OUT/report.md                       what came of it
OUT/steps.jsonl                     seconds of each step

A step whose result is there is not done again.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentdata.errors import RunError, UsageError
from recipes.loop.report import write_report

HERE = Path(__file__).parent
AGENTDATA = (sys.executable, "-m", "agentdata")
LAST_STAGE = "messages"
RENDERED = ("--policy", "explore", "--render", "markdown,messages", "--mask", "actions-only")
HARVEST = ("harvest", "contextual", "--limit", "600", *RENDERED)
"""Newest landings alone: far more tokens than the training takes."""


@dataclass(frozen=True)
class Repository:
    """A clone, mirror or URL, and what it is called."""

    name: str
    location: str

    @classmethod
    def read(cls, word: str) -> "Repository":
        """`[OWNER/NAME=]LOCATION`."""
        name, given, location = word.rpartition("=")
        place = Path(location).expanduser()
        location = str(place.absolute()) if place.exists() else location
        return cls(name if given else Path(location).name.removesuffix(".git"), location)

    @property
    def folder(self) -> str:
        """Name of its directory."""
        return self.name.replace("/", "-")


class Loop:
    """A directory in which steps are done once, one after the other."""

    def __init__(self, out: Path) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)

    def step(self, result: str, *command: str) -> None:
        """Run a command of agentdata in the directory unless the file that it leaves last is there. Raises RunError."""
        with self.timed(result) as wanted:
            if wanted:
                self.run(*command)

    def run(self, *command: str) -> None:
        """Run a command of agentdata in the directory. Raises RunError."""
        print(f"\n$ agentdata {' '.join(command)}", flush=True)
        if status := subprocess.run([*AGENTDATA, *command], cwd=self.out, check=False).returncode:
            raise RunError(
                f"`agentdata {' '.join(command)}` ended with status {status}: the same command goes on here."
            )

    @contextmanager
    def timed(self, result: str) -> Iterator[bool]:
        """Whether a step is to be done; notes the seconds that it took."""
        if (self.out / result).exists():
            yield False
            return
        began = time.monotonic()
        yield True
        line = {"result": result, "seconds": round(time.monotonic() - began, 1)}
        with open(self.out / "steps.jsonl", "a", encoding="utf-8") as steps:
            steps.write(json.dumps(line) + "\n")


def run(out: Path, seen: Sequence[Repository], unseen: Sequence[Repository], *, tasks: int, recipe: Path) -> None:
    """Go all the way, or go on where it was stopped. Raises UsageError or RunError."""
    loop = Loop(out)
    train(loop, seen, unseen, recipe)
    if tasks:
        derive(loop, seen[0], tasks)
        attempt(loop)
    draw(loop)
    print("\n" + write_report(out), flush=True)


def train(loop: Loop, seen: Sequence[Repository], unseen: Sequence[Repository], recipe: Path) -> None:
    """Samples to a trained model."""
    _list(loop.out / "seen.yaml", seen)
    loop.step("seen/manifest.json", *HARVEST, "@seen.yaml", "-o", "seen")
    for one in unseen:
        _list(loop.out / f"unseen-{one.folder}.yaml", [one])
        run = f"unseen/{one.folder}"
        loop.step(f"{run}/manifest.json", *HARVEST, f"@unseen-{one.folder}.yaml", "-o", run)
    loop.step("model/config.json", "model", "init", "seen", "--split", "", "-o", "model")
    filled = fill(yaml.safe_load(recipe.read_text(encoding="utf-8")), unseen)
    (loop.out / "midtrain.yaml").write_text(yaml.safe_dump(filled, sort_keys=False), encoding="utf-8")
    loop.step(f"trained/stages/{LAST_STAGE}/model", "midtrain", "midtrain.yaml", "-o", "trained")


def fill(recipe: dict[str, Any], unseen: Sequence[Repository]) -> dict[str, Any]:
    """A recipe with the unseen repositories held out in every stage, in the rendering that it trains on."""
    held_out = [{"path": f"unseen/{one.folder}", "name": one.name, "split": "", "repeat": 0.25} for one in unseen]
    stages = [
        {**stage, "held_out": [{**one, "rendering": stage["sources"][0]["rendering"]} for one in held_out]}
        for stage in recipe["stages"]
    ]
    return {**recipe, "stages": stages}


def derive(loop: Loop, repository: Repository, most: int) -> None:
    """Tasks from the newest changes of a repository that touch tests."""
    _list(loop.out / "changes.yaml", [repository])
    loop.step("changes/manifest.json", "harvest", "changes", "@changes.yaml", "-o", "changes")
    build = ("environments", "build", "changes", "--limit", str(most), "-o", "environments")
    loop.step("environments/manifest.json", *build)
    loop.step("tasks/manifest.json", "tasks", "derive", "environments", "-o", "tasks")


def attempt(loop: Loop) -> None:
    """The trained model, served by vLLM, at work on the tasks."""
    with loop.timed("attempts/manifest.json") as wanted:
        if wanted:
            with served(loop, f"trained/stages/{LAST_STAGE}/model", "loop") as endpoint:
                recipe = str(HERE / "environmental.yaml")
                command = ("harvest", "environmental", "tasks", "--model", "loop", "--endpoint", endpoint)
                loop.run(*command, "--recipe", recipe, "--workers", "2", "--graders", "1", "-o", "attempts")


def draw(loop: Loop) -> None:
    """A page for the training and one for the attempts."""
    for name in ("trained", "attempts"):
        if (loop.out / name).is_dir():
            loop.step(f"{name}/report.html", "report", name)


@contextmanager
def served(loop: Loop, model: str, name: str) -> Iterator[str]:
    """The endpoint of a model while the block runs. Raises RunError."""
    options = ("--name", name, "--port", "0", "--tool-call-parser", "hermes", "--log", "vllm.log")
    command = ("serve", model, *options, "--", "--enforce-eager", "--max-num-seqs", "4")
    print(f"\n$ agentdata {' '.join(command)}", flush=True)
    with subprocess.Popen([*AGENTDATA, *command], cwd=loop.out, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if not (line := server.stdout.readline().strip()):
                raise RunError(f"vLLM did not start: see {loop.out / 'vllm.log'}.")
            yield line
        finally:
            server.terminate()


def _list(path: Path, repositories: Sequence[Repository]) -> None:
    path.write_text(yaml.safe_dump([vars(one) for one in repositories]), encoding="utf-8")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.loop", description=__doc__.partition("\n\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="Directory of everything; the same command goes on.")
    many: dict[str, Any] = {"nargs": "+", "type": Repository.read, "required": True, "metavar": "[OWNER/NAME=]REPO"}
    parser.add_argument("--seen", **many, help="What is trained on; tasks come from the first.")
    parser.add_argument("--unseen", **many, help="What the loss is measured on.")
    parser.add_argument(
        "--tasks", type=int, default=8, help="Newest changes that tasks are derived from; 0 for no attempts."
    )
    parser.add_argument("--recipe", type=Path, default=HERE / "midtrain.yaml", help="Recipe of the training.")
    given = parser.parse_args()
    try:
        run(given.out, given.seen, given.unseen, tasks=given.tasks, recipe=given.recipe)
    except (RunError, UsageError) as error:
        sys.exit(f"agentdata: {error}")


if __name__ == "__main__":
    main()
