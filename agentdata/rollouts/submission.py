"""What an attempt hands in: the difference of the tree, computed outside of what the policy can change.

The tree before the policy acts is recorded in a repository of our own that belongs to root; afterwards the tree as it
stands is recorded beside it, and both are compared. Of the policy's own repository nothing is read, so commits, a broken
or missing .git, hooks, settings, attributes and ignore rules change nothing, and a repository inside of the tree is files
like others. Everything of the tree is read with the rights of the policy's commands, and git runs nothing of it.

Left out, unless the base tracks them: build products, what the base's .gitignore files name, and new files larger than
MOST_FILE_BYTES.
"""

import re

from sandboxes.errors import SandboxError
from sandboxes.protocol import Sandbox

MOST_FILE_BYTES = 8 << 20
SECONDS = 300.0
PRODUCTS = (
    r"(^|/)(__pycache__|\.pytest_cache|\.mypy_cache|\.ruff_cache|\.hypothesis|\.tox|\.nox|\.eggs|\.venv|node_modules)/"
    r"|(^|/)[^/]*\.(egg-info|dist-info)/|\.py[co]$|(^|/)\.coverage(\.[^/]*)?$"
)
"""What running, testing and installing leave behind."""
FOLDERS = ("build", "dist", "htmlcov")
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
LIST = """
list() {
  find . -name .git -prune -o \\( -type f -o -type l \\) -printf '%P\\0' | sort -z > $work/all
  find . -name .git -prune -o -type f -size +"$most"c -printf '%P\\0' | sort -z > $work/large
  comm -z -12 $work/all $base/known > $work/present
  comm -z -23 $work/all $base/known | comm -z -23 - $work/large | grep -zvE "$(cat $base/products)" > $work/new
  GIT_WORK_TREE=$base/rules git check-ignore --no-index -z --stdin < $work/new | sort -z > $work/ignored
  comm -z -23 $work/new $work/ignored | sort -z - $work/present | comm -z -23 - $work/large > $work/kept
  comm -z -13 $work/all $base/known > $work/gone
}
record() {
  git update-index -z --force-remove --stdin < $work/gone &&
  git update-index -z --add --remove --replace --stdin < $work/kept &&
  git write-tree
}
"""
BEGIN = f"""
set -e
umask 022
base=$(mktemp -d /var/tmp/base.XXXXXXXX); chmod 755 $base
work=$base most={MOST_FILE_BYTES}
theirs="git --git-dir=.git"
git init -q --bare --template= --object-format=$($theirs rev-parse --show-object-format 2> /dev/null || echo sha1) $base/git
mkdir $base/git/info $base/rules
printf '* !text !eol !crlf !ident !filter !working-tree-encoding !diff !whitespace\\n' > $base/git/info/attributes
tree=$($theirs rev-parse -q --verify 'HEAD^{{tree}}' 2> /dev/null || true)
if [ "$tree" ]; then
  echo $tree | GIT_DIR=$base/git GIT_ALTERNATE_OBJECT_DIRECTORIES=$PWD/.git/objects \
    git pack-objects -q --revs --window=0 $base/git/objects/pack/pack > /dev/null
  git --git-dir=$base/git read-tree $tree
fi
git --git-dir=$base/git ls-files -z | sort -z > $base/known
products='{PRODUCTS}'
for folder in {" ".join(FOLDERS)}; do grep -zq "^$folder/" $base/known || products="$products|^$folder/"; done
printf '%s' "$products" > $base/products
grep -zE '(^|/)[.]gitignore$' $base/known | xargs -0r cp -P --parents -t $base/rules
export GIT_DIR=$base/git GIT_WORK_TREE=$PWD
set +e
{LIST}
list
tree=$(record) || exit 9
cat $work/kept $work/present | sort -zu > $work/next && mv $work/next $base/known
rm -f $base/all $base/large $base/present $base/new $base/ignored $base/kept $base/gone
echo $base $tree
"""
COMPARE = "git diff-tree -r -p -M --binary --no-color --no-ext-diff --no-textconv $before $tree"
END = f"""
umask 077
work=$(mktemp -d /var/tmp/diff.XXXXXXXX) || exit 9
most={MOST_FILE_BYTES}
find . -name .git -prune -o -type d ! -perm -u=rx -exec chmod u+rx {{}} \\; 2> /dev/null
find . -name .git -prune -o -type f ! -perm -u=r -exec chmod u+r {{}} + 2> /dev/null
mkdir $work/objects
cp $base/git/index $work/index || exit 9
export GIT_DIR=$base/git GIT_WORK_TREE=$PWD GIT_INDEX_FILE=$work/index
export GIT_OBJECT_DIRECTORY=$work/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=$base/git/objects
{LIST}
list
tree=$(record) || exit 9
{COMPARE} > $work/diff || exit 9
echo $work $tree
"""
AS_BINARY = f"""
git init -q --bare --template= $work/git && mkdir $work/git/info && echo '* -diff' > $work/git/info/attributes || exit 9
export GIT_DIR=$work/git GIT_OBJECT_DIRECTORY=$work/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=$base/git/objects
{COMPARE} > $work/binary || exit 9
echo $work
"""
FILE = re.compile(rb"^(?=diff --git )", re.MULTILINE)


class Baseline:
    """The tree as it was before the policy acted."""

    def __init__(self, sandbox: Sandbox, workdir: str = "/testbed") -> None:
        """Record the tree. Raises SandboxError."""
        self._sandbox = sandbox
        self._workdir = workdir
        self._base, self._tree = self._run(BEGIN, user="0:0").split()

    def diff(self) -> str:
        """The change since then, as `git apply` takes it; files that are not UTF-8 as binary. Raises SandboxError."""
        given = f"base={self._base} before={self._tree}"
        work, tree = self._run(f"{given}\n{END}").split()
        diff = self._sandbox.read(f"{work}/diff")
        if not _is_text(diff):
            self._run(f"{given} work={work} tree={tree}\n{AS_BINARY}")
            diff = as_text(diff, self._sandbox.read(f"{work}/binary"))
        self._sandbox.run(f"rm -rf {work}")
        return diff.decode()

    def _run(self, script: str, user: str = "") -> str:
        result = self._sandbox.run(script, timeout=SECONDS, workdir=self._workdir, user=user, environment=ENVIRONMENT)
        if result.status or not result.output.strip():
            raise SandboxError(
                f"The tree at {self._workdir} cannot be recorded (status {result.status}): {result.text[-300:].strip()}."
                " The image needs git, findutils and coreutils in /usr/bin, and a writable /var/tmp."
            )
        return result.text.splitlines()[-1].strip()


def as_text(diff: bytes, binary: bytes) -> bytes:
    """A diff in which the files that are not UTF-8 are binary patches; `binary` has all files in that form."""
    other = {part.partition(b"\n")[0]: part for part in FILE.split(binary)}
    return b"".join(part if _is_text(part) else other[part.partition(b"\n")[0]] for part in FILE.split(diff))


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
