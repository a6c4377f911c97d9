"""What a policy hands in: the difference of the tree, computed by us, whatever it did to the repository.

The tree is recorded in a repository of our own before the policy acts and after it, under /root, where its commands
reach nothing: so commits, a broken or deleted .git, hooks, filters and ignore rules of the policy change nothing. Left out
are build products, and what the base's own rules ignore, unless the base tracks it.
"""

from sandboxes.errors import SandboxError
from sandboxes.protocol import Sandbox

PLACE = "/root/.agentdata-base"
PRODUCTS = (
    r"(^|/)(__pycache__|\.pytest_cache|\.mypy_cache|\.ruff_cache|\.hypothesis|\.tox|\.nox|\.eggs|node_modules|htmlcov)/"
    r"|(^|/)[^/]*\.(egg-info|dist-info)/|\.(pyc|pyo|orig|rej)$|^(build|dist)/|(^|/)\.coverage(\.[^/]*)?$"
)
"""Paths that tools leave behind."""
ATTRIBUTES = "* -text -ident -filter -working-tree-encoding !eol !merge {diff}"
"""Stronger than any .gitattributes of the tree: bytes are recorded as they are."""
SETTINGS = f"""
export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_LITERAL_PATHSPECS=1 LC_ALL=C
export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
export GIT_CONFIG_KEY_1=core.hooksPath GIT_CONFIG_VALUE_1=/dev/null GIT_CONFIG_KEY_2=advice.addEmbeddedRepo GIT_CONFIG_VALUE_2=false
place={PLACE}
ours() {{ git --git-dir=$place/git --work-tree=/testbed -c core.bare=false -c core.fsmonitor=false "$@"; }}
record() {{ ours add -A -f --ignore-errors . 2>$place/complaints || true; }}
"""
BEGIN = f"""{SETTINGS}
set -e
cd /testbed
mkdir -m 700 $place $place/ignored
git ls-files -z 2>/dev/null | sort -z > $place/tracked || true
grep -zE '(^|/)\\.gitignore$' $place/tracked | xargs -0 -r cp --parents -t $place/ignored
git init -q --bare $place/git
echo '{ATTRIBUTES.format(diff="!diff")}' > $place/git/info/attributes
record
ours write-tree
"""
FREE = """
find /testbed -mindepth 2 -name .git -prune -exec rm -rf {} + 2>/dev/null
chmod -R u+rwX,go+rX /testbed 2>/dev/null
true
"""
"""Run with the policy's own rights: repositories inside of the tree would hide their files, closed files are unreadable."""
END = f"""{SETTINGS}
cd /testbed
record
ours diff --cached --name-only --no-renames -z $base > $place/changed || exit 9
( cd $place/ignored && git --git-dir=$place/git --work-tree=. -c core.bare=false check-ignore --no-index -z --stdin < $place/changed )\
 > $place/dropped
grep -zE '{PRODUCTS}' $place/changed >> $place/dropped
sort -zu $place/dropped | comm -z -23 - $place/tracked > $place/left-out
if [ -s $place/left-out ]; then
  ours reset -q $base --pathspec-from-file=$place/left-out --pathspec-file-nul > /dev/null || exit 9
fi
file=$(mktemp) && chmod 644 $file || exit 9
ours diff --cached --binary --no-color --no-ext-diff --no-textconv -M $base > $file || exit 9
if ! iconv -f utf-8 -t utf-8 $file > /dev/null 2>&1; then
  echo '{ATTRIBUTES.format(diff="-diff")}' > $place/git/info/attributes
  ours diff --cached --binary --no-color --no-ext-diff --no-textconv -M $base > $file || exit 9
fi
echo $file
"""
SECONDS = 300.0


class Baseline:
    """The tree at /testbed before the policy acts. Raises SandboxError."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._base = self._ours(BEGIN)

    def diff(self) -> str:
        """What was changed since, as `git apply` takes it; text that is not UTF-8 as a binary patch. Raises SandboxError."""
        self._sandbox.run(FREE, timeout=SECONDS)
        file = self._ours(f"base={self._base}\n{END}")
        return self._sandbox.read(file).decode()

    def _ours(self, script: str) -> str:
        """Run as root, without any capability: the policy's commands cannot reach what it keeps."""
        result = self._sandbox.run(script, timeout=SECONDS, user="0:0", workdir="/")
        if result.status or not result.text.strip():
            raise SandboxError(
                f"The tree at /testbed cannot be recorded (status {result.status}): {result.text[-300:].strip()}. The image "
                "needs git, coreutils and a writable /root."
            )
        return result.text.split()[-1]
