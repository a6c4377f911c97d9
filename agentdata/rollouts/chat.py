"""A conversation to the body of a chat-completions request, and the body that comes back to a reply, or to its fault.

Servers differ: what they leave out, null or give another type is brought into one form here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum

from agentdata.records import FunctionCall, Message, ToolCall
from agentdata.rollouts.policy import Reply, Sampling

Json = Mapping[str, object]


class GarbledError(ValueError):
    """An answer that is no chat completion; the same request may be answered well the next time."""


class Fault(Enum):
    """What an error of a server means for the one who asked."""

    OVERFLOW = "overflow"
    """The conversation does not fit into the context."""
    UNKNOWN_MODEL = "unknown-model"
    NO_TOOLS = "no-tools"
    BAD_KEY = "bad-key"
    NO_CREDIT = "no-credit"
    NOT_CHAT = "not-chat"
    """Nothing at this address speaks chat completions."""
    REFUSED = "refused"
    """This one request will never be answered."""
    PASSING = "passing"
    """Try again."""


OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|model's context length|available context size"
    r"|maximum (allowed )?(input|prompt) length|prompt is too long|exceeds? the (model's )?context (window|size|length)"
    r"|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)
"""As vLLM, OpenAI, llama.cpp, SGLang and those that speak like them say it."""
NO_TOOLS = re.compile(
    r"--enable-auto-tool-choice|--tool-call-parser|tools param requires|does not support (tools|tool|function)"
    r"|tool(s| use| calling| choice)? (is|are) not supported|no endpoints found that support tool use",
    re.IGNORECASE,
)
UNKNOWN_MODEL = re.compile(
    r"model.{0,200}(not exist|not found|not available|unknown)|unknown model|model_not_found", re.I
)
CALL_MARKS = ("<tool_call", "<function=", "[TOOL_CALLS]", "<|python_tag|>", "<|tool_call", "<\uff5ctool")
"""How templates begin a call; in the text of a turn they show that the server did not read it out."""
UNFINISHED = ("abort", "error")
"""Finish reasons of a turn that the server broke off."""

TURN_SEEDS = 1_000_003
"""Distance between the seeds of an attempt's turns: more than there are attempts at a task."""


