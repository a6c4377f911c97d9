"""Recipes, overrides and options: what does not fit is refused in one sentence before anything is written."""

import json
from pathlib import Path

import pytest

import recipes
from agentdata.errors import UsageError
from tests.runs import agentdata, small_history, table


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_history(tmp_path_factory.mktemp("config") / "small").path


def test_every_built_in_recipe_loads() -> None:
    assert "contextual" in recipes.names()
    for name in recipes.names():
        assert recipes.load_harvest(name).renderings


def test_prompts_of_the_built_in_recipe_are_read_from_their_files() -> None:
    recipe = recipes.load_harvest("contextual")
    assert "/testbed" in recipe.system_prompt
    assert {tool["function"]["name"] for tool in json.loads(recipe.tools)} == {"bash", "str_replace_editor", "submit"}


def test_overrides_reach_nested_values_with_their_yaml_types() -> None:
    overrides = [
        "filters.most_files=7",
        "filters.source_files=[2, 3]",
        "mask=actions-only",
        "renderings=[xml, messages]",
    ]
    recipe = recipes.load_harvest("contextual", overrides)
    assert (recipe.filters.most_files, recipe.filters.source_files) == (7, (2, 3))
    assert (recipe.mask, recipe.renderings) == ("actions-only", ("xml", "messages"))


def test_general_names_every_language_once() -> None:
    chosen = recipes.load_harvest("contextual", ["languages=general"]).languages
    assert len(chosen) == len(set(chosen)) > 10


def test_a_recipe_of_ones_own_brings_its_own_prompt(tmp_path: Path) -> None:
    text = (Path(recipes.__file__).parent / "contextual.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("prompts/system.md", "voice.md"))
    (tmp_path / "voice.md").write_text("Speak plainly.\n")
    recipe = recipes.load_harvest(str(tmp_path / "own.yaml"))
    assert recipe.system_prompt == "Speak plainly."
    assert recipe.tools == recipes.load_harvest("contextual").tools


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("languages: [python\n", "Cannot read"),
        ("- a\n- list\n", "not a mapping"),
        ("languages: [python]\n", "filters"),
        ("", "not a mapping"),
        ("\x07", "Cannot read"),
        ("languages: [klingon]\n", "klingon"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        recipes.load_harvest(str(path))
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_recipe_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\x00recipe")
    with pytest.raises(UsageError, match="Cannot read"):
        recipes.load_harvest(str(path))


def test_an_unknown_key_of_a_recipe_is_refused(tmp_path: Path) -> None:
    text = (Path(recipes.__file__).parent / "contextual.yaml").read_text()
    path = tmp_path / "more.yaml"
    path.write_text(text + "colour: green\n")
    with pytest.raises(UsageError, match="colour"):
        recipes.load_harvest(str(path))


def test_a_prompt_file_that_is_missing_is_not_taken_for_the_prompt_itself() -> None:
    with pytest.raises(UsageError, match=r"prompts/absent\.md"):
        recipes.load_harvest("contextual", ["system_prompt=prompts/absent.md"])


def test_a_prompt_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    text = (Path(recipes.__file__).parent / "contextual.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("prompts/system.md", "voice.md"))
    (tmp_path / "voice.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"voice\.md"):
        recipes.load_harvest(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("nosuch=1", "nosuch"),
        ("filters.nosuch=1", "filters.nosuch"),
        ("filters.most_files.more=1", "filters.most_files.more"),
        ("filters.most_files=many", "filters.most_files"),
        ("filters.most_files=0", "filters.most_files"),
        ("filters.most_files=[", "YAML"),
        ("filters.source_files=5", "filters.source_files"),
        ("filters.plain_commits=sometimes", "filters.plain_commits"),
        ("filters=3", "filters"),
        ("exploration.policy=wander", "exploration.policy"),
        ("mask=some", "mask"),
        ("renderings=[pdf]", "renderings"),
        ("unit_changes=0", "unit_changes"),
        ("validation_share=1.5", "validation_share"),
        ("languages=[]", "anguages"),
        ("bytes_per_token=0", "bytes_per_token"),
        ("languages=5", "anguages"),
        ("languages=null", "anguages"),
        ("filters.bots=['(']", "filters.bots"),
        ("filters.source_files=[5, 1]", "source_files"),
        ("exploration.seed=99999999999999999999", "seed"),
        ("bytes_per_token=.inf", "bytes_per_token"),
        ("tools=not json", "tools"),
        ("renderings=[markdown, markdown]", "renderings"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_by_its_key(override: str, word: str) -> None:
    with pytest.raises(UsageError) as refused:
        recipes.load_harvest("contextual", [override])
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "nosuch"], ["nosuch", "contextual"]),
        (["--recipe", "nosuch.yaml"], ["nosuch.yaml"]),
        (["filters.most_fils=3"], ["filters.most_fils=3", "overrides nothing"]),
        (["--render", "pdf"], ["renderings", "pdf"]),
        (["--render", "][,"], ["renderings"]),
        (["--policy", "wander"], ["policy", "wander"]),
        (["--mask", "half"], ["mask", "half"]),
        (["--languages", "klingon"], ["klingon", "python"]),
        (["--tokenizer", "/nonexistent/tokenizer.json"], ["/nonexistent/tokenizer.json", "tokenizer.json"]),
        (["--limit", "-1"], ["--limit"]),
        (["--workers", "several"], ["--workers"]),
        (["--shard", "3/2"], ["3/2", "I/N"]),
        (["--shard", "0/2"], ["0/2"]),
        (["--shard", "half"], ["half"]),
        (["--executor", "slurm"], ["slurm", "local"]),
        (["--pulls", "/nonexistent/pulls.jsonl"], ["/nonexistent/pulls.jsonl"]),
        (["--seed", "99999999999999999999"], ["seed"]),
        (["--nosuch"], ["--nosuch"]),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_written(
    repository: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = agentdata("harvest", "contextual", repository, "-o", tmp_path / "run", "-j1", *arguments)
    done.explains(*words, status=2)
    assert not (tmp_path / "run").exists()


def test_the_output_must_be_named(repository: Path) -> None:
    agentdata("harvest", "contextual", repository).explains("--output", status=2)


def test_a_harvest_of_overrides_alone_names_no_repository(tmp_path: Path) -> None:
    done = agentdata("harvest", "contextual", "unit_changes=3", "-o", tmp_path / "run")
    done.explains("No repository is named", status=2)


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff\xfe", b'{"version": "1.0", "model": null}'])
def test_an_unreadable_tokenizer_is_refused_with_its_name(repository: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    done = agentdata("harvest", "contextual", repository, "-o", tmp_path / "run", "--tokenizer", path)
    done.explains(str(path), status=2)
    assert not (tmp_path / "run").exists()


def test_a_directory_without_a_tokenizer_is_refused_without_asking_the_network(
    repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = agentdata("harvest", "contextual", repository, "-o", tmp_path / "run", "--tokenizer", tmp_path / "empty")
    done.explains(str(tmp_path / "empty"), status=2)


def test_a_tokenizer_counts_the_tokens_of_each_row(repository: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    run = tmp_path / "run"
    agentdata("harvest", "contextual", repository, "-o", run, "-j1", "--tokenizer", path).succeeds()
    for row in table(run, "markdown"):
        assert row["token_counter"] == str(path)
        counts = [
            (len(tokenizer.encode(row["text"][one["start"] : one["end"]]).ids), one["train"]) for one in row["segments"]
        ]
        assert row["tokens"] == sum(count for count, _ in counts)
        assert row["trained_tokens"] == sum(count for count, train in counts if train)
