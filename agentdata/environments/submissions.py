"""A submission to what is put into the tree that is graded, and what is left out of it.

Left out are changes to tests, to test infrastructure, and to what leads out of the tree; each is named as tampering.
What the gold patch itself changes is treated so:

- Infrastructure (conftest.py, pytest.ini, tox.ini, ...): gold's version is put in place, whatever the submission has.
  Sweeps do the same before they measure, so that a task which that alone would solve is never made.
- pyproject.toml and setup.cfg: the tables that steer tests are gold's, the rest is the submission's. Where the two cannot
  be told apart by parsing, the whole file is gold's (or the base's, where gold does not change it).
- Anything else that looks like a test, a plugin or a shadowing module: gold shows that here it is source, and so the
  submission's version counts. Files of the test patch are never the submission's.
"""

import base64
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agentdata.environments import patches
from agentdata.environments.patches import FilePatch, Kind
from sandboxes.errors import SandboxError
from sandboxes.protocol import Sandbox

GIT_SETTINGS = (
    "export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'"
    " GIT_CONFIG_KEY_1=core.hooksPath GIT_CONFIG_VALUE_1=/dev/null"
)
APPLY = ("git apply --verbose", "git apply --verbose --3way", "git apply --verbose --reject")
FUZZY = "patch --batch --forward --fuzz=5 -p1 -i"
"""The order of SWE-bench's harness, so that what applies there applies here."""
DOES_NOT_APPLY, TESTS_DO_NOT_APPLY = 71, 72
"""Exit statuses of the script."""
PATCHED = re.compile(r"^patching (?:file|symbolic link) (.+?)(?: \([^()]*\))?$")
COUNTED = re.compile(r"^(?:\d+|-)\t(?:\d+|-)\t(.+)$")


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a submission is applied."""

    diff: str
    """What is left of the submission; the submission itself if nothing was left out."""
    infrastructure: str
    """Gold's changes to test infrastructure, applied after it."""
    files: tuple[tuple[str, str], ...]
    """Configuration files that are written as given."""
    removed: tuple[str, ...]
    """Configuration files that are to go."""
    expected: frozenset[str]
    """Every path that `diff` may touch."""
    tampering: tuple[str, ...]
    """`kind: path` of what was left out."""
    readable: bool
    """Whether the submission is a diff at all, and stays in the tree."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the submission is left."""
        return not self.diff.strip() and not self.files and not self.removed


def make_plan(sandbox: Sandbox, submission: str, test_patch: str, gold: str) -> Plan:
    """Decide about each file of a submission. Asks the sandbox only where the base's files decide."""
    files, golden = patches.split(submission), patches.split(gold)
    tests = set(patches.paths(test_patch))
    gold_paths = {name for patch in golden for name in patch.names}
    kinds = {patch: _kind(sandbox, patch, tests, gold_paths) for patch in files}
    settings = _settle(sandbox, [patch for patch in files if kinds[patch] == "configuration"], golden)
    kept = [patch for patch in files if kinds[patch] == "source"]
    left_out = [patch for patch in files if kinds[patch] != "source"]
    tampering = [
        f"{kinds[patch]}: {patch.path}"
        for patch in left_out
        if kinds[patch] != "configuration" and (kinds[patch] != "infrastructure" or patch.path not in gold_paths)
    ]
    infrastructure = [patch for patch in golden if patches.kind_of(patch) == "infrastructure"]
    return Plan(
        diff=patches.join(kept) if left_out else submission,
        infrastructure=patches.join(infrastructure),
        files=tuple((path, text) for path, text in settings.texts.items() if text is not None),
        removed=tuple(path for path, text in settings.texts.items() if text is None),
        expected=frozenset(name for patch in kept for name in patch.names),
        tampering=tuple(sorted({*tampering, *settings.tampering})),
        readable=bool(files) and "outside" not in kinds.values() and settings.applies,
    )


def _kind(sandbox: Sandbox, patch: FilePatch, tests: set[str], gold_paths: set[str]) -> Kind:
    kind = patches.kind_of(patch)
    if kind in ("outside", "symlink", "source", "configuration"):
        return "test" if kind != "outside" and tests.intersection(patch.names) else kind
    if tests.intersection(patch.names):
        return "test"
    if kind != "infrastructure" and gold_paths.issuperset(patch.names):
        return "source"
    if kind == "shadow" and _exists(sandbox, patches.shadow_root(patch.path)):
        return "source"
    return kind


def _exists(sandbox: Sandbox, path: str) -> bool:
    return _ask(sandbox, f"git cat-file -e HEAD:{shlex.quote(path)} 2>/dev/null && echo yes || echo no") == "yes\n"


def _ask(sandbox: Sandbox, command: str) -> str:
    result = sandbox.run(f"{GIT_SETTINGS}; {command}", workdir="/testbed")
    if result.status:
        raise SandboxError(f"`{command[:80]}` failed in /testbed: {result.text[-300:]}. Build the task's image again.")
    return result.text


# Configuration files


@dataclass(frozen=True, slots=True)
class _Settings:
    texts: dict[str, str | None]
    tampering: list[str]
    applies: bool


