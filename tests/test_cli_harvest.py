"""`agentdata harvest` from the outside: help, what it prints, and the data set that it leaves."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import agentdata
from tests.histories import numbered
from tests.runs import agentdata as command
from tests.runs import finish, launch, reasons, small_history, table

RENDERINGS = ("markdown", "xml", "messages")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over repositories of both splits, with rejections, several units and all renderings."""
    base = tmp_path_factory.mktemp("dataset")
    paths = []
    for place in range(5):
        history = small_history(base / f"lib-{place}", 6, name="helper")
        history.commit("Write words", {"README.md": "# Words\n"})
        history.commit("Bump", {"helper.py": numbered("helper", 7)}, author=("dependabot[bot]", "bot@example.com"))
        paths.append(history.path)
    run = base / "run"
    arguments = ["harvest", "contextual", *paths, "-o", run, "-j1", "--render", ",".join(RENDERINGS)]
    command(*arguments, "--policy", "explore", "unit_changes=3", "validation_share=0.5").succeeds()
    return run


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        ([], ["harvest", "show", "check", "demo"]),
        (["harvest"], ["changes", "contextual"]),
        (["harvest", "changes"], ["SOURCE", "--output", "--shard", "--pulls", "Example"]),
        (["harvest", "contextual"], ["SOURCE", "--output", "--render", "--policy", "--tokenizer", "Example"]),
        (["show"], ["DIR", "--render", "Example"]),
        (["check"], ["DIR", "--share", "Example"]),
        (["demo"], ["--output", "Example"]),
    ],
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_answers_help(words: list[str], mentions: list[str], option: str) -> None:
    done = command(*words, option, environment={"COLUMNS": "200"})
    done.succeeds()
    for word in mentions:
        assert word in done.out


def test_a_command_without_arguments_shows_its_help() -> None:
    for words in ([], ["harvest"]):
        done = command(*words)
        done.has_no_traceback()
        assert "Usage" in done.out + done.err


def test_the_version_is_told() -> None:
    done = command("--version")
    done.succeeds()
    assert done.out.strip() == f"agentdata {agentdata.__version__}"


def test_an_unknown_command_is_refused() -> None:
    command("reap").explains("reap", status=2)


def test_the_command_starts_as_a_real_process(tmp_path: Path) -> None:
    """Everything else here forks a warm process; this one is cold."""
    history = small_history(tmp_path / "small", 3)
    finish(launch("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1")).succeeds()
    finish(launch("check", tmp_path / "run", "--share", "1")).succeeds()


def test_a_harvest_says_what_it_gave_and_what_to_do_next(tmp_path: Path) -> None:
    history = small_history(tmp_path / "small", 4)
    history.commit("Write words", {"README.md": "# Words\n"})
    done = command("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1")
    done.succeeds()
    assert "5 landings, 3 changes, 3 proved" in done.out
    assert "markdown: 3 samples" in done.out
    assert "dropped 1: changes/no-source-files" in done.out
    assert f"agentdata show {tmp_path / 'run'}" in done.out
    assert f'datasets.load_dataset("{tmp_path / "run"}", "markdown")' in done.out
    assert done.err == ""


def test_a_harvest_of_nothing_says_so(tmp_path: Path) -> None:
    history = small_history(tmp_path / "small", 1)
    done = command("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1")
    done.succeeds()
    assert "Nothing was harvested" in done.out
    command("check", tmp_path / "run", "--share", "1").succeeds()
    command("show", tmp_path / "run").explains("no samples", status=2)


def test_changes_alone_hold_no_samples(tmp_path: Path) -> None:
    history = small_history(tmp_path / "small", 4)
    done = command("harvest", "changes", history.path, "-o", tmp_path / "run", "-j1")
    done.succeeds()
    assert "3 changes" in done.out
    assert len(table(tmp_path / "run", "changes")) == 3
    assert not (tmp_path / "run/markdown").exists()


def test_no_landing_is_lost(run: Path) -> None:
    """Every landing is a change or rejected, and so on to traces and to each rendering."""
    landings = {(row["id"]) for row in table(run, "landings")}
    rejected = table(run, "rejected")
    at = {
        stage: Counter(row["id"] for row in rejected if row["stage"] == stage)
        for stage in ("changes", "traces", *RENDERINGS)
    }
    changes = Counter(row["id"] for row in table(run, "changes"))
    traces = Counter(row["change_id"] for row in table(run, "traces"))
    assert set(changes + at["changes"]) == landings
    assert traces + at["traces"] == changes
    for name in RENDERINGS:
        assert Counter(row["change_id"] for row in table(run, name)) + at[name] == traces


def test_ids_are_unique(run: Path) -> None:
    repositories = {row["name"] for row in table(run, "sources")}
    for name in ("changes", "traces", *RENDERINGS):
        pairs = [(row["repo"], row["id"]) for row in table(run, name)]
        assert len(set(pairs)) == len(pairs)
        assert {repo for repo, _ in pairs} == repositories


