"""`agentdata harvest`: repository histories to changes and contextual samples."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentdata.errors import RunError, UsageError

if TYPE_CHECKING:
    from agentdata.harvest.run import Outcome

app = typer.Typer(help="Harvest trajectories from repositories.", no_args_is_help=True)

OVERRIDE = re.compile(r"^[a-z_]+(?:\.[a-z_]+)*=")

Sources = typer.Argument(
    ...,
    metavar="SOURCE... [KEY=VALUE...]",
    help="Clones, bare mirrors, URLs or @list.yaml/.jsonl/.parquet; then overrides of the recipe.",
)
Output = typer.Option(..., "--output", "-o", metavar="RUN", help="Directory of the run; the same command continues it.")
RecipeName = typer.Option("contextual", "--recipe", help="Name or path of the recipe.")
Branch = typer.Option("", "--branch", help="Branch to harvest instead of HEAD.")
Limit = typer.Option(0, "--limit", min=0, help="Newest landings of each repository; 0 for all.")
Pulls = typer.Option("", "--pulls", metavar="FILE", help="JSONL or Parquet with pull-request and issue texts to join.")
Workers = typer.Option(0, "--workers", "-j", min=0, help="Processes; 0 for one per core.")
ExecutorName = typer.Option("local", "--executor", help="local or ray.")
Share = typer.Option(
    "1/1", "--shard", metavar="I/N", help="Do the I-th of N shares of the work, on the same directory."
)
Cache = typer.Option("", "--cache", metavar="DIR", help="Where mirrors of URLs are kept.")


@app.command("changes")
def changes(
    sources: list[str] = Sources,
    output: Path = Output,
    recipe: str = RecipeName,
    branch: str = Branch,
    limit: int = Limit,
    pulls: str = Pulls,
    workers: int = Workers,
    executor: str = ExecutorName,
    shard: str = Share,
    cache: str = Cache,
) -> None:
    """Rebuild landed changes (pull requests, commits) from histories alone.

    Example: agentdata harvest changes ~/src/click -o runs/click-changes
    """
    _harvest("changes", sources, output, recipe, [], branch, limit, pulls, workers, executor, shard, cache)


@app.command("contextual")
def contextual(
    sources: list[str] = Sources,
    output: Path = Output,
    recipe: str = RecipeName,
    render: str = typer.Option(
        "", "--render", metavar="NAMES", help="markdown, xml, messages: one or several, with commas."
    ),
    policy: str = typer.Option("", "--policy", help="direct or explore."),
    mask: str = typer.Option("", "--mask", help="What is trained: all or actions-only."),
    languages: str = typer.Option("", "--languages", help="Names with commas, or general for all."),
    tokenizer: str = typer.Option("", "--tokenizer", help="tokenizer.json, directory or Hub id that counts tokens."),
    seed: int | None = typer.Option(None, "--seed", min=0, help="Seed of the explore policy."),
    branch: str = Branch,
    limit: int = Limit,
    pulls: str = Pulls,
    workers: int = Workers,
    executor: str = ExecutorName,
    shard: str = Share,
    cache: str = Cache,
) -> None:
    """Harvest changes and tell each as a trajectory whose every observation is proved.

    Example: agentdata harvest contextual ~/src/click -o runs/click --render markdown,messages filters.most_files=10
    """
    overrides = [
        f"{key}={value}"
        for key, value in (
            ("renderings", f"[{render}]" if render else ""),
            ("exploration.policy", policy),
            ("exploration.seed", str(seed) if seed is not None else ""),
            ("mask", mask),
            ("languages", f"[{languages}]" if languages else ""),
            ("tokenizer", tokenizer),
        )
        if value
    ]
    _harvest("contextual", sources, output, recipe, overrides, branch, limit, pulls, workers, executor, shard, cache)


def _harvest(
    stage: str,
    arguments: list[str],
    output: Path,
    recipe_name: str,
    overrides: list[str],
    branch: str,
    limit: int,
    pulls: str,
    workers: int,
    executor: str,
    shard: str,
    cache: str,
) -> None:
    import os

    import recipes
    from agentdata.harvest.run import HarvestOptions, harvest
    from agentdata.harvest.sources import default_cache, expand
    from agentdata.tokens import token_counter

    given = [argument for argument in arguments if OVERRIDE.match(argument) and not Path(argument).exists()]
    sources = expand([argument for argument in arguments if argument not in given])
    if not sources:
        raise UsageError("No repository is named: give a clone, a URL or @list.yaml.")
    recipe = recipes.load_harvest(recipe_name, [*overrides, *given])
    token_counter(recipe.tokenizer, recipe.bytes_per_token)
    if executor not in ("local", "ray"):
        raise UsageError(f"--executor {executor!r} is neither local nor ray.")
    if pulls and not Path(pulls).is_file():
        raise UsageError(f"--pulls {pulls!r} is not a file.")
    options = HarvestOptions(stage=stage, branch=branch, limit=limit, pulls=pulls, cache=cache or str(default_cache()))
    try:
        outcome = harvest(
            output,
            sources,
            recipe,
            options,
            workers=workers or len(os.sched_getaffinity(0)),
            executor="ray" if executor == "ray" else "local",
            share=_share(shard),
        )
    except KeyboardInterrupt:
        print(f"\nStopped. Finished shards are kept; the same command goes on in {output}.", file=sys.stderr)
        raise typer.Exit(130) from None
    report(output, outcome)


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text!r} is not I/N with 1 <= I <= N, as in 2/8.")
    return int(found[1]), int(found[2])


def report(run: Path, outcome: "Outcome") -> None:
    """Say what a harvest gave, and which sources failed."""
    for failure in outcome.failures:
        print(f"agentdata: {failure.error}", file=sys.stderr)
    manifest = outcome.manifest
    if manifest is None:
        if outcome.failures:
            raise RunError(
                f"{len(outcome.failures)} repositories failed; the same command tries them again. {run} is not finished."
            )
        print(f"This share is done; other shares of {run} are still owed.")
        return
    counts = {count.name: count.count for count in manifest.counts}
    landings, changes = counts.get("landings", 0), counts.get("changes", 0)
    print(f"{run}: {landings:,} landings, {changes:,} changes, {counts.get('traces', 0):,} proved")
    tokens = [count for count in manifest.tokens if "/" not in count.name]
    for count in tokens:
        print(f"  {count.name}: {counts.get(f'samples/{count.name}', 0):,} samples, {count.count:,} tokens")
    for count in manifest.rejections:
        print(f"  dropped {count.count:,}: {count.name}")
    first = tokens[0].name if tokens else ""
    if first:
        print(f'\nLook:  agentdata show {run}\nLoad:  datasets.load_dataset("{run}", "{first}")')
    elif not counts.get("changes"):
        print("Nothing was harvested; the reasons are above and in the table `rejected`.")
    if outcome.failures:
        total = len(outcome.failures) + counts.get("sources", 0)
        raise RunError(f"{len(outcome.failures)} of {total} repositories failed; the same command tries them again.")
