"""A tokenizer to the fastest encoder that gives the same ids.

A byte-level BPE tokenizer is a vocabulary, an order of merges and one split rule. tiktoken runs the same three several
times faster. What it is given is compared with the tokenizer before it is used: every token of the vocabulary, every
assigned character, and samples of the data. Texts with characters on which the two libraries disagree, as they know
different versions of Unicode, go to the tokenizer itself; so does everything where the comparison fails.

Content never makes a special token: where a document holds the text of one, it becomes ordinary tokens, as the
tokenizer does with `encode_special_tokens`. Added tokens that are not special are found in content, as it does too.
"""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from agentdata.errors import UsageError
from agentdata.midtrain.tokenizer import TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = npt.NDArray[np.uint32]
Ranges = tuple[tuple[int, int], ...]
"""Code points as (first, last)."""

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The rule that a ByteLevel pre-tokenizer applies by itself."""
CANONICAL = ("NFC", "NFD", "NFKC", "NFKD")
"""Normalizers that leave ASCII as it is."""
LONG_RUN = 1000
"""Spaces in a row from which on the time of tiktoken's split rule grows with their square."""
ABSENT = "\ue000 no token \uf8ff"
"""Stands for special tokens where there are none: tiktoken finds an empty set of them at every place of a text."""
PROBE_CHARACTERS = 64
UNIFORM = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x17000, 0x18CFF), (0x20000, 0x323AF))
"""Blocks of ideographs and syllables whose characters are alike: one of UNIFORM_STEP is compared."""
UNIFORM_STEP = 64
MOST_DIFFERENCES = 4096
"""Differing characters above which a tokenizer is not converted."""


class Encoder(Protocol):
    """Text to ids."""

    def encode(self, text: str, *, specials: bool = False) -> Ids:
        """The ids of a text; `specials` says whether the texts of special tokens stand for these tokens."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which encoder is used, and why: what the comparison found."""

    fast: bool
    reason: str
    """Why the tokenizer itself is used; empty for tiktoken."""
    differing: Ranges = ()
    """Code points whose texts are left to the tokenizer itself."""


