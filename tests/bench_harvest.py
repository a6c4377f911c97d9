"""Harvest real repositories and compare with the floors, in one run on one machine: ratios of CPU time, wall beside it.

    python -m tests.bench_harvest REPOSITORY... [--limit N] [--policy direct|explore]

Floors, each measured over exactly what the harvest used:
  git     `git diff-tree --stdin -r -M --raw` over the commits that were compared, and `git cat-file --batch` over the
          blobs, before and after, of the changes that were kept; output drained, nothing parsed
  patch   `git diff-tree -p` over the kept changes' commits (not part of the git floor; shown beside it)
  parse   one tree-sitter parse of each distinct source text at the snapshots
  write   `pyarrow` from Python rows to the same Parquet tables
Every measurement runs in a process of its own, so that peak memory is its own too.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import recipes
from agentdata.harvest import git
from agentdata.harvest.languages import language_of, parse
from agentdata.harvest.run import HarvestOptions, harvest
from agentdata.records import Change, HarvestedSource, Landing, RepoSource
from agentdata.shards import read_rows, read_table

OVERRIDES = ("filters.excluded_repositories=[]", "filters.excluded_roots=[]", "renderings=[markdown,xml,messages]")
Figures = dict[str, float]


def measured(work: Callable[..., dict[str, float] | None], *arguments: object) -> Figures:
    """Run work in a fresh process: CPU seconds (own and of its git processes), wall seconds, peak MB, and its counts."""
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_measure, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        figures: Figures = receiver.recv()
    except EOFError:
        sys.exit(f"{work.__name__} failed")
    process.join()
    return figures


def _measure(sender: Any, work: Callable[..., dict[str, float] | None], arguments: tuple[object, ...]) -> None:
    begun, before = time.perf_counter(), _cpu()
    counts = work(*arguments) or {}
    figures = {"wall": time.perf_counter() - begun, "cpu": _cpu() - before, "mb": _peak_mb(), **counts}
    sender.send(figures)


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mb() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def run_harvest(repository: str, run: str, stage: str, policy: str, limit: int, workers: int) -> Figures:
    """The whole command, as a user runs it."""
    recipe = recipes.load_harvest("contextual", [*OVERRIDES, f"exploration.policy={policy}"])
    options = HarvestOptions(stage=stage, limit=limit)
    source = RepoSource(name=Path(repository).name, location=repository)
    outcome = harvest(Path(run), [source], recipe, options, workers=workers)
    assert outcome.manifest is not None
    return {count.name: count.count for count in (*outcome.manifest.counts, *outcome.manifest.rejections)}


def git_floor(git_dir: str, pairs: list[tuple[str, str]], blobs: list[str]) -> None:
    """Raw differences and blobs, drained."""
    _drain(git_dir, [f"{after} {before}" for before, after in pairs], "diff-tree", "--stdin", "-r", "-M", "--raw")
    _drain(git_dir, blobs, "cat-file", "--batch", "--buffer")


def patch_floor(git_dir: str, pairs: list[tuple[str, str]]) -> None:
    """Patches, drained."""
    _drain(git_dir, [f"{after} {before}" for before, after in pairs], "diff-tree", "--stdin", "-r", "-M", "-p")


def _drain(git_dir: str, lines: list[str], *arguments: str) -> None:
    with tempfile.TemporaryFile() as requests:
        requests.write("".join(f"{line}\n" for line in lines).encode())
        requests.seek(0)
        process = subprocess.Popen(["git", f"--git-dir={git_dir}", *arguments], stdin=requests, stdout=subprocess.PIPE)
        assert process.stdout is not None
        buffer = bytearray(1 << 20)
        while process.stdout.readinto(buffer):  # type: ignore[attr-defined]
            pass
        process.wait()


def parse_floor(texts: str) -> Figures:
    """One parse of each text of a Parquet file of (path, content)."""
    rows = [(language_of(row["path"]), row["content"]) for row in pq.read_table(texts).to_pylist()]
    for suffix in {language.suffixes[0] for language, _ in rows if language}:
        parse(language_of(f"x{suffix}"), b"")  # type: ignore[arg-type]
    begun = time.process_time()
    for language, content in rows:
        if language is not None:
            parse(language, content)
    return {"parse": time.process_time() - begun, "texts": len(rows), "bytes": sum(len(row[1]) for row in rows)}


def write_floor(run: str, out: str) -> Figures:
    """All rows of all tables, from Python objects to Parquet."""
    spent = 0.0
    pa.array([])  # Loads pandas where it is installed, which is not writing.
    for path in sorted(Path(run).glob("*/*.parquet")):
        table = pq.read_table(path)
        rows, schema = table.to_pylist(), table.schema
        begun = time.process_time()
        with pq.ParquetWriter(Path(out) / path.name, schema, compression="zstd", compression_level=3) as writer:
            for start in range(0, len(rows), 512):
                writer.write_table(pa.Table.from_pylist(rows[start : start + 512], schema=schema))
        spent += time.process_time() - begun
    return {"write": spent}


def used(run: Path, git_dir: Path, texts: Path) -> tuple[list[tuple[str, str]], list[str], list[tuple[str, str]], int]:
    """What the harvest read: compared pairs, blobs, the kept changes' pairs; writes the distinct source texts."""
    landings = list(read_table(run, "landings", Landing))
    compared: list[tuple[str, str]] = []
    for landing in landings:
        before = landing.snapshot
        for commit in landing.commits:
            if before:
                compared.append((before, commit))
            before = commit
    pairs, blobs, sources = [], {}, {}
    changes = 0
    for change in read_table(run, "changes", Change):
        changes += 1
        before = change.snapshot
        for commit in change.commits:
            pairs.append((before, commit.sha))
            before = commit.sha
            for edit in commit.edits:
                blobs.update({edit.old_blob: None, edit.new_blob: None})
        for file in change.files:
            if language_of(file.path) is not None:
                sources[file.blob] = file.path
    with git.Repository(git_dir) as repository:
        contents = repository.contents(list(sources))
        rows = [{"path": sources[blob], "content": content} for blob, content in contents]
    pq.write_table(pa.Table.from_pylist(rows), texts)
    return compared, [blob for blob in blobs if blob], pairs, changes


