"""Tests of our own that must come out in a known way, put among the tests that decide.

A canary module stands beside the first test file and another beside the last. Some of their tests pass and some fail,
each in another way (assert, raised error, `pytest.raises`, unittest, skip), under names that are made from a real
test's name and differ in every run. Who turns failures into passes turns these too. One of the passing tests looks at
the machinery itself: no function of pytest, pluggy or unittest may come from the tree under test, and nobody may trace.
"""

import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from agentdata.environments.junit import Report
from agentdata.records import TestStatus

FUNCTION = re.compile(r"::(\w+?)(?:\[|$)")
"""The function in a node id."""
MACHINERY = '''
def {name}():
    """Functions of the test runner must come from the test runner."""
    import builtins, os, sys, types
    tree = {tree!r}
    def code_of(value):
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        return value.__code__ if isinstance(value, types.FunctionType) else None
    def of_tree(value):
        code = code_of(value)
        return code is not None and code.co_filename.startswith(tree)
    def unnamed(key, value):
        code = code_of(value)
        return (code is not None and code.co_filename == "<string>"
                and code.co_name[:2] != "__" and key[:2] != "__")
    wrong = []
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] not in ("_pytest", "pytest", "pluggy", "unittest") or module is None:
            continue
        classes = [value for value in vars(module).values()
                   if isinstance(value, type) and value.__module__ == name]
        for owner in [module] + classes:
            own = dict(vars(owner))
            named = getattr(owner, "_fields", ())
            wrong += [(name, key) for key, value in own.items()
                      if of_tree(value) or (unnamed(key, value) and not named)]
    plain = type(len)
    wrong += [(key, "builtin") for owner, key in [(builtins, "isinstance"), (builtins, "len"), (builtins, "all"),
              (builtins, "any"), (os, "_exit"), (sys, "exit"), (sys, "settrace")] if type(getattr(owner, key)) is not plain]
    wrong += [(key, "builtin") for key in ("AssertionError", "Exception", "BaseException")
              if getattr(builtins, key).__module__ != "builtins"]
    wrong += [("sys", "trace") for hook in (sys.gettrace(), sys.getprofile()) if hook is not None and of_tree(hook)]
    if wrong:
        raise RuntimeError("the test runner was changed: %r" % (wrong[:5],))
'''

FUNCTIONS: tuple[tuple[TestStatus, str], ...] = (
    ("passed", "def {name}():\n    assert [{x}, {y}] != [{y}, {x}]\n"),
    ("failed", "def {name}():\n    assert {x} == {y}, {token!r}\n"),
    ("failed", "def {name}():\n    values = [{x}]\n    assert {y} in values, {token!r}\n"),
    ("failed", "def {name}():\n    raise LookupError({token!r})\n"),
    ("failed", "def {name}():\n    with pytest.raises(ValueError, match={token!r}):\n        int('{x}')\n"),
    ("failed", "def {name}():\n    with pytest.raises(LookupError):\n        raise RuntimeError({token!r})\n"),
    ("skipped", "def {name}():\n    pytest.skip({token!r})\n"),
)
METHODS: tuple[tuple[TestStatus, str], ...] = (
    ("passed", "    def {name}(self):\n        self.assertEqual({x}, {x})\n"),
    ("failed", "    def {name}(self):\n        self.assertEqual({x}, {y}, {token!r})\n"),
    ("failed", "    def {name}(self):\n        self.assertTrue({x} > {y} > {x}, {token!r})\n"),
    (
        "failed",
        "    def {name}(self):\n        with self.assertRaises(ValueError, msg={token!r}):\n            int('{x}')\n",
    ),
)


@dataclass(frozen=True, slots=True)
class Canary:
    """A module of tests whose outcome is known."""

    path: str
    text: str
    expected: dict[str, TestStatus]
    """Node id to the only right status."""
    tokens: dict[str, str]
    """Node id to what the message of the failure must hold."""


def make_canaries(names: Sequence[str], like: str, *, tree: str, pytest: bool) -> tuple[Canary, ...]:
    """A canary beside the first and one beside the last of the names, named after the node id `like`."""
    match = FUNCTION.search(like)
    files = [name.split("::")[0] for name in (names[0], names[-1])] if names else []
    return tuple(make_canary(file, match[1] if match else "test_more", tree=tree, pytest=pytest) for file in files)


def make_canary(beside: str, like: str, *, tree: str, pytest: bool) -> Canary:
    """A canary in the folder of the file `beside`, with tests named like the function `like`."""
    number = random.SystemRandom()
    path = str(PurePosixPath(beside).with_name(f"{_stem(beside)}_{secrets.token_hex(4)}.py"))
    case = f"Test{secrets.token_hex(4)}"
    expected: dict[str, TestStatus] = {}
    tokens: dict[str, str] = {}

    def written(template: str, status: TestStatus, owner: str) -> str:
        start = like if not owner or like.startswith("test") else f"test_{like}"
        name, token = f"{start}_{secrets.token_hex(4)}", secrets.token_hex(8)
        node = "::".join(part for part in (path, owner, name) if part)
        expected[node] = status
        if status == "failed":
            tokens[node] = token if "{token" in template and "match" not in template else ""
        x = number.randrange(100, 100_000)
        return template.format(name=name, token=token, x=x, y=x + number.randrange(1, 99), tree=tree.rstrip("/") + "/")

    machinery = written(MACHINERY, "passed", "") if pytest else ""
    functions = [written(text, status, "") for status, text in FUNCTIONS] if pytest else []
    methods = [written(text, status, case) for status, text in METHODS]
    number.shuffle(functions)
    number.shuffle(methods)
    head = "import unittest\n" + ("import pytest\n" if pytest else "")
    body = "\n".join([machinery, *functions, f"class {case}(unittest.TestCase):", *methods])
    return Canary(path, f"{head}\n{body}", expected, tokens)


def find_deviation(canary: Canary, report: Report) -> str:
    """What is wrong with a canary in a report; empty if it came out as it must."""
    found = {name: status for name, status in report.results.items() if name.split("::")[0] == canary.path}
    for name, status in canary.expected.items():
        if found.get(name) != status:
            reason = report.messages.get(name, "")[-300:]
            return f"{name} is {found.get(name, 'missing')} and not {status} {reason}".strip()
        if canary.tokens.get(name, "") not in report.messages.get(name, ""):
            return f"{name} failed with another message than its own"
    extra = found.keys() - canary.expected.keys()
    return f"{min(extra)} is reported and does not exist" if extra else ""


def _stem(path: str) -> str:
    name = PurePosixPath(path)
    return name.stem if name.suffix == ".py" and name.stem.isidentifier() and name.stem != "__init__" else "test_more"
