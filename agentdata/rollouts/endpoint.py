"""Messages to replies of a model behind OpenAI-compatible endpoints: vLLM first, and whatever speaks like it.

A reply is asked for until it comes: what passes (overload, restarts, cut connections, answers that are none) is tried
again with back-off, at another endpoint where there is one. What does not pass ends at once, with a sentence.
"""

import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from types import TracebackType
from typing import Self

from agentdata.errors import AgentdataError, UsageError
from agentdata.records import Message, Record
from agentdata.rollouts.balance import Balance, Endpoint, back_off
from agentdata.rollouts.chat import (
    CALL_MARKS,
    Fault,
    GarbledError,
    Json,
    judge,
    read_body,
    read_error,
    read_reply,
    write_request,
)
from agentdata.rollouts.connections import Answer, Connections
from agentdata.rollouts.policy import ContextOverflow, PolicyGone, PolicyRefused, Reply, Sampling, TurnRefused

CHECK_SECONDS = 30.0
MOST_RETRY_AFTER_SECONDS = 300.0
DOWN = (429, 502, 503, 504, 529)
"""Statuses of a server, or of what stands before it, that wants to be left alone."""
WORDS = {"return_token_ids": "", "max_tokens": "max_completion_tokens"}
"""Fields that some servers refuse, and what takes their place there."""
REFUSALS = {
    Fault.OVERFLOW: "The conversation is longer than the context of {model}: {said}",
    Fault.UNKNOWN_MODEL: "{url} does not serve {model}: give the name of a model that {url}/models lists ({said}).",
    Fault.NO_TOOLS: "{url} takes no tool calls: start it with a parser for them (agentdata serve --tool-call-parser), or "
    "choose a scaffold that writes calls as text ({said}).",
    Fault.BAD_KEY: "{url} refuses the key: give the one that it was started with ({said}).",
    Fault.NO_CREDIT: "{url} wants to be paid: {said}",
    Fault.NOT_CHAT: "{url} speaks no chat completions (status {status}): correct the address, which mostly ends in /v1.",
    Fault.REFUSED: "{url} refuses a request with status {status}: {said}",
}
PROBE = (
    '[{"type":"function","function":{"name":"ping","description":"Must be called now.",'
    '"parameters":{"type":"object","properties":{}}}}]'
)


class ServedModel(Record):
    """What the endpoints say about their model."""

    name: str
    max_model_len: int = 0
    """Tokens of prompt and reply together; 0 where no server tells."""


class Patience(Record):
    """How long a reply is asked for: until tries and seconds are both spent."""

    tries: int = 6
    seconds: float = 300.0
    """From the first request on; longer than a server takes to start again."""
    least_wait: float = 0.25
    """Seconds before the second try; they double with each."""
    most_wait: float = 20.0