def _settle(sandbox: Sandbox, submitted: list[FilePatch], golden: tuple[FilePatch, ...]) -> _Settings:
    """The text that each configuration file is to have."""
    gold = {patch.path: patch for patch in golden if patches.kind_of(patch) == "configuration"}
    ours = {patch.path: patch for patch in submitted}
    settings = _Settings({}, [], True)
    for path in sorted(gold.keys() | ours.keys()):
        base = _base_text(sandbox, path)
        try:
            reference = _after(path, base, gold[path]) if path in gold else base
            wanted = _after(path, base, ours[path]) if path in ours else base
        except ValueError:
            return _Settings({}, [], False)
        merged = patches.with_test_tables_of(reference, wanted, path) if wanted is not None else None
        text = reference if merged is None else merged
        if path in ours and text != wanted and (path not in gold or wanted != reference):
            settings.tampering.append(f"configuration: {path}")
        if text != base:
            settings.texts[path] = text
    return settings


def _base_text(sandbox: Sandbox, path: str) -> str | None:
    quoted = shlex.quote(path)
    command = f"if git cat-file -e HEAD:{quoted} 2>/dev/null; then echo =; git show HEAD:{quoted} | base64; fi"
    output = _ask(sandbox, command)
    return base64.b64decode(output[2:]).decode("utf-8", "surrogateescape") if output else None


def _after(path: str, base: str | None, patch: FilePatch) -> str | None:
    """The file after a patch, None where it is deleted. Raises ValueError where the patch does not apply."""
    with tempfile.TemporaryDirectory() as folder:
        file, diff = Path(folder, path), Path(folder, ".diff")
        file.parent.mkdir(parents=True, exist_ok=True)
        if base is not None:
            file.write_bytes(base.encode("utf-8", "surrogateescape"))
        diff.write_bytes(patch.text.encode("utf-8", "surrogateescape"))
        done = subprocess.run(["git", "apply", str(diff)], cwd=folder, capture_output=True, check=False)
        if done.returncode or file.is_symlink():
            raise ValueError(path)
        return file.read_bytes().decode("utf-8", "surrogateescape") if file.is_file() else None


# The script


def preparing(plan: Plan, test_patch: str) -> str:
    """Bash, for the root of the tree: apply the plan, put the infrastructure and the tests in place.

    Says what it touched (`git apply --numstat` and `patch` do), and exits with DOES_NOT_APPLY or TESTS_DO_NOT_APPLY.
    """
    parts = [GIT_SETTINGS, "folder=$(mktemp -d)"]
    if plan.diff.strip():
        parts += [_keep("submission", plan.diff), _applying()]
    for path in plan.removed:
        parts.append(f"rm -f -- {shlex.quote(path)}")
    for path, text in plan.files:
        parts.append(put(path, text.encode("utf-8", "surrogateescape")))
    if plan.infrastructure:
        parts += [_keep("infrastructure", plan.infrastructure), _or_exit("$folder/infrastructure")]
    for path in patches.paths(test_patch):
        place = shlex.quote(path)
        parts.append(f"git checkout -q HEAD -- {place} 2>/dev/null || rm -rf -- {place}")
    if test_patch.strip():
        parts += [_keep("tests", test_patch), _or_exit("$folder/tests")]
    return "\n".join([*parts, "rm -rf $folder"])


def put(path: str, content: bytes) -> str:
    """Shell that writes a file in the tree, and exits with status 9 where something is in the way."""
    place, folder = shlex.quote(path), shlex.quote(str(Path(path).parent))
    encoded = base64.encodebytes(content).decode()
    return f"mkdir -p {folder} && rm -f {place} && base64 -d > {place} <<'END' || exit 9\n{encoded}END"


def _keep(name: str, diff: str) -> str:
    encoded = base64.encodebytes(diff.encode("utf-8", "surrogateescape")).decode()
    return f"base64 -d > $folder/{name} <<'END'\n{encoded}END"


def _applying() -> str:
    """Like the harness: each way in turn, from a clean tree; then whether it is there already."""
    ways = " ".join(shlex.quote(way) for way in (*APPLY, FUZZY))
    return f"""
echo == counted
git apply --numstat $folder/submission 2>/dev/null
echo == applied
applied=; again=
for way in {ways}; do
  [ -n "$again" ] && {{ git checkout -q -- . ; git clean -fdq; }}
  again=1
  if $way $folder/submission; then applied=1; break; fi
done
[ -n "$applied" ] || git apply --check --reverse $folder/submission || exit {DOES_NOT_APPLY}
echo == placed"""


def _or_exit(file: str) -> str:
    return f"git apply {file} || git apply --3way {file} || {FUZZY} {file} || exit {TESTS_DO_NOT_APPLY}"


def hidden_paths(plan: Plan, output: str) -> tuple[str, ...]:
    """Paths that the tools found in a submission and we did not: a diff that two readers read in two ways."""
    counted, _, rest = output.partition("== counted\n")[2].partition("== applied\n")
    applied = rest.partition("== placed\n")[0]
    found = [match[1] for line in counted.splitlines() if (match := COUNTED.match(line))]
    fuzzy = [match[1].strip("'") for line in applied.splitlines() if (match := PATCHED.match(line))]
    names = {patches.unquoted(name) for name in (*found, *fuzzy)}
    return tuple(sorted(name for name in names if name not in plan.expected))
