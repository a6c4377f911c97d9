"""A small language model with random weights, made on the spot: Qwen2's architecture, a tokenizer of its own, a chat
template with tools. It says nothing sensible, but a real server serves it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

TURN, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CALL_MARKS = ("<tool_call>", "</tool_call>")
HEADS, KEY_HEADS = 4, 2
CHAT_TEMPLATE = """\
{%- if tools %}
  {{- '<|im_start|>system\\n' }}
  {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
  {{- '# Tools\\n' }}
  {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
  {{- 'Call one as <tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
  {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages if message.role != 'system' %}
  {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
  {%- for call in message.tool_calls or [] %}
    {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
    {{- (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) }}
    {{- '}\\n</tool_call>' }}
  {%- endfor %}
  {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def make_model(
    folder: Path, *, vocabulary: int = 2048, context: int = 4096, width: int = 256, layers: int = 4, seed: int = 0
) -> Path:
    """Write the model (by default about 3 million parameters) where a server can load it. No network is needed."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": width,
        "intermediate_size": 5 * width // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(words, indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end, "pad_token_id": pad}))
    _write_safetensors(folder / "model.safetensors", dict(_weights(tokenizer.get_vocab_size(), width, layers, seed)))
    return folder


def train_tokenizer(vocabulary: int) -> Tokenizer:
    """Byte-level BPE over the tests' own sources: every text has tokens, and these give it back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, TURN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(path) for path in sorted(Path(__file__).parent.glob("*.py"))], trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in CALL_MARKS])
    return tokenizer


def _weights(
    vocabulary: int, width: int, layers: int, seed: int
) -> Iterator[tuple[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]]:
    draw = np.random.default_rng(seed)
    head, inner = width // HEADS, 5 * width // 2
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (width, width),
        "self_attn.q_proj.bias": (width,),
        "self_attn.k_proj.weight": (KEY_HEADS * head, width),
        "self_attn.k_proj.bias": (KEY_HEADS * head,),
        "self_attn.v_proj.weight": (KEY_HEADS * head, width),
        "self_attn.v_proj.bias": (KEY_HEADS * head,),
        "self_attn.o_proj.weight": (width, width),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
    }
    yield "model.embed_tokens.weight", draw.normal(0, 0.05, (vocabulary, width)).astype(np.float32)
    for layer in range(layers):
        for name, shape in shapes.items():
            yield f"model.layers.{layer}.{name}", draw.normal(0, 0.05, shape).astype(np.float32)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", np.ones(width, np.float32)
    yield "model.norm.weight", np.ones(width, np.float32)


def _write_safetensors(path: Path, tensors: "dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]") -> None:
    """The format is a header's length, the header as JSON, and the numbers one after the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [place, place + tensor.nbytes]}
        place += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
