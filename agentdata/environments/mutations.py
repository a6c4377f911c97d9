"""Working code to mistakes that a person could have made, each as a patch with its reverse. Nothing is executed."""

import bisect
import hashlib
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Literal

from agentdata.environments.diffs import Replacement, Text, apply, are_apart, unified
from agentdata.environments.mutation_expressions import EXPRESSIONS, Proposal
from agentdata.environments.mutation_statements import STATEMENTS
from agentdata.environments.syntax import Module, Site, read_module
from agentdata.errors import UsageError
from agentdata.harvest.filters import role_of
from agentdata.records import Record

KINDS = {**EXPRESSIONS, **STATEMENTS}
"""Kind to the nodes it looks at and what proposes it."""
LEFT_ALONE = re.compile(
    r"(?:^|/)(?:setup|noxfile|__main__|_?_?version(?:_?_)?|__about__|_?typing)\.py$"
    r"|(?:^|/)(?:docs?|examples?|benchmarks?|scripts?|migrations|_?vendor(?:ed)?|third_party)/|\.pyi$"
)
"""Files where a mistake is no task: set-up, versions, documentation, code of others."""
_quietly = threading.Lock()


class Edit(Record):
    """A replacement of text in one file. Offsets are bytes of the original."""

    path: str
    symbol: str
    """Qualified name of the enclosing function or class; empty at module level."""
    start: int
    end: int
    old: str
    new: str
    first_line: int
    """First line of the original that it touches, from 1."""
    last_line: int
    """Last such line, inclusive."""


class Mutation(Record):
    """A mistake put into working code, in one place or several."""

    id: str
    """Content address of the patch (16 hexadecimal digits)."""
    kinds: tuple[str, ...]
    """One of `KINDS` for each mutation that it combines, or `reversal`."""
    path: str
    """File of the first edit."""
    symbol: str
    """Enclosing function or class of the first edit."""
    first_line: int
    """First line that the first edit touches in the original, from 1."""
    last_line: int
    """Last such line of the last edit in the same file, inclusive."""
    edits: tuple[Edit, ...]
    patch: str
    """Unified diff from the original to the mistake."""
    gold_patch: str
    """Unified diff from the mistake back to the original."""


def is_mutable(path: str) -> bool:
    """Whether a file is Python source in which a mistake makes a task: no tests, set-up, versions or documentation."""
    return path.endswith(".py") and role_of(path, ("python",)) == "source" and not LEFT_ALONE.search(path)


def candidates(path: str, source: bytes, *, seed: int, most: int = 0, kinds: Sequence[str] = ()) -> Iterator[Mutation]:
    """Mutations of one file in an order drawn from the seed, the kinds taking turns; all of them when `most` is 0.

    Each compiles, differs from the original and from the others. A file that is not `is_mutable`, not UTF-8 or that
    this Python cannot compile has none. Raises UsageError for an unknown kind.
    """
    unknown = sorted(set(kinds) - KINDS.keys())
    if unknown:
        raise UsageError(f"There is no kind of mutation {unknown[0]!r}; choose from {', '.join(KINDS)}.")
    if not is_mutable(path) or not _is_plain(source):
        return iter(())
    return _limited(_candidates(path, source, Random(f"{seed} {path}"), tuple(kinds) or tuple(KINDS)), most)


def combine(mutations: Sequence[Mutation], sources: Mapping[str, bytes]) -> Mutation | None:
    """Several mutations, of one file or more, as one; None when they overlap or do not compile together.

    `sources` holds the original of every file.
    """
    edits = sorted(
        (edit for mutation in mutations for edit in mutation.edits), key=lambda edit: (edit.path, edit.start)
    )
    kinds = tuple(kind for mutation in mutations for kind in mutation.kinds)
    return assemble(kinds, edits, sources)


