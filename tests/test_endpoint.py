"""A policy behind endpoints that misbehave."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentdata.errors import UsageError
from agentdata.records import FunctionCall, Message, ToolCall
from agentdata.rollouts.endpoint import EndpointPolicy, Patience
from agentdata.rollouts.policy import ContextOverflow, PolicyGone, PolicyRefused, Reply, Sampling, TurnRefused
from tests.model_server import PASSING, Fault, ModelServer

ASK = [Message(role="system", content="Work.", train=False), Message(role="user", content="Fix it.", train=False)]
TOOLS = json.dumps([{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}])
QUICK = Patience(tries=4, seconds=0, least_wait=0.001, most_wait=0.01)
CALL = ToolCall(id="call_a", function=FunctionCall(name="bash", arguments='{"command": "ls"}'))


def policy_at(*servers: ModelServer, **options: Any) -> EndpointPolicy:
    settings: dict[str, Any] = {"patience": QUICK, "seconds": 5.0}
    return EndpointPolicy("tiny", [server.url for server in servers], **settings | options)


def ask(policy: EndpointPolicy, seed: int = 1) -> Reply:
    return policy.reply(ASK, "", Sampling(), seed)


def test_a_reply_carries_what_the_server_gives() -> None:
    turn = Reply(content="I look.", reasoning_content="Where?", tool_calls=(CALL,), prompt_tokens=7)
    with ModelServer(lambda messages: turn) as server, policy_at(server) as policy:
        reply = policy.reply(ASK, TOOLS, Sampling(logprobs=True), 1)
    assert (reply.content, reply.reasoning_content, reply.tool_calls) == ("I look.", "Where?", (CALL,))
    assert (reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("tool_calls", 7, 7)
    assert bytes(reply.token_ids) == b"I look."
    assert len(reply.logprobs) == len(reply.token_ids)
    assert reply.prompt_token_ids
    assert reply.seconds > 0


def test_each_turn_draws_other_numbers_and_each_attempt_too() -> None:
    said = Message(role="assistant", content="Hm.", train=True)
    with ModelServer() as server, policy_at(server) as policy:
        for seed in (5, 6):
            for turns in range(3):
                policy.reply([*ASK, *[said] * turns], "", Sampling(), seed)
        seeds = [request["seed"] for request in server.requests]
    assert len(set(seeds)) == 6
    assert (seeds[0], seeds[3]) == (5, 6)


def test_a_request_says_what_the_sampling_asks_for_and_leaves_out_the_rest() -> None:
    with ModelServer() as server, policy_at(server, key="secret") as policy:
        ask(policy)
        sampling = Sampling(
            temperature=0.7, top_p=0.9, top_k=20, most_tokens=99, stop=("</s>",), logprobs=True, token_ids=False,
            reasoning_effort="low", chat_template_kwargs='{"enable_thinking": false}',
        )  # fmt: skip
        policy.reply(ASK, TOOLS, sampling, 5)
        plain, full = server.requests
        assert server.keys == ["Bearer secret"] * 2
    assert plain.keys() == {"model", "messages", "temperature", "top_p", "seed", "return_token_ids"}
    del full["messages"]
    assert full == {
        "model": "tiny",
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "top_k": 20,
        "max_tokens": 99,
        "stop": ["</s>"],
        "logprobs": True,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
        "tools": json.loads(TOOLS),
    }


def test_messages_go_out_in_the_form_of_the_wire() -> None:
    turn = Message(role="assistant", content="", reasoning_content="Hm.", tool_calls=(CALL,), train=True)
    seen = Message(role="tool", content="a.py", tool_call_id="call_a", train=False)
    with ModelServer() as server, policy_at(server) as policy:
        policy.reply([*ASK, turn, seen], "", Sampling(), 1)
        sent = server.requests[0]["messages"]
    assert sent[1] == {"role": "user", "content": "Fix it."}
    assert sent[2]["tool_calls"] == [CALL.model_dump()]
    assert sent[2]["reasoning_content"] == sent[2]["reasoning"] == "Hm."
    assert sent[3] == {"role": "tool", "content": "a.py", "tool_call_id": "call_a"}


@pytest.mark.parametrize("fault", [*PASSING, "503", "429", "no-answer"])
def test_what_passes_is_tried_again(fault: Fault) -> None:
    with ModelServer(faults=[fault], hang_seconds=3) as server, policy_at(server, seconds=0.3) as policy:
        assert ask(policy).content == "turn 2"
        assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["500", "cut-stream", "garbage", "wrong-json", "empty-choices"])
def test_what_does_not_pass_leaves_the_policy_gone(fault: Fault) -> None:
    with (
        ModelServer(faults=[fault] * 9) as server,
        policy_at(server) as policy,
        pytest.raises(PolicyGone, match=r"after 4 tries; the last time http://.*: ") as gone,
    ):
        ask(policy)
    assert gone.value.final


def test_an_endpoint_that_asks_for_patience_gets_it() -> None:
    with ModelServer(faults=["429"], retry_after="0.4") as server, policy_at(server) as policy:
        begun = time.monotonic()
        ask(policy)
        assert time.monotonic() - begun >= 0.4


def test_a_third_of_requests_may_fail_under_many_threads() -> None:
    server = ModelServer(share=0.3, seed=7, hang_seconds=2, seconds=0.005)
    with server, policy_at(server, seconds=0.5, patience=Patience(tries=20, seconds=0, least_wait=0.01)) as policy:
        with ThreadPoolExecutor(16) as threads:
            replies = list(threads.map(lambda seed: ask(policy, seed), range(100)))
        assert len(replies) == 100
        assert {*server.faulted} == {*PASSING}


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("context-overflow", ContextOverflow, "longer than the context of tiny"),
        ("unknown-model", PolicyRefused, "does not serve tiny"),
        ("no-tools", PolicyRefused, "takes no tool calls: start it with"),
        ("bad-key", PolicyRefused, "refuses the key"),
    ],
)
def test_what_no_try_can_mend_ends_at_once(fault: Fault, error: type[Exception], words: str) -> None:
    with ModelServer(faults=[fault]) as server, policy_at(server) as policy:
        with pytest.raises(error, match=words):
            ask(policy)
        assert len(server.requests) == 1


def test_requests_in_flight_are_bounded() -> None:
    with ModelServer(seconds=0.02) as server, policy_at(server, most_in_flight=3) as policy:
        with ThreadPoolExecutor(12) as threads:
            list(threads.map(lambda seed: ask(policy, seed), range(24)))
        assert server.most_in_flight == 3


def test_requests_are_spread_and_a_conversation_keeps_its_endpoint() -> None:
    with ModelServer(seconds=0.05) as one, ModelServer(seconds=0.05) as two, policy_at(one, two) as policy:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda seed: ask(policy, seed), list(range(16)) * 4))
        homes = Counter((request["seed"], server.url) for server in (one, two) for request in server.requests)
        assert min(len(one.requests), len(two.requests)) >= 20
        assert sum(sorted(homes.values())[-16:]) >= 56


def test_another_endpoint_takes_over_at_once() -> None:
    slow = Patience(tries=4, seconds=0, least_wait=5, most_wait=5)
    with ModelServer(faults=["500"] * 99) as bad, ModelServer() as good, policy_at(bad, good, patience=slow) as policy:
        begun = time.monotonic()
        for seed in range(8):
            ask(policy, seed)
        assert time.monotonic() - begun < 4
        assert 0 < len(bad.requests) < 8


def test_an_endpoint_that_is_down_rests_and_is_found_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    policy = EndpointPolicy("tiny", [f"http://127.0.0.1:{port}/v1"], patience=Patience(seconds=20, most_wait=0.2))
    with policy, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(ask, policy)
        time.sleep(0.7)
        with ModelServer(port=port) as server:
            assert waiting.result(10).content == "turn 2"
            assert len(server.requests) == 1


def test_a_connection_that_the_server_closed_is_no_fault() -> None:
    with ModelServer() as server, policy_at(server, patience=Patience(tries=1, seconds=0)) as policy:
        ask(policy)
        server.hang_up()
        ask(policy)
        assert len(server.requests) == 2


def test_closing_ends_requests_that_are_under_way() -> None:
    with ModelServer(faults=["timeout"], hang_seconds=20) as server, ThreadPoolExecutor(1) as thread:
        policy = policy_at(server, seconds=30)
        waiting = thread.submit(ask, policy)
        while not server.requests:
            time.sleep(0.01)
        begun = time.monotonic()
        policy.close()
        with pytest.raises(PolicyGone, match="closed"):
            waiting.result(5)
        assert time.monotonic() - begun < 2


def test_a_wish_that_a_server_refuses_is_not_made_again() -> None:
    with ModelServer(unknown_fields=("return_token_ids", "max_tokens")) as server, policy_at(server) as policy:
        policy.reply(ASK, "", Sampling(most_tokens=9), 1)
        policy.reply(ASK, "", Sampling(most_tokens=9), 2)
        assert len(server.requests) == 4
        assert server.requests[-1]["max_completion_tokens"] == 9
        assert "return_token_ids" not in server.requests[-1]


def test_a_request_that_is_refused_for_itself_is_not_made_again() -> None:
    with ModelServer(unknown_fields=("temperature",)) as server, policy_at(server) as policy:
        with pytest.raises(TurnRefused, match="refuses a request with status 400"):
            ask(policy)
        assert len(server.requests) == 1


def malformed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Reply:
    """A reply whose choice and message were changed on their way."""

    def raw(body: dict[str, Any]) -> object:
        change(body["choices"][0], body["choices"][0]["message"])
        return body

    turn = Reply(content="words", tool_calls=(CALL, CALL))
    with ModelServer(lambda messages: turn, raw=raw) as server, policy_at(server) as policy:
        return ask(policy)


def test_content_may_be_null() -> None:
    assert malformed(lambda choice, message: message.update(content=None)).content == ""


def test_content_may_be_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert malformed(lambda choice, message: message.update(content=parts)).content == "ab"


def test_content_may_hold_half_a_character() -> None:
    assert malformed(lambda choice, message: message.update(content="a\ud83d")).content == "a?"


def test_tool_calls_may_be_null() -> None:
    assert malformed(lambda choice, message: message.update(tool_calls=None)).tool_calls == ()


def test_calls_get_the_ids_that_they_lack_or_share() -> None:
    assert [call.id for call in malformed(lambda *_: None).tool_calls] == ["call_a", "call_2_1"]
    calls = [{"function": {"name": "bash", "arguments": "{}"}}] * 2
    changed = malformed(lambda choice, message: message.update(tool_calls=calls))
    assert [call.id for call in changed.tool_calls] == ["call_2_0", "call_2_1"]


@pytest.mark.parametrize(("given", "read"), [({"a": 1}, '{"a": 1}'), (None, "{}"), ("", "{}"), ("{bad", "{bad")])
def test_arguments_are_text(given: object, read: str) -> None:
    calls = [{"id": "x", "type": "function", "function": {"name": "bash", "arguments": given}}]
    changed = malformed(lambda choice, message: message.update(tool_calls=calls))
    assert changed.tool_calls[0].function.arguments == read


def test_reasoning_has_two_names() -> None:
    assert malformed(lambda choice, message: message.update(reasoning_content="Hm.")).reasoning_content == "Hm."


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "overloaded", "code": 502}},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "abort"}]},
        {"choices": [{"message": {"content": "x"}, "token_ids": ["no number"]}]},
        {"choices": [{"message": {"tool_calls": ["no call"]}}]},
        [],
        None,
    ],
)
def test_an_answer_of_another_shape_is_tried_again(body: object) -> None:
    bodies = [body]
    with ModelServer(raw=lambda good: bodies.pop() if bodies else good) as server, policy_at(server) as policy:
        assert ask(policy).content == "turn 2"
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            400,
            {"object": "error", "message": "Input length (9) exceeds model's maximum context length (8).", "code": 400},
        ),
        (400, {"error": {"message": "Your messages resulted in 9 tokens.", "code": "context_length_exceeded"}}),
        (400, {"error": {"message": "request (9 tokens) exceeds the available context size (8 tokens)"}}),
        (400, {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}}),
        (400, {"message": "The input (9 tokens) is longer than the model's context length (8 tokens)."}),
        (400, {"message": "Requested token count exceeds the model's maximum context length of 8 tokens."}),
        (400, {"object": "error", "message": "max_tokens must be at least 1, got -186."}),
        (400, {"detail": "Prompt is too long for the model"}),
    ],
)
def test_every_server_s_overflow_is_known(status: int, body: dict[str, Any]) -> None:
    with ModelServer(refuse=(status, body)) as server, policy_at(server) as policy, pytest.raises(ContextOverflow):
        ask(policy)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, {"error": {"message": "tools param requires --jinja flag"}}, "takes no tool calls"),
        (400, {"error": {"message": "tiny does not support tools"}}, "takes no tool calls"),
        (404, {"error": {"message": "model 'tiny' not found, try pulling it first"}}, "does not serve tiny"),
        (404, {"detail": "Not Found"}, "speaks no chat completions"),
        (429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, "wants to be paid"),
    ],
)
def test_every_server_s_refusal_is_known(status: int, body: dict[str, Any], words: str) -> None:
    with (
        ModelServer(refuse=(status, body)) as server,
        policy_at(server) as policy,
        pytest.raises(PolicyRefused, match=words),
    ):
        ask(policy)


def test_a_check_tells_the_shortest_context() -> None:
    with ModelServer(max_model_len=800) as one, ModelServer(max_model_len=900) as two, policy_at(one, two) as policy:
        assert policy.check().max_model_len == 800
        assert not one.requests


def test_a_check_names_the_models_that_are_there() -> None:
    with (
        ModelServer(models=["large", "huge"]) as server,
        policy_at(server) as policy,
        pytest.raises(PolicyRefused, match=r"does not serve tiny: .*\(that is huge, large\)"),
    ):
        policy.check()


def test_a_check_passes_over_an_endpoint_that_is_down() -> None:
    with ModelServer() as server:
        policy = EndpointPolicy("tiny", ["http://127.0.0.1:1/v1", server.url], patience=QUICK)
        assert policy.check().max_model_len == 4096
    with policy, pytest.raises(PolicyGone, match=r"No endpoint answers: http://127.0.0.1:1/v1 .*Start one with"):
        policy.check()


def test_a_check_finds_calls_that_no_parser_reads() -> None:
    with (
        ModelServer(lambda messages: Reply(content='<tool_call>\n{"name": "ping"}')) as server,
        policy_at(server) as policy,
        pytest.raises(PolicyRefused, match=r"takes no tool calls.*left <tool_call in the text"),
    ):
        policy.check(tools=True)


def test_a_check_lets_a_model_be_that_calls_nothing() -> None:
    with ModelServer() as server, policy_at(server) as policy:
        assert policy.check(tools=True).name == "tiny"


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1"])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(UsageError, match="no address of an endpoint"):
        EndpointPolicy("tiny", [url])


def test_an_address_is_needed() -> None:
    with pytest.raises(UsageError, match="No endpoint is given"):
        EndpointPolicy("tiny", [])


def test_threads_leave_no_connection_behind() -> None:
    with ModelServer() as server:
        policy = policy_at(server)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda seed: ask(policy, seed), range(64)))
        policy.close()
        assert threading.active_count() < 20
