"""Images that were removed from the engine, made again from what a run says of them.

A lock, a commit and a patch tell everything about an image, so that images need not be kept for the sake of the tasks.
"""

import shlex
import threading
from collections import defaultdict

from agentdata.environments.build import rebuild
from agentdata.environments.images import BuildError
from agentdata.environments.owed import owing
from agentdata.errors import OwedError, SourceError
from agentdata.records import Environment, Task
from sandboxes.engine import Engine
from sandboxes.images import BuildBox

APPLY = "git apply --whitespace=nowarn {options} <<'END_OF_PATCH' || exit 1\n{patch}END_OF_PATCH\n"
ONE_COMMIT = (
    'export GIT_COMMITTER_DATE="$(git log -1 --format=%cI)" GIT_COMMITTER_NAME="$(git log -1 --format=%cn)" '
    'GIT_COMMITTER_EMAIL="$(git log -1 --format=%ce)" && git commit -q --all --amend --no-edit && '
    "git reflog expire --expire=now --all && git gc -q --prune=now"
)
_making: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def require_environment(engine: Engine, environment: Environment) -> None:
    """Build the image of an environment again if the engine lacks it. Raises OwedError."""
    with _making[environment.image], owing():
        if engine.images_have(environment.image):
            return
        try:
            again = rebuild(engine, environment)
        except (BuildError, SourceError) as error:
            raise OwedError(_gone(environment.image, str(error)), final=True) from error
        if again.image != environment.image:
            raise OwedError(_gone(environment.image, f"today it is {again.image}, on {again.base_image}"), final=True)


def require_task(engine: Engine, task: Task, gold: str, environment: Environment | None) -> None:
    """Make the image of a task again if the engine lacks it and the run knows its environment. Raises OwedError."""
    if environment is None or engine.images_have(task.image):
        return
    require_environment(engine, environment)
    if task.image != environment.image:
        with _making[task.image]:
            bake(engine, environment, task.image, gold, options="--reverse")


def bake(engine: Engine, environment: Environment, name: str, patch: str, *, options: str = "") -> None:
    """An image whose one commit holds a patch, and no object what was before. Raises OwedError."""
    require_environment(engine, environment)
    script = f"cd /testbed && {{ {APPLY.format(patch=patch, options=options)}}}\n{ONE_COMMIT}"
    with owing(), BuildBox(engine, environment.image) as box:
        done = box.run(f"su agent -s /bin/bash -c {shlex.quote(script)}")
        if done.status:
            raise OwedError(f"The patch of {name} does not go into {environment.image}: {done.text[-300:]}")
        box.commit(name, labels={"agentdata.environment": environment.id})


def _gone(image: str, why: str) -> str:
    return f"The image {image} was removed and cannot be built again ({why}): build the environments anew."
