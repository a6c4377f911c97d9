"""Commands that look for what the environment must not hold: whether a policy tried, whatever it found.

history   commits, branches or objects beyond what is checked out, and other copies of the repository
index     packages from an index, among which the project itself may be, of a later version
network   anything else that is fetched from another machine
grader    the tests and patches that decide, and our own record of the tree
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence

from agentdata.records import Step

SHOWN_CHARACTERS = 200
HERE_DOCUMENT = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1([^\n]*)\n.*?^[ \t]*\2[ \t]*$", re.DOTALL | re.MULTILINE)
ENDS = re.compile(r"[;&|()]+|\n")
PREFIXES = {"sudo", "env", "time", "timeout", "nohup", "exec", "command", "xargs", "then", "do", "else", "!", "{"}
TAKES_VALUE = {"-C", "-c", "--git-dir", "--work-tree"}
FETCHING = {"fetch", "pull", "ls-remote", "reflog", "fsck", "verify-pack", "unpack-objects", "bundle", "fast-export"}
"""Commands of git that are for nothing but other commits."""
READING = {
    "log",
    "show",
    "diff",
    "rev-list",
    "show-ref",
    "for-each-ref",
    "shortlog",
    "describe",
    "grep",
    "checkout",
    "cherry-pick",
}
EVERYTHING = re.compile(
    r"--(all|branches|remotes|tags|reflog|walk-reflogs)(=.*)?|-g|(.*\.\.)?(origin|upstream)/.*|FETCH_HEAD|ORIG_HEAD.*"
)
STORE = re.compile(r"\.git/(packed-refs|logs|objects|refs/remotes|ORIG_HEAD|FETCH_HEAD)")
LOCAL = re.compile(r"\.|\.?\.?/.*|\.\[.*|file:.*|.*\.whl|.*\.tar\.gz")
REMOTE = re.compile(r"(https?|ftp|git|ssh)://(?!localhost\b|127\.|\[::1\]|0\.0\.0\.0)|\w+@[\w.-]+:")
GRADER = re.compile(
    r"FAIL_TO_PASS|PASS_TO_PASS|\bswe-?bench\b|/eval\.sh\b|\b(test|gold|golden|solution)\.(patch|diff)\b"
    r"|find\s+/(?!testbed)\S*\s[^|;&\n]*-i?name\s+\S*(patch|diff|gold|solution)|/var/tmp/(base|work)\."
)


def leak_use(command: str) -> tuple[str, ...]:
    """`kind: command` for each kind of leak that a shell command looks for."""
    text = HERE_DOCUMENT.sub(r"\3", command)
    kinds = {kind for words in _simple_commands(text) if (kind := _kind(words))}
    if STORE.search(text):
        kinds.add("history")
    if GRADER.search(text):
        kinds.add("grader")
    shown = " ".join(command.split())[:SHOWN_CHARACTERS]
    return tuple(f"{kind}: {shown}" for kind in sorted(kinds))


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


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a line of them, from the program's name on."""
    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        for word in [*lexer, ";"]:
            if not ENDS.fullmatch(word):
                words.append(word)
                continue
            yield _program(words)
            words = []
    except ValueError:  # A quotation that does not end.
        for part in ENDS.split(text):
            yield _program(part.split())


def _program(words: list[str]) -> list[str]:
    """Words without what stands before the program: assignments, and programs that run others."""
    place = 0
    while place < len(words) and (words[place] in PREFIXES or re.match(r"\w+=|\d+$|-", words[place])):
        place += 1
    return [name.rsplit("/", 1)[-1] for name in words[place : place + 1]] + words[place + 1 :]


def _kind(words: list[str]) -> str:
    if not words:
        return ""
    name, rest = words[0], words[1:]
    if name == "git":
        return "history" if _looks_beyond(rest) else ""
    if re.fullmatch(r"python[\d.]*", name) and rest[:2] == ["-m", "pip"]:
        name, rest = "pip", rest[2:]
    if name == "uv" and rest[:1] == ["pip"]:
        name, rest = "pip", rest[1:]
    if re.fullmatch(r"pip[\d.]*", name):
        return "index" if _asks_index(rest) else ""
    if name in ("conda", "mamba", "poetry", "npm", "yarn", "uv", "easy_install", "uvx", "pipx"):
        return "index" if name == "easy_install" or {"install", "add", "view", "search", "run"} & set(rest[:1]) else ""
    if name == "gh" or (name in ("curl", "wget", "aria2c", "lynx") and any(REMOTE.search(word) for word in rest)):
        return "network"
    return ""


def _looks_beyond(arguments: list[str]) -> bool:
    """Whether a command of git asks for more than the commit that is checked out."""
    place = 0
    while place < len(arguments) and arguments[place].startswith("-"):
        place += 2 if arguments[place] in TAKES_VALUE else 1
    name, rest = (arguments[place] if place < len(arguments) else ""), arguments[place + 1 :]
    if name == "clone":
        return any(REMOTE.search(word) for word in rest)
    if name == "branch":
        return any(word in ("-a", "-r", "--all", "--remotes", "-av", "-avv", "-rv") for word in rest)
    if name == "cat-file":
        return "--batch-all-objects" in rest
    if name in ("remote", "submodule"):
        return rest[:1] == ["update"]
    return name in FETCHING or (name in READING and any(EVERYTHING.fullmatch(word) for word in rest))


def _asks_index(arguments: list[str]) -> bool:
    """Whether a command of pip asks an index for packages by name."""
    name = next((word for word in arguments if not word.startswith("-")), "")
    if name in ("download", "index", "search"):
        return True
    if name not in ("install", "wheel") or "--no-index" in arguments:
        return False
    wanted = arguments[arguments.index(name) + 1 :]
    named = [word for word in wanted if not word.startswith("-")]
    return any(not LOCAL.fullmatch(word) for word in named)