class PlainEncoder:
    """The tokenizer itself. It is loaded when it is first asked; raises UsageError where it cannot be."""

    def __init__(self, files: TokenizerFiles) -> None:
        self._files = files

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self._files.path))
        except Exception as error:  # The library raises plain Exception for every cause.
            words = " ".join(str(error).split())[:200]
            raise UsageError(
                f"Cannot load the tokenizer {self._files.name!r}: {words}. Give a tokenizer.json."
            ) from error

    @cached_property
    def before(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text by itself."""
        return tuple(self._tokenizer.encode("").ids)

    def encode(self, text: str, *, specials: bool = False) -> Ids:
        self._tokenizer.encode_special_tokens = not specials
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)


class FastEncoder:
    """tiktoken with the tokenizer's vocabulary, and the tokenizer for what tiktoken reads differently."""

    def __init__(self, files: TokenizerFiles, plain: PlainEncoder, differing: Ranges = ()) -> None:
        from tiktoken import Encoding

        self._plain = plain
        self._differing = np.zeros(sys.maxunicode + 1, np.bool_)
        for first, last in differing:
            self._differing[first : last + 1] = True
        self._form = (files.definition.get("normalizer") or {}).get("type")
        added = {token.text: token.id for token in files.added}
        core = Encoding(
            files.name,
            pat_str=_split_rule(files.definition),
            mergeable_ranks=_ranks(files),
            special_tokens=added or {ABSENT: files.most_id + 1},
        )
        self._encode = core.encode_to_numpy
        self._found = {False: {token.text for token in files.added if not token.special}, True: set(added)}

    def encode(self, text: str, *, specials: bool = False) -> Ids:
        if not text.isascii():
            if self._differing[np.frombuffer(text.encode("utf-32-le"), np.uint32)].any():
                return self._plain.encode(text, specials=specials)
            if self._form is not None:
                # All characters are known to Python here, and what is known has one normal form in every version.
                text = unicodedata.normalize(self._form, text)
        if _has_long_run(text):
            return self._plain.encode(text, specials=specials)
        return self._encode(text, allowed_special=self._found[specials], disallowed_special=())


def _has_long_run(text: str) -> bool:
    """Whether some aligned stretch is all spaces; a run of twice its length always holds one."""
    return any(text[place : place + LONG_RUN].isspace() for place in range(0, len(text) - LONG_RUN + 1, LONG_RUN))


def make_encoder(files: TokenizerFiles, choice: Choice) -> Encoder:
    """The encoder that was chosen."""
    plain = PlainEncoder(files)
    return FastEncoder(files, plain, choice.differing) if choice.fast else plain


def choose(files: TokenizerFiles, texts: Iterable[str]) -> Choice:
    """Compare tiktoken with the tokenizer on its vocabulary, on all characters and on some texts of the data."""
    plain = PlainEncoder(files)
    reason = obstacle(files)
    if reason:
        return Choice(fast=False, reason=reason)
    differing = _differing_characters(FastEncoder(files, plain), plain)
    if differing is None:
        return Choice(fast=False, reason="tiktoken splits texts differently")
    fast = FastEncoder(files, plain, differing)
    vocabulary = (_bytes(token).decode("utf-8", "replace") for token in files.definition["model"]["vocab"])
    for text in chain(vocabulary, texts):
        if not np.array_equal(fast.encode(text), plain.encode(text)):
            return Choice(fast=False, reason=f"tiktoken gives other ids for {text[:40]!r}")
    return Choice(fast=True, reason="", differing=differing)


def obstacle(files: TokenizerFiles) -> str:
    """Why a tokenizer is not a byte-level BPE that tiktoken can run; empty when it is."""
    model = files.definition["model"]
    if model.get("type") != "BPE":
        return f"its model is {model.get('type')}, not BPE"
    odd = [name for name in ("dropout", "byte_fallback") if model.get(name)]
    odd += [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd:
        return f"its model uses {odd[0]}"
    normalizer = files.definition.get("normalizer")
    if normalizer is not None and normalizer.get("type") not in CANONICAL:
        return f"its normalizer is {normalizer.get('type')}"
    texts = sorted(token.text for token in files.added)
    if any(later.startswith(earlier) for earlier, later in pairwise(texts)):
        return "one of its added tokens begins with another"
    if not all(token.plain and (normalizer is None or token.text.isascii()) for token in files.added):
        return "its added tokens are not matched as they are written"
    return _split_obstacle(files.definition) or _rank_obstacle(files)


def _split_obstacle(definition: dict[str, Any]) -> str:
    steps = _pre_tokenizers(definition)
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel":
        return "it is not byte-level"
    if last.get("add_prefix_space"):
        return "it puts a space before each text"
    splits = steps[:-1]
    plain = all(step.get("type") == "Split" and "Regex" in step["pattern"] for step in splits)
    if len(splits) > 1 or not plain or (splits and last.get("use_regex", True)):
        return "it splits by more than one rule"
    if splits and (splits[0]["behavior"] != "Isolated" or splits[0]["invert"]):
        return "its split rule drops or joins what it finds"
    if not splits and not last.get("use_regex", True):
        return "it has no split rule"
    return ""


def _rank_obstacle(files: TokenizerFiles) -> str:
    model = files.definition["model"]
    vocabulary = model["vocab"]
    merged = [vocabulary.get("".join(_pair(merge))) for merge in model["merges"]]
    if None in merged or any(one >= two for one, two in pairwise(merged)):
        return "its ids do not follow the order of its merges"
    if sum(1 for token in vocabulary if len(token) == 1) != 256 or len(_ranks(files)) < len(merged) + 256:
        return "its vocabulary does not begin with all bytes"
    return ""


def _pair(merge: str | Sequence[str]) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _pre_tokenizers(definition: dict[str, Any]) -> list[dict[str, Any]]:
    step = definition.get("pre_tokenizer") or {}
    return list(step["pretokenizers"]) if step.get("type") == "Sequence" else [step]


def _split_rule(definition: dict[str, Any]) -> str:
    first = _pre_tokenizers(definition)[0]
    return str(first["pattern"]["Regex"]) if first["type"] == "Split" else GPT2_SPLIT


def _ranks(files: TokenizerFiles) -> dict[bytes, int]:
    added = {token.id for token in files.added}
    vocabulary = files.definition["model"]["vocab"]
    return {_bytes(token): rank for token, rank in vocabulary.items() if rank not in added}


@cache
def _byte_of() -> dict[str, int]:
    """Byte-level alphabets write each byte as one visible character: itself where it is visible, else from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def _bytes(token: str) -> bytes:
    table = _byte_of()
    if any(character not in table for character in token):
        return token.encode()
    return bytes([table[character] for character in token])


def _differing_characters(fast: FastEncoder, plain: PlainEncoder) -> Ranges | None:
    """The characters on which the two disagree; None when these are too many.

    Characters that Python's Unicode does not know are not compared and count as differing.
    """
    known = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    compared = [chr(code) for code in known if code % UNIFORM_STEP == 0 or not _is_uniform(code)]
    differing: set[str] = set()
    for start in range(0, len(compared), PROBE_CHARACTERS):
        block = compared[start : start + PROBE_CHARACTERS]
        if not _agree(fast, plain, block):
            differing.update(character for character in block if not _agree(fast, plain, [character]))
        if len(differing) > MOST_DIFFERENCES:
            return None
    if any(character.isascii() for character in differing):
        return None
    return _all_but([code for code in known if chr(code) not in differing])


def _is_uniform(code: int) -> bool:
    return any(first <= code <= last for first, last in UNIFORM)


def _agree(fast: FastEncoder, plain: PlainEncoder, characters: Sequence[str]) -> bool:
    probe = "".join(f"a{one}b '{one} {one}1{one}\n{one}.{one}" for one in characters)
    return np.array_equal(fast.encode(probe), plain.encode(probe))


def _all_but(codes: Sequence[int]) -> Ranges:
    """Everything else than some code points, which are in ascending order."""
    ends = zip([-1, *codes], [*codes, sys.maxunicode + 1], strict=True)
    return tuple((before + 1, after - 1) for before, after in ends if after - before > 1)
