"""`agentdata serve`: a model behind an endpoint on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from agentdata.rollouts.serving import ServerOptions


def serve(
    model: str = typer.Argument("", metavar="MODEL", help="Name on the hub, or a folder."),
    extra: list[str] = typer.Argument(None, metavar="[-- VLLM_OPTION...]", help="Further options, passed to vLLM."),
    name: str = typer.Option("", help="The name that requests give; MODEL unless given."),
    host: str = typer.Option("127.0.0.1", help="Where to listen; 0.0.0.0 for every network, which asks for no key."),
    port: int = typer.Option(8000, min=0, max=65535, help="0 for a free one."),
    tensor_parallel: int = typer.Option(1, "--tensor-parallel", "-t", min=1, help="GPUs that share each layer."),
    context: int = typer.Option(0, min=0, help="Tokens of prompt and reply together; 0 for what the model allows."),
    tool_call_parser: str = typer.Option(
        "", help="How the model writes tool calls: hermes, qwen3_coder, llama3_json, ...; without it there are none."
    ),
    chat_template: str = typer.Option("", metavar="FILE", help="Template in place of the model's."),
    dtype: str = typer.Option("", help="Type of weights, such as bfloat16; the model's unless given."),
    python: str = typer.Option(
        "", metavar="PATH", help="Interpreter that has vLLM; this one or the installed, if empty."
    ),
    log: Path = typer.Option(None, metavar="FILE", help="Where vLLM's output goes; to vllm-PORT.log if not given."),
    install: bool = typer.Option(
        False, "--install", help="Make an environment with vLLM first (for the CPU where there is no GPU)."
    ),
) -> None:
    """Serve a model with vLLM, restart it when it crashes, and print its endpoint. Ctrl-C stops it.

    Example: agentdata serve Qwen/Qwen3-Coder-30B-A3B-Instruct --tool-call-parser qwen3_coder -t 2 -- --max-num-seqs 128
    """
    from agentdata.errors import UsageError
    from agentdata.rollouts import vllm_environment
    from agentdata.rollouts.serving import ServerOptions

    if install:
        folder = vllm_environment.environment()
        _say(f"Making {folder}; this takes some minutes.")
        _say(f"vLLM is there: {vllm_environment.install(folder)}")
    if not model:
        if install:
            return
        raise UsageError("MODEL is missing: name a model on the hub, or a folder that holds one.")
    options = ServerOptions(
        model=model,
        name=name,
        python=vllm_environment.find_python(python),
        host=host,
        port=port,
        tensor_parallel=tensor_parallel,
        context=context,
        tool_call_parser=tool_call_parser,
        chat_template=chat_template,
        dtype=dtype,
        extra=tuple(extra or ()),
    )
    _serve(options, log)


def _serve(options: "ServerOptions", log: Path | None) -> None:
    from agentdata.rollouts.serving import Server

    try:
        with Server(options, log) as server:
            _say(f"Starting vLLM; its log is {server.log}")
            server.wait_ready(say=_say)
            print(server.url, flush=True)
            _say(f"{server.model} is served. Stop it with Ctrl-C.")
            server.watch(say=_say)
    except KeyboardInterrupt:
        _say("vLLM is stopped.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
