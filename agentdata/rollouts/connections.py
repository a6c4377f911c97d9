"""Connections to one endpoint that are kept open between requests, and can be cut while a request is under way."""

import http.client
import select
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from agentdata.errors import UsageError

CONNECT_SECONDS = 10.0


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Connections:
    """Any number of threads ask at once, each over a connection of its own.

    A plain client of the standard library, since this is called thousands of times: a quarter of the time of a general
    one, an order of magnitude less than the SDK's.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        """`seconds` is how long the server may be silent. Raises UsageError for what is no URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address of an endpoint: give one such as http://127.0.0.1:8000/v1.")
        self._secure = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._proxy = _proxy(parts.scheme, parts.netloc)
        path = parts.path.rstrip("/")
        self._base = f"http://{parts.netloc}{path}" if self._proxy and not self._secure else path
        self._seconds = seconds
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """The answer to one request; `path` follows that of the URL.

        Raises OSError and http.client.HTTPException where no answer came whole.
        """
        connection = self._take()
        try:
            if connection.sock is None:
                self._connect(connection)
            connection.request(method, self._base + path, body, dict(headers))
            found = connection.getresponse()
            answer = Answer(found.status, found.headers, found.read())
        except BaseException:
            self._give(connection, keep=False)
            raise
        self._give(connection, keep=not found.will_close)
        return answer

    def close(self) -> None:
        """Cut every connection; requests that are under way end with an error."""
        with self._lock:
            self._closed = True
            for connection in self._busy:
                # Closing alone does not wake a thread that reads.
                if connection.sock is not None:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)
            while self._idle:
                self._idle.pop().close()

    def _take(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError("the connections were closed")
            connection = self._idle.pop() if self._idle else self._new()
            if connection.sock is not None and not _alive(connection.sock):
                # A server closes what is idle for some seconds, which is what a tool takes.
                connection.close()
            self._busy.add(connection)
            return connection

    def _give(self, connection: http.client.HTTPConnection, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if keep and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._proxy or (self._host, self._port)
        if self._secure is None:
            return http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._secure)
        if self._proxy:
            connection.set_tunnel(self._host, self._port)
        return connection

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        connection.sock.settimeout(self._seconds)
        # A reply may take minutes in which nothing is sent; what stands between must not forget the connection.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _alive(idle: socket.socket) -> bool:
    """Whether the server still holds an idle connection: one that has something to read is at its end."""
    ready = select.poll()
    ready.register(idle, select.POLLIN)
    return not ready.poll(0)


def _proxy(scheme: str, place: str) -> tuple[str, int] | None:
    """The proxy that the environment names for a place."""
    named = urllib.request.getproxies().get(scheme)
    if not named or urllib.request.proxy_bypass(place):
        return None
    parts = urlsplit(named if "//" in named else f"//{named}")
    return (parts.hostname, parts.port or 80) if parts.hostname else None
