"""What goes wrong between here and the Hub, told as one sentence with what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from agentdata.errors import AgentdataError, RunError, UsageError

STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
"""How the client of Xet tells a status."""
KEPT = "Nothing is lost: the same command goes on."
QUOTA = ("quota", "storage limit", "exceeded your", "out of storage", "payment required")
GONE = (
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "ReadError",
    "WriteError",
    "RemoteProtocolError",
    "TimeoutException",
)


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turn the errors of the Hub's client into UsageError and RunError."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except AgentdataError:
        raise
    except LocalTokenNotFoundError as error:
        raise UsageError(
            "There is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN to a token with write access."
        ) from error
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no name of a dataset: write OWNER/NAME.") from error
    except OfflineModeIsEnabled as error:
        raise UsageError("HF_HUB_OFFLINE is set: unset it to publish.") from error
    except Exception as error:
        told = _told(error, repo)
        if told is None:
            raise
        raise told from error


def _told(error: BaseException, repo: str) -> AgentdataError | None:
    """The sentence for an error or for what lies behind it; None where it is none of the Hub's."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    for one in reversed(seen):
        told = _told_alone(one, repo)
        if told:
            return told
    return None


def _told_alone(error: BaseException, repo: str) -> AgentdataError | None:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response.status_code, str(error.server_message or error), repo)
    text = f"{type(error).__name__}: {error}"
    if found := STATUS.search(text):
        return _by_status(int(found[1]), "its storage did not say why", repo)
    if any(name in text for name in GONE) or isinstance(error, ConnectionError):
        return RunError(f"The Hub cannot be reached ({_short(text)}): see to the network. {KEPT}")
    if any(word in text.lower() for word in QUOTA):
        return _full(repo, text)
    # The protocol of large files raises plain errors.
    if isinstance(error, RuntimeError | ValueError) or type(error).__module__.startswith("hf_xet"):
        return RunError(f"Uploading to {repo} failed: {_short(text)}. {KEPT}")
    return None


def _by_status(status: int, message: str, repo: str) -> AgentdataError:
    said = _short(message)
    if status in (402, 413, 507) or any(word in message.lower() for word in QUOTA):
        return _full(repo, said)
    if status == 401:
        return UsageError(
            "The Hub does not accept the token: it is wrong, expired or revoked. Make a new one with write access, "
            f"then `hf auth login` or HF_TOKEN. {KEPT}"
        )
    if status == 403:
        return UsageError(
            f"The token may not write to {repo} ({said}): use a token with write access to that owner, or another "
            f"owner, and see that its storage is not full. {KEPT}"
        )
    if status == 404:
        return UsageError(f"{repo} is not there, or the token may not see it ({said}): check the name and the token.")
    if status in (409, 412):
        return RunError(
            f"{repo} is taken, or was changed by somebody else meanwhile ({said}): see what is there. {KEPT}"
        )
    if status == 429:
        return RunError(f"The Hub asks to slow down ({said}): wait some minutes. {KEPT}")
    if status >= 500:
        return RunError(f"The Hub fails just now with status {status}: try again later. {KEPT}")
    return RunError(f"The Hub refused with status {status}: {said}. {KEPT}")


def _full(repo: str, said: str) -> RunError:
    return RunError(
        f"The storage of the owner of {repo} is full ({_short(said)}): free some, get more, or publish to another owner. "
        f"{KEPT}"
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:200].rstrip(" .:")
