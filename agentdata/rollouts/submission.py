"""What an attempt hands in: the difference of the tree, computed outside of what the policy can change.

The tree before the policy acts is recorded in a repository of our own that belongs to root; afterwards the tree as it
stands is recorded beside it, and both are compared. Of the policy's own repository nothing is read, so commits, a broken
or missing .git, hooks, settings, attributes and ignore rules change nothing, and a repository inside of the tree is files
like others. The tree is read with the rights of the policy's commands, and git runs nothing of it.

Left out, unless the base tracks them: build products and what the base's .gitignore files name. Left out in any case:
files larger than MOST_FILE_BYTES, and links to names that are not UTF-8, of which a diff can only be text.
"""

import re
from collections.abc import Iterable

from agentdata.editor import ROOT
from sandboxes.errors import LimitExceeded, SandboxError
from sandboxes.protocol import Sandbox

MOST_FILE_BYTES = 8 << 20
SECONDS = 300.0
PRODUCTS = re.compile(
    rb"(?:^|/)(?:__pycache__|\.(?:pytest|mypy|ruff)_cache|\.hypothesis|\.tox|\.nox|\.eggs|\.venv|node_modules"
    rb"|[^/]*\.(?:egg|dist)-info)/|\.py[co]$|(?:^|/)\.coverage(?:\.[^/]*)?$"
)
"""What running, testing and installing leave behind."""
FOLDERS = (b"build/", b"dist/", b"htmlcov/")
"""Products at the top of the tree, where the base tracks nothing in a folder of that name."""
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
"""Programs of the tree, and settings of the image's users, are not found."""
BEGIN = r"""
set -e
umask 022
base=$(mktemp -d $place/base.XXXXXXXX)
chmod 755 $base
mkdir -p $base/git/objects/pack $base/git/refs $base/git/info $base/rules
echo 'ref: refs/heads/base' > $base/git/HEAD
echo '* !text !eol !crlf !ident !filter !working-tree-encoding !diff !whitespace' > $base/git/info/attributes
tree=$(GIT_DIR=.git git rev-parse -q --verify 'HEAD^{tree}' 2> /dev/null) || true
[ ${#tree} -lt 64 ] || printf '[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = sha256\n' > $base/git/config
export GIT_DIR=$base/git
if [ "$tree" ]; then
  echo $tree | GIT_ALTERNATE_OBJECT_DIRECTORIES=$PWD/.git/objects \
    git pack-objects -q --revs --window=0 $base/git/objects/pack/pack > /dev/null
  git read-tree $tree
fi
work=$base
touch $work/kept $work/gone $work/new
chmod 666 $work/kept $work/gone $work/new
git ls-files -z > $work/known
grep -zE '(^|/)[.]gitignore$' < $work/known | xargs -0r cp -P --parents -t $base/rules
"""
BESIDE = r"""
set -e
umask 077
work=$(mktemp -d $place/work.XXXXXXXX)
mkdir $work/objects
cp -p $base/git/index $work/index
"""
LIST = r"""
find . -name .git -prune -o -type d \( -perm -u=rx -o -exec chmod u+rx {} \; \) \
  -o \( -type f \( -perm -u=r -o -exec chmod u+r {} \; \) -o -type l \) -printf '%s %P\0' > $work/all || true
echo $work
"""
"""What the policy's commands may not read, they may make readable."""
IGNORED = r"""
: > $work/ignored || exit 9
GIT_DIR=$base/git GIT_WORK_TREE=$base/rules git check-ignore --no-index -z --stdin < $work/new > $work/ignored || [ $? = 1 ]
"""
RECORD = r"""
set -e
export GIT_DIR=$base/git GIT_WORK_TREE=$PWD
[ ! -s $work/gone ] || git update-index -z --force-remove --stdin < $work/gone
git update-index -z --add --remove --replace --stdin < $work/kept
"""
"""Files that are as they were recorded last, by the kernel's own time of change, are not read again."""
KEEP = r"""
git write-tree
rm -f $base/all $base/kept $base/gone $base/new $base/known $base/ignored
"""
OBJECTS = r"""
export GIT_INDEX_FILE=$work/index GIT_OBJECT_DIRECTORY=$work/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=$base/git/objects
"""
COMPARE = "git diff-index --cached -p -M --binary --no-color --no-ext-diff --no-textconv $tree > $work/diff"
AS_BINARY = r"""
cp -r $base/git/HEAD $base/git/info $base/git/refs $work && echo '* -diff' > $work/info/attributes
[ ! -e $base/git/config ] || cp $base/git/config $work
export GIT_DIR=$work
"""
FILE = re.compile(rb"^(?=diff --git )", re.MULTILINE)


