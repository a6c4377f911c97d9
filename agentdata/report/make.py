"""A directory to its report: what it is, its page, the file."""

import json
from pathlib import Path

from agentdata.errors import UsageError, explain_os_error
from agentdata.evaluate.report import FILE, read_report
from agentdata.midtrain.packed import read_pack_manifest
from agentdata.report import evaluations, packs, runs, trainings
from agentdata.report.page import Page, render
from agentdata.shards import read_manifest, write_whole

NAME = "report.html"


def write_report(directory: Path, output: Path | None = None) -> Path:
    """Write the report of a directory, into it where no file is named; gives the file. Raises UsageError, RunError."""
    path = output or directory / NAME
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a file with -o, such as {path / NAME}.")
    text = render(page_of(directory))
    try:
        write_whole(path, text)
    except OSError as error:
        raise explain_os_error(error, f"writing {path}") from error
    return path


def page_of(directory: Path) -> Page:
    """What is told of a directory. Raises UsageError for one that is nothing known, unfinished, or of another version."""
    if (directory / trainings.METRICS).is_file():
        return trainings.page(directory)
    if (directory / FILE).is_file():
        return evaluations.page(directory, read_report(directory))
    manifest, configuration = (_keys(directory / name) for name in ("manifest.json", "config.json"))
    if "ledger" in manifest:
        return packs.page(directory, read_pack_manifest(directory))
    if not (directory / "manifest.json").is_file() and "generator" not in configuration:
        raise UsageError(
            f"{directory} is nothing to report on: give a dataset, packed rows, an evaluation, a training, or another run "
            "that a command wrote with -o."
        )
    return runs.page(directory, read_manifest(directory))


def _keys(path: Path) -> set[str]:
    """What a file of JSON tells of; nothing where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return set()
    return set(found) if isinstance(found, dict) else set()
