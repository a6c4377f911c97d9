"""An OpenAI-compatible chat server on localhost that answers by a function, and misbehaves on demand."""

import json
import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from agentdata.rollouts.policy import Reply

Fault = Literal[
    "500",
    "503",
    "429",
    "timeout",
    "no-answer",
    "cut-stream",
    "garbage",
    "wrong-json",
    "empty-choices",
    "context-overflow",
    "unknown-model",
    "no-tools",
    "bad-key",
]
PASSING: tuple[Fault, ...] = ("500", "timeout", "cut-stream", "garbage", "wrong-json", "empty-choices")
"""Faults that a patient client gets over."""

Answer = Callable[[list[dict[str, Any]]], Reply]
"""The messages of a request, as they came over the wire, to the turn that answers them."""

ERRORS: dict[str, tuple[int, str]] = {
    "500": (500, "Internal server error"),
    "503": (503, "The engine is dead"),
    "429": (429, "Rate limit reached"),
    "context-overflow": (
        400,
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
    ),
    "unknown-model": (404, "The model `nobody` does not exist."),
    "no-tools": (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    "bad-key": (401, "Unauthorized"),
}


class ModelServer:
    """Serves `answer` until the block ends.

    `faults` are spent one for each chat request, in order; after them a `share` of requests fails with a fault drawn
    from `PASSING` by `seed`. `raw` replaces the body of good answers by a function of it; `refuse` is the status and
    body of every answer; requests with `unknown_fields` are refused.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        models: Sequence[str] = ("tiny",),
        max_model_len: int = 4096,
        faults: Sequence[Fault] = (),
        share: float = 0.0,
        seed: int = 0,
        seconds: float = 0.0,
        hang_seconds: float = 30.0,
        retry_after: str = "0",
        raw: Callable[[dict[str, Any]], object] | None = None,
        refuse: tuple[int, dict[str, Any]] | None = None,
        unknown_fields: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        self.answer: Answer = answer or (lambda messages: Reply(content=f"turn {len(messages)}"))
        self.models = models
        self.max_model_len = max_model_len
        self.faults: deque[Fault] = deque(faults)
        self.share = share
        self.seconds = seconds
        """What every good answer takes."""
        self.hang_seconds = hang_seconds
        self.retry_after = retry_after
        self.raw = raw
        self.refuse = refuse
        self.unknown_fields = unknown_fields
        self.requests: list[dict[str, Any]] = []
        """Bodies of the chat requests, in the order in which they came."""
        self.keys: list[str] = []
        self.faulted: list[Fault] = []
        self.most_in_flight = 0
        self.connections: set[socket.socket] = set()
        self._in_flight = 0
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Exchange)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, as given to a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and let go of requests that hang."""
        self._stopped.set()
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hang_up(self) -> None:
        """Close the connections that clients keep open, as servers do after some seconds."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def take(self, body: dict[str, Any], key: str) -> Fault | None:
        """Note a request, and say how it is to fail."""
        with self._lock:
            self.requests.append(body)
            self.keys.append(key)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            fault: Fault | None = None
            if self.faults:
                fault = self.faults.popleft()
            elif self._draw.random() < self.share:
                fault = self._draw.choice(PASSING)
            if fault is not None:
                self.faulted.append(fault)
            return fault

    def release(self) -> None:
        """Note that a request is done with."""
        with self._lock:
            self._in_flight -= 1

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the end of the server."""
        if seconds:
            self._stopped.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    owner: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away are no news."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.owner.connections.add(self.connection)

    def finish(self) -> None:
        self.server.owner.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        owner = self.server.owner
        if self.path == "/v1/models":
            rows = [{"id": name, "object": "model", "max_model_len": owner.max_model_len} for name in owner.models]
            self._send(200, {"object": "list", "data": rows})
        elif self.path == "/health":
            self._send(200, {})
        else:
            self._send(404, {"error": {"message": "Not Found"}})

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = owner.take(body, self.headers.get("Authorization", ""))
        try:
            if fault is not None:
                self._fail(fault)
            elif owner.refuse is not None:
                self._send(*owner.refuse)
            elif body["model"] not in owner.models:
                self._refuse("unknown-model")
            elif unknown := [name for name in owner.unknown_fields if name in body]:
                self._send(400, {"error": {"message": f"Unrecognized request argument supplied: {unknown[0]}"}})
            else:
                owner.wait(owner.seconds)
                reply = completion(owner.answer(body["messages"]), body)
                self._send(200, owner.raw(reply) if owner.raw else reply)
        finally:
            owner.release()

    def _fail(self, fault: Fault) -> None:
        owner = self.server.owner
        match fault:
            case "timeout":
                owner.wait(owner.hang_seconds)
                self.close_connection = True
            case "no-answer":
                self.close_connection = True
            case "cut-stream":
                self._head(200, 4000)
                self.wfile.write(b'{"choices": [{"message": {"content": "I will')
                self.close_connection = True
            case "garbage":
                self._write(200, b"\x00\xff<html>proxy</html>\xfe")
            case "wrong-json":
                self._send(200, {"status": "ok"})
            case "empty-choices":
                self._send(200, {"id": "x", "object": "chat.completion", "choices": [], "usage": None})
            case _:
                self._refuse(fault)

    def _refuse(self, fault: Fault) -> None:
        status, message = ERRORS[fault]
        headers = {"Retry-After": self.server.owner.retry_after} if fault == "429" else {}
        self._send(status, {"error": {"message": message, "type": "Error", "param": None, "code": status}}, headers)

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self._write(status, json.dumps(body).encode(), headers)

    def _write(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), headers)
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


def completion(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    """A chat completion as vLLM writes it. Tokens are the bytes of what they stand for, unless the reply has its own."""
    prompt = json.dumps(request["messages"]).encode()
    sampled = reply.token_ids or tuple(reply.content.encode())
    choice: dict[str, Any] = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": reply.content or None,
            "reasoning": reply.reasoning_content or None,
            "tool_calls": [call.model_dump() for call in reply.tool_calls],
        },
        "finish_reason": "tool_calls" if reply.tool_calls else reply.finish_reason,
        "logprobs": None,
        "token_ids": list(sampled) if request.get("return_token_ids") else None,
    }
    if request.get("logprobs"):
        choice["logprobs"] = {
            "content": [{"token": f"token_id:{token}", "logprob": -0.5, "top_logprobs": []} for token in sampled]
        }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": request["model"],
        "choices": [choice],
        "usage": {
            "prompt_tokens": reply.prompt_tokens or len(prompt),
            "completion_tokens": reply.completion_tokens or len(sampled),
            "total_tokens": len(prompt) + len(sampled),
        },
        "prompt_token_ids": list(reply.prompt_token_ids or prompt) if request.get("return_token_ids") else None,
    }
