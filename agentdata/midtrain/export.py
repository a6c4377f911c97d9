"""Packed rows to the files of others: Parquet, OLMo-core, torchtitan.

DIR/parquet/*.parquet      input_ids, loss_mask, position_ids and seq_lengths of each row
DIR/olmo-core/             ids and boolean masks as flat arrays without a header, and the dataset that reads them
DIR/torchtitan/            a configuration for the data loader in `agentdata.midtrain.titan`
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from agentdata.errors import explain_os_error
from agentdata.midtrain.packed import PackedRows, PackedShard
from agentdata.shards import write_whole

BATCH_ROWS = 16

OLMO_CONFIG = Template('''"""The packed rows as a dataset of OLMo-core: every row is one instance of $length tokens."""

from pathlib import Path

from olmo_core.data import NumpyDatasetDType, NumpyFSLDatasetConfig, TokenizerConfig

HERE = Path(__file__).parent

dataset = NumpyFSLDatasetConfig(
    tokenizer=TokenizerConfig(vocab_size=$vocabulary, eos_token_id=$end, pad_token_id=$pad),
    paths=[str(HERE / name) for name in $paths],
    label_mask_paths=[str(HERE / name) for name in $masks],
    dtype=NumpyDatasetDType.$dtype,
    sequence_length=$length,
    generate_doc_lengths=$generate,
)
''')

TITAN_CONFIG = Template('''"""The packed rows for a configuration of torchtitan: `config.dataloader = dataloader`."""

from agentdata.midtrain.titan import PackedDataLoader

dataloader = PackedDataLoader.Config(folder=$folder)
row_length = $length
"""What `config.training.seq_len` must be."""
''')


def export_rows(folder: Path, name: str) -> Path:
    """Write a finished packing in another form below its directory: parquet, olmo-core or torchtitan."""
    write = {"parquet": _write_parquet, "olmo-core": _write_olmo, "torchtitan": _write_titan}[name]
    target = folder / name
    try:
        target.mkdir(exist_ok=True)
        write(PackedRows(folder), target)
    except OSError as error:
        raise explain_os_error(error, f"writing {target}") from error
    return target


def _shards(rows: PackedRows) -> Iterator[tuple[PackedShard, range]]:
    first = 0
    for shard in rows.manifest.shards:
        yield shard, range(first, first + shard.rows)
        first += shard.rows


def _write_parquet(rows: PackedRows, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.from_numpy_dtype(np.dtype(rows.manifest.id_type))
    positions = pa.from_numpy_dtype(np.dtype(rows.manifest.position_type))
    kinds = {"input_ids": ids, "loss_mask": pa.bool_(), "position_ids": positions, "seq_lengths": pa.int32()}
    schema = pa.schema([pa.field(name, pa.list_(kind)) for name, kind in kinds.items()])
    for shard, numbers in _shards(rows):
        path = target / f"{shard.name}.parquet"
        unfinished = path.with_suffix(".tmp")
        with pq.ParquetWriter(
            unfinished, schema, compression="zstd", compression_level=3, use_dictionary=False
        ) as writer:
            for first in range(numbers.start, numbers.stop, BATCH_ROWS):
                taken = [rows[number] for number in range(first, min(first + BATCH_ROWS, numbers.stop))]
                columns: Sequence[Any] = (
                    [row.ids for row in taken],
                    [row.train for row in taken],
                    [row.positions for row in taken],
                    [np.diff(row.starts) for row in taken],
                )
                arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        unfinished.replace(path)


def _write_olmo(rows: PackedRows, target: Path) -> None:
    names = [shard.name for shard in rows.manifest.shards]
    for name in names:
        # OLMo-core maps flat arrays: the files of the packing are what it reads, under other names.
        _link(rows.folder / "rows" / f"{name}.ids", target / f"{name}.npy")
        _link(rows.folder / "rows" / f"{name}.train", target / f"{name}.mask.npy")
    manifest = rows.manifest
    text = OLMO_CONFIG.substitute(
        length=manifest.row_length,
        vocabulary=manifest.vocabulary,
        end=max(manifest.end_id, 0),
        dtype=np.dtype(manifest.id_type).name,
        pad=manifest.pad_id,
        paths=json.dumps([f"{name}.npy" for name in names]),
        masks=json.dumps([f"{name}.mask.npy" for name in names]),
        generate=manifest.end_id >= 0,
    )
    write_whole(target / "dataset.py", text)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    os.link(source, target)


def _write_titan(rows: PackedRows, target: Path) -> None:
    text = TITAN_CONFIG.substitute(folder=repr(str(rows.folder.resolve())), length=rows.manifest.row_length)
    write_whole(target / "dataloader.py", text)