class EndpointPolicy:
    """A policy behind one or more endpoints that serve the same model. Threads may share it."""

    def __init__(
        self,
        model: str,
        urls: Sequence[str],
        *,
        key: str = "",
        most_in_flight: int = 64,
        seconds: float = 1800.0,
        patience: Patience | None = None,
    ) -> None:
        """`seconds` bounds the silence of a server, `most_in_flight` the requests of all threads together."""
        if not urls:
            raise UsageError("No endpoint is given: name one, such as http://127.0.0.1:8000/v1.")
        self.model = model
        self._balance = Balance([Endpoint(url, seconds=seconds) for url in dict.fromkeys(urls)])
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._slots = threading.BoundedSemaphore(most_in_flight)
        self._patience = patience or Patience()
        self._closed = threading.Event()
        self._refused_words: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every request and every wait, with PolicyGone for those who asked."""
        self._closed.set()
        for endpoint in self._balance.endpoints:
            endpoint.connections.close()

    def reply(self, messages: Sequence[Message], tools: str, sampling: Sampling, seed: int) -> Reply:
        """The next turn of a conversation. Raises ContextOverflow, TurnRefused, PolicyGone, PolicyRefused."""
        request = write_request(self.model, messages, tools, sampling, seed)
        conversation = f"{seed} {messages[:2]}".encode(errors="replace") if len(self._balance.endpoints) > 1 else b""
        deadline = time.monotonic() + self._patience.seconds
        asked: Endpoint | None = None
        for tried in itertools.count(1):
            self._pause(self._balance.seconds_of_rest() * random.uniform(1.0, 1.2))
            try:
                with self._slots:
                    asked = self._balance.take(conversation, avoid=asked)
                    return self._ask(asked, request, turn=len(messages))
            except _Missed as missed:
                if tried >= self._patience.tries and time.monotonic() >= deadline:
                    raise PolicyGone(f"No reply after {tried} tries; the last time {missed}.", final=True) from missed
            times = tried - len(self._balance.endpoints)
            if times >= 0:
                self._pause(back_off(times, self._patience.least_wait, self._patience.most_wait))
        raise AssertionError

    def check(self, *, tools: bool = False) -> ServedModel:
        """What the endpoints serve, asked before a run; with `tools`, also whether they take tool calls.

        Endpoints that do not answer are passed over, unless none does. Raises PolicyGone, PolicyRefused.
        """
        found: list[ServedModel] = []
        silent: list[str] = []
        for endpoint in self._balance.endpoints:
            try:
                found.append(self._served(endpoint))
            except (OSError, HTTPException, GarbledError) as error:
                silent.append(f"{endpoint.url} ({_describe(error)})")
        if not found:
            raise PolicyGone(
                f"No endpoint answers: {', '.join(silent)}. Start one with `agentdata serve`, or correct the address.",
                final=True,
            )
        if tools:
            self._probe_tools()
        lengths = [each.max_model_len for each in found if each.max_model_len]
        return ServedModel(name=self.model, max_model_len=min(lengths, default=0))

    def _ask(self, endpoint: Endpoint, request: dict[str, object], turn: int) -> Reply:
        """One request to one endpoint. Raises _Missed where the next may do better."""
        begun = time.monotonic()
        raw = json.dumps(self._worded(request)).encode()
        try:
            answer = endpoint.connections.ask("POST", "/chat/completions", raw, self._headers)
            status, body = _read_status(answer)
            if status == 200:
                reply = read_reply(body, turn, time.monotonic() - begun)
        except (OSError, HTTPException, GarbledError) as error:
            self._balance.failed(endpoint, down=isinstance(error, ConnectionRefusedError))
            raise _Missed(f"{endpoint.url}: {_describe(error)}") from error
        if status == 200:
            self._balance.answered(endpoint)
            return reply
        raise self._fault(endpoint, status, answer, request)

    def _fault(self, endpoint: Endpoint, status: int, answer: Answer, request: dict[str, object]) -> Exception:
        """What a status other than 200 is to the one who asked."""
        said = read_error(answer.body)
        fault = judge(status, said)
        if fault is Fault.PASSING:
            self._balance.failed(endpoint, down=status in DOWN, seconds=_retry_after(answer))
            return _Missed(f"{endpoint.url}: status {status}, {said}")
        self._balance.answered(endpoint)
        refused = {word for word in WORDS if fault is Fault.REFUSED and word in said and word in request}
        if refused - self._refused_words:
            self._refused_words |= refused
            return _Missed(f"{endpoint.url}: {said}")
        return self._refusal(fault, endpoint, status, said)

    def _refusal(self, fault: Fault, endpoint: Endpoint, status: int, said: str) -> AgentdataError:
        sentence = REFUSALS[fault].format(model=self.model, url=endpoint.url, status=status, said=said)
        if fault is Fault.OVERFLOW:
            return ContextOverflow(sentence)
        if fault is Fault.REFUSED:
            # It may be this conversation alone, such as a call in it that the server's template cannot read.
            return TurnRefused(sentence)
        return PolicyRefused(sentence)

    def _worded(self, request: dict[str, object]) -> dict[str, object]:
        """The request in the words that the servers take."""
        words = self._refused_words
        named = {WORDS[name] if name in words else name: value for name, value in request.items()}
        return {name: value for name, value in named.items() if name}

    def _served(self, endpoint: Endpoint) -> ServedModel:
        """The model at one endpoint; not every server lists its models, and then it is taken on trust."""
        connections = Connections(endpoint.url, seconds=CHECK_SECONDS)
        try:
            answer = connections.ask("GET", "/models", None, self._headers)
        finally:
            connections.close()
        status, body = _read_status(answer)
        if status in (401, 403):
            raise self._refusal(Fault.BAD_KEY, endpoint, status, read_error(answer.body))
        if status >= 500:
            raise GarbledError(f"status {status}, {read_error(answer.body)}")
        rows = [row for row in _rows(body) if isinstance(row, dict)] if status == 200 else []
        served = {str(row.get("id")).removesuffix(":latest"): row for row in rows}
        if rows and self.model.removesuffix(":latest") not in served:
            raise self._refusal(Fault.UNKNOWN_MODEL, endpoint, status, f"that is {', '.join(sorted(served)[:5])}")
        row = served.get(self.model.removesuffix(":latest"), {})
        length = row.get("max_model_len") or row.get("context_length")
        return ServedModel(name=self.model, max_model_len=length if isinstance(length, int) else 0)

    def _probe_tools(self) -> None:
        """Ask for one tool call. A small model may make none; but a call in the text shows that no parser reads it."""
        asked = Message(role="user", content="Call the tool ping.", train=False)
        reply = self.reply([asked], PROBE, Sampling(most_tokens=200, token_ids=False), seed=0)
        mark = next((mark for mark in CALL_MARKS if mark in reply.content), "")
        if mark and not reply.tool_calls:
            said = f"it left {mark} in the text"
            raise self._refusal(Fault.NO_TOOLS, self._balance.endpoints[0], 200, said)

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds) if seconds else self._closed.is_set():
            raise PolicyGone("The policy was closed while a reply was asked for.", final=True)


class _Missed(Exception):  # noqa: N818
    """One try that gave no reply, and why."""


def _read_status(answer: Answer) -> tuple[int, Json]:
    """Status and object of an answer; some gateways give errors with status 200."""
    if answer.status != 200:
        return answer.status, {}
    body = read_body(answer.body)
    error = body.get("error")
    if not error or body.get("choices"):
        return 200, body
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and code >= 400 else 500, body


def _rows(body: Json) -> list[object]:
    rows = body.get("data")
    return rows if isinstance(rows, list) else []


def _retry_after(answer: Answer) -> float:
    """Seconds that a server asks to wait, given as such or as a date."""
    asked = answer.headers.get("Retry-After") or ""
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_SECONDS)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