def combinations(
    mutations: Sequence[Mutation],
    sources: Mapping[str, bytes],
    *,
    seed: int,
    size: int = 2,
    within: Literal["function", "file", "tree"] = "function",
    most: int = 100,
) -> Iterator[Mutation]:
    """Draw groups of `size` mutations from the same function, file or tree and combine them, each group once.

    Gives up after ten times as many draws as are wanted.
    """
    groups: dict[tuple[str, ...], list[Mutation]] = {}
    for mutation in mutations:
        key = {"function": (mutation.path, mutation.symbol), "file": (mutation.path,), "tree": ()}[within]
        groups.setdefault(key, []).append(mutation)
    large = [group for group in groups.values() if len(group) >= size]
    random, seen, found = Random(f"{seed} {within} {size}"), set[str](), 0
    for _ in range(10 * most if large else 0):
        combined = combine(random.sample(random.choice(large), size), sources)
        if combined is not None and combined.id not in seen:
            seen.add(combined.id)
            found += 1
            yield combined
        if found >= most:
            return


def assemble(kinds: tuple[str, ...], edits: Sequence[Edit], sources: Mapping[str, bytes]) -> Mutation | None:
    """A mutation of edits that are ordered by path and offset; None when they overlap, do nothing or do not compile."""
    patches = []
    for path in dict.fromkeys(edit.path for edit in edits):
        text = _text(sources[path])
        replacements = [(edit.start, edit.end, edit.new.encode()) for edit in edits if edit.path == path]
        if not are_apart(replacements) or not _compiles(text, replacements):
            return None
        patches.append(unified(path, text, replacements))
    if not all(forward for forward, _ in patches):
        return None
    return _mutation(kinds, edits, "".join(forward for forward, _ in patches), "".join(back for _, back in patches))


def edit_of(path: str, symbol: str, text: Text, replacement: Replacement) -> Edit:
    """A replacement as a record."""
    start, end, new = replacement
    return Edit(
        path=path,
        symbol=symbol,
        start=start,
        end=end,
        old=text.source[start:end].decode(),
        new=new.decode(),
        first_line=text.line_at(start) + 1,
        last_line=text.line_at(max(start, end - 1)) + 1,
    )


def enclosing_symbol(source: bytes, start: int, end: int) -> str:
    """Qualified name of the innermost function or class around some bytes; empty at module level."""
    inner = source[start:end]
    start, end = end - len(inner.lstrip()), start + len(inner.rstrip())
    name = ""
    for site in read_module(source, Random(0)).sites:
        if site.node.start_byte <= start and max(start, end) <= site.node.end_byte:
            name = site.scope.name
    return name


def _mutation(kinds: tuple[str, ...], edits: Sequence[Edit], patch: str, gold_patch: str) -> Mutation:
    first = edits[0]
    return Mutation(
        id=hashlib.sha256(patch.encode()).hexdigest()[:16],
        kinds=kinds,
        path=first.path,
        symbol=first.symbol,
        first_line=first.first_line,
        last_line=max(edit.last_line for edit in edits if edit.path == first.path),
        edits=tuple(edits),
        patch=patch,
        gold_patch=gold_patch,
    )


def _candidates(path: str, source: bytes, random: Random, kinds: Sequence[str]) -> Iterator[Mutation]:
    module = read_module(source, random)
    if not module.sites or _compiled(source) is None:
        return
    compiler = _Pieces(module.text)
    for kind, site, proposal in _in_turns(_propose(module, kinds), random):
        replacements = _effective(module.text, proposal)
        if not replacements or not compiler.accepts(site.piece, replacements):
            continue
        edits = [edit_of(path, site.scope.name, module.text, replacement) for replacement in replacements]
        yield _mutation((kind,), edits, *unified(path, module.text, replacements))


Proposed = tuple[str, Site, Proposal]


def _propose(module: Module, kinds: Sequence[str]) -> dict[str, list[Proposed]]:
    looks: dict[str, list[str]] = {}
    for kind in KINDS:
        if kind in kinds:
            for node_type in KINDS[kind][0].split():
                looks.setdefault(node_type, []).append(kind)
    found: dict[str, list[Proposed]] = {}
    for site in module.sites:
        for kind in looks.get(site.kind, ()):
            found.setdefault(kind, []).extend((kind, site, made) for made in KINDS[kind][1](site))
    return found


