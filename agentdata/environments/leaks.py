"""Look for the future in an environment: git objects, refs, caches or copies of the project that are not of its commit.

Every object that git can find in /testbed is compared with those that belong to the commit, one by one, by name and not by
reachability, and so are the files of the object store that git does not look at.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from agentdata.environments.declarations import name_of
from agentdata.environments.snapshot import Snapshot, object_ids
from sandboxes.protocol import CommandResult

SEARCH = r"""
set -u
export GIT_NO_REPLACE_OBJECTS=1 GIT_OPTIONAL_LOCKS=0 LC_ALL=C
git() { command git -c safe.directory='*' "$@"; }
everywhere() { find / -xdev \( -path /proc -o -path /sys -o -path "$1" \) -prune -o "${@:2}" -print 2>/dev/null; }
cd /testbed || exit 3
echo '== objects'
git cat-file --batch-all-objects --unordered --batch-check='%(objectname)' || echo unreadable
echo '== store'
find .git/objects -type f | grep -Ev '^.git/objects/([0-9a-f]{2}/[0-9a-f]+|pack/pack-[0-9a-f]+\.(pack|idx|rev|bitmap))$'
for pack in .git/objects/pack/*.pack; do [ ! -e "$pack" ] || [ -e "${pack%.pack}.idx" ] || echo "$pack"; done
echo '== files'
find .git \( -path .git/objects -o -path .git/refs -o -path .git/hooks \) -prune -o ! -type d -print |
  grep -Ev '^.git/(HEAD|config|description|index|shallow|packed-refs|info/exclude)$'
find .git/hooks -type f ! -name '*.sample' 2>/dev/null
echo '== refs'
git for-each-ref --format='%(refname) %(objectname)'
echo "HEAD $(git rev-parse HEAD)"
echo '== shallow'
cat .git/shallow 2>/dev/null
echo '== config'
git config --local --list --name-only
echo '== repositories'
everywhere /testbed/.git \( -name .git -o -name '*.pack' -o -name '*.bundle' \)
everywhere /testbed/.git -type d -path '*/objects/pack'
echo '== caches'
find /root/.cache /home/*/.cache /var/cache/pip /var/cache/uv -type f 2>/dev/null | head -20
echo '== packed'
everywhere /testbed \( -name '*.whl' -o -name '*.egg' -o -name '*.tar.gz' -o -name '*.zip' \)
echo '== installed'
everywhere /testbed/.git \( -name '*.dist-info' -o -name '*.egg-info' \)
echo '== editable'
find /opt/venv -name direct_url.json -exec grep -l '"file:///testbed' {} + 2>/dev/null
echo '== copies'
everywhere /testbed -type f -name '*.py' | grep -E '(-packages|_vendor|vendored|packages)/[^/]+(/__init__)?\.py$'
echo '== end'
"""


class Runs(Protocol):
    """What runs a command as root: a box or a sandbox."""

    def run(self, command: str, *, timeout: float = 120) -> CommandResult: ...


class SearchError(Exception):
    """The search itself did not end; nothing is known."""


def find_leaks(
    box: Runs,
    snapshot: Snapshot,
    *,
    project: str,
    modules: Sequence[str] = (),
    dated: bool = False,
    timeout: float = 300,
) -> list[str]:
    """What is in the container and is not of the commit, a sentence each; empty when all is well.

    `project` is the name of the distribution; `modules` are its import names. `dated`: all of /opt/venv was uploaded
    before the commit, so that copies of the project vendored there are of its past. Raises SearchError.
    """
    done = box.run(SEARCH, timeout=timeout)
    found = _sections(done.text)
    if "end" not in found or done.timed_out or done.cut_bytes:
        raise SearchError(f"the search for leaks ended with status {done.status}: {done.text[-500:]}")
    return [
        *_objects(found["objects"], object_ids(snapshot)),
        *_references(found, snapshot.commit),
        *(f"{path}: not a part of an object store that git reads" for path in found["store"]),
        *(f"{path}: left behind in .git" for path in found["files"]),
        *(f"{path}: another repository or pack of objects" for path in found["repositories"]),
        *(f"{path}: a cached download" for path in found["caches"]),
        *(f"{path}: the project packed" for path in found["packed"] if _is_of(path, name_of(project))),
        *_distributions(found["installed"], found["editable"], name_of(project)),
        *_copies(found["copies"], modules[:2], dated=dated),
    ]


def _sections(output: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("== "):
            lines = sections[line[3:]] = []
        elif sections and line:
            lines.append(line)
    return sections


def _objects(listed: Sequence[str], expected: set[str]) -> list[str]:
    foreign = sorted(set(listed) - expected)
    lost = sorted(expected - set(listed))
    return [
        *(f"{oid}: an object that does not belong to the commit" for oid in foreign),
        *(f"{oid}: an object of the commit is missing" for oid in lost[:1]),
    ]


def _references(found: dict[str, list[str]], commit: str) -> list[str]:
    allowed = re.compile(r"(HEAD|refs/heads/\S+) " + commit)
    foreign = [line for line in found["refs"] if not allowed.fullmatch(line)]
    heads = [line for line in found["refs"] if line.startswith("refs/heads/")]
    settings = [
        key for key in found["config"] if re.match(r"remote\.|branch\.|include|submodule\.|extensions\.partial", key)
    ]
    return [
        *(f"{line}: a reference that does not name the commit" for line in foreign),
        *(f"{line}: one branch too many" for line in heads[1:]),
        *(f"{oid}: a boundary that is not the commit" for oid in found["shallow"] if oid != commit),
        *(f"{key}: a setting that names another repository" for key in settings),
    ]


def _is_of(path: str, project: str) -> bool:
    """Whether a distribution or its metadata is named like the project."""
    return bool(project) and name_of(re.sub(r"-\d.*", "", path.rsplit("/", 1)[-1]).rsplit(".", 1)[0]) == project


def _distributions(paths: Sequence[str], editable: Sequence[str], project: str) -> list[str]:
    """Metadata of the project anywhere but in its tree and in the installation that points to its tree."""
    own = {path.rsplit("/", 1)[0] for path in editable}
    return [
        f"{path}: the project installed apart from its tree"
        for path in paths
        if _is_of(path, project) and path not in own and not path.startswith("/testbed/")
    ]


def _copies(paths: Sequence[str], modules: Sequence[str], *, dated: bool) -> list[str]:
    leaks = []
    for module in modules:
        pattern = re.compile(rf"(-packages|_vendor|vendored|packages)/{re.escape(module)}(/__init__)?\.py$")
        found = [path for path in paths if pattern.search(path)]
        # The module at the top of site-packages is the project itself; deeper it is vendored in something else.
        past = re.compile(rf"/opt/venv/.*-packages/.+/{re.escape(module)}(/__init__)?\.py$")
        leaks += [f"{path}: a copy of the project's code" for path in found if not (dated and past.match(path))]
    return leaks
