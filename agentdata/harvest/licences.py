"""The licence of a snapshot: SPDX expression of the licence files in its root."""

import re
from functools import cache, lru_cache
from typing import Any

from agentdata.harvest.caches import Cache

LICENCE_FILE = re.compile(rb"^(?:un)?(?:licen[cs]e|copying|copyright)(?:[.-].*)?$", re.IGNORECASE)
NOT_LICENCE = re.compile(rb"\.(?:py|js|ts|go|rs|java|c|h|rb|php|json|yml|yaml|toml)$", re.IGNORECASE)
YEARS = re.compile(r"\b(?:19|20)\d\d(?:\s*[-,]\s*(?:(?:19|20)?\d\d|present))*", re.IGNORECASE)
LARGEST = 200_000
_known: Cache[str, str] = Cache(2_000_000)


def is_licence_file(name: bytes) -> bool:
    """Whether a file of the root directory is named like a licence."""
    return bool(LICENCE_FILE.match(name)) and not NOT_LICENCE.search(name)


def detect(text: str) -> str:
    """SPDX expression of the licences that a text contains, empty when none is recognised.

    Matching follows the SPDX guidelines as implemented by `spdx-matcher`. Where the text alone fits both the `-only`
    and the `-or-later` form of a licence, the narrower `-only` is taken.
    """
    if len(text) > LARGEST:
        return ""
    # Licence files change with every new year; what is matched does not.
    key = YEARS.sub("", text)
    found = _known.get(key)
    if found is None:
        found = _known.put(key, _match(text), len(key))
    return found


@cache
def _matcher() -> Any:
    import spdx_matcher

    # The library normalizes the same text anew for each of its hundreds of licences.
    spdx_matcher.normalize = lru_cache(maxsize=2)(spdx_matcher.normalize)
    return spdx_matcher


def _match(text: str) -> str:
    found, _ = _matcher().analyse_license_text(text)
    names = set(found["licenses"])
    names -= {name.removesuffix("-only") + "-or-later" for name in names if name.endswith("-only")}
    return " AND ".join(sorted(names))


def combine(expressions: list[str]) -> str:
    """One SPDX expression for several licence files: all of them apply."""
    parts = {part for expression in expressions for part in expression.split(" AND ") if part}
    return " AND ".join(sorted(parts))


def is_allowed(expression: str, allowed: tuple[str, ...]) -> bool:
    """Whether every licence of an expression is on the list; an empty list allows everything, also the unknown."""
    return not allowed or (expression != "" and all(part in allowed for part in expression.split(" AND ")))