def _in_turns(proposals: dict[str, list[Proposed]], random: Random) -> Iterator[Proposed]:
    """One of each kind, then the next of each, so that a few show many kinds."""
    queues = [proposals[kind] for kind in KINDS if proposals.get(kind)]
    for queue in queues:
        random.shuffle(queue)
    while queues:
        random.shuffle(queues)
        for queue in queues:
            yield queue.pop()
        queues = [queue for queue in queues if queue]


def _effective(text: Text, proposal: Proposal) -> tuple[Replacement, ...]:
    """Without the replacements that change nothing; empty when the others touch each other."""
    kept = tuple(one for one in proposal if text.source[one[0] : one[1]] != one[2])
    return kept if are_apart(kept) else ()


class _Pieces:
    """Compiles the function or statement around a mutation instead of its file, and remembers what was there."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.seen: set[bytes] = set()
        self.originals: dict[tuple[int, int], object] = {}

    def accepts(self, piece: tuple[int, int], replacements: Sequence[Replacement]) -> bool:
        """Whether the mutated piece compiles, to something else than the original, and was not seen before."""
        start, end, mutated = _changed_piece(self.text, piece, replacements)
        key = b"%d " % start + hashlib.blake2b(mutated, digest_size=12).digest()
        if key in self.seen:
            return False
        self.seen.add(key)
        if (start, end) not in self.originals:
            self.originals[start, end] = _compiled(_at_margin(self.text.source[start:end]))
        compiled = _compiled(_at_margin(mutated))
        return compiled is not None and compiled != self.originals[start, end]


def _changed_piece(text: Text, piece: tuple[int, int], replacements: Sequence[Replacement]) -> tuple[int, int, bytes]:
    """Span of the whole lines of a piece and of the replacements, and what becomes of them."""
    start = text.line_start(min(piece[0], replacements[0][0]))
    end = text.line_end(max(piece[1], replacements[-1][1] - 1))
    moved = [(begin - start, stop - start, new) for begin, stop, new in replacements]
    return start, end, apply(text.source[start:end], moved)


def _compiles(text: Text, replacements: Sequence[Replacement]) -> bool:
    """Whether a file compiles with replacements: the functions that hold them, or the file where one is outside."""
    spans = _functions(text.source)
    touched: dict[tuple[int, int], list[Replacement]] = {}
    for replacement in replacements:
        span = spans[max(bisect.bisect(spans, (replacement[0], 1 << 62)) - 1, 0)] if spans else (0, -1)
        if not span[0] <= replacement[0] <= replacement[1] <= span[1] + 1:
            return _compiled(apply(text.source, replacements)) is not None
        touched.setdefault(span, []).append(replacement)
    return all(_compiled(_at_margin(_changed_piece(text, *one)[2])) is not None for one in touched.items())


@lru_cache(maxsize=64)
def _functions(source: bytes) -> list[tuple[int, int]]:
    """Spans of the functions that stand in no other function, in order."""
    sites = read_module(source, Random(0)).sites
    return sorted(
        site.piece
        for site in sites
        if site.kind == "function_definition" and site.piece == (site.node.start_byte, site.node.end_byte)
    )


def _at_margin(piece: bytes) -> bytes:
    """Indented lines below an `if`, so that they compile as they are."""
    return b"if 1:\n" + piece if piece[:1] in (b" ", b"\t") else piece


def _compiled(source: bytes) -> object:
    # The filters of warnings belong to the whole process: what one thread saves must not be what another has changed.
    with _quietly, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compile(source, "", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _is_plain(source: bytes) -> bool:
    try:
        source.decode()
    except UnicodeDecodeError:
        return False
    return b"\r" not in source.replace(b"\r\n", b"\n") and b"\0" not in source


@lru_cache(maxsize=64)
def _text(source: bytes) -> Text:
    return Text(source)


def _limited(mutations: Iterable[Mutation], most: int) -> Iterator[Mutation]:
    for count, mutation in enumerate(mutations, 1):
        yield mutation
        if count == most:
            return
