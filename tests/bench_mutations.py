"""Mutate the sources of real repositories: candidates per second of one core, and the share that compiles.

    python -m tests.bench_mutations REPOSITORY... [--files N] [--peer PYTHON]

The time is CPU time of this process for all candidates of all files, patch text and reverse included; files are read
before. What compiles is measured afterwards, on whole files. With `--peer`, the interpreter of an environment that has
swesmith, its modifiers for Python run over the same files, in one process, with its fast in-memory patches and without
writing any file; a candidate of either is a patch unlike the others.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from agentdata.environments.diffs import apply
from agentdata.environments.mutations import Mutation, candidates, is_mutable
from agentdata.harvest.git import Repository


def sources_of(repository: Path, most: int) -> Iterator[tuple[str, bytes]]:
    """Mutable files of the head of a repository."""
    listed = subprocess.run(
        ["git", "-C", str(repository), "ls-tree", "-r", "HEAD"], capture_output=True, check=True, text=True
    ).stdout
    entries = [line.split(None, 3) for line in listed.splitlines()]
    with Repository(repository) as opened:
        for _, kind, oid, path in [entry for entry in entries if is_mutable(entry[3])][: most or None]:
            if kind == "blob":
                yield path, opened.read(oid)


def compiles(mutation: Mutation, source: bytes) -> bool:
    text = apply(source, [(edit.start, edit.end, edit.new.encode()) for edit in mutation.edits])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, mutation.path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return False
    return True


def bench(name: str, sources: list[tuple[str, bytes]], sample: int) -> None:
    begun = time.process_time()
    found = [(mutation, source) for path, source in sources for mutation in candidates(path, source, seed=1)]
    seconds = time.process_time() - begun
    total, good = Counter[str](), Counter[str]()
    made = Counter(mutation.kinds[0] for mutation, _ in found)
    for mutation, source in found[:: max(len(found) // sample, 1)]:
        total[mutation.kinds[0]] += 1
        good[mutation.kinds[0]] += compiles(mutation, source)
    size = sum(len(source) for _, source in sources)
    print(f"{name}: {len(sources)} files, {size / 1e6:.2f} MB, {len(found)} candidates, {seconds:.1f} s")
    print(
        f"  {len(found) / seconds:.0f} candidates/s/core; {sum(good.values())} of {sum(total.values())} tried compile"
    )
    for kind, count in made.most_common():
        print(f"  {kind:20} {count:7}  {good[kind]}/{total[kind]} compile")


PEER = """
import json, random, sys, time
from pathlib import Path
from swesmith.bug_gen.adapters.python import get_entities_from_file_py
from swesmith.bug_gen.procedural import MAP_EXT_TO_MODIFIERS
from swesmith.bug_gen.utils import generate_patch_fast

root, entities, patches, tried = Path(sys.argv[1]), [], set(), 0
random.seed(1)
begun = time.process_time()
for path in sorted(root.rglob("*.py")):
    get_entities_from_file_py(entities, str(path))
for modifier in MAP_EXT_TO_MODIFIERS[".py"]:
    for entity in entities:
        if modifier.can_change(entity):
            tried += 1
            bug = modifier.modify(entity)
            patches.add(bug and generate_patch_fast(entity, bug, str(root)))
print(json.dumps({"made": len(patches - {None}), "tried": tried, "seconds": time.process_time() - begun}))
"""


def bench_peer(python: str, sources: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for path, source in sources:
            (Path(directory) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(directory) / path).write_bytes(source)
        done = subprocess.run([python, "-c", PEER, directory], capture_output=True, text=True, cwd=directory)
    if done.returncode:
        print(f"  swesmith did not run: {done.stderr.strip().splitlines()[-1]}")
        return
    figures = json.loads(done.stdout.splitlines()[-1])
    made, seconds = figures["made"], figures["seconds"]
    print(
        f"  swesmith: {made} different patches of {figures['tried']} tries, {seconds:.1f} s: {made / seconds:.0f}/s/core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+", type=Path)
    parser.add_argument("--files", type=int, default=0, help="at most so many files of each repository")
    parser.add_argument("--sample", type=int, default=2000, help="compile so many candidates of each repository")
    parser.add_argument("--peer", default="", help="Python of an environment with swesmith")
    options = parser.parse_args()
    for repository in options.repositories:
        sources = list(sources_of(repository, options.files))
        bench(repository.parent.name or repository.name, sources, options.sample)
        if options.peer:
            bench_peer(options.peer, sources)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
