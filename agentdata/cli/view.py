"""`agentdata view`: a local server that shows rows."""

import socket
from pathlib import Path

import typer


def view(
    folders: list[Path] = typer.Argument(..., metavar="DIR|RUN...", help="Datasets, runs, evaluations."),
    port: int = typer.Option(8000, "--port", min=0, max=65535, help="Port; 0 for a free one."),
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen at."),
) -> None:
    """Show samples, trajectories and tasks in a browser: filtered, step by step, with what is trained and what was judged.

    Example: agentdata view runs/click
    """
    import sys

    from agentdata.errors import UsageError

    try:
        import uvicorn

        from agentdata.viewer.app import make_app
        from agentdata.viewer.tables import open_folder
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'agentdata[view]'.") from error
    app = make_app([open_folder(folder) for folder in folders], host)
    if host not in ("127.0.0.1", "localhost"):
        print(f"Whoever reaches {host} can read these folders: nobody is asked for a password.", file=sys.stderr)
    with _listening(host, port) as listener:
        print(f"http://{host}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    from agentdata.errors import UsageError

    try:
        return socket.create_server((host, port))
    except OSError as error:
        words = error.strerror or str(error)
        raise UsageError(
            f"Cannot listen at {host}:{port}: {words}. Choose another --port, or 0 for a free one."
        ) from error