class Baseline:
    """The tree as it was before the policy acted."""

    def __init__(self, sandbox: Sandbox, workdir: str = ROOT, *, place: str = "/var/tmp") -> None:  # noqa: S108
        """Record the tree; `place` is the folder that the records are kept in. Raises SandboxError."""
        self._sandbox = sandbox
        self._workdir = workdir
        self._place = place
        self._base = self._run(BEGIN + LIST, user="0:0")
        tracked = _paths(self._sandbox.read(f"{self._base}/known"))
        self._known = frozenset(self._choose(self._base, frozenset(tracked), user="0:0"))
        self._tree = self._run(RECORD + KEEP, work=self._base, user="0:0")

    def diff(self) -> str:
        """The change since then, as `git apply` takes it; files that are not UTF-8 as binary.

        Raises SandboxError; LimitExceeded where the policy left no room to work in, or interferes.
        """
        try:
            return self._diff()
        except (OSError, ValueError) as error:
            raise LimitExceeded(
                f"The change of the tree at {self._workdir} cannot be read ({error}): it is too large, or what the"
                " policy left running changes the records."
            ) from error

    def _diff(self) -> str:
        work = self._run(BESIDE + LIST)
        self._choose(work, self._known)
        self._run(OBJECTS + RECORD + COMPARE, work=work)
        diff = self._sandbox.read(f"{work}/diff")
        if not _is_text(diff):
            self._run(OBJECTS + AS_BINARY + COMPARE, work=work)
            diff = as_text(diff, self._sandbox.read(f"{work}/diff"))
        self._run("rm -rf $work", work=work)
        return diff.decode()

    def _choose(self, work: str, known: frozenset[bytes], *, user: str = "") -> list[bytes]:
        """Write down for git which paths are recorded and which are not there any more; those that are recorded."""
        found = dict(_sized(entry) for entry in _paths(self._sandbox.read(f"{work}/all")))
        small = [path for path, size in found.items() if size <= MOST_FILE_BYTES]
        new = [path for path in small if path not in known and not is_product(path, known)]
        if new:
            self._write(f"{work}/new", new)
            self._run(IGNORED, work=work, user=user)
            ignored = set(_paths(self._sandbox.read(f"{work}/ignored")))
            new = [path for path in new if path not in ignored]
        kept = [path for path in small if path in known] + new
        self._write(f"{work}/kept", kept)
        self._write(f"{work}/gone", sorted(known - found.keys()))
        return kept

    def _write(self, path: str, names: Iterable[bytes]) -> None:
        self._sandbox.write(path, b"".join(name + b"\0" for name in names), mode=0)

    def _run(self, script: str, *, work: str = "", user: str = "") -> str:
        given = {
            "place": self._place,
            "base": getattr(self, "_base", ""),
            "tree": getattr(self, "_tree", ""),
            "work": work,
        }
        result = self._sandbox.run(
            script, timeout=SECONDS, workdir=self._workdir, user=user, environment=ENVIRONMENT | given
        )
        if result.status:
            fault = SandboxError if user or result.timed_out else LimitExceeded
            raise fault(
                f"The tree at {self._workdir} cannot be recorded (status {result.status}): {result.text[-300:].strip()}."
                f" The image needs git, findutils and coreutils in /usr/bin, and a writable {self._place}."
            )
        return result.text.strip().rpartition("\n")[2]


def is_product(path: bytes, known: frozenset[bytes]) -> bool:
    """Whether a path is what building or running leaves behind, in a tree that tracks the `known` paths."""
    if PRODUCTS.search(path):
        return True
    return any(path.startswith(top) and not any(one.startswith(top) for one in known) for top in FOLDERS)


def _paths(content: bytes) -> list[bytes]:
    return content.split(b"\0")[:-1]


def _sized(entry: bytes) -> tuple[bytes, int]:
    size, _, path = entry.partition(b" ")
    return path, int(size)


def as_text(diff: bytes, binary: bytes) -> bytes:
    """A diff in which the files that are not UTF-8 are binary patches; `binary` has all files in that form."""
    parts, other = FILE.split(diff), FILE.split(binary)
    if [_header(part) for part in parts] != [_header(part) for part in other]:
        parts = other
    chosen = (part if _is_text(part) else instead for part, instead in zip(parts, other, strict=True))
    return b"".join(part for part in chosen if _is_text(part))


def _header(part: bytes) -> bytes:
    return part.partition(b"\n")[0]


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
