"""The policy against a real vLLM server that serves a tiny random model."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from agentdata.records import FunctionCall, Message, ToolCall
from agentdata.rollouts.endpoint import EndpointPolicy
from agentdata.rollouts.policy import ContextOverflow, PolicyRefused, Sampling
from agentdata.rollouts.serving import Server

pytestmark = pytest.mark.vllm
ASK = [Message(role="system", content="Work.", train=False), Message(role="user", content="Fix it.", train=False)]
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}]
)
DRAWN = Sampling(temperature=1.0, most_tokens=24, logprobs=True)


@pytest.fixture
def policy(vllm: Server) -> Iterator[EndpointPolicy]:
    with EndpointPolicy("tiny", [vllm.url]) as found:
        yield found


@pytest.fixture
def tokenizer(vllm: Server) -> Tokenizer:
    return Tokenizer.from_file(str(Path(vllm.options.model) / "tokenizer.json"))


def test_the_tokens_of_a_reply_are_its_text(policy: EndpointPolicy, tokenizer: Tokenizer) -> None:
    reply = policy.reply(ASK, "", DRAWN, 3)
    assert tokenizer.decode(list(reply.token_ids)) == reply.content
    assert 1 <= len(reply.token_ids) == len(reply.logprobs) == reply.completion_tokens <= 24
    assert all(logprob < 0 for logprob in reply.logprobs)
    assert reply.finish_reason == ("length" if reply.completion_tokens == 24 else "stop")
    prompt = tokenizer.decode(list(reply.prompt_token_ids), skip_special_tokens=False)
    assert prompt == "<|im_start|>system\nWork.<|im_end|>\n<|im_start|>user\nFix it.<|im_end|>\n<|im_start|>assistant\n"
    assert reply.prompt_tokens == len(reply.prompt_token_ids)


def test_a_seed_draws_the_same_reply_again(policy: EndpointPolicy) -> None:
    once, again, other = (policy.reply(ASK, "", DRAWN, seed).token_ids for seed in (5, 5, 6))
    assert once == again != other


def test_tools_and_calls_reach_the_model(policy: EndpointPolicy, tokenizer: Tokenizer) -> None:
    call = ToolCall(id="call_1", function=FunctionCall(name="bash", arguments='{"command": "ls"}'))
    turns = [
        *ASK,
        Message(role="assistant", content="Look.", tool_calls=(call,), train=True),
        Message(role="tool", content="setup.py", tool_call_id="call_1", train=False),
    ]
    reply = policy.reply(turns, TOOLS, DRAWN, 1)
    prompt = tokenizer.decode(list(reply.prompt_token_ids), skip_special_tokens=False)
    assert '"name": "bash"' in prompt
    assert 'Look.\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>' in prompt
    assert "<|im_start|>tool\n<tool_response>\nsetup.py\n</tool_response>" in prompt


def test_a_conversation_that_is_too_long_is_an_overflow(policy: EndpointPolicy) -> None:
    long = Message(role="user", content="word " * 5000, train=False)
    with pytest.raises(ContextOverflow, match="longer than the context of tiny"):
        policy.reply([*ASK, long], "", DRAWN, 1)


def test_a_check_tells_what_is_served(policy: EndpointPolicy, vllm: Server) -> None:
    assert policy.check(tools=True).max_model_len == 4096
    with (
        EndpointPolicy("large", [vllm.url]) as other,
        pytest.raises(PolicyRefused, match=r"does not serve large: .*\(that is tiny\)"),
    ):
        other.check()
    with EndpointPolicy("large", [vllm.url]) as other, pytest.raises(PolicyRefused, match="does not serve large"):
        other.reply(ASK, "", DRAWN, 1)


def test_many_threads_ask_at_once(policy: EndpointPolicy) -> None:
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda seed: policy.reply(ASK, "", DRAWN, seed), range(16)))
    assert all(1 <= len(reply.token_ids) == reply.completion_tokens <= 24 for reply in replies)


def test_a_reply_outlives_a_server_whose_engine_is_killed(vllm: Server, policy: EndpointPolicy) -> None:
    threading.Thread(target=vllm.watch, kwargs={"say": print}, daemon=True).start()
    os.kill(engine_of(vllm), signal.SIGKILL)
    time.sleep(0.5)
    assert policy.reply(ASK, "", DRAWN, 3).completion_tokens


def engine_of(server: Server) -> int:
    """The process of the group that computes."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_bytes()
            group = int((place / "stat").read_text().rpartition(")")[2].split()[2])
        except OSError:
            continue
        if group == server.pid and b"EngineCore" in name:
            return int(place.name)
    raise AssertionError(server.log.read_text())