def write_request(
    model: str, messages: Sequence[Message], tools: str, sampling: Sampling, seed: int
) -> dict[str, object]:
    """The body of a request. What `sampling` leaves to the server is left out. seed: of the attempt."""
    body: dict[str, object] = {
        "model": model,
        "messages": [write_message(message) for message in messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Another one for each turn: with the same numbers drawn, a policy that is stuck would repeat itself for ever.
        "seed": seed + TURN_SEEDS * sum(message.role == "assistant" for message in messages),
    }
    wishes: dict[str, object] = {
        "top_k": sampling.top_k,
        "max_tokens": sampling.most_tokens,
        "stop": list(sampling.stop),
        "logprobs": sampling.logprobs,
        "return_token_ids": sampling.token_ids,
        "reasoning_effort": sampling.reasoning_effort,
        "chat_template_kwargs": json.loads(sampling.chat_template_kwargs),
        "tools": json.loads(tools) if tools else [],
    }
    return body | {name: wish for name, wish in wishes.items() if wish}


def write_message(message: Message) -> dict[str, object]:
    """A message in the form of the wire."""
    wire: dict[str, object] = {"role": message.role, "content": message.content}
    if message.reasoning_content:
        # Two names for one thing: the first is that of most servers and templates, the second that of newer ones.
        wire |= {"reasoning_content": message.reasoning_content, "reasoning": message.reasoning_content}
    if message.tool_calls:
        wire["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
    return wire


def read_body(raw: bytes) -> Json:
    """The object that an answer holds. Raises GarbledError for anything else."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise GarbledError(f"the answer is not JSON: {raw[:80]!r}") from error
    return _object(body, "the answer")


def read_reply(body: Json, turn: int, seconds: float) -> Reply:
    """The reply in a chat completion; `turn` numbers the calls that came without an id. Raises GarbledError."""
    try:
        return _read_reply(body, turn, seconds)
    except (KeyError, TypeError, ValueError) as error:
        raise (
            error if isinstance(error, GarbledError) else GarbledError(f"a field of the answer is wrong: {error}")
        ) from error


def _read_reply(body: Json, turn: int, seconds: float) -> Reply:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise GarbledError("the answer holds no choices")
    choice = _object(choices[0], "the choice")
    finish = str(choice.get("finish_reason") or "stop")
    if finish in UNFINISHED:
        raise GarbledError(f"the server broke the turn off ({finish})")
    message = _object(choice.get("message"), "the message")
    token_ids = _numbers(choice.get("token_ids"))
    prompt_token_ids = _numbers(body.get("prompt_token_ids"))
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        content=_text(message.get("content")),
        reasoning_content=_text(message.get("reasoning") or message.get("reasoning_content")),
        tool_calls=_calls(message.get("tool_calls"), turn),
        finish_reason=finish,
        prompt_tokens=_count(counts.get("prompt_tokens"), prompt_token_ids),
        completion_tokens=_count(counts.get("completion_tokens"), token_ids),
        prompt_token_ids=prompt_token_ids,
        token_ids=token_ids,
        logprobs=_logprobs(choice.get("logprobs")),
        seconds=seconds,
    )


def read_error(raw: bytes) -> str:
    """What a server says about a request that failed, in the form of any of them."""
    try:
        body = json.loads(raw)
    except ValueError:
        return " ".join(raw.decode(errors="replace").split())[:300]
    while isinstance(body, dict):
        kinds = [str(body[name]) for name in ("code", "type") if isinstance(body.get(name), str)]
        inner = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
        if isinstance(inner, str):
            return " ".join([inner, *(f"({kind})" for kind in kinds)]).strip()[:1000]
        body = inner
    return json.dumps(body)[:1000]


def judge(status: int, said: str) -> Fault:
    """What a status other than 200 and the server's words mean."""
    if status == 429:
        return Fault.NO_CREDIT if "insufficient_quota" in said else Fault.PASSING
    for words, fault in ((OVERFLOW, Fault.OVERFLOW), (NO_TOOLS, Fault.NO_TOOLS)):
        if words.search(said):
            return fault
    if status in (400, 404) and UNKNOWN_MODEL.search(said):
        return Fault.UNKNOWN_MODEL
    if status in (401, 403):
        return Fault.BAD_KEY
    if status in (404, 405):
        return Fault.NOT_CHAT
    if status == 402:
        return Fault.NO_CREDIT
    return Fault.REFUSED if status in (400, 413, 422) else Fault.PASSING


def _calls(found: object, turn: int) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    for index, each in enumerate(found if isinstance(found, list) else []):
        call = _object(each, "a tool call")
        function = _object(call.get("function"), "the function of a tool call")
        given = str(call.get("id") or "")
        taken = {other.id for other in calls}
        calls.append(
            ToolCall(
                id=given if given and given not in taken else f"call_{turn}_{index}",
                function=FunctionCall(
                    name=str(function.get("name") or ""), arguments=_arguments(function.get("arguments"))
                ),
            )
        )
    return tuple(calls)


def _arguments(found: object) -> str:
    """JSON text; some servers give the object itself."""
    if isinstance(found, str):
        return _text(found) or "{}"
    return json.dumps(found, ensure_ascii=False) if found is not None else "{}"


def _text(found: object) -> str:
    """Text that is a string, a list of parts, or missing."""
    if isinstance(found, list):
        return "".join(_text(part.get("text")) for part in found if isinstance(part, dict))
    # A token that was cut may leave half a surrogate pair, which no file can hold.
    return found.encode(errors="replace").decode() if isinstance(found, str) else ""


def _numbers(found: object) -> tuple[int, ...]:
    return tuple(found) if isinstance(found, list) else ()


def _logprobs(found: object) -> tuple[float, ...]:
    content = found.get("content") if isinstance(found, dict) else None
    return tuple(float(_object(each, "a log-probability")["logprob"]) for each in content or ())  # type: ignore[arg-type]


def _count(found: object, token_ids: tuple[int, ...]) -> int:
    return found if isinstance(found, int) else len(token_ids)


def _object(found: object, what: str) -> Json:
    if not isinstance(found, dict):
        raise GarbledError(f"{what} is no object: {json.dumps(found)[:80]}")
    return found
