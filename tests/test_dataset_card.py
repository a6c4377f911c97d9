"""The card says what the rows say, number by number."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from agentdata.datasets.hub_metadata import licence_field, size_category
from agentdata.records import Record
from tests.assembled import REPOSITORIES, build, chat, chats, source, task, text, write_run
from tests.histories import History
from tests.rollouts import attempt
from tests.runs import agentdata


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rows = [
        *chats(REPOSITORIES[:5]),
        *(
            chat(f"gpl{number}", "g/seven", licence="GPL-3.0-only", languages=("python", "c"), tokens=7)
            for number in range(3)
        ),
        *(chat(f"none{number}", "h/eight", licence="", landed_at=1_700_000_000) for number in range(2)),
    ]
    tasks = [task(f"{repo[0]}-1", repo) for repo in REPOSITORIES[:3]]
    tables: dict[str, list[Record]] = {
        "messages": list(rows),
        "markdown": [text(f"t{row.id}", row.repo, licence=row.licence, landed_at=row.landed_at) for row in rows],
        "sources": [source("a/one"), source("h/eight")],
        **{name: [one[place] for one in tasks] for place, name in enumerate(("tasks", "tests", "gold"))},
    }
    run = write_run(
        tmp_path / "run",
        tables,
        rejections={"changes/bot-author": 1234, "messages/too-long": 5},
        recipe={"filters": {"excluded_repositories": ["django/django", "H/eight"]}},
    )
    again = write_run(tmp_path / "again", {"messages": chats(["a/one"], each=2)})
    build(
        tmp_path / "dataset", run, again, overrides=["shard_bytes=4000", "validation_share=0.3", "authors=[A. Person]"]
    )
    return tmp_path / "dataset"


def rows_of(dataset: Path, config: str, split: str = "*") -> list[dict[str, Any]]:
    return [
        row for path in sorted((dataset / config).glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def section(card: str, title: str) -> str:
    return re.split(rf"^## {title}$", card, flags=re.MULTILINE)[1].split("\n## ")[0]


def table_in(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column has that name."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    names, _, *rows = ([cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines)
    return [dict(zip([name.strip() for name in names], row, strict=True)) for row in rows]


def number(cell: str) -> int:
    return int(cell.replace(",", "") or 0)


def test_rows_tokens_and_sizes(dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    contents = table_in(section(card, "Contents"), "config")
    assert {(line["config"], line["split"]) for line in contents} == {
        (path.parent.name, path.name.partition("-")[0]) for path in dataset.glob("*/*.parquet")
    }
    for line in contents:
        rows = rows_of(dataset, line["config"], line["split"])
        assert number(line["rows"]) == len(rows)
        assert number(line["tokens"]) == sum(row.get("tokens", 0) for row in rows)
        assert number(line["trained tokens"]) == sum(row.get("trained_tokens", 0) for row in rows)
        assert number(line["repositories"]) == len({row["repo"] for row in rows if "repo" in row})
    for line in table_in(section(card, "Contents").split("no repository is in two splits")[1], "config"):
        files = list((dataset / line["config"]).iterdir())
        assert number(line["files"]) == len(files)
        assert number(line["bytes to download"]) == sum(path.stat().st_size for path in files)


def test_licences_and_languages(dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    for title, first, values in (
        ("Licences", "licence", lambda row: [row["licence"] or "unknown"]),
        ("Languages", "language", lambda row: row.get("languages", [])),
    ):
        lines = table_in(section(card, title), first)
        for config in ("contextual-messages", "contextual-markdown"):
            counts = Counter(value for row in rows_of(dataset, config) for value in values(row))
            assert {line[first]: number(line[config]) for line in lines} == {
                line[first]: counts[line[first]] for line in lines
            }
            assert sum(counts.values()) == sum(number(line[config]) for line in lines)
    assert "4 rows have no known licence" in section(card, "Known limits")
    assert "license" not in header(dataset)


def test_sources_with_commits_and_dates(dataset: Path) -> None:
    lines = {
        line["repository"]: line
        for line in table_in(section((dataset / "README.md").read_text(), "Sources"), "repository")
    }
    configs = ("contextual-messages", "contextual-markdown", "tasks")
    counts = Counter(row["repo"] for config in configs for row in rows_of(dataset, config))
    assert {name: number(line["rows"]) for name, line in lines.items()} == counts
    assert lines["h/eight"]["commit"] == "a" * 40
    assert lines["h/eight"]["changes"] == "2023-11-14 to 2023-11-14"
    assert lines["a/one"]["changes"] == "2020-09-13 to 2024-05-06"
    assert lines["b/two"]["commit"] == "by row"


def test_what_was_dropped_and_why(dataset: Path) -> None:
    dropped = section((dataset / "README.md").read_text(), "What was left out")
    assert "| `run` | changes | bot-author | 1,234 |" in dropped
    assert "| `run` | messages | too-long | 5 |" in dropped
    assert "| `contextual-messages` | 2 |" in dropped


def test_decontamination_tells_what_came_in_nevertheless(dataset: Path) -> None:
    told = section((dataset / "README.md").read_text(), "Decontamination")
    assert "django/django" in told
    assert "h/eight (4 rows)" in told


def test_how_to_build_it_again(dataset: Path) -> None:
    told = section((dataset / "README.md").read_text(), "Building it again")
    assert "agentdata dataset build" in told
    resolved = yaml.safe_load(re.search(r"```yaml\n(.*?)```", told, re.DOTALL)[1])  # type: ignore[index]
    assert resolved["shard_bytes"] == 4000
    assert "A. Person" in section((dataset / "README.md").read_text(), "Citation")


def header(dataset: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((dataset / "README.md").read_text().split("---\n")[1])
    return found


def test_the_metadata_is_what_the_hub_reads(dataset: Path) -> None:
    data = DatasetCard.load(dataset / "README.md").data
    assert data.size_categories == ["n<1K"]
    assert [config["config_name"] for config in data.configs if config.get("default")] == ["contextual-messages"]
    for info in header(dataset)["dataset_info"]:
        counts = {split["name"]: split["num_examples"] for split in info["splits"]}
        assert counts == {name: len(rows_of(dataset, info["config_name"], name)) for name in counts}
        assert [feature["name"] for feature in info["features"]] == list(rows_of(dataset, info["config_name"])[0])


def test_a_licence_is_named_where_it_is_true_of_all_rows() -> None:
    assert licence_field(["MIT"]) == "mit"
    assert licence_field(["MIT", "Apache-2.0"]) == ["apache-2.0", "mit"]
    assert licence_field(["MIT", ""]) is None
    assert licence_field(["MIT OR Apache-2.0"]) is None
    assert licence_field([]) is None


def test_sizes_have_the_names_of_the_hub() -> None:
    found = [size_category(rows) for rows in (0, 999, 1000, 99_999, 1_000_000, 10**12)]
    assert found == ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "10B<n<100B"]


def test_nothing_of_the_machine_is_told(tmp_path: Path) -> None:
    history = History(tmp_path / "secret-place/project")
    history.commit("Begin", {"a.py": "a = 1\n"})
    history.commit("Go on", {"a.py": "a = 2\n"})
    agentdata("harvest", "contextual", history.path, "-o", "run", "--render", "messages", cwd=tmp_path).succeeds()
    agentdata("dataset", "build", "run", "-o", "dataset", cwd=tmp_path).succeeds()
    assert "secret-place" not in (tmp_path / "dataset/README.md").read_text()
    assert "secret-place" not in (tmp_path / "dataset/manifest.json").read_text()


def test_models_and_their_sampling(tmp_path: Path) -> None:
    samples = [chat("x", "a/one", kind="environmental", policy="some-model", verdict="resolved", stop="submitted")]
    run = write_run(
        tmp_path / "run", {"messages": samples, "trajectories": [attempt(), attempt(number=1, resolved=False)]}
    )
    build(tmp_path / "dataset", run)
    made = section((tmp_path / "dataset/README.md").read_text(), "How the rows were made")
    assert table_in(made, "model") == [
        {"model": "tiny", "sampling": '{"temperature":0.7}', "scaffold": "editor 1", "attempts": "2"}
    ]
    assert "| resolved | `environmental-messages` | 1 |" in made
    assert "| tests-failed | `trajectories` | 1 |" in made
    assert "No part" not in made