def test_the_manifest_counts_what_the_rows_hold(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    for entry in manifest["tables"]:
        rows = table(run, entry["name"])
        assert entry["rows"] == sum(shard["rows"] for shard in entry["shards"]) == len(rows)
        for shard in entry["shards"]:
            assert shard["bytes"] == (run / shard["path"]).stat().st_size
    listed = {shard["path"] for entry in manifest["tables"] for shard in entry["shards"]}
    assert listed == {str(path.relative_to(run)) for path in run.glob("*/*.parquet")}
    counts = {count["name"]: count["count"] for count in manifest["counts"]}
    assert counts["landings"] == len(table(run, "landings")) == sum(row["landings"] for row in table(run, "sources"))
    assert counts["changes"] == len(table(run, "changes"))
    assert counts["sources"] == 5
    assert {one["name"]: one["count"] for one in manifest["rejections"]} == reasons(run)
    tokens = {one["name"]: one["count"] for one in manifest["tokens"]}
    for name in RENDERINGS:
        rows = table(run, name)
        assert counts[f"samples/{name}"] == len(rows)
        assert tokens[name] == sum(row["tokens"] for row in rows)
        assert tokens[f"{name}/trained"] == sum(row["trained_tokens"] for row in rows)


def test_the_manifest_holds_the_configuration_that_was_asked_for(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert json.loads(manifest["configuration"]) == json.loads((run / "config.json").read_text())
    assert json.loads(manifest["configuration"])["recipe"]["unit_changes"] == 3


def test_segments_tile_the_text_and_masks_are_right(run: Path) -> None:
    for name in ("markdown", "xml"):
        for row in table(run, name):
            place = 0
            for segment in row["segments"]:
                assert segment["start"] == place
                place = segment["end"]
            assert place == len(row["text"])


def test_a_mask_of_actions_trains_no_observation(tmp_path: Path) -> None:
    history = small_history(tmp_path / "small", 4)
    run = tmp_path / "run"
    arguments = ["harvest", "contextual", history.path, "-o", run, "-j1", "--render", "markdown,messages"]
    command(*arguments, "--mask", "actions-only").succeeds()
    for row in table(run, "markdown"):
        assert {one["kind"] for one in row["segments"] if one["train"]} <= {"think", "edit", "done", "command"}
        assert 0 < row["trained_tokens"] < row["tokens"]
    for row in table(run, "messages"):
        assert all(message["train"] == (message["role"] == "assistant") for message in row["messages"])


def test_a_seed_decides_what_is_explored(tmp_path: Path) -> None:
    history = small_history(tmp_path / "small", 3, name="helper")
    arguments = ["harvest", "contextual", history.path, "-j1", "--policy", "explore"]
    command(*arguments, "--seed", "7", "-o", tmp_path / "run").succeeds()
    assert {row["seed"] for row in table(tmp_path / "run", "traces")} == {7}


@pytest.fixture
def quiet_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("quiet_datasets")
def test_every_table_of_a_run_loads_as_a_dataset_by_its_name(run: Path, tmp_path: Path) -> None:
    import datasets

    names = [*RENDERINGS, "traces", "changes"]
    assert datasets.get_dataset_config_names(str(run)) == names
    splits = {row["name"]: row["split"] for row in table(run, "sources")}
    assert set(splits.values()) == {"train", "validation"}
    for name in names:
        loaded = datasets.load_dataset(str(run), name, cache_dir=str(tmp_path))
        assert sum(part.num_rows for part in loaded.values()) == len(table(run, name))
        if name in RENDERINGS:
            assert set(loaded) == {"train", "validation"}
            for split, part in loaded.items():
                assert {splits[repo] for repo in part["repo"]} == {split}


@pytest.mark.usefixtures("quiet_datasets")
def test_a_run_loads_as_a_dataset_without_a_name(run: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(run), cache_dir=str(tmp_path))
    assert "text" in loaded["train"].column_names


@pytest.mark.usefixtures("quiet_datasets")
def test_a_run_of_changes_alone_loads_as_a_dataset(tmp_path: Path) -> None:
    import datasets

    history = small_history(tmp_path / "small", 4)
    command("harvest", "changes", history.path, "-o", tmp_path / "run", "-j1").succeeds()
    loaded = datasets.load_dataset(str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 3


@pytest.mark.usefixtures("quiet_datasets")
def test_a_run_whose_only_repository_is_for_validation_loads_as_a_dataset(tmp_path: Path) -> None:
    import datasets

    for place in range(8):
        history = small_history(tmp_path / f"r{place}", 3)
        run = tmp_path / f"run{place}"
        command("harvest", "contextual", history.path, "-o", run, "-j1", "validation_share=0.6").succeeds()
        if table(run, "sources")[0]["split"] == "validation":
            break
    loaded = datasets.load_dataset(str(run), "markdown", cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"validation"}


def test_every_shard_of_a_table_has_the_same_schema(run: Path) -> None:
    for folder in {path.parent for path in run.glob("*/*.parquet")}:
        schemas = [pq.read_schema(path) for path in sorted(folder.glob("*.parquet"))]
        assert len(schemas) > 1
        assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)


def test_the_card_tells_the_numbers_of_the_run(run: Path) -> None:
    card = (run / "README.md").read_text()
    for name in RENDERINGS:
        assert f"| {name} | {len(table(run, name))} |" in card
    for reason, count in reasons(run).items():
        assert f"| {reason} | {count} |" in card
