"""The licence of a snapshot: SPDX expression of the licence files in its root."""

import re
from functools import lru_cache

LICENCE_FILE = re.compile(rb"^(?:un)?(?:licen[cs]e|copying|copyright)(?:[.-].*)?$", re.IGNORECASE)
NOT_LICENCE = re.compile(rb"\.(?:py|js|ts|go|rs|java|c|h|rb|php|json|yml|yaml|toml)$", re.IGNORECASE)
LARGEST = 200_000


def is_licence_file(name: bytes) -> bool:
    """Whether a file of the root directory is named like a licence."""
    return bool(LICENCE_FILE.match(name)) and not NOT_LICENCE.search(name)


@lru_cache(maxsize=256)
def detect(text: str) -> str:
    """SPDX expression of the licences that a text contains, empty when none is recognised.

    Matching follows the SPDX guidelines as implemented by `spdx-matcher`. Where the text alone fits both the `-only`
    and the `-or-later` form of a licence, the narrower `-only` is taken.
    """
    import spdx_matcher

    if len(text) > LARGEST:
        return ""
    found, _ = spdx_matcher.analyse_license_text(text)
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
