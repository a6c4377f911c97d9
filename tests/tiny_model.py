"""A small language model with random weights, made on the spot. It says nothing sensible, but a real server serves it."""

import json
from pathlib import Path

from agentdata.training.new_model import ModelShape, init_model

HEADS, KEY_HEADS = 4, 2


def make_model(
    folder: Path, *, vocabulary: int = 2048, context: int = 4096, width: int = 256, layers: int = 4, seed: int = 0
) -> Path:
    """Write the model (by default about 4 million parameters) where a server can load it. No network is needed."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    rows = folder.with_name(f"{folder.name}-sources.jsonl")
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text("".join(json.dumps({"text": path.read_text(encoding="utf-8")}) + "\n" for path in sources))
    shape = ModelShape(
        hidden_size=width,
        layers=layers,
        head_size=width // HEADS,
        key_heads=KEY_HEADS,
        vocabulary=vocabulary,
        context=context,
    )
    init_model(folder, [str(rows)], shape, seed=seed, most_bytes=1 << 24)
    return folder
