"""Token counts: by a named tokenizer, or by a stated estimate."""

import math
from collections.abc import Callable
from pathlib import Path

from agentdata.errors import UsageError
from agentdata.records import Message

CountTokens = Callable[[str], int]


def token_counter(tokenizer: str, bytes_per_token: float) -> tuple[CountTokens, str]:
    """A function from text to tokens, and the name that goes into each row. Raises UsageError.

    tokenizer: path of a tokenizer.json or of a directory that holds one, a Hub id, or empty for the estimate.
    """
    if not tokenizer:

        def estimate(text: str) -> int:
            return math.ceil((len(text) if text.isascii() else len(text.encode())) / bytes_per_token)

        return estimate, f"estimate: UTF-8 bytes / {bytes_per_token:g}"
    from tokenizers import Tokenizer

    path = Path(tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        loaded = Tokenizer.from_file(str(path)) if path.exists() else Tokenizer.from_pretrained(tokenizer)
    except Exception as error:  # The library raises plain Exception for every cause.
        raise UsageError(
            f"Cannot load the tokenizer {tokenizer!r}: {' '.join(str(error).split())}. Give a tokenizer.json, a directory "
            "that holds one, or the id of a model on the Hub."
        ) from error
    return (lambda text: len(loaded.encode(text, add_special_tokens=False))), tokenizer


def count_message(message: Message, count: CountTokens) -> int:
    """Tokens of a turn's words, thoughts and calls, without what a chat template puts around them."""
    calls = (call.function.name + call.function.arguments for call in message.tool_calls)
    return count(message.content) + count(message.reasoning_content) + sum(map(count, calls))
