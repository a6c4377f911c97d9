"""What acts: messages and tools in, one reply out."""

from collections.abc import Sequence
from typing import Protocol

from pydantic import Field

from agentdata.errors import AgentdataError, OwedError
from agentdata.records import Message, Record, ToolCall


class Sampling(Record):
    """How replies are drawn. Zero and empty stand for the server's own default."""

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = 0
    most_tokens: int = Field(default=0, ge=0)
    """Tokens of one reply; 0 for what the context leaves."""
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    """Whether to ask for the log-probability of each sampled token."""
    token_ids: bool = True
    """Whether to ask for the tokens of prompt and reply; servers that do not know the wish ignore it."""
    reasoning_effort: str = ""
    chat_template_kwargs: str = "{}"
    """JSON text: what the server's chat template is given besides the messages."""


class Reply(Record):
    """One turn of a policy. Fields that a server does not give keep their defaults."""

    content: str
    reasoning_content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    seconds: float = 0.0
    """From the request to the reply, without waiting for a turn or between tries."""


class Policy(Protocol):
    """Whoever decides on the next step of one attempt."""

    def reply(self, messages: Sequence[Message], tools: str, sampling: Sampling, seed: int) -> Reply:
        """The next turn of a conversation. `tools` is JSON text, empty where the scaffold describes them in words.

        Raises ContextOverflow, TurnRefused, PolicyGone, PolicyRefused.
        """
        ...


class ContextOverflow(AgentdataError):  # noqa: N818
    """The conversation is longer than the model's context: the attempt ends, and counts."""


class TurnRefused(AgentdataError):  # noqa: N818
    """This one conversation will never be answered, as when a template cannot read a call in it: the attempt ends."""


class PolicyGone(OwedError):  # noqa: N818
    """No endpoint answers as it should, after every try: the attempt is owed."""


class PolicyRefused(AgentdataError):  # noqa: N818
    """The endpoint cannot serve what is asked (unknown model, no tool calls, bad key): the run cannot go on."""
