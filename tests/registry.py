"""A registry on this machine that holds one image, for tests of pulling."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@contextmanager
def registry(name: str) -> Iterator[str]:
    """Serve an image with one file under `name`; where it is, as `localhost:PORT`."""
    served = _image(name)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, body = served.get(self.path, ("application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'))
            self.send_response(200 if self.path in served else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _image(name: str) -> dict[str, tuple[str, bytes]]:
    """Path to type and body of everything that is asked for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    root = {"type": "layers", "diff_ids": [_digest(buffer.getvalue())]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST}
    manifest |= {"config": _named(CONFIG, config), "layers": [_named(LAYER, layer)]}
    body = json.dumps(manifest).encode()
    path = f"/v2/{name}"
    return {
        "/v2/": ("application/json", b"{}"),
        f"{path}/manifests/latest": (MANIFEST, body),
        f"{path}/manifests/{_digest(body)}": (MANIFEST, body),
        f"{path}/blobs/{_digest(config)}": (CONFIG, config),
        f"{path}/blobs/{_digest(layer)}": (LAYER, layer),
    }


def _named(kind: str, body: bytes) -> dict[str, str | int]:
    return {"mediaType": kind, "size": len(body), "digest": _digest(body)}


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
