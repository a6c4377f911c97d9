"""What the Hub and `datasets` read at the top of a card: configs, features, splits, licence, size."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "10B<n<100B")
JSON_TEXTS = ("tools", "arguments")
"""Fields that hold JSON text: `datasets` gives them as values, which is what chat templates expect."""
DTYPES = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}
LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "BSD-3-Clause-Clear": "bsd-3-clause-clear",
    "ISC": "isc",
    "Zlib": "zlib",
    "Unlicense": "unlicense",
    "WTFPL": "wtfpl",
    "MPL-2.0": "mpl-2.0",
    "EPL-1.0": "epl-1.0",
    "EPL-2.0": "epl-2.0",
    "BSL-1.0": "bsl-1.0",
    "Artistic-2.0": "artistic-2.0",
    "PostgreSQL": "postgresql",
    "NCSA": "ncsa",
    "CC0-1.0": "cc0-1.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "GPL-2.0-only": "gpl-2.0",
    "GPL-2.0-or-later": "gpl-2.0",
    "GPL-3.0-only": "gpl-3.0",
    "GPL-3.0-or-later": "gpl-3.0",
    "LGPL-2.1-only": "lgpl-2.1",
    "LGPL-2.1-or-later": "lgpl-2.1",
    "LGPL-3.0-only": "lgpl-3.0",
    "LGPL-3.0-or-later": "lgpl-3.0",
    "AGPL-3.0-only": "agpl-3.0",
    "AGPL-3.0-or-later": "agpl-3.0",
}
"""SPDX identifiers that the Hub has a name for."""


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    return SIZES[min(max(len(str(rows)) - 3, 0), len(SIZES) - 1)]


def licence_field(licences: Iterable[str]) -> str | list[str] | None:
    """The Hub's names of the licences of all rows; None unless every row has one that the Hub knows."""
    names = [LICENCES.get(licence, "") for licence in licences]
    known = sorted(set(names))
    if not known or "" in known:
        return None
    return known[0] if len(known) == 1 else known


def features(schema: Iterable["pa.Field[Any]"], *, json_texts: Sequence[str] = JSON_TEXTS) -> list[dict[str, Any]]:
    """A schema as the features of a card."""
    return [_feature(field, json_texts) for field in schema]


def _feature(field: "pa.Field[Any]", json_texts: Sequence[str]) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        inner = field.type.value_type
        nested = pa.types.is_struct(inner)
        return {"name": field.name, "list": features(inner, json_texts=json_texts) if nested else DTYPES[inner]}
    if pa.types.is_struct(field.type):
        return {"name": field.name, "struct": features(field.type, json_texts=json_texts)}
    return {"name": field.name, "dtype": "json" if field.name in json_texts else DTYPES[field.type]}
