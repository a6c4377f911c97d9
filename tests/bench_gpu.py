"""Tokens per second, MFU and memory of a training on this machine's GPU, for models of common shapes.

    python -m tests.bench_gpu [--shapes 0.5B 1.5B 7B] [--rows 4096 32768] [--steps 8] [--compile]

The shapes are Qwen 2.5's with random weights. Documents of random tokens, with the lengths of commits (median 3,600), are
packed and isolated, and each pair of shape and row length is trained by `agentdata midtrain` in a process of its own. What
does not fit says so. Without a GPU, only `--shapes tiny` is of use.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agentdata.training.metrics import read_metrics
from agentdata.training.new_model import ModelShape, init_model

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": (4, 2), "tied": True},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "heads": (14, 2), "tied": True},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "heads": (12, 2), "tied": True},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "heads": (28, 4), "tied": False},
}
VOCABULARY = 151_936
MEDIAN, SPREAD = 3600, 0.9
STEP_TOKENS = 131_072
SKIPPED = 3


def make_model(folder: Path, shape: dict[str, Any]) -> None:
    """A configuration of the shape and a small tokenizer; the weights are drawn when it is trained."""
    text = folder.with_name("text.jsonl")
    text.write_text(json.dumps({"text": Path(__file__).read_text(encoding="utf-8")}) + "\n")
    init_model(folder, [str(text)], ModelShape(hidden_size=64, layers=1, head_size=16), seed=0, most_bytes=1 << 20)
    (folder / "model.safetensors").unlink()
    values = {key: value for key, value in shape.items() if key not in ("heads", "tied")}
    values |= {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_attention_heads": shape["heads"][0],
        "num_key_value_heads": shape["heads"][1],
        "tie_word_embeddings": shape["tied"],
        "vocab_size": VOCABULARY if shape is not SHAPES["tiny"] else 4096,
        "max_position_embeddings": 1 << 17,
        "rope_theta": 1e6,
    }
    (folder / "config.json").write_text(json.dumps(values))


def write_documents(path: Path, tokens: int, vocabulary: int) -> None:
    """Stored ids of so many tokens, all of them trained."""
    draw = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        while tokens > 0:
            count = int(min(max(32, draw.lognormal(np.log(MEDIAN), SPREAD)), 1 << 15))
            ids = draw.integers(0, vocabulary, count).tolist()
            file.write(json.dumps({"input_ids": ids, "loss_mask": [1] * count}) + "\n")
            tokens -= count


def measure(name: str, row_length: int, given: argparse.Namespace, folder: Path) -> dict[str, Any] | str:
    """Medians over the steps, or the sentence why there are none."""
    model, run = folder / name, folder / f"{name}-{row_length}"
    if not model.is_dir():
        make_model(model, SHAPES[name])
    documents = folder / "documents.jsonl"
    if not documents.is_file():
        write_documents(documents, 2 * STEP_TOKENS, 256)
    recipe = {
        "model": str(model),
        "weights": "random",
        "activation_checkpointing": True,
        "compile": given.compile,
        "checkpoint_steps": 0,
        "held_out_steps": 0,
        "micro_rows": max(1, given.micro_tokens // row_length),
        "stage": {"row_length": row_length, "batch_tokens": max(row_length, given.step_tokens), "steps": given.steps},
        "stages": [{"name": "only", "sources": [{"path": str(documents)}]}],
    }
    path = folder / f"{name}-{row_length}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "agentdata", "midtrain", str(path), "-o", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    steps = [one for one in read_metrics(run / "metrics.jsonl") if one["event"] == "train"]
    if len(steps) <= SKIPPED:
        return (done.stderr.strip().splitlines() or ["nothing was trained"])[-1]
    names = ("tokens_per_second", "mfu", "memory", "seconds")
    return {key: statistics.median(one[key] or 0 for one in steps[SKIPPED:]) for key in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["0.5B", "1.5B", "7B"], choices=list(SHAPES))
    parser.add_argument("--rows", nargs="+", type=int, default=[4096, 32768])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS)
    parser.add_argument("--micro-tokens", type=int, default=8192)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    print("| shape | row | tokens/s | MFU | memory GB | step s |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.shapes:
            for row_length in given.rows:
                found = measure(name, row_length, given, Path(folder))
                if isinstance(found, str):
                    print(f"| {name} | {row_length:,} | {found} |", flush=True)
                    continue
                rate, memory = f"{found['tokens_per_second']:,.0f}", f"{found['memory'] / 1e9:.1f}"
                told = f"{rate} | {found['mfu']:.1%} | {memory} | {found['seconds']:.2f}"
                print(f"| {name} | {row_length:,} | {told} |", flush=True)


if __name__ == "__main__":
    main()
