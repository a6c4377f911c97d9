"""Verify a finished run: shards against the manifest, rows against the schema, proofs against the repositories.

Proofs are established by another way than the harvest's where there is one: trees are read by `git ls-tree`, searches
are made by `git grep`.
"""

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.errors import RunError, SourceError
from agentdata.harvest import git
from agentdata.harvest.explore import shown
from agentdata.harvest.replay import File, ReplayError, Workspace, blob_name, compare, digest_of
from agentdata.harvest.show import RENDERINGS
from agentdata.progress import Progress
from agentdata.records import (
    Change,
    Event,
    FileProof,
    HarvestedSource,
    Landing,
    Manifest,
    Record,
    Rejected,
    Shard,
    TaskTally,
    TokenSample,
    Trace,
    Trajectory,
)
from agentdata.shards import arrow_schema, read_manifest, read_table

NAMES = {"read": "reads", "edit": "edits", "search": "searches", "list": "listings"}
TABLES: dict[str, type[Record]] = {
    "sources": HarvestedSource,
    "landings": Landing,
    "changes": Change,
    "traces": Trace,
    "rejected": Rejected,
    "trajectories": Trajectory,
    "tallies": TaskTally,
    "tokens": TokenSample,
    **RENDERINGS,
}


COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def check_run(run: Path, *, share: float) -> None:
    """Check a run and print what was checked. Raises RunError with the number of faults when there are any."""
    manifest = read_manifest(run)
    faults = list(check_shards(run, manifest))
    rows = sum(table.rows for table in manifest.tables)
    print(f"{sum(len(table.shards) for table in manifest.tables)} shards, {rows:,} rows: {len(faults) or 'no'} faults")
    found: list[str] = []
    if not faults:
        checked = Counter[str]()
        found = list(check_proofs(run, share, checked))
        if checked:
            print(", ".join(f"{count:,} {name}" for name, count in checked.items()) + f": {len(found) or 'no'} faults")
    faults += found
    for fault in faults[:20]:
        print(f"  {fault}")
    if faults:
        raise RunError(
            f"{run} has {len(faults)} faults: delete the shards that are named and their markers in units/, and harvest again."
        )


def check_shards(run: Path, manifest: Manifest) -> Iterator[str]:
    """Faults of files: missing, changed, or with another schema."""
    for table in manifest.tables:
        for shard in table.shards:
            fault = _check_shard(run, table.name, shard)
            if fault:
                yield f"{shard.path}: {fault}"


def _check_shard(run: Path, table: str, shard: Shard) -> str:
    path = run / shard.path
    if not path.is_file():
        return "is missing"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            return "has another content than when it was written"
    try:
        with pq.ParquetFile(path) as parquet:
            if parquet.metadata.num_rows != shard.rows:
                return f"has {parquet.metadata.num_rows} rows, not {shard.rows}"
            if table in TABLES and parquet.schema_arrow != arrow_schema(TABLES[table]):
                return "has another schema than its record"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {error}"
    return ""


def check_proofs(run: Path, share: float, checked: Counter[str]) -> Iterator[str]:
    """Faults of traces: a share of them is replayed from the repository, and all their samples must carry their proof."""
    sources: dict[str, list[Path]] = {}
    for source in read_table(run, "sources", HarvestedSource):
        sources.setdefault(source.name, []).append(Path(source.git_dir))
    digests: dict[str, str] = {}
    traces = sum(table.rows for table in read_manifest(run).tables if table.name == "traces")
    with Progress("proving", traces, unit="traces") as progress:
        for trace in read_table(run, "traces", Trace):
            progress.advance(1)
            digests[trace.change_id] = trace.proof.digest
            if int(trace.id, 16) / 16 ** len(trace.id) < share:
                checked["traces replayed"] += 1
                fault = _prove_somewhere(trace, sources.get(trace.repo, []), checked)
                if fault:
                    yield f"trace {trace.id} of {trace.repo}: {fault}"
    for name, record in RENDERINGS.items():
        for sample in read_table(run, name, record):
            checked["samples"] += 1
            if sample.kind == "contextual" and digests.get(sample.change_id) != sample.proof.digest:
                yield f"sample {sample.id} of {sample.repo} carries a proof that no trace has"


def _prove_somewhere(trace: Trace, git_dirs: list[Path], checked: Counter[str]) -> str:
    """Replay a trace from the repository of its name, or from one of those; the fault, or an empty string."""
    fault = "its repository is not in the table `sources`"
    for git_dir in git_dirs:
        try:
            prove_again(trace, git_dir, checked)
        except (ReplayError, SourceError, ValueError) as error:  # A forged event may say anything.
            fault = str(error)
        else:
            return ""
    return fault


