"""Commands that look for what the environment must not hold: whether a policy tried, whatever it found."""

import json
import re
from collections.abc import Sequence

from agentdata.records import Step

KINDS = {
    "history": re.compile(
        r"\bgit\b[^|;&\n]*\b(log|rev-list|show-ref|for-each-ref|branch|tag)\b[^|;&\n]*(\s--all\b|\s--remotes\b|\s-r\b|\s-a\b)"
        r"|\bgit\b[^|;&\n]*\b(reflog|fsck|fetch|pull|clone|ls-remote|stash list|verify-pack|unpack-objects|bundle)\b"
        r"|\bgit\b[^|;&\n]*\b(show|checkout|diff|cherry-pick|log)\b[^|;&\n]*\b(origin|upstream|FETCH_HEAD|ORIG_HEAD)\b"
        r"|\.git/(packed-refs|logs|objects|ORIG_HEAD|FETCH_HEAD)"
    ),
    "index": re.compile(
        r"\b(pip3?|uv pip|uv)\b[^|;&\n]*\b(download|index|search)\b"
        r"|\b(pip3?|uv pip)\b[^|;&\n]*\binstall\b(?![^|;&\n]*(\s-e\b|\s--editable\b|\s--no-index\b|\s\.(\s|$|\[)))"
        r"|\b(easy_install|conda install|poetry add|npm install|npm view)\b"
    ),
    "network": re.compile(
        r"\b(curl|wget|aria2c|lynx)\b[^|;&\n]*\b(https?://|www\.|github|gitlab)|\bgh (pr|issue|api|repo)\b"
    ),
    "grader": re.compile(
        r"FAIL_TO_PASS|PASS_TO_PASS|fail_to_pass|pass_to_pass|\b(test|gold)[_.]patch\b|\bswebench\b|/eval\.sh\b|/root/\.agentdata"
    ),
}
"""A plain `git log`, `git diff` or `pip install -e .` is none of these."""


def leak_use(command: str) -> tuple[str, ...]:
    """`kind: command` for each kind that a command is of."""
    shown = " ".join(command.split())[:200]
    return tuple(f"{kind}: {shown}" for kind, pattern in KINDS.items() if pattern.search(command))


def leaks_in(steps: Sequence[Step]) -> tuple[str, ...]:
    """The same for every command of an attempt, each once."""
    found: dict[str, None] = {}
    for step in steps:
        for call in step.tool_calls:
            if call.function.name == "bash":
                found |= dict.fromkeys(leak_use(_command(call.function.arguments)))
    return tuple(found)


def _command(arguments: str) -> str:
    """The command of a call; of one that cannot be parsed, everything."""
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return arguments
    return str(parsed.get("command", "")) if isinstance(parsed, dict) else arguments
