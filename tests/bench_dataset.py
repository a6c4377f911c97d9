"""How fast and how small `agentdata dataset build` is beside a plain pyarrow writer on the same rows.

    python tests/bench_dataset.py --rows 100000 --layout grouped --folder /tmp/bench

Rows are conversations of ten turns, 10 kB of text each. `grouped` leaves them as a harvest does, one repository in each
shard; `scattered` mixes 400 repositories in all shards. Each measurement is a process of its own; nothing is kept.
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agentdata.records import NO_PROOF, SCHEMA_VERSION, ChatSample, Manifest, Message, Shard, Table
from agentdata.shards import ShardWriter, arrow_batch, arrow_schema

ROOT = Path(__file__).parent.parent
REPOSITORIES = 400
TURNS = 10
TURN_BYTES = 1000
GROUP_ROWS = 800
SHARD_ROWS = 4000
LINES = [
    line for path in sorted((ROOT / "agentdata").rglob("*.py")) for line in path.read_text().splitlines(keepends=True)
]


def batch(first: int, repositories: list[str], chance: random.Random) -> pa.RecordBatch:
    """Rows that differ in id, repository and all texts."""
    size = len(repositories)
    message = Message(role="assistant", content="", train=True)
    sample = ChatSample(
        id="", kind="contextual", rendering="messages", repo="", snapshot="0" * 40, licence="MIT", languages=("python",),
        tier="L1", policy="direct", tokens=3000, trained_tokens=3000, token_counter="estimate: UTF-8 bytes / 3.5",
        proof=NO_PROOF, generator="bench", messages=(message,) * TURNS, tools="[]", landed_at=1_600_000_000,
    )  # fmt: skip
    rows = arrow_batch([sample] * size, arrow_schema(ChatSample))
    ids = [hashlib.sha256(str(first + number).encode()).hexdigest()[:16] for number in range(size)]
    texts = pa.array(["".join(chance.choices(LINES, k=25))[:TURN_BYTES] for _ in range(size * TURNS)])
    lists = rows.column("messages")
    fields = list(lists.type.value_type)
    parts = [texts if field.name == "content" else lists.values.field(field.name) for field in fields]
    messages = pa.ListArray.from_arrays(lists.offsets, pa.StructArray.from_arrays(parts, fields=fields))
    columns = {"id": pa.array(ids), "repo": pa.array(repositories), "messages": messages}
    return pa.RecordBatch.from_arrays(
        [columns.get(name, rows.column(name)) for name in rows.schema.names], schema=rows.schema
    )


def write_run(run: Path, rows: int, layout: str) -> None:
    """A finished run of generated rows."""
    chance = random.Random(0)
    names = [f"owner{number}/name{number}" for number in range(REPOSITORIES)]
    shards = []
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        path = f"messages/train-{number:05}.parquet"
        writer = ShardWriter(run / path, arrow_schema(ChatSample))
        owner = names[int(start / rows * REPOSITORIES)]
        for first in range(start, min(start + SHARD_ROWS, rows), GROUP_ROWS):
            size = min(GROUP_ROWS, rows - first)
            owners = [owner] * size if layout == "grouped" else chance.choices(names, k=size)
            writer.write_group(pa.Table.from_batches([batch(first, owners, chance)]))
        digest = writer.finish()
        writer.publish()
        shards.append(Shard(path=path, rows=writer.rows, bytes=(run / path).stat().st_size, sha256=digest))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        generator="bench",
        configuration=json.dumps({"generator": "bench", "options": {}}),
        tables=(Table(name="messages", rows=rows, shards=tuple(shards)),),
        counts=(),
        rejections=(),
        tokens=(),
    )
    (run / "manifest.json").write_text(manifest.model_dump_json())


def write_plainly(run: Path, output: Path, *, same: bool) -> None:
    """All rows of a run through one writer: with our options, or zstd and what pyarrow does by itself."""
    manifest = Manifest.model_validate_json((run / "manifest.json").read_bytes())
    options = (
        {
            "compression_level": 3,
            "use_dictionary": False,
            "write_page_index": True,
            "use_content_defined_chunking": True,
        }
        if same
        else {}
    )
    output.mkdir()
    with pq.ParquetWriter(output / "all.parquet", arrow_schema(ChatSample), compression="zstd", **options) as writer:
        for table in manifest.tables:
            for shard in table.shards:
                with pq.ParquetFile(run / shard.path) as file:
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group))


def build(run: Path, output: Path, workers: int) -> None:
    import recipes
    from agentdata.datasets.build import build_dataset

    build_dataset(output, [run], recipes.load_dataset("dataset"), command="bench", workers=workers)


def measured(code: str) -> tuple[float, float]:
    """Seconds and peak megabytes of a process that runs `code`."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom tests.bench_dataset import *\n{code}\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return time.monotonic() - begun, int(done.stdout.split()[-1]) / 1024


def measurements(folder: Path, workers: int) -> Iterator[tuple[str, float, float, int]]:
    run = folder / "run"
    for name, code in (
        ("pyarrow, same options", "write_plainly(Path({run!r}), Path({out!r}), same=True)"),
        ("pyarrow, its own options", "write_plainly(Path({run!r}), Path({out!r}), same=False)"),
        ("agentdata dataset build", f"build(Path({{run!r}}), Path({{out!r}}), {workers})"),
    ):
        out = folder / "out"
        seconds, megabytes = measured(code.format(run=str(run), out=str(out)))
        size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
        shutil.rmtree(out)
        yield name, seconds, megabytes, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--layout", choices=["grouped", "scattered"], default="grouped")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    write_run(options.folder / "run", options.rows, options.layout)
    text = options.rows * TURNS * TURN_BYTES
    print(f"{options.rows:,} rows, {text / 1e9:.1f} GB of text, {options.layout}, {options.workers} workers")
    rates = []
    for name, seconds, megabytes, size in measurements(options.folder, options.workers):
        rates.append(options.rows / seconds)
        print(
            f"{name:26} {seconds:7.1f} s  {text / seconds / 1e6:6.0f} MB/s  {megabytes:6.0f} MB peak  {size / 1e6:7.0f} MB"
        )
    print(
        f"speed beside pyarrow: {rates[-1] / rates[0]:.0%} with the same options, {rates[-1] / rates[1]:.0%} with its own"
    )
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
