"""What the runs tell of where their rows come from: repositories, models, what was dropped, how it was asked for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from agentdata.datasets.inputs import Run
from agentdata.errors import UsageError
from agentdata.records import HarvestedSource
from agentdata.shards import read_manifest, read_table

UNSHOWN = ("sources", "system_prompt", "tools", "task_prompt", "format_error_prompt")
"""Parts of a run's configuration that are shown elsewhere, or too long for a card."""


@dataclass(frozen=True)
class Model:
    """A model that wrote turns, as it was asked to."""

    name: str
    sampling: str
    """JSON text."""
    scaffold: str


def harvested(runs: Sequence[Run]) -> dict[str, list[HarvestedSource]]:
    """The repositories that the runs harvested, by name."""
    found: dict[str, list[HarvestedSource]] = {}
    for run in runs:
        for source in read_table(run.path, "sources", HarvestedSource):
            found.setdefault(source.name, []).append(source)
    return found


def models(runs: Sequence[Run]) -> Counter[Model]:
    """Attempts by model, sampling and scaffold, of the runs and of the runs that these were made from."""
    counts: Counter[Model] = Counter()
    for path in dict.fromkeys(path for run in runs for path in _with_sources(run)):
        for table in read_manifest(path).tables:
            if table.name == "trajectories":
                for shard in table.shards:
                    counts.update(_models_of(path / shard.path))
    return counts


def _with_sources(run: Run) -> Iterator[Path]:
    yield run.path
    source = run.configuration.get("options", {}).get("source")
    if isinstance(source, str):
        try:
            read_manifest(Path(source))
        except UsageError:
            return
        yield Path(source)


def _models_of(path: Path) -> Counter[Model]:
    columns = ["model", "sampling", "scaffold", "scaffold_version"]
    rows = pq.read_table(path, columns=columns, use_threads=False).to_pylist()
    return Counter(
        Model(row["model"], row["sampling"], f"{row['scaffold']} {row['scaffold_version']}".strip()) for row in rows
    )


def excluded_repositories(runs: Sequence[Run]) -> list[str]:
    """Repositories that the runs were told to leave out, as those of a benchmark are."""
    found = (run.configuration.get("recipe", {}).get("filters", {}).get("excluded_repositories", ()) for run in runs)
    return sorted({name for names in found for name in names})


def shown_configuration(run: Run) -> dict[str, Any]:
    """A run's configuration without long texts and without places on the machine that made it."""
    shown = _shown(run.configuration)
    return shown if isinstance(shown, dict) else {}


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items() if key not in UNSHOWN}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
