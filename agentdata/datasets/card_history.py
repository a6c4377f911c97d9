"""The part of a card that tells what came before the rows: who made them, what was dropped, how to make them again."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import yaml

from agentdata.datasets import provenance
from agentdata.datasets.config import Config, fingerprint, ranked, summed, table
from agentdata.datasets.inputs import Run
from agentdata.datasets.recipe import DatasetRecipe

Rows = Iterable[Sequence[object]]


def making(configs: Sequence[Config], runs: Sequence[Run]) -> str:
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
            for value, count in ranked(config.facts.values.get(column, Counter()))
            if value
        ]
        if rows:
            parts.append(table((title, "config", "rows"), rows))
    models = provenance.models(runs)
    if models:
        most_first = sorted(models.items(), key=lambda pair: (-pair[1], pair[0].name, pair[0].sampling))
        rows = [(model.name, f"`{model.sampling}`", model.scaffold, count) for model, count in most_first]
        parts.append("Models that wrote turns:\n\n" + table(("model", "sampling", "scaffold", "attempts"), rows))
    elif any(config.view.kind == "environmental" for config in configs):
        parts.append("Models wrote the environmental rows; with which sampling, the runs do not tell.")
    else:
        parts.append("No part of the rows was written by a model.")
    return "\n\n".join(parts)


def dropped(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    rows = [
        (f"`{run.path.name}`", *count.name.rpartition("/")[::2], count.count)
        for run in runs
        for count in run.manifest.rejections
    ]
    duplicates = [(f"`{config.name}`", config.duplicates) for config in configs]
    return (
        "By the runs, each with what it dropped before a row was made:\n\n"
        + table(("run", "stage", "reason", "dropped"), rows)
        + "\n\nBy the assembly, rows whose id had occurred before:\n\n"
        + table(("config", "duplicates"), duplicates)
    )


def decontamination(configs: Sequence[Config], runs: Sequence[Run]) -> str:
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
        told = ", ".join(f"{name} ({count:,} rows)" for name, count in ranked(rows))
        parts.append(f"**Other runs brought rows from some of them: {told}.**")
    return " ".join(parts)


def limits(configs: Sequence[Config], runs: Sequence[Run]) -> str:
    return "\n".join(f"- {limit}" for limit in _limits_found(configs, runs))


def _limits_found(configs: Sequence[Config], runs: Sequence[Run]) -> Iterator[str]:
    stages = {count.name.partition("/")[0] for run in runs for count in run.manifest.rejections}
    unknown = sum(config.facts.values.get("licence", Counter())[""] for config in configs)
    if unknown:
        yield f"{unknown:,} rows have no known licence: choose by the column `licence` before you use them."
    estimated = [name for name in summed(configs, "token_counter") if name.startswith("estimate")]
    if estimated:
        yield "Token counts are estimates by length; a tokenizer will count differently."
    if "decontamination" not in stages:
        yield "Texts were not compared with those of benchmarks."
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


def rebuilding(configs: Sequence[Config], runs: Sequence[Run], recipe: DatasetRecipe, command: str) -> str:
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
