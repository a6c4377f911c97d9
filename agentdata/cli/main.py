"""The `agentdata` command. Errors that a user is meant to read end here, as one sentence."""

import os
import signal
import sys

import typer

from agentdata import __version__
from agentdata.cli import (
    dataset,
    doctor,
    environments,
    evaluate,
    harvest,
    look,
    midtrain,
    model,
    pack,
    publish,
    report,
    rollouts,
    runs,
    sandbox,
    serve,
    tasks,
    trajectories,
)
from agentdata.errors import AgentdataError, UsageError
from sandboxes.errors import SandboxError

app = typer.Typer(
    help="Turn repository histories and real tool runs into mid-training data for software-engineering agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
harvest.app.command("environmental")(rollouts.environmental)
app.add_typer(harvest.app, name="harvest")
app.add_typer(environments.app, name="environments")
app.add_typer(tasks.app, name="tasks")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(trajectories.app, name="trajectories")
app.add_typer(dataset.app, name="dataset")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(runs.app, name="runs")
app.add_typer(model.app, name="model")
app.command("serve")(serve.serve)
app.command("publish")(publish.publish)
app.command("pack")(pack.pack)
app.command("report")(report.report)
app.command("midtrain")(midtrain.midtrain)
app.command("show")(look.show)
app.command("check")(look.check)
app.command("demo")(look.demo)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"agentdata {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=True)
    except BrokenPipeError:
        # Whoever read the output has seen enough, as in `agentdata show RUN | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (AgentdataError, SandboxError) as error:
        print(f"agentdata: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
