"""Stands in for the `vllm` package where only its processes matter: a server that starts, crashes and has an engine."""

from pathlib import Path

SERVER = """
import os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
starts = open(options["--model"], "a+")
starts.write("x")
starts.flush()
starts.seek(0)
count = len(starts.read())
engine = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
print(f"engine {engine.pid}", flush=True)
print("arguments", *sys.argv[1:], flush=True)
if options.get("--dtype") == "broken" or (options.get("--dtype") == "once-broken" and count == 2):
    print("ValueError: no such type", flush=True)
    sys.exit(3)


class Exchange(BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        if self.path == "/crash":
            os._exit(7)
        self.send_response(200)
        self.end_headers()


ThreadingHTTPServer((options["--host"], int(options["--port"])), Exchange).serve_forever()
"""


def make_double(folder: Path) -> Path:
    """A folder for PYTHONPATH in which `vllm` is."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for place in (package, package.parent, package.parent.parent):
        (place / "__init__.py").touch()
    (package / "api_server.py").write_text(SERVER)
    return folder
