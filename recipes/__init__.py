"""What to run with which numbers: YAML files and prompts, validated by the records that they fill."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from agentdata.datasets.recipe import DatasetRecipe
from agentdata.environments.recipe import EnvironmentRecipes
from agentdata.errors import UsageError
from agentdata.harvest.languages import LANGUAGES
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.midtrain.recipe import PackRecipe
from agentdata.records import Record
from agentdata.rollouts.recipe import RolloutRecipe
from agentdata.rollouts.scaffold import Scaffold
from agentdata.rollouts.view import ViewRecipe
from agentdata.training.recipe import TrainingRecipe

HERE = Path(__file__).parent
GROUPS = {"general": tuple(LANGUAGES)}
FILES = ("system_prompt", "tools")
OTHERS = ("dataset", "environments", "environmental", "environmental-view", "evaluate", "midtrain", "pack")
"""Recipes of other commands than a harvest's."""
Fitted = TypeVar("Fitted", bound=Record)


def names() -> list[str]:
    """Names of the recipes of a harvest that come with the toolkit."""
    return sorted(path.stem for path in HERE.glob("*.yaml") if path.stem not in OTHERS)


def load_harvest(name: str, overrides: Sequence[str] = ()) -> HarvestRecipe:
    """A recipe by name or path, with `key.sub=value` overrides in YAML syntax. Raises UsageError."""
    path, values = _read(name)
    for override in overrides:
        _override(values, override)
    for key in FILES:
        values[key] = _text(path.parent, str(values.get(key, "")))
    values["languages"] = _languages(values.get("languages"))
    return _fitted(path, values, HarvestRecipe)


def load_environments(name: str) -> EnvironmentRecipes:
    """How environments are built, by name or path. Raises UsageError."""
    path, values = _read(name)
    return _fitted(path, values, EnvironmentRecipes)


def scaffolds() -> list[str]:
    """Names of the scaffolds that come with the toolkit."""
    return sorted(path.stem for path in (HERE / "scaffolds").glob("*.yaml"))


def load_pack(name: str, overrides: Sequence[str] = ()) -> PackRecipe:
    """How rows are packed, by name or path, over the built-in values, with overrides. Raises UsageError."""
    path, values = _read(name)
    _, built_in = _read("pack")
    values = {**built_in, **values}
    for override in overrides:
        _override(values, override)
    return _fitted(path, values, PackRecipe)


def trainings() -> list[str]:
    """Names of the recipes of trainings that come with the toolkit."""
    return sorted(path.stem for path in (HERE / "training").glob("*.yaml"))


def load_training(name: str, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """How a model is trained, by name or path, over the built-in values, with overrides. Raises UsageError.

    `stage` holds what the stages have in common; each of `stages` says what is different.
    """
    _, built_in = _read("midtrain")
    path, values = _read(name, HERE / "training", trainings())
    values = _merged(built_in, values)
    of_one_stage = [override for override in overrides if override.startswith("stages.")]
    for override in overrides:
        if override not in of_one_stage:
            _override(values, override)
    common, stages = values.pop("stage") or {}, values["stages"]
    if not isinstance(common, dict) or not isinstance(stages, list):
        raise UsageError(f"The recipe {path} does not fit: stage is a mapping and stages is a list of mappings.")
    values["stages"] = [_merged(deepcopy(common), stage) for stage in stages]
    for override in of_one_stage:
        _override(values, override)
    return _fitted(path, values, TrainingRecipe)


def _merged(below: dict[str, Any], above: Any) -> Any:
    """Values over others, mapping by mapping."""
    if not isinstance(above, dict):
        return above
    inner = {
        key: _merged(below[key], value) if isinstance(below.get(key), dict) else value for key, value in above.items()
    }
    return {**below, **inner}


def load_scaffold(name: str) -> Scaffold:
    """A scaffold by name or path. Raises UsageError."""
    path, values = _read(name, HERE / "scaffolds", scaffolds())
    for key in ("system_prompt", "task_prompt", "tools", "format_error_prompt"):
        values[key] = _text(path.parent, str(values.get(key, "")))
    return _fitted(path, values, Scaffold)


def load_rollouts(name: str, overrides: Sequence[str] = ()) -> RolloutRecipe:
    """How a policy works on tasks, by name or path, with overrides. Raises UsageError."""
    path, values = _read(name)
    for override in overrides:
        _override(values, override)
    return _fitted(path, {**values, "scaffold": load_scaffold(str(values.get("scaffold", "")))}, RolloutRecipe)


def load_view(name: str, overrides: Sequence[str] = ()) -> ViewRecipe:
    """Which trajectories become training rows, by name or path, with overrides. Raises UsageError."""
    path, values = _read(name)
    for override in overrides:
        _override(values, override)
    return _fitted(path, values, ViewRecipe)


def load_dataset(name: str, overrides: Sequence[str] = ()) -> DatasetRecipe:
    """What a dataset is made of, by name or path, with overrides. Raises UsageError."""
    path, values = _read(name)
    for override in overrides:
        _override(values, override)
    return _fitted(path, values, DatasetRecipe)


def _read(name: str, folder: Path = HERE, known: Sequence[str] = ()) -> tuple[Path, dict[str, Any]]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        choices = ", ".join(known or [*names(), *OTHERS])
        raise UsageError(f"There is no recipe {name!r}: give a .yaml file or one of {choices}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the recipe {path}: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"The recipe {path} is not a mapping.")
    return path, values


def _fitted(path: Path, values: dict[str, Any], record: type[Fitted]) -> Fitted:
    try:
        return record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        words = f"{place}: {said}" if place else said
        if first["type"] == "extra_forbidden":
            words = f"there is no key {place}"
        given = first.get("input")
        told = "" if first["type"] == "missing" or isinstance(given, dict) else f" (got {given!r})"
        raise UsageError(f"The recipe {path} does not fit: {words}{told}.") from error


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *parents, last = key.split(".")
    inner: Any = values
    for parent in parents:
        if isinstance(inner, list):
            inner = dict(enumerate(inner)).get(int(parent) if parent.isdecimal() else -1)
        else:
            inner = inner.get(parent) if isinstance(inner, dict) else None
    if not separator or not isinstance(inner, dict) or last not in inner:
        raise UsageError(
            f"{override!r} overrides nothing: write key=value with a key of the recipe, as in filters.most_files=30."
        )
    try:
        inner[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{override!r}: the value is not YAML.") from error


def _text(folder: Path, value: str) -> str:
    """A prompt given as a file beside the recipe, else beside the built-in ones, else as the text itself."""
    if not value.endswith((".md", ".json")) or "\n" in value:
        return value
    for base in (folder, HERE):
        if (base / value).is_file():
            try:
                return (base / value).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"Cannot read {base / value}, which the recipe names: {error}.") from error
    raise UsageError(f"The recipe names the file {value!r}, which is neither in {folder} nor in {HERE}.")


def _languages(value: Any) -> list[str]:
    chosen = list(value) if isinstance(value, list | tuple) else [value] if value else []
    chosen = [name for one in chosen for name in GROUPS.get(str(one), (str(one),))]
    unknown = [name for name in chosen if name not in LANGUAGES]
    if unknown or not chosen:
        raise UsageError(f"Unknown languages {unknown}: choose from general, {', '.join(LANGUAGES)}.")
    return chosen
