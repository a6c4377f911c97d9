"""The card of a dataset, computed from its rows and from the manifests of the runs that they come from."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import yaml

from agentdata.datasets import provenance
from agentdata.datasets.facts import Facts, Repository, total
from agentdata.datasets.hub_metadata import JSON_TEXTS, features, licence_field, size_category
from agentdata.datasets.inputs import TABLES, Run
from agentdata.datasets.recipe import DatasetRecipe, View
from agentdata.records import Shard

UNKNOWN = "unknown"
MOST_SOURCES = 200
"""Repositories that the card lists, those with the most rows."""
Rows = Iterable[Sequence[object]]


@dataclass(frozen=True)
class Config:
    """A config that is written, and what its rows tell."""

    view: View
    schema: pa.Schema
    shards: tuple[Shard, ...]
    splits: Mapping[str, Facts]
    """In the order train, validation, test; without empty ones."""
    duplicates: int
    """Rows that were left out because their id came before."""

    @cached_property
    def facts(self) -> Facts:
        """Over all splits."""
        return total(self.splits.values())

    @property
    def name(self) -> str:
        return self.view.config

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(shard.bytes for shard in self.shards)


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
        "How the rows were made": _making(configs, runs),
        "What was left out": _dropped(configs, runs),
        "Decontamination": _decontamination(configs, runs),
        "Known limits": _limits(configs, runs),
        "Building it again": _rebuilding(configs, runs, recipe, command),
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
    counters = _summed(configs, "token_counter")
    how = "; ".join(f"{name} ({count:,} rows)" for name, count in _ranked(counters))
    return "\n\n".join(
        [
            _table(("config", "split", "rows", "repositories", "tokens", "trained tokens"), rows),
            f"Tokens are counted by: {how}." if how else "",
            "Splits are by repository, decided by the hash of its name: no repository is in two splits of any config.",
            _table(("config", "files", "bytes to download", "bytes in memory"), sizes),
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
        for field, count in _ranked(config.facts.broken_json):
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
        table = _table(("column", "type", "meaning"), rows)
        parts.append(f"<details><summary><code>{config.name}</code></summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _licences(configs: Sequence[Config]) -> str:
    told = [config for config in configs if "licence" in config.facts.values]
    if not told:
        return "The rows tell no licence."
    licences = [licence for licence, _ in _ranked(_summed(told, "licence"))]
    rows = [
        (licence or UNKNOWN, *(config.facts.values["licence"].get(licence, 0) for config in told))
        for licence in licences
    ]
    return (
        "SPDX expressions of the repositories at the commit that each row starts from, in rows. "
        f"`{UNKNOWN}` means that no licence was recognised, not that there is none.\n\n"
        + _table(("licence", *(f"`{config.name}`" for config in told)), rows)
    )


def _sources(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    repositories: dict[str, Repository] = {}
    for config in configs:
        for name, repository in config.facts.repositories.items():
            repositories.setdefault(name, Repository()).add(repository)
    known = provenance.harvested(runs)
    ranked = sorted(repositories.items(), key=lambda pair: (-pair[1].rows, pair[0]))
    rows = [
        (
            name or UNKNOWN,
            repository.rows,
            ", ".join(sorted(licence or UNKNOWN for licence in repository.licences)),
            ", ".join(sorted({source.head for source in known.get(name, ())})) or "by row",
            _period(repository),
        )
        for name, repository in ranked[:MOST_SOURCES]
    ]
    more = f"\n\nAnd {len(ranked) - MOST_SOURCES:,} more." if len(ranked) > MOST_SOURCES else ""
    return (
        f"{len(ranked):,} repositories. The commit is the one whose history was harvested; the dates are those of the "
        "first and last change among the rows. Rows are summed over the configs that tell a repository.\n\n"
        + _table(("repository", "rows", "licence", "commit", "changes"), rows)
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
    languages = [language for language, _ in _ranked(_summed(told, "languages"))]
    rows = [(name, *(config.facts.values["languages"].get(name, 0) for config in told)) for name in languages]
    return "Languages of the files that a change touches, in rows; a row may have several.\n\n" + _table(
        ("language", *(f"`{config.name}`" for config in told)), rows
    )


def _making(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    parts = []
    for column, title in (
        ("generator", "generator"),
        ("policy", "told by, or model"),
        ("scaffold", "scaffold"),
        ("tier", "data tier"),
        ("verdict", "verdict"),
        ("stop", "end of the attempt"),
        ("source", "origin of the task"),
        ("statement_source", "origin of the problem statement"),
    ):
        rows: Rows = [
            (value, f"`{config.name}`", count)
            for config in configs
            for value, count in _ranked(config.facts.values.get(column, Counter()))
            if value
        ]
        if rows:
            parts.append(_table((title, "config", "rows"), rows))
    models = provenance.models(runs)
    if models:
        ranked = sorted(models.items(), key=lambda pair: (-pair[1], pair[0].name, pair[0].sampling))
        rows = [(model.name, f"`{model.sampling}`", model.scaffold, count) for model, count in ranked]
        parts.append("Models that wrote turns:\n\n" + _table(("model", "sampling", "scaffold", "attempts"), rows))
    else:
        parts.append("No part of the rows was written by a model.")
    return "\n\n".join(parts)


def _dropped(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    rows = [
        (f"`{run.path.name}`", *count.name.rpartition("/")[::2], count.count)
        for run in runs
        for count in run.manifest.rejections
    ]
    duplicates = [(f"`{config.name}`", config.duplicates) for config in configs]
    return (
        "By the runs, each with what it dropped before a row was made:\n\n"
        + _table(("run", "stage", "reason", "dropped"), rows)
        + "\n\nBy the assembly, rows whose id had occurred before:\n\n"
        + _table(("config", "duplicates"), duplicates)
    )


def _decontamination(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    names = provenance.excluded_repositories(runs)
    counts = [
        (count.name, count.count)
        for run in runs
        for count in run.manifest.rejections
        if "decontamination" in count.name or count.name.endswith("/excluded-repository")
    ]
    if not names and not counts:
        return "None was done."
    parts = [f"Harvests left out these repositories, and forks that share a root commit: {', '.join(names)}."]
    parts += [f"{count:,} were dropped as `{name}`." for name, count in counts]
    excluded = {name.lower() for name in names}
    rows: Counter[str] = Counter()
    for config in configs:
        rows.update({name: one.rows for name, one in config.facts.repositories.items() if name.lower() in excluded})
    if rows:
        told = ", ".join(f"{name} ({count:,} rows)" for name, count in _ranked(rows))
        parts.append(f"**Other runs brought rows from some of them: {told}.**")
    return " ".join(parts)


def _limits(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    return "\n".join(f"- {limit}" for limit in _limits_found(configs, runs))


def _limits_found(configs: Sequence[Config], runs: Sequence[Run]) -> Iterator[str]:
    stages = {count.name.partition("/")[0] for run in runs for count in run.manifest.rejections}
    unknown = sum(config.facts.values.get("licence", Counter())[""] for config in configs)
    if unknown:
        yield f"{unknown:,} rows have no known licence: choose by the column `licence` before you use them."
    estimated = [name for name in _summed(configs, "token_counter") if name.startswith("estimate")]
    if estimated:
        yield "Token counts are estimates by length; a tokenizer will count differently."
    if "decontamination" not in stages:
        yield "Texts were not compared with those of benchmarks: repositories are left out by name and root commit alone."
    if not {"near-duplicates", "duplicates"} & stages:
        yield "Near-duplicates were not looked for, only equal ids."
    if "secrets" not in stages:
        yield "Texts were not searched for secrets."
    if any(config.view.kind == "contextual" for config in configs):
        yield "E-mail addresses were replaced in messages of commits and texts of issues, not in code."
        yield "Contextual rows tell what an agent could have done; nothing was executed. What they observe is proved."
        if not any(run.configuration.get("options", {}).get("pulls") for run in runs):
            yield "Texts of issues and pull requests were not joined: problems are told by the messages of commits."
    empty = [split for split in ("validation",) if not any(split in config.splits for config in configs)]
    if empty:
        yield "No repository fell into the validation split."
    images = [config.name for config in configs if "image" in config.schema.names]
    if images:
        yield "Images of tasks are named, not included; the config of environments tells how to build them again."


def _rebuilding(configs: Sequence[Config], runs: Sequence[Run], recipe: DatasetRecipe, command: str) -> str:
    resolved = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    parts = [
        f"Fingerprint `{fingerprint(configs)}`: SHA-256 over the digests of all shards.",
        f"```bash\n{command}\n```",
        f"<details><summary>The recipe, resolved</summary>\n\n```yaml\n{resolved}```\n\n</details>",
    ]
    for run in runs:
        shown = yaml.safe_dump(provenance.shown_configuration(run), sort_keys=False, allow_unicode=True, width=120)
        title = f"The run <code>{run.path.name}</code>, by {run.manifest.generator}, manifest {run.digest[:12]}"
        parts.append(f"<details><summary>{title}</summary>\n\n```yaml\n{shown}```\n\n</details>")
    return "\n\n".join(parts)


def fingerprint(configs: Sequence[Config]) -> str:
    """Sixteen digits that the bytes of all shards decide."""
    digests = "".join(shard.sha256 for config in configs for shard in config.shards)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _citation(configs: Sequence[Config], recipe: DatasetRecipe) -> str:
    authors = f"  author = {{{' and '.join(recipe.authors)}}},\n" if recipe.authors else ""
    version = fingerprint(configs)
    return f"```bibtex\n@misc{{agentdata_{version},\n  title = {{{recipe.title}}},\n{authors}  version = {{{version}}}\n}}\n```"


# Tables


def _summed(configs: Iterable[Config], column: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for config in configs:
        counts.update(config.facts.values.get(column, {}))
    return counts


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _table(names: Sequence[str], rows: Rows) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(str(value).replace("|", "\\|").split())