def prove_again(trace: Trace, git_dir: Path, checked: Counter[str]) -> None:
    """Replay one trace from the repository itself. Raises ReplayError or SourceError."""
    proof = trace.proof
    if digest_of(trace.events) != proof.digest:
        raise ReplayError("replay-digest", "its events are not those that were proved")
    if not (COMMIT.fullmatch(proof.snapshot) and COMMIT.fullmatch(proof.head)):
        raise ReplayError("replay-state", "its proof names no commits")
    with git.Repository(git_dir) as repository:
        snapshot, head = (_reader(repository, commit) for commit in (proof.snapshot, proof.head))
        for file in proof.files:
            _check_file(file, snapshot, head)
        workspace = Workspace(snapshot)
        for event in trace.events:
            if event.kind in ("read", "edit", "search", "list"):
                checked[NAMES[event.kind]] += 1
            if event.kind == "read":
                workspace.check_read(event)
            elif event.kind == "edit":
                workspace.apply(event)
            elif event.kind == "search":
                _check_output(event, _grep(git_dir, proof.snapshot, event))
            elif event.kind == "list":
                _check_output(event, _list(git_dir, proof.snapshot, event))
        compare(workspace.files, snapshot, proof.files)


def _reader(repository: git.Repository, commit: str) -> Callable[[str], File | None]:
    def read(path: str) -> File | None:
        listed = git.run(repository.git_dir, "ls-tree", "-z", commit, "--", path)
        if not listed:
            return None
        mode, kind, oid = listed.split(b"\t")[0].decode().split()
        return File.read(mode, repository.read(oid)) if kind == "blob" else None

    return read


def _check_file(file: FileProof, snapshot: Callable[[str], File | None], head: Callable[[str], File | None]) -> None:
    """The states that a proof names are those of the trees."""
    for path, mode, blob, read in (
        (file.before_path, file.before_mode, file.before_blob, snapshot),
        (file.after_path, file.after_mode, file.after_blob, head),
    ):
        if path:
            there = read(path)
            if there is None or (there.mode, blob_name(there.content, len(blob))) != (mode, blob):
                raise ReplayError("replay-state", f"{path} is not the file that the proof names")


def _check_output(event: Event, output: bytes) -> None:
    if shown(output) != event.text:
        raise ReplayError("replay-output", f"{event.command!r} prints something else")


def _grep(git_dir: Path, commit: str, event: Event) -> bytes:
    """What a search prints, by `git grep` over the snapshot's tree."""
    # A run may come from strangers: only a search of the one known form is made, never what else git grep can do.
    searched, _, cut = event.command.partition(" | head -n ")
    words = shlex.split(searched)
    if (
        words[:5] != ["git", "grep", "-n", "-I", "-w"]
        or not re.fullmatch(r"\w+", words[5])
        or words[6] != "--"
        or not cut.isdigit()
    ):
        raise ReplayError("replay-output", f"{event.command!r} is no search that a harvest makes")
    command = git.command(git_dir, "grep", *words[2:6], commit, *words[6:])
    command.remove("--literal-pathspecs")
    lines = git.output(command).split(b"\n")[:-1][: int(cut)]
    prefix = commit.encode() + b":"
    return b"".join(_unprefixed(line, prefix) + b"\n" for line in lines)


def _unprefixed(line: bytes, prefix: bytes) -> bytes:
    return b'"' + line[1 + len(prefix) :] if line.startswith(b'"' + prefix) else line.removeprefix(prefix)


def _list(git_dir: Path, commit: str, event: Event) -> bytes:
    """What a listing prints, by `git ls-tree`."""
    found = re.search(r"-maxdepth (\d+)", event.command)
    depth = int(found[1]) if found else 1
    lines = b"\n".join([b".", *_names(git_dir, commit, depth, b"./")]).split(b"\n")
    return b"\n".join(sorted(lines)) + b"\n"


def _names(git_dir: Path, tree: str, depth: int, prefix: bytes) -> Iterator[bytes]:
    for line in git.run(git_dir, "ls-tree", "-z", tree).split(b"\0")[:-1]:
        head, _, name = line.partition(b"\t")
        _, kind, oid = head.decode().split()
        if not name.startswith(b"."):
            yield prefix + name
            if kind == "tree" and depth > 1:
                yield from _names(git_dir, oid, depth - 1, prefix + name + b"/")
