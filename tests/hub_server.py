"""A Hub on this machine for the real client: repositories of datasets, large files, commits, downloads, and its faults.

It speaks what `huggingface_hub` and `datasets` ask for: identity, creation, trees, commits, resolved files, and the upload
of large files by both protocols: Xet, and that of Git LFS where HF_HUB_DISABLE_XET switches the first off.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests import xet_store

TOKEN = "hf_valid"
USER = "owner"
LARGE = 20_000
"""Bytes from which a file that is no text is stored as a large one."""


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    content: bytes
    large: bool

    @property
    def entry(self) -> dict[str, Any]:
        """As the Hub lists it."""
        digest = hashlib.sha256(self.content).hexdigest()
        listed: dict[str, Any] = {"type": "file", "size": len(self.content), "oid": blob_name(self.content)}
        if self.large:
            listed["lfs"] = {"oid": digest, "size": len(self.content), "pointerSize": 134}
        return listed

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.content).hexdigest() if self.large else blob_name(self.content)


def blob_name(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """A dataset: commits by name, each with all its files, and branches."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, File]) -> str:
        names = "".join(f"{path} {file.etag}\n" for path, file in sorted(files.items()))
        name = hashlib.sha1(f"{len(self.commits)} {branch}\n{names}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> tuple[str, dict[str, File]] | None:
        name = self.branches.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


@dataclass
class Fault:
    """What the server does instead of answering: a status, or with status 0 it cuts the connection."""

    method: str
    path: str
    """Regular expression searched in the path."""
    status: int
    times: int = 1
    message: str = ""
    after: int = 0
    """Requests that are let through first."""


class Hub:
    """The server's state, as a test looks at it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.xorbs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.tokens = {TOKEN}
        self.lock = threading.Lock()
        self.on_commit: Callable[[], None] = lambda: None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        """What a branch holds."""
        found = self.repos[repo].at(branch)
        return {path: file.content for path, file in found[1].items()} if found else {}

    def uploads(self) -> list[str]:
        """Digests of the large files whose contents came, in order."""
        return [line.rpartition("/")[2] for line in self.requests if line.startswith("PUT ")]

    def fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        with self.hub.lock:
            fault = self.hub.fault_for(method, path)
            if fault:
                self._fail(fault)
                return
            self.hub.requests.append(f"{method} {path}")
            self._route(method, path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _fail(self, fault: Fault) -> None:
        if fault.status:
            self._json({"error": fault.message or "injected"}, fault.status)
            return
        self.close_connection = True
        self.connection.close()

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        if status >= 400 and isinstance(value, dict) and "error" in value:
            headers.setdefault("X-Error-Message", str(value["error"]))
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # Routes

    def _route(self, method: str, path: str, body: bytes) -> None:
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", self._validate),
            ("GET", r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            ("GET", r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", self._tree),
            ("POST", r"/api/datasets/([^/]+/[^/]+)/paths-info/(.+)", self._paths),
            ("POST", r"/api/datasets/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            ("POST", r"/api/datasets/([^/]+/[^/]+)/commit/(.+)", self._commit),
            ("POST", r"/api/datasets/([^/]+/[^/]+)/branch/(.+)", self._branch),
            ("POST", r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            ("GET", r"/api/datasets/([^/]+/[^/]+)/xet-write-token/(.+)", self._xet_token),
            ("POST", r"/v1/xorb-grants/default/([0-9a-f]{64})", self._grant),
            ("POST", r"/v1/xorbs/default/([0-9a-f]{64})", self._xorb),
            ("POST", r"/v1/shards", self._shard),
            ("PUT", r"/large/([0-9a-f]{64})", self._upload),
            ("POST", r"/large/verify", self._verify),
            ("GET", r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            ("HEAD", r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ]
        for expected, pattern, answer in routes:
            found = re.fullmatch(pattern, path)
            if found and expected == method:
                answer(*found.groups(), body=body)
                return
        self._json({"error": f"no such path {path}"}, 404, X_Error_Code="EntryNotFound")

    def _user(self) -> bool:
        """Whether the token is good; else the answer is given."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.hub.tokens:
            return True
        self._json({"error": "Invalid credentials in Authorization header"}, 401)
        return False

    def _repo(self, name: str, revision: str = "main") -> tuple[Repo, str, dict[str, File]] | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return None
        found = repo.at(revision)
        if found is None:
            self._json({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
            return None
        return repo, *found

    def _whoami(self, *, body: bytes) -> None:
        if self._user():
            self._json({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def _create(self, *, body: bytes) -> None:
        asked = json.loads(body)
        if not self._user():
            return
        owner = asked.get("organization") or USER
        if owner != USER:
            message = f"You don't have the rights to create a dataset under the namespace {owner!r}"
            self._json({"error": message}, 403)
            return
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repos:
            self._json(
                {"error": "You already created this dataset repo", "url": f"{self.hub.url}/datasets/{name}"}, 409
            )
            return
        repo = self.hub.repos[name] = Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        repo.commit("main", {".gitattributes": File(b"*.parquet filter=lfs\n", large=False)})
        self._json({"url": f"{self.hub.url}/datasets/{name}"})

    def _validate(self, *, body: bytes) -> None:
        header = json.loads(body)["content"].split("---\n")[1]
        found = yaml.safe_load(header)
        errors = [] if isinstance(found.get("configs"), list) else [{"message": "configs must be a list"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _info(self, name: str, revision: str | None, *, body: bytes) -> None:
        if found := self._repo(name, revision or "main"):
            repo, commit, files = found
            siblings = [{"rfilename": path} for path in sorted(files)]
            self._json({"id": name, "sha": commit, "private": repo.private, "siblings": siblings, "tags": []})

    def _tree(self, name: str, revision: str, folder: str | None, *, body: bytes) -> None:
        if found := self._repo(name, revision):
            prefix = f"{folder}/" if folder else ""
            entries: dict[str, dict[str, Any]] = {}
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            for path, file in sorted(found[2].items()):
                if path.startswith(prefix):
                    parts = path.removeprefix(prefix).split("/")
                    for depth in range(1, len(parts)):
                        above = prefix + "/".join(parts[:depth])
                        if recursive or depth == 1:
                            entries[above] = {"type": "directory", "path": above, "oid": "0" * 40, "size": 0}
                    if recursive or len(parts) == 1:
                        entries[path] = {"path": path, **file.entry}
            if not entries and folder:
                self._json({"error": f"{folder} does not exist"}, 404, X_Error_Code="EntryNotFound")
                return
            self._json(list(entries.values()))

    def _paths(self, name: str, revision: str, *, body: bytes) -> None:
        if found := self._repo(name, revision):
            asked = json.loads(body) if body[:1] == b"{" else parse_qs(body.decode())
            listed: list[dict[str, Any]] = []
            for path in asked["paths"]:
                if path in found[2]:
                    listed.append({"path": path, **found[2][path].entry})
                elif any(other.startswith(f"{path}/") for other in found[2]):
                    listed.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
            self._json(listed)

    def _preupload(self, name: str, revision: str, *, body: bytes) -> None:
        found = self._repo(name, revision) if self._user() else None
        if found:
            answers = []
            for file in json.loads(body)["files"]:
                large = file["path"].endswith(".parquet") or file["size"] > LARGE * 500
                there = found[2].get(file["path"])
                answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                answers.append(answer | ({"oid": there.etag} if there else {}))
            self._json({"files": answers})

    def _batch(self, name: str, *, body: bytes) -> None:
        if self._user() and self._repo(name):
            objects = []
            for asked in json.loads(body)["objects"]:
                one = {"oid": asked["oid"], "size": asked["size"]}
                if asked["oid"] not in self.hub.large:
                    upload = {"href": f"{self.hub.url}/large/{asked['oid']}"}
                    one["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/large/verify"}}
                objects.append(one)
            self._json({"transfer": "basic", "objects": objects})

    def _upload(self, digest: str, *, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            self._json({"error": "another content"}, 400)
            return
        self.hub.large[digest] = body
        self._json({})

    def _verify(self, *, body: bytes) -> None:
        asked = json.loads(body)
        there = self.hub.large.get(asked["oid"])
        self._json({}, 200 if there is not None and len(there) == asked["size"] else 404)

    def _xet_token(self, name: str, revision: str, *, body: bytes) -> None:
        if self._user() and self._repo(name, revision):
            until = int(time.time()) + 3600
            headers = {"X-Xet-Cas-Url": self.hub.url, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": str(until)}
            self._json({"casUrl": self.hub.url, "accessToken": "x", "exp": until}, 200, **headers)

    def _grant(self, digest: str, *, body: bytes) -> None:
        self._json({"error": "send it here"}, 404)

    def _xorb(self, digest: str, *, body: bytes) -> None:
        inserted = digest not in self.hub.xorbs
        self.hub.xorbs[digest] = body
        self._json({"was_inserted": inserted})

    def _shard(self, *, body: bytes) -> None:
        self.hub.large.update(xet_store.files(body, self.hub.xorbs))
        self._json({"result": 1})

    def _branch(self, name: str, branch: str, *, body: bytes) -> None:
        if (found := self._repo(name)) and self._user():
            if branch in found[0].branches:
                self._json({"error": "Reference already exists"}, 409)
                return
            found[0].branches[branch] = found[1]
            self._json({})

    def _commit(self, name: str, branch: str, *, body: bytes) -> None:
        self.hub.on_commit()
        found = self._repo(name, branch) if self._user() else None
        if not found:
            return
        repo, head, files = found
        files = dict(files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit", head) != head:
                self._json({"error": "The branch was updated since the parent commit"}, 412)
                return
            if item["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), large=False)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    self._json({"error": f"{value['path']} was not uploaded"}, 400)
                    return
                files[value["path"]] = File(self.hub.large[value["oid"]], large=True)
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        name_of_commit = repo.commit(branch, files)
        self._json(
            {"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{name_of_commit}", "commitOid": name_of_commit}
        )

    def _resolve(self, name: str, revision: str, path: str, *, body: bytes) -> None:
        found = self._repo(name, revision)
        if not found:
            return
        file = found[2].get(path)
        if file is None:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": found[1], "Accept-Ranges": "bytes"}
        content, status = file.content, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[start : end + 1], 206
        self._send(content, status, headers)