def bench(repository: str, policy: str, limit: int, work: Path) -> Iterator[tuple[str, str]]:
    """Measure one repository; yields (name, figure) rows."""
    run, second, changes_run = (work / name for name in ("run", "run2", "changes"))
    whole = measured(run_harvest, repository, str(run), "contextual", policy, limit, 1)
    alone = measured(run_harvest, repository, str(changes_run), "changes", policy, limit, 1)
    both = measured(run_harvest, repository, str(second), "contextual", policy, limit, 2)
    source = next(row for path in (run / "sources").iterdir() for row in read_rows(path, HarvestedSource))
    compared, blobs, pairs, changes = used(run, Path(source.git_dir), work / "texts.parquet")
    floor = measured(git_floor, source.git_dir, compared, blobs)
    patch = measured(patch_floor, source.git_dir, pairs)
    parsed = measured(parse_floor, str(work / "texts.parquet"))
    (work / "out").mkdir()
    written = measured(write_floor, str(run), str(work / "out"))
    written_changes = measured(write_floor, str(changes_run), str(work / "out"))
    floors = floor["cpu"] + parsed["parse"] + written["write"]
    traces = whole.get("traces", 0)
    yield (
        "landings / changes / proved",
        f"{source.landings} / {changes} / {traces:.0f} ({traces / max(changes, 1):.2%})",
    )
    yield (
        "floors: git, patch, parse, write (CPU s)",
        ", ".join(f"{value:.2f}" for value in (floor["cpu"], patch["cpu"], parsed["parse"], written["write"])),
    )
    yield "changes, CPU s (wall s)", f"{alone['cpu']:.2f} ({alone['wall']:.2f})"
    yield "changes / git floor", f"{alone['cpu'] / floor['cpu']:.2f}"
    changes_floor = floor["cpu"] + patch["cpu"] + written_changes["write"]
    yield "changes / (git + patch + write of changes)", f"{alone['cpu'] / changes_floor:.2f}"
    yield "contextual, CPU s (wall s)", f"{whole['cpu']:.2f} ({whole['wall']:.2f})"
    yield "contextual / (git + parse + write)", f"{whole['cpu'] / floors:.2f}"
    yield "contextual, CPU ms per change", f"{1000 * whole['cpu'] / max(changes, 1):.2f}"
    yield "two processes, speed-up of wall", f"{whole['wall'] / both['wall']:.2f}"
    yield "peak MB of one process (contextual, changes)", f"{whole['mb']:.0f}, {alone['mb']:.0f}"
    rejected = {
        name: int(count)
        for name, count in whole.items()
        if name.split("/")[0] in ("traces", "markdown", "xml", "messages") and "/" in name
    }
    yield "not proved, too long", json.dumps(rejected)


def main() -> None:
    """Measure the repositories given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--policy", choices=("direct", "explore"), default="direct")
    options = parser.parse_args()
    for repository in options.repositories:
        work = Path(tempfile.mkdtemp(prefix="bench-"))
        print(f"\n{repository} ({options.policy}, limit {options.limit or 'none'})", flush=True)
        try:
            for name, figure in bench(repository, options.policy, options.limit, work):
                print(f"  {name:<46} {figure}", flush=True)
        finally:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
