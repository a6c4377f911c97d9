"""The card of a dataset, computed from its rows and from the manifests of the runs that they come from."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import yaml

from agentdata.datasets import card_history, provenance
from agentdata.datasets.config import Config, fingerprint, ranked, summed, table
from agentdata.datasets.facts import Repository
from agentdata.datasets.hub_metadata import JSON_TEXTS, features, licence_field, size_category
from agentdata.datasets.inputs import TABLES, Run
from agentdata.datasets.recipe import DatasetRecipe

UNKNOWN = "unknown"
MOST_SOURCES = 200
"""Repositories that the card lists, those with the most rows."""
Rows = Iterable[Sequence[object]]


def write_card(configs: Sequence[Config], runs: Sequence[Run], recipe: DatasetRecipe, command: str) -> str:
    """README.md: metadata for the Hub, then what a person wants to know before training on the rows."""
    header = yaml.safe_dump(metadata(configs, recipe), sort_keys=False, allow_unicode=True, width=120)
    sections = {
        "Contents": _contents(configs),
        "Loading": _loading(configs),
        "Columns": _columns(configs),
        "Licences": _licences(configs),
        "Sources": _sources(configs, runs),
        "Languages": _languages(configs),
        "How the rows were made": card_history.making(configs, runs),
        "What was left out": card_history.dropped(configs, runs),
        "Decontamination": card_history.decontamination(configs, runs),
        "Known limits": card_history.limits(configs, runs),
        "Building it again": card_history.rebuilding(configs, runs, recipe, command),
        "Citation": _citation(configs, recipe),
    }
    body = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in sections.items())
    return f"---\n{header}---\n\n# {recipe.title}\n\n{recipe.description.strip()}\n\n{body}\n"


# Metadata


def metadata(configs: Sequence[Config], recipe: DatasetRecipe) -> dict[str, Any]:
    """The header of the card."""
    licences = {licence for config in configs for licence in config.facts.values.get("licence", {})}
    licence = licence_field(licences)
    kinds = sorted({config.view.kind for config in configs})
    return {
        "pretty_name": recipe.title,
        **({"license": licence} if licence else {}),
        "language": ["code"],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(sum(config.facts.rows for config in configs))],
        "tags": ["agentdata", "code", "agent", "tool-use", "software-engineering", *kinds],
        "configs": [_data_files(config, first=config is configs[0]) for config in configs],
        "dataset_info": [_dataset_info(config) for config in configs],
    }


def _data_files(config: Config, *, first: bool) -> dict[str, Any]:
    files = [{"split": split, "path": f"{config.name}/{split}-*.parquet"} for split in config.splits]
    return {"config_name": config.name, "data_files": files, **({"default": True} if first else {})}


def _dataset_info(config: Config) -> dict[str, Any]:
    splits = [
        {"name": split, "num_bytes": facts.bytes, "num_examples": facts.rows} for split, facts in config.splits.items()
    ]
    return {
        "config_name": config.name,
        "features": features(config.schema, json_texts=_json_texts(config)),
        "splits": splits,
        "download_size": config.bytes,
        "dataset_size": config.facts.bytes,
    }


def _json_texts(config: Config) -> Sequence[str]:
    """Fields to be given as values: not the arguments where a model wrote some that are no JSON."""
    if "messages" not in config.schema.names:
        return ()
    return [name for name in JSON_TEXTS if not config.facts.broken_json[name]]


# Sections


def _contents(configs: Sequence[Config]) -> str:
    rows = [
        (
            f"`{config.name}`",
            split,
            facts.rows,
            len(facts.repositories) or "",
            facts.tokens or "",
            facts.trained_tokens or "",
        )
        for config in configs
        for split, facts in config.splits.items()
    ]
    sizes = [(f"`{config.name}`", len(config.shards), config.bytes, config.facts.bytes) for config in configs]
    counters = summed(configs, "token_counter")
    how = "; ".join(f"{name} ({count:,} rows)" for name, count in ranked(counters))
    return "\n\n".join(
        [
            table(("config", "split", "rows", "repositories", "tokens", "trained tokens"), rows),
            f"Tokens are counted by: {how}." if how else "",
            "Splits are by repository, decided by the hash of its name: no repository is in two splits of any config.",
            table(("config", "files", "bytes to download", "bytes in memory"), sizes),
        ]
    )


def _loading(configs: Sequence[Config]) -> str:
    name = configs[0].name
    split = next(iter(configs[0].splits))
    text = (
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("OWNER/NAME", "{name}", split="{split}")  # or streaming=True\n```\n\n'
    )
    if any("messages" in config.schema.names for config in configs):
        text += (
            "A row of `messages` goes into a chat template as it is: "
            '`tokenizer.apply_chat_template(row["messages"], tools=row["tools"], tokenize=False)`. '
            "With `datasets`, tools and arguments of calls come as values; in the Parquet files, as other readers "
            "show them, they are JSON text. `train` says which turns are trained on.\n\n"
        )
    for config in configs:
        for field, count in ranked(config.facts.broken_json):
            if count:
                text += (
                    f"{count:,} `{field}` in `{config.name}` are no JSON: there, they stay text for `datasets` too.\n\n"
                )
    if any("segments" in config.schema.names for config in configs):
        text += "`segments` tile `text`: each has its first and last character (half open), its kind, and `train`.\n"
    return text


def _columns(configs: Sequence[Config]) -> str:
    parts = []
    for config in configs:
        fields = TABLES[config.view.kind, config.view.table].model_fields
        rows = [
            (f"`{column.name}`", f"`{_type_name(column.type)}`", (fields[column.name].description or "").strip())
            for column in config.schema
        ]
        told = table(("column", "type", "meaning"), rows)
        parts.append(f"<details><summary><code>{config.name}</code></summary>\n\n{told}\n\n</details>")
    return "\n\n".join(parts)


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _licences(configs: Sequence[Config]) -> str:
    told = [config for config in configs if "licence" in config.facts.values]
    if not told:
        return "The rows tell no licence."
    licences = [licence for licence, _ in ranked(summed(told, "licence"))]
    rows = [
        (licence or UNKNOWN, *(config.facts.values["licence"].get(licence, 0) for config in told))
        for licence in licences
    ]
    return (
        "SPDX expressions of the repositories at the commit that each row starts from, in rows. "
        f"`{UNKNOWN}` means that no licence was recognised, not that there is none.\n\n"
        + table(("licence", *(f"`{config.name}`" for config in told)), rows)
    )


def _sources(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    repositories: dict[str, Repository] = {}
    for config in configs:
        for name, repository in config.facts.repositories.items():
            repositories.setdefault(name, Repository()).add(repository)
    known = provenance.harvested(runs)
    by_rows = sorted(repositories.items(), key=lambda pair: (-pair[1].rows, pair[0]))
    rows = [
        (
            name or UNKNOWN,
            repository.rows,
            ", ".join(sorted(licence or UNKNOWN for licence in repository.licences)),
            ", ".join(sorted({source.head for source in known.get(name, ())})) or "by row",
            _period(repository),
        )
        for name, repository in by_rows[:MOST_SOURCES]
    ]
    more = f"\n\nAnd {len(by_rows) - MOST_SOURCES:,} more." if len(by_rows) > MOST_SOURCES else ""
    return (
        f"{len(by_rows):,} repositories. The commit is the one whose history was harvested; the dates are those of the "
        "first and last change among the rows. Rows are summed over the configs that tell a repository.\n\n"
        + table(("repository", "rows", "licence", "commit", "changes"), rows)
        + more
    )


def _period(repository: Repository) -> str:
    if not repository.last:
        return ""
    days = [datetime.fromtimestamp(time, UTC).date().isoformat() for time in (repository.first, repository.last)]
    return f"{days[0]} to {days[1]}"


def _languages(configs: Sequence[Config]) -> str:
    told = [config for config in configs if config.facts.values.get("languages")]
    if not told:
        return "The rows tell no languages."
    languages = [language for language, _ in ranked(summed(told, "languages"))]
    rows = [(name, *(config.facts.values["languages"].get(name, 0) for config in told)) for name in languages]
    return "Languages of the files that a change touches, in rows; a row may have several.\n\n" + table(
        ("language", *(f"`{config.name}`" for config in told)), rows
    )


def _citation(configs: Sequence[Config], recipe: DatasetRecipe) -> str:
    authors = f"  author = {{{' and '.join(recipe.authors)}}},\n" if recipe.authors else ""
    version = fingerprint(configs)
    return f"```bibtex\n@misc{{agentdata_{version},\n  title = {{{recipe.title}}},\n{authors}  version = {{{version}}}\n}}\n```"
